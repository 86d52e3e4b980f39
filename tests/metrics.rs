//! With the feature `metrics`, what both sides count reaches the application's recorder.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use tillwire::{
    Delivered, Device, NodeId, Order, OrderKind, Outcome, Security, StaticDevice, Store, StoreServer, Target,
    Verdict,
};

const EVERY: Duration = Duration::from_millis(100);
const SOON: Duration = Duration::from_secs(20);

/// Everything recorded, by `node/name`; of a histogram the number of values.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<String, f64>>>);

impl Seen {
    fn get(&self, id: NodeId, name: &str) -> Option<f64> {
        self.0.lock().unwrap().get(&format!("{id}/{name}")).copied()
    }

    async fn wait(&self, id: NodeId, name: &str, expected: f64) {
        let reached = async {
            while self.get(id, name) != Some(expected) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(SOON, reached).await;
        assert!(waited.is_ok(), "{name} is {:?}, not {expected}", self.get(id, name));
    }
}

struct One(Seen, String);

impl One {
    fn new(seen: &Seen, key: &Key) -> Arc<Self> {
        let node: Vec<_> = key.labels().map(|label| label.value()).collect();
        Arc::new(Self(seen.clone(), format!("{}/{}", node.join(","), key.name())))
    }

    fn put(&self, change: impl FnOnce(&mut f64)) {
        change(self.0.0.lock().unwrap().entry(self.1.clone()).or_default());
    }
}

impl CounterFn for One {
    fn increment(&self, _: u64) {
        unreachable!("counters are forwarded as they stand");
    }

    #[expect(clippy::cast_precision_loss, reason = "a test counts little")]
    fn absolute(&self, value: u64) {
        self.put(|seen| {
            assert!(*seen <= value as f64, "a counter fell");
            *seen = value as f64;
        });
    }
}

impl GaugeFn for One {
    fn increment(&self, _: f64) {
        unreachable!("gauges are set");
    }

    fn decrement(&self, _: f64) {
        unreachable!("gauges are set");
    }

    fn set(&self, value: f64) {
        self.put(|seen| *seen = value);
    }
}

impl HistogramFn for One {
    fn record(&self, value: f64) {
        assert!((0.000_001..SOON.as_secs_f64()).contains(&value), "{value} s");
        self.put(|seen| *seen += 1.0);
    }
}

impl Recorder for Seen {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(One::new(self, key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(One::new(self, key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(One::new(self, key))
    }
}

#[tokio::test]
async fn what_both_sides_count_reaches_the_recorder() {
    let seen = Seen::default();
    // The runtime has one thread: what it spawns records here.
    let _recorder = metrics::set_default_local_recorder(&seen);
    let store = Store::new(1, "PARIS-12").unwrap();
    let id = NodeId([9; 16]);
    let at = Ipv4Addr::new(127, 21, 0, 1);
    let builder = Device::builder(store, id).security(Security::open_network()).bind(at).port(0);
    let device = builder.no_discovery().metrics_every(EVERY).start(|_: &Delivered<'_>| Verdict::Applied);
    let device = device.await.unwrap();
    let builder = StoreServer::builder(store).security(Security::open_network()).no_discovery();
    let builder = builder.device(StaticDevice::at(device.address())).metrics_every(EVERY);
    let server = builder.start().await.unwrap();
    seen.wait(server.id(), "tillwire_push_connected", 1.0).await;
    for _ in 0..3 {
        let order = Order::new(OrderKind::SHOW_PAGE, 1, &[1; 20]);
        let report = server.push(&order, &Target::all()).await.unwrap().settled(SOON).await;
        assert_eq!(report.count(Outcome::APPLIED), 1);
    }
    seen.wait(server.id(), "tillwire_push_orders", 3.0).await;
    seen.wait(server.id(), "tillwire_push_applied", 3.0).await;
    seen.wait(server.id(), "tillwire_push_latency_seconds", 3.0).await;
    seen.wait(server.id(), "tillwire_push_devices", 1.0).await;
    seen.wait(server.id(), "tillwire_push_live_orders", 0.0).await;
    seen.wait(id, "tillwire_push_delivered", 3.0).await;
    // Nothing is added a second time.
    tokio::time::sleep(3 * EVERY).await;
    assert_eq!(seen.get(server.id(), "tillwire_push_latency_seconds"), Some(3.0));
    server.shutdown().await;
    device.shutdown().await;
}

#[tokio::test]
async fn discovery_is_forwarded_and_forwarding_ends_with_its_node() {
    let seen = Seen::default();
    let _recorder = metrics::set_default_local_recorder(&seen);
    let builder = StoreServer::builder(Store::new(1, "PARIS-12").unwrap());
    let builder = builder.security(Security::open_network()).bind(Ipv4Addr::new(127, 21, 0, 2));
    let builder = builder.broadcast(Ipv4Addr::new(127, 21, 0, 255)).discovery_port(41_821);
    let server = builder.metrics_every(EVERY).start().await.unwrap();
    let id = server.id();
    seen.wait(id, "tillwire_discovery_devices", 0.0).await;
    let sent = async {
        while seen.get(id, "tillwire_discovery_sent_beacon").is_none_or(|count| count < 1.0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, sent).await.unwrap();
    assert!(seen.get(id, "tillwire_discovery_net_sent").is_some());
    server.shutdown().await;
    seen.0.lock().unwrap().clear();
    tokio::time::sleep(3 * EVERY).await;
    assert!(seen.0.lock().unwrap().is_empty(), "nothing is forwarded for a server that is gone");
}
