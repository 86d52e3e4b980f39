//! ORDER: an order was accepted.
//!
//! Written before a byte of it leaves. The frame is the one on the wire, with its full lifetime; its header says DURABLE.
//! Number, key, lane and lifetime stand in it and nowhere else.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 8 | accepted | the wall clock, milliseconds since 1970 |
//! | 8 | 8 | age | of the outbox, milliseconds it has been running in all |
//! | 16 | 1 | flags | 1 CANCELLED; the rest zero |
//! | 17 | 1 | groups | how many groups of marks follow: 1 when it is new, all PENDING |
//! | 18 | 2 | attempts | further attempts made so far |
//! | 20 | 4 | – | zero |
//! | 24 | – | marks | groups as under Marks |
//! | – | – | frame | the ORDER frame, and the PART frames of a large payload |

use wire_format::bytes::{Reader, u8_at, u64_at};
use wire_format::error::{Fault, ParseError};
use wire_format::frame::order::Order as WireOrder;
use wire_format::frame::{Flags, Header, Kind, Raw, header};
use wire_format::ids::Lane;

use super::super::marks::Marks;
use super::{flags, kind, words};

const CANCELLED: u8 = 1;
/// Bytes of the frame that are looked at.
const HEAD_LEN: usize = 64;

/// The frame of an order, as it is sent, and what it says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    bytes: &'a [u8],
    number: u64,
    key: u64,
    lane: Lane,
    lifetime_ms: Option<u32>,
}

impl<'a> Frame<'a> {
    /// Looks at the header and the fixed part. Options, payload and their checksum are judged by [`Frame::check`].
    ///
    /// An ORDER frame of the durable log that is no replay, with PART frames behind it or not.
    pub fn new(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let error = |field, at, fault| Err(ParseError::new(field, at, fault));
        let Some(head) = bytes.first_chunk::<HEAD_LEN>() else {
            return error("frame", bytes.len(), Fault::Truncated);
        };
        let Some(first) = head.first_chunk() else { return error("frame", 0, Fault::Truncated) };
        let header = Header::parse(first)?;
        let (length, number) = (header.length as usize, u64_at::<16, HEAD_LEN>(head));
        if header.kind != Kind::ORDER {
            return error("kind", 4, Fault::Mismatch);
        }
        if !header.flags.contains(Flags::DURABLE) || header.flags.contains(Flags::REPLAY) {
            return error("flags", 5, Fault::Mismatch);
        }
        if length < HEAD_LEN - header::LEN || bytes.len() - header::LEN < length {
            return error("length", 0, Fault::Length);
        }
        if header.aux32 == 0 {
            return error("lifetime", 8, Fault::Range);
        }
        if number == 0 {
            return error("number", 16, Fault::Range);
        }
        let Some(lane) = Lane::new(u8_at::<50, HEAD_LEN>(head)) else {
            return error("lane", 50, Fault::Range);
        };
        let lifetime_ms = (header.aux32 != u32::MAX).then_some(header.aux32);
        Ok(Self { bytes, number, key: u64_at::<24, HEAD_LEN>(head), lane, lifetime_ms })
    }

    /// Judges the whole ORDER frame, checksum and all.
    pub fn check(&self) -> Result<(), ParseError> {
        let length =
            self.bytes.first_chunk().map_or(Ok(0), |head| Header::parse(head).map(|head| head.length))?;
        let frame = self.bytes.get(..header::LEN + length as usize).unwrap_or_default();
        WireOrder::parse(&Raw::parse(frame)?).map(drop)
    }

    /// The frame, and what follows it.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Its number in the log.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// The application's key, 0 for none.
    #[must_use]
    pub const fn key(&self) -> u64 {
        self.key
    }

    /// Its lane.
    #[must_use]
    pub const fn lane(&self) -> Lane {
        self.lane
    }

    /// Its full lifetime in milliseconds; `None` for no end.
    #[must_use]
    pub const fn lifetime_ms(&self) -> Option<u32> {
        self.lifetime_ms
    }
}

/// The record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::outbox) struct Order<'a> {
    pub(in crate::outbox) accepted_ms: u64,
    pub(in crate::outbox) age_ms: u64,
    pub(in crate::outbox) cancelled: bool,
    pub(in crate::outbox) attempts: u16,
    pub(in crate::outbox) marks: Marks,
    pub(in crate::outbox) frame: Frame<'a>,
}

