//! An order to some devices first, and to all later.

use std::time::Duration;

use tillwire::{Delivered, Order, OrderKind, Outcome, PushError, Rollout, Target, Verdict};

use super::*;

fn plan() -> Rollout {
    Rollout::steps([10, 50]).step_within(Duration::from_secs(5))
}

#[tokio::test]
async fn a_rollout_reaches_everybody_step_by_step() {
    let lan = lan(100);
    let devices = lan.devices(1..=10).await;
    let server = lan.server(1..=10).shards(2).start().await.unwrap();
    connected(&server, 10).await;
    let order = Order::new(OrderKind(0x8001), 1, b"update").key("update-7");
    let report = server.rollout(&order, &Target::all(), &plan()).await.unwrap();
    let steps: Vec<_> =
        report.steps().iter().map(|step| (step.targets(), step.count(Outcome::APPLIED))).collect();
    assert_eq!(steps, [(1, 1), (4, 4), (5, 5)]);
    assert_eq!((report.count(Outcome::APPLIED), report.unsettled(), report.aborted()), (10, 0, None));
    assert!(report.not_reached().is_empty());
    let numbers: Vec<_> = report.steps().iter().map(tillwire::Report::number).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    let error = server.rollout(&order.superseding("x", 1), &Target::all(), &plan()).await.unwrap_err();
    assert!(matches!(error, PushError::Order(_)));
    let error = server.rollout(&order, &Target::none(), &plan()).await.unwrap_err();
    assert_eq!(error, PushError::NoTarget { target: Target::none() });
    server.shutdown().await;
    drop(devices);
}

#[tokio::test]
async fn a_rollout_stops_when_too_many_fail_and_says_who_never_got_it() {
    let lan = lan(101);
    let mut devices = Vec::new();
    for n in 1..=10 {
        let fail = |_: &Delivered<'_>| Verdict::Failed { detail: 7 };
        devices.push(lan.device(n).start(fail).await.unwrap());
    }
    let server = lan.server(1..=10).shards(2).start().await.unwrap();
    connected(&server, 10).await;
    let order = Order::new(OrderKind(0x8001), 1, b"update");
    let report = server.rollout(&order, &Target::all(), &plan()).await.unwrap();
    let aborted = report.aborted().unwrap();
    assert_eq!((aborted.step, aborted.failed, aborted.devices), (0, 1, 1));
    assert_eq!((report.count(Outcome::FAILED), report.not_reached().len()), (1, 9));
    let again = server.rollout(&order, &Target::all(), &plan().abort_above(100)).await.unwrap();
    assert_eq!((again.count(Outcome::FAILED), again.aborted()), (10, None));
    server.shutdown().await;
    drop(devices);
}

#[tokio::test]
async fn a_device_that_is_away_is_pending_and_no_failure() {
    let lan = lan(102);
    let devices = lan.devices([1]).await;
    let server = lan.server([1, 2]).start().await.unwrap();
    connected(&server, 1).await;
    let order = Order::new(OrderKind(0x8001), 1, b"update");
    let soon = Rollout::steps([50]).abort_above(0).step_within(Duration::from_millis(300));
    let report = server.rollout(&order, &Target::all(), &soon).await.unwrap();
    assert_eq!((report.count(Outcome::APPLIED), report.unsettled(), report.aborted()), (1, 1, None));
    server.shutdown().await;
    drop(devices);
}
