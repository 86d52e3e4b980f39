//! The contestant `tillwire`: a store server as an application runs it, on one thread with a runtime of its own.

use std::path::Path;
use std::time::Duration;

use tillwire::{FanOut, Order, Outcome, Quorum, Security, StaticDevice, Store, StoreServer, Target};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::UnboundedReceiver;

use super::contestant::{CONNECTED_WITHIN, Contestant, Dialled, ROUND_WITHIN, Task};
use super::{machine, order, peers};
use crate::error::Failure;
use crate::start;

/// How often is looked whether all devices are connected.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Dials are paced per second.
const SECOND: Duration = Duration::from_secs(1);
/// Live orders there is room for besides those of a round.
const ORDERS_BESIDE: usize = 64;

/// The connected server.
#[derive(Debug)]
pub(super) struct Tillwire {
    runtime: Runtime,
    server: StoreServer,
    target: Target,
    payload: Vec<u8>,
    orders: u32,
    fan_outs: Vec<FanOut>,
    dialled: Dialled,
}

impl Tillwire {
    /// Starts the server with every device by address and waits until all are connected.
    pub(super) fn connect(task: Task, store: Store, outbox: Option<&Path>) -> Result<Self, Failure> {
        let begun = machine::now();
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::broken(format!("no runtime: {error}"), ""))?;
        let orders = usize::try_from(task.orders).unwrap_or(usize::MAX);
        let (server, dialled) = runtime.block_on(async {
            let builder = StoreServer::builder(store)
                .security(Security::open_network())
                .staging(true)
                .no_discovery()
                .live_orders(orders.saturating_add(ORDERS_BESIDE))
                .capacity(usize::try_from(task.devices).unwrap_or(usize::MAX));
            let builder = match outbox {
                Some(path) => builder.outbox(path),
                None => builder,
            };
            let server =
                (0..task.devices).fold(builder, |builder, index| builder.device(device(index, task.port)));
            let server = server.start().await.map_err(|error| start::failure(&error))?;
            let dialled = connected(&server, task.devices, begun).await?;
            Ok((server, dialled))
        })?;
        let (target, payload) = (Target::all(), order::payload(task.payload));
        let fan_outs = Vec::with_capacity(orders);
        Ok(Self { runtime, server, target, payload, orders: task.orders, fan_outs, dialled })
    }
}

/// The device with this number, by address.
pub(super) fn device(index: u32, port: u16) -> StaticDevice {
    let address = peers::address(index);
    StaticDevice { id: Some(peers::id(address)), ..StaticDevice::at((address, port).into()) }
}

/// Waits until all are, looking now and then at how many were dialled.
pub(super) async fn connected(
    server: &StoreServer,
    devices: u32,
    begun: Duration,
) -> Result<Dialled, Failure> {
    let deadline = begun + CONNECTED_WITHIN;
    let mut seen = vec![(begun, 0)];
    loop {
        let now = machine::now();
        let Some(stats) = server.stats().await else {
            return Err(Failure::broken("the server stopped", ""));
        };
        seen.push((now, stats.push.fleet.dials));
        if stats.push.connected == usize::try_from(devices).unwrap_or(usize::MAX) {
            // Who is connected is known at once, what the shards counted when they were asked: a moment before.
            let Some(stats) = server.stats().await else {
                return Err(Failure::broken("the server stopped", ""));
            };
            seen.push((now, stats.push.fleet.dials));
            return Ok(Dialled { per_s_max: most_in_a_second(&seen), failed: stats.push.fleet.dials_failed });
        }
        if now > deadline {
            let connected = stats.push.connected;
            return Err(Failure::broken(format!("only {connected} of {devices} devices connected"), ""));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The most that were counted per second over any span of a second or a little more, from looks at a rising count; all of
/// them if no span is that long.
fn most_in_a_second(seen: &[(Duration, u64)]) -> u64 {
    let mut most = 0.0_f64;
    let mut first = 0;
    for (at, &(now, count)) in seen.iter().enumerate() {
        while first < at && seen.get(first + 1).is_some_and(|&(then, _)| now - then >= SECOND) {
            first += 1;
        }
        let (then, before) = seen.get(first).copied().unwrap_or((now, count));
        most = most.max((count - before) as f64 / (now - then).max(SECOND).as_secs_f64());
    }
    most.round() as u64
}

/// Pushes without waiting, then waits for the counters of each; a report of every device would measure the reports.
async fn pipelined(
    server: &StoreServer,
    order: &Order<'_>,
    target: &Target,
    orders: u32,
    fan_outs: &mut Vec<FanOut>,
) -> Result<usize, tillwire::PushError> {
    for _ in 0..orders {
        fan_outs.push(server.push(order, target).await?);
    }
    let deadline = machine::now() + ROUND_WITHIN;
    let mut applied = 0;
    for fan_out in fan_outs.drain(..) {
        let left = deadline.saturating_sub(machine::now());
        applied += fan_out.wait(Quorum::percent(100), |code| code == Outcome::APPLIED, left).await.matching;
    }
    Ok(applied)
}

impl Contestant for Tillwire {
    fn wait(&mut self, told: &mut UnboundedReceiver<()>) -> Option<()> {
        self.runtime.block_on(told.recv())
    }

    fn dialled(&self) -> Dialled {
        self.dialled
    }

    fn round(&mut self) -> Result<u64, Failure> {
        let (runtime, server, target) = (&self.runtime, &self.server, &self.target);
        let order = order::order(&self.payload);
        let applied = if self.orders == 1 {
            runtime.block_on(async {
                let fan_out = server.push(&order, target).await?;
                Ok(fan_out.settled(ROUND_WITHIN).await.count(Outcome::APPLIED))
            })
        } else {
            runtime.block_on(pipelined(server, &order, target, self.orders, &mut self.fan_outs))
        };
        let applied = applied.map_err(|error: tillwire::PushError| {
            Failure::broken(format!("an order was not accepted: {error}"), "")
        })?;
        Ok(applied as u64)
    }

    fn rest(&mut self, span: Duration) {
        self.runtime.block_on(async { tokio::time::sleep(span).await });
    }

    fn commits(&self) -> u64 {
        let stats = self.runtime.block_on(self.server.stats());
        stats.and_then(|stats| stats.push.outbox).map_or(0, |outbox| outbox.commits)
    }

    fn end(self: Box<Self>) {
        let Self { runtime, server, .. } = *self;
        runtime.block_on(server.shutdown());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_second_is_found() {
        let seen = |counts: &[(u64, u64)]| {
            let seen: Vec<_> = counts.iter().map(|&(ms, n)| (Duration::from_millis(ms), n)).collect();
            most_in_a_second(&seen)
        };
        assert_eq!(seen(&[]), 0);
        assert_eq!(seen(&[(0, 7), (500, 10)]), 3, "what was there before the first look is not counted");
        assert_eq!(seen(&[(0, 0), (500, 100), (1_000, 150), (1_500, 1_000), (2_500, 1_010)]), 900);
    }
}
