//! Rollouts that survive the server between two of their steps.

use std::sync::{Arc, Mutex};

use testkit::disk::SimDisk;
use tillwire::push::driver::server::Event;
use tillwire::{Delivered, Order, OrderKind, Outcome, PushError, Rollout, RolloutReport, Target, Verdict};

use super::*;

/// How often each device was handed something.
type Seen = Arc<Mutex<Vec<u8>>>;

fn noting(seen: &Seen, n: u8) -> impl FnMut(&Delivered<'_>) -> Verdict + Send + 'static {
    let seen = Arc::clone(seen);
    move |_| {
        seen.lock().unwrap().push(n);
        Verdict::Applied
    }
}

fn update() -> Order<'static> {
    Order::new(OrderKind(0x8001), 7, b"update").lifetime(Duration::from_secs(3_600))
}

/// Steps that wait longer than any test does.
fn patient(percents: impl IntoIterator<Item = u8>) -> Rollout {
    Rollout::steps(percents).step_within(Duration::from_secs(120))
}

/// Ten devices of a LAN, of which some are there.
struct Shop {
    lan: Lan,
    seen: Seen,
    devices: Vec<Device>,
}

impl Shop {
    fn new(test: u8) -> Self {
        Self { lan: lan(test), seen: Seen::default(), devices: Vec::new() }
    }

    async fn open(&mut self, n: u8) {
        self.devices.push(self.lan.device(n).start(noting(&self.seen, n)).await.unwrap());
    }

    fn builder(&self) -> ServerBuilder {
        self.lan.server(1..=10).shards(2)
    }

    async fn until_seen(&self, count: usize) {
        let seen = async {
            while self.seen.lock().unwrap().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, seen).await.unwrap();
    }

    /// Each device was handed the order once.
    fn is_once(&self) {
        let mut seen = self.seen.lock().unwrap().clone();
        seen.sort_unstable();
        assert_eq!(seen, (1..=10).collect::<Vec<_>>());
    }
}

fn steps(report: &RolloutReport) -> Vec<(usize, usize)> {
    report.steps().iter().map(|step| (step.targets(), step.count(Outcome::APPLIED))).collect()
}

/// Those of the ten that this plan reaches first: found with a rollout that nobody answers, on a server of its own.
async fn first_of(shop: &Shop, percent: u8) -> Vec<u8> {
    let server = shop.builder().start().await.unwrap();
    let quick = Rollout::steps([percent]).step_within(Duration::ZERO);
    let report = server.rollout(&update(), &Target::all(), &quick).await.unwrap();
    let first = report.steps()[0].devices().iter().map(|device| device.id.unwrap().0[0]).collect();
    server.shutdown().await;
    first
}

#[tokio::test]
async fn a_rollout_goes_on_after_a_restart_in_the_middle_of_a_step() {
    let mut shop = Shop::new(110);
    let first = first_of(&shop, 30).await;
    assert_eq!(first.len(), 3);
    let disk = SimDisk::new(11);
    let server = shop.builder().start_on(disk.clone()).await.unwrap();
    let rolling = server.begin_rollout(&update(), &Target::all(), &patient([30, 60])).await.unwrap();
    assert!(rolling.durable());
    // The first step waits for its third device.
    shop.open(first[0]).await;
    shop.open(first[1]).await;
    shop.until_seen(2).await;
    let rollout = rolling.rollout();
    drop((rolling, server));

    let server = shop.builder().start_on(disk.copy(12)).await.unwrap();
    assert_eq!(server.recovered().unwrap().rollouts, [rollout]);
    let view = &server.rollouts()[0];
    assert_eq!((view.running, view.durable, view.restarts, view.targets), (true, true, 1, 10));
    for n in (1..=10).filter(|n| !first[..2].contains(n)) {
        // The order goes to nobody else before the third one has it.
        if n != first[2] {
            shop.open(n).await;
        }
    }
    connected(&server, 9).await;
    assert_eq!(shop.seen.lock().unwrap().len(), 2, "the second step waits for the first");
    let mut events = server.subscribe();
    shop.open(first[2]).await;
    let report = server.rolling_out(rollout).unwrap().report().await.unwrap();
    assert_eq!(steps(&report), [(3, 3), (3, 3), (4, 4)]);
    assert_eq!((report.restarts(), report.aborted(), report.stopped()), (1, None, false));
    assert!(report.not_reached().is_empty());
    shop.is_once();
    let over = async {
        loop {
            let event = events.recv().await.unwrap();
            if let tillwire::ServerEvent::Session(event @ Event::RolloutEnded { .. }) = event {
                return event;
            }
        }
    };
    let Event::RolloutEnded { rollout: over, restarts, aborted: None, stopped: false } =
        tokio::time::timeout(SOON, over).await.unwrap()
    else {
        panic!("it is done")
    };
    assert_eq!((over, restarts), (rollout, 1));
    server.shutdown().await;
}

