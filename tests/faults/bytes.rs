//! Faults placed by byte: cuts, flips, pieces, half-open ways. On the first connection, or on the first four; those after
//! it are whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use push::ended::{Ended, Fault};
use testkit::proxy::{Faults, Plan};
use tillwire::{Lane, Outcome};
use tokio::time::{Instant, sleep};
use wire_format::rng::Rng;

use super::judge::{Deed, Judge, NAME_LEN};
use super::link::Link;
use super::{
    AFTER_HELLO, AFTER_WELCOME, AT_ONCE, SOON, cut_at, device, down, each, eventually, id, listed, next_end,
    once, page, proxy, server, stall_at, up,
};

/// An OUTCOME of one entry, and a SETTLED.
const OUTCOME_LEN: u64 = 36;
const SETTLED_LEN: u64 = 28;

#[tokio::test]
async fn one_byte_at_a_time_is_enough() {
    let dribble = Faults { chunk: Some(1), ..Faults::default() };
    let link = Link::start(Plan { up: dribble, down: dribble, ..Plan::default() }).await;
    for n in 0..40_u8 {
        link.push(if n % 2 == 0 { page } else { once }, 17).await;
    }
    link.all_applied_once().await;
    assert_eq!(link.server.stats().await.unwrap().push.fleet.sessions, 1);
}

/// A cut anywhere, with the device as it was: both orders end once, and so does one that comes after.
async fn cut(plan: Plan, payload: usize) {
    let mut link = Link::start(plan).await;
    link.push(page, payload).await;
    link.push(once, payload).await;
    let why = link.hit(Plan::default()).await;
    assert!(matches!(why, Ended::Closed(_)), "{plan:?}: {why}");
    link.push(once, 8).await;
    link.all_applied_once().await;
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
    each(inside.into_iter().map(|at| cut(up(cut_at(AFTER_HELLO + at)), 15_000))).await;
}

/// A cut anywhere, and the device boots before the server reaches it again.
async fn cut_and_boot(plan: Plan) {
    let mut link = Link::start(plan).await;
    let (again, never) = (link.push(page, 8).await, link.push(once, 8).await);
    // Nobody gets through until the device has booted.
    let why = link.hit(up(cut_at(0))).await;
    assert!(matches!(why, Ended::Closed(_)), "{plan:?}: {why}");
    link.boot().await;
    link.proxy.set_plan(Plan::default());
    link.judge.note(format!("{plan:?}"));
    link.judge.all_end(SOON, &[Outcome::APPLIED, Outcome::IN_DOUBT]).await;
    assert_eq!(again.fan_out.report().await.count(Outcome::APPLIED), 1, "{plan:?}");
    let (effects, doubt) = (link.judge.history.effects(never.order), never.fan_out.report().await);
    assert!(doubt.count(Outcome::APPLIED) == effects || doubt.count(Outcome::IN_DOUBT) == 1, "{plan:?}");
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
    link.push(page, 8).await;
    link.push(once, 8).await;
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
    link.push(once, 8).await;
    link.all_applied_once().await;
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
    let judge = Judge::new();
    let mut builder = server();
    let mut links = Vec::new();
    for (n, (plan, limit)) in (1..).zip(stalls) {
        let device = device(n).start(judge.apply(n)).await.unwrap();
        let proxy = proxy(device.address(), plan).await;
        builder = builder.device(listed(n, proxy.address()));
        links.push((id(n), device, proxy, limit));
    }
    let good = device(GOOD).start(judge.apply(GOOD)).await.unwrap();
    let since = Instant::now();
    let server = builder.device(listed(GOOD, good.address())).start().await.unwrap();
    let mut events = server.subscribe();
    judge.push(&server, 1, once, 8, &[3, 4]).await;
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
            let deed = judge.push(&server, 1, page, 8, &[GOOD]).await;
            let report = judge.settled(&deed, Duration::from_secs(1)).await;
            assert_eq!(report.count(Outcome::APPLIED), 1, "after {served} orders");
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = watch => {}
        () = serve => {}
        () = sleep(SOON) => panic!("not all are known dead"),
    }
    judge.all_applied_once(SOON).await;
    assert_eq!(server.stats().await.unwrap().push.fleet.dead, 4);
}

#[tokio::test]
async fn orders_behind_each_other_on_a_slow_way_end_in_order() {
    let slow = Faults { delay: Duration::from_millis(100), ..Faults::default() };
    let link = Link::start(Plan { up: slow, down: slow, ..Plan::default() }).await;
    let mut orders = Vec::new();
    for _ in 0..64 {
        orders.push(link.push(once, 8).await);
    }
    let last = link.judge.settled(&orders[63], SOON).await;
    assert_eq!(last.count(Outcome::APPLIED), 1);
    assert!(last.latency().max >= Duration::from_millis(200), "the way there and back takes that long");
    for order in &orders {
        let report = order.fan_out.report().await;
        assert_eq!(report.unsettled(), 0, "order {} ended before the last", order.order);
    }
    link.all_applied_once().await;
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

/// Orders of every lane and many sizes.
async fn mixture(link: &Link, rng: &mut Rng) -> Arc<Deed> {
    let mut last = None;
    for _ in 0..60 {
        let len = NAME_LEN + rng.below(3_000) as usize;
        let lane = Lane::ALL[rng.below(4) as usize];
        let make = if rng.below(2) == 0 { page } else { once };
        last = Some(link.push(|payload| make(payload).lane(lane), len).await);
    }
    last.expect("sixty were pushed")
}

/// Four connections in a row that something happens to, and after some of them a boot.
async fn suffer(link: &mut Link, rng: &mut Rng, boots: bool, last: &Deed) {
    for n in 1..=4 {
        let proxy = &link.proxy;
        eventually("the next connection, or the end", async || {
            proxy.accepted() >= n || last.fan_out.report().await.unsettled() == 0
        })
        .await;
        proxy.set_plan(if n < 4 { misfortune(rng) } else { Plan::default() });
        if boots && rng.below(2) == 0 {
            sleep(Duration::from_micros(rng.below(20_000))).await;
            link.boot().await;
        }
    }
}

async fn misfortunes(seed: u64, boots: bool, doubts: Arc<AtomicU16>) {
    let mut rng = Rng::new(seed);
    let mut link = Link::start(misfortune(&mut rng)).await;
    link.judge.note(format!("seed {seed}"));
    let last = mixture(&link, &mut rng).await;
    suffer(&mut link, &mut rng, boots, &last).await;
    // Three boots that fall upon the same order make it a suspect: then it is not sent again.
    let codes = [Outcome::APPLIED, Outcome::IN_DOUBT, Outcome::POISON];
    link.judge.all_end(SOON, if boots { &codes } else { &codes[..1] }).await;
    let stats = link.server.stats().await.unwrap().push.fleet;
    doubts.fetch_add(stats.outcomes.of(Outcome::IN_DOUBT) as u16, Ordering::Relaxed);
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
