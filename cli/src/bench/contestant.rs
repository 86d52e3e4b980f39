//! A contestant in a process of its own: connects to the devices, says so, and pushes one order or many to all of them
//! whenever it is told. Everything is measured here, on the one thread that serves the sockets.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::alloc::count;
use tillwire::Store;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::machine;
use super::ours::Tillwire;
use super::yardstick::RawEpoll;
use crate::error::{Failure, Outcome, Verdict};
use crate::{out, start};

/// A round that takes longer is not all right.
pub(super) const ROUND_WITHIN: Duration = Duration::from_secs(10);
/// All devices must be connected by then.
pub(super) const CONNECTED_WITHIN: Duration = Duration::from_secs(60);
/// Memory is looked at this long after the last device connected.
const SETTLE_FOR: Duration = Duration::from_secs(2);

/// Who is measured.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// This library.
    Tillwire,
    /// This library with an outbox on disk.
    Durable,
    /// The hand-written loop.
    RawEpoll,
}

impl Who {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Tillwire => "tillwire",
            Self::Durable => "durable",
            Self::RawEpoll => "raw-epoll",
        }
    }
}

/// The hidden command.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    #[arg(long)]
    who: Who,
    #[command(flatten)]
    task: Task,
    /// Milliseconds it is left alone after each round; what it does then counts.
    #[arg(long)]
    rest_ms: u64,
    /// Run on this core.
    #[arg(long)]
    core: Option<usize>,
    /// Where the outbox is.
    #[arg(long)]
    outbox: Option<PathBuf>,
}

/// What a contestant is to do.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(super) struct Task {
    /// How many devices.
    #[arg(long)]
    pub(super) devices: u32,
    /// The port they listen on.
    #[arg(long)]
    pub(super) port: u16,
    /// Bytes of payload.
    #[arg(long)]
    pub(super) payload: u32,
    /// Orders of a round, pushed without waiting for one before the next.
    #[arg(long)]
    pub(super) orders: u32,
}

/// What it took to connect, as far as the contestant knows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Dialled {
    /// The most dials that began within any second; 0 if they are not counted.
    pub(super) per_s_max: u64,
    /// Dials that failed.
    pub(super) failed: u64,
}

/// What can be measured.
pub(super) trait Contestant {
    /// Goes on with whatever it does unasked until it is told; `None` if it is told no more.
    fn wait(&mut self, told: &mut UnboundedReceiver<()>) -> Option<()>;
    /// What it took to connect.
    fn dialled(&self) -> Dialled {
        Dialled::default()
    }
    /// The orders of a round to every device; how many (order, device) pairs were applied.
    fn round(&mut self) -> Result<u64, Failure>;
    /// Goes on with whatever it does unasked for that long.
    fn rest(&mut self, span: Duration);
    /// Commits of its outbox so far.
    fn commits(&self) -> u64 {
        0
    }
    /// Says goodbye.
    fn end(self: Box<Self>);
}

/// Connects, then a round for each line of input, until that ends.
pub(crate) fn run(args: Args) -> Outcome {
    start::raise_open_files();
    let pinned = args.core.is_some_and(machine::pin);
    let store = Store::new(1, "BENCH").map_err(|error| Failure::broken(error.to_string(), ""))?;
    let (before, before_pss) = (machine::resident_bytes(), machine::proportional_bytes());
    let (begun, cpu) = (machine::now(), machine::thread_cpu());
    let mut contestant: Box<dyn Contestant> = match args.who {
        Who::Tillwire | Who::Durable => {
            Box::new(Tillwire::connect(args.task, store, args.outbox.as_deref())?)
        }
        Who::RawEpoll => Box::new(RawEpoll::connect(args.task, store)?),
    };
    let (connected, cpu) = (machine::now() - begun, machine::thread_cpu() - cpu);
    contestant.rest(SETTLE_FOR);
    let devices = u64::from(args.task.devices.max(1));
    let grown = machine::resident_bytes().saturating_sub(before);
    let grown_pss = machine::proportional_bytes().saturating_sub(before_pss);
    let dialled = contestant.dialled();
    out::json(&json!({
        "event": "connected",
        "connected_ms": millis(connected),
        "cpu_ns": nanos(cpu),
        "dials_per_s_max": dialled.per_s_max,
        "dials_failed": dialled.failed,
        "user_bytes_per_device": grown / devices,
        "pss_bytes_per_device": grown_pss / devices,
        "pinned": pinned,
    }));
    let mut told = lines();
    let rest = Duration::from_millis(args.rest_ms);
    let mut counted = Counted::now(contestant.as_ref());
    while contestant.wait(&mut told).is_some() {
        out::json(&measured(contestant.as_mut(), rest, &mut counted)?);
    }
    contestant.end();
    Ok(Verdict::AllRight)
}

/// What was counted when a round ended.
#[derive(Clone, Copy, Debug)]
struct Counted {
    thread: Duration,
    process: Duration,
    commits: u64,
}

impl Counted {
    fn now(contestant: &dyn Contestant) -> Self {
        Self { commits: contestant.commits(), thread: machine::thread_cpu(), process: machine::process_cpu() }
    }
}

/// One round. It counts from the end of the round before (`counted`), so that nothing done between rounds, while another
/// contestant has its turn, goes unseen.
fn measured(
    contestant: &mut dyn Contestant,
    rest: Duration,
    counted: &mut Counted,
) -> Result<Value, Failure> {
    let mut applied = Ok(0);
    let (mut last_ack, mut cpu_last_ack) = (Duration::ZERO, Duration::ZERO);
    let (begun, cpu) = (machine::now(), machine::thread_cpu());
    let counts = count(|| {
        applied = contestant.round();
        last_ack = machine::now() - begun;
        cpu_last_ack = machine::thread_cpu() - cpu;
        contestant.rest(rest);
    });
    let end = Counted::now(contestant);
    let before = core::mem::replace(counted, end);
    Ok(json!({
        "event": "round",
        "applied": applied?,
        "last_ack_us": micros(last_ack),
        "cpu_ns_to_last_ack": nanos(cpu_last_ack),
        "cpu_ns": nanos(end.thread - before.thread),
        "process_cpu_ns": nanos(end.process - before.process),
        "commits": end.commits - before.commits,
        "allocations": counts.allocations,
    }))
}

/// Each line of input, read on a thread that does nothing else.
fn lines() -> UnboundedReceiver<()> {
    let (tell, told) = unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            if line.is_err() || tell.send(()).is_err() {
                return;
            }
        }
    });
    told
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
