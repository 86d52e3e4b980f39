//! The task of a rollout: one step after the other, each judged before the next.

use std::sync::Arc;

use wire_format::frame::outcome::Code;
use wire_format::rng::mix;

use super::super::Target;
use super::super::directory::Directory;
use super::super::directory::Share;
use super::super::error::PushError;
use super::super::fan_out::FanOut;
use super::super::push::with_options;
use super::super::report::{DeviceResult, Report};
use super::super::shared::{Shared, lock};
use super::table::Live;
use super::{Aborted, RolloutReport};
use crate::order::Order;
use crate::outbox::parse_order;

/// Whether an outcome speaks against going on.
const fn is_failure(code: Code) -> bool {
    !matches!(code, Code::APPLIED | Code::DUPLICATE | Code::SUPERSEDED)
}

fn failures(report: &Report) -> usize {
    report.outcomes().iter().filter(|(code, _)| is_failure(*code)).map(|(_, devices)| devices).sum()
}

/// The key of a step of the rollout with this key: the same in every run of the server.
pub(super) fn step_key(key: u64, step: usize) -> u64 {
    mix(key ^ mix(step as u64 + 1)).max(1)
}

/// Takes all steps, or those until it is stopped.
pub(super) async fn take_all(shared: &Arc<Shared>, live: &Live) -> Result<RolloutReport, PushError> {
    let mut report = empty_report(live);
    let bytes = live.order();
    // It was read before, or made here.
    let Ok(order) = parse_order(&bytes) else { return Ok(report) };
    let order = if live.durable { order } else { order.volatile().key_number(live.key) };
    let mut done = 0;
    for (step, next) in live.steps() {
        if live.is_stopped() {
            report.stopped = true;
            break;
        }
        done += next.len();
        let order = if live.durable { order.key_number(step_key(live.key, step)) } else { order };
        let Some(outcome) = take(shared, live, &order, next, &mut report).await? else { continue };
        let (failed, devices) = (failures(&outcome), outcome.targets());
        report.steps.push(outcome);
        if failed * 100 > devices * usize::from(live.plan.abort_above) {
            report.aborted = Some(Aborted { step, failed, devices });
            break;
        }
        report.stopped = live.is_stopped();
        if report.stopped {
            break;
        }
    }
    report.restarts = live.restarts();
    report.not_reached.extend(live.drawn.iter().skip(done).map(|(_, device)| *device));
    Ok(report)
}

/// How the steps of a rollout that was over before the last start stand; `None` if none of them is known any more.
pub(super) async fn recall(shared: &Arc<Shared>, live: &Live) -> Option<RolloutReport> {
    let mut report = empty_report(live);
    report.aborted = live.aborted();
    let mut done = 0;
    for (step, next) in live.steps() {
        if report.aborted.is_some_and(|aborted| step > aborted.step) {
            break;
        }
        done += next.len();
        let known = shared.keys.open(shared.clock.now()).find(step_key(live.key, step)).map(Arc::clone);
        match known {
            Some(state) => report.steps.push(FanOut::new(&state, shared).report().await),
            None => report.not_reached.extend(next.iter().map(|(_, device)| *device)),
        }
    }
    report.not_reached.extend(live.drawn.iter().skip(done).map(|(_, device)| *device));
    (!report.steps.is_empty()).then_some(report)
}

fn empty_report(live: &Live) -> RolloutReport {
    let (steps, not_reached) = (Vec::new(), Vec::new());
    let (aborted, stopped, restarts) = (None, false, live.restarts());
    RolloutReport { rollout: live.id, steps, not_reached, aborted, stopped, restarts }
}

/// One step; `None` if none of its devices is listed any more.
async fn take(
    shared: &Arc<Shared>,
    live: &Live,
    order: &Order<'_>,
    next: &[(u32, DeviceResult)],
    report: &mut RolloutReport,
) -> Result<Option<Report>, PushError> {
    let within = live.plan.step_within;
    let resolve = |directory: &Directory| resolve(shared, live, directory, next);
    let push = || with_options(order, |order, blob| shared.push_resolved(order, blob, live.durable, resolve));
    let pushed = shared.with_room(within, push);
    let fan_out = match pushed.await {
        Ok(fan_out) => fan_out,
        Err(PushError::NoTarget { .. }) => {
            report.not_reached.extend(next.iter().map(|(_, device)| *device));
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    live.note_step(fan_out.number());
    let outcome = tokio::select! {
        outcome = fan_out.settled(within) => outcome,
        () = live.stopped() => fan_out.report().await,
    };
    if outcome.unsettled() > 0 && shared.is_ending() {
        // It waits no longer, and its time is not over: the next run of the server judges it.
        return Err(PushError::Stopped);
    }
    if outcome.targets() < next.len() {
        let was_pushed = |device: &DeviceResult| {
            outcome.devices().iter().any(|pushed| (pushed.id, pushed.address) == (device.id, device.address))
        };
        let gone = next.iter().map(|(_, device)| *device).filter(|device| !was_pushed(device));
        report.not_reached.extend(gone);
    }
    Ok(Some(outcome))
}

/// The devices of a step that are still the ones that were drawn.
fn resolve(
    shared: &Shared,
    live: &Live,
    directory: &Directory,
    next: &[(u32, DeviceResult)],
) -> Result<(Vec<Share>, usize), PushError> {
    let progress = lock(&live.progress);
    let listed = next.iter().filter(|(at, device)| {
        // The position may be another device's by now.
        let same = |id| id == device.id || device.id.is_none();
        !progress.gone.contains(at) && directory.entry(*at).is_some_and(|entry| same(entry.id))
    });
    let (shares, targets) = directory.share(listed.map(|(at, _)| *at), false, || shared.pools.take_marks());
    if targets == 0 { Err(PushError::NoTarget { target: Target::all() }) } else { Ok((shares, targets)) }
}
