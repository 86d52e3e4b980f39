//! Whole peers that stand still: devices and servers as processes of their own, stopped and continued by a signal.

use std::sync::Arc;
use std::time::Duration;

use testkit::history::{Event, Limits};
use tillwire::{Device, Outcome};
use tokio::time::{Instant, sleep, timeout};

use super::judge::Judge;
use super::process::{Process, own_address};
use super::{SOON, device, eventually, id, listed, once, page, server};

const DAY: Duration = Duration::from_secs(86_400);
/// Devices of this process beside the one that is frozen.
const MANY: u8 = 40;
const FROZEN: u8 = 200;
/// Memory a server may take while one device owes: its orders are kept once for all, and the allocator keeps a little.
const MEMORY_MAX: u64 = 16 << 20;

async fn crowd(judge: &Arc<Judge>) -> Vec<Device> {
    let mut devices = Vec::new();
    for n in 1..=MANY {
        devices.push(device(n).start(judge.apply(n)).await.unwrap());
    }
    devices
}

/// Rounds of one order for everybody; how long each took until the whole crowd had applied it, the slowest last.
async fn rounds(server: &mut Process, count: usize, targets: &[u8]) -> Vec<Duration> {
    let mut took = Vec::new();
    for _ in 0..count {
        let since = Instant::now();
        let order = server.push(1, false, DAY, 4_000, targets);
        let mut left = MANY;
        while left > 0 {
            let (of, device, _) = server.next_outcome().await;
            left -= u8::from(of == order && device != u32::from(FROZEN));
        }
        took.push(since.elapsed());
        server.sample();
    }
    took.sort_unstable();
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_device_delays_nobody_and_costs_nothing() {
    const ROUNDS: usize = 50;
    let judge = Judge::with(Limits { memory: Some(MEMORY_MAX), descriptors: Some(8), ..Limits::default() });
    let crowd = crowd(&judge).await;
    let (frozen, address) = Process::device(&judge, FROZEN, own_address(), &[]).await;
    let mut listed: Vec<_> = (1..).zip(&crowd).map(|(n, device)| (n, device.address())).collect();
    listed.push((FROZEN, address));
    let mut server = Process::server(&judge, 100, 1, &listed).await;
    server.connected(u64::from(MANY) + 1).await;
    let all: Vec<_> = (1..=MANY).chain([FROZEN]).collect();
    let before = rounds(&mut server, ROUNDS, &all).await;

    frozen.signal("STOP");
    let since = Instant::now();
    let after = rounds(&mut server, ROUNDS, &all).await;
    // The promise is a tenth; what a loaded machine adds by itself is much more than that, but no timeout of ours.
    let (control, slowest) = (before[ROUNDS / 2], after[ROUNDS / 2]);
    assert!(slowest < control * 4 + Duration::from_millis(100), "{slowest:?} instead of {control:?}");
    assert!(after[ROUNDS - 1] < Duration::from_secs(2), "nobody waits for a deadline of the frozen one");
    while server.counted().await.dead == 0 {
        assert!(since.elapsed() < Duration::from_secs(8), "the frozen one is not known dead");
        sleep(Duration::from_millis(50)).await;
    }
    let counted = server.counted().await;
    assert_eq!((counted.suspects, counted.dead, counted.connected), (1, 1, MANY.into()), "{counted:?}");

    frozen.signal("CONT");
    while judge.history.finish().iter().any(|violation| violation.device == Some(FROZEN.into())) {
        timeout(SOON, server.next_outcome()).await.expect("the frozen one catches up");
    }
    server.sample();
    judge.history.assert_kept();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thawed_device_applies_nothing_that_perished_meanwhile() {
    // The simulation does the same with a minute (`push/tests/pair`); what matters is more than the 5 s after which a
    // device knows that it stood still, and more than the lifetime.
    const STILL: Duration = Duration::from_secs(7);
    let judge = Judge::new();
    let (frozen, address) = Process::device(&judge, FROZEN, own_address(), &[]).await;
    let server = server().device(listed(FROZEN, address)).start().await.unwrap();
    judge.push(&server, 1, once, 8, &[FROZEN]).await;
    judge.all_applied_once(SOON).await;

    frozen.signal("STOP");
    let mut perishable = Vec::new();
    for n in 0..12 {
        let make = if n % 2 == 0 { page } else { once };
        let lifetime = Duration::from_secs(2);
        let deed = judge.push(&server, 1, |it| make(it).perishable().lifetime(lifetime), 500, &[FROZEN]);
        perishable.push(deed.await);
    }
    sleep(STILL).await;
    frozen.signal("CONT");
    judge.all_end(SOON, &[Outcome::APPLIED, Outcome::EXPIRED]).await;
    for deed in &perishable {
        let report = deed.fan_out.report().await;
        assert_eq!((report.count(Outcome::EXPIRED), judge.history.effects(deed.order)), (1, 0));
    }
    let fresh = judge.push(&server, 1, once, 8, &[FROZEN]).await;
    assert_eq!(judge.settled(&fresh, SOON).await.count(Outcome::APPLIED), 1);
    judge.history.assert_kept();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stood_still_marks_nobody_dead() {
    // Longer than every deadline the server has for its devices, shorter than the 10 s after which they give it up. The
    // simulation does it with 30 s.
    const STILL: Duration = Duration::from_secs(7);
    let judge = Judge::new();
    let crowd = crowd(&judge).await;
    let listed: Vec<_> = (1..).zip(&crowd).map(|(n, device)| (n, device.address())).collect();
    let mut server = Process::server(&judge, 100, 1, &listed).await;
    server.connected(MANY.into()).await;
    let all: Vec<_> = (1..=MANY).collect();
    for n in 0..8 {
        server.push(1, n % 2 == 0, DAY, 2_000, &all);
    }
    // Orders are on their way: their outcomes come while nobody listens.
    sleep(Duration::from_millis(3)).await;
    server.signal("STOP");
    sleep(STILL).await;
    server.signal("CONT");
    server.outcomes(8 * usize::from(MANY)).await;
    server.push(1, false, DAY, 8, &all);
    server.outcomes(MANY.into()).await;
    let counted = server.counted().await;
    assert_eq!((counted.dead, counted.sessions), (0, MANY.into()), "no mass dead marking, no storm of dials");
    judge.history.assert_kept();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_server_that_wakes_reaches_nobody_its_successor_has() {
    const OLD: u64 = 1;
    const NEW: u64 = 2;
    let judge = Judge::new();
    for (log, fence) in [(OLD, 1), (NEW, 2)] {
        judge.record(Event::Log { log, fence });
    }
    let device = device(1).start(judge.apply(1)).await.unwrap();
    let mut old = Process::server(&judge, 100, 1, &[(1, device.address())]).await;
    old.connected(1).await;
    old.push(OLD, false, DAY, 8, &[1]);
    old.outcomes(1).await;
    old.signal("STOP");
    // Written to its pipe, read when it wakes: an order from before the change, as far as it knows.
    let stale = old.push(OLD, true, DAY, 8, &[1]);

    let new = server().fence(2).server_id(id(101)).device(listed(1, device.address())).start().await.unwrap();
    let first = judge.push(&new, NEW, once, 8, &[1]).await;
    // The old one's lease has to end first: 9 s.
    assert_eq!(judge.settled(&first, SOON * 2).await.count(Outcome::APPLIED), 1);
    old.signal("CONT");
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(3) {
        judge.push(&new, NEW, page, 8, &[1]).await;
        sleep(Duration::from_millis(20)).await;
    }
    old.drain().await;
    judge.record(Event::Gone { log: OLD });
    judge.all_end(SOON, &[Outcome::APPLIED]).await;
    assert_eq!(judge.history.effects(stale), 0, "nothing of the old one is applied");
    let stats = new.stats().await.unwrap().push;
    assert_eq!((stats.fleet.sessions, stats.connected), (1, 1), "no flapping");
    eventually("the old one gave up", async || old.counted().await.connected == 0).await;
}
