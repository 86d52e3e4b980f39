//! The identities and small vocabularies both protocols share (specification, "Identities").

use core::fmt;
use core::str::FromStr;

use crate::crc;

/// A text that is not an id, a store code, a kind or a tag. Says what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Neither 32 hexadecimal digits nor a GUID.
    #[error("an id is 32 hexadecimal digits or a GUID such as 6f9619ff-8b86-d011-b42d-00c04fc964ff")]
    NodeId,
    /// The all-zero id names nobody.
    #[error("the all-zero id is reserved and names nobody")]
    Zero,
    /// Empty, longer than 32 bytes, or with control characters.
    #[error("a store code is 1 to 32 bytes of text without control characters")]
    StoreCode,
    /// Empty, longer than 15 bytes, or with control characters.
    #[error("a tag is 1 to 15 bytes of text without control characters or commas")]
    Tag,
    /// More than 8 tags, or more than 48 bytes together.
    #[error("at most 8 tags and 48 bytes of them, a length byte each included")]
    Tags,
    /// Neither the name of a kind nor a number.
    #[error("a device kind is a name (till, kiosk, signage, …) or a number from 0 to 65534")]
    DeviceKind,
}

/// Who a node is: 16 bytes, stable for the life of an installation, never all zero. On the wire as they stand.
///
/// Shown as 32 lower-case hexadecimal digits; read from those or from a GUID's text form, digit by digit in the order
/// written.
///
/// ```
/// use wire_format::ids::NodeId;
/// let id: NodeId = "6f9619ff-8b86-d011-b42d-00c04fc964ff".parse()?;
/// assert_eq!(id.to_string(), "6f9619ff8b86d011b42d00c04fc964ff");
/// # Ok::<(), wire_format::ids::IdError>(())
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 16]);

impl NodeId {
    /// Nobody: "not known yet" in a HELLO, a fault everywhere else.
    pub const NONE: Self = Self([0; 16]);

    /// Whether this is [`NodeId::NONE`].
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }

    /// The id as one number, for hashing.
    #[must_use]
    pub const fn as_u128(self) -> u128 {
        u128::from_le_bytes(self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NodeId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let text = text.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).unwrap_or(text);
        let guid = text.len() == 36;
        let mut id = [0; 16];
        let mut digits = 0_usize;
        for (at, &byte) in text.as_bytes().iter().enumerate() {
            if guid && matches!(at, 8 | 13 | 18 | 23) {
                if byte != b'-' {
                    return Err(IdError::NodeId);
                }
                continue;
            }
            let digit = char::from(byte).to_digit(16).ok_or(IdError::NodeId)?;
            let slot = id.get_mut(digits / 2).ok_or(IdError::NodeId)?;
            *slot = (*slot << 4) | u8::try_from(digit).unwrap_or(0);
            digits = digits.wrapping_add(1);
        }
        match (digits, Self(id)) {
            (32, Self::NONE) => Err(IdError::Zero),
            (32, id) => Ok(id),
            _ => Err(IdError::NodeId),
        }
    }
}

/// A short text kept in place: at most `N` bytes of UTF-8 without control characters. Never allocates.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<const N: usize> {
    len: u8,
    bytes: [u8; N],
}

impl<const N: usize> Text<N> {
    /// The empty text.
    pub const EMPTY: Self = Self { len: 0, bytes: [0; N] };

    /// A copy of `text`, or `None` if it is longer than `N` bytes or holds a control character.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        const { assert!(N <= 255) };
        if text.chars().any(char::is_control) {
            return None;
        }
        let mut bytes = [0; N];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Self { len: u8::try_from(text.len()).ok()?, bytes })
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(self.as_bytes()).unwrap_or("")
    }

    /// The text's bytes, UTF-8.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// A display name: at most 32 bytes.
pub type Name = Text<32>;

/// The product's code of a device, as people read it off a label or a screen: at most 16 bytes. Shown, never compared.
pub type DeviceCode = Text<16>;

/// Which shop: the legal entity's number and the store's code (1 to 32 bytes). Both must match for two nodes to talk.
///
/// ```
/// use wire_format::ids::Store;
/// let store = Store::new(7, "PARIS-12")?;
/// assert_ne!(store.scope(), Store::new(8, "PARIS-12")?.scope());
/// # Ok::<(), wire_format::ids::IdError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Store {
    entity: u32,
    code: Text<32>,
}

