//! The frames of order push (TCP 8081): one file each, in the order of the specification's table.

pub mod ack;
pub mod ask;
pub mod bye;
pub mod cancel;
mod codes;
pub mod drain;
pub mod header;
pub mod hello;
mod options;
pub mod order;
pub mod outcome;
pub mod part;
pub mod ping;
pub mod progress;
pub mod reject;
pub mod reply;
pub mod result;
pub mod rows;
pub mod settled;
pub mod status;
pub mod want;
pub mod welcome;
pub mod window;

pub use ack::Ack;
pub use ask::Ask;
pub use bye::Bye;
pub use cancel::Cancel;
pub use drain::Drain;
pub use header::{Flags, Header, Kind};
pub use hello::Hello;
pub use order::Order;
pub use outcome::Outcome;
pub use part::Part;
pub use ping::{Ping, Pong};
pub use progress::Progress;
pub use reject::Reject;
pub use reply::Reply;
pub use result::OrderResult;
pub use settled::Settled;
pub use status::Status;
pub use want::Want;
pub use welcome::Welcome;
pub use window::Window;

use crate::bytes::{Reader, Writer};
use crate::crc;
use crate::error::{EmitError, Fault, ParseError};
use order::Delivery;
use rows::{Row, Rows};

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
    #[inline]
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

