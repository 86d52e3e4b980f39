//! A caller's order in steps. A caller who leaves stops it after the step that is under way; a server that ends does not, if the
//! rollout is in its outbox.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tillwire::{Outcome, PushError, Report, Rollout, RolloutReport, StoreServer};

use super::request::{Push, Steps};
use super::session::{Reader, Writer, each, gone, order, target};
use super::write_line;
use crate::error::Failure;
use crate::json;
use crate::serve::error_line;

/// Rolls an order out and tells what came of each step.
pub(super) async fn run(
    reader: &mut Reader,
    writer: &mut Writer,
    server: &StoreServer,
    push: &Push,
    steps: &Steps,
) -> std::io::Result<()> {
    let target = match target(server, &push.to).await {
        Ok(target) => target,
        Err(failure) => return write_line(writer, &error_line(&failure)).await,
    };
    let plan = Rollout::steps(steps.percents.iter().copied())
        .abort_above(steps.abort_above)
        .step_within(steps.within);
    let rolling = match server.begin_rollout(&order(push), &target, &plan).await {
        Ok(rolling) => rolling,
        Err(error) => return write_line(writer, &error_line(&failure(&error))).await,
    };
    write_line(
        writer,
        &json!({
            "event": "rolling-out", "rollout": rolling.rollout(), "durable": rolling.durable(), "steps": plan.percents(),
        }),
    )
    .await?;
    let rolled = tokio::select! {
        rolled = rolling.report() => rolled,
        () = gone(reader) => {
            rolling.stop();
            return Ok(());
        }
    };
    match rolled {
        Ok(report) => tell(writer, push, rolling.durable(), &plan, &report).await,
        Err(error) => write_line(writer, &error_line(&failure(&error))).await,
    }
}

/// A line per step, one per device if they are wanted, and the summary.
async fn tell(
    writer: &mut Writer,
    push: &Push,
    durable: bool,
    plan: &Rollout,
    report: &RolloutReport,
) -> std::io::Result<()> {
    for (step, report) in (1..).zip(report.steps()) {
        write_line(writer, &step_line(step, report)).await?;
        if push.each {
            each(writer, push, report).await?;
        }
    }
    for device in report.not_reached().iter().filter(|_| push.each) {
        let mut line = json::result(device);
        line["pending"] = "not-reached".into();
        write_line(writer, &line).await?;
    }
    write_line(writer, &summary(push, durable, plan, report)).await
}

fn step_line(step: usize, report: &Report) -> Value {
    let mut line = json!({
        "event": "step",
        "step": step,
        "order": report.number(),
        "targets": report.targets(),
        "unsettled": report.unsettled(),
        "latency_us": json::latency(&report.latency()),
    });
    line["outcomes"] = counts([report], |report| named(report.outcomes()));
    line["pending"] = counts([report], |report| named(report.pending()));
    line
}

fn summary(push: &Push, durable: bool, plan: &Rollout, report: &RolloutReport) -> Value {
    let steps = report.steps();
    let not_reached = report.not_reached().len();
    let targets = steps.iter().map(Report::targets).sum::<usize>() + not_reached;
    let aborted = report.aborted().map(|aborted| {
        json!({
            "step": steps.len(),
            "percent": plan.percents().get(aborted.step),
            "failed": aborted.failed,
            "devices": aborted.devices,
        })
    });
    let mut summary = json!({
        "event": "summary",
        "order": steps.last().map(Report::number),
        "orders": steps.iter().map(Report::number).collect::<Vec<_>>(),
        "rollout": report.rollout(),
        "durable": durable,
        "restarts": report.restarts(),
        "stopped": report.stopped(),
        "targets": targets,
        "unsettled": report.unsettled(),
        "not_reached": not_reached,
        "aborted": aborted,
        "latency_us": slowest(steps),
        "ok": aborted.is_none() && !report.stopped() && report.count(Outcome::APPLIED) == targets,
    });
    summary["outcomes"] = counts(steps, |report| named(report.outcomes()));
    summary["pending"] = counts(steps, |report| named(report.pending()));
    if push.result {
        summary["results"] = steps.iter().map(|step| step.results().count()).sum::<usize>().into();
    }
    summary
}

fn named<K: core::fmt::Display>(counts: Vec<(K, usize)>) -> Vec<(String, usize)> {
    counts.into_iter().map(|(what, devices)| (what.to_string(), devices)).collect()
}

/// The same count of several steps, added up by name.
fn counts<'r>(
    steps: impl IntoIterator<Item = &'r Report>,
    of: impl Fn(&Report) -> Vec<(String, usize)>,
) -> Value {
    let mut sums = BTreeMap::new();
    for (name, devices) in steps.into_iter().flat_map(of) {
        *sums.entry(name).or_insert(0_usize) += devices;
    }
    Value::Object(sums.into_iter().map(|(name, devices)| (name, devices.into())).collect::<Map<_, _>>())
}

/// Each quantile where it was worst: quantiles of several steps cannot be added up.
fn slowest(steps: &[Report]) -> Value {
    let worst = |of: fn(&tillwire::Latency) -> Duration| steps.iter().map(|step| of(&step.latency())).max();
    json::latency(&tillwire::Latency {
        p50: worst(|latency| latency.p50).unwrap_or_default(),
        p99: worst(|latency| latency.p99).unwrap_or_default(),
        max: worst(|latency| latency.max).unwrap_or_default(),
    })
}

fn failure(error: &PushError) -> Failure {
    match error {
        PushError::NoTarget { .. } | PushError::Order(_) => super::session::refused(error),
        // It may have come between two steps.
        _ => Failure::broken(error.to_string(), "what was pushed of it goes on; tillwire status counts it"),
    }
}
