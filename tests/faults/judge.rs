//! What happens to real servers and devices, written into a history, and held against the promises.
//!
//! Orders carry their name in the first 8 bytes of their payload, so that a handler can say what it was given without
//! knowing which server, session or attempt it came from.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use testkit::history::{Event, Facts, History, Limits, OrderId};
use tillwire::{
    Delivered, FanOut, NodeId, Order, Outcome, PushError, Report, Standing, StoreServer, Target, Verdict,
};
use tokio::time::{Instant, sleep};
use wire_format::frame::Raw;
use wire_format::frame::order::{KindFlags, Order as WireOrder};

use super::id;

/// Bytes of an order's name.
pub(crate) const NAME_LEN: usize = 8;
/// How long what a device did may be under way to the history, if it is written down by another process.
const UNDER_WAY: Duration = Duration::from_secs(5);
/// What a loaded machine may be late: between the look at the clock and the line in the history.
const LATE: Duration = Duration::from_secs(2);

/// One per test; shared by every handler and every push of it.
#[derive(Debug)]
pub(crate) struct Judge {
    pub(crate) history: History,
    since: Instant,
    next: AtomicU64,
    pushed: Mutex<Vec<Arc<Deed>>>,
}

/// An order that was pushed.
#[derive(Debug)]
pub(crate) struct Deed {
    pub(crate) order: OrderId,
    pub(crate) fan_out: FanOut,
}

/// The name an order carries.
pub(crate) fn name_of(payload: &[u8]) -> OrderId {
    let name = u64::from_le_bytes(payload[..NAME_LEN].try_into().unwrap());
    OrderId { log: name >> 32, number: name & 0xFFFF_FFFF }
}

/// A payload of this many bytes that begins with the order's name.
pub(crate) fn payload(order: OrderId, len: usize) -> Vec<u8> {
    assert!(len >= NAME_LEN, "a payload has room for its name");
    let name = order.log << 32 | order.number;
    let mut payload = vec![7; len];
    payload[..NAME_LEN].copy_from_slice(&name.to_le_bytes());
    payload
}

/// A device as histories name it: the first byte of its id.
pub(crate) fn device_of(id: NodeId) -> u32 {
    id.0[0].into()
}

impl Judge {
    pub(crate) fn new() -> Arc<Self> {
        Self::with(Limits { late: Some(LATE), ..Limits::default() })
    }

    pub(crate) fn with(limits: Limits) -> Arc<Self> {
        let history = History::new(limits);
        Arc::new(Self { history, since: Instant::now(), next: AtomicU64::new(1), pushed: Mutex::default() })
    }

    pub(crate) fn record(&self, event: Event) {
        // What is broken is kept there, and told at the end with everything else.
        let _ = self.history.record(self.since.elapsed(), event);
    }

    pub(crate) fn note(&self, what: impl Into<String>) {
        self.record(Event::Note(what.into()));
    }

