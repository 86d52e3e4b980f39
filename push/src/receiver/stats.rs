//! What happened on this device since its boot: one counter per thing worth knowing.

macro_rules! counters {
    (
        always { $($(#[$doc:meta])* $name:ident,)* }
        desk { $($(#[$desk_doc:meta])* $desk_name:ident,)* }
    ) => {
        /// Counters since the receiver was made: 32 bits each, they stop at the top.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])* pub $name: u32,)*
            $($(#[$desk_doc])* pub $desk_name: u32,)*
        }

        impl Stats {
            /// Every counter with its name, in a fixed order: for logs, metrics and tables.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, u32)> {
                [$((stringify!($name), self.$name),)* $((stringify!($desk_name), self.$desk_name),)*].into_iter()
            }

            pub(super) fn of(always: &Counts, desk: Option<&DeskCounts>) -> Self {
                let none = DeskCounts::NONE;
                let desk = desk.unwrap_or(&none);
                Self { $($name: always.$name,)* $($desk_name: desk.$desk_name,)* }
            }
        }

        /// What every device counts.
        #[derive(Debug, Default)]
        pub(super) struct Counts {
            $(pub(super) $name: u32,)*
        }

        /// What only a device with a desk counts.
        #[derive(Clone, Debug)]
        pub(super) struct DeskCounts {
            $(pub(super) $desk_name: u32,)*
        }

        impl DeskCounts {
            pub(super) const NONE: Self = Self { $($desk_name: 0,)* };
        }
    };
}

counters! {
    always {
    /// Connections taken.
    connections,
    /// Connections refused because every slot was in use.
    too_many_peers,
    /// Silent strangers that lost their slot to a newcomer.
    evicted,
    /// Connections closed because no complete HELLO came in time.
    hello_timeouts,
    /// Connections closed without an answer because what came was no HELLO.
    strangers,
    /// HELLOs answered with a REJECT.
    refused,
    /// HELLOs answered with a WELCOME.
    sessions,
    /// Sessions that a newer one replaced.
    replaced,
    /// Sessions in which the server broke the layout of a frame.
    broken,
    /// Sessions in which the server sent a kind this device does not serve.
    unexpected,
    /// Sessions in which the server sent more orders than its window.
    window_exceeded,
    /// Sessions in which nothing was heard for too long.
    dead,
    /// Sessions ended because this device itself stood still.
    frozen,
    /// Sessions the server ended with BYE.
    byes,
    /// Sessions whose connection went away.
    closed,
    /// Orders handed over.
    delivered,
    /// Orders whose lifetime was over before they could start.
    expired,
    /// Orders that had ended before.
    duplicates,
    /// Orders answered "later", to be completed when they are done.
    later,
    /// Orders that waited for their lane.
    parked,
    /// Orders whose attempt ended because there was no room to let them wait.
    park_full,
    /// Orders that ended before their start because a CANCEL came.
    cancelled,
    /// Orders that ended because a newer version had begun.
    superseded,
    /// ACKs written.
    acks,
    /// Outcomes written, repetitions and duplicates included.
    outcomes,
    /// Outcomes the server confirmed with SETTLED.
    settled,
    /// Outcomes dropped because their lineage ended, or because a new order needed the room of a fenced server's.
    forgotten,
    /// PINGs answered.
    pings,
    /// Frames of a later version that were skipped as it allows.
    ignored,
    }
    desk {
    /// Results sent.
    results,
    /// Results that could not be sent in their session.
    results_lost,
    /// Words of progress that were not said: too soon, no session, or no room.
    progress_dropped,
    /// Questions of this device.
    asked,
    /// Answers to questions that were not open any more.
    late_replies,
    /// Questions of the server handed over.
    questions,
    /// Answers sent to them.
    replies,
    /// Questions of the server, STATUS included, that got no answer: nobody answers, too late, or no room.
    unanswered,
    /// Pieces of large payloads handed over.
    pieces,
    /// Pieces that were not asked for.
    pieces_dropped,
    }
}

/// One more.
pub(super) const fn count(counter: &mut u32) {
    add(counter, 1);
}

/// `n` more.
pub(super) const fn add(counter: &mut u32, n: usize) {
    let n = if n > u32::MAX as usize { u32::MAX } else { n as u32 };
    *counter = counter.saturating_add(n);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_name_and_stops_at_the_top() {
        let mut stats = Stats { pings: u32::MAX - 1, ..Stats::default() };
        add(&mut stats.pings, usize::MAX);
        count(&mut stats.pings);
        assert_eq!(stats.each().find(|(name, _)| *name == "pings"), Some(("pings", u32::MAX)));
        assert_eq!(stats.each().count() * size_of::<u32>(), size_of::<Stats>());
    }
}
