//! What networks and broken peers do, over real sockets on loopback: servers and devices as applications start them, a
//! fault proxy between them, and peers that lie (`liars`).
//!
//! Every fault is placed by byte on the first connection; those after it are whole. What is asked each time: does every
//! order end exactly once, and was it handed over at most once per boot?

mod liars;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use push::driver::device::Event as Served;
use push::driver::server::Event as Session;
use push::ended::{Ended, Fault};
use testkit::proxy::{Faults, Plan, Proxy};
use tillwire::{
    Delivered, Device, DeviceBuilder, DeviceEvent, FanOut, Lane, NodeId, Order, OrderKind, Outcome, Security,
    ServerBuilder, ServerEvent, StaticDevice, Store, StoreServer, Target, Verdict,
};
use tokio::sync::broadcast::Receiver;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep, timeout};
use wire_format::rng::Rng;

const SOON: Duration = Duration::from_secs(15);
/// Cases under way at a time: each takes about ten descriptors, and 1,024 are all some hosts give.
const AT_ONCE: usize = 24;
/// Where the first frame after the handshake begins on the way to the device, and on the way to the server.
const AFTER_HELLO: u64 = 448;
const AFTER_WELCOME: u64 = 308;
/// An OUTCOME of one entry, and a SETTLED.
const OUTCOME_LEN: u64 = 36;
const SETTLED_LEN: u64 = 28;

fn store() -> Store {
    Store::new(1, "PARIS-12").unwrap()
}

fn id(n: u8) -> NodeId {
    NodeId([n; 16])
}

fn server() -> ServerBuilder {
    StoreServer::builder(store())
        .security(Security::open_network())
        .no_discovery()
        .capacity(8)
        .live_orders(256)
}

/// A device at an address of its own, so that nobody takes its port while it boots.
fn device(n: u8) -> DeviceBuilder {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    at(n, Ipv4Addr::new(127, 8, high, low))
}

fn at(n: u8, address: Ipv4Addr) -> DeviceBuilder {
    let builder = Device::builder(store(), id(n)).security(Security::open_network());
    builder.no_discovery().bind(address).port(0)
}

fn listed(n: u8, address: SocketAddr) -> StaticDevice {
    StaticDevice { id: Some(id(n)), ..StaticDevice::at(address) }
}

/// The number of each order a handler was given, in order.
type Seen = Arc<Mutex<Vec<u64>>>;

fn apply(seen: &Seen) -> impl FnMut(&Delivered<'_>) -> Verdict + Send + 'static {
    let seen = Arc::clone(seen);
    move |delivered| {
        seen.lock().unwrap().push(delivered.order.number);
        Verdict::Applied
    }
}

/// May run again; may not.
fn page(payload: &[u8]) -> Order<'_> {
    Order::new(OrderKind::SHOW_PAGE, 1, payload).idempotent()
}

fn once(payload: &[u8]) -> Order<'_> {
    Order::new(OrderKind::PRINT, 1, payload)
}

async fn proxy(target: SocketAddr, plan: Plan) -> Proxy {
    Proxy::start((Ipv4Addr::LOCALHOST, 0).into(), target, plan).await.unwrap()
}

/// Bytes to the device, bytes to the server.
fn up(faults: Faults) -> Plan {
    Plan { up: faults, ..Plan::default() }
}

fn down(faults: Faults) -> Plan {
    Plan { down: faults, ..Plan::default() }
}

fn cut_at(at: u64) -> Faults {
    Faults { cut_at: Some(at), ..Faults::default() }
}

fn stall_at(at: u64) -> Faults {
    Faults { stall_at: Some(at), ..Faults::default() }
}

/// The next end of a session, with the device it was with.
async fn next_end(events: &mut Receiver<ServerEvent>) -> (Option<NodeId>, Ended) {
    loop {
        if let ServerEvent::Session(Session::Disconnected { id, why, .. }) = events.recv().await.unwrap() {
            return (id, why);
        }
    }
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let all = async {
        while !holds().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, all).await.unwrap_or_else(|_| panic!("{what}"));
}

/// Runs every case, a few at a time.
async fn each<F: Future<Output = ()> + 'static>(cases: impl IntoIterator<Item = F>) {
    let run = async {
        let mut running = JoinSet::new();
        for case in cases {
            if running.len() >= AT_ONCE {
                running.join_next().await.unwrap().unwrap();
            }
            running.spawn_local(case);
        }
        while let Some(done) = running.join_next().await {
            done.unwrap();
        }
    };
    LocalSet::new().run_until(run).await;
}

