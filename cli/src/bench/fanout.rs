//! `tillwire bench fanout`: one order to all devices, by the library and by the yardstick, in turns.

use serde_json::Value;

use super::contestant::Who;
use super::summary::{Round, Row, Summary};
use super::{DEVICES_MAX, Stand, machine};
use crate::error::{Failure, Outcome, Verdict};
use crate::out;

/// Rounds of each contestant before any is counted: pools fill, paths warm up.
const WARM_UP: u32 = 2;
/// The largest payload of an order.
const PAYLOAD_MAX: i64 = wire_format::frame::order::PAYLOAD_MAX as i64;

const ABOUT: &str = "\
What is measured, per contestant:
  last ack              from before the push to the outcome of the last device, as the caller sees it
  cpu per order         CPU time of the thread that serves the sockets, kernel included, divided by rounds and devices;
                        with what is done between rounds, when tillwire tells the devices that outcomes are settled
  memory per device     growth of resident memory (RSS) until 2 s after all are connected, divided by devices
  allocations           of the serving thread, divided by rounds and devices

tillwire is a StoreServer on one thread; raw-epoll a hand-written loop that writes the same frame and reads the same
answers, and does nothing else. Both are connected at once, each to devices of its own from the same light program, and
take turns; the ratios are medians over the pairs of rounds.

What it cannot show: a network (loopback has no losses, no delays and no interrupts), real devices, and anything absolute
about another machine. Work the kernel does for the receiving side of loopback is partly charged to the sender, for both
contestants alike. `ok` says that every order was applied on every device, not that a ratio is good.";

/// Push one order to all devices, again and again, beside a hand-written loop over the same sockets.
#[derive(clap::Args, Clone, Copy, Debug)]
#[command(after_help = ABOUT)]
pub(super) struct Args {
    /// How many devices each contestant has.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(DEVICES_MAX)))]
    pub(super) devices: u32,
    /// Bytes of the order's payload.
    #[arg(long, value_name = "B", default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=PAYLOAD_MAX))]
    pub(super) payload: u32,
    /// How many rounds are counted.
    #[arg(long, value_name = "R", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) rounds: u32,
    /// Milliseconds each contestant rests after a round. Below 100, tillwire's SETTLED frames may travel with the next
    /// order instead of alone.
    #[arg(long, value_name = "MS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    pub(super) rest_ms: u64,
}

/// Runs it and prints a row per contestant and the ratios.
pub(super) fn run(args: Args, json: bool) -> Outcome {
    if cfg!(debug_assertions) {
        out::warn("this is a debug build: its figures say nothing about a release build");
    }
    let load_1m = machine::load_1m();
    let mut ours = Stand::start(Who::Tillwire, args.devices, args.payload, args.rest_ms)?;
    let mut raw = Stand::start(Who::RawEpoll, args.devices, args.payload, args.rest_ms)?;
    let connected = [ours.connected()?, raw.connected()?];
    let mut rows = [Row::new(Who::Tillwire), Row::new(Who::RawEpoll)];
    for (row, connected) in rows.iter_mut().zip(&connected) {
        row.user_bytes_per_device = connected.user_bytes_per_device;
    }
    for round in 0..WARM_UP + args.rounds {
        // Who goes first changes with each pair, so that neither always finds the machine as the other left it.
        let mut stands = [(0, &mut ours), (1, &mut raw)];
        if round % 2 == 1 {
            stands.reverse();
        }
        for (at, stand) in stands {
            let measured = turn(stand, args.devices)?;
            if let Some(row) = rows.get_mut(at).filter(|_| round >= WARM_UP) {
                row.rounds.push(measured);
            }
        }
    }
    ours.end();
    raw.end();
    let pinned = connected.iter().all(|connected| connected.pinned);
    let summary = Summary { args, rows, pinned, congestion: machine::congestion(), load_1m };
    summary.print(json);
    Ok(Verdict::of(summary.is_right()))
}

fn turn(stand: &mut Stand, devices: u32) -> Result<Round, Failure> {
    stand.contestant.tell("round")?;
    let line = stand.contestant.expect("round")?;
    let number = |name: &str| line.get(name).and_then(Value::as_u64).unwrap_or_default();
    Ok(Round {
        complete: number("applied") == u64::from(devices),
        last_ack_us: number("last_ack_us"),
        cpu_ns: number("cpu_ns"),
        cpu_ns_to_last_ack: number("cpu_ns_to_last_ack"),
        allocations: number("allocations"),
    })
}