impl Store {
    /// The store `code` of the legal entity `entity`.
    pub fn new(entity: u32, code: &str) -> Result<Self, IdError> {
        match Text::new(code) {
            Some(code) if !code.is_empty() => Ok(Self { entity, code }),
            _ => Err(IdError::StoreCode),
        }
    }

    /// The legal entity's number.
    #[must_use]
    pub const fn entity(&self) -> u32 {
        self.entity
    }

    /// The store's code.
    #[must_use]
    pub fn code(&self) -> &str {
        self.code.as_str()
    }

    /// The header's fast filter: CRC-32C of the entity (4 bytes, little-endian) and the code; never 0, which means "not
    /// provisioned" (a result of 0 becomes 1). A match proves nothing: the full STORE entry is compared as well.
    #[must_use]
    pub fn scope(&self) -> u32 {
        crc::append(crc::crc32c(&self.entity.to_le_bytes()), self.code().as_bytes()).max(1)
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.entity, self.code)
    }
}

/// What a device is. Numbers 0 to 5 are the product line's, 6 to 9 ours, 0x8000 and above the integrator's; an unknown
/// number is kept and passed on. 0xFFFF in a datagram's role field is the store server and no device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceKind(pub u16);

impl DeviceKind {
    /// A till.
    pub const TILL: Self = Self(0);
    /// The central till.
    pub const CENTRAL_TILL: Self = Self(1);
    /// A self-service kiosk.
    pub const KIOSK: Self = Self(2);
    /// A digital signage screen.
    pub const SIGNAGE: Self = Self(3);
    /// A staff tablet.
    pub const TABLET: Self = Self(4);
    /// A device of a customer.
    pub const CLIENT: Self = Self(5);
    /// A logistics system (order preparation, warehouse).
    pub const LOGISTICS: Self = Self(6);
    /// A printer.
    pub const PRINTER: Self = Self(7);
    /// A payment terminal.
    pub const PAYMENT: Self = Self(8);
    /// A gateway to further devices.
    pub const GATEWAY: Self = Self(9);
    /// The first number free for integrators.
    pub const CUSTOM: Self = Self(0x8000);
    /// Not a device: the store server, in the role field of a datagram.
    pub const SERVER: Self = Self(0xFFFF);

    const NAMES: [(Self, &'static str); 10] = [
        (Self::TILL, "till"),
        (Self::CENTRAL_TILL, "central-till"),
        (Self::KIOSK, "kiosk"),
        (Self::SIGNAGE, "signage"),
        (Self::TABLET, "tablet"),
        (Self::CLIENT, "client"),
        (Self::LOGISTICS, "logistics"),
        (Self::PRINTER, "printer"),
        (Self::PAYMENT, "payment"),
        (Self::GATEWAY, "gateway"),
    ];
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(kind, _)| kind == self) {
            Some((_, name)) => f.pad(name),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for DeviceKind {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if let Some((kind, _)) = Self::NAMES.iter().find(|(_, name)| *name == text) {
            return Ok(*kind);
        }
        match text.parse().map(Self) {
            Ok(kind) if kind != Self::SERVER => Ok(kind),
            _ => Err(IdError::DeviceKind),
        }
    }
}

/// A device's tags, packed as on the wire: each a length byte and its text. At most 8 tags and 48 bytes.
///
/// ```
/// use wire_format::ids::Tags;
/// let tags = Tags::new(["bakery", "self-service"])?;
/// assert!(tags.contains("bakery"));
/// assert_eq!(tags.iter().count(), 2);
/// # Ok::<(), wire_format::ids::IdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tags {
    len: u8,
    bytes: [u8; Self::BYTES_MAX],
}

impl Tags {
    /// No tags.
    pub const EMPTY: Self = Self { len: 0, bytes: [0; Self::BYTES_MAX] };
    /// Bytes of all tags together, their length bytes included.
    pub const BYTES_MAX: usize = 48;
    /// Tags of one device.
    pub const COUNT_MAX: usize = 8;
    /// Bytes of one tag.
    pub const TAG_BYTES_MAX: usize = 15;

