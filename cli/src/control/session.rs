//! One caller of the control socket: requests are read line by line and answered in their order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tillwire::discovery::driver::server::ServerStats as DiscoveryStats;
use tillwire::{
    FanOut, NodeId, Order, Outcome, PushError, Report, RolloutView, Store, StoreServer, TakeoverError, Target,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, ReadHalf, WriteHalf};
use tokio::sync::watch;

use super::listener::Stream;
use super::request::{Push, Quorum, Request};
use super::{LineError, VERSION, read_line, write_line};
use super::{asking, rollout, view, watching};
use crate::error::Failure;
use crate::names::To;
use crate::outbox::{self, Chosen};
use crate::serve::error_line;
use crate::state::FenceFile;
use crate::{json, names, out};

/// What a server's first line says of it beside its id.
#[derive(Clone, Debug)]
pub(crate) struct About {
    /// The store it serves.
    pub(crate) store: Store,
    /// Its name for people.
    pub(crate) name: String,
    /// It is a test server.
    pub(crate) staging: bool,
    /// Where it keeps orders, if not in memory.
    pub(crate) outbox: Option<Chosen>,
}

/// The server, and the orders that can still be cancelled.
pub(crate) struct Served {
    /// The server.
    pub(crate) server: Arc<StoreServer>,
    /// Set when a caller wants the server to leave: how long it waits for what is out.
    pub(crate) drain: watch::Sender<Option<Duration>>,
    about: About,
    /// Where a fence is kept if there is no outbox, which keeps it otherwise.
    fence: Option<FenceFile>,
    live: Mutex<BTreeMap<u64, FanOut>>,
}

impl Served {
    /// No order yet.
    pub(crate) fn new(server: Arc<StoreServer>, about: About, fence: Option<FenceFile>) -> Self {
        Self { server, drain: watch::Sender::new(None), about, fence, live: Mutex::default() }
    }

