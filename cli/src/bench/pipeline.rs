//! `tillwire bench pipeline`: many orders to every device without waiting for one before the next.

use serde_json::{Value, json};

use super::duel::{self, Duel, Setup};
use super::figures::{Round, Row, Spread, ratio, rounded};
use super::peers::Window;
use super::{DEVICES_MAX, machine, say_debug_build};
use crate::error::{Outcome, Verdict};
use crate::out;
use crate::push::duration;
use crate::watch::table;

/// The largest payload of an order.
const PAYLOAD_MAX: i64 = wire_format::frame::order::PAYLOAD_MAX as i64;
/// Live orders of one server at most.
const ORDERS_MAX: i64 = tillwire::push::driver::server::ORDERS_DEFAULT as i64;

const ABOUT: &str = "\
One round: --orders orders to all devices, pushed without waiting, until the caller knows the
outcome of each.
  acked/s               orders x devices of a round, divided by the time to its last outcome
  cpu per order         CPU time of the thread that serves the sockets, kernel included, for
                        each order and device

It is run twice. First with a window of 1,024 orders and 256 KiB declared by every device, which
is what the budget (0.5 x raw-epoll, or 8 million a second) is stated for; then with the window
devices declare by default, 16 orders and 66 KB, where round trips decide.

raw-epoll writes as many frames at once as the window and the kernel take, reads answers as they
come, 64 outcomes to a frame, verifies their checksums and counts. It keeps no record of an
order; tillwire keeps a mark for each device and counters, for which the caller waits. The
devices are the same program for both and verify no bodies; `device busy` is the part of a round
their CPU took, and near 1 they, not the server, are what was measured.";

/// Push many orders to all devices without waiting, beside a hand-written loop that does nothing else.
#[derive(clap::Args, Clone, Copy, Debug)]
#[command(after_help = ABOUT)]
pub(super) struct Args {
    /// How many devices each contestant has.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=i64::from(DEVICES_MAX)))]
    devices: u32,
    /// How many orders a round has.
    #[arg(long, value_name = "M", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(2..=ORDERS_MAX))]
    orders: u32,
    /// Bytes of an order's payload.
    #[arg(long, value_name = "B", default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=PAYLOAD_MAX))]
    payload: u32,
    /// How many rounds are counted, for each window.
    #[arg(long, value_name = "R", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Milliseconds each contestant rests after a round.
    #[arg(long, value_name = "MS", default_value_t = 50, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    rest_ms: u64,
}

/// Runs it with both windows and prints a row per contestant and window, and the ratios.
pub(super) fn run(args: Args, json: bool) -> Outcome {
    say_debug_build();
    let Args { devices, orders, payload, rounds, rest_ms } = args;
    let run = |window, what| -> Result<Run, crate::error::Failure> {
        let setup = Setup { devices, payload, orders, rest_ms, window };
        let duel = duel::run(setup, rounds, what)?;
        let run = Run { setup, rounds, duel };
        if json {
            run.duel.rows.iter().for_each(|row| out::json(&run.row_json(row)));
        }
        Ok(run)
    };
    let declared = run(Window::DECLARED, "window of 1,024 orders")?;
    let default = run(Window::DEFAULT, "default window")?;
    if json {
        out::json(&summary(&declared, &default));
    } else {
        out::text(&people(&declared, &default));
    }
    Ok(Verdict::of(declared.is_right() && default.is_right()))
}

/// Both contestants under one window.
struct Run {
    setup: Setup,
    rounds: u32,
    duel: Duel,
}

impl Run {
    fn is_right(&self) -> bool {
        self.duel.rows.iter().all(Row::is_right)
    }

    fn pairs(&self) -> f64 {
        self.setup.pairs() as f64
    }

    fn acked_per_s(&self, round: &Round) -> f64 {
        self.pairs() * 1e6 / (round.last_ack_us as f64).max(1.0)
    }

    fn speed(&self, row: &Row) -> Spread {
        Spread::of(row.rounds.iter().map(|round| self.acked_per_s(round)).collect())
    }

    fn ratio(&self) -> Spread {
        ratio(&self.duel.rows, |round| self.acked_per_s(round))
    }

    fn ratio_cpu(&self) -> Spread {
        ratio(&self.duel.rows, |round| round.cpu_ns_to_last_ack as f64)
    }