    /// The given tags, in their order.
    pub fn new<'t>(tags: impl IntoIterator<Item = &'t str>) -> Result<Self, IdError> {
        let mut packed = Self::EMPTY;
        for tag in tags {
            packed.push(tag)?;
        }
        Ok(packed)
    }

    /// Adds a tag; one that is there already changes nothing.
    pub fn push(&mut self, tag: &str) -> Result<(), IdError> {
        let clean = !tag.chars().any(|c| c.is_control() || c == ',');
        let (len @ 1..=15, true) = (tag.len(), clean) else { return Err(IdError::Tag) };
        if self.contains(tag) {
            return Ok(());
        }
        let start = usize::from(self.len);
        let end = start.saturating_add(1).saturating_add(len);
        if self.iter().count() >= Self::COUNT_MAX {
            return Err(IdError::Tags);
        }
        let Some([first, rest @ ..]) = self.bytes.get_mut(start..end) else { return Err(IdError::Tags) };
        *first = u8::try_from(len).unwrap_or(0);
        rest.copy_from_slice(tag.as_bytes());
        self.len = u8::try_from(end).unwrap_or(self.len);
        Ok(())
    }

    /// Tags from their packed form; `None` if it breaks a rule.
    #[must_use]
    pub fn from_packed(mut packed: &[u8]) -> Option<Self> {
        let mut tags = Self::EMPTY;
        while let Some((&len, rest)) = packed.split_first() {
            let (tag, rest) = rest.split_at_checked(usize::from(len))?;
            let before = tags.len;
            tags.push(str::from_utf8(tag).ok()?).ok()?;
            if tags.len == before {
                return None;
            }
            packed = rest;
        }
        Some(tags)
    }

    /// The packed form.
    #[must_use]
    pub fn as_packed(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }

    /// The tags in their order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let mut packed = self.as_packed();
        core::iter::from_fn(move || {
            let (&len, rest) = packed.split_first()?;
            let (tag, rest) = rest.split_at_checked(usize::from(len))?;
            packed = rest;
            str::from_utf8(tag).ok()
        })
    }

    /// Whether `tag` is one of them.
    #[must_use]
    pub fn contains(&self, tag: &str) -> bool {
        self.iter().any(|own| own == tag)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Default for Tags {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl fmt::Debug for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The identity of one outbox history: 16 random bytes drawn when it begins. All zero means there is none.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Lineage(pub [u8; 16]);

impl Lineage {
    /// No log of this sort.
    pub const NONE: Self = Self([0; 16]);

    /// Whether this is [`Lineage::NONE`].
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        NodeId(self.0).fmt(f)
    }
}

impl fmt::Debug for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A priority class: first in, first out inside a lane, strictly lower numbers first between lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Lane {
    /// 0: recalls, cancellations.
    Urgent = 0,
    /// 1: somebody is waiting: click-and-collect, questions.
    Interactive = 1,
    /// 2: everything else.
    #[default]
    Normal = 2,
    /// 3: large transfers, only when nothing else is due.
    Bulk = 3,
}

impl Lane {
    /// All lanes, most urgent first.
    pub const ALL: [Self; 4] = [Self::Urgent, Self::Interactive, Self::Normal, Self::Bulk];

    /// The lane with this number.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Urgent),
            1 => Some(Self::Interactive),
            2 => Some(Self::Normal),
            3 => Some(Self::Bulk),
            _ => None,
        }
    }

    /// The lane's number, as an index.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What an order asks for. 0x0001 to 0x7FFF are the standard kinds of [`OrderKind::NAMES`], 0x8000 and above the
/// integrator's. An unknown kind is refused by the device with an outcome, never by the codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderKind(pub u16);

impl OrderKind {
    /// Fetch the content again (prices aside: see [`OrderKind::PRICE_LIST`]).
    pub const REFRESH_CONTENT: Self = Self(0x0001);
    /// Show a page.
    pub const SHOW_PAGE: Self = Self(0x0002);
    /// A message to the staff at the device.
    pub const MESSAGE: Self = Self(0x0003);
    /// Restart the application.
    pub const RESTART_APP: Self = Self(0x0004);
    /// Fetch and install firmware.
    pub const UPDATE_FIRMWARE: Self = Self(0x0005);
    /// Print a document.
    pub const PRINT: Self = Self(0x0006);
    /// Take over a price list.
    pub const PRICE_LIST: Self = Self(0x0007);
    /// Prepare a click-and-collect order.
    pub const PREPARE_COLLECT: Self = Self(0x0008);
    /// Take over a customer's cart from another device.
    pub const TRANSFER_CART: Self = Self(0x0009);
    /// Answer how many of an article are there, now.
    pub const STOCK_QUESTION: Self = Self(0x000A);
    /// The first number free for integrators.
    pub const CUSTOM: Self = Self(0x8000);