    /// Where orders are kept, if not in memory.
    pub(crate) const fn outbox(&self) -> Option<&Chosen> {
        self.about.outbox.as_ref()
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<u64, FanOut>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an order until it has ended everywhere; looked through when another one comes.
    fn keep(&self, fan_out: &FanOut) {
        let mut live = self.live();
        live.retain(|_, fan_out| fan_out.ended() < fan_out.targets());
        live.insert(fan_out.number(), fan_out.clone());
    }
}

pub(super) type Reader = BufReader<ReadHalf<Box<dyn Stream>>>;
pub(super) type Writer = WriteHalf<Box<dyn Stream>>;

/// Serves a caller until it leaves, or sends something that is no request's line.
pub(crate) async fn run(stream: Box<dyn Stream>, served: Arc<Served>) {
    let (server, About { store, name, staging, .. }) = (&served.server, &served.about);
    let (reader, mut writer) = tokio::io::split(stream);
    let hello = json!({
        "event": "hello", "control": VERSION, "version": env!("CARGO_PKG_VERSION"), "server": server.id().to_string(),
        "entity": store.entity(), "store": store.code(), "name": name, "staging": staging,
        "pid": std::process::id(),
    });
    if write_line(&mut writer, &hello).await.is_ok() {
        // A caller that went away is not an error of the server's.
        let _ = answer_all(BufReader::new(reader), writer, &served).await;
    }
}

async fn answer_all(mut reader: Reader, mut writer: Writer, served: &Served) -> std::io::Result<()> {
    let server = &*served.server;
    let mut partial = Vec::new();
    loop {
        let request = match read_line(&mut reader, &mut partial).await {
            Ok(Some(object)) => match (Request::read(&object), object.get("payload_bytes")) {
                (Ok(Request::Push(mut push)), _) if push.follow > 0 => {
                    if !read_payload(&mut reader, &mut push).await? {
                        return Ok(());
                    }
                    Ok(Request::Push(push))
                }
                // Where the payload behind it ends is not known.
                (Err(wrong), Some(_)) => {
                    return write_line(&mut writer, &error_line(&no_request(wrong))).await;
                }
                (request, _) => request,
            },
            Ok(None) => return Ok(()),
            Err(LineError::Io(error)) => return Err(error),
            // Whoever sends this is no caller of ours (a browser, say): one answer, and the end.
            Err(error) => {
                let failure =
                    Failure::start(error.to_string(), "one JSON object a line: see docs/CONTROL.md");
                return write_line(&mut writer, &error_line(&failure)).await;
            }
        };
        match request {
            Ok(Request::Push(order)) => match &order.rollout {
                Some(steps) => rollout::run(&mut reader, &mut writer, server, &order, steps).await?,
                None => push(&mut writer, served, &order).await?,
            },
            Ok(Request::Ask(question)) => asking::ask(&mut writer, &served.server, &question).await?,
            Ok(Request::Cancel(order)) => cancel(&mut writer, served, order).await?,
            Ok(Request::Watch) => return watching::watch(&mut reader, &mut writer, server).await,
            Ok(Request::Roster) => drop(watching::roster(&mut writer, server).await?),
            Ok(Request::View(device)) => view::view(&mut writer, server, &device).await?,
            Ok(Request::Stats) => stats(&mut writer, served).await?,
            Ok(Request::Drain(within)) => drain(&mut writer, served, within).await?,
            Ok(Request::Takeover) => takeover(&mut writer, served).await?,
            Err(wrong) => {
                write_line(&mut writer, &error_line(&no_request(wrong))).await?;
            }
        }
    }
}

/// Reads the payload that follows a request's line; false if the caller left before its end.
async fn read_payload(reader: &mut Reader, push: &mut Push) -> std::io::Result<bool> {
    // The memory grows with what comes, not with what is announced.
    let mut payload = reader.take(push.follow as u64);
    Ok(payload.read_to_end(&mut push.payload).await? == push.follow)
}

fn no_request(wrong: String) -> Failure {
    Failure::start(wrong, "see docs/CONTROL.md")
}

/// Returns when the caller has closed its side; requests it sends meanwhile wait.
pub(super) async fn gone(reader: &mut Reader) {
    if reader.fill_buf().await.is_ok_and(|bytes| !bytes.is_empty()) {
        core::future::pending().await
    }
}

async fn push(writer: &mut Writer, served: &Served, push: &Push) -> std::io::Result<()> {
    let fan_out = match start_push(&served.server, push).await {
        Ok(fan_out) => fan_out,
        Err(failure) => return write_line(writer, &error_line(&failure)).await,
    };
    served.keep(&fan_out);
    let accepted = json!({
        "event": "accepted", "order": fan_out.number(), "durable": fan_out.durable(), "targets": fan_out.targets(),
    });
    write_line(writer, &accepted).await?;
    let reached = if push.stream {
        stream(writer, &fan_out, push).await?
    } else {
        // A caller that sends no more (`echo … | nc`) still reads; one that is gone is noticed at the next line.
        wait(&fan_out, push).await
    };
    let report = fan_out.report().await;
    if push.each {
        each(writer, push, &report).await?;
    }
    let mut summary = json::report(&fan_out, &report);
    if push.result {
        summary["results"] = report.results().count().into();
    }
    if let Some(reached) = reached {
        summary["reached"] = reached.into();
        summary["ok"] = reached.into();
    }
    write_line(writer, &summary).await
}

/// Waits for every outcome, or for the quorum: says whether that was reached.
async fn wait(fan_out: &FanOut, push: &Push) -> Option<bool> {
    match push.quorum {
        None => {
            fan_out.settled(push.wait).await;
            None
        }
        Some(quorum) => {
            let progress = fan_out.wait(enough(quorum), |code| code == Outcome::APPLIED, push.wait).await;
            Some(progress.reached)
        }
    }
}

/// The same, with a line per outcome as it comes.
async fn stream(writer: &mut Writer, fan_out: &FanOut, push: &Push) -> std::io::Result<Option<bool>> {
    let mut outcomes = fan_out.outcomes();
    let mut waiting = std::pin::pin!(wait(fan_out, push));
    let reached = loop {
        tokio::select! {
            biased;
            Some(outcome) = outcomes.next() => write_line(writer, &json::outcome(&outcome, push.kind)).await?,
            reached = &mut waiting => break reached,
        }
    };
    // What came together with the last one.
    while let Ok(Some(outcome)) = tokio::time::timeout(Duration::ZERO, outcomes.next()).await {
        write_line(writer, &json::outcome(&outcome, push.kind)).await?;
    }
    Ok(reached)
}

/// A line per device, with its result.
pub(super) async fn each(writer: &mut Writer, push: &Push, report: &Report) -> std::io::Result<()> {
    let mut results = report.results().peekable();
    for device in report.devices() {
        let mut line = json::result(device);
        if let Some((_, result)) = results.next_if(|(of, _)| std::ptr::eq(*of, device)) {
            json::add_result(&mut line, push.kind, result);
        }
        write_line(writer, &line).await?;
    }
    Ok(())
}

async fn cancel(writer: &mut Writer, served: &Served, order: u64) -> std::io::Result<()> {
    // No order has a rollout's number.
    let running = served.server.rollouts().into_iter().find(|view| view.rollout == order && view.running);
    if let (Some(view), Some(rolling)) = (running, served.server.rolling_out(order)) {
        rolling.stop();
        let line =
            json!({"event": "stopping", "rollout": order, "targets": view.targets, "orders": view.orders});
        return write_line(writer, &line).await;
    }
    let known = served.live().get(&order).cloned();
    let fan_out = match known {
        // Of an earlier run of the server, or of another caller.
        None => served.server.fan_out(order).await,
        known => known,
    };
    let line = match fan_out.filter(|fan_out| fan_out.ended() < fan_out.targets()) {
        Some(fan_out) if fan_out.cancel() => {
            json!({"event": "cancelling", "order": order, "targets": fan_out.targets(), "ended": fan_out.ended()})
        }
        _ => error_line(&Failure::start(
            format!("no order {order} is on its way"),
            "it has ended on every device, or there never was one",
        )),
    };
    write_line(writer, &line).await
}

fn enough(quorum: Quorum) -> tillwire::Quorum {
    match quorum {
        Quorum::Count(devices) => tillwire::Quorum::count(usize::try_from(devices).unwrap_or(usize::MAX)),
        Quorum::Percent(percent) => tillwire::Quorum::percent(percent),
    }
}

async fn start_push(server: &StoreServer, push: &Push) -> Result<FanOut, Failure> {
    let target = target(server, &push.to).await?;
    server.push(&order(push), &target).await.map_err(|error| refused(&error))
}

/// The order that is asked for.
pub(super) fn order(push: &Push) -> Order<'_> {
    let mut order = Order::new(push.kind, push.schema, &push.payload).lane(push.lane).with_flags(push.flags);
    if let Some(lifetime) = push.lifetime {
        order = order.lifetime(lifetime);
    }
    if push.result {
        order = order.wants_result();
    }
    if let Some((key, version)) = &push.supersede {
        order = order.superseding(key, *version);
    }
    if let Some(key) = &push.key {
        order = order.key(key);
    }
    if push.volatile {
        order = order.volatile();
    }
    order
}

