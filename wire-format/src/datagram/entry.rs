//! The values of the short TLVs.

use core::fmt;

use super::text;
use crate::error::Fault;
use crate::ids::{IdError, Store, Tags};

/// Bytes of a store code or a name.
pub const TEXT_MAX: usize = 32;
/// Bytes of a device code.
pub const CODE_MAX: usize = 16;

/// A short text still in the datagram's bytes: 1 to 32 bytes of UTF-8 without control characters, so that a log may
/// print it as it stands.
///
/// ```
/// use wire_format::datagram::TextRef;
/// assert_eq!(TextRef::new("Kiosk 3").map(|text| text.as_str()), Some("Kiosk 3"));
/// assert_eq!(TextRef::new(""), None);
/// assert_eq!(TextRef::new("a\nb"), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TextRef<'a>(&'a [u8]);

impl<'a> TextRef<'a> {
    /// `text`, or `None` if it is empty, longer than 32 bytes or holds a control character.
    #[must_use]
    pub fn new(text: &'a str) -> Option<Self> {
        Self::parse(text.as_bytes()).ok()
    }

    #[inline]
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Fault> {
        if bytes.is_empty() || bytes.len() > TEXT_MAX {
            Err(Fault::Length)
        } else if text::is_clean(bytes) {
            Ok(Self(bytes))
        } else {
            Err(Fault::Text)
        }
    }

    /// The text. (Checked again, since `unsafe` is forbidden: some nanoseconds. To compare, compare the values.)
    #[must_use]
    pub fn as_str(&self) -> &'a str {
        str::from_utf8(self.0).unwrap_or("")
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.0
    }
}

impl fmt::Display for TextRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for TextRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// CODE: the product's code of a device, 1 to 16 bytes of clean text, still in the datagram's bytes.
///
/// ```
/// use wire_format::datagram::CodeRef;
/// assert_eq!(CodeRef::new("KIO-0003").map(|code| code.as_str()), Some("KIO-0003"));
/// assert_eq!(CodeRef::new("seventeen letters"), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CodeRef<'a>(TextRef<'a>);

impl<'a> CodeRef<'a> {
    /// `code`, or `None` if it is empty, longer than 16 bytes or holds a control character.
    #[must_use]
    pub fn new(code: &'a str) -> Option<Self> {
        Self::parse(code.as_bytes()).ok()
    }

    #[inline]
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Fault> {
        if bytes.len() > CODE_MAX { Err(Fault::Length) } else { TextRef::parse(bytes).map(Self) }
    }

    /// The code.
    #[must_use]
    pub fn as_str(&self) -> &'a str {
        self.0.as_str()
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.0.as_bytes()
    }
}

impl fmt::Display for CodeRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for CodeRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// STORE: which shop the sender belongs to. The header's scope is only a fast filter, this is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StoreRef<'a> {
    /// The legal entity's number.
    pub entity: u32,
    /// The store's code.
    pub code: TextRef<'a>,
}

impl<'a> StoreRef<'a> {
    #[inline]
    pub(super) fn parse(value: &'a [u8]) -> Result<Self, Fault> {
        let (entity, code) = value.split_first_chunk().ok_or(Fault::Length)?;
        Ok(Self { entity: u32::from_le_bytes(*entity), code: TextRef::parse(code)? })
    }

    /// Whether it is `store`.
    #[must_use]
    pub fn is(&self, store: &Store) -> bool {
        self.entity == store.entity() && self.code.as_bytes() == store.code().as_bytes()
    }
}

impl<'a> From<&'a Store> for StoreRef<'a> {
    fn from(store: &'a Store) -> Self {
        Self { entity: store.entity(), code: TextRef(store.code().as_bytes()) }
    }
}

impl TryFrom<StoreRef<'_>> for Store {
    type Error = IdError;

    fn try_from(store: StoreRef<'_>) -> Result<Self, IdError> {
        Self::new(store.entity, store.code.as_str())
    }
}

/// TAGS: a device's tags in their packed form, each a length byte and its text; 1 to 48 bytes, at most 8 tags.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TagsRef<'a>(&'a [u8]);

impl<'a> TagsRef<'a> {
    /// The tags of `tags`; `None` if there is none, for then the TLV is left out.
    #[must_use]
    pub fn new(tags: &'a Tags) -> Option<Self> {
        if tags.is_empty() { None } else { Some(Self(tags.as_packed())) }
    }

