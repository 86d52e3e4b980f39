//! The options of an ORDER: what few orders need, as a list of small entries.
//!
//! Each entry is a type (2 bytes), a length (2 bytes), the value, and zeros to a multiple of 4. Bit 15 of the type says
//! *critical*: who does not know such a type must not apply the order, and answers REJECTED_PAYLOAD. Others are skipped.
//! A known type may stand once; its critical bit is not looked at.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 2 | option type | bit 15 critical, the rest the number |
//! | 2 | 2 | option length | bytes of the value |
//! | 4 | – | value | by type |
//! | – | 0–3 | padding | zero, to a multiple of 4 |
//!
//! RETRY (0x0001), value of 12 bytes: this order repeats an attempt that ended.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 8 | first number | number of the first attempt, never 0 |
//! | 8 | 2 | attempt | 1 for the first repetition |
//! | 10 | 2 | zero | zero |
//!
//! PARTS (0x8002), value of 44 bytes: the payload came as PARTs, the inline payload is empty.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 8 | blob | the blob's id, never 0 |
//! | 8 | 4 | blob size | bytes of the blob, 1 to 8,388,608 |
//! | 12 | 32 | sha-256 | of the whole blob |

use super::part::BLOB_MAX;
use crate::bytes::{Reader, Writer};
use crate::error::{EmitError, Fault, ParseError};

const CRITICAL: u16 = 0x8000;
const RETRY: u16 = 1;
const RETRY_LEN: usize = 12;
const PARTS: u16 = 2;
const PARTS_LEN: usize = 44;
const _: () = assert!(2 * 4 + RETRY_LEN + PARTS_LEN <= super::order::OPTIONS_MAX, "all fit together");

/// An option this version knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderOption {
    /// The order repeats an attempt that ended with BUSY, NO_SPACE or FAILED_RETRYABLE.
    Retry {
        /// Number of the first attempt, never 0.
        first: u64,
        /// 1 for the first repetition.
        attempt: u16,
    },
    /// The payload came as PARTs.
    Parts {
        /// The blob's id, never 0.
        blob: u64,
        /// Bytes of the blob, 1 to 8,388,608.
        size: u32,
        /// SHA-256 of the whole blob.
        sha256: [u8; 32],
    },
}

impl OrderOption {
    /// Writes the entry; bytes written, a multiple of 4.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let mut writer = Writer::new(buffer);
        match *self {
            Self::Retry { first: 0, .. } => return Err(EmitError::Invalid { field: "first number" }),
            Self::Retry { attempt: 0, .. } => return Err(EmitError::Invalid { field: "attempt" }),
            Self::Parts { blob: 0, .. } => return Err(EmitError::Invalid { field: "blob" }),
            Self::Parts { size: 0, .. } => return Err(EmitError::Invalid { field: "blob size" }),
            Self::Parts { size, .. } if size > BLOB_MAX => {
                return Err(EmitError::TooLarge { field: "blob size", limit: BLOB_MAX as usize });
            }
            Self::Retry { first, attempt } => {
                writer.u16(RETRY);
                writer.u16(RETRY_LEN as u16);
                writer.u64(first);
                writer.u16(attempt);
                writer.u16(0);
            }
            Self::Parts { blob, size, sha256 } => {
                writer.u16(CRITICAL | PARTS);
                writer.u16(PARTS_LEN as u16);
                writer.u64(blob);
                writer.u32(size);
                writer.bytes(&sha256);
            }
        }
        writer.finish()
    }

    fn parse(number: u16, value: &mut Reader<'_>) -> Result<Self, ParseError> {
        if number == RETRY {
            let at = *value;
            let first = value.u64("first number")?;
            if first == 0 {
                return Err(at.error("first number", Fault::Range));
            }
            let at = *value;
            let attempt = value.u16("attempt")?;
            if attempt == 0 {
                return Err(at.error("attempt", Fault::Range));
            }
            value.zeros("zero", 2)?;
            return Ok(Self::Retry { first, attempt });
        }
        let at = *value;
        let blob = value.u64("blob")?;
        if blob == 0 {
            return Err(at.error("blob", Fault::Range));
        }
        let at = *value;
        let size = value.u32("blob size")?;
        if !(1..=BLOB_MAX).contains(&size) {
            return Err(at.error("blob size", Fault::Range));
        }
        Ok(Self::Parts { blob, size, sha256: *value.array("sha-256")? })
    }
}

/// The known options in `bytes`, an order's option bytes, in their order; after an error there are no more.
///
/// ```
/// use wire_format::frame::order::{OrderOption, options};
/// let retry = OrderOption::Retry { first: 7, attempt: 1 };
/// let mut buffer = [0; 16];
/// let len = retry.emit(&mut buffer)?;
/// assert!(options(&buffer[..len]).eq([Ok(retry)]));
/// # Ok::<(), wire_format::error::EmitError>(())
/// ```
#[must_use]
pub const fn options(bytes: &[u8]) -> Options<'_> {
    Options { reader: Reader::new(bytes), seen: 0 }
}

/// See [`options`].
#[derive(Clone, Debug)]
pub struct Options<'a> {
    reader: Reader<'a>,
    /// A bit per known number.
    seen: u8,
}

impl Options<'_> {
    /// One entry; `None` for one to skip.
    fn entry(&mut self) -> Result<Option<OrderOption>, ParseError> {
        let reader = &mut self.reader;
        let at = *reader;
        let kind = reader.u16("option type")?;
        let at_length = *reader;
        let length = usize::from(reader.u16("option length")?);
        let mut value = Reader::at(reader.bytes("value", length)?, reader.offset().wrapping_sub(length));
        reader.zeros("padding", length.wrapping_neg() & 3)?;
        let number = kind & !CRITICAL;
        let known_length = match number {
            RETRY => RETRY_LEN,
            PARTS => PARTS_LEN,
            _ if kind & CRITICAL != 0 => return Err(at.error("option type", Fault::UnknownCritical)),
            _ => return Ok(None),
        };
        if length != known_length {
            return Err(at_length.error("option length", Fault::Length));
        }
        if self.seen & (1 << number) != 0 {
            return Err(at.error("option type", Fault::Repeated));
        }
        self.seen |= 1 << number;
        OrderOption::parse(number, &mut value).map(Some)
    }
}

impl Iterator for Options<'_> {
    type Item = Result<OrderOption, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.reader.rest().is_empty() {
            match self.entry() {
                Ok(None) => {}
                Ok(Some(option)) => return Some(Ok(option)),
                Err(error) => {
                    self.reader = Reader::new(&[]);
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

impl core::iter::FusedIterator for Options<'_> {}
