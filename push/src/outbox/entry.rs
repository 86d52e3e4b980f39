//! What is written down, and as which record.

use core::time::Duration;

use wire_format::frame::outcome::Code;

use super::log::Disk;
use super::marks::{self, Marks};
use super::record::{self, Device, Frame, NOTE_MAX, Record, Session};
use super::{DEVICES_MAX, Now, Outbox, Targets};
use crate::mark::Mark;

/// What is written down.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// An order is accepted. Its number must be above every number before.
    Order {
        /// As it is sent.
        frame: Frame<'a>,
        /// The devices.
        targets: &'a Targets,
    },
    /// An order is tried again.
    Retry {
        /// Number of this attempt, above every number before.
        number: u64,
        /// Number of the first order, which lives.
        root: u64,
        /// 1 for the first repetition.
        attempt: u16,
        /// Not before this time from now.
        after: Duration,
        /// The devices on which the attempt before ended.
        targets: &'a Targets,
    },
    /// An order, or an attempt, is not to be carried out any more.
    Cancel {
        /// Its number.
        number: u64,
    },
    /// An order, or an attempt, ended so. Of one that is over everywhere, nothing is written.
    Outcomes {
        /// Its number.
        number: u64,
        /// How it ended.
        code: Code,
        /// How it stands then: of [`Code::DUPLICATE`] how it had ended before; 0 is the code again.
        first_code: Code,
        /// The device said so in an OUTCOME frame.
        by_device: bool,
        /// Of [`Code::BUSY`] and the like: no further attempt is made.
        last: bool,
        /// The devices.
        targets: &'a Targets,
    },
    /// A device is listed, or what is known of it changed.
    Device(&'a Device),
    /// A device is gone from the list.
    Removed {
        /// Its number.
        device: u32,
    },
    /// How far a device got.
    Session(&'a Session),
    /// The fence this server holds; write it before it is used.
    Fence {
        /// The fence.
        fence: u64,
    },
    /// Whatever the server wants to find again; it takes the place of an older one.
    Note {
        /// Which one.
        id: u64,
        /// At most [`NOTE_MAX`]; none removes it.
        bytes: &'a [u8],
    },
}

/// Why something was not written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The log has its size: orders are taken again when others have ended.
    #[error("the outbox has {bytes} of {limit} bytes")]
    Full {
        /// Bytes it has, or live orders have.
        bytes: u64,
        /// Bytes they may have.
        limit: u64,
    },
    /// As many keys as may be remembered.
    #[error("{limit} order keys are remembered, and there may be no more")]
    Keys {
        /// [`super::KEYS_MAX`].
        limit: usize,
    },
    /// Longer than a record may be.
    #[error("{len} bytes: the most is {limit}")]
    TooLong {
        /// Its bytes.
        len: usize,
        /// The most there may be.
        limit: usize,
    },
    /// The number was given before, or a higher one.
    #[error("number {number} is not above {head}, which was given before")]
    Number {
        /// The number.
        number: u64,
        /// The highest one given.
        head: u64,
    },
    /// A field holds a value that could not be read again.
    #[error("{field} holds a value that no record may have")]
    Invalid {
        /// The field's name in `docs/OUTBOX.md`.
        field: &'static str,
    },
}

impl<D: Disk> Outbox<D> {
    /// The entry as it is written; `None` if there is nothing to write.
    pub(super) fn record<'a>(&self, now: Now, entry: &Entry<'a>) -> Result<Option<Record<'a>>, AppendError> {
        let invalid = |field| Err(AppendError::Invalid { field });
        Ok(Some(match *entry {
            Entry::Order { frame, targets } => Record::Order(record::Order {
                accepted_ms: now.wall_ms,
                age_ms: self.age_ms(now),
                cancelled: false,
                attempts: 0,
                marks: Marks::same(targets.clone(), Mark::PENDING),
                frame,
            }),
            Entry::Retry { .. } => Record::Retry(self.retry(now, entry)?),
            Entry::Cancel { number: 0 } => return invalid("number"),
            Entry::Cancel { number } => Record::Cancel { number },
            Entry::Outcomes { .. } => {
                let Some(outcomes) = self.outcomes(entry)? else { return Ok(None) };
                Record::Outcomes(outcomes)
            }
            Entry::Device(device) if device.device < DEVICES_MAX => Record::Device(*device),
            Entry::Removed { device } if device < DEVICES_MAX => Record::Removed { device },
            Entry::Session(session) if session.device < DEVICES_MAX => Record::Session(self.whole(session)),
            Entry::Device(_) | Entry::Removed { .. } | Entry::Session(_) => return invalid("device"),
            Entry::Fence { fence } => Record::Fence { fence },
            Entry::Note { bytes, .. } if bytes.len() > NOTE_MAX => {
                return Err(AppendError::TooLong { len: bytes.len(), limit: NOTE_MAX });
            }
            Entry::Note { id, bytes } => Record::Note(record::Note { id, bytes }),
        }))
    }

    fn retry(&self, now: Now, entry: &Entry<'_>) -> Result<record::Retry, AppendError> {
        let &Entry::Retry { number, root, attempt, after, targets } = entry else {
            return Err(AppendError::Invalid { field: "kind" });
        };
        let first = self.book.orders.get(&root).filter(|live| live.root == 0);
        let Some(first) = first else { return Err(AppendError::Invalid { field: "root" }) };
        if attempt == 0 {
            return Err(AppendError::Invalid { field: "attempt" });
        }
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        let not_before_ms = self.age_ms(now).saturating_add(after_ms);
        let (cancelled, carried, marks) = (false, false, Marks::same(targets.clone(), Mark::PENDING));
        Ok(record::Retry {
            number,
            root,
            not_before_ms,
            attempt,
            lane: first.lane,
            cancelled,
            carried,
            marks,
        })
    }

    /// `None` of what is over everywhere.
    fn outcomes(&self, entry: &Entry<'_>) -> Result<Option<record::Outcomes>, AppendError> {
        let &Entry::Outcomes { number, code, first_code, by_device, last, targets } = entry else {
            return Ok(None);
        };
        if !marks::is_over(Mark(code.0)) || !(first_code.0 == 0 || marks::is_over(Mark(first_code.0))) {
            return Err(AppendError::Invalid { field: "code" });
        }
        let first_code = if first_code.0 == 0 { code } else { first_code };
        Ok(self.book.orders.get(&number).map(|live| {
            let (root, lane, targets) = (live.root, live.lane, targets.clone());
            record::Outcomes { number, root, code, first_code, lane, by_device, last, targets }
        }))
    }

    /// With all that was written before it, since records before it may go.
    fn whole(&self, session: &Session) -> Session {
        let known = self.book.devices.get(session.device);
        known.map_or(*session, |known| session.behind(&known.session(session.device)))
    }
}
