//! Orders that survive the server.

use std::sync::{Arc, Mutex};

use testkit::disk::SimDisk;
use tillwire::{Delivered, Order, OrderKind, Outcome, Quorum, Target, Verdict};

use super::*;

/// Keys of the orders a device was handed, in the order in which it was.
type Seen = Arc<Mutex<Vec<u64>>>;

fn noting(seen: &Seen) -> impl FnMut(&Delivered<'_>) -> Verdict + Send + 'static {
    let seen = Arc::clone(seen);
    move |delivered| {
        seen.lock().unwrap().push(delivered.order.order_key);
        Verdict::Applied
    }
}

fn order(key: u64) -> Order<'static> {
    Order::new(OrderKind::MESSAGE, 1, b"x").key_number(key)
}

/// Starts from a disk whose last user has just been dropped.
async fn start(builder: ServerBuilder, disk: &SimDisk) -> StoreServer {
    builder.start_on(disk.clone()).await.unwrap()
}

#[tokio::test]
async fn an_order_is_delivered_once_over_a_restart_and_its_report_goes_on() {
    for (test, shards) in [(70, 1), (71, 2)] {
        let lan = lan(test);
        let disk = SimDisk::new(1);
        let seen: Vec<Seen> = (0..4).map(|_| Seen::default()).collect();
        let mut devices = Vec::new();
        for n in 1..=2 {
            devices.push(lan.device(n).start(noting(&seen[usize::from(n) - 1])).await.unwrap());
        }
        let server = start(lan.server(1..=4).shards(shards), &disk).await;
        connected(&server, 2).await;
        let first = server.push(&order(7), &Target::all()).await.unwrap();
        assert!(first.durable());
        let half = first.wait(Quorum::count(2), |code| code == Outcome::APPLIED, SOON).await;
        assert!(half.reached);
        let volatile = server.push(&order(8).volatile(), &Target::all()).await.unwrap();
        assert!(!volatile.durable());
        let (number, later) =
            (first.number(), server.push(&order(9), &Target::all()).await.unwrap().number());
        drop((first, volatile, server));
        disk.crash();

        // The list of devices is in the outbox.
        let server = start(lan.server([]).shards(shards), &disk).await;
        assert_eq!(server.recovered().unwrap().orders, [number, later]);
        let found = server.fan_out(later).await.unwrap();
        for n in 3..=4 {
            devices.push(lan.device(n).start(noting(&seen[usize::from(n) - 1])).await.unwrap());
        }
        let again = server.push(&order(7), &Target::all()).await.unwrap();
        assert_eq!(again.number(), number, "the key is known");
        let report = again.settled(SOON).await;
        assert_eq!((report.count(Outcome::APPLIED), report.targets()), (4, 4), "{report:?}");
        let ids: Vec<_> = report.devices().iter().map(|device| device.id.unwrap()).collect();
        assert_eq!(ids, [id(1), id(2), id(3), id(4)]);
        assert_eq!(found.settled(SOON).await.count(Outcome::APPLIED), 4);
        let new = server.push(&order(10), &Target::all()).await.unwrap();
        assert!(new.number() > later);
        assert_eq!(new.settled(SOON).await.count(Outcome::APPLIED), 4);
        for (at, seen) in seen.iter().enumerate() {
            let mut seen = seen.lock().unwrap().clone();
            seen.retain(|key| *key != 8);
            assert_eq!(seen, [7, 9, 10], "device {}, {shards} shards", at + 1);
        }
        server.shutdown().await;
    }
}
