//! `tillwire device`: one simulated device that applies what it gets and keeps a ledger of it.

mod application;

use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tillwire::discovery::SeekerEvent;
use tillwire::push::driver::device::Event as ListenerEvent;
use tillwire::push::receiver::Event as SessionEvent;
use tillwire::push::receiver::journal::Found;
use tillwire::{Device, DeviceEvent, Firmware, OrderKind};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use wire_format::datagram::bye::Reason;
use wire_format::payload::Level;

use crate::args::{AboutArgs, NetArgs, PUSH_PORT, StoreArgs, say_clear_mode, seed};
use crate::error::{Outcome, Verdict};
use crate::ledger::Ledger;
use crate::offer::{OfferArgs, firmware};
use crate::state::State;
use crate::{keys, names, out, start, stock};

use self::application::{Application, LINES_MAX};

const EXAMPLES: &str = "\
Examples:
  tillwire device --store PARIS-12 --id 6f9619ff-8b86-d011-b42d-00c04fc964ff --kind kiosk --open-network
  tillwire device --store BENCH --id 0123456789abcdef0123456789abcdef --bind 127.0.0.2 --broadcast 127.255.255.255 \\
    --ledger orders.jsonl --open-network";

/// Run one simulated device until Ctrl-C.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    about: AboutArgs,
    #[command(flatten)]
    offer: OfferArgs,
    /// What runs on it: the release, and its build.
    #[arg(long, value_name = "VERSION[.BUILD]", value_parser = firmware)]
    firmware: Option<Firmware>,
    #[command(flatten)]
    net: NetArgs,
    /// Discovery in authenticated mode, with the keys in this file; it must belong to this user alone.
    #[arg(long, value_name = "FILE", conflicts_with = "no_discovery")]
    discovery_keys: Option<PathBuf>,
    /// The TCP port where it listens for orders.
    #[arg(long, value_name = "PORT", default_value_t = PUSH_PORT)]
    port: u16,
    /// Announce to this server by unicast instead of asking the LAN; may be given up to 4 times.
    #[arg(long = "seed", value_name = "IP[:PORT]", value_parser = seed)]
    seeds: Vec<SocketAddrV4>,
    /// Keep here what it did, so that after a crash no order is repeated that may not be; 512 KiB. Default: the directory
    /// `journal` in that of --state, if one is given; otherwise nothing is kept.
    #[arg(long, value_name = "DIR")]
    journal: Option<PathBuf>,
    /// Append a JSON line per order to this file before its outcome is reported.
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// Refuse orders of this kind; may be given for each.
    #[arg(long = "reject", value_name = "KIND", value_parser = names::order_kind)]
    rejected: Vec<OrderKind>,
    /// Answer questions about stock, asked or pushed: unknown, none, some, or a quantity.
    #[arg(long, value_name = "LEVEL", value_parser = stock::level)]
    answer_stock: Option<Level>,
    /// Ask the server how many it has of this article, once it is served.
    #[arg(long, value_name = "ARTICLE", value_parser = clap::value_parser!(u64).range(1..))]
    ask_stock: Option<u64>,
    /// Work on each order for so many milliseconds, and complete it then; other lanes go on meanwhile.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    later_ms: Option<u64>,
    /// Say "busy" to the first N orders, or attempts at one: the server tries again, a little later.
    #[arg(long, value_name = "N", default_value_t = 0)]
    busy: u32,
}

/// Runs until told to end.
pub(crate) async fn run(args: Args, json: bool) -> Outcome {
    let store = args.store.store()?;
    let security = args.net.security()?;
    let mut end = start::End::listen()?;
    let mut builder = Device::builder(store, args.about.id)
        .security(security)
        .staging(args.net.staging)
        .kind(args.about.kind)
        .zone(args.about.zone)
        .tags(args.about.tags()?)
        .name(&args.about.name)
        .code(args.about.device_code.unwrap_or_default())
        .port(args.port);
    builder = match args.net.discovery() {
        Some(net) => builder.discovery_net(net),
        None => builder.no_discovery(),
    };
    if let Some(bind) = args.net.bind {
        builder = builder.bind(bind);
    }
    if let Some(firmware) = args.firmware {
        builder = builder.firmware(firmware);
    }
    for service in args.offer.services() {
        builder = builder.service(service);
    }
    if let Some(path) = &args.discovery_keys {
        builder = builder.discovery_keys(keys::of_device(path, args.about.id)?);
    }
    for &server in &args.seeds {
        builder = builder.seed(server);
    }
    let ledger = args.ledger.as_deref().map(Ledger::open).transpose()?;
    // Held until the end: it is the directory's lock.
    let state = args.net.state.as_deref().map(State::open).transpose()?;
    if let Some(state) = &state {
        builder = builder.epoch(state.epoch);
    }
    let beside = args.net.state.as_deref().map(|state| state.join("journal"));
    if let Some(directory) = args.journal.or(beside) {
        builder = builder.journal(directory);
    }
    let (lines, orders) = mpsc::channel(LINES_MAX);
    let (works, working) = application::works();
    let later = args.later_ms.map(Duration::from_millis);
    let application = Application {
        ledger,
        rejected: args.rejected,
        busy: args.busy,
        stock: args.answer_stock,
        later: later.map(|after| (after, works)),
        lines: lines.clone(),
        skipped: 0,
    };
    let device = builder.start(application).await.map_err(|error| start::failure(&error))?;
    if let Some(after) = later {
        // Ends with the handler, which holds the other end.
        tokio::spawn(application::work(after, working, device.handle().clone()));
    }
    if let Some(article) = args.ask_stock {
        tokio::spawn(application::ask_stock(device.handle().clone(), article, lines));
    }
    say_clear_mode();
    if json {
        let address = device.address().to_string();
        let journal = journal_name(device.journal());
        out::json(&json!({
            "event": "listening", "device": device.id().to_string(), "address": address, "journal": journal,
        }));
    } else {
        out::line(&format!(
            "device {} of store {store} listens on {}; Ctrl-C ends it",
            device.id(),
            device.address()
        ));
    }
    if device.journal() == Found::Damaged {
        out::warn(
            "the journal is damaged: what this device did before may not be known, and the server is told so",
        );
    }
    tell(&device, orders, &mut end, json).await;
    device.shutdown().await;
    if json {
        out::json(&json!({"event": "stopped"}));
    }
    Ok(Verdict::AllRight)
}

