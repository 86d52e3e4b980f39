//! SESSION: how far a device got.
//!
//! Written when a session is open, before a durable order is written to it, and when it is over. After a crash of the server
//! it says which orders may have been written.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 4 | device | its number |
//! | 4 | 1 | flags | 1 OPEN: the session is not over; the rest zero |
//! | 5 | 3 | – | zero |
//! | 8 | 8 | boot | the device's boot id; 0 if there was no session yet |
//! | 16 | 32 | upto | lanes 0 to 3: the highest number written to it, 0 for none |
//! | 48 | 32 | ended | lanes 0 to 3: the highest number of an outcome the device gave and still knows, 0 for none |

use wire_format::bytes::Reader;
use wire_format::error::ParseError;

use super::{device, flags, kind, words};

const OPEN: u8 = 1;

/// How far a device got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// Its number.
    pub device: u32,
    /// Its boot id in the last session; 0 if there was none.
    pub boot: u64,
    /// The session is not over, as far as is known.
    pub open: bool,
    /// The highest number of the durable log written to it, by lane; 0 for none.
    pub upto: [u64; 4],
    /// The highest number of the durable log with an outcome the device gave and has not forgotten since, by lane; 0 for none.
    /// Outcomes that are appended behind it raise it.
    pub ended: [u64; 4],
}

impl Session {
    /// Bytes of its body.
    pub(in crate::outbox) const LEN: usize = 80;

    /// This one behind one before: what was written stays so. What has ended does not: a device may forget.
    pub(in crate::outbox) fn behind(mut self, before: &Self) -> Self {
        for (number, before) in self.upto.iter_mut().zip(before.upto) {
            *number = before.max(*number);
        }
        self
    }

    pub(super) fn parse(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        let device = device(reader)?;
        let open = flags(reader, OPEN)? != 0;
        reader.zeros("zero", 3)?;
        let boot = reader.u64("boot")?;
        let mut session = Self { device, boot, open, upto: [0; 4], ended: [0; 4] };
        for upto in &mut session.upto {
            *upto = reader.u64("upto")?;
        }
        for ended in &mut session.ended {
            *ended = reader.u64("ended")?;
        }
        Ok(session)
    }

    pub(super) fn emit(&self, into: &mut Vec<u8>) -> u8 {
        into.extend_from_slice(&self.device.to_le_bytes());
        into.extend_from_slice(&[if self.open { OPEN } else { 0 }, 0, 0, 0]);
        words(into, &[self.boot]);
        words(into, &self.upto);
        words(into, &self.ended);
        kind::SESSION
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::outbox::record) fn sessions() -> impl Strategy<Value = Session> {
        let fields =
            (0..super::super::super::DEVICES_MAX, any::<u64>(), any::<bool>(), any::<[[u64; 4]; 2]>());
        fields.prop_map(|(device, boot, open, [upto, ended])| Session { device, boot, open, upto, ended })
    }
}
