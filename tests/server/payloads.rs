//! Results of devices, and payloads too large for one frame.

use std::sync::{Arc, Mutex};

use tillwire::wire::frame::part::BLOB_MAX;
use tillwire::{Delivered, Handler, Order, OrderKind, Outcome, PushError, ResultBuffer, Target, Verdict};

use super::*;

/// Answers with its own number, for orders that ask.
struct Answers(u8);

impl Handler for Answers {
    fn handle(&mut self, _: &Delivered<'_>) -> Verdict {
        Verdict::Applied
    }

    fn handle_with_result(&mut self, _: &Delivered<'_>, result: &mut ResultBuffer<'_>) -> Verdict {
        result.write(&[self.0; 3]).unwrap();
        Verdict::Applied
    }
}

#[tokio::test]
async fn results_come_with_the_outcomes_and_in_the_report() {
    let lan = lan(80);
    let mut devices = Vec::new();
    for n in 1..=4 {
        devices.push(lan.device(n).start(Answers(n)).await.unwrap());
    }
    let server = lan.server(1..=4).shards(2).start().await.unwrap();
    connected(&server, 4).await;
    let order = Order::new(OrderKind::MESSAGE, 1, b"what do you see?").wants_result();
    let fan_out = server.push(&order, &Target::all()).await.unwrap();
    let mut outcomes = fan_out.outcomes();
    let mut heard = Vec::new();
    while let Some(outcome) = tokio::time::timeout(SOON, outcomes.next()).await.unwrap() {
        heard.push((outcome.id, outcome.code, outcome.result.map(|result| result.to_vec())));
    }
    heard.sort_by_key(|(id, ..)| *id);
    assert_eq!(heard, (1..=4).map(|n| (Some(id(n)), Outcome::APPLIED, Some(vec![n; 3]))).collect::<Vec<_>>());
    let report = fan_out.settled(SOON).await;
    let results: Vec<_> = report.results().map(|(device, result)| (device.id, result.to_vec())).collect();
    assert_eq!(results, (1..=4).map(|n| (Some(id(n)), vec![n; 3])).collect::<Vec<_>>());
    assert_eq!(report.without_result(), 0);
    let silent = server.push(&Order::new(OrderKind::MESSAGE, 1, b"x"), &Target::all()).await.unwrap();
    let report = silent.settled(SOON).await;
    assert_eq!((report.results().count(), report.without_result()), (0, 4));
    server.shutdown().await;
    drop(devices);
}

#[tokio::test]
async fn a_large_payload_arrives_whole_on_every_device() {
    let lan = lan(81);
    let payload: Vec<u8> = (0..300_000_u32).map(|at| (at * 7 / 5) as u8).collect();
    let seen: Arc<Mutex<Vec<bool>>> = Arc::default();
    let mut devices = Vec::new();
    for n in 1..=3 {
        let (seen, wanted) = (Arc::clone(&seen), payload.clone());
        let look = move |delivered: &Delivered<'_>| {
            seen.lock().unwrap().push(delivered.order.payload == wanted);
            Verdict::Applied
        };
        devices.push(lan.device(n).start(look).await.unwrap());
    }
    let server = lan.server(1..=3).shards(2).start().await.unwrap();
    connected(&server, 3).await;
    let order = Order::new(OrderKind(0x8003), 1, &payload).idempotent();
    let report = server.push(&order, &Target::all()).await.unwrap().settled(SOON).await;
    assert_eq!(report.outcomes(), [(Outcome::APPLIED, 3)]);
    assert_eq!(*seen.lock().unwrap(), [true; 3]);
    let stats = server.stats().await.unwrap().push;
    assert_eq!(stats.live_orders, 0);
    server.shutdown().await;
    drop(devices);
}

/// Each caller copies the pieces before it looks whether another one was first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_payload_pushed_by_many_under_one_key_is_pushed_once() {
    let lan = lan(83);
    let payload = vec![7; 300_000];
    // There is room for the payload of each caller at a time, and not for one more.
    let server = Arc::new(lan.server([1]).live_bytes(4 * 310_000).start().await.unwrap());
    let push = |key: &'static str| {
        let (server, payload) = (Arc::clone(&server), payload.clone());
        tokio::spawn(async move {
            let order = Order::new(OrderKind(0x8003), 1, &payload).idempotent().key(key);
            server.push(&order, &Target::all()).await.unwrap()
        })
    };
    let all = [(); 4].map(|()| push("image"));
    let mut numbers = Vec::new();
    for fan_out in all {
        numbers.push(fan_out.await.unwrap().number());
    }
    assert!(numbers.iter().all(|number| *number == numbers[0]), "{numbers:?}");
    assert_eq!(server.stats().await.unwrap().push.live_orders, 1);
    for key in ["second", "third", "fourth"] {
        assert!(push(key).await.unwrap().number() > numbers[0], "the room of those that came later is free");
    }
}

#[tokio::test]
async fn payloads_at_the_largest_size_and_one_past_it() {
    let lan = lan(82);
    let server = lan.server([1]).start().await.unwrap();
    let payload = vec![7; BLOB_MAX as usize + 1];
    let largest = Order::new(OrderKind(0x8003), 1, &payload[1..]);
    let fan_out = server.push(&largest, &Target::all()).await.unwrap();
    assert_eq!(fan_out.report().await.unsettled(), 1);
    let error = server.push(&Order::new(OrderKind(0x8003), 1, &payload), &Target::all()).await.unwrap_err();
    assert!(matches!(error, PushError::Order(_)), "{error}");
    server.shutdown().await;
}