/// Every frame of this version, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// The server opens.
    Hello(Hello),
    /// The device answers.
    Welcome(Welcome<'a>),
    /// No session.
    Reject(Reject),
    /// Do this.
    Order(Delivery, Order<'a>),
    /// A piece of a large payload.
    Part(Part<'a>),
    /// Do not do this any more.
    Cancel(Cancel<'a>),
    /// Received up to here.
    Ack(Ack),
    /// Final results.
    Outcome(Outcome<'a>),
    /// The payload of a result.
    Result(OrderResult<'a>),
    /// An order is on its way.
    Progress(Progress),
    /// New limits of the window.
    Window(Window),
    /// Outcomes up to here are safe.
    Settled(Settled),
    /// More of a large payload.
    Want(Want),
    /// A question.
    Ask(Ask<'a>),
    /// Its answer.
    Reply(Reply<'a>),
    /// What became of these orders.
    Status(Status<'a>),
    /// Are you there?
    Ping(Ping),
    /// I am.
    Pong(Pong),
    /// I shall leave.
    Drain(Drain),
    /// The last frame.
    Bye(Bye),
    /// A kind this version does not know, flagged [`Flags::IGNORABLE`]: skip and count it.
    Ignored(Kind),
}

impl<'a> Frame<'a> {
    /// Reads a frame by its kind, once its length is one the kind can have. An unknown kind is [`Frame::Ignored`] if it
    /// may be skipped, else the fault is [`Fault::UnknownKind`].
    pub fn parse(raw: &Raw<'a>) -> Result<Self, ParseError> {
        let header = &raw.header;
        let Some((least, most)) = header.kind.body_lens() else {
            return if header.flags.contains(Flags::IGNORABLE) {
                Ok(Self::Ignored(header.kind))
            } else {
                Err(ParseError::new("kind", 4, Fault::UnknownKind))
            };
        };
        if raw.body.len() < least || raw.body.len() > most {
            return Err(ParseError::new("length", 0, Fault::Length));
        }
        match header.kind {
            Kind::HELLO => Hello::parse(raw).map(Self::Hello),
            Kind::WELCOME => Welcome::parse(raw).map(Self::Welcome),
            Kind::REJECT => Reject::parse(raw).map(Self::Reject),
            Kind::ORDER => Order::parse(raw).map(|(delivery, order)| Self::Order(delivery, order)),
            Kind::PART => Part::parse(raw).map(Self::Part),
            Kind::CANCEL => Cancel::parse(raw).map(Self::Cancel),
            Kind::ACK => Ack::parse(raw).map(Self::Ack),
            Kind::OUTCOME => Outcome::parse(raw).map(Self::Outcome),
            Kind::RESULT => OrderResult::parse(raw).map(Self::Result),
            Kind::PROGRESS => Progress::parse(raw).map(Self::Progress),
            Kind::WINDOW => Window::parse(raw).map(Self::Window),
            Kind::SETTLED => Settled::parse(raw).map(Self::Settled),
            Kind::WANT => Want::parse(raw).map(Self::Want),
            Kind::ASK => Ask::parse(raw).map(Self::Ask),
            Kind::REPLY => Reply::parse(raw).map(Self::Reply),
            Kind::STATUS => Status::parse(raw).map(Self::Status),
            Kind::PING => Ping::parse(raw).map(Self::Ping),
            Kind::PONG => Pong::parse(raw).map(Self::Pong),
            Kind::DRAIN => Drain::parse(raw).map(Self::Drain),
            Kind::BYE => Bye::parse(raw).map(Self::Bye),
            _ => Err(ParseError::new("kind", 4, Fault::UnknownKind)),
        }
    }

    /// Writes the frame; bytes written. [`Frame::Ignored`] has nothing to write.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        match self {
            Self::Hello(frame) => frame.emit(buffer),
            Self::Welcome(frame) => frame.emit(buffer),
            Self::Reject(frame) => frame.emit(buffer),
            Self::Order(delivery, order) => order.emit(delivery, buffer),
            Self::Part(frame) => frame.emit(buffer),
            Self::Cancel(frame) => frame.emit(buffer),
            Self::Ack(frame) => frame.emit(buffer),
            Self::Outcome(frame) => frame.emit(buffer),
            Self::Result(frame) => frame.emit(buffer),
            Self::Progress(frame) => frame.emit(buffer),
            Self::Window(frame) => frame.emit(buffer),
            Self::Settled(frame) => frame.emit(buffer),
            Self::Want(frame) => frame.emit(buffer),
            Self::Ask(frame) => frame.emit(buffer),
            Self::Reply(frame) => frame.emit(buffer),
            Self::Status(frame) => frame.emit(buffer),
            Self::Ping(frame) => frame.emit(buffer),
            Self::Pong(frame) => frame.emit(buffer),
            Self::Drain(frame) => frame.emit(buffer),
            Self::Bye(frame) => frame.emit(buffer),
            Self::Ignored(_) => Err(EmitError::Invalid { field: "kind" }),
        }
    }
}

impl Kind {
    /// Bytes the body of this kind has, at least and at most; `None` for an unknown kind.
    #[must_use]
    pub const fn body_lens(self) -> Option<(usize, usize)> {
        Some(match self {
            Self::HELLO => (hello::BODY_LEN, hello::BODY_LEN),
            Self::WELCOME => (welcome::FIXED_LEN + CHECKSUM_LEN, welcome::BODY_MAX),
            Self::REJECT => (reject::BODY_LEN, reject::BODY_LEN),
            Self::ORDER => (order::FIXED_LEN, order::BODY_MAX),
            Self::PART => (part::FIXED_LEN + CHECKSUM_LEN, part::BODY_MAX),
            Self::CANCEL => (rows::NUMBER_LEN + CHECKSUM_LEN, cancel::BODY_MAX),
            Self::OUTCOME => (outcome::ENTRY_LEN + CHECKSUM_LEN, outcome::BODY_MAX),
            Self::RESULT => (result::FIXED_LEN + CHECKSUM_LEN, result::BODY_MAX),
            Self::PROGRESS => (progress::BODY_LEN, progress::BODY_LEN),
            Self::SETTLED => (settled::BODY_LEN, settled::BODY_LEN),
            Self::WANT => (want::BODY_LEN, want::BODY_LEN),
            Self::ASK | Self::REPLY => (ask::FIXED_LEN + CHECKSUM_LEN, ask::BODY_MAX),
            Self::STATUS => (rows::NUMBER_LEN + CHECKSUM_LEN, status::BODY_MAX),
            Self::ACK | Self::WINDOW | Self::PING | Self::PONG | Self::DRAIN | Self::BYE => (0, 0),
            _ => return None,
        })
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

impl<'a> Raw<'a> {
    /// The checked body as rows: as many as `aux16` says, 1 to `limit`.
    pub(crate) fn rows<T: Row<N>, const N: usize>(&self, limit: usize) -> Result<Rows<'a, T, N>, ParseError> {
        let count = usize::from(self.header.aux16);
        let error = |fault| Err(ParseError::new("aux16", 6, fault));
        if count == 0 {
            return error(Fault::Range);
        }
        if count > limit {
            return error(Fault::TooMany);
        }
        let rows = Rows::parse(self.checked_body()?, header::LEN)?;
        if rows.len() == count { Ok(rows) } else { error(Fault::Length) }
    }
}

/// The number of an order: never 0.
#[inline]
pub(crate) fn parse_number(reader: &mut Reader<'_>) -> Result<u64, ParseError> {
    let at = *reader;
    match reader.u64("number")? {
        0 => Err(at.error("number", Fault::Range)),
        number => Ok(number),
    }
}

/// A length of 4 bytes named `field`, `zeros` zero bytes, as many bytes as the length says, padding to a multiple of 4,
/// and nothing more.
pub(crate) fn parse_blob<'a>(
    reader: &mut Reader<'a>,
    field: &'static str,
    limit: usize,
    zeros: usize,
) -> Result<&'a [u8], ParseError> {
    let at = *reader;
    let length = reader.u32(field)? as usize;
    if length > limit {
        return Err(at.error(field, Fault::Range));
    }
    reader.zeros("zero", zeros)?;
    let Some((bytes, padding)) = reader.rest().split_at_checked(length) else {
        return Err(at.error(field, Fault::Length));
    };
    if padding.len() != length.wrapping_neg() & 3 {
        return Err(at.error(field, Fault::Length));
    }
    reader.bytes(field, length)?;
    reader.zeros("padding", padding.len())?;
    Ok(bytes)
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

#[cfg(test)]
mod tests;
