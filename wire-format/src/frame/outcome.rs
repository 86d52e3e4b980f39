//! OUTCOME: the final results of orders.
//!
//! The device sends it when orders have ended, many in one frame if they end together. It implies receipt. Until SETTLED
//! covers an entry the device keeps it, and sends it again first thing in the next session.
//!
//! ```text
//! server                          device
//!   │── ORDER 7, ORDER 9 ─────────▶│
//!   │◀──────────────── OUTCOME 7,9 │  in log order inside a lane
//!   │── SETTLED 9 ────────────────▶│
//! ```
//!
//! Header: flag DURABLE says which log; `aux16` the number of entries n, 1 to 64; `aux32` zero. Body:
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 16 n | entries | rows as below |
//! | 16 n | 4 | checksum | CRC-32C of the body before it |
//!
//! An entry:
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 8 | number | the order's number, never 0 |
//! | 8 | 1 | code | 1 to 9 or 16 to 18 |
//! | 9 | 1 | detail | DUPLICATE: the first code, any but DUPLICATE, 0 if forgotten; else the device's own reason, 0 none |
//! | 10 | 1 | lane | 0 to 3 |
//! | 11 | 1 | zero | zero |
//! | 12 | 4 | ms | codes 1 to 9: milliseconds from receipt to end; 16 to 18: before which another attempt is useless |

use super::codes::codes;
use super::rows::{Row, Rows};
use super::{Flags, Header, Kind, Raw, emit_checked, emit_count, header};
use crate::bytes::{put_u8, put_u32, put_u64, u8_at, u32_at, u64_at};
use crate::error::{EmitError, Fault, ParseError};
use crate::ids::Lane;

mod field {
    pub(super) const NUMBER: usize = 0;
    pub(super) const CODE: usize = 8;
    pub(super) const DETAIL: usize = 9;
    pub(super) const LANE: usize = 10;
    pub(super) const ZERO: usize = 11;
    pub(super) const MS: usize = 12;
}

/// Bytes of one entry.
pub const ENTRY_LEN: usize = 16;
/// Entries of one frame: four default windows.
pub const ENTRIES_MAX: usize = 64;
/// Bytes of the largest body.
pub const BODY_MAX: usize = ENTRIES_MAX * ENTRY_LEN + super::CHECKSUM_LEN;
const _: () = assert!(field::MS + 4 == ENTRY_LEN);

codes! {
    /// How an order ended on one device.
    ///
    /// 1 to 9 are final. 16 to 18 end an attempt: the server makes another under a new number until the lifetime is over.
    /// 32 and above are given by the server alone and refused on the wire.
    Code(u8) {
        /// It took effect.
        APPLIED = 1, "applied";
        /// It had ended before; the detail is how, as far as that is still known.
        DUPLICATE = 2, "duplicate";
        /// A newer one under the same supersede key had been applied.
        SUPERSEDED = 3, "superseded";
        /// Its lifetime was over before it could start.
        EXPIRED = 4, "expired";
        /// A CANCEL came before its start.
        CANCELLED = 5, "cancelled";
        /// The device does not know the kind.
        REJECTED_KIND = 6, "rejected-kind";
        /// The device knows the kind and cannot read this payload.
        REJECTED_PAYLOAD = 7, "rejected-payload";
        /// It was tried and failed for good.
        FAILED = 8, "failed";
        /// The device was interrupted between start and end of an order that must not run twice.
        IN_DOUBT = 9, "in-doubt";
        /// Attempt over: not now.
        BUSY = 16, "busy";
        /// Attempt over: no room for it.
        NO_SPACE = 17, "no-space";
        /// Attempt over: it failed in a way that may pass.
        FAILED_RETRYABLE = 18, "failed-retryable";
        /// Server: the device owed too many orders already.
        OVERFLOW = 32, "overflow";
        /// Server: the order was at work each time the device went down.
        POISON = 33, "poison";
        /// Server: larger than the device accepts.
        TOO_LARGE = 34, "too-large";
        /// Server: another server has taken the store over.
        FENCED = 35, "fenced";
        /// Server: the device was never meant.
        NOT_TARGETED = 36, "not-targeted";
        /// Server: written once, and nothing was heard of it for 7 days after its lifetime.
        UNKNOWN = 37, "unknown";
    }
}

impl Code {
    /// Whether a device may send it.
    #[inline]
    #[must_use]
    pub const fn is_wire(self) -> bool {
        matches!(self.0, 1..=9 | 16..=18)
    }

    /// Whether it ends only an attempt: the order is tried again.
    #[inline]
    #[must_use]
    pub const fn is_attempt_end(self) -> bool {
        matches!(self.0, 16..=18)
    }

    /// Whether it ends the order on that device.
    #[inline]
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self.0, 1..=9 | 32..=37)
    }
}

