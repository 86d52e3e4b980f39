//! Numbers for the `metrics` recorder, forwarded at an interval (feature `metrics`).
//!
//! [`ServerBuilder::metrics_every`](crate::ServerBuilder::metrics_every) and
//! [`DeviceBuilder::metrics_every`](crate::DeviceBuilder::metrics_every) switch it on. A task of its own takes a snapshot
//! and hands it to the recorder the application has installed; what serves the sockets only answers for the snapshot, as it
//! does for `stats`. Nothing is counted twice and nothing is done per order.
//!
//! | name | type | what |
//! | --- | --- | --- |
//! | `tillwire_push_<counter>` | counter | each counter of order push, by its name with `_` for `-`: of a server `push::fleet::Stats`, of a device `push::receiver::Stats` |
//! | `tillwire_push_latency_seconds` | histogram | of a server: from push to outcome, per (order, device) |
//! | `tillwire_push_devices`, `tillwire_push_connected`, `tillwire_push_live_orders` | gauge | of a server: devices listed, with an open session; orders that wait for outcomes |
//! | `tillwire_discovery_<counter>` | counter | each counter of discovery, `discovery::Stats` |
//! | `tillwire_discovery_net_<counter>` | counter | sockets and interfaces: `sent`, `send_errors`, `received`, `receive_errors`, `receive_drops`, `off_link`, `misaddressed` |
//! | `tillwire_discovery_devices` | gauge | of a server: devices that are here |
//!
//! Every one has the label `node`, the id of the server or device that counted it.

use std::sync::Weak;
use std::time::Duration;

use discovery::driver::NetStats;
use discovery::driver::device::DeviceHandle;
use discovery::driver::server::ServerHandle;
use metrics::{Key, Label, Level, Metadata, with_recorder};
use push::driver::device::Handle;
use push::driver::server::{Server, Snapshot};
use push::histogram::Histogram;
use tokio::task::JoinHandle;
use wire_format::ids::NodeId;

static METADATA: Metadata<'static> = Metadata::new("tillwire", Level::INFO, Some(module_path!()));

/// The shortest interval: a snapshot copies some kilobytes, and no recorder is read more often.
pub const EVERY_MIN: Duration = Duration::from_millis(100);

/// Ends the task with the node it reads.
#[derive(Debug)]
pub(crate) struct Forwarding(JoinHandle<()>);

impl Drop for Forwarding {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Forwards what a server counts until it has stopped. `pusher` is weak, so that its end stays its owner's.
pub(crate) fn server(
    every: Duration,
    id: NodeId,
    pusher: Weak<Server>,
    finder: Option<ServerHandle>,
) -> Forwarding {
    let task = async move {
        let node = Node::new(id);
        let mut ticks = interval(every);
        let mut before = Histogram::new();
        loop {
            ticks.tick().await;
            let Some(pusher) = pusher.upgrade() else { return };
            let Some(snapshot) = pusher.stats().await else { return };
            drop(pusher);
            node.pushing(&snapshot, &before);
            before = snapshot.latency;
            if let Some(finder) = &finder
                && let Some(stats) = finder.stats().await
            {
                node.finding(&stats.protocol, &stats.net);
                node.gauge("discovery_devices", stats.devices);
            }
        }
    };
    Forwarding(tokio::spawn(task))
}

/// Forwards what a device counts until it has stopped.
pub(crate) fn device(
    every: Duration,
    id: NodeId,
    serving: Handle,
    finder: Option<DeviceHandle>,
) -> Forwarding {
    let task = async move {
        let node = Node::new(id);
        let mut ticks = interval(every);
        loop {
            ticks.tick().await;
            let Some(stats) = serving.stats().await else { return };
            stats.each().for_each(|(name, count)| node.counter("push", name, count.into()));
            if let Some(finder) = &finder
                && let Some(stats) = finder.stats().await
            {
                node.finding(&stats.protocol, &stats.net);
            }
        }
    };
    Forwarding(tokio::spawn(task))
}

fn interval(every: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(every.max(EVERY_MIN));
    // After a pause the numbers are as good as ever; a burst of them would only repeat.
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks
}

/// Who counted: the label of everything.
struct Node(Label);

impl Node {
    fn new(id: NodeId) -> Self {
        Self(Label::new("node", id.to_string()))
    }

    fn key(&self, name: String) -> Key {
        Key::from_parts(name, vec![self.0.clone()])
    }

    fn counter(&self, half: &str, name: &str, count: u64) {
        let key = self.key(format!("tillwire_{half}_{}", name.replace('-', "_")));
        with_recorder(|recorder| recorder.register_counter(&key, &METADATA).absolute(count));
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of devices and orders are far below 2^53")]
    fn gauge(&self, name: &str, value: usize) {
        let key = self.key(format!("tillwire_{name}"));
        with_recorder(|recorder| recorder.register_gauge(&key, &METADATA).set(value as f64));
    }

    fn pushing(&self, snapshot: &Snapshot, before: &Histogram) {
        snapshot.fleet.each(|name, count| self.counter("push", name, count));
        self.gauge("push_devices", snapshot.devices);
        self.gauge("push_connected", snapshot.connected);
        self.gauge("push_live_orders", snapshot.live_orders);
        let key = self.key("tillwire_push_latency_seconds".into());
        let latency = with_recorder(|recorder| recorder.register_histogram(&key, &METADATA));
        for (span, count) in snapshot.latency.since(before) {
            latency.record_many(span, count as usize);
        }
    }

    fn finding(&self, protocol: &discovery::Stats, net: &NetStats) {
        protocol.each().for_each(|(name, count)| self.counter("discovery", name, count));
        let counts = [
            ("sent", net.sent),
            ("send_errors", net.send_errors),
            ("received", net.received),
            ("receive_errors", net.receive_errors),
            ("receive_drops", net.receive_drops),
            ("off_link", net.off_link),
            ("misaddressed", net.misaddressed),
        ];
        for (name, count) in counts {
            self.counter("discovery_net", name, count);
        }
    }
}
