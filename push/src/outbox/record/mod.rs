//! What stands in the log of an outbox: twelve kinds of records.
//!
//! The log's record header says the kind and checks the bytes; here is what they mean. Numbers are little-endian. A layout
//! never changes: what needs another one gets another kind. A record of an unknown kind is kept out of everything and told.
//!
//! | kind | name | what it says | lives until |
//! | --- | --- | --- | --- |
//! | 1 | ORDER | an order was accepted, for these devices | it has ended on all of them, and its key is in a KEY |
//! | 2 | RETRY | an order is tried again on these devices, under another number | it has ended on all of them |
//! | 3 | CANCEL | an order is not to be carried out any more | – |
//! | 4 | OUTCOMES | an order ended so on these devices | – |
//! | 5 | DEVICE | a device, and its number | a newer one of this device, or REMOVED |
//! | 6 | REMOVED | a device is gone | – |
//! | 7 | SESSION | how far a device got | a newer one of this device, or REMOVED |
//! | 8 | FENCE | the fence this server holds | a newer one |
//! | 9 | RUN | the outbox was opened | 32 newer ones |
//! | 10 | KEY | a key whose order has ended | 7 days of running |
//! | 11 | MARK | how far the numbers and the clocks got | a newer one |
//! | 12 | NOTE | whatever the server wants to find again | a newer one under this id |
//!
//! CANCEL, OUTCOMES and REMOVED change what records before them say, and go when those are gone or were written again.

mod device;
mod order;
mod outcomes;
mod retry;
mod session;
mod single;

use wire_format::bytes::Reader;
use wire_format::error::{Fault, ParseError};
use wire_format::ids::Lane;

pub use device::Device;
pub use order::Frame;
pub(super) use order::Order;
pub(super) use outcomes::Outcomes;
pub(super) use retry::Retry;
pub use session::Session;
pub use single::NOTE_MAX;
pub(super) use single::{Key, Mark, Note, Run};