/// A server and a device with a proxy between them.
struct Link {
    plan: Plan,
    server: StoreServer,
    device: Device,
    proxy: Proxy,
    seen: Seen,
    server_events: Receiver<ServerEvent>,
    device_events: Receiver<DeviceEvent>,
}

impl Link {
    async fn start(plan: Plan) -> Self {
        let seen = Seen::default();
        let device = device(1).start(apply(&seen)).await.unwrap();
        let device_events = device.subscribe();
        let proxy = proxy(device.address(), plan).await;
        let server = server().device(listed(1, proxy.address())).start().await.unwrap();
        let server_events = server.subscribe();
        Self { plan, server, device, proxy, seen, server_events, device_events }
    }

    async fn push(&self, order: &Order<'_>) -> FanOut {
        self.server.push(order, &Target::all()).await.unwrap()
    }

    /// Waits for the first connection and sets what happens to those after it; then for the end of its session.
    async fn hit(&mut self, next: Plan) -> Ended {
        let plan = self.plan;
        let proxy = &self.proxy;
        eventually(&format!("{plan:?}: no connection"), async || proxy.accepted() > 0).await;
        proxy.set_plan(next);
        let ended = timeout(SOON, next_end(&mut self.server_events)).await;
        ended.unwrap_or_else(|_| panic!("{plan:?}: no end")).1
    }

    /// Switches the device off without a goodbye and on again at its address; what it is handed from now on.
    async fn boot(&mut self) -> Seen {
        let address = self.device.address();
        let SocketAddr::V4(v4) = address else { panic!("{address}") };
        let again = || at(1, *v4.ip()).port(address.port());
        // Another device takes its place until its port is free.
        self.device = device(1).start(apply(&Seen::default())).await.unwrap();
        let seen = Seen::default();
        eventually("the port is free again", async || match again().start(apply(&seen)).await {
            Ok(device) => {
                self.device = device;
                true
            }
            Err(_) => false,
        })
        .await;
        seen
    }

    /// Why the device closed a connection.
    async fn device_closed(&mut self) -> Ended {
        let closed = timeout(SOON, async {
            loop {
                if let DeviceEvent::Session(Served::Closed { why, .. }) =
                    self.device_events.recv().await.unwrap()
                {
                    return why;
                }
            }
        });
        closed.await.unwrap_or_else(|_| panic!("{:?}: the device closed nothing", self.plan))
    }

    /// Every one of these orders, and no other, was handed over once and ended once, as applied.
    async fn all_applied_once(&self, orders: &[FanOut]) {
        let plan = self.plan;
        for order in orders {
            let report = order.settled(SOON).await;
            assert_eq!(
                (report.outcomes(), report.pending()),
                (vec![(Outcome::APPLIED, 1)], vec![]),
                "{plan:?}: order {}",
                order.number()
            );
        }
        let numbers: Vec<_> = orders.iter().map(FanOut::number).collect();
        assert_eq!(*self.seen.lock().unwrap(), numbers, "{plan:?}: each hand-over once, in order");
        let stats = self.server.stats().await.unwrap().push;
        let applied = stats.fleet.outcomes.of(Outcome::APPLIED);
        assert_eq!((applied, stats.live_orders), (orders.len() as u64, 0), "{plan:?}");
    }
}

#[tokio::test]
async fn one_byte_at_a_time_is_enough() {
    let dribble = Faults { chunk: Some(1), ..Faults::default() };
    let link = Link::start(Plan { up: dribble, down: dribble }).await;
    let mut orders = Vec::new();
    for n in 0..40_u8 {
        let payload = [n; 17];
        let order = if n % 2 == 0 { page(&payload) } else { once(&payload) };
        orders.push(link.push(&order).await);
    }
    link.all_applied_once(&orders).await;
    assert_eq!(link.server.stats().await.unwrap().push.fleet.sessions, 1);
}

/// A cut anywhere, with the device as it was: both orders end once, and so does one that comes after.
async fn cut(plan: Plan, payload: usize) {
    let mut link = Link::start(plan).await;
    let payload = vec![7; payload];
    let mut orders = vec![link.push(&page(&payload)).await, link.push(&once(&payload)).await];
    let why = link.hit(Plan::default()).await;
    assert!(matches!(why, Ended::Closed(_)), "{plan:?}: {why}");
    orders.push(link.push(&once(b"after")).await);
    link.all_applied_once(&orders).await;
}

/// Bytes of an order whose payload has this many, padded as it is sent.
fn order_len(payload: usize) -> u64 {
    page(&vec![7; payload]).encoded_len() as u64
}

