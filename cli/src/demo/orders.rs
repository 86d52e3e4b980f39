//! Pushing what was planned, and waiting for its outcomes.

use std::sync::Arc;
use std::time::Duration;

use tillwire::{FanOut, Order, Report, StoreServer};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::check::Pushed;
use super::plan::{Plan, Planned, Role};
use super::progress::Progress;
use super::scene;
use crate::error::Failure;

/// Orders on their way at a time.
const IN_FLIGHT: usize = 8;
/// How long an order may take to reach everybody.
const ORDER_WITHIN: Duration = Duration::from_secs(20);

/// The end of the time for orders that are waited for one after the other: what is wrong with one of them is mostly wrong
/// with all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(Instant);

impl Deadline {
    pub(super) fn begin() -> Self {
        Self(Instant::now() + ORDER_WITHIN)
    }

    pub(super) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// Pushes every order, several at a time, and waits for its outcomes.
pub(super) async fn push_all(server: &Arc<StoreServer>, plan: &Arc<Plan>) -> Result<Vec<Pushed>, Failure> {
    let progress = Progress::start(plan.orders.len(), "orders settled");
    let (mut pushed, mut flying) = (Vec::new(), JoinSet::new());
    let mut waiting = 0..plan.mixed;
    loop {
        while flying.len() < IN_FLIGHT
            && let Some(at) = waiting.next()
        {
            flying.spawn(push_one(Arc::clone(server), Arc::clone(plan), at));
        }
        match flying.join_next().await {
            None => break,
            Some(Ok(result)) => pushed.push(result?),
            Some(Err(error)) => return Err(Failure::broken(format!("a task was lost: {error}"), "")),
        }
        progress.inc();
    }
    pushed.extend(scene::play(server, plan, plan.mixed, &progress).await?);
    Ok(pushed)
}

async fn push_one(server: Arc<StoreServer>, plan: Arc<Plan>, at: usize) -> Result<Pushed, Failure> {
    let planned = plan.orders.get(at).ok_or_else(|| refused("it is not in the plan"))?;
    let fan_out = push_planned(&server, &plan, planned).await?;
    settle(&fan_out, at, Deadline::begin()).await
}

/// Waits for an order's outcomes. Without all of them the rest of the demo is pointless: each further order would wait as
/// long.
pub(super) async fn settle(fan_out: &FanOut, at: usize, deadline: Deadline) -> Result<Pushed, Failure> {
    let report = fan_out.settled(deadline.left()).await;
    match report.unsettled() {
        0 => Ok(Pushed { plan: at, report }),
        _ => Err(unsettled(at, &report)),
    }
}

fn unsettled(at: usize, report: &Report) -> Failure {
    let pending: Vec<_> = report.pending().into_iter().map(|(why, count)| format!("{count} {why}")).collect();
    Failure::broken(
        format!(
            "after {} s order {} of the plan has no outcome from {} of its {} devices: {}",
            ORDER_WITHIN.as_secs(),
            at + 1,
            report.unsettled(),
            report.targets(),
            pending.join(", ")
        ),
        "devices have gone, or this machine is too busy for so many: try fewer --devices",
    )
}

pub(super) async fn push_planned(
    server: &StoreServer,
    plan: &Plan,
    planned: &Planned,
) -> Result<FanOut, Failure> {
    let mut order = Order::new(planned.kind, planned.schema, &planned.payload)
        .lane(planned.lane)
        .with_flags(planned.flags);
    if let Role::Prices(version) = planned.role {
        order = order.superseding("prices", version);
    }
    if planned.wants_result() {
        order = order.wants_result();
    }
    let target = planned.whom.target(plan.seed);
    server.push(&order, &target).await.map_err(|error| refused(&error.to_string()))
}

pub(super) fn refused(why: &str) -> Failure {
    Failure::broken(format!("an order was not accepted: {why}"), "")
}
