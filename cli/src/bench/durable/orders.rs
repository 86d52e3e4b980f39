//! Many pushers, an order for one device each: how many a second when each is on disk before its `push` returns.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tillwire::push::outbox::log::{Directory, Disk};
use tillwire::{FanOut, Outcome, PushError, Quorum, StoreServer};
use tokio::task::JoinSet;

use super::super::figures::rounded;
use super::super::peers::Window;
use super::super::{duel, machine, order};
use super::{Args, Place, one, percentile, runtime, serve};
use crate::error::Failure;
use crate::out;
use crate::push::duration;
use crate::watch::table;

/// Orders a second.
const BUDGET: f64 = 20_000.0;
/// Devices the orders are for.
const DEVICES: u32 = 100;
/// Orders of a pusher that may wait for their outcomes while it pushes the next.
const DEPTH: usize = 4;
/// An outcome that takes longer is not all right.
const WITHIN: Duration = Duration::from_secs(30);
/// Bytes a loop writes that syncs each time: what an order of the usual size is on disk.
const RECORD: usize = 256;
/// For so long it does.
const ALONE_FOR: Duration = Duration::from_secs(1);
/// A server that is full is asked again after a moment.
const FULL_PAUSE: Duration = Duration::from_millis(1);

pub(super) fn run(args: &Args, dir: &Path, json: bool) -> Result<bool, Failure> {
    let load_1m = machine::load_1m();
    let before = alone(&dir.join("alone-1"))?;
    let durable = measure(args, Place::Path(&dir.join("orders")))?;
    let after = alone(&dir.join("alone-2"))?;
    let volatile = measure(args, Place::Nowhere)?;
    let disk = (before + after) / 2.0;
    let right = durable.is_right() && volatile.is_right();
    if json {
        for (contestant, figures) in [("durable", &durable), ("tillwire", &volatile)] {
            out::json(&figures.json(contestant, args));
        }
        out::json(&json!({
            "event": "summary",
            "bench": "durable-orders",
            "devices": DEVICES,
            "pushers": args.pushers,
            "payload": args.payload,
            "seconds": args.seconds,
            "orders_per_s": durable.per_s().round(),
            "disk_syncs_per_s": disk.round(),
            "orders_per_commit": rounded(durable.orders as f64 / durable.commits.max(1) as f64),
            "ratio_to_volatile": rounded(durable.per_s() / volatile.per_s().max(1.0)),
            "load_1m": load_1m,
            "debug_build": cfg!(debug_assertions),
            "within_budget": durable.per_s() >= BUDGET,
            "ok": right,
        }));
    } else {
        out::text(&people(args, &durable, &volatile, disk));
    }
    Ok(right)
}

/// What a loop reaches that syncs each record by itself.
fn alone(path: &Path) -> Result<f64, Failure> {
    let cannot = |error: std::io::Error| Failure::broken(format!("the disk does not work: {error}"), "");
    let mut disk = Directory::open(path).map_err(cannot)?;
    let bytes = 64 << 20;
    disk.create(1, bytes, &[]).map_err(cannot)?;
    let (begun, mut syncs) = (machine::now(), 0_u64);
    while machine::now() - begun < ALONE_FOR {
        let offset = syncs * RECORD as u64 % (bytes - RECORD as u64);
        disk.write(1, offset, &[7; RECORD]).and_then(|()| disk.sync(1)).map_err(cannot)?;
        syncs += 1;
    }
    Ok(syncs as f64 / (machine::now() - begun).as_secs_f64())
}

/// What came of one server.
struct Figures {
    orders: u64,
    applied: u64,
    took: Duration,
    cpu: Duration,
    commits: u64,
    /// Times of `push`, in microseconds, sorted.
    pushes_us: Vec<u64>,
}

impl Figures {
    fn is_right(&self) -> bool {
        self.orders > 0 && self.applied == self.orders
    }

    fn per_s(&self) -> f64 {
        self.applied as f64 / self.took.as_secs_f64().max(1e-9)
    }

    fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.orders.max(1) as f64
    }

    fn json(&self, contestant: &str, args: &Args) -> Value {
        json!({
            "event": "contestant",
            "bench": "durable-orders",
            "contestant": contestant,
            "pushers": args.pushers,
            "orders": self.orders,
            "orders_per_s": self.per_s().round(),
            "push_us": {
                "p50": percentile(&self.pushes_us, 50), "p99": percentile(&self.pushes_us, 99),
                "max": percentile(&self.pushes_us, 100)
            },
            "cpu_us_per_order": rounded(self.cpu_us()),
            "commits": self.commits,
        })
    }
}

