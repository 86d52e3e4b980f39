//! Orders that take long, and orders that bring their device down: what comes behind them, and beside them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use testkit::history::{Event, OrderId};
use testkit::proxy::{Faults, Plan};
use tillwire::{Delivered, Device, Lane, Order, Outcome, Verdict};
use tokio::time::{Instant, sleep, timeout};

use super::judge::{Deed, Judge, name_of};
use super::process::{DEADLY, Process, own_address};
use super::{SOON, device, eventually, listed, once, page, proxy, server};

/// Orders that wait in the normal lane: more than a window.
const STUCK: usize = 20;

/// What a handler answered "later", with the name of each.
type Tickets = Arc<Mutex<Vec<(push::receiver::Ticket, OrderId)>>>;

/// Normal orders are answered later, others at once.
fn slow(tickets: &Tickets) -> impl FnMut(&Delivered<'_>) -> Verdict + Send + 'static {
    let tickets = Arc::clone(tickets);
    move |delivered| {
        if delivered.order.lane != Lane::Normal {
            return Verdict::Applied;
        }
        tickets.lock().unwrap().push((delivered.ticket, name_of(delivered.order.payload)));
        Verdict::Later
    }
}

/// Completes what is at work, until the server has every outcome: one of these.
async fn complete_all(judge: &Judge, device: &Device, tickets: &Tickets, ends: &[Outcome]) {
    let complete = async {
        loop {
            let taken = core::mem::take(&mut *tickets.lock().unwrap());
            for (ticket, order) in taken {
                judge.completed(order, 1, Outcome::APPLIED);
                device.handle().complete(ticket, Verdict::Applied, None).unwrap();
            }
            sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::select! {
        () = complete => {}
        () = judge.all_end(SOON, ends) => {}
    }
}

#[tokio::test]
async fn an_urgent_order_passes_a_lane_that_is_stuck() {
    let (judge, tickets) = (Judge::new(), Tickets::default());
    let device = device(1).start(judge.answer(1, slow(&tickets))).await.unwrap();
    let server = server().device(listed(1, device.address())).start().await.unwrap();
    for _ in 0..STUCK {
        judge.push(&server, 1, once, 64, &[1]).await;
    }
    eventually("the lane is stuck", async || tickets.lock().unwrap().len() == 1).await;
    // Longer than the receipt of an order may take: what waits is acknowledged and nobody is suspected.
    sleep(Duration::from_secs(6)).await;
    for lane in [Lane::Urgent, Lane::Interactive, Lane::Urgent] {
        let deed = judge.push(&server, 1, |it| once(it).lane(lane), 8, &[1]).await;
        let report = judge.settled(&deed, SOON).await;
        assert_eq!(report.count(Outcome::APPLIED), 1, "{lane:?} passes: {:?}", report.pending());
    }
    assert_eq!(tickets.lock().unwrap().len(), 1, "the others are stuck all the while");
    complete_all(&judge, &device, &tickets, &[Outcome::APPLIED]).await;
    judge.all_applied_once(SOON).await;
    let stats = server.stats().await.unwrap().push.fleet;
    assert_eq!((stats.sessions, stats.suspects, stats.dead), (1, 0, 0));
}

#[tokio::test]
async fn an_order_taken_back_ends_once_whether_it_waited_or_was_at_work() {
    let (judge, tickets) = (Judge::new(), Tickets::default());
    let device = device(1).start(judge.answer(1, slow(&tickets))).await.unwrap();
    let server = server().device(listed(1, device.address())).start().await.unwrap();
    let mut deeds = Vec::new();
    for n in 0..STUCK {
        deeds.push(judge.push(&server, 1, if n % 2 == 0 { page } else { once }, 64, &[1]).await);
    }
    eventually("the lane is stuck", async || tickets.lock().unwrap().len() == 1).await;
    // At work, waiting on the device, and never sent.
    for deed in [&deeds[0], &deeds[3], &deeds[STUCK - 1]] {
        judge.record(Event::Cancel { order: deed.order });
        assert!(deed.fan_out.cancel());
    }
    let never_sent = judge.settled(&deeds[STUCK - 1], SOON).await;
    assert_eq!(never_sent.count(Outcome::CANCELLED), 1);
    complete_all(&judge, &device, &tickets, &[Outcome::APPLIED, Outcome::CANCELLED]).await;
    let of = async |at: usize| deeds[at].fan_out.report().await.outcomes()[0].0;
    assert_eq!((of(0).await, of(3).await), (Outcome::APPLIED, Outcome::CANCELLED), "too late for the first");
}

#[tokio::test]
async fn attempts_that_fail_are_repeated_until_one_succeeds() {
    let judge = Judge::new();
    let mut tries = 0;
    let handler = move |_: &Delivered<'_>| {
        tries += 1;
        let retry_after = Duration::from_millis(20);
        match tries % 4 {
            1 => Verdict::Busy { retry_after },
            2 => Verdict::NoSpace { retry_after },
            3 => Verdict::FailedRetryable { detail: 3, retry_after },
            _ => Verdict::Applied,
        }
    };
    let device = device(1).start(judge.answer(1, handler)).await.unwrap();
    let server = server().device(listed(1, device.address())).start().await.unwrap();
    for n in 0..6 {
        let deed = judge.push(&server, 1, if n % 2 == 0 { page } else { once }, 64, &[1]).await;
        let report = judge.settled(&deed, SOON).await;
        assert_eq!(report.count(Outcome::APPLIED), 1, "{:?}", report.pending());
        assert_eq!(judge.history.effects(deed.order), 4, "three attempts without an effect, then one");
    }
    judge.history.assert_kept();
}

fn deadly(payload: &[u8]) -> Order<'_> {
    Order::new(DEADLY, 1, payload).idempotent()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_brings_its_device_down_is_given_up_and_the_next_one_applied() {
    let judge = Judge::new();
    let (mut process, address) = Process::device(&judge, 1, own_address(), &[]).await;
    let server = server().device(listed(1, address)).start().await.unwrap();
    judge.push(&server, 1, page, 8, &[1]).await;
    judge.all_applied_once(SOON).await;

    let poison = judge.push(&server, 1, deadly, 8, &[1]).await;
    let next = judge.push(&server, 1, once, 8, &[1]).await;
    let boots = async {
        let mut boots = 0;
        let open = async |deed: &Deed| deed.fan_out.report().await.unsettled() > 0;
        while open(&poison).await || open(&next).await {
            if process.is_over() {
                boots += 1;
                process = Process::device(&judge, 1, address, &[]).await.0;
            }
            sleep(Duration::from_millis(20)).await;
        }
        boots
    };
    let boots = timeout(SOON * 2, boots).await.expect("it is given up");
    judge.all_end(SOON, &[Outcome::APPLIED, Outcome::POISON, Outcome::IN_DOUBT]).await;
    let report = poison.fan_out.report().await;
    assert_eq!(report.outcomes(), [(Outcome::POISON, 1)], "after {boots} boots");
    assert_eq!((boots, judge.history.effects(poison.order)), (3, 3));
    // It may have been in the device when that went down with the order before it; that is no reason to run it twice.
    assert!(judge.history.effects(next.order) <= 1);
}

#[tokio::test]
async fn what_a_rate_of_a_slow_line_lets_through_arrives_in_lane_order() {
    // 64 kB a second, and 40 orders of 2 kB in the bulk lane: an urgent one behind them waits for a window at most.
    let judge = Judge::new();
    let device = device(1).start(judge.apply(1)).await.unwrap();
    let slow = Faults { rate: 64_000, ..Faults::default() };
    let proxy = proxy(device.address(), Plan { up: slow, ..Plan::default() }).await;
    let server = server().device(listed(1, proxy.address())).start().await.unwrap();
    for _ in 0..40 {
        judge.push(&server, 1, |it| page(it).lane(Lane::Bulk), 2_000, &[1]).await;
    }
    let since = Instant::now();
    let deed = judge.push(&server, 1, |it| once(it).lane(Lane::Urgent), 64, &[1]).await;
    assert_eq!(judge.settled(&deed, SOON).await.count(Outcome::APPLIED), 1);
    let urgent = since.elapsed();
    judge.all_applied_once(SOON).await;
    assert!(urgent * 2 < since.elapsed() + Duration::from_millis(500), "{urgent:?} of {:?}", since.elapsed());
}
