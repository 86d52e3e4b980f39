//! With the feature `tracing`, a subscriber hears of sessions, orders and drops, and of nothing per order and device.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tillwire::{
    Delivered, Device, NodeId, Order, OrderKind, Outcome, Security, StaticDevice, Store, StoreServer, Target,
    Verdict,
};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

const SOON: Duration = Duration::from_secs(20);

/// Every event as a line, and the spans.
#[derive(Clone, Default)]
struct Listener {
    lines: Arc<Mutex<Vec<String>>>,
    spans: Arc<Mutex<BTreeMap<u64, String>>>,
    next: Arc<AtomicU64>,
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

impl Listener {
    fn count(&self, part: &str) -> usize {
        self.lines.lock().unwrap().iter().filter(|line| line.contains(part)).count()
    }

    async fn wait(&self, part: &str) {
        let heard = async {
            while self.count(part) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(SOON, heard).await;
        assert!(waited.is_ok(), "no line with {part:?} in {:#?}", self.lines.lock().unwrap());
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("tillwire::")
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let mut line = Line(attributes.metadata().name().to_owned());
        attributes.record(&mut line);
        self.spans.lock().unwrap().insert(id, line.0);
        Id::from_u64(id)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.lines.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn sessions_orders_and_failures_are_told_and_nothing_per_device() {
    let heard = Listener::default();
    let _subscriber = tracing::subscriber::set_default(heard.clone());
    let store = Store::new(1, "PARIS-12").unwrap();
    let mut devices = Vec::new();
    for n in 1..=5 {
        let builder = Device::builder(store, NodeId([n; 16])).security(Security::open_network());
        let builder = builder.bind(Ipv4Addr::new(127, 21, 1, n)).port(0).no_discovery();
        devices.push(builder.start(|_: &Delivered<'_>| Verdict::Applied).await.unwrap());
    }
    let builder = StoreServer::builder(store).security(Security::open_network()).no_discovery();
    let nobody = StaticDevice::at(([127, 21, 1, 99], 1).into());
    let listed = devices.iter().map(|device| StaticDevice::at(device.address()));
    let server = listed.fold(builder.device(nobody), tillwire::ServerBuilder::device).start().await.unwrap();
    heard.wait("dial failed").await;
    while heard.count("session opened") < 5 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let before = heard.lines.lock().unwrap().len();
    let ids: Vec<_> = devices.iter().map(Device::id).collect();
    let fan_out = server.push(&Order::new(OrderKind::SHOW_PAGE, 1, &[1; 20]), &Target::ids(ids)).await;
    assert_eq!(fan_out.unwrap().settled(SOON).await.count(Outcome::APPLIED), 5);
    let (accepted, settled) = (heard.count("order accepted"), heard.count("order settled"));
    assert_eq!((accepted, settled), (1, 1), "one line each, however many devices");
    let told = heard.lines.lock().unwrap()[before..].iter().filter(|line| !line.contains("dial")).count();
    assert_eq!(told, 2, "nothing is told per order and device: {:#?}", heard.lines.lock().unwrap());
    drop(devices.pop());
    heard.wait("WARN message=session ended").await;
    server.shutdown().await;
    heard.wait("INFO message=session ended").await;
    let spans = heard.spans.lock().unwrap().clone();
    assert!(spans.values().any(|span| span.contains(&NodeId([3; 16]).to_string())), "{spans:#?}");
}

#[tokio::test]
async fn a_datagram_that_is_dropped_is_told_with_its_reason() {
    let heard = Listener::default();
    let _subscriber = tracing::subscriber::set_default(heard.clone());
    let at = Ipv4Addr::new(127, 21, 0, 3);
    let builder = StoreServer::builder(Store::new(1, "PARIS-12").unwrap());
    let builder = builder.security(Security::open_network()).bind(at);
    let builder = builder.broadcast(Ipv4Addr::new(127, 21, 0, 255)).discovery_port(41_822);
    let server = builder.start().await.unwrap();
    let socket = tokio::net::UdpSocket::bind("127.21.0.4:0").await.unwrap();
    socket.send_to(b"GET / HTTP/1.1", (at, 41_822)).await.unwrap();
    heard.wait("datagram dropped").await;
    assert_eq!(heard.count("why=malformed"), 1);
    assert!(Level::TRACE > Level::DEBUG, "a stranger's datagrams are the least of the levels");
    server.shutdown().await;
}
