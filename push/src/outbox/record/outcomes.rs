//! OUTCOMES: an order ended so on these devices.
//!
//! One per order and code of what was collected in a few milliseconds. Until it is on disk nobody is told, and no SETTLED
//! covers it.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 8 | number | of the order or of the attempt |
//! | 8 | 8 | root | of an attempt: number of the first order, lower; else 0 |
//! | 16 | 1 | code | how it ended: 1 to 9, 16 to 18, or 32 to 37 |
//! | 17 | 1 | first code | how it stands then: of DUPLICATE how it had ended before, if that is known; else the code, as a rule |
//! | 18 | 1 | lane | 0 to 3 |
//! | 19 | 1 | flags | 1 BY_DEVICE: in an OUTCOME of the device; 2 LAST: of codes 16 to 18, no further attempt is made; the rest zero |
//! | 20 | 4 | – | zero |
//! | 24 | – | targets | the devices |

use wire_format::bytes::Reader;
use wire_format::error::{Fault, ParseError};
use wire_format::frame::outcome::Code;
use wire_format::ids::Lane;

use super::super::marks::is_over;
use super::super::targets::Targets;
use super::{flags, kind, lane, not_zero, words};
use crate::mark::Mark;

const BY_DEVICE: u8 = 1;
const LAST: u8 = 2;

/// The record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::outbox) struct Outcomes {
    pub(in crate::outbox) number: u64,
    pub(in crate::outbox) root: u64,
    pub(in crate::outbox) code: Code,
    pub(in crate::outbox) first_code: Code,
    pub(in crate::outbox) lane: Lane,
    pub(in crate::outbox) by_device: bool,
    pub(in crate::outbox) last: bool,
    pub(in crate::outbox) targets: Targets,
}

impl Outcomes {
    /// The mark the report shows from then on.
    pub(in crate::outbox) const fn mark(&self) -> Mark {
        match Mark::attempt(self.first_code) {
            Some(mark) if !self.last => mark,
            _ => Mark::ended(self.first_code),
        }
    }

    pub(super) fn parse(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        let number = not_zero(reader, "number")?;
        let at = *reader;
        let root = reader.u64("root")?;
        if root >= number {
            return Err(at.error("root", Fault::Range));
        }
        let at = *reader;
        let (code, first_code) = (Code(reader.u8("code")?), Code(reader.u8("first code")?));
        if !is_over(Mark(code.0)) || !is_over(Mark(first_code.0)) {
            return Err(at.error("code", Fault::Range));
        }
        let lane = lane(reader)?;
        let flags = flags(reader, BY_DEVICE | LAST)?;
        reader.zeros("zero", 4)?;
        let (by_device, last) = (flags & BY_DEVICE != 0, flags & LAST != 0);
        Ok(Self { number, root, code, first_code, lane, by_device, last, targets: Targets::parse(reader)? })
    }

    pub(super) fn emit(&self, into: &mut Vec<u8>) -> u8 {
        words(into, &[self.number, self.root]);
        let by_device = if self.by_device { BY_DEVICE } else { 0 };
        let last = if self.last { LAST } else { 0 };
        into.extend_from_slice(&[
            self.code.0,
            self.first_code.0,
            self.lane as u8,
            by_device | last,
            0,
            0,
            0,
            0,
        ]);
        self.targets.emit(into);
        kind::OUTCOMES
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::super::super::marks::tests::marks;
    use super::*;

    pub(in crate::outbox::record) fn outcomes() -> impl Strategy<Value = Outcomes> {
        let codes = prop_oneof![1_u8..=9, 16_u8..=18, 32_u8..=37];
        let fields = (1_u64.., codes.clone(), codes, 0_u8..4, any::<[bool; 2]>(), marks());
        fields.prop_map(|(number, code, first, lane, [by_device, last], marks)| {
            let (code, first_code) = (Code(code), Code(first));
            let targets = marks.targets().clone();
            Outcomes {
                number,
                root: number / 2,
                code,
                first_code,
                lane: Lane::new(lane).unwrap(),
                by_device,
                last,
                targets,
            }
        })
    }

    #[test]
    fn a_duplicate_shows_what_it_was_first() {
        let ended = |code, first_code, last| {
            let targets = Targets::one(1).unwrap();
            Outcomes {
                number: 1,
                root: 0,
                code,
                first_code,
                lane: Lane::Bulk,
                by_device: true,
                last,
                targets,
            }
            .mark()
        };
        assert_eq!(ended(Code::DUPLICATE, Code::APPLIED, false), Mark::ended(Code::APPLIED));
        assert_eq!(ended(Code::DUPLICATE, Code::DUPLICATE, false), Mark::ended(Code::DUPLICATE));
        assert_eq!(ended(Code::BUSY, Code::BUSY, false), Mark::RETRY_BUSY);
        assert_eq!(ended(Code::DUPLICATE, Code::BUSY, false), Mark::RETRY_BUSY);
        assert_eq!(ended(Code::BUSY, Code::BUSY, true), Mark::ended(Code::BUSY));
    }
}