#[tokio::test]
async fn a_cut_on_the_way_to_the_device_costs_no_order() {
    let hello = [0, 1, 15, 16, 17, 20, 100, 300, 446, 447];
    let settled = AFTER_HELLO + 2 * order_len(8);
    let all = hello.into_iter().chain(AFTER_HELLO..settled + SETTLED_LEN);
    each(all.map(|at| cut(up(cut_at(at)), 8))).await;
}

#[tokio::test]
async fn a_cut_on_the_way_to_the_server_costs_no_order() {
    let welcome = [0, 1, 15, 16, 17, 100, 200, 306, 307];
    // Both outcomes in one frame: 16 bytes more than a frame of one.
    let all = welcome.into_iter().chain(AFTER_WELCOME..AFTER_WELCOME + OUTCOME_LEN + 16);
    each(all.map(|at| cut(down(cut_at(at)), 8))).await;
}

#[tokio::test]
async fn a_cut_in_a_large_order_costs_no_order() {
    // The byte window holds one, so the second leaves after the first has ended.
    let len = order_len(15_000);
    let inside = [15, 16, 17, 4_095, 4_096, 4_097, 8_192, len - 1, len, len + 1, len + 9_000, 2 * len - 1];
    each(inside.map(|at| cut(up(cut_at(AFTER_HELLO + at)), 15_000))).await;
}

/// A cut anywhere, and the device boots before the server reaches it again.
async fn cut_and_boot(plan: Plan) {
    let mut link = Link::start(plan).await;
    let (again, never) = (link.push(&page(b"/promo")).await, link.push(&once(b"receipt")).await);
    // Nobody gets through until the device has booted.
    let why = link.hit(up(cut_at(0))).await;
    assert!(matches!(why, Ended::Closed(_)), "{plan:?}: {why}");
    let seen_later = link.boot().await;
    link.proxy.set_plan(Plan::default());

    let (again_report, never_report) = (again.settled(SOON).await, never.settled(SOON).await);
    let (first, second) = (link.seen.lock().unwrap().clone(), seen_later.lock().unwrap().clone());
    let handed =
        |seen: &[u64], order: &FanOut| seen.iter().filter(|&&number| number == order.number()).count();
    let both = |order| (handed(&first, order), handed(&second, order));
    assert_eq!(again_report.outcomes(), [(Outcome::APPLIED, 1)], "{plan:?}");
    assert!(matches!(both(&again), (1, 0) | (0, 1) | (1, 1)), "{plan:?}: {first:?} {second:?}");
    match never_report.outcomes()[..] {
        [(Outcome::APPLIED, 1)] => {
            assert_eq!(handed(&first, &never) + handed(&second, &never), 1, "{plan:?}")
        }
        [(Outcome::IN_DOUBT, 1)] => assert!(handed(&first, &never) <= 1, "{plan:?}: {first:?}"),
        ref other => panic!("{plan:?}: {other:?}"),
    }
    if never_report.count(Outcome::IN_DOUBT) == 1 {
        assert_eq!(handed(&second, &never), 0, "{plan:?}: what is in doubt is not handed over again");
    }
}

#[tokio::test]
async fn a_boot_after_a_cut_runs_nothing_twice_that_must_not() {
    let len = order_len(8);
    let to_device = [0, 16, len - 1, len, len + 16, 2 * len - 1, 2 * len, 2 * len + 27];
    let to_server = [0, 1, 16, 35, 36, 51];
    let plans = to_device.into_iter().map(|at| up(cut_at(AFTER_HELLO + at)));
    each(plans.chain(to_server.map(|at| down(cut_at(AFTER_WELCOME + at)))).map(cut_and_boot)).await;
}

/// One bit of one byte is wrong: the session ends over it, visibly, and no order is lost or run twice.
async fn flip(to_device: bool, at: u64) {
    let faults = Faults { flip: Some((at, 1 << (at % 8))), ..Faults::default() };
    let plan = if to_device { up(faults) } else { down(faults) };
    let mut link = Link::start(plan).await;
    let mut orders = vec![link.push(&page(b"/promo")).await, link.push(&once(b"receipt")).await];
    let why = link.hit(Plan::default()).await;
    if to_device {
        // The device says goodbye and why, unless the goodbye is lost in the reset.
        assert!(matches!(why, Ended::Bye { .. } | Ended::Closed(_)), "{plan:?}: {why}");
        let why = link.device_closed().await;
        assert!(matches!(why, Ended::Broken(_)) && why.fault() == Fault::Peer, "{plan:?}: {why}");
    } else {
        assert!(matches!(why, Ended::Broken(_)) && why.fault() == Fault::Peer, "{plan:?}: {why}");
        // More than once, if the next connection came before the proxy was told to let it pass.
        assert_ne!(link.server.stats().await.unwrap().push.fleet.broken, 0, "{plan:?}");
    }
    orders.push(link.push(&once(b"after")).await);
    link.all_applied_once(&orders).await;
}

