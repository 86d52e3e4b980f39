//! One device of the demo whose normal lane is stuck: an urgent order passes, what waits is cancelled or superseded, and
//! the rest follows in log order.
//!
//! The device answers HOLD *later* and fills its window with what follows. Prices wait at the server, so their next version
//! takes their place there; one order that waits at the device is cancelled. An order cancelled at the device ends in log
//! order, so its outcome cannot be waited for while the lane is stuck: a first urgent order, pushed behind the cancellation,
//! passes and shows that it has arrived. The second one ends while all others still wait, and releases them.

use std::sync::Arc;

use tillwire::{FanOut, Lane, OrderKind, Outcome, StoreServer};
use wire_format::frame::order::KindFlags;

use super::check::Pushed;
use super::orders::{Deadline, push_planned, settle};
use super::payloads::{self, Typed};
use super::plan::{Plan, Planned, Role, Whom};
use super::progress::Progress;
use crate::error::Failure;

/// The order its device holds until the urgent one comes.
pub(super) const HOLD_KIND: OrderKind = OrderKind(0x80DF);
/// The urgent order that passes and leaves the lane as it is.
pub(super) const MARKER_KIND: OrderKind = OrderKind(0x80DD);
/// Orders that wait behind it at the device: with it they fill a window of 16, of which two places are not theirs.
const QUEUED: usize = 13;
/// Orders of the scene: the held one, the queue, two price lists, two urgent ones.
pub(super) const ORDERS: usize = 1 + QUEUED + 2 + 2;
/// The device it plays on.
const DEVICE: u32 = 0;

/// The orders of the scene, in the order they are pushed.
pub(super) fn orders(bytes: usize) -> Vec<Planned> {
    let planned = |role, outcome, typed: Typed| Planned {
        kind: typed.kind,
        schema: typed.schema,
        lane: if matches!(role, Role::Marker | Role::Urgent) { Lane::Urgent } else { Lane::Normal },
        flags: typed.flags,
        payload: typed.payload,
        whom: Whom::One(DEVICE),
        outcome,
        role,
    };
    let applied = |role, typed| planned(role, Outcome::APPLIED, typed);
    let own = |kind| Typed {
        kind,
        schema: 0,
        lane: Lane::Normal,
        flags: KindFlags::CANCELLABLE,
        payload: payloads::filler(bytes),
    };
    let mut orders = vec![applied(Role::Held, own(HOLD_KIND))];
    for number in 0..QUEUED {
        orders.push(match number {
            0 => planned(Role::Cancelled, Outcome::CANCELLED, payloads::message(bytes)),
            _ => applied(Role::Queued, payloads::message(bytes)),
        });
    }
    orders.push(planned(Role::Prices(1), Outcome::SUPERSEDED, payloads::prices(bytes, 1)));
    orders.push(applied(Role::Prices(2), payloads::prices(bytes, 2)));
    orders.push(applied(Role::Marker, own(MARKER_KIND)));
    orders.push(applied(Role::Urgent, payloads::message(bytes)));
    orders
}

/// Plays the scene, from the plan's order `first` on.
pub(super) async fn play(
    server: &Arc<StoreServer>,
    plan: &Plan,
    first: usize,
    progress: &Progress,
) -> Result<Vec<Pushed>, Failure> {
    let mut on_their_way: Vec<(usize, FanOut)> = Vec::with_capacity(ORDERS);
    for (at, planned) in plan.orders.iter().enumerate().skip(first) {
        if planned.role == Role::Marker {
            cancel(plan, &on_their_way);
        }
        let fan_out = push_planned(server, plan, planned).await?;
        if planned.role == Role::Marker {
            // What was pushed before it is at the device as well, the cancellation among it.
            settle(&fan_out, at, Deadline::begin()).await?;
        }
        on_their_way.push((at, fan_out));
    }
    let mut pushed = Vec::with_capacity(ORDERS);
    let deadline = Deadline::begin();
    for (at, fan_out) in on_their_way {
        pushed.push(settle(&fan_out, at, deadline).await?);
        progress.inc();
    }
    Ok(pushed)
}

/// Cancels what the plan wants cancelled.
fn cancel(plan: &Plan, on_their_way: &[(usize, FanOut)]) {
    let cancelled = |at: usize| plan.orders.get(at).is_some_and(|planned| planned.role == Role::Cancelled);
    for (_, fan_out) in on_their_way.iter().filter(|(at, _)| cancelled(*at)) {
        // A server that has stopped shows in the report.
        let _ = fan_out.cancel();
    }
}