impl<'a> Order<'a> {
    pub(super) fn parse(reader: &mut Reader<'a>) -> Result<Self, ParseError> {
        let (accepted_ms, age_ms) = (reader.u64("accepted")?, reader.u64("age")?);
        let cancelled = flags(reader, CANCELLED)? != 0;
        let (groups, attempts) = (reader.u8("groups")?, reader.u16("attempts")?);
        reader.zeros("zero", 4)?;
        let marks = Marks::parse(reader, groups)?;
        let at = reader.offset();
        let bytes = reader.bytes("frame", reader.rest().len())?;
        let frame = Frame::new(bytes).map_err(|error| error.shifted(at))?;
        Ok(Self { accepted_ms, age_ms, cancelled, attempts, marks, frame })
    }

    pub(super) fn emit(&self, into: &mut Vec<u8>) -> u8 {
        words(into, &[self.accepted_ms, self.age_ms]);
        let groups = into.len() + 1;
        into.extend_from_slice(&[if self.cancelled { CANCELLED } else { 0 }, 0]);
        into.extend_from_slice(&self.attempts.to_le_bytes());
        into.extend_from_slice(&[0; 4]);
        let count = self.marks.emit(into);
        into.iter_mut().skip(groups).take(1).for_each(|groups| *groups = count);
        kind::ORDER
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use wire_format::frame::order::{Delivery, KindFlags};
    use wire_format::ids::OrderKind;

    use super::super::super::marks::tests::marks;
    use super::*;

    fn frame(number: u64, key: u64, lane: Lane, remaining_ms: Option<u32>, flags: (bool, bool)) -> Vec<u8> {
        let order = WireOrder {
            number,
            order_key: key,
            supersede_key: 0,
            supersede_version: 0,
            kind: OrderKind::MESSAGE,
            lane,
            kind_flags: KindFlags::IDEMPOTENT,
            schema: 1,
            options: &[],
            payload: b"hello",
        };
        let (durable, replay) = flags;
        let delivery = Delivery { durable, replay, needs_result: false, remaining_ms };
        let mut buffer = vec![0; 256];
        let len = order.emit(&delivery, &mut buffer).unwrap();
        buffer.truncate(len);
        buffer
    }

    pub(in crate::outbox::record) fn orders() -> impl Strategy<Value = Order<'static>> {
        let frames = (1_u64.., any::<u64>(), 0_u8..4, proptest::option::of(1..u32::MAX), 0_usize..40);
        let state = (any::<[u64; 2]>(), any::<bool>(), any::<u16>(), marks());
        (frames, state).prop_map(
            |((number, key, lane, lifetime, parts), (times, cancelled, attempts, marks))| {
                let mut bytes = frame(number, key, Lane::new(lane).unwrap(), lifetime, (true, false));
                bytes.resize(bytes.len() + parts, 0x5A);
                // A test may: it has few.
                let frame = Frame::new(Vec::leak(bytes)).unwrap();
                assert_eq!((frame.number(), frame.key(), frame.lifetime_ms()), (number, key, lifetime));
                let [accepted_ms, age_ms] = times;
                Order { accepted_ms, age_ms, cancelled, attempts, marks, frame }
            },
        )
    }

    #[test]
    fn a_frame_that_is_none_of_this_log_is_refused() {
        let fault = |bytes: &[u8]| Frame::new(bytes).map(|_| ()).unwrap_err().field;
        let good = frame(7, 9, Lane::Urgent, Some(5), (true, false));
        assert_eq!(Frame::new(&good).unwrap().check(), Ok(()));
        assert_eq!(fault(&frame(7, 9, Lane::Urgent, Some(5), (false, false))), "flags");
        assert_eq!(fault(&frame(7, 9, Lane::Urgent, Some(5), (true, true))), "flags");
        assert_eq!(fault(&good[..63]), "frame");
        assert_eq!(fault(&good[..good.len() - 1]), "length");
        assert_eq!(fault(&[good[..16].to_vec(), vec![0; 56]].concat()), "number");
        let mut changed = good.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert!(Frame::new(&changed).unwrap().check().is_err(), "the checksum is looked at here");
    }
}
