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
//! PARTS (0x8002), value of 44 bytes: the payload comes as PARTs, the inline payload is empty, the
//! lane is 3.
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
    /// The payload comes as PARTs.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    const RETRY_OPTION: OrderOption = OrderOption::Retry { first: 7, attempt: 2 };
    const PARTS_OPTION: OrderOption = OrderOption::Parts { blob: 3, size: 9_000, sha256: [0xAB; 32] };

    fn emit(options: &[OrderOption]) -> Vec<u8> {
        options.iter().flat_map(|option| testing::emit(|buffer| option.emit(buffer))).collect()
    }

    fn only_error(bytes: &[u8]) -> ParseError {
        let mut options = options(bytes);
        let error = options.next().unwrap().unwrap_err();
        assert_eq!(options.next(), None, "nothing comes after an error");
        error
    }

    #[test]
    fn golden_vector() {
        let bytes = testing::vector("ORDER options");
        assert_eq!(emit(&[RETRY_OPTION, PARTS_OPTION]), bytes);
        assert!(options(&bytes).eq([Ok(RETRY_OPTION), Ok(PARTS_OPTION)]));
        assert!(options(&[]).eq([]));
    }

    #[test]
    fn unknown_ones_are_skipped_unless_critical() {
        let mut bytes = vec![0x10, 0, 3, 0, 1, 2, 3, 0];
        bytes.extend(emit(&[RETRY_OPTION]));
        assert!(options(&bytes).eq([Ok(RETRY_OPTION)]));
        bytes[1] = 0x80;
        assert_eq!(only_error(&bytes), ParseError::new("option type", 0, Fault::UnknownCritical));
        bytes[1] = 0;
        bytes[7] = 1;
        assert_eq!(only_error(&bytes), ParseError::new("padding", 7, Fault::NotZero));
    }

    #[test]
    fn what_is_refused_and_where() {
        let bytes = emit(&[RETRY_OPTION, PARTS_OPTION]);
        let fault = |range: core::ops::Range<usize>, at: usize, value: &[u8]| {
            let mut bytes = bytes.clone();
            bytes[at..at + value.len()].copy_from_slice(value);
            options(&bytes[range.clone()]).find_map(Result::err).unwrap()
        };
        let error = ParseError::new;
        assert_eq!(fault(0..16, 2, &[11]), error("option length", 2, Fault::Length));
        assert_eq!(fault(0..16, 2, &[13]), error("value", 4, Fault::Truncated));
        assert_eq!(fault(0..16, 4, &[0; 8]), error("first number", 4, Fault::Range));
        assert_eq!(fault(0..16, 12, &[0; 2]), error("attempt", 12, Fault::Range));
        assert_eq!(fault(0..16, 14, &[1]), error("zero", 14, Fault::NotZero));
        assert_eq!(fault(0..64, 20, &[0; 8]), error("blob", 20, Fault::Range));
        assert_eq!(fault(0..64, 28, &[0; 4]), error("blob size", 28, Fault::Range));
        assert_eq!(fault(0..64, 28, &(BLOB_MAX + 1).to_le_bytes()), error("blob size", 28, Fault::Range));
        let twice = emit(&[RETRY_OPTION, RETRY_OPTION]);
        assert!(options(&twice).eq([Ok(RETRY_OPTION), Err(error("option type", 16, Fault::Repeated))]));
    }

    #[test]
    fn limits_and_one_past_each() {
        let parts = |size| OrderOption::Parts { blob: 1, size, sha256: [0; 32] };
        assert!(options(&emit(&[parts(BLOB_MAX)])).eq([Ok(parts(BLOB_MAX))]));
        let mut buffer = [0; 64];
        let too_large = EmitError::TooLarge { field: "blob size", limit: 8_388_608 };
        assert_eq!(parts(BLOB_MAX + 1).emit(&mut buffer), Err(too_large));
        for (wrong, field) in [
            (parts(0), "blob size"),
            (OrderOption::Parts { blob: 0, size: 1, sha256: [0; 32] }, "blob"),
            (OrderOption::Retry { first: 0, attempt: 1 }, "first number"),
            (OrderOption::Retry { first: 1, attempt: 0 }, "attempt"),
        ] {
            assert_eq!(wrong.emit(&mut buffer), Err(EmitError::Invalid { field }));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(0_u8..4, 0..=256)) {
            proptest::prop_assert!(options(&bytes).count() <= 64);
        }

        #[test]
        fn round_trip(
            first in 1_u64.., attempt in 1_u16.., blob in 1_u64.., size in 1..=BLOB_MAX, sha256: [u8; 32],
            skipped in proptest::collection::vec(0_u8.., 0..20),
        ) {
            let known = [OrderOption::Retry { first, attempt }, OrderOption::Parts { blob, size, sha256 }];
            let mut bytes = vec![0x77, 0, skipped.len() as u8, 0];
            bytes.extend(&skipped);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes.extend(emit(&known));
            proptest::prop_assert!(options(&bytes).eq(known.map(Ok)));
            for cut in 0..bytes.len() {
                let whole = options(&bytes[..cut]).filter(Result::is_ok).count();
                proptest::prop_assert!(whole < 2);
            }
        }
    }
}
