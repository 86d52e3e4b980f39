//! What must never happen: everything that happens is written into a history, and the judge of it is the one the tests over
//! real sockets use as well.

use std::collections::BTreeSet;
use std::time::Duration;

use push::receiver::{Delivered, Verdict};
use push::{Ended, Mark};
use testkit::history::{Event, Facts, History, Limits, OrderId};
use wire_format::frame::outcome::Code;
use wire_format::frame::reject;
use wire_format::ids::Lineage;
use wire_format::time::Instant;

/// An order may start this long after its lifetime: as long as its bytes may lie where no clock of ours sees them. The
/// device stands still for just less than what ends its sessions (5 s), then applies the rest of its window before it
/// reads on (8 orders of 400 ms), while the server stands still too and declares nobody dead.
const LATE_MAX: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Oracle {
    history: History,
}

impl Oracle {
    /// `journal`: the devices keep one.
    pub(crate) fn new(journal: bool) -> Self {
        let limits = Limits { late: Some(LATE_MAX), settled: true, journal, ..Limits::default() };
        Self { history: History::new(limits) }
    }

    /// Writes it down; a broken promise ends the run, with all that happened to the orders it is about.
    pub(crate) fn record(&self, now: Instant, event: Event) {
        if let Some(violation) = self.history.record(since_start(now), event) {
            panic!("{}", self.history.about(&violation));
        }
    }

    pub(crate) fn accepted(&self, now: Instant, order: OrderId, facts: Facts) {
        self.record(now, Event::Accepted { order, facts: Box::new(facts) });
    }

    pub(crate) fn handed_over(&self, now: Instant, device: usize, boot: u64, delivered: &Delivered<'_>) {
        let order = order_id(run_of(delivered.lineage), delivered.order.number);
        let redelivered = delivered.redelivered;
        self.record(now, Event::Effect { order, device: device as u32, boot, redelivered });
    }

    pub(crate) fn answered(&self, now: Instant, device: usize, boot: u64, order: OrderId, verdict: Verdict) {
        let (code, _) = verdict.code();
        self.record(now, Event::Answer { order, device: device as u32, boot, code });
    }

    pub(crate) fn ended(&self, now: Instant, device: usize, order: OrderId, code: Code) {
        self.record(now, Event::Outcome { order, device: device as u32, code });
    }

    /// Whether an order has its outcome on a device.
    pub(crate) fn is_over(&self, order: OrderId, device: usize) -> bool {
        self.history.outcome(order, device as u32).is_some()
    }

    /// The fleet hands an order back: every mark is final and is what was told.
    pub(crate) fn settled(&self, now: Instant, order: OrderId, marks: &[u8]) {
        self.record(now, Event::Settled { order });
        self.check_marks(order, marks, true);
    }

    /// Marks of an order and the outcomes told agree.
    pub(crate) fn check_marks(&self, order: OrderId, marks: &[u8], over: bool) {
        for (device, mark) in (0..).zip(marks.iter().copied().map(Mark)) {
            let told = self.history.outcome(order, device);
            if !self.history.is_target(order, device) {
                assert_eq!((mark, told), (Mark::NOT_TARGETED, None));
            } else if over || told.is_some() {
                assert_eq!(mark.code(), told, "order {order} on device {device}");
            }
        }
    }

    /// The last server's orders have all ended; with the others went who asked about theirs.
    pub(crate) fn finish(&self) {
        self.history.assert_kept();
    }
}

fn since_start(now: Instant) -> Duration {
    now.since(Instant::ZERO)
}

/// When a lifetime that begins now is over.
pub(crate) fn deadline(now: Instant, lifetime: Option<Duration>) -> Option<Duration> {
    lifetime.map(|lifetime| since_start(now) + lifetime)
}

/// An order of a run of the server: its log is the run.
pub(crate) fn order_id(run: u8, number: u64) -> OrderId {
    OrderId { log: run.into(), number }
}

/// The devices as the history names them.
pub(crate) fn targets(devices: &BTreeSet<usize>) -> BTreeSet<u32> {
    devices.iter().map(|at| *at as u32).collect()
}

/// Whether a device said that another server's lease still runs.
pub(crate) fn is_lease_held(why: Ended) -> bool {
    match why {
        Ended::Rejected { code, .. } | Ended::Refused { code } => code == reject::Code::LEASE_HELD,
        _ => false,
    }
}

/// Cuts and pauses end sessions; a protocol error between two halves that are right is a bug.
pub(crate) fn check_end(who: &str, why: Ended) {
    let allowed = matches!(
        why,
        Ended::Closed(_)
            | Ended::Dead
            | Ended::Frozen
            | Ended::Replaced
            | Ended::HandshakeTimeout
            | Ended::DialTimeout
            | Ended::Bye { .. }
            | Ended::Stopped
    );
    // The HELLO of a server that was taken over may still be on its way.
    let late = why == Ended::Refused { code: reject::Code::STALE_FENCE };
    let leaves = why == Ended::Refused { code: reject::Code::DRAINING }
        || matches!(why, Ended::Rejected { code: reject::Code::DRAINING, .. });
    // Its journal takes no write.
    let fails = matches!(why, Ended::JournalFailed | Ended::Refused { code: reject::Code::BUSY })
        || matches!(why, Ended::Rejected { code: reject::Code::BUSY, .. });
    assert!(allowed || late || leaves || fails || is_lease_held(why), "{who}: {why}");
}

/// Lineages of this world are a byte repeated.
pub(crate) fn lineage_of(run: u8) -> Lineage {
    Lineage([run; 16])
}

pub(crate) fn run_of(lineage: Lineage) -> u8 {
    lineage.0[0]
}