#[tokio::test]
async fn a_flipped_bit_on_the_way_to_the_device_is_seen() {
    let end = AFTER_HELLO + 2 * order_len(8) + SETTLED_LEN;
    each((AFTER_HELLO..end).map(|at| flip(true, at))).await;
}

#[tokio::test]
async fn a_flipped_bit_on_the_way_to_the_server_is_seen() {
    let end = AFTER_WELCOME + OUTCOME_LEN + 16;
    each((AFTER_WELCOME..end).map(|at| flip(false, at))).await;
}

#[tokio::test]
async fn a_half_open_connection_is_known_dead_in_time_and_delays_nobody() {
    /// Beyond the limit: what a busy host may be late.
    const LATE: Duration = Duration::from_millis(500);
    const GOOD: u8 = 5;
    let (idle, busy) = (Duration::from_secs(6), Duration::from_secs(5));
    let stalls = [up(stall_at(AFTER_HELLO)), down(stall_at(AFTER_WELCOME))]
        .into_iter()
        .cycle()
        .zip([idle, idle, busy, busy]);
    let mut builder = server();
    let mut links = Vec::new();
    for (n, (plan, limit)) in (1..).zip(stalls) {
        let seen = Seen::default();
        let device = device(n).start(apply(&seen)).await.unwrap();
        let proxy = proxy(device.address(), plan).await;
        builder = builder.device(listed(n, proxy.address()));
        links.push((id(n), device, proxy, seen, limit));
    }
    let good = device(GOOD).start(apply(&Seen::default())).await.unwrap();
    let since = Instant::now();
    let server = builder.device(listed(GOOD, good.address())).start().await.unwrap();
    let mut events = server.subscribe();
    let owed = server.push(&once(b"owed"), &Target::ids([id(3), id(4)])).await.unwrap();
    eventually("all are dialled", async || links.iter().all(|(_, _, proxy, ..)| proxy.accepted() > 0)).await;
    links.iter().for_each(|(_, _, proxy, ..)| proxy.set_plan(Plan::default()));

    let watch = async {
        for _ in 0..links.len() {
            let (who, why) = next_end(&mut events).await;
            let (.., limit) = links.iter().find(|link| Some(link.0) == who).expect("the good one stays");
            let silent = since.elapsed();
            assert_eq!(why, Ended::Dead, "{who:?}");
            assert!(silent <= *limit + LATE, "{who:?} is known dead after {silent:?}, not {limit:?}");
        }
    };
    let serve = async {
        for served in 0_u64.. {
            let fan_out = server.push(&page(b"/promo"), &Target::id(id(GOOD))).await.unwrap();
            let report = fan_out.settled(Duration::from_secs(1)).await;
            assert_eq!(report.count(Outcome::APPLIED), 1, "after {served} orders");
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = watch => {}
        () = serve => {}
        () = sleep(SOON) => panic!("not all are known dead"),
    }
    let report = owed.settled(SOON).await;
    assert_eq!((report.outcomes(), report.unsettled()), (vec![(Outcome::APPLIED, 2)], 0));
    let seen: Vec<_> = links.iter().map(|(.., seen, _)| seen.lock().unwrap().clone()).collect();
    assert_eq!(seen, [vec![], vec![], vec![owed.number()], vec![owed.number()]], "each hand-over once");
    assert_eq!(server.stats().await.unwrap().push.fleet.dead, 4);
}

#[tokio::test]
async fn orders_behind_each_other_on_a_slow_way_end_in_order() {
    let slow = Faults { delay: Duration::from_millis(100), ..Faults::default() };
    let link = Link::start(Plan { up: slow, down: slow }).await;
    let mut orders = Vec::new();
    for n in 0..64_u8 {
        orders.push(link.push(&once(&[n])).await);
    }
    let last = orders[63].settled(SOON).await;
    assert_eq!(last.count(Outcome::APPLIED), 1);
    assert!(last.latency().max >= Duration::from_millis(200), "the way there and back takes that long");
    for order in &orders {
        assert_eq!(order.report().await.unsettled(), 0, "order {} ended before the last", order.number());
    }
    link.all_applied_once(&orders).await;
    let stats = link.server.stats().await.unwrap().push.fleet;
    assert_eq!((stats.sessions, stats.replays), (1, 0), "slow is not dead");
}

/// What a connection suffers, drawn: an end, a wrong bit or crumbs until the end, on one of the ways.
fn misfortune(rng: &mut Rng) -> Plan {
    let to_device = rng.below(2) == 0;
    let at = if to_device { AFTER_HELLO + rng.below(20_000) } else { AFTER_WELCOME + rng.below(600) };
    let faults = match rng.below(3) {
        0 => cut_at(at),
        1 => Faults { flip: Some((at, 1 << rng.below(8))), ..Faults::default() },
        _ => Faults { chunk: Some(7), ..cut_at(at) },
    };
    if to_device { up(faults) } else { down(faults) }
}

/// Orders of every lane and many sizes; with each its lane and whether it may run again.
async fn mixture(link: &Link, rng: &mut Rng) -> Vec<(FanOut, Lane, bool)> {
    let mut orders = Vec::new();
    for n in 0..60_u8 {
        let payload = vec![n; rng.below(3_000) as usize];
        let lane = Lane::ALL[rng.below(4) as usize];
        let again = rng.below(2) == 0;
        let order = if again { page(&payload) } else { once(&payload) };
        orders.push((link.push(&order.lane(lane)).await, lane, again));
    }
    orders
}

/// Four connections in a row that something happens to, and after some of them a boot. What each boot was handed.
async fn suffer(
    link: &mut Link,
    rng: &mut Rng,
    boots: bool,
    orders: &[(FanOut, Lane, bool)],
) -> Vec<Vec<u64>> {
    let mut seen = vec![Arc::clone(&link.seen)];
    for n in 1..=4 {
        let proxy = &link.proxy;
        eventually("the next connection, or the end", async || {
            proxy.accepted() >= n || orders[orders.len() - 1].0.report().await.unsettled() == 0
        })
        .await;
        proxy.set_plan(if n < 4 { misfortune(rng) } else { Plan::default() });
        if boots && rng.below(2) == 0 {
            sleep(Duration::from_micros(rng.below(20_000))).await;
            seen.push(link.boot().await);
        }
    }
    let all = async {
        for (order, ..) in orders {
            order.settled(SOON).await;
        }
    };
    // What has not ended by then fails where the outcomes are looked at.
    let _ = timeout(SOON, all).await;
    seen.iter().map(|seen| seen.lock().unwrap().clone()).collect()
}

async fn misfortunes(seed: u64, boots: bool, doubts: Arc<AtomicU16>) {
    let mut rng = Rng::new(seed);
    let mut link = Link::start(misfortune(&mut rng)).await;
    let orders = mixture(&link, &mut rng).await;
    let seen = suffer(&mut link, &mut rng, boots, &orders).await;
    for (order, lane, again) in &orders {
        let what = format!("seed {seed}: order {} of {lane:?}", order.number());
        let of = |seen: &Vec<u64>| seen.iter().filter(|&&number| number == order.number()).count();
        assert!(seen.iter().all(|seen| of(seen) <= 1), "{what}: twice within one boot");
        let handed: usize = seen.iter().map(of).sum();
        match order.report().await.outcomes()[..] {
            [(Outcome::APPLIED, 1)] if *again => assert!(handed >= 1, "{what}"),
            [(Outcome::APPLIED, 1)] => assert_eq!(handed, 1, "{what}"),
            [(Outcome::IN_DOUBT, 1)] if boots && !again => {
                assert!(handed <= 1, "{what}");
                doubts.fetch_add(1, Ordering::Relaxed);
            }
            ref other => panic!("{what}: {other:?}"),
        }
    }
    for (seen, lane) in seen.iter().flat_map(|seen| Lane::ALL.map(|lane| (seen, lane))) {
        let ours =
            |&&number: &&u64| orders.iter().any(|(order, of, _)| order.number() == number && *of == lane);
        assert!(seen.iter().filter(ours).is_sorted(), "seed {seed}: {lane:?} in order: {seen:?}");
    }
}

#[tokio::test]
async fn one_misfortune_after_the_other_costs_no_order() {
    let doubts = Arc::default();
    each((0..AT_ONCE as u64).map(|seed| misfortunes(seed, false, Arc::clone(&doubts)))).await;
    assert_eq!(doubts.load(Ordering::Relaxed), 0, "nothing is in doubt while the device stays up");
}

#[tokio::test]
async fn misfortunes_and_boots_run_nothing_twice_that_must_not() {
    let doubts = Arc::default();
    each((0..AT_ONCE as u64).map(|seed| misfortunes(seed, true, Arc::clone(&doubts)))).await;
    assert_ne!(doubts.load(Ordering::Relaxed), 0, "some boot came in between");
}
