//! Two contestants in turns, each with devices of its own.

use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::child::Child;
use super::contestant::Who;
use super::figures::{Round, Row};
use super::peers::Window;
use super::{FILES_BESIDE, machine};
use crate::error::Failure;
use crate::start;

/// Rounds of each contestant before any is counted: pools fill, paths warm up.
const WARM_UP: u32 = 2;

/// What both do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) devices: u32,
    pub(super) payload: u32,
    /// Orders of a round.
    pub(super) orders: u32,
    pub(super) rest_ms: u64,
    pub(super) window: Window,
}

impl Setup {
    /// (order, device) pairs of a round.
    pub(super) fn pairs(&self) -> u64 {
        u64::from(self.devices) * u64::from(self.orders)
    }
}

/// Both rows and how they came about.
#[derive(Debug)]
pub(super) struct Duel {
    /// The one that is measured, then what it is measured by.
    pub(super) rows: [Row; 2],
    /// Server and devices had a core each.
    pub(super) pinned: bool,
    /// What else the machine did before.
    pub(super) load_1m: f64,
}

impl Duel {
    /// How the ratios came about, in a line.
    pub(super) fn how(&self, congestion: Option<&str>) -> String {
        let rounds = self.rows.iter().map(|row| row.rounds.len()).min().unwrap_or_default();
        let [ours, other] = self.rows.each_ref().map(|row| row.who.name());
        format!(
            "ratios: {ours} / {other}, median (quarters) of {rounds} pairs taken in turns; {}; congestion control {}; \
             load {:.1} before",
            if self.pinned { "server and devices on a core each" } else { "NOT PINNED to cores" },
            congestion.unwrap_or("unknown"),
            self.load_1m,
        )
    }
}

/// The library, beside the hand-written loop.
pub(super) fn run(setup: Setup, rounds: u32, what: &str) -> Result<Duel, Failure> {
    between([Who::Tillwire, Who::RawEpoll], None, setup, rounds, what)
}

/// Connects both and lets them take turns for `rounds` rounds that count. A durable one has its outbox in this directory.
pub(super) fn between(
    who: [Who; 2],
    outbox: Option<&Path>,
    setup: Setup,
    rounds: u32,
    what: &str,
) -> Result<Duel, Failure> {
    let load_1m = machine::load_1m();
    let bar = bar(u64::from(WARM_UP + rounds), what);
    let mut ours = Stand::start(who[0], outbox, setup)?;
    let mut raw = Stand::start(who[1], outbox, setup)?;
    let connected = [ours.connected()?, raw.connected()?];
    let mut rows = who.map(Row::new);
    for (row, connected) in rows.iter_mut().zip(&connected) {
        row.user_bytes_per_device = connected.user_bytes_per_device;
    }
    for round in 0..WARM_UP + rounds {
        // Who goes first changes with each pair, so that neither always finds the machine as the other left it.
        let mut stands = [(0, &mut ours), (1, &mut raw)];
        if round % 2 == 1 {
            stands.reverse();
        }
        for (at, stand) in stands {
            let measured = stand.turn(setup.pairs())?;
            if let Some(row) = rows.get_mut(at).filter(|_| round >= WARM_UP) {
                row.rounds.push(measured);
            }
        }
        bar.inc(1);
    }
    ours.end();
    raw.end();
    bar.finish_and_clear();
    Ok(Duel { rows, pinned: connected.iter().all(|connected| connected.pinned), load_1m })
}