/// `to` against the devices known now: ids may be shortened.
pub(super) async fn target(server: &StoreServer, to: &To) -> Result<Target, Failure> {
    let mut target = Target::all();
    if let Some(kind) = to.kind {
        target = target.and_kind(kind);
    }
    if let Some(zone) = to.zone {
        target = target.and_zone(zone);
    }
    for tag in &to.tags {
        target = target.and_tag(tag);
    }
    if !to.ids.is_empty() {
        let known: Vec<NodeId> = server.devices().await.iter().filter_map(|info| info.push.id).collect();
        let ids: Result<Vec<_>, _> = to.ids.iter().map(|prefix| names::resolve(prefix, &known)).collect();
        target = target.and_ids(ids?);
    }
    Ok(target)
}

pub(super) fn refused(error: &PushError) -> Failure {
    let help = match error {
        PushError::NoTarget { .. } => {
            "tillwire watch shows who is known; devices that come later get nothing of it"
        }
        PushError::Full { .. } => "wait until some orders have their outcomes",
        PushError::Order(_) => "docs/PROTOCOL.md has the limits of an order",
        PushError::Outbox { fault } => outbox::help(fault),
        _ => "see the server's log",
    };
    Failure::start(error.to_string(), help)
}

/// Every counter of discovery, and of its sockets.
fn discovery_counters(stats: &DiscoveryStats) -> Value {
    let net = &stats.net;
    let mut object = json!({
        "links": net.links, "links_over": net.links_over, "receive_buffer_bytes": net.receive_buffer_bytes,
        "off_link": net.off_link, "misaddressed": net.misaddressed, "send_errors": net.send_errors,
        "receive_errors": net.receive_errors,
    });
    for (name, count) in stats.protocol.each() {
        object[name] = count.into();
    }
    object
}

