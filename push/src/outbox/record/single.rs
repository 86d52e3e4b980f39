//! The small ones.
//!
//! CANCEL: an order, or an attempt, is not to be carried out any more.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 8 | number | of the order or of the attempt |
//!
//! REMOVED: a device is gone from the list.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 4 | device | its number |
//!
//! FENCE: the fence this server holds; a lower one than before says nothing.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 8 | fence | written before it is used |
//!
//! RUN: the outbox was opened. A device that names another run for a number has met a log that is not this one.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 8 | run | random, not 0 |
//! | 8 | 8 | first | the first number this run may give |
//! | 16 | 8 | openings | how often the outbox was opened, this time included |
//!
//! KEY: an order under a key has ended on all its targets.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 8 | key | the application's, not 0 |
//! | 8 | 8 | number | of the order |
//! | 16 | 8 | until | the age of the outbox until which it is remembered |
//! | 24 | 1 | groups | how many groups of marks follow |
//! | 25 | 7 | – | zero |
//! | 32 | – | marks | groups as under Marks |
//!
//! MARK: how far numbers and clocks got. One at least each minute of use; the last one is never lost with a segment.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 8 | head | the highest number given so far |
//! | 8 | 8 | wall | the wall clock, milliseconds since 1970 |
//! | 16 | 8 | age | of the outbox, milliseconds it has been running in all |
//!
//! NOTE: whatever the server wants to find again; an empty one removes it.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 8 | id | a newer one takes the place of an older one |
//! | 8 | – | bytes | at most 65,536 |

use wire_format::bytes::Reader;
use wire_format::error::{Fault, ParseError};

use super::super::marks::Marks;
use super::{kind, not_zero, words};

/// Bytes of a note: a plan of the server, not a file.
pub const NOTE_MAX: usize = 65_536;

/// RUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::outbox) struct Run {
    pub(in crate::outbox) run: u64,
    pub(in crate::outbox) first: u64,
    pub(in crate::outbox) openings: u64,
}

impl Run {
    pub(super) fn parse(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        let run = not_zero(reader, "run")?;
        Ok(Self { run, first: not_zero(reader, "first")?, openings: reader.u64("openings")? })
    }

    pub(super) fn emit(&self, into: &mut Vec<u8>) -> u8 {
        words(into, &[self.run, self.first, self.openings]);
        kind::RUN
    }
}

/// KEY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::outbox) struct Key {
    pub(in crate::outbox) key: u64,
    pub(in crate::outbox) number: u64,
    pub(in crate::outbox) until_ms: u64,
    pub(in crate::outbox) marks: Marks,
}

impl Key {
    pub(super) fn parse(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        let (key, number) = (not_zero(reader, "key")?, not_zero(reader, "number")?);
        let until_ms = reader.u64("until")?;
        let groups = reader.u8("groups")?;
        reader.zeros("zero", 7)?;
        Ok(Self { key, number, until_ms, marks: Marks::parse(reader, groups)? })
    }

    pub(super) fn emit(&self, into: &mut Vec<u8>) -> u8 {
        words(into, &[self.key, self.number, self.until_ms]);
        let groups = into.len();
        into.extend_from_slice(&[0; 8]);
        let count = self.marks.emit(into);
        into.iter_mut().skip(groups).take(1).for_each(|groups| *groups = count);
        kind::KEY
    }
}

/// MARK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::outbox) struct Mark {
    pub(in crate::outbox) head: u64,
    pub(in crate::outbox) wall_ms: u64,
    pub(in crate::outbox) age_ms: u64,
}

impl Mark {
    pub(super) fn parse(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        Ok(Self { head: reader.u64("head")?, wall_ms: reader.u64("wall")?, age_ms: reader.u64("age")? })
    }

    pub(super) fn emit(&self, into: &mut Vec<u8>) -> u8 {
        words(into, &[self.head, self.wall_ms, self.age_ms]);
        kind::MARK
    }
}

/// NOTE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::outbox) struct Note<'a> {
    pub(in crate::outbox) id: u64,
    pub(in crate::outbox) bytes: &'a [u8],
}

impl<'a> Note<'a> {
    pub(super) fn parse(reader: &mut Reader<'a>) -> Result<Self, ParseError> {
        let id = reader.u64("id")?;
        let at = *reader;
        let bytes = reader.bytes("bytes", reader.rest().len())?;
        if bytes.len() > NOTE_MAX { Err(at.error("bytes", Fault::Length)) } else { Ok(Self { id, bytes }) }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::super::super::marks::tests::marks;
    use super::*;

    pub(in crate::outbox::record) fn runs() -> impl Strategy<Value = Run> {
        (1_u64.., 1_u64.., any::<u64>()).prop_map(|(run, first, openings)| Run { run, first, openings })
    }

    pub(in crate::outbox::record) fn keys() -> impl Strategy<Value = Key> {
        (1_u64.., 1_u64.., any::<u64>(), marks()).prop_map(|(key, number, until_ms, marks)| Key {
            key,
            number,
            until_ms,
            marks,
        })
    }
}
