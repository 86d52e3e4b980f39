//! What must never happen, checked against a history of everything that did.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use push::receiver::{Delivered, Verdict};
use push::{Ended, Mark};
use wire_format::frame::outcome::Code;
use wire_format::frame::reject;
use wire_format::ids::{Lane, Lineage};
use wire_format::time::Instant;

/// An order may start this long after its lifetime: as long as its bytes may lie where no clock of ours sees them. The
/// device stands still for just less than what ends its sessions (5 s), then applies the rest of its window before it
/// reads on (8 orders of 400 ms), while the server stands still too and declares nobody dead.
const LATE_MAX: Duration = Duration::from_secs(10);

/// A lineage and a number: the identity of an order.
pub(crate) type OrderId = (u8, u64);

#[derive(Debug)]
struct Info {
    lane: Lane,
    idempotent: bool,
    deadline: Instant,
    targets: BTreeSet<usize>,
}

/// One hand-over.
#[derive(Debug)]
struct Effect {
    device: usize,
    boot: u64,
    order: OrderId,
    verdict: Verdict,
}

#[derive(Debug, Default)]
pub(crate) struct Oracle {
    orders: BTreeMap<OrderId, Info>,
    effects: Vec<Effect>,
    outcomes: BTreeMap<(usize, OrderId), Code>,
    /// The last number handed over per device, boot, lineage and lane.
    floors: BTreeMap<(usize, u64, u8, Lane), u64>,
    settled: BTreeSet<OrderId>,
}

impl Oracle {
    pub(crate) fn submitted(
        &mut self,
        order: OrderId,
        lane: Lane,
        idempotent: bool,
        deadline: Instant,
        targets: BTreeSet<usize>,
    ) {
        let info = Info { lane, idempotent, deadline, targets };
        assert!(self.orders.insert(order, info).is_none());
    }

    pub(crate) fn handed_over(
        &mut self,
        now: Instant,
        device: usize,
        boot: u64,
        delivered: &Delivered<'_>,
        verdict: Verdict,
    ) {
        let run = run_of(delivered.lineage);
        let number = delivered.order.number;
        let order = (run, number);
        let info = self.orders.get(&order).unwrap_or_else(|| panic!("{order:?} was never submitted"));
        assert!(
            info.targets.contains(&device),
            "{order:?} was handed to device {device}, which was not meant"
        );
        assert_eq!(delivered.order.lane, info.lane);
        assert!(now <= info.deadline + LATE_MAX, "{order:?} started {:?} late", now.since(info.deadline));
        let before = self.effects.iter().filter(|effect| effect.device == device && effect.order == order);
        for effect in before {
            assert_ne!(effect.boot, boot, "{order:?} was handed over twice in one boot of device {device}");
            assert!(info.idempotent, "{order:?} must not run twice, but did on device {device}");
            assert!(delivered.redelivered, "{order:?} came again to device {device} without saying so");
        }
        let floor = self.floors.entry((device, boot, run, info.lane)).or_insert(0);
        assert!(number > *floor, "{order:?} after {floor} on device {device}: not in lane order");
        *floor = number;
        self.effects.push(Effect { device, boot, order, verdict });
    }

    pub(crate) fn ended(&mut self, device: usize, order: OrderId, code: Code, first_code: Code) {
        let info = self.orders.get(&order).unwrap_or_else(|| panic!("{order:?} was never submitted"));
        assert!(info.targets.contains(&device), "{order:?} ended on device {device}, which was not meant");
        let shown = if code == Code::DUPLICATE { first_code } else { code };
        let before = self.outcomes.insert((device, order), shown);
        assert_eq!(before, None, "{order:?} ended twice on device {device}");
        let verdicts: Vec<_> = self
            .effects
            .iter()
            .filter(|effect| effect.device == device && effect.order == order)
            .map(|effect| effect.verdict.code().0)
            .collect();
        match shown {
            Code::APPLIED | Code::REJECTED_KIND | Code::REJECTED_PAYLOAD | Code::FAILED => {
                assert!(
                    verdicts.contains(&shown),
                    "{order:?} ended as {shown} on device {device}, effects {verdicts:?}"
                );
            }
            Code::EXPIRED => {
                assert!(info.idempotent || verdicts.is_empty(), "{order:?} expired after its effect")
            }
            Code::TOO_LARGE | Code::OVERFLOW | Code::NOT_TARGETED => assert!(verdicts.is_empty()),
            Code::IN_DOUBT => assert!(!info.idempotent, "{order:?} may run twice, so it is never in doubt"),
            other => panic!("{order:?} ended as {other} on device {device}"),
        }
    }

    /// The fleet hands an order back: every mark is final and is what was told.
    pub(crate) fn settled(&mut self, order: OrderId, marks: &[u8]) {
        assert!(self.settled.insert(order), "{order:?} was handed back twice");
        self.check_marks(order, marks, true);
    }

    /// Marks of an order and the outcomes told agree.
    pub(crate) fn check_marks(&self, order: OrderId, marks: &[u8], over: bool) {
        let info = &self.orders[&order];
        for (device, mark) in marks.iter().copied().map(Mark).enumerate() {
            let told = self.outcomes.get(&(device, order)).copied();
            if !info.targets.contains(&device) {
                assert_eq!((mark, told), (Mark::NOT_TARGETED, None));
            } else if over {
                assert_eq!(mark.code(), told, "{order:?} on device {device}");
            } else if let Some(code) = told {
                assert_eq!(mark.code(), Some(code), "{order:?} on device {device}");
            }
        }
    }

    /// The last server's orders have all ended; with the others went who asked about theirs.
    pub(crate) fn finish(&self, run: u8) {
        for (order, info) in self.orders.iter().filter(|((of, _), _)| *of == run) {
            assert!(self.settled.contains(order), "{order:?} was never handed back");
            for device in &info.targets {
                assert!(
                    self.outcomes.contains_key(&(*device, *order)),
                    "{order:?} never ended on device {device}"
                );
            }
        }
    }
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
    assert!(allowed || late || is_lease_held(why), "{who}: {why}");
}

/// Lineages of this world are a byte repeated.
pub(crate) fn lineage_of(run: u8) -> Lineage {
    Lineage([run; 16])
}

pub(crate) fn run_of(lineage: Lineage) -> u8 {
    lineage.0[0]
}
