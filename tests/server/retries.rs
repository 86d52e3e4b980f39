//! Attempts that end and are made again; the report follows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tillwire::wire::frame::order::{OrderOption, options as options_of};
use tillwire::{Delivered, Order, OrderKind, Outcome, Target, Verdict};

use super::*;

/// Order numbers and option bytes, as they were handed over.
type Seen = Arc<Mutex<Vec<(u64, Vec<u8>)>>>;

/// Says "busy" so many times, then applies.
fn busy(
    times: usize,
    retry_after: Duration,
    seen: &Seen,
) -> impl FnMut(&Delivered<'_>) -> Verdict + Send + 'static {
    let seen = Arc::clone(seen);
    move |delivered| {
        let mut seen = seen.lock().unwrap();
        seen.push((delivered.order.number, delivered.order.options.to_vec()));
        if seen.len() <= times { Verdict::Busy { retry_after } } else { Verdict::Applied }
    }
}

#[tokio::test]
async fn a_busy_device_is_tried_again_under_a_new_number_and_the_report_follows() {
    let lan = lan(40);
    let mut devices = lan.devices([1, 2]).await;
    let seen: HashMap<u8, Seen> = [3, 4].map(|n| (n, Seen::default())).into();
    for (&n, seen) in &seen {
        devices.push(
            lan.device(n).start(busy(usize::from(n) - 2, Duration::from_millis(50), seen)).await.unwrap(),
        );
    }
    let server = lan.server(1..=4).shards(2).start().await.unwrap();
    connected(&server, 4).await;
    let order = Order::new(OrderKind::MESSAGE, 1, b"x").key("greeting");
    let fan_out = server.push(&order, &Target::all()).await.unwrap();
    let report = fan_out.settled(SOON).await;
    assert_eq!((report.outcomes(), report.unsettled()), (vec![(Outcome::APPLIED, 4)], 0));
    assert_eq!((fan_out.ended(), fan_out.count(Outcome::APPLIED)), (4, 4));
    for (n, seen) in seen {
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), usize::from(n) - 1);
        assert_eq!(seen[0], (fan_out.number(), vec![]));
        for (attempt, (number, options)) in seen.iter().enumerate().skip(1) {
            assert!(*number > fan_out.number());
            let retry = OrderOption::Retry { first: fan_out.number(), attempt: attempt as u16 };
            assert!(options_of(options).eq([Ok(retry)]), "{n}: {options:?}");
        }
    }
    assert_eq!(server.stats().await.unwrap().push.live_orders, 0);
    server.shutdown().await;
    drop(devices);
}

#[tokio::test]
async fn the_last_attempt_decides_when_there_is_no_time_for_another() {
    let lan = lan(41);
    let seen = Seen::default();
    let device = lan.device(1).start(busy(usize::MAX, Duration::from_millis(400), &seen)).await.unwrap();
    let server = lan.server([1]).start().await.unwrap();
    connected(&server, 1).await;
    let order = Order::new(OrderKind::MESSAGE, 1, b"x").lifetime(Duration::from_secs(1));
    let report = server.push(&order, &Target::all()).await.unwrap().settled(SOON).await;
    assert_eq!(report.outcomes(), [(Outcome::BUSY, 1)]);
    let tries = seen.lock().unwrap().len();
    assert!((2..=3).contains(&tries), "{tries}");
    server.shutdown().await;
    device.shutdown().await;
}

#[tokio::test]
async fn an_order_that_is_tried_again_can_be_cancelled() {
    let lan = lan(42);
    for (times, tried) in [(1, 1), (2, 2)] {
        let seen = Seen::default();
        // The last "busy" asks for an hour, in which the order is cancelled: after one attempt, or after several.
        let noted = Arc::clone(&seen);
        let mut first = busy(usize::MAX, Duration::from_millis(50), &seen);
        let handler = move |delivered: &Delivered<'_>| {
            let verdict = first(delivered);
            let hour = Duration::from_secs(3_600);
            if noted.lock().unwrap().len() >= times { Verdict::Busy { retry_after: hour } } else { verdict }
        };
        let device = lan.device(1).start(handler).await.unwrap();
        let server = lan.server([1]).start().await.unwrap();
        connected(&server, 1).await;
        let order = Order::new(OrderKind::MESSAGE, 1, b"x");
        let fan_out = server.push(&order, &Target::all()).await.unwrap();
        while seen.lock().unwrap().len() < tried {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(fan_out.report().await.pending(), [(tillwire::Pending::Retried, 1)]);
        assert!(fan_out.cancel());
        let report = fan_out.settled(SOON).await;
        assert_eq!(report.outcomes(), [(Outcome::CANCELLED, 1)], "after {tried}");
        server.shutdown().await;
        device.shutdown().await;
    }
}

#[tokio::test]
async fn a_busy_that_comes_when_there_is_no_time_left_ends_the_order() {
    let lan = lan(43);
    let begun = Arc::new(tokio::sync::Notify::new());
    let (told, mut tries) = (Arc::clone(&begun), 0);
    let handler = move |_: &Delivered<'_>| {
        tries += 1;
        if tries == 1 {
            return Verdict::Busy { retry_after: Duration::from_millis(10) };
        }
        told.notify_one();
        #[expect(
            clippy::disallowed_methods,
            reason = "a handler that is past the end of the order's lifetime"
        )]
        std::thread::sleep(Duration::from_millis(900));
        Verdict::Busy { retry_after: Duration::from_millis(10) }
    };
    let device = lan.device(1).start(handler).await.unwrap();
    let server = lan.server([1]).start().await.unwrap();
    connected(&server, 1).await;
    let order = Order::new(OrderKind::MESSAGE, 1, b"x").lifetime(Duration::from_millis(800));
    let fan_out = server.push(&order, &Target::all()).await.unwrap();
    begun.notified().await;
    let report = fan_out.settled(SOON).await;
    assert_eq!((report.outcomes(), report.unsettled()), (vec![(Outcome::BUSY, 1)], 0));
    server.shutdown().await;
    device.shutdown().await;
}
