//! The device's journal, and what is told of it.

use std::error::Error;
use std::io;

use wire_format::time::Instant;

use super::Event;
use super::desk::Served;
use crate::driver::trace;
use crate::receiver::journal::Journal;

#[derive(Debug)]
pub(super) struct Keeper<J> {
    journal: J,
    /// It did not take the last write.
    failing: bool,
    event: Option<Event>,
}

impl<J: Journal<Error: Error + 'static>> Keeper<J> {
    pub(super) const fn new(journal: J) -> Self {
        Self { journal, failing: false, event: None }
    }

    /// Writes and syncs what the receiver wants to be kept. True if there was anything: what waited for it may go on.
    ///
    /// It blocks the task: nothing may leave before it, and nothing else is served here.
    pub(super) fn keep(&mut self, receiver: &mut Served, now: Instant) -> bool {
        let kept = receiver.record(now, &mut self.journal);
        match &kept {
            Ok(false) => {}
            Ok(true) => {
                if core::mem::take(&mut self.failing) {
                    trace::journal_back();
                    self.event = Some(Event::JournalBack);
                }
            }
            Err(error) => {
                trace::journal_failed(error);
                self.failing = true;
                self.event = Some(Event::JournalFailed { why: kind(error) });
            }
        }
        kept.unwrap_or(false)
    }

    /// What has happened to it and was not told.
    pub(super) fn take_event(&mut self) -> Option<Event> {
        self.event.take()
    }
}

/// What the system said, if it was the system.
fn kind(error: &(dyn Error + 'static)) -> io::ErrorKind {
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.kind();
        }
        at = error.source();
    }
    io::ErrorKind::Other
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file_journal::{Doing, FileJournalError};

    #[test]
    fn what_the_system_said_is_found_behind_the_error() {
        let full = FileJournalError::Disk { doing: Doing::Create, source: io::ErrorKind::StorageFull.into() };
        assert_eq!(kind(&full), io::ErrorKind::StorageFull);
        assert_eq!(kind(&FileJournalError::Full), io::ErrorKind::Other);
    }
}