/// The kinds, as the log's record header has them.
pub(super) mod kind {
    pub(in crate::outbox) const ORDER: u8 = 1;
    pub(in crate::outbox) const RETRY: u8 = 2;
    pub(in crate::outbox) const CANCEL: u8 = 3;
    pub(in crate::outbox) const OUTCOMES: u8 = 4;
    pub(in crate::outbox) const DEVICE: u8 = 5;
    pub(in crate::outbox) const REMOVED: u8 = 6;
    pub(in crate::outbox) const SESSION: u8 = 7;
    pub(in crate::outbox) const FENCE: u8 = 8;
    pub(in crate::outbox) const RUN: u8 = 9;
    pub(in crate::outbox) const KEY: u8 = 10;
    pub(in crate::outbox) const MARK: u8 = 11;
    pub(in crate::outbox) const NOTE: u8 = 12;
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    Order(Order<'a>),
    Retry(Retry),
    Cancel { number: u64 },
    Outcomes(Outcomes),
    Device(Device),
    Removed { device: u32 },
    Session(Session),
    Fence { fence: u64 },
    Run(Run),
    Key(Key),
    Mark(Mark),
    Note(Note<'a>),
}

impl<'a> Record<'a> {
    /// Reads a record of this kind; all of its bytes must be used.
    pub(super) fn parse(kind: u8, body: &'a [u8]) -> Result<Self, ParseError> {
        let reader = &mut Reader::new(body);
        let record = match kind {
            kind::ORDER => Self::Order(Order::parse(reader)?),
            kind::RETRY => Self::Retry(Retry::parse(reader)?),
            kind::CANCEL => Self::Cancel { number: not_zero(reader, "number")? },
            kind::OUTCOMES => Self::Outcomes(Outcomes::parse(reader)?),
            kind::DEVICE => Self::Device(Device::parse(reader)?),
            kind::REMOVED => Self::Removed { device: device(reader)? },
            kind::SESSION => Self::Session(Session::parse(reader)?),
            kind::FENCE => Self::Fence { fence: reader.u64("fence")? },
            kind::RUN => Self::Run(Run::parse(reader)?),
            kind::KEY => Self::Key(Key::parse(reader)?),
            kind::MARK => Self::Mark(Mark::parse(reader)?),
            kind::NOTE => Self::Note(Note::parse(reader)?),
            _ => return Err(reader.error("kind", Fault::UnknownKind)),
        };
        reader.end("record")?;
        Ok(record)
    }

    /// Writes the record behind what is there; its kind. The frame of an ORDER and the bytes of a NOTE are not written:
    /// they follow as they are.
    pub(super) fn emit(&self, into: &mut Vec<u8>) -> u8 {
        match self {
            Self::Order(order) => order.emit(into),
            Self::Retry(retry) => retry.emit(into),
            Self::Cancel { number } => single(kind::CANCEL, *number, into),
            Self::Outcomes(outcomes) => outcomes.emit(into),
            Self::Device(device) => device.emit(into),
            Self::Removed { device } => {
                into.extend_from_slice(&device.to_le_bytes());
                kind::REMOVED
            }
            Self::Session(session) => session.emit(into),
            Self::Fence { fence } => single(kind::FENCE, *fence, into),
            Self::Run(run) => run.emit(into),
            Self::Key(key) => key.emit(into),
            Self::Mark(mark) => mark.emit(into),
            Self::Note(note) => single(kind::NOTE, note.id, into),
        }
    }

    /// What follows the record as it is.
    pub(super) const fn tail(&self) -> &'a [u8] {
        match self {
            Self::Order(order) => order.frame.bytes(),
            Self::Note(note) => note.bytes,
            _ => &[],
        }
    }
}

fn single(kind: u8, value: u64, into: &mut Vec<u8>) -> u8 {
    words(into, &[value]);
    kind
}

fn words(into: &mut Vec<u8>, values: &[u64]) {
    values.iter().for_each(|value| into.extend_from_slice(&value.to_le_bytes()));
}

fn not_zero(reader: &mut Reader<'_>, field: &'static str) -> Result<u64, ParseError> {
    let at = *reader;
    match reader.u64(field)? {
        0 => Err(at.error(field, Fault::Range)),
        value => Ok(value),
    }
}

fn device(reader: &mut Reader<'_>) -> Result<u32, ParseError> {
    let at = *reader;
    let device = reader.u32("device")?;
    if device < super::DEVICES_MAX { Ok(device) } else { Err(at.error("device", Fault::Range)) }
}

fn lane(reader: &mut Reader<'_>) -> Result<Lane, ParseError> {
    let at = *reader;
    Lane::new(reader.u8("lane")?).ok_or_else(|| at.error("lane", Fault::Range))
}

/// Flags of which only these may be set.
fn flags(reader: &mut Reader<'_>, known: u8) -> Result<u8, ParseError> {
    let at = *reader;
    let flags = reader.u8("flags")?;
    if flags & !known == 0 { Ok(flags) } else { Err(at.error("flags", Fault::NotZero)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One of each kind.
    fn records() -> impl Strategy<Value = Record<'static>> {
        prop_oneof![
            order::tests::orders().prop_map(Record::Order),
            retry::tests::retries().prop_map(Record::Retry),
            (1_u64..).prop_map(|number| Record::Cancel { number }),
            outcomes::tests::outcomes().prop_map(Record::Outcomes),
            device::tests::devices().prop_map(Record::Device),
            (0..super::super::DEVICES_MAX).prop_map(|device| Record::Removed { device }),
            session::tests::sessions().prop_map(Record::Session),
            any::<u64>().prop_map(|fence| Record::Fence { fence }),
            single::tests::runs().prop_map(Record::Run),
            single::tests::keys().prop_map(Record::Key),
            any::<[u64; 3]>().prop_map(|[head, wall_ms, age_ms]| Record::Mark(Mark {
                head,
                wall_ms,
                age_ms
            })),
            (any::<u64>(), prop_oneof![Just(&[][..]), Just(&b"a note"[..])])
                .prop_map(|(id, bytes)| Record::Note(Note { id, bytes })),
        ]
    }

    fn emitted(record: &Record<'_>) -> (u8, Vec<u8>) {
        let mut bytes = vec![];
        let kind = record.emit(&mut bytes);
        bytes.extend_from_slice(record.tail());
        (kind, bytes)
    }

    proptest! {
        #[test]
        fn records_come_back(record in records()) {
            let (kind, bytes) = emitted(&record);
            prop_assert_eq!(Record::parse(kind, &bytes), Ok(record));
        }

        #[test]
        fn a_cut_record_is_none(record in records(), cut: prop::sample::Index) {
            let (kind, bytes) = emitted(&record);
            let cut = cut.index(bytes.len());
            // What follows as it is may be shorter, a frame aside: 72 bytes of them, then pieces of a large payload.
            let frame = if kind == kind::ORDER { 72 } else { 0 };
            if cut < bytes.len() - record.tail().len() + frame {
                prop_assert!(Record::parse(kind, &bytes[..cut]).is_err());
            }
        }

        #[test]
        fn any_bytes_are_a_record_that_comes_back_or_an_error(
            record in records(),
            change: prop::sample::Index,
            byte: u8,
            kind in 0_u8..14,
            junk in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let (own, mut bytes) = emitted(&record);
            let at = change.index(bytes.len());
            bytes[at] = byte;
            for (kind, bytes) in [(own, &bytes), (kind, &bytes), (kind, &junk)] {
                if let Ok(record) = Record::parse(kind, bytes) {
                    let (kind, again) = emitted(&record);
                    prop_assert_eq!(Record::parse(kind, &again), Ok(record));
                }
            }
        }
    }

    /// The block called so in the document.
    fn block(name: &str) -> Vec<u8> {
        let document = include_str!("../../../../docs/OUTBOX.md");
        let (_, rest) = document.split_once(&format!("```record {name}\n")).unwrap();
        let (hex, _) = rest.split_once("```").unwrap();
        hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
    }

    #[test]
    fn the_blocks_of_the_document_are_what_is_written_and_read() {
        let names = [
            "ORDER", "RETRY", "CANCEL", "OUTCOMES", "DEVICE", "REMOVED", "SESSION", "FENCE", "RUN", "KEY",
            "MARK", "NOTE",
        ];
        for (kind, name) in (1..).zip(names) {
            let bytes = block(name);
            let record = Record::parse(kind, &bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(emitted(&record), (kind, bytes), "{name}");
        }
        let bytes = block("ORDER");
        let Ok(Record::Order(order)) = Record::parse(kind::ORDER, &bytes) else { panic!("an order") };
        assert_eq!((order.frame.number(), order.frame.key(), order.marks.targets().len()), (7, 0x2A, 1_010));
        assert_eq!((order.frame.lifetime_ms(), order.frame.check()), (Some(60_000), Ok(())));
    }

    #[test]
    fn an_unknown_kind_is_told_so() {
        for kind in [0, 13, 255] {
            assert_eq!(Record::parse(kind, &[0; 64]).unwrap_err().fault, Fault::UnknownKind);
        }
    }
}
