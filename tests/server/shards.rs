//! Several tasks serve the devices: nobody sees that from outside.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use push::driver::server::Event;
use tillwire::{Delivered, Order, OrderKind, Outcome, ServerEvent, StaticDevice, Target, Verdict};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_reaches_the_devices_of_all_shards_and_reports_in_the_order_they_were_listed() {
    let lan = lan(1);
    let devices = lan.devices(1..=20).await;
    let server = lan.server(1..=20).shards(3).start().await.unwrap();
    connected(&server, 20).await;
    let order = Order::new(OrderKind::SHOW_PAGE, 1, b"x").idempotent();
    let report = server.push(&order, &Target::all()).await.unwrap().settled(SOON).await;
    assert_eq!((report.count(Outcome::APPLIED), report.unsettled()), (20, 0));
    let ids: Vec<_> = report.devices().iter().map(|device| device.id).collect();
    assert_eq!(ids, (1..=20).map(|n| Some(id(n))).collect::<Vec<_>>());

    let some = Target::ids([id(19), id(2), id(7)]);
    let report = server.push(&order, &some).await.unwrap().settled(SOON).await;
    let ids: Vec<_> = report.devices().iter().map(|device| device.id).collect();
    assert_eq!(ids, [2, 7, 19].map(|n| Some(id(n))));
    let stats = server.stats().await.unwrap().push;
    assert_eq!((stats.devices, stats.connected, stats.live_orders), (20, 20, 0));
    assert_eq!((stats.fleet.outcomes.of(Outcome::APPLIED), stats.latency.count()), (23, 23));
    server.shutdown().await;
    drop(devices);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_device_gets_its_orders_in_the_order_of_their_numbers() {
    let lan = lan(2);
    let seen: Arc<Mutex<Vec<(u8, u64)>>> = Arc::default();
    let mut devices = Vec::new();
    for n in 1..=6 {
        let seen = Arc::clone(&seen);
        let note = move |delivered: &Delivered<'_>| {
            seen.lock().unwrap().push((n, delivered.order.number));
            Verdict::Applied
        };
        devices.push(lan.device(n).start(note).await.unwrap());
    }
    let server = Arc::new(lan.server(1..=6).shards(3).start().await.unwrap());
    connected(&server, 6).await;
    // Two applications push at once, to all and to some.
    let pusher = |target: Target| {
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let order = Order::new(OrderKind::SHOW_PAGE, 1, b"x");
            let mut fan_outs = Vec::new();
            for _ in 0..100 {
                fan_outs.push(server.push(&order, &target).await.unwrap());
                tokio::task::yield_now().await;
            }
            for fan_out in fan_outs {
                assert_eq!(fan_out.settled(SOON).await.unsettled(), 0);
            }
        })
    };
    let (one, two) = (pusher(Target::all()), pusher(Target::ids([id(1), id(2), id(6)])));
    one.await.unwrap();
    two.await.unwrap();
    let seen = seen.lock().unwrap();
    for n in 1..=6 {
        let numbers: Vec<_> =
            seen.iter().filter(|(device, _)| *device == n).map(|(_, number)| *number).collect();
        assert_eq!(numbers.len(), if [1, 2, 6].contains(&n) { 200 } else { 100 });
        assert!(numbers.is_sorted_by(|a, b| a < b), "{n}: {numbers:?}");
    }
}