/// How one order ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The order's number.
    pub number: u64,
    /// How it ended.
    pub code: Code,
    /// DUPLICATE: the first code, 0 if forgotten. Else the device's own reason, 0 for none.
    pub detail: u8,
    /// The order's lane.
    pub lane: Lane,
    /// Milliseconds from receipt to end; of an attempt's end: before which another is useless.
    pub ms: u32,
}

impl Row<ENTRY_LEN> for Entry {
    #[inline]
    fn parse(bytes: &[u8; ENTRY_LEN]) -> Result<Self, ParseError> {
        let error = |field, at, fault| Err(ParseError::new(field, at, fault));
        let number = u64_at::<{ field::NUMBER }, ENTRY_LEN>(bytes);
        if number == 0 {
            return error("number", field::NUMBER, Fault::Range);
        }
        let code = Code(u8_at::<{ field::CODE }, ENTRY_LEN>(bytes));
        if !code.is_wire() {
            return error("code", field::CODE, Fault::Range);
        }
        let detail = u8_at::<{ field::DETAIL }, ENTRY_LEN>(bytes);
        if code == Code::DUPLICATE && !matches!(detail, 0 | 1 | 3..=9 | 16..=18) {
            return error("detail", field::DETAIL, Fault::Range);
        }
        let Some(lane) = Lane::new(u8_at::<{ field::LANE }, ENTRY_LEN>(bytes)) else {
            return error("lane", field::LANE, Fault::Range);
        };
        if u8_at::<{ field::ZERO }, ENTRY_LEN>(bytes) != 0 {
            return error("zero", field::ZERO, Fault::NotZero);
        }
        Ok(Self { number, code, detail, lane, ms: u32_at::<{ field::MS }, ENTRY_LEN>(bytes) })
    }

    #[inline]
    fn emit(&self) -> [u8; ENTRY_LEN] {
        let mut bytes = [0; ENTRY_LEN];
        put_u64::<{ field::NUMBER }, ENTRY_LEN>(&mut bytes, self.number);
        put_u8::<{ field::CODE }, ENTRY_LEN>(&mut bytes, self.code.0);
        put_u8::<{ field::DETAIL }, ENTRY_LEN>(&mut bytes, self.detail);
        put_u8::<{ field::LANE }, ENTRY_LEN>(&mut bytes, self.lane as u8);
        put_u32::<{ field::MS }, ENTRY_LEN>(&mut bytes, self.ms);
        bytes
    }
}

/// The entries of an [`Outcome`].
pub type Entries<'a> = Rows<'a, Entry, ENTRY_LEN>;

/// How orders of one log ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome<'a> {
    /// The durable log is meant.
    pub durable: bool,
    /// 1 to 64 entries; inside a lane in log order.
    pub entries: Entries<'a>,
}

impl<'a> Outcome<'a> {
    /// Reads an OUTCOME frame.
    #[inline]
    pub fn parse(raw: &Raw<'a>) -> Result<Self, ParseError> {
        raw.header.expect(Kind::OUTCOME, Flags::DURABLE)?;
        raw.header.expect_aux32_zero()?;
        Ok(Self { durable: raw.header.flags.contains(Flags::DURABLE), entries: raw.rows(ENTRIES_MAX)? })
    }

    /// Writes the frame; bytes written.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        emit(self.durable, self.entries.iter(), buffer)
    }
}

/// Bytes of a frame with `entries` entries.
#[must_use]
pub const fn frame_len(entries: usize) -> usize {
    header::LEN.saturating_add(entries.saturating_mul(ENTRY_LEN)).saturating_add(super::CHECKSUM_LEN)
}