    #[inline]
    pub(super) fn parse(packed: &'a [u8]) -> Result<Self, Fault> {
        Self::check(packed).map(|()| Self(packed))
    }

    #[inline]
    fn check(packed: &[u8]) -> Result<(), Fault> {
        if packed.is_empty() || packed.len() > Tags::BYTES_MAX {
            return Err(Fault::Length);
        }
        let (mut rest, mut count, mut seen) = (packed, 0_usize, 0_u64);
        while let Some((&len, behind)) = rest.split_first() {
            let (tag, after) = behind.split_at_checked(usize::from(len)).ok_or(Fault::Length)?;
            let Some(&first) = tag.first().filter(|_| tag.len() <= Tags::TAG_BYTES_MAX) else {
                return Err(Fault::Length);
            };
            if !text::is_clean_tag(tag) {
                return Err(Fault::Text);
            }
            // Two tags that are the same have the same bit; few others do.
            let bit = 1_u64 << ((first ^ len << 4) & 63);
            if seen & bit != 0 && is_repeated(packed, rest, tag) {
                return Err(Fault::Repeated);
            }
            seen |= bit;
            count = count.wrapping_add(1);
            rest = after;
        }
        if count > Tags::COUNT_MAX { Err(Fault::TooMany) } else { Ok(()) }
    }

    /// The tags in their order.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            let (tag, after) = split_tag(rest)?;
            rest = after;
            str::from_utf8(tag).ok()
        })
    }

    /// The packed form.
    #[must_use]
    pub const fn as_packed(&self) -> &'a [u8] {
        self.0
    }

    /// A copy that outlives the datagram.
    #[must_use]
    pub fn to_tags(self) -> Tags {
        Tags::from_packed(self.0).unwrap_or_default()
    }
}

/// Whether `tag`, the first of `rest`, stands in `packed` before it as well.
#[cold]
fn is_repeated(packed: &[u8], rest: &[u8], tag: &[u8]) -> bool {
    let mut earlier = packed;
    while let Some((before, next)) = split_tag(earlier).filter(|_| earlier.len() > rest.len()) {
        if before == tag {
            return true;
        }
        earlier = next;
    }
    false
}

/// The first tag and what follows it.
#[inline]
fn split_tag(packed: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&len, rest) = packed.split_first()?;
    rest.split_at_checked(usize::from(len))
}

impl fmt::Debug for TagsRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// FIRMWARE: what runs on the sender. Both numbers are the product's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Firmware {
    /// The release.
    pub version: u32,
    /// The build of that release.
    pub build: u32,
}

/// NONCE: 8 or 16 bytes that come back as they were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Nonce {
    /// 8 bytes.
    Short([u8; 8]),
    /// 16 bytes.
    Long([u8; 16]),
}

impl Nonce {
    /// A nonce of these bytes; `None` if they are neither 8 nor 16.
    #[inline]
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes.as_chunks::<8>() {
            ([short], []) => Some(Self::Short(*short)),
            _ => bytes.try_into().ok().map(Self::Long),
        }
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short(bytes) => bytes,
            Self::Long(bytes) => bytes,
        }
    }
}

/// STATUS: what became of an announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The result.
    pub code: super::ack::Code,
    /// Seconds after which a new announce makes sense; 0 leaves it to the device.
    pub retry_after_s: u8,
    /// Meaning by code, 0 for none.
    pub detail: u16,
}

/// Bytes of an AUTH tag.
pub const TAG_LEN: usize = 16;

/// AUTH: a MAC over every byte before its tag. The codec carries it, it does not judge it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Which key.
    pub key_id: u16,
    /// Which algorithm: [`Auth::HMAC_SHA256_128`].
    pub algorithm: u8,
    /// The tag. Sent in two steps: [`Auth::open`], then [`super::seal`] over what was emitted.
    pub tag: &'a [u8; TAG_LEN],
}

impl Auth<'_> {
    /// Algorithm 1: HMAC-SHA-256, its first 16 bytes.
    pub const HMAC_SHA256_128: u8 = 1;

    /// A tag still to be computed, see [`super::seal`].
    #[must_use]
    pub const fn open(key_id: u16, algorithm: u8) -> Self {
        Self { key_id, algorithm, tag: &[0; TAG_LEN] }
    }
}
