//! RETRY: an order is tried again, on the devices where an attempt ended as busy and the like.
//!
//! It is an order of its own with what the first one carries; how it ends on a device is how the first one ends there.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 8 | number | of this attempt |
//! | 8 | 8 | root | number of the first order, lower |
//! | 16 | 8 | not before | the age of the outbox before which it is not sent |
//! | 24 | 2 | attempt | 1 for the first repetition |
//! | 26 | 1 | groups | how many groups of marks follow |
//! | 27 | 1 | lane | 0 to 3 |
//! | 28 | 1 | flags | 1 CANCELLED; 2 CARRIED: written again, its order knows of it already; the rest zero |
//! | 29 | 3 | – | zero |
//! | 32 | – | marks | groups as under Marks |

use wire_format::bytes::Reader;
use wire_format::error::{Fault, ParseError};
use wire_format::ids::Lane;

use super::super::marks::Marks;
use super::{flags, kind, lane, not_zero, words};

const CANCELLED: u8 = 1;
const CARRIED: u8 = 2;

/// The record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::outbox) struct Retry {
    pub(in crate::outbox) number: u64,
    pub(in crate::outbox) root: u64,
    pub(in crate::outbox) not_before_ms: u64,
    pub(in crate::outbox) attempt: u16,
    pub(in crate::outbox) lane: Lane,
    pub(in crate::outbox) cancelled: bool,
    pub(in crate::outbox) carried: bool,
    pub(in crate::outbox) marks: Marks,
}

impl Retry {
    pub(super) fn parse(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        let number = not_zero(reader, "number")?;
        let at = *reader;
        let root = not_zero(reader, "root")?;
        if root >= number {
            return Err(at.error("root", Fault::Range));
        }
        let not_before_ms = reader.u64("not before")?;
        let at = *reader;
        let (attempt, groups) = (reader.u16("attempt")?, reader.u8("groups")?);
        if attempt == 0 {
            return Err(at.error("attempt", Fault::Range));
        }
        let lane = lane(reader)?;
        let flags = flags(reader, CANCELLED | CARRIED)?;
        let (cancelled, carried) = (flags & CANCELLED != 0, flags & CARRIED != 0);
        reader.zeros("zero", 3)?;
        Ok(Self {
            number,
            root,
            not_before_ms,
            attempt,
            lane,
            cancelled,
            carried,
            marks: Marks::parse(reader, groups)?,
        })
    }

    pub(super) fn emit(&self, into: &mut Vec<u8>) -> u8 {
        words(into, &[self.number, self.root, self.not_before_ms]);
        into.extend_from_slice(&self.attempt.to_le_bytes());
        let groups = into.len();
        let flags = if self.cancelled { CANCELLED } else { 0 } | if self.carried { CARRIED } else { 0 };
        into.extend_from_slice(&[0, self.lane as u8, flags, 0, 0, 0]);
        let count = self.marks.emit(into);
        into.iter_mut().skip(groups).take(1).for_each(|groups| *groups = count);
        kind::RETRY
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::super::super::marks::tests::marks;
    use super::*;

    pub(in crate::outbox::record) fn retries() -> impl Strategy<Value = Retry> {
        let fields =
            (1_u64..1 << 40, 1_u64..1 << 40, any::<u64>(), 1_u16.., 0_u8..4, any::<[bool; 2]>(), marks());
        fields.prop_map(|(root, more, not_before_ms, attempt, lane, [cancelled, carried], marks)| {
            let lane = Lane::new(lane).unwrap();
            Retry { number: root + more, root, not_before_ms, attempt, lane, cancelled, carried, marks }
        })
    }

    #[test]
    fn an_attempt_comes_after_its_order() {
        let marks = Marks::same(super::super::super::Targets::one(4).unwrap(), crate::mark::Mark::PENDING);
        let lane = Lane::Normal;
        let good = Retry {
            number: 9,
            root: 8,
            not_before_ms: 0,
            attempt: 1,
            lane,
            cancelled: false,
            carried: false,
            marks,
        };
        let read = |retry: &Retry| {
            let mut bytes = vec![];
            retry.emit(&mut bytes);
            Retry::parse(&mut Reader::new(&bytes)).map_err(|error| error.field)
        };
        assert_eq!(read(&good), Ok(good.clone()));
        assert_eq!(read(&Retry { root: 9, ..good.clone() }), Err("root"));
        assert_eq!(read(&Retry { attempt: 0, ..good }), Err("attempt"));
    }
}