    /// The standard kinds and their names.
    pub const NAMES: [(Self, &'static str); 10] = [
        (Self::REFRESH_CONTENT, "refresh-content"),
        (Self::SHOW_PAGE, "show-page"),
        (Self::MESSAGE, "message"),
        (Self::RESTART_APP, "restart-app"),
        (Self::UPDATE_FIRMWARE, "update-firmware"),
        (Self::PRINT, "print"),
        (Self::PRICE_LIST, "price-list"),
        (Self::PREPARE_COLLECT, "prepare-collect"),
        (Self::TRANSFER_CART, "transfer-cart"),
        (Self::STOCK_QUESTION, "stock-question"),
    ];
}

impl fmt::Display for OrderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(kind, _)| kind == self) {
            Some((_, name)) => f.pad(name),
            None => write!(f, "0x{:04x}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_ids_read_hex_and_guid_only() {
        let id = "0123456789abcdef0123456789ABCDEF".parse::<NodeId>().unwrap();
        assert_eq!(id.to_string(), "0123456789abcdef0123456789abcdef");
        assert_eq!("{01234567-89ab-cdef-0123-456789abcdef}".parse(), Ok(id));
        for wrong in ["", "0123", "01234567-89ab-cdef-0123-456789abcde", "0123456789abcdef0123456789abcdefg"]
        {
            assert_eq!(wrong.parse::<NodeId>(), Err(IdError::NodeId), "{wrong}");
        }
        assert_eq!("é123456789abcdef0123456789abcde".parse::<NodeId>(), Err(IdError::NodeId));
        assert_eq!("00000000000000000000000000000000".parse::<NodeId>(), Err(IdError::Zero));
    }

    #[test]
    fn store_codes_at_the_limit_and_one_past_it() {
        assert!(Store::new(0, &"x".repeat(32)).is_ok());
        for wrong in ["", "a\nb", &"x".repeat(33)] {
            assert_eq!(Store::new(0, wrong), Err(IdError::StoreCode), "{wrong:?}");
        }
    }

    #[test]
    fn tags_at_their_limits_and_one_past_each() {
        assert!(Tags::new(["x".repeat(15).as_str()]).is_ok());
        assert_eq!(Tags::new(["x".repeat(16).as_str()]), Err(IdError::Tag));
        assert_eq!(Tags::new(["a,b"]), Err(IdError::Tag));
        let nine = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
        assert!(Tags::new(nine.into_iter().take(8)).is_ok());
        assert_eq!(Tags::new(nine), Err(IdError::Tags));
        let mut full =
            Tags::new(["a".repeat(15).as_str(), "b".repeat(15).as_str(), "c".repeat(15).as_str()]).unwrap();
        assert_eq!(full.push("d"), Err(IdError::Tags), "48 bytes are used");
    }

    #[test]
    fn packed_tags_come_back_and_broken_ones_do_not() {
        let tags = Tags::new(["bakery", "till-2"]).unwrap();
        assert_eq!(Tags::from_packed(tags.as_packed()), Some(tags));
        assert_eq!(Tags::from_packed(b"\x01a\x01a"), None, "a repeated tag");
        assert_eq!(Tags::from_packed(b"\x00"), None, "an empty tag");
        assert_eq!(Tags::from_packed(b"\x05abc"), None, "cut short");
        assert_eq!(Tags::from_packed(b"\x01\xFF"), None, "not UTF-8");
    }

    #[test]
    fn kinds_keep_unknown_numbers() {
        assert_eq!("kiosk".parse(), Ok(DeviceKind::KIOSK));
        assert_eq!("4711".parse(), Ok(DeviceKind(4711)));
        assert_eq!(DeviceKind(4711).to_string(), "4711");
        assert_eq!("65535".parse::<DeviceKind>(), Err(IdError::DeviceKind));
        assert_eq!(OrderKind(0x8001).to_string(), "0x8001");
    }
}