/// Two listings of one device: the one that comes second is refused, at whatever shard it is.
#[tokio::test]
async fn a_device_that_another_shard_reaches_is_refused_where_it_is_found_again() {
    let lan = lan(3);
    let devices = lan.devices([1]).await;
    for shards in [1, 2] {
        // By its id first, then by its address alone: the second listing goes to the other shard, if there is one.
        let server =
            lan.server([1]).device(StaticDevice::at(lan.at(1))).shards(shards).start().await.unwrap();
        let mut events = server.subscribe();
        let refused = async {
            loop {
                if let ServerEvent::Session(Event::Disconnected { why, id: None, .. }) =
                    events.recv().await.unwrap()
                {
                    return why.to_string();
                }
            }
        };
        let why = tokio::time::timeout(SOON, refused).await.expect("the second listing is refused");
        assert!(why.contains("number 0"), "{why}");
        connected(&server, 1).await;
        let order = Order::new(OrderKind::SHOW_PAGE, 1, b"x").idempotent();
        let report = server.push(&order, &Target::id(id(1))).await.unwrap().settled(SOON).await;
        assert_eq!(report.outcomes(), [(Outcome::APPLIED, 1)]);
        let known: Vec<_> = server.devices().await.iter().map(|device| device.push.id).collect();
        assert_eq!(known, [Some(id(1)), None], "{shards} shards");
        server.shutdown().await;
    }
    drop(devices);
}

#[tokio::test]
async fn a_removed_device_is_no_target_and_comes_back_when_listed_again() {
    let lan = lan(4);
    let devices = lan.devices(1..=4).await;
    let server = lan.server(1..=4).shards(2).capacity(4).start().await.unwrap();
    connected(&server, 4).await;
    let order = Order::new(OrderKind::SHOW_PAGE, 1, b"x").idempotent();
    let before = server.push(&order, &Target::all()).await.unwrap();
    assert_eq!(before.settled(SOON).await.unsettled(), 0);

    assert!(server.remove(id(3)));
    assert!(!server.remove(id(3)), "it is gone");
    let report = server.push(&order, &Target::all()).await.unwrap().settled(SOON).await;
    assert_eq!((report.targets(), report.count(Outcome::APPLIED)), (3, 3));
    assert_eq!(server.devices().await.len(), 3);

    // Its place is free again, and whoever gets it is not named in reports of before.
    server.set_device(lan.listed(3)).await.unwrap();
    assert!(server.set_device(lan.listed(9)).await.is_err(), "four are listed");
    connected(&server, 4).await;
    let report = server.push(&order, &Target::id(id(3))).await.unwrap().settled(SOON).await;
    assert_eq!(report.outcomes(), [(Outcome::APPLIED, 1)]);
    let names = before.report().await.devices().iter().filter(|device| device.id.is_some()).count();
    assert_eq!(names, 3);
    server.shutdown().await;
    drop(devices);
}

#[tokio::test]
async fn what_a_removed_device_is_owed_ends_and_is_told() {
    let lan = lan(5);
    let server = lan.server([1, 2]).shards(2).start().await.unwrap();
    let order = Order::new(OrderKind::SHOW_PAGE, 1, b"x");
    let fan_out = server.push(&order, &Target::all()).await.unwrap();
    assert!(server.remove(id(1)) && server.remove(id(2)));
    let report = fan_out.settled(SOON).await;
    assert_eq!(report.outcomes(), [(Outcome::NOT_TARGETED, 2)]);
    assert_eq!(fan_out.count(Outcome::NOT_TARGETED), 2);
    assert_eq!(server.stats().await.unwrap().push.live_orders, 0);
    let drained = tokio::time::timeout(Duration::from_secs(5), server.shutdown()).await;
    drained.expect("nothing is waited for");
}

#[tokio::test]
async fn shards_at_their_limits_and_one_past_each() {
    let lan = lan(6);
    for (wanted, given) in [(0, 1), (1, 1), (64, 64), (65, 64)] {
        let server = lan.server([]).live_orders(1).shards(wanted).start().await.unwrap();
        assert_eq!(server.shards(), given);
        server.shutdown().await;
    }
    let server = lan.server([]).start().await.unwrap();
    assert_eq!(server.shards(), 1, "this runtime has one thread");
    server.shutdown().await;
    let several = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = several.spawn(async move { lan.server([]).start().await.unwrap() }).await.unwrap();
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(server.shards(), cores.min(4));
    several.spawn(server.shutdown()).await.unwrap();
    several.shutdown_background();
}