/// A bar on stderr, if that is a terminal.
pub(super) fn bar(length: u64, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(length).with_message(what.to_owned());
    match ProgressStyle::with_template("{msg} {bar:40} {pos}/{len} {elapsed}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A contestant and devices of its own, each in a process.
pub(super) struct Stand {
    contestant: Child,
    peers: Child,
    /// What the devices had of a CPU when the last round ended.
    device_cpu: Duration,
}

/// What a contestant took to connect.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Connected {
    pub(super) connected_ms: u64,
    pub(super) cpu_ns: u64,
    pub(super) dials_per_s_max: u64,
    pub(super) dials_failed: u64,
    pub(super) user_bytes_per_device: u64,
    pub(super) pss_bytes_per_device: u64,
    pub(super) pinned: bool,
}

impl Connected {
    /// Waits until every device is connected and memory was looked at.
    pub(super) fn of(contestant: &mut Child) -> Result<Self, Failure> {
        let line = contestant.expect("connected")?;
        let number = |name: &str| line.get(name).and_then(Value::as_u64).unwrap_or_default();
        Ok(Self {
            connected_ms: number("connected_ms"),
            cpu_ns: number("cpu_ns"),
            dials_per_s_max: number("dials_per_s_max"),
            dials_failed: number("dials_failed"),
            user_bytes_per_device: number("user_bytes_per_device"),
            pss_bytes_per_device: number("pss_bytes_per_device"),
            pinned: line["pinned"] == true,
        })
    }
}

impl Stand {
    /// Starts both; the devices run when this returns, the contestant is still connecting.
    pub(super) fn start(who: Who, outbox: Option<&Path>, setup: Setup) -> Result<Self, Failure> {
        files_for(setup.devices)?;
        let (peers, port) = devices(setup.window)?;
        let contestant = contestant(who, outbox, setup, port)?;
        Ok(Self { contestant, peers, device_cpu: Duration::ZERO })
    }

    /// Waits until every device is connected and memory was looked at.
    pub(super) fn connected(&mut self) -> Result<Connected, Failure> {
        Connected::of(&mut self.contestant)
    }

    /// One round. The devices' CPU time counts from the end of the round before, as the contestant's does.
    fn turn(&mut self, pairs: u64) -> Result<Round, Failure> {
        self.contestant.tell("round")?;
        let line = self.contestant.expect("round")?;
        let number = |name: &str| line.get(name).and_then(Value::as_u64).unwrap_or_default();
        let device_cpu = self.peers.cpu();
        let devices = device_cpu.saturating_sub(core::mem::replace(&mut self.device_cpu, device_cpu));
        Ok(Round {
            complete: number("applied") == pairs,
            last_ack_us: number("last_ack_us"),
            cpu_ns: number("cpu_ns"),
            cpu_ns_to_last_ack: number("cpu_ns_to_last_ack"),
            process_cpu_ns: number("process_cpu_ns"),
            commits: number("commits"),
            device_cpu_ns: u64::try_from(devices.as_nanos()).unwrap_or(u64::MAX),
            allocations: number("allocations"),
        })
    }

    /// Ends both, the contestant first: it says goodbye.
    pub(super) fn end(self) {
        self.contestant.end();
        self.peers.end();
    }
}

/// Whether a process may hold a connection to each of so many devices.
pub(super) fn files_for(devices: u32) -> Result<(), Failure> {
    let files = start::raise_open_files();
    let needed = u64::from(devices) + FILES_BESIDE;
    if files >= needed {
        return Ok(());
    }
    Err(Failure::start(
        format!("{devices} devices need {needed} open files, and {files} are allowed"),
        "raise the limit (ulimit -n), or measure with fewer --devices",
    ))
}

/// Starts a process with devices, on the second core; it and the port they listen on.
pub(super) fn devices(window: Window) -> Result<(Child, u16), Failure> {
    let core = machine::two_cores().map(|(_, second)| format!("--core={second}"));
    let mut words = vec!["bench-peers".to_owned()];
    words.extend([format!("--window-orders={}", window.orders), format!("--window-bytes={}", window.bytes)]);
    words.extend(core);
    let mut peers = Child::start(&words)?;
    let port = peers.expect("ready")?["port"].as_u64().and_then(|port| u16::try_from(port).ok());
    Ok((peers, port.unwrap_or_default()))
}

/// Starts a process with a contestant, on the first core.
pub(super) fn contestant(who: Who, outbox: Option<&Path>, setup: Setup, port: u16) -> Result<Child, Failure> {
    let core = machine::two_cores().map(|(first, _)| format!("--core={first}"));
    let Setup { devices, payload, orders, rest_ms, .. } = setup;
    let mut words = vec!["bench-contestant".to_owned()];
    words.extend([format!("--who={}", who.name()), format!("--port={port}")]);
    words.extend([format!("--devices={devices}"), format!("--payload={payload}")]);
    words.extend([format!("--orders={orders}"), format!("--rest-ms={rest_ms}")]);
    words.extend(core);
    words.extend(outbox.filter(|_| who == Who::Durable).map(|path| format!("--outbox={}", path.display())));
    Child::start(&words)
}