/// Writes an OUTCOME frame from entries as they come, 1 to 64 of them; bytes written.
pub fn emit(
    durable: bool,
    entries: impl ExactSizeIterator<Item = Entry>,
    buffer: &mut [u8],
) -> Result<usize, EmitError> {
    let header = Header {
        flags: Flags::NONE.with_if(Flags::DURABLE, durable),
        aux16: emit_count(entries.len(), ENTRIES_MAX)?,
        ..Header::new(Kind::OUTCOME, 0)
    };
    let mut checked = Ok(());
    let len = emit_checked(header, buffer, |writer| {
        for entry in entries {
            checked = checked.and_then(|()| entry.check());
            writer.bytes(&entry.emit());
        }
    });
    checked.and(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use proptest::prelude::{Strategy, prop_oneof};

    const ENTRIES: [Entry; 2] = [
        Entry { number: 7, code: Code::APPLIED, detail: 0, lane: Lane::Normal, ms: 12 },
        Entry { number: 9, code: Code::DUPLICATE, detail: 1, lane: Lane::Normal, ms: 0 },
    ];

    fn check(outcome: &Outcome<'_>) {
        let bytes = testing::emit(|buffer| outcome.emit(buffer));
        assert_eq!(bytes.len(), frame_len(outcome.entries.len()));
        assert_eq!(Outcome::parse(&Raw::parse(&bytes).unwrap()), Ok(*outcome));
        testing::frame(&bytes, |raw, buffer| Ok(Outcome::parse(raw)?.emit(buffer)));
    }

    #[test]
    fn golden_vector() {
        let bytes = testing::vector("OUTCOME");
        assert_eq!(testing::emit(|buffer| emit(true, ENTRIES.into_iter(), buffer)), bytes);
        let outcome = Outcome::parse(&Raw::parse(&bytes).unwrap()).unwrap();
        assert_eq!(outcome, Outcome { durable: true, entries: Entries::from(&ENTRIES) });
        assert_eq!(outcome.entries.iter().len(), 2);
        assert!(outcome.entries.into_iter().eq(ENTRIES));
    }

    #[test]
    fn what_is_refused_and_where() {
        let fault = |at: usize, byte| {
            let mut bytes = testing::vector("OUTCOME");
            bytes[at] = byte;
            testing::repair(&mut bytes);
            Outcome::parse(&Raw::parse(&bytes).unwrap()).unwrap_err()
        };
        let error = ParseError::new;
        assert_eq!(fault(6, 0), error("aux16", 6, Fault::Range));
        assert_eq!(fault(6, 1), error("aux16", 6, Fault::Length));
        assert_eq!(fault(6, 65), error("aux16", 6, Fault::TooMany));
        assert_eq!(fault(8, 1), error("aux32", 8, Fault::NotZero));
        assert_eq!(fault(16, 0), error("number", 16, Fault::Range));
        for server_only in 32..=37 {
            assert_eq!(fault(24, server_only), error("code", 24, Fault::Range));
        }
        for unknown in [0, 10, 15, 19] {
            assert_eq!(fault(40, unknown), error("code", 40, Fault::Range));
        }
        for detail in [2, 10, 15, 19, 32] {
            assert_eq!(fault(41, detail), error("detail", 41, Fault::Range));
        }
        assert_eq!(fault(26, 4), error("lane", 26, Fault::Range));
        assert_eq!(fault(27, 1), error("zero", 27, Fault::NotZero));
    }

    #[test]
    fn a_duplicate_may_be_of_an_ended_attempt_and_of_one_forgotten() {
        for detail in [0, 1, 3, 9, 16, 18] {
            let entries = [Entry { detail, ..ENTRIES[1] }];
            check(&Outcome { durable: false, entries: Entries::from(&entries) });
        }
    }

    #[test]
    fn limits_and_one_past_each() {
        let entries = [ENTRIES[0]; ENTRIES_MAX + 1];
        let full = Outcome { durable: false, entries: Entries::from(&entries[..ENTRIES_MAX]) };
        check(&full);
        assert_eq!(frame_len(ENTRIES_MAX), header::LEN + BODY_MAX);
        let mut buffer = [0; 2_048];
        for (wrong, error) in [
            (&entries[..], EmitError::TooLarge { field: "aux16", limit: ENTRIES_MAX }),
            (&[], EmitError::Invalid { field: "aux16" }),
            (&[Entry { number: 0, ..ENTRIES[0] }], EmitError::Invalid { field: "number" }),
            (&[Entry { code: Code::FENCED, ..ENTRIES[0] }], EmitError::Invalid { field: "code" }),
            (&[Entry { detail: 2, ..ENTRIES[1] }], EmitError::Invalid { field: "detail" }),
        ] {
            assert_eq!(emit(true, wrong.iter().copied(), &mut buffer), Err(error));
        }
    }

    #[test]
    fn codes_are_of_one_sort_each() {
        for number in 0..=u8::MAX {
            let code = Code(number);
            let named = code.name() != "unnamed";
            assert_eq!(named, code.is_final() || code.is_attempt_end(), "{number}");
            assert!(!(code.is_final() && code.is_attempt_end()), "{number}");
            assert_eq!(code.is_wire(), named && number < 32, "{number}");
        }
        assert_eq!(format!("{:>10}|{}", Code::IN_DOUBT, Code(99)), "  in-doubt|99");
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let code = prop_oneof![1_u8..=9, 16_u8..=18];
        (1_u64.., code, 3_u8..=9, 0_u8..4, 0_u32..).prop_map(|(number, code, detail, lane, ms)| Entry {
            number,
            code: Code(code),
            detail,
            lane: Lane::new(lane).unwrap(),
            ms,
        })
    }

    proptest::proptest! {
        #![proptest_config(testing::config())]
        #[test]
        fn round_trip(durable: bool, entries in proptest::collection::vec(entry(), 1..=12)) {
            check(&Outcome { durable, entries: Entries::from(&entries[..]) });
        }
    }
}
