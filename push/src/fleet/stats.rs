//! What a fleet counts: one number per thing that can happen, so that nothing happens unseen.

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// Counters since the fleet was made. They only rise.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
            /// Outcomes by code, as the reports show them: one per order and device, however often it was tried; index 0
            /// counts codes above 63.
            pub outcomes: Outcomes,
        }

        impl Stats {
            /// Adds what `other` counted.
            pub fn merge(&mut self, other: &Self) {
                $(self.$name = self.$name.wrapping_add(other.$name);)*
                for (own, theirs) in self.outcomes.0.iter_mut().zip(&other.outcomes.0) {
                    *own = own.wrapping_add(*theirs);
                }
            }

            /// Calls `with` for each counter and its stable name.
            pub fn each(&self, mut with: impl FnMut(&'static str, u64)) {
                $(with($text, self.$name);)*
                for (code, name) in wire_format::frame::outcome::Code::NAMES {
                    with(name, self.outcomes.of(*code));
                }
            }
        }
    };
}

stats! {
    /// Orders submitted.
    orders = "orders";
    /// Ends told to be logged.
    log_entries = "log-entries";
    /// Devices that have seen what the durable log never gave.
    forked = "forked";
    /// Devices that lost their journal of the durable log.
    journals_lost = "journals-lost";
    /// Deliveries of orders written whole.
    orders_sent = "orders-sent";
    /// Of these, repetitions.
    replays = "replays";
    /// Frames written whole.
    frames_out = "frames-out";
    /// Bytes written.
    bytes_out = "bytes-out";
    /// Writes reported.
    writes = "writes";
    /// Writes that took less than was planned.
    writes_cut = "writes-cut";
    /// Frames read.
    frames_in = "frames-in";
    /// Bytes read.
    bytes_in = "bytes-in";
    /// Frames of unknown kinds, skipped as they allow.
    frames_ignored = "frames-ignored";
    /// Outcomes for pairs that had one: repeated by the device, never counted twice.
    outcomes_repeated = "outcomes-repeated";
    /// Outcomes, receipts and progress for numbers that are not live, of another lane, or never sent to that device.
    numbers_unknown = "numbers-unknown";
    /// Results handed over.
    results = "results";
    /// Results nobody asked for, or that came twice.
    results_dropped = "results-dropped";
    /// Attempts devices ended with BUSY, NO_SPACE or FAILED_RETRYABLE, and that may be repeated.
    attempts = "attempts";
    /// Pieces of large payloads written, or begun to be.
    pieces = "pieces";
    /// WANT for blobs of no order that is out on that device.
    wants_dropped = "wants-dropped";
    /// Questions to devices.
    asks = "asks";
    /// Answers to them.
    replies = "replies";
    /// Answers that came too late, or to nothing that was asked.
    replies_dropped = "replies-dropped";
    /// Questions to devices that ended without an answer.
    unanswered = "unanswered";
    /// Questions of devices handed over.
    questions = "questions";
    /// Questions of devices answered "busy", because all together asked too much.
    questions_refused = "questions-refused";
    /// Questions of devices not heard: one device asked too much, or nobody here answers.
    questions_dropped = "questions-dropped";
    /// Answers to devices taken to be sent.
    answers = "answers";
    /// Answers of the application to questions whose session or time was over.
    answers_dropped = "answers-dropped";
    /// Questions of devices whose time was over before their answer was sent.
    answers_late = "answers-late";
    /// Dials handed to the driver.
    dials = "dials";
    /// Dials that failed.
    dials_failed = "dials-failed";
    /// Sessions opened.
    sessions = "sessions";
    /// Sessions whose device had booted since the last one.
    reboots = "reboots";
    /// Devices that became suspect.
    suspects = "suspects";
    /// Sessions ended because nothing was heard.
    dead = "dead";
    /// Sessions refused by the device.
    rejected = "rejected";
    /// Sessions refused by this side.
    refused = "refused";
    /// Of these: another device at the address.
    wrong_device = "wrong-device";
    /// Sessions ended by broken or misplaced frames.
    broken = "broken";
    /// Connections without a WELCOME in time.
    handshake_timeouts = "handshake-timeouts";
    /// Times this side stood still and moved the deadlines of its peers.
    pauses = "pauses";
}

/// Outcomes by code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcomes([u64; 64]);

impl Default for Outcomes {
    fn default() -> Self {
        Self([0; 64])
    }
}

impl Outcomes {
    /// How many reports show this code.
    #[must_use]
    pub fn of(&self, code: wire_format::frame::outcome::Code) -> u64 {
        self.0.get(usize::from(code.0)).copied().unwrap_or(0)
    }

    pub(crate) fn count(&mut self, code: wire_format::frame::outcome::Code) {
        let at = if usize::from(code.0) < self.0.len() { usize::from(code.0) } else { 0 };
        if let Some(count) = self.0.get_mut(at) {
            *count = count.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire_format::frame::outcome::Code;

    #[test]
    fn each_names_every_counter_once() {
        let mut stats = Stats { orders: 3, ..Stats::default() };
        stats.outcomes.count(Code::APPLIED);
        let mut seen = Vec::new();
        stats.each(|name, count| seen.push((name, count)));
        assert!(seen.contains(&("orders", 3)) && seen.contains(&("applied", 1)));
        let mut names: Vec<_> = seen.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), seen.len());
    }
}