/// The answer comes at once; the connection ends with the server.
async fn drain(writer: &mut Writer, served: &Served, within: Duration) -> std::io::Result<()> {
    let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
    write_line(writer, &json!({"event": "draining", "within_ms": within_ms})).await?;
    served.drain.send_replace(Some(within));
    Ok(())
}

async fn takeover(writer: &mut Writer, served: &Served) -> std::io::Result<()> {
    let in_outbox = served.outbox().is_some();
    let file = served.fence.as_ref();
    let keep = |fence| file.filter(|_| !in_outbox).map_or(Ok(()), |file| file.keep(fence));
    let line = match served.server.takeover_with(keep).await {
        Ok(Some(fence)) => {
            // For a run without the outbox. What counts is in there: this copy is never ahead of it.
            let copied = file.filter(|_| in_outbox).map_or(Ok(()), |file| file.keep(fence));
            if let Err(failure) = copied {
                out::warn(&format!("the fence {fence} is in the outbox alone: {}", failure.cause));
            }
            json!({"event": "taken-over", "fence": fence, "kept": in_outbox || file.is_some()})
        }
        Ok(None) => {
            error_line(&Failure::broken("the server is about to end", "start it again with tillwire serve"))
        }
        Err(TakeoverError::Keep(failure)) => not_taken_over(&failure.cause, &failure.help),
        Err(TakeoverError::Outbox { fault }) => {
            not_taken_over(&fault.to_string(), "see what is wrong with the outbox's disk")
        }
    };
    write_line(writer, &line).await
}

fn not_taken_over(why: &str, help: &str) -> Value {
    let cause = format!("the store is not taken over, for the new fence could not be kept: {why}");
    error_line(&Failure::broken(cause, help))
}

async fn stats(writer: &mut Writer, served: &Served) -> std::io::Result<()> {
    let server = &served.server;
    let mut line = json!({"event": "stats"});
    if let Some(stats) = server.stats().await {
        line["devices"] = stats.push.devices.into();
        line["connected"] = stats.push.connected.into();
        line["shards"] = server.shards().into();
        line["live_orders"] = stats.push.live_orders.into();
        line["latency_us"] = json::latency(&tillwire::Latency::of(&stats.push.latency));
        let mut counters = serde_json::Map::new();
        stats.push.fleet.each(|name, count| drop(counters.insert(name.replace('-', "_"), count.into())));
        line["push"] = Value::Object(counters);
        line["rollouts"] = server.rollouts().iter().map(rollout).collect();
        line["outbox"] = match (served.outbox(), &stats.push.outbox) {
            (Some(chosen), Some(outbox)) => chosen.stats(outbox),
            _ => Value::Null,
        };
        if let Some(discovery) = &stats.discovery {
            line["roster"] = json!({
                "devices": discovery.devices, "capacity": discovery.capacity, "generation": discovery.generation,
            });
            line["discovery"] = discovery_counters(discovery);
        }
    }
    write_line(writer, &line).await
}

fn rollout(view: &RolloutView) -> Value {
    json!({
        "rollout": view.rollout, "durable": view.durable, "running": view.running, "steps": view.percents,
        "orders": view.orders, "targets": view.targets, "restarts": view.restarts, "aborted": view.aborted.is_some(),
    })
}