#[tokio::test]
async fn a_rollout_under_a_key_is_one_whoever_asks_and_whenever() {
    let mut shop = Shop::new(111);
    for n in 1..=10 {
        shop.open(n).await;
    }
    let disk = SimDisk::new(13);
    let server = shop.builder().start_on(disk.clone()).await.unwrap();
    connected(&server, 10).await;
    let (order, plan) = (update().key("update-7"), patient([10, 50]));
    let all = Target::all();
    let both = tokio::join!(server.rollout(&order, &all, &plan), server.rollout(&order, &all, &plan));
    let (one, other) = (both.0.unwrap(), both.1.unwrap());
    assert_eq!(one.rollout(), other.rollout());
    assert_eq!(steps(&one), [(1, 1), (4, 4), (5, 5)]);
    server.shutdown().await;

    // It is remembered, with how it ended.
    let server = shop.builder().start_on(disk.copy(14)).await.unwrap();
    assert!(server.recovered().unwrap().rollouts.is_empty(), "nothing goes on");
    let again = server.rollout(&order, &all, &plan).await.unwrap();
    assert_eq!((again.rollout(), again.restarts()), (one.rollout(), 0));
    assert_eq!(steps(&again), steps(&one));
    shop.is_once();
    // Without a key each one is another one.
    let new = server.rollout(&update(), &all, &plan).await.unwrap();
    assert!(new.rollout() > one.rollout());
    assert_eq!(shop.seen.lock().unwrap().len(), 20);
    server.shutdown().await;
}

#[tokio::test]
async fn a_step_that_ended_while_nobody_judged_it_is_judged_after_the_restart() {
    let shop = Shop::new(112);
    let first = first_of(&shop, 10).await[0];
    let fail = |_: &Delivered<'_>| Verdict::Failed { detail: 7 };
    let disk = SimDisk::new(15);
    let server = shop.builder().start_on(disk.clone()).await.unwrap();
    let rolling = server.begin_rollout(&update(), &Target::all(), &patient([10])).await.unwrap();
    let rollout = rolling.rollout();
    drop((rolling, server));
    // It ends between two runs of the rollout: its order is over before the next run looks.
    let server = shop.builder().start_on(disk.copy(16)).await.unwrap();
    let failing = shop.lan.device(first).start(fail).await.unwrap();
    let report = server.rolling_out(rollout).unwrap().report().await.unwrap();
    let aborted = report.aborted().unwrap();
    assert_eq!((aborted.step, aborted.failed, aborted.devices), (0, 1, 1));
    assert_eq!((report.count(Outcome::FAILED), report.not_reached().len()), (1, 9));
    server.shutdown().await;
    failing.shutdown().await;
}

