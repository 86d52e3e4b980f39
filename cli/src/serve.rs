//! `tillwire serve`: the store server as a process, with a control socket for `push` and `watch`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tillwire::{NodeId, OrderKind, Questions, ServerBuilder, StaticDevice, Store, StoreServer};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use wire_format::frame::reply::Code;
use wire_format::payload::{Level, Payload, StockAnswer};

use crate::args::{NetArgs, StoreArgs, say_clear_mode, static_device};
use crate::control::listener::Listener;
use crate::control::{Endpoint, default_endpoint, endpoint, session};
use crate::error::{Failure, Outcome, Verdict};
use crate::keeper::Keeper;
use crate::offer::OfferArgs;
use crate::outbox::{Chosen, OutboxArgs};
use crate::state::State;
use crate::{json, keys, out, outbox, start, stock};

/// Callers of the control socket at a time; more wait until one leaves.
const CALLERS_MAX: usize = 64;
/// Pause after the system refused to hand over a caller.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What callers get to read their last lines, once the server has left.
const LAST_WORDS: Duration = Duration::from_millis(500);

const EXAMPLES: &str = "\
Examples:
  tillwire serve --store PARIS-12 --entity 7 --open-network
  tillwire serve --store PARIS-12 --open-network --state /var/lib/tillwire     orders survive a crash
  tillwire serve --store PARIS-12 --open-network --http 80,8000-8005
  tillwire serve --store BENCH --open-network --no-discovery --device 192.168.1.20:8081,kind=kiosk";

/// Run a store server until Ctrl-C.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// A device by address; may be given for each. With =ID another device at the address gets nothing.
    #[arg(long = "device", value_name = "IP:PORT[=ID][,kind=K][,zone=Z][,tag=T]…", value_parser = static_device)]
    devices: Vec<StaticDevice>,
    #[command(flatten)]
    pub(crate) net: NetArgs,
    /// Discovery in authenticated mode, with the keys in this file; it must belong to this user alone.
    #[arg(long, value_name = "FILE", conflicts_with = "no_discovery")]
    discovery_keys: Option<PathBuf>,
    /// Where push and watch reach this server: a path, or a loopback IP:PORT. Default: a socket of this user.
    #[arg(long, value_name = "SOCKET", value_parser = endpoint)]
    control: Option<Endpoint>,
    /// How many devices the store is expected to have: paces their registration.
    #[arg(long, value_name = "N", default_value_t = 0)]
    expected: u32,
    /// Answer what devices ask about stock: unknown, none, some, or a quantity.
    #[arg(long, value_name = "LEVEL", value_parser = stock::level)]
    answer_stock: Option<Level>,
    /// Tasks that share the devices, 1 to 64. Default: one per core, at most 4.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    shards: Option<u8>,
    /// A further TCP port announced devices may be dialled on, beside 8081.
    #[arg(long = "push-port", value_name = "PORT")]
    push_ports: Vec<u16>,
    /// A name for people.
    #[arg(long, value_name = "TEXT", default_value = "")]
    name: String,
    #[command(flatten)]
    offer: OfferArgs,
    #[command(flatten)]
    outbox: OutboxArgs,
    /// With --state: seconds after which the devices known are written down there, if something changed.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..=3_600))]
    keep_every: u16,
}

/// Runs until told to end.
pub(crate) async fn run(args: Args, json: bool) -> Outcome {
    let store = args.store.store()?;
    let mut builder = builder(&args, store)?;
    let mut end = start::End::listen()?;
    start::raise_open_files();
    let control = args.control.clone().unwrap_or_else(default_endpoint);
    let listener = Listener::bind(&control).await?;
    // Held until the end: it is the directory's lock.
    let state = args.net.state.as_deref().map(State::open).transpose()?;
    if let Some(state) = &state {
        builder = with_state(builder, state)?;
    }
    let chosen = args.outbox.choose(args.net.state.as_deref());
    let server = Arc::new(start(builder, chosen.as_ref()).await?);
    say_clear_mode();
    say_serving(&server, &store, &control, chosen.as_ref(), json);
    if chosen.is_none() {
        args.outbox.say_volatile();
    }
    let fence = state.as_ref().map(State::fence_file);
    let keeper =
        state.map(|state| Keeper::start(state, &server, Duration::from_secs(args.keep_every.into()), json));
    if let Some(level) = args.answer_stock {
        tokio::spawn(answer_stock(server.questions(), level));
    }
    let about = session::About { store, name: args.name, staging: args.net.staging, outbox: chosen };
    let served = Arc::new(session::Served::new(Arc::clone(&server), about, fence));
    serve(&served, &listener, &mut end, json).await;
    drop((listener, served));
    if let Some(keeper) = keeper {
        keeper.end(&server).await;
    }
    if let Some(server) = Arc::into_inner(server) {
        server.shutdown().await;
    }
    if json {
        out::json(&json!({"event": "stopped"}));
    }
    Ok(Verdict::AllRight)
}

