//! What a device must remember over its boots, as far as its journal has it: where each lane ended, which keys and versions
//! it has seen, whom it obeys.

use std::collections::BTreeMap;
use std::time::Duration;

use push::DeviceIndex;
use push::config::{BACKOFF_MAX, BACKOFF_REFUSED_MAX, BACKOFF_STEP};
use push::receiver::Receiver;
use wire_format::frame::outcome::Code;
use wire_format::ids::Lane;
use wire_format::time::Instant;

use super::names::Probe;
use super::plan::{Keeps, MS};
use super::world::World;
use crate::history::OrderId;

/// Waits before a dial of which it is told whether they were drawn, and how many of these may look as if they were not.
const WAITS: u32 = 12;
const PLAIN_MAX: u32 = 8;

/// An order that was answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answered {
    pub(super) order: OrderId,
    pub(super) lane: Lane,
    pub(super) code: Code,
}

/// What the journal of a device has.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// By log and lane: the last order that ended.
    floors: BTreeMap<(u64, u8), u64>,
    /// By order key: an order that was applied.
    keys: BTreeMap<u64, OrderId>,
    /// By supersede key: the highest version that ended.
    versions: BTreeMap<u64, (u64, OrderId)>,
    fence: u64,
    /// Something of it was lost once.
    pub(super) lost: bool,
}

impl Kept {
    /// Devices whose journals know more of a log than this.
    pub(super) fn is_above(&self, log: u64, known: u64) -> bool {
        self.floors.iter().any(|((of, _), floor)| *of == log && *floor > known)
    }

    /// The log goes on under another name.
    pub(super) fn rename(&mut self, from: u64, to: u64) {
        let ended: Vec<_> =
            self.floors.iter().filter(|((of, _), _)| *of == from).map(|(at, it)| (*at, *it)).collect();
        self.floors.extend(ended.into_iter().map(|((_, lane), floor)| ((to, lane), floor)));
    }

    /// How far the device has come in this log is not known there any more; keys and versions are.
    pub(super) fn forget(&mut self, log: u64) {
        self.floors.retain(|(of, _), _| *of != log);
    }

    fn keep(&mut self, answered: Answered, key: u64, supersede: Option<(u64, u64)>) {
        let Answered { order, lane, code } = answered;
        let floor = self.floors.entry((order.log, lane as u8)).or_default();
        *floor = order.number.max(*floor);
        if key != 0 && code == Code::APPLIED {
            self.keys.entry(key).or_insert(order);
        }
        if let Some((key, version)) = supersede {
            let newest = self.versions.entry(key).or_default();
            *newest = (version, order).max(*newest);
        }
    }
}

/// How long servers waited before they dialled again.
#[derive(Debug, Default)]
pub(super) struct Waits {
    /// By server, its start and place: when a dial failed.
    failed: BTreeMap<(usize, u64, u32), Instant>,
    count: u32,
    /// Those that were as long as the longest that might have been drawn.
    plain: u32,
}

impl World {
    /// What has its end in the journal stays behind it, over any boot.
    pub(super) fn check_memory(&mut self, at: usize, order: OrderId, lane: Lane) {
        let kept = &self.devices[at].kept;
        let floor = kept.floors.get(&(order.log, lane as u8)).copied().unwrap_or(0);
        if order.number <= floor {
            let detail = format_args!("the journal says that {floor} has ended");
            return self.ledger.fail(self.now, "BelowItsFloor", Some(at), &[order], detail);
        }
        let Some((key, supersede)) = self.ledger.keys_of(order) else { return };
        let newest = supersede.and_then(|(key, version)| Some((version, *kept.versions.get(&key)?)));
        if let Some((version, (newest, other))) = newest.filter(|(version, (newest, _))| version < newest) {
            let detail = format_args!("version {version}, and the journal says that {newest} has ended");
            return self.ledger.fail(self.now, "OlderThanItsJournal", Some(at), &[order, other], detail);
        }
        // A small device forgets keys when many are at work.
        let other = kept.keys.get(&key).copied().filter(|other| key != 0 && other.log != order.log);
        if let Some(other) = other.filter(|_| !self.plan.devices[at].small) {
            let detail = format_args!("the journal says that {other} with its key was applied");
            self.ledger.fail(self.now, "KeyInItsJournal", Some(at), &[order, other], detail);
        }
    }