fn measure(args: &Args, place: Place<'_>) -> Result<Figures, Failure> {
    let (devices, port) = duel::devices(Window::WIDE)?;
    let figures = runtime()?.block_on(async {
        let server = Arc::new(serve(DEVICES, port, place).await?);
        let commits = commits(&server).await;
        let (begun, cpu) = (machine::now(), machine::process_cpu());
        let until = begun + Duration::from_secs(args.seconds);
        let mut pushers = JoinSet::new();
        for at in 0..args.pushers {
            pushers.spawn(pusher(Arc::clone(&server), at % DEVICES, order::payload(args.payload), until));
        }
        let mut figures = Figures {
            orders: 0,
            applied: 0,
            took: Duration::ZERO,
            cpu: Duration::ZERO,
            commits: 0,
            pushes_us: Vec::new(),
        };
        while let Some(ended) = pushers.join_next().await {
            let ended = ended.map_err(|error| Failure::broken(format!("a pusher broke: {error}"), ""))?;
            let (applied, mut pushes_us) =
                ended.map_err(|error| Failure::broken(format!("an order was not accepted: {error}"), ""))?;
            figures.orders += pushes_us.len() as u64;
            figures.applied += applied;
            figures.pushes_us.append(&mut pushes_us);
        }
        (figures.took, figures.cpu) = (machine::now() - begun, machine::process_cpu() - cpu);
        figures.commits = self::commits(&server).await - commits;
        if let Some(server) = Arc::into_inner(server) {
            server.shutdown().await;
        }
        Ok::<_, Failure>(figures)
    });
    devices.end();
    let mut figures = figures?;
    figures.pushes_us.sort_unstable();
    Ok(figures)
}

async fn commits(server: &StoreServer) -> u64 {
    let stats = server.stats().await;
    stats.and_then(|stats| stats.push.outbox).map_or(0, |outbox| outbox.commits)
}

/// Pushes until the time is over and waits for the outcomes: how many were applied, and how long each `push` took.
async fn pusher(
    server: Arc<StoreServer>,
    device: u32,
    payload: Vec<u8>,
    until: Duration,
) -> Result<(u64, Vec<u64>), PushError> {
    let (target, order) = (one(device), order::order(&payload));
    let (mut open, mut pushes_us, mut applied) = (VecDeque::with_capacity(DEPTH), Vec::new(), 0);
    while machine::now() < until {
        let begun = machine::now();
        match server.push(&order, &target).await {
            Ok(fan_out) => open.push_back(fan_out),
            Err(PushError::Full { .. }) => {
                tokio::time::sleep(FULL_PAUSE).await;
                continue;
            }
            Err(error) => return Err(error),
        }
        pushes_us.push(u64::try_from((machine::now() - begun).as_micros()).unwrap_or(u64::MAX));
        if open.len() == DEPTH
            && let Some(oldest) = open.pop_front()
        {
            applied += ended(&oldest).await;
        }
    }
    for fan_out in &open {
        applied += ended(fan_out).await;
    }
    Ok((applied, pushes_us))
}

async fn ended(fan_out: &FanOut) -> u64 {
    let progress = fan_out.wait(Quorum::percent(100), |code| code == Outcome::APPLIED, WITHIN).await;
    progress.matching as u64
}

fn people(args: &Args, durable: &Figures, volatile: &Figures, disk: f64) -> String {
    let mut table = table(&["", "orders/s", "push p50", "p99", "cpu per order", "orders per commit"]);
    for (name, figures) in [("durable", durable), ("tillwire", volatile)] {
        let commits = figures.commits.max(1) as f64;
        let group = if figures.commits == 0 {
            String::new()
        } else {
            format!("{:.1}", figures.orders as f64 / commits)
        };
        table.add_row([
            name.to_owned(),
            format!("{:.0}", figures.per_s()),
            duration(percentile(&figures.pushes_us, 50)),
            duration(percentile(&figures.pushes_us, 99)),
            format!("{:.2} us", figures.cpu_us()),
            group,
        ]);
    }
    table.add_row(["disk".to_owned(), format!("{disk:.0} syncs/s, one after the other")]);
    let what = format!(
        "{} pushers for {} s, {}-byte orders for one of {DEVICES} devices each",
        args.pushers, args.seconds, args.payload
    );
    let right = durable.is_right() && volatile.is_right();
    let verdict = if right { "" } else { "not right: some orders had no outcome in time\n" };
    format!("{}\n{table}\n{verdict}", out::title(&what))
}