#[tokio::test]
async fn whoever_takes_the_place_of_a_removed_device_was_not_drawn() {
    let mut shop = Shop::new(113);
    let first = first_of(&shop, 10).await[0];
    let disk = SimDisk::new(17);
    let server = shop.builder().start_on(disk.clone()).await.unwrap();
    let rolling = server.begin_rollout(&update(), &Target::all(), &patient([10])).await.unwrap();
    let rollout = rolling.rollout();
    let gone = if first == 5 { 6 } else { 5 };
    assert!(server.remove(id(gone)));
    // Its removal is on disk once a later order is.
    let later = Order::new(OrderKind(0x8002), 1, b"x");
    server.push(&later, &Target::id(id(first))).await.unwrap();
    drop((rolling, server));

    let others = (1..=10).filter(|n| *n != gone);
    let server = shop.lan.server(others.clone()).start_on(disk.copy(18)).await.unwrap();
    server.set_device(StaticDevice { id: Some(id(11)), ..StaticDevice::at(shop.lan.at(11)) }).await.unwrap();
    shop.open(11).await;
    for n in others {
        shop.open(n).await;
    }
    let report = server.rolling_out(rollout).unwrap().report().await.unwrap();
    assert_eq!((steps(&report), report.not_reached().len()), (vec![(1, 1), (8, 8)], 1));
    assert!(!shop.seen.lock().unwrap().contains(&11), "it came later");
    server.shutdown().await;
}

#[tokio::test]
async fn a_stopped_rollout_takes_no_step_in_any_run() {
    let mut shop = Shop::new(114);
    let disk = SimDisk::new(19);
    let server = shop.builder().start_on(disk.clone()).await.unwrap();
    let rolling = server.begin_rollout(&update(), &Target::all(), &patient([10])).await.unwrap();
    let pushed = async {
        while server.rollouts()[0].orders.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, pushed).await.unwrap();
    rolling.stop();
    let report = rolling.report().await.unwrap();
    assert!(report.stopped());
    assert_eq!((report.not_reached().len(), server.rollouts().len()), (9, 0));
    server.shutdown().await;
    let server = shop.builder().start_on(disk.copy(20)).await.unwrap();
    assert!(server.recovered().unwrap().rollouts.is_empty());
    for n in 1..=10 {
        shop.open(n).await;
    }
    connected(&server, 10).await;
    shop.until_seen(1).await;
    // This one comes behind whatever was pushed before.
    let last = server.push(&update(), &Target::all()).await.unwrap().settled(SOON).await;
    assert_eq!((last.count(Outcome::APPLIED), shop.seen.lock().unwrap().len()), (10, 11));
    server.shutdown().await;
}

#[tokio::test]
async fn a_volatile_rollout_stops_with_its_caller_and_a_durable_one_does_not() {
    let mut shop = Shop::new(115);
    let server = shop.builder().start_on(SimDisk::new(21)).await.unwrap();
    let (all, plan) = (Target::all(), patient([10]));
    let volatile = update().volatile();
    let left = tokio::time::timeout(Duration::from_millis(50), server.rollout(&volatile, &all, &plan)).await;
    assert!(left.is_err());
    let durable = update();
    let left = tokio::time::timeout(Duration::from_millis(50), server.rollout(&durable, &all, &plan)).await;
    assert!(left.is_err());
    let gone = async {
        while server.rollouts().len() > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, gone).await.unwrap();
    let views = server.rollouts();
    assert_eq!((views.len(), views[0].durable, views[0].running), (1, true, true));
    for n in 1..=10 {
        shop.open(n).await;
    }
    let report = server.rolling_out(views[0].rollout).unwrap().report().await.unwrap();
    assert_eq!(steps(&report), [(1, 1), (9, 9)]);
    assert_eq!(shop.seen.lock().unwrap().len(), 11, "of the volatile one the first step");
    server.shutdown().await;
}

#[tokio::test]
async fn rollouts_at_their_limit_and_one_past_it() {
    use tillwire::push::driver::server::ROLLOUTS_MAX;
    let shop = Shop::new(116);
    let server = shop.builder().start_on(SimDisk::new(23)).await.unwrap();
    let mut rolling = Vec::new();
    for _ in 0..ROLLOUTS_MAX {
        rolling.push(server.begin_rollout(&update(), &Target::all(), &patient([10])).await.unwrap());
    }
    let full = server.begin_rollout(&update(), &Target::all(), &patient([10])).await.unwrap_err();
    assert!(matches!(full, PushError::Full { limit: ROLLOUTS_MAX, .. }), "{full}");
    rolling[3].stop();
    rolling[3].report().await.unwrap();
    server.begin_rollout(&update(), &Target::all(), &patient([10])).await.unwrap();
    server.shutdown().await;
}