    /// Everything answered so far has its end in the journal.
    pub(super) fn ends_are_kept(&mut self, at: usize) {
        for answered in core::mem::take(&mut self.devices[at].answered) {
            let (key, supersede) = self.ledger.keys_of(answered.order).unwrap_or_default();
            self.devices[at].kept.keep(answered, key, supersede);
        }
        let fence =
            self.devices[at].receiver.as_ref().and_then(Receiver::known).map_or(0, |known| known.fence);
        let kept = &mut self.devices[at].kept;
        kept.fence = kept.fence.max(fence);
    }

    /// A device has read its journal.
    pub(super) fn check_fence(&mut self, at: usize) {
        let fence =
            self.devices[at].receiver.as_ref().and_then(Receiver::known).map_or(0, |known| known.fence);
        let kept = self.devices[at].kept.fence;
        if fence < kept {
            let detail = format_args!("it obeyed fence {kept}, and knows of {fence}");
            self.ledger.fail(self.now, "FenceForgottenThere", Some(at), &[], detail);
        }
    }

    /// What a device knew is lost, or may be.
    pub(super) fn knows_nothing(&mut self, at: usize) {
        self.devices[at].kept = Kept { lost: true, ..Kept::default() };
        self.is_not_ahead(at);
    }

    /// A device that never lost its journal, and never the one server it has, says of everything how it ended.
    pub(super) fn check_duplicate(&mut self, at: usize, order: OrderId) {
        if self.has_its_journal(at) {
            let detail = "its end is in the journal, and nobody was told of it";
            self.ledger.fail(self.now, "EndForgotten", Some(at), &[order], detail);
        }
    }

    /// The server takes a device for one that has lost its journal.
    pub(super) fn check_loss(&mut self, at: usize) {
        self.probe(Probe::D10);
        if self.has_its_journal(at) {
            let detail = "it has said less than it said before, and lost nothing";
            self.ledger.fail(self.now, "JournalLostForNothing", Some(at), &[], detail);
        }
    }

    fn has_its_journal(&self, at: usize) -> bool {
        let (device, spec) = (&self.devices[at], &self.plan.devices[at]);
        let sure = spec.keeps != Keeps::Nothing && !device.kept.lost;
        sure && !device.removed && !device.listed_again && self.servers.len() == 1 && self.forks == 0
    }

    /// A dial has failed, after which the server waits.
    pub(super) fn note_failed_dial(&mut self, at: usize, index: DeviceIndex) {
        self.waits.failed.insert((at, self.servers[at].boot, index.0), self.now);
    }

    /// Waits are drawn: most of them are not as long as they may be.
    pub(super) fn check_wait(&mut self, at: usize, index: DeviceIndex) {
        let Some(failed) = self.waits.failed.remove(&(at, self.servers[at].boot, index.0)) else { return };
        let waited = self.now.since(failed);
        let limits = (0..8).map(|times| (BACKOFF_STEP * (1 << times)).min(BACKOFF_MAX));
        let is_near = |limit: Duration| (limit..limit + MS * 3).contains(&waited);
        let plain = limits.chain([BACKOFF_REFUSED_MAX]).any(is_near);
        self.waits.count += 1;
        self.waits.plain += u32::from(plain);
        if self.waits.count == WAITS {
            if self.waits.plain > PLAIN_MAX {
                let detail = format_args!("{} of {WAITS} waits are as long as they may be", self.waits.plain);
                self.ledger.fail(self.now, "DialsTogether", None, &[], detail);
            }
            (self.waits.count, self.waits.plain) = (0, 0);
        }
    }
}
