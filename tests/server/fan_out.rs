//! A fan-out while it is under way.

use std::time::Duration;

use tillwire::{Order, OrderKind, Outcome, PushError, Quorum, Target};

use super::*;

#[tokio::test]
async fn a_quorum_is_told_as_soon_as_it_is_reached_or_cannot_be() {
    let lan = lan(20);
    let devices = lan.devices(1..=3).await;
    let server = lan.server(1..=4).shards(2).start().await.unwrap();
    connected(&server, 3).await;
    let order = Order::new(OrderKind::SHOW_PAGE, 1, b"x").idempotent();
    let fan_out = server.push(&order, &Target::all()).await.unwrap();
    let applied = |code| code == Outcome::APPLIED;
    let most = fan_out.wait(Quorum::percent(75), applied, SOON).await;
    assert!(most.reached && most.matching >= 3, "{most:?}");
    assert_eq!((fan_out.count(Outcome::APPLIED), fan_out.ended(), fan_out.targets()), (3, 3, 4));
    let all = fan_out.wait(Quorum::count(4), applied, Duration::from_millis(100)).await;
    assert_eq!((all.reached, all.matching, all.ended, all.targets), (false, 3, 3, 4));
    // The fourth ends otherwise: four cannot be reached any more, which is known at once.
    let (all, removed) = tokio::join!(fan_out.wait(Quorum::percent(100), applied, SOON), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.remove(id(4))
    });
    assert!(removed);
    assert_eq!((all.reached, all.matching, all.ended), (false, 3, 4));
    server.shutdown().await;
    drop(devices);
}

#[tokio::test]
async fn who_waits_for_room_gets_it_when_an_order_settles() {
    let lan = lan(21);
    let server = lan.server([1]).live_orders(1).start().await.unwrap();
    let order = Order::new(OrderKind::SHOW_PAGE, 1, b"x").idempotent();
    let first = server.push(&order, &Target::all()).await.unwrap();
    let none = server.push_wait(&order, &Target::all(), Duration::from_millis(100)).await;
    assert!(matches!(none, Err(PushError::Full { limit: 1, .. })), "{none:?}");
    let all = Target::all();
    let (second, devices) = tokio::join!(server.push_wait(&order, &all, SOON), lan.devices([1]));
    assert_eq!(first.settled(SOON).await.count(Outcome::APPLIED), 1);
    assert_eq!(second.unwrap().settled(SOON).await.count(Outcome::APPLIED), 1);
    server.shutdown().await;
    drop(devices);
}