/// The server as the command line has it.
fn builder(args: &Args, store: Store) -> Result<ServerBuilder, Failure> {
    let mut builder = StoreServer::builder(store)
        .security(args.net.security()?)
        .staging(args.net.staging)
        .expected_devices(args.expected)
        .name(&args.name);
    builder = match args.net.discovery() {
        Some(net) => builder.discovery_net(net),
        None => builder.no_discovery(),
    };
    if let Some(bind) = args.net.bind {
        builder = builder.bind(bind);
    }
    if let Some(path) = &args.discovery_keys {
        builder = builder.discovery_keys(keys::of_server(path)?);
    }
    if let Some(shards) = args.shards {
        builder = builder.shards(shards.into());
    }
    for &port in &args.push_ports {
        builder = builder.push_port(port);
    }
    for service in args.offer.services() {
        builder = builder.service(service);
    }
    for device in &args.devices {
        builder = builder.device(*device);
    }
    Ok(builder)
}

/// The same with what it kept in an earlier run.
fn with_state(builder: ServerBuilder, state: &State) -> Result<ServerBuilder, Failure> {
    let mut builder = builder.epoch(state.epoch).server_id(state.id(|| NodeId(random_id()))?);
    if let Some(fence) = state.fence()? {
        builder = builder.fence(fence);
    }
    if let Some(snapshot) = state.roster() {
        builder = builder.restore_roster(snapshot);
    }
    Ok(builder)
}

/// Starts it, with its outbox if it has one.
async fn start(mut builder: ServerBuilder, chosen: Option<&Chosen>) -> Result<StoreServer, Failure> {
    if let Some(chosen) = chosen {
        builder = builder.outbox(&chosen.directory).outbox_settings(chosen.settings);
    }
    builder.start().await.map_err(|error| match chosen {
        Some(chosen) => chosen.failure(&error),
        None => start::failure(&error),
    })
}

/// Answers the questions of devices until the server ends.
async fn answer_stock(mut questions: Questions, level: Level) {
    while let Some(asked) = questions.next().await {
        let mut buffer = [0; stock::ANSWER_LEN_MAX];
        let written = match asked.kind() {
            OrderKind::STOCK_QUESTION => stock::answer(asked.payload(), level, &mut buffer),
            _ => None,
        };
        let (code, len) = written.map_or((Code::UNKNOWN_KIND, 0), |len| (Code::OK, len));
        // Whoever asked may have gone.
        let _ = asked.reply(code, StockAnswer::SCHEMA, Duration::ZERO, buffer.get(..len).unwrap_or_default());
    }
}

/// 16 bytes nobody else has: the hasher keys of this process are drawn from the system's randomness.
fn random_id() -> [u8; 16] {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let draw = || RandomState::new().build_hasher().finish() | 1;
    (u128::from(draw()) << 64 | u128::from(draw())).to_le_bytes()
}

fn say_serving(server: &StoreServer, store: &Store, control: &Endpoint, chosen: Option<&Chosen>, json: bool) {
    let found = chosen.and_then(|chosen| Some((chosen, server.recovered()?)));
    if json {
        out::json(&json!({
            "event": "serving", "server": server.id().to_string(), "entity": store.entity(), "store": store.code(),
            "control": control.to_string(), "durable": found.is_some(),
            "outbox": found.map(|(chosen, found)| chosen.json(found)),
        }));
    } else {
        out::line(&format!(
            "serving store {store} as {}; control socket {control}; Ctrl-C ends it",
            server.id()
        ));
        if let Some((chosen, found)) = found {
            out::line(&chosen.line(found));
        }
    }
    if let Some(damage) = found.and_then(|(chosen, found)| chosen.damage(found)) {
        out::warn(&damage);
    }
}

/// Answers callers and tells events until told to end.
async fn serve(served: &Arc<session::Served>, listener: &Listener, end: &mut start::End, json: bool) {
    let server = &*served.server;
    let mut events = server.events_from_start().unwrap_or_else(|| server.subscribe());
    let mut known = json::Known::default();
    let mut callers = JoinSet::new();
    let mut drain = served.drain.subscribe();
    let mut leaving = JoinSet::new();
    loop {
        tokio::select! {
            () = end.told() => break,
            Ok(()) = drain.changed(), if leaving.is_empty() => {
                let within = drain.borrow_and_update().unwrap_or_default();
                let server = Arc::clone(&served.server);
                leaving.spawn(async move { server.leave(within).await });
            }
            Some(_) = leaving.join_next() => {
                // Who waits for the outcomes that came last still reads them.
                let all = async { while callers.join_next().await.is_some() {} };
                let _ = tokio::time::timeout(LAST_WORDS, all).await;
                break;
            }
            event = events.recv() => match event {
                Ok(event) => say(&known.tell(server, &event).await, served.outbox(), json),
                Err(RecvError::Lagged(missed)) => out::warn(&format!("{missed} events came too fast to be shown")),
                Err(RecvError::Closed) => break,
            },
            caller = listener.accept(), if callers.len() < CALLERS_MAX => match caller {
                Ok(stream) => drop(callers.spawn(session::run(stream, Arc::clone(served)))),
                Err(error) => {
                    out::warn(&format!("the control socket refused a caller: {error}"));
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = callers.join_next() => {}
        }
    }
    callers.shutdown().await;
}

fn say(event: &serde_json::Value, chosen: Option<&Chosen>, json: bool) {
    if json {
        out::json(event)
    } else {
        out::line(&crate::watch::line(event))
    }
    if let Some(alarm) = outbox::alarm(event, chosen) {
        out::warn(&alarm);
    }
}

/// An error for whoever called the control socket.
pub(crate) fn error_line(failure: &Failure) -> serde_json::Value {
    json!({"event": "error", "error": failure.cause, "help": failure.help, "started": !failure.not_started})
}