/// Prints events and orders until told to end.
async fn tell(device: &Device, mut orders: mpsc::Receiver<Value>, end: &mut start::End, json: bool) {
    let mut events = device.subscribe();
    loop {
        let line = tokio::select! {
            () = end.told() => break,
            Some(order) = orders.recv() => order,
            event = events.recv() => match event {
                Ok(event) => event_json(&event),
                Err(RecvError::Lagged(missed)) => json!({"event": "missed", "events": missed}),
                Err(RecvError::Closed) => break,
            },
        };
        if json { out::json(&line) } else { out::line(&people(&line)) }
    }
}

fn event_json(event: &DeviceEvent) -> Value {
    match event {
        DeviceEvent::Discovery(found) => match found.event {
            SeekerEvent::ServerFound { id, address } => {
                json!({"event": "server-found", "server": id.to_string(), "address": address.to_string()})
            }
            SeekerEvent::Registered { id, address } => {
                json!({"event": "registered", "server": id.to_string(), "address": address.to_string()})
            }
            SeekerEvent::ServerLost { id } => json!({"event": "server-lost", "server": id.to_string()}),
            SeekerEvent::ServerLeft { id, reason } => {
                json!({"event": "server-left", "server": id.to_string(), "reason": reason_name(reason)})
            }
            SeekerEvent::Refused { id, status } => {
                json!({"event": "refused", "server": id.to_string(), "why": status.to_string()})
            }
            // A device of a store lists nobody.
            SeekerEvent::CandidateFound { .. }
            | SeekerEvent::CandidateChanged { .. }
            | SeekerEvent::CandidateGone { .. } => json!({"event": "other"}),
        },
        DeviceEvent::Session(ListenerEvent::Session(session)) => session_json(session),
        DeviceEvent::Session(ListenerEvent::Closed { peer, why }) => {
            json!({"event": "closed", "address": peer.to_string(), "why": why.name(), "detail": why.to_string()})
        }
        DeviceEvent::Session(ListenerEvent::JournalFailed { why }) => {
            json!({"event": "journal-failed", "why": why.to_string()})
        }
        DeviceEvent::Session(ListenerEvent::JournalBack) => json!({"event": "journal-back"}),
        _ => json!({"event": "other"}),
    }
}

/// What the journal held at the start.
const fn journal_name(found: Found) -> &'static str {
    match found {
        Found::NoJournal => "none",
        Found::New => "new",
        Found::Whole => "whole",
        Found::Damaged => "damaged",
    }
}

fn session_json(event: &SessionEvent) -> Value {
    match event {
        SessionEvent::Served { peer, known, .. } => {
            json!({"event": "served", "server": known.server.to_string(), "address": peer.to_string()})
        }
        SessionEvent::Leaving(_) => json!({"event": "server-leaving"}),
        SessionEvent::Unserved { why } => {
            json!({"event": "unserved", "why": why.name(), "detail": why.to_string()})
        }
        _ => json!({"event": "other"}),
    }
}

const fn reason_name(reason: Reason) -> &'static str {
    match reason {
        Reason::LEAVING => "leaving",
        Reason::RESTARTING => "restarting",
        Reason::REPLACED => "replaced",
        _ => "unknown",
    }
}

/// A line for people: the event, and every field that says something.
fn people(line: &Value) -> String {
    let event = line["event"].as_str().unwrap_or_default();
    let fields = [
        "kind", "order", "outcome", "answer", "code", "stock", "bytes", "server", "address", "why", "detail",
        "reason", "events",
    ];
    let said = fields.iter().filter_map(|&name| match &line[name] {
        Value::Null => None,
        Value::String(text) => Some(format!("{name} {text}")),
        other => Some(format!("{name} {other}")),
    });
    let redelivered = (line["redelivered"] == true).then(|| "redelivered".to_owned());
    format!("{}  {}", out::title(event), said.chain(redelivered).collect::<Vec<_>>().join(", "))
}
