//! Counters: one per kind sent and received, one per reason for a drop. Nothing is dropped without a number.

use wire_format::datagram::header::Kind;
use wire_format::error::Fault;

use crate::event::Dropped;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What happened since the start, as plain counters.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Stats {
            /// Every counter with its name, in a stable order.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name)),*].into_iter()
            }
        }
    };
}

counters! {
    /// Datagrams handed in, good or bad.
    received,
    /// Bytes of them.
    received_bytes,
    /// SEEKs taken.
    received_seek,
    /// BEACONs taken.
    received_beacon,
    /// ANNOUNCEs taken.
    received_announce,
    /// ACKs taken.
    received_ack,
    /// BYEs taken.
    received_bye,
    /// CHALLENGEs taken.
    received_challenge,
    /// Datagrams with an AUTH entry that came without keys to verify it: clear mode.
    received_auth_unverified,
    /// Datagrams whose tag was right.
    received_authentic,
    /// Datagrams handed out.
    sent,
    /// Bytes of them.
    sent_bytes,
    /// SEEKs handed out.
    sent_seek,
    /// BEACONs handed out.
    sent_beacon,
    /// ANNOUNCEs handed out.
    sent_announce,
    /// ACKs handed out.
    sent_ack,
    /// BYEs handed out.
    sent_bye,
    /// CHALLENGEs handed out.
    sent_challenge,
    /// SEEKs not sent because others asked.
    seek_suppressed,
    /// Dropped: not tillwire's magic.
    dropped_foreign,
    /// Dropped: another major version.
    dropped_version,
    /// Dropped: damaged or against the specification.
    dropped_malformed,
    /// Dropped: a kind that is not for this side.
    dropped_misdirected,
    /// Dropped: staging met production.
    dropped_staging,
    /// Dropped: another store.
    dropped_store,
    /// Dropped: our own.
    dropped_own,
    /// Dropped: a source that may not be answered.
    dropped_source,
    /// Dropped: too many from one source.
    dropped_rate,
    /// Dropped: a copy, or overtaken.
    dropped_duplicate,
    /// Dropped: no tag, in authenticated mode.
    dropped_no_tag,
    /// Dropped: a key or an algorithm that is not known.
    dropped_unknown_key,
    /// Dropped: a device that has no key.
    dropped_unknown_device,
    /// Dropped: a wrong tag.
    dropped_wrong_tag,
    /// Dropped: seen before, under a right tag.
    dropped_replayed,
    /// Dropped: a boot or an address that is not proven yet; its sender was asked, once a second.
    dropped_unproven,
    /// Dropped: from an earlier boot.
    dropped_stale,
    /// Dropped: a sender that is not known at this address.
    dropped_unknown,
    /// Dropped: another cookie than the question's.
    dropped_cookie,
    /// Dropped: too short to be answered.
    dropped_short,
    /// Dropped: another device has this id.
    dropped_contested,
    /// Dropped: no room in the roster.
    dropped_full,
    /// Dropped: more devices at one address than allowed.
    dropped_crowded,
    /// Dropped: an unknown device in a long rush, told when to come back.
    dropped_busy,
    /// Dropped: nothing we wait for.
    dropped_unexpected,
    /// Dropped: after goodbye.
    dropped_stopped,
    /// Answers not sent: the caller did not drain, or the answer would be larger than what asked for it.
    answers_dropped,
    /// A goodbye that was taken back: the device answered when asked.
    bye_refuted,
    /// Services of an announce beyond the 8 that are kept.
    services_cut,
    /// Times this process was found to have slept through its own deadlines.
    pauses,
}

impl Stats {
    pub(crate) const fn count_received(&mut self, kind: Kind) {
        let counter = match kind {
            Kind::Seek => &mut self.received_seek,
            Kind::Beacon => &mut self.received_beacon,
            Kind::Announce => &mut self.received_announce,
            Kind::Ack => &mut self.received_ack,
            Kind::Bye => &mut self.received_bye,
            Kind::Challenge => &mut self.received_challenge,
        };
        *counter = counter.wrapping_add(1);
    }

    pub(crate) const fn count_sent(&mut self, kind: Kind, len: usize) {
        let counter = match kind {
            Kind::Seek => &mut self.sent_seek,
            Kind::Beacon => &mut self.sent_beacon,
            Kind::Announce => &mut self.sent_announce,
            Kind::Ack => &mut self.sent_ack,
            Kind::Bye => &mut self.sent_bye,
            Kind::Challenge => &mut self.sent_challenge,
        };
        *counter = counter.wrapping_add(1);
        self.sent = self.sent.wrapping_add(1);
        self.sent_bytes = self.sent_bytes.wrapping_add(len as u64);
    }

    pub(crate) const fn count_dropped(&mut self, why: Dropped) {
        let counter = match why {
            Dropped::Malformed(error) => match error.fault {
                Fault::Mismatch => &mut self.dropped_foreign,
                Fault::Version => &mut self.dropped_version,
                _ => &mut self.dropped_malformed,
            },
            Dropped::Misdirected => &mut self.dropped_misdirected,
            Dropped::Staging => &mut self.dropped_staging,
            Dropped::Store => &mut self.dropped_store,
            Dropped::Own => &mut self.dropped_own,
            Dropped::Source => &mut self.dropped_source,
            Dropped::Rate => &mut self.dropped_rate,
            Dropped::Duplicate => &mut self.dropped_duplicate,
            Dropped::NoTag => &mut self.dropped_no_tag,
            Dropped::UnknownKey => &mut self.dropped_unknown_key,
            Dropped::UnknownDevice => &mut self.dropped_unknown_device,
            Dropped::WrongTag => &mut self.dropped_wrong_tag,
            Dropped::Replayed => &mut self.dropped_replayed,
            Dropped::Unproven => &mut self.dropped_unproven,
            Dropped::Stale => &mut self.dropped_stale,
            Dropped::Unknown => &mut self.dropped_unknown,
            Dropped::Cookie => &mut self.dropped_cookie,
            Dropped::Short => &mut self.dropped_short,
            Dropped::Contested => &mut self.dropped_contested,
            Dropped::Full => &mut self.dropped_full,
            Dropped::Crowded => &mut self.dropped_crowded,
            Dropped::Busy => &mut self.dropped_busy,
            Dropped::Unexpected => &mut self.dropped_unexpected,
            Dropped::Stopped => &mut self.dropped_stopped,
        };
        *counter = counter.wrapping_add(1);
    }

    /// The sum of all reasons for a drop.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.each().filter(|(name, _)| name.starts_with("dropped_")).map(|(_, count)| count).sum()
    }
}
