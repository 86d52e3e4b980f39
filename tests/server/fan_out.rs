//! A fan-out while it is under way.

use std::time::Duration;

use tillwire::{Delivered, Order, OrderKind, Outcome, PushError, Quorum, Target, Verdict};

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

#[tokio::test]
async fn outcomes_come_one_by_one_and_each_once() {
    let lan = lan(22);
    let devices = lan.devices(1..=4).await;
    let server = lan.server(1..=5).shards(2).start().await.unwrap();
    connected(&server, 4).await;
    let order = Order::new(OrderKind::MESSAGE, 1, b"x");
    let fan_out = server.push(&order, &Target::all()).await.unwrap();
    let mut early = fan_out.outcomes();
    let most = fan_out.wait(Quorum::count(4), |code| code == Outcome::APPLIED, SOON).await;
    assert!(most.reached);
    // Begins in the middle: hears of the four that were, then of the fifth.
    let mut late = fan_out.outcomes();
    assert!(server.remove(id(5)));
    for outcomes in [&mut early, &mut late] {
        let mut heard = Vec::new();
        while let Some(outcome) = tokio::time::timeout(SOON, outcomes.next()).await.unwrap() {
            heard.push((outcome.id, outcome.code));
        }
        heard.sort_by_key(|(id, ..)| *id);
        let applied = (1..=4).map(|n| (Some(id(n)), Outcome::APPLIED));
        let all: Vec<_> = applied.chain([(Some(id(5)), Outcome::NOT_TARGETED)]).collect();
        assert_eq!(heard, all);
    }
    // Settled long ago: everything is told at once, also when the stream is all that is left of the push.
    let mut after = fan_out.outcomes();
    drop(fan_out);
    let mut heard = 0;
    while tokio::time::timeout(SOON, after.next()).await.unwrap().is_some() {
        heard += 1;
    }
    assert_eq!(heard, 5);
    server.shutdown().await;
    drop(devices);
}

#[tokio::test]
async fn a_cancelled_order_ends_where_it_was_not_begun() {
    let lan = lan(23);
    let (tickets, mut begun) = tokio::sync::mpsc::unbounded_channel();
    let later = move |delivered: &Delivered<'_>| {
        tickets.send(delivered.ticket).unwrap();
        Verdict::Later
    };
    let device = lan.device(1).start(later).await.unwrap();
    let server = lan.server([1, 2]).shards(2).start().await.unwrap();
    connected(&server, 1).await;
    let order = Order::new(OrderKind::MESSAGE, 1, b"x");
    let first = server.push(&order, &Target::all()).await.unwrap();
    let ticket = tokio::time::timeout(SOON, begun.recv()).await.unwrap().unwrap();
    let second = server.push(&order, &Target::all()).await.unwrap();
    assert!(first.cancel() && second.cancel());
    // The second never began, on either; the first is at work on one.
    let report = second.settled(SOON).await;
    assert_eq!(report.outcomes(), [(Outcome::CANCELLED, 2)]);
    let most = first.wait(Quorum::count(1), |code| code == Outcome::CANCELLED, SOON).await;
    assert!(most.reached, "{most:?}");
    device.handle().complete(ticket, Verdict::Applied, None).unwrap();
    let report = first.settled(SOON).await;
    assert_eq!(report.outcomes(), [(Outcome::APPLIED, 1), (Outcome::CANCELLED, 1)]);
    server.shutdown().await;
    device.shutdown().await;
}

#[tokio::test]
async fn a_second_push_under_the_same_key_is_the_first_one() {
    let lan = lan(24);
    let server = lan.server([1]).live_orders(1).start().await.unwrap();
    let order = Order::new(OrderKind::MESSAGE, 1, b"x").key("receipt-4711");
    let first = server.push(&order, &Target::all()).await.unwrap();
    let second = server.push(&order, &Target::all()).await.unwrap();
    assert_eq!(first.number(), second.number(), "there is room for one order, and it is this one");
    drop(first);
    let devices = lan.devices([1]).await;
    assert_eq!(second.settled(SOON).await.count(Outcome::APPLIED), 1);
    drop(second);
    let third = server.push(&order, &Target::all()).await.unwrap();
    assert_eq!(third.settled(SOON).await.outcomes(), [(Outcome::APPLIED, 1)], "its end is remembered");
    let other = server.push(&order.key("receipt-4712"), &Target::all()).await.unwrap();
    assert_eq!((other.number(), other.settled(SOON).await.unsettled()), (third.number() + 1, 0));
    server.shutdown().await;
    drop(devices);
}

#[tokio::test]
async fn a_version_that_cannot_supersede_is_refused_at_the_push() {
    let lan = lan(25);
    let server = lan.server([1]).start().await.unwrap();
    let page = Order::new(OrderKind::SHOW_PAGE, 1, b"x").idempotent();
    let first = server.push(&page.superseding("page", 2), &Target::all()).await.unwrap();
    let error = server.push(&page.superseding("page", 2), &Target::all()).await.unwrap_err();
    assert!(matches!(error, PushError::Superseding(_)), "{error}");
    let second = server.push(&page.superseding("page", 3), &Target::all()).await.unwrap();
    assert_eq!(first.settled(SOON).await.outcomes(), [(Outcome::SUPERSEDED, 1)]);
    assert_eq!(second.report().await.unsettled(), 1);
    assert_eq!(server.stats().await.unwrap().push.live_orders, 1);
    server.shutdown().await;
}
