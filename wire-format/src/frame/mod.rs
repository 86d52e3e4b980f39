//! The frames of order push (TCP 8081): one file each, in the order of the specification's table.

pub mod ack;
pub mod bye;
mod codes;
pub mod drain;
pub mod header;
pub mod hello;
pub mod order;
pub mod outcome;
pub mod ping;
pub mod reject;
pub mod rows;
pub mod settled;
pub mod welcome;

pub use ack::Ack;
pub use bye::Bye;
pub use drain::Drain;
pub use header::{Flags, Header, Kind};
pub use hello::Hello;
pub use order::Order;
pub use outcome::Outcome;
pub use ping::{Ping, Pong};
pub use reject::Reject;
pub use settled::Settled;
pub use welcome::Welcome;

use crate::bytes::Writer;
use crate::crc;
use crate::error::{EmitError, Fault, ParseError};

/// Bytes of the checksum that ends every non-empty body but ORDER's.
pub const CHECKSUM_LEN: usize = 4;

/// A frame cut out of the byte stream: a header that was right, and exactly the body it announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raw<'a> {
    /// The header.
    pub header: Header,
    /// The body, not judged yet.
    pub body: &'a [u8],
}

impl<'a> Raw<'a> {
    /// Reads one frame that fills `bytes` exactly. For streams see [`crate::splitter`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let Some((head, body)) = bytes.split_first_chunk::<{ header::LEN }>() else {
            return Err(ParseError::new("header", bytes.len(), Fault::Truncated));
        };
        let header = Header::parse(head)?;
        match (body.len() as u64).cmp(&u64::from(header.length)) {
            core::cmp::Ordering::Less => Err(ParseError::new("body", bytes.len(), Fault::Truncated)),
            core::cmp::Ordering::Equal => Ok(Self { header, body }),
            core::cmp::Ordering::Greater => Err(ParseError::new("length", 0, Fault::Length)),
        }
    }

    /// Bytes of the whole frame.
    #[must_use]
    pub const fn len(&self) -> usize {
        header::LEN.saturating_add(self.body.len())
    }

    /// Never: a frame has a header.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// The body without the checksum in its last 4 bytes, once that matched.
    pub fn checked_body(&self) -> Result<&'a [u8], ParseError> {
        let at = self.len().saturating_sub(CHECKSUM_LEN);
        let Some((covered, checksum)) = self.body.split_last_chunk::<CHECKSUM_LEN>() else {
            return Err(ParseError::new("body", header::LEN, Fault::Truncated));
        };
        if crc::crc32c(covered) == u32::from_le_bytes(*checksum) {
            Ok(covered)
        } else {
            Err(ParseError::new("body checksum", at, Fault::Checksum))
        }
    }

    /// The body must be empty.
    pub fn expect_no_body(&self) -> Result<(), ParseError> {
        if self.body.is_empty() { Ok(()) } else { Err(ParseError::new("length", 0, Fault::Length)) }
    }
}

impl Header {
    /// The frame is of this kind, and no flag but those in `allowed` is set. (IGNORABLE is for kinds that came later: on
    /// a known one it is refused.)
    pub fn expect(&self, kind: Kind, allowed: Flags) -> Result<(), ParseError> {
        if self.kind != kind {
            Err(ParseError::new("kind", 4, Fault::Misplaced))
        } else if self.flags.bits() & !allowed.bits() != 0 {
            Err(ParseError::new("flags", 5, Fault::NotZero))
        } else {
            Ok(())
        }
    }

    /// `aux16` has no meaning for this kind.
    pub fn expect_aux16_zero(&self) -> Result<(), ParseError> {
        if self.aux16 == 0 { Ok(()) } else { Err(ParseError::new("aux16", 6, Fault::NotZero)) }
    }

    /// `aux32` has no meaning for this kind.
    pub fn expect_aux32_zero(&self) -> Result<(), ParseError> {
        if self.aux32 == 0 { Ok(()) } else { Err(ParseError::new("aux32", 8, Fault::NotZero)) }
    }
}

impl Header {
    /// `aux16` counts the rows of the body: 1 to `limit`.
    pub(crate) fn count(&self, limit: usize) -> Result<usize, ParseError> {
        let count = usize::from(self.aux16);
        match count {
            0 => Err(ParseError::new("aux16", 6, Fault::Range)),
            _ if count > limit => Err(ParseError::new("aux16", 6, Fault::TooMany)),
            _ => Ok(count),
        }
    }
}

/// A number of rows as `aux16`: 1 to `limit`.
pub(crate) fn emit_count(count: usize, limit: usize) -> Result<u16, EmitError> {
    match u16::try_from(count) {
        Ok(0) => Err(EmitError::Invalid { field: "aux16" }),
        Ok(number) if count <= limit => Ok(number),
        _ => Err(EmitError::TooLarge { field: "aux16", limit }),
    }
}

/// Writes a frame whose body ends in its checksum: `body` fills in what comes before it. Bytes written.
pub(crate) fn emit_checked(
    header: Header,
    buffer: &mut [u8],
    body: impl FnOnce(&mut Writer<'_>),
) -> Result<usize, EmitError> {
    let mut writer = Writer::new(buffer);
    writer.zeros(header::LEN);
    body(&mut writer);
    let length = writer.len().saturating_sub(header::LEN).saturating_add(CHECKSUM_LEN);
    if let Some(covered) = writer.written().and_then(|bytes| bytes.get(header::LEN..)) {
        let checksum = crc::crc32c(covered);
        writer.u32(checksum);
    } else {
        writer.zeros(CHECKSUM_LEN);
    }
    let header = Header { length: u32::try_from(length).unwrap_or(u32::MAX), ..header };
    writer.patch(0, &header.emit());
    writer.finish()
}

/// Writes a frame that is its header alone. Bytes written.
pub(crate) fn emit_bare(header: Header, buffer: &mut [u8]) -> Result<usize, EmitError> {
    let mut writer = Writer::new(buffer);
    writer.bytes(&Header { length: 0, ..header }.emit());
    writer.finish()
}
