//! `tillwire bench fanout`: one order to all devices, by the library and by the yardstick, in turns.

use serde_json::{Value, json};

use super::duel::{self, Duel, Setup};
use super::figures::{Row, ratio, rounded};
use super::peers::Window;
use super::{DEVICES_MAX, machine, say_debug_build};
use crate::error::{Outcome, Verdict};
use crate::out;
use crate::push::duration;
use crate::watch::table;

/// The largest payload of an order.
const PAYLOAD_MAX: i64 = wire_format::frame::order::PAYLOAD_MAX as i64;

const ABOUT: &str = "\
What is measured, per contestant:
  last ack              from before the push to the outcome of the last device, as the caller
                        sees it
  cpu per order         CPU time of the thread that serves the sockets, kernel included, divided
                        by rounds and devices; with what is done between rounds, when tillwire
                        tells the devices that outcomes are settled
  device cpu            the same of the process with the devices
  memory per device     growth of resident memory (RSS) until 2 s after all are connected,
                        divided by devices
  allocations           of the serving thread, divided by rounds and devices

tillwire is a StoreServer on one thread; raw-epoll a hand-written loop that writes the same
frame and reads the same answers, and does nothing else. Both are connected at once, each to
devices of its own from the same light program, and take turns; the ratios are medians over the
pairs of rounds, with their quarters in brackets. With several --payload one run follows the
other.

What it cannot show: a network (loopback has no losses, no delays and no interrupts), real
devices, and anything absolute about another machine. Work the kernel does for the receiving
side of loopback is partly charged to the sender, for both contestants alike. `ok` says that
every order was applied on every device, not that a ratio is good.";

/// Push one order to all devices, again and again, beside a hand-written loop over the same sockets.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = ABOUT)]
pub(super) struct Args {
    /// How many devices each contestant has.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(DEVICES_MAX)))]
    pub(super) devices: u32,
    /// Bytes of the order's payload; several, with commas between, are measured one after the other.
    #[arg(long, value_name = "B,…", default_value = "200", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(0..=PAYLOAD_MAX))]
    pub(super) payload: Vec<u32>,
    /// How many rounds are counted.
    #[arg(long, value_name = "R", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) rounds: u32,
    /// Milliseconds each contestant rests after a round. Below 100, tillwire's SETTLED frames may travel with the next
    /// order instead of alone.
    #[arg(long, value_name = "MS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    pub(super) rest_ms: u64,
}

/// Runs it and prints, for each size, a row per contestant and the ratios.
pub(super) fn run(args: &Args, json: bool) -> Outcome {
    say_debug_build();
    let mut right = true;
    for &payload in &args.payload {
        let setup =
            Setup { devices: args.devices, payload, orders: 1, rest_ms: args.rest_ms, window: Window::WIDE };
        let duel = duel::run(setup, args.rounds, &format!("fanout, {payload} B"))?;
        let shown = Shown { setup, rounds: args.rounds, duel, congestion: machine::congestion() };
        shown.print(json);
        right &= shown.is_right();
    }
    Ok(Verdict::of(right))
}

/// One size, as it is shown.
struct Shown {
    setup: Setup,
    rounds: u32,
    duel: Duel,
    congestion: Option<String>,
}

impl Shown {
    fn is_right(&self) -> bool {
        self.duel.rows.iter().all(Row::is_right)
    }

    fn print(&self, json: bool) {
        if json {
            self.duel.rows.iter().for_each(|row| out::json(&self.row_json(row)));
            out::json(&self.json());
        } else {
            out::text(&self.people());
        }
    }

    fn row_json(&self, row: &Row) -> Value {
        let Setup { devices, payload, .. } = self.setup;
        let orders = f64::from(devices);
        let spread = row.spread(orders * 1e3, |round| round.cpu_ns);
        json!({
            "event": "contestant",
            "bench": "fanout",
            "contestant": row.who.name(),
            "devices": devices,
            "payload": payload,
            "rounds": self.rounds,
            "last_ack_us": {
                "p50": row.last_ack_us(50), "p99": row.last_ack_us(99), "max": row.last_ack_us(100)
            },
            "cpu_us_per_order": rounded(row.per_order(orders, |round| round.cpu_ns) / 1e3),
            "cpu_us_per_order_median": rounded(spread.median),
            "cpu_us_per_order_quarters": spread.json(),
            "cpu_us_per_order_to_last_ack":
                rounded(row.per_order(orders, |round| round.cpu_ns_to_last_ack) / 1e3),
            "device_cpu_us_per_order": rounded(row.per_order(orders, |round| round.device_cpu_ns) / 1e3),
            "user_bytes_per_device": row.user_bytes_per_device,
            "allocs_per_order": rounded(row.per_order(orders, |round| round.allocations)),
            "allocs_per_round": rounded(row.per_order(1.0, |round| round.allocations)),
        })
    }

    fn json(&self) -> Value {
        let Setup { devices, payload, rest_ms, .. } = self.setup;
        let rows = &self.duel.rows;
        let cpu = ratio(rows, |round| round.cpu_ns as f64);
        let last_ack = ratio(rows, |round| round.last_ack_us as f64);
        json!({
            "event": "summary",
            "bench": "fanout",
            "devices": devices,
            "payload": payload,
            "rounds": self.rounds,
            "rest_ms": rest_ms,
            "ratio_cpu": rounded(cpu.median),
            "ratio_cpu_quarters": cpu.json(),
            "ratio_cpu_to_last_ack": rounded(ratio(rows, |round| round.cpu_ns_to_last_ack as f64).median),
            "ratio_last_ack": rounded(last_ack.median),
            "ratio_last_ack_quarters": last_ack.json(),
            "interleaved": true,
            "pinned": self.duel.pinned,
            "congestion": self.congestion,
            "load_1m": self.duel.load_1m,
            "debug_build": cfg!(debug_assertions),
            "ok": self.is_right(),
        })
    }

    fn people(&self) -> String {
        let Setup { devices, payload, rest_ms, .. } = self.setup;
        let (rows, orders) = (&self.duel.rows, f64::from(devices));
        let mut table = table(&[
            "",
            "last ack p50",
            "p99",
            "cpu per order",
            "to last ack",
            "device cpu",
            "memory per device",
            "allocations per round",
        ]);
        for row in rows {
            table.add_row([
                row.who.name().to_owned(),
                duration(row.last_ack_us(50)),
                duration(row.last_ack_us(99)),
                format!("{} us", row.spread(orders * 1e3, |round| round.cpu_ns).people()),
                format!("{:.2} us", row.per_order(orders, |round| round.cpu_ns_to_last_ack) / 1e3),
                format!("{:.2} us", row.per_order(orders, |round| round.device_cpu_ns) / 1e3),
                format!("{} B", row.user_bytes_per_device),
                format!("{:.1}", row.per_order(1.0, |round| round.allocations)),
            ]);
        }
        table.add_row([
            "ratio".to_owned(),
            ratio(rows, |round| round.last_ack_us as f64).people(),
            String::new(),
            ratio(rows, |round| round.cpu_ns as f64).people(),
            ratio(rows, |round| round.cpu_ns_to_last_ack as f64).people(),
        ]);
        let what = format!(
            "{} rounds of one {payload}-byte order to {devices} devices, {rest_ms} ms of rest after each",
            self.rounds
        );
        let verdict = if self.is_right() { "" } else { "not right: some orders had no outcome in time\n" };
        format!("{}\n{table}\n\n{}\n{verdict}", out::title(&what), self.duel.how(self.congestion.as_deref()))
    }
}