    /// The part of the rounds' time that the devices' CPU took. What they do between rounds counts too, so it is a little
    /// too high rather than too low.
    fn device_busy(&self, row: &Row) -> f64 {
        let sum = |of: fn(&Round) -> u64| row.rounds.iter().map(of).sum::<u64>() as f64;
        sum(|round| round.device_cpu_ns) / (sum(|round| round.last_ack_us) * 1e3).max(1.0)
    }

    fn row_json(&self, row: &Row) -> Value {
        let Setup { devices, orders, payload, window, .. } = self.setup;
        let speed = self.speed(row);
        let each = |of: fn(&Round) -> u64| rounded(row.per_order(self.pairs(), of) / 1e3);
        json!({
            "event": "contestant",
            "bench": "pipeline",
            "contestant": row.who.name(),
            "devices": devices,
            "orders": orders,
            "payload": payload,
            "rounds": self.rounds,
            "window_orders": window.orders,
            "window_bytes": window.bytes,
            "acked_per_s": speed.median.round(),
            "acked_per_s_quarters": [speed.quarter.round(), speed.three_quarters.round()],
            "last_ack_us": {
                "p50": row.last_ack_us(50), "p99": row.last_ack_us(99), "max": row.last_ack_us(100)
            },
            "cpu_us_per_order": each(|round| round.cpu_ns),
            "cpu_us_per_order_to_last_ack": each(|round| round.cpu_ns_to_last_ack),
            "device_cpu_us_per_order": each(|round| round.device_cpu_ns),
            "device_busy": rounded(self.device_busy(row)),
            "user_bytes_per_device": row.user_bytes_per_device,
            "allocs_per_order": rounded(row.per_order(self.pairs(), |round| round.allocations)),
            "allocs_per_round": rounded(row.per_order(1.0, |round| round.allocations)),
        })
    }
}

fn summary(declared: &Run, default: &Run) -> Value {
    let Setup { devices, orders, payload, rest_ms, .. } = declared.setup;
    let ratio = declared.ratio();
    json!({
        "event": "summary",
        "bench": "pipeline",
        "devices": devices,
        "orders": orders,
        "payload": payload,
        "rounds": declared.rounds,
        "rest_ms": rest_ms,
        "ratio_acked_per_s": rounded(ratio.median),
        "ratio_acked_per_s_quarters": ratio.json(),
        "ratio_cpu_to_last_ack": rounded(declared.ratio_cpu().median),
        "default_window_ratio_acked_per_s": rounded(default.ratio().median),
        "default_window_ratio_cpu_to_last_ack": rounded(default.ratio_cpu().median),
        "interleaved": true,
        "pinned": declared.duel.pinned && default.duel.pinned,
        "congestion": machine::congestion(),
        "load_1m": declared.duel.load_1m,
        "debug_build": cfg!(debug_assertions),
        "ok": declared.is_right() && default.is_right(),
    })
}

fn people(declared: &Run, default: &Run) -> String {
    let Setup { devices, orders, payload, .. } = declared.setup;
    let mut table = table(&[
        "",
        "window",
        "acked/s",
        "last ack p50",
        "p99",
        "cpu per order",
        "device cpu",
        "device busy",
        "allocations per round",
    ]);
    for run in [declared, default] {
        let window = run.setup.window.orders.to_string();
        for row in &run.duel.rows {
            let each = |of: fn(&Round) -> u64| row.per_order(run.pairs(), of);
            table.add_row([
                row.who.name().to_owned(),
                window.clone(),
                format!("{:.2} M", run.speed(row).median / 1e6),
                duration(row.last_ack_us(50)),
                duration(row.last_ack_us(99)),
                format!("{:.0} ns", each(|round| round.cpu_ns_to_last_ack)),
                format!("{:.0} ns", each(|round| round.device_cpu_ns)),
                format!("{:.2}", run.device_busy(row)),
                format!("{:.0}", row.per_order(1.0, |round| round.allocations)),
            ]);
        }
        table.add_row([
            "ratio".to_owned(),
            window,
            run.ratio().people(),
            String::new(),
            String::new(),
            run.ratio_cpu().people(),
        ]);
    }
    let what = format!("{} rounds of {orders} {payload}-byte orders to {devices} devices", declared.rounds);
    let right = declared.is_right() && default.is_right();
    let verdict = if right { "" } else { "not right: some orders had no outcome in time\n" };
    let how = declared.duel.how(machine::congestion().as_deref());
    format!("{}\n{table}\n\n{how}\n{verdict}", out::title(&what))
}