    /// A handler of this device that applies everything, and its boot.
    pub(crate) fn apply(
        self: &Arc<Self>,
        device: u8,
    ) -> impl FnMut(&Delivered<'_>) -> Verdict + Send + 'static {
        self.answer(device, |_| Verdict::Applied)
    }

    /// A handler of this device that answers so, and its boot.
    pub(crate) fn answer(
        self: &Arc<Self>,
        device: u8,
        mut answer: impl FnMut(&Delivered<'_>) -> Verdict + Send + 'static,
    ) -> impl FnMut(&Delivered<'_>) -> Verdict + Send + 'static {
        let judge = Arc::clone(self);
        let boot = judge.next.fetch_add(1, Ordering::Relaxed);
        judge.record(Event::Boot { device: device.into(), boot });
        move |delivered| {
            let order = name_of(delivered.order.payload);
            let device = device.into();
            judge.record(Event::Effect { order, device, boot, redelivered: delivered.redelivered });
            let verdict = answer(delivered);
            if verdict != Verdict::Later {
                judge.record(Event::Answer { order, device, boot, code: verdict.code().0 });
            }
            verdict
        }
    }

    /// Writes down how an order ended that its handler answered "later".
    pub(crate) fn completed(&self, order: OrderId, device: u32, code: Outcome) {
        let mut last = None;
        self.history.each(|entry| match entry.event {
            Event::Effect { order: of, device: on, boot, .. } if (of, on) == (order, device) => {
                last = Some(boot);
            }
            _ => {}
        });
        self.record(Event::Answer { order, device, boot: last.unwrap_or(0), code });
    }

    /// Orders pushed and taken so far.
    pub(crate) fn pushed(&self) -> usize {
        self.pushed.lock().unwrap().len()
    }

    /// The next name of this log.
    pub(crate) fn name(&self, log: u64) -> OrderId {
        OrderId { log, number: self.next.fetch_add(1, Ordering::Relaxed) }
    }

    /// Writes down that this order is about to be accepted, as its frame says.
    pub(crate) fn accepted(&self, order: OrderId, what: &Order<'_>, targets: &[u8]) {
        let mut frame = vec![0; what.encoded_len()];
        let len = what.emit(1, &mut frame).unwrap();
        let (delivery, wire) = WireOrder::parse(&Raw::parse(&frame[..len]).unwrap()).unwrap();
        let lifetime = delivery.remaining_ms.map(|ms| Duration::from_millis(ms.into()));
        let supersede = (wire.supersede_key != 0).then_some((wire.supersede_key, wire.supersede_version));
        let facts = Facts {
            lane: wire.lane,
            idempotent: wire.kind_flags.contains(KindFlags::IDEMPOTENT),
            deadline: lifetime.map(|lifetime| self.since.elapsed() + lifetime),
            key: wire.order_key,
            supersede,
            attempt_of: None,
            again: true,
            targets: targets.iter().map(|n| u32::from(*n)).collect::<BTreeSet<_>>(),
        };
        self.record(Event::Accepted { order, facts: Box::new(facts) });
    }

    /// Pushes an order with a payload of `len` bytes to these devices, by id.
    pub(crate) async fn push(
        &self,
        server: &StoreServer,
        log: u64,
        make: impl Fn(&[u8]) -> Order<'_>,
        len: usize,
        targets: &[u8],
    ) -> Arc<Deed> {
        self.try_push(server, log, make, len, targets).await.unwrap()
    }

    pub(crate) async fn try_push(
        &self,
        server: &StoreServer,
        log: u64,
        make: impl Fn(&[u8]) -> Order<'_>,
        len: usize,
        targets: &[u8],
    ) -> Result<Arc<Deed>, PushError> {
        let order = self.name(log);
        let payload = payload(order, len);
        let what = make(&payload);
        self.accepted(order, &what, targets);
        match server.push(&what, &Target::ids(targets.iter().map(|n| id(*n)))).await {
            Ok(fan_out) => {
                let deed = Arc::new(Deed { order, fan_out });
                self.pushed.lock().unwrap().push(Arc::clone(&deed));
                Ok(deed)
            }
            Err(error) => {
                self.record(Event::Refused { order });
                Err(error)
            }
        }
    }

    /// Waits for every outcome of an order and writes down those that are there.
    pub(crate) async fn settled(&self, deed: &Deed, within: Duration) -> Report {
        let report = deed.fan_out.settled(within).await;
        self.tell(deed, &report).await;
        report
    }

    /// Writes down the outcomes of a report that are new; one that has changed is a second outcome.
    pub(crate) async fn tell(&self, deed: &Deed, report: &Report) {
        for result in report.devices() {
            let (Standing::Ended(code), Some(id)) = (result.standing, result.id) else { continue };
            self.outcome(deed.order, device_of(id), code).await;
        }
    }

    /// Writes down an outcome, after what led to it.
    pub(crate) async fn outcome(&self, order: OrderId, device: u32, code: Outcome) {
        if self.history.outcome(order, device) == Some(code) {
            return;
        }
        let by_handler = matches!(
            code,
            Outcome::APPLIED | Outcome::FAILED | Outcome::REJECTED_KIND | Outcome::REJECTED_PAYLOAD
        );
        let since = Instant::now();
        while by_handler && !self.answered(order, device) && since.elapsed() < UNDER_WAY {
            sleep(Duration::from_millis(5)).await;
        }
        self.record(Event::Outcome { order, device, code });
    }

    fn answered(&self, order: OrderId, device: u32) -> bool {
        self.history.count(
            |event| matches!(event, Event::Answer { order: of, device: on, .. } if (*of, *on) == (order, device)),
        ) > 0
    }

    /// Waits for every order that was pushed, and passes judgement. Each outcome has to be one of `codes`.
    pub(crate) async fn all_end(&self, within: Duration, codes: &[Outcome]) {
        let deadline = Instant::now() + within;
        let pushed = self.pushed.lock().unwrap().clone();
        for deed in &pushed {
            let report = self.settled(deed, deadline - Instant::now()).await;
            let other = report.outcomes().iter().any(|(code, _)| !codes.contains(code));
            assert!(
                !other && report.unsettled() == 0,
                "order {}: {:?}, waiting {:?}\n{}",
                deed.order,
                report.outcomes(),
                report.pending(),
                self.history.text()
            );
        }
        self.history.assert_kept();
    }

    /// As [`Judge::all_end`]: each order was applied, once, everywhere.
    pub(crate) async fn all_applied_once(&self, within: Duration) {
        self.all_end(within, &[Outcome::APPLIED]).await;
        let pushed = self.pushed.lock().unwrap().clone();
        for deed in &pushed {
            let effects = self.history.effects(deed.order);
            assert_eq!(effects, deed.fan_out.report().await.targets(), "order {} once each", deed.order);
        }
    }
}
