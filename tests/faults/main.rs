//! What networks and broken peers do, over real sockets on loopback: servers and devices as applications start them, a
//! fault proxy between them, and peers that lie (`liars`).
//!
//! Whatever happens is written into a history, and one judge holds it against the promises (`testkit::history`): every
//! order ends exactly once on every device it was for, none has its effect twice, none out of order, none too late. The
//! simulation in virtual time (`push/tests/pair`) uses the same judge.

mod addresses;
mod bytes;
mod cable;
mod judge;
mod large;
mod liars;
mod link;
mod peers;
mod process;
mod strangers;
mod stuck;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use push::driver::server::Event as Session;
use push::ended::Ended;
use testkit::proxy::{Faults, Plan, Proxy};
use tillwire::{
    Device, DeviceBuilder, NodeId, Order, OrderKind, Security, ServerBuilder, ServerEvent, StaticDevice,
    Store, StoreServer,
};
use tokio::sync::broadcast::Receiver;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, timeout};
use wire_format::frame::Hello;
use wire_format::frame::hello::LogHead;

const SOON: Duration = Duration::from_secs(15);
/// Cases under way at a time: each takes about ten descriptors, and 1,024 are all some hosts give.
const AT_ONCE: usize = 24;
/// Where the first frame after the handshake begins on the way to the device, and on the way to the server.
const AFTER_HELLO: u64 = 448;
const AFTER_WELCOME: u64 = 308;

fn store() -> Store {
    Store::new(1, "PARIS-12").unwrap()
}

fn id(n: u8) -> NodeId {
    NodeId([n; 16])
}

fn server() -> ServerBuilder {
    StoreServer::builder(store())
        .security(Security::open_network())
        .no_discovery()
        .capacity(8)
        .live_orders(256)
}

/// The HELLO of a server of this store, as it would be, with this volatile log.
fn hello(volatile: LogHead) -> Vec<u8> {
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        staging: false,
        takeover: false,
        store: store(),
        max_body: 4_096,
        target: id(1),
        server: id(0xA0),
        fence: 1,
        epoch: 1,
        ping_interval_ms: 3_000,
        features: 0,
        durable: LogHead::default(),
        volatile,
    };
    let mut bytes = vec![0; AFTER_HELLO as usize];
    assert_eq!(hello.emit(&mut bytes), Ok(bytes.len()));
    bytes
}

/// The next address nobody has: the last two numbers of it.
static NEXT: AtomicU16 = AtomicU16::new(1);

/// A device at an address of its own, so that nobody takes its port while it boots.
fn device(n: u8) -> DeviceBuilder {
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    at(n, Ipv4Addr::new(127, 8, high, low))
}

fn at(n: u8, address: Ipv4Addr) -> DeviceBuilder {
    let builder = Device::builder(store(), id(n)).security(Security::open_network());
    builder.no_discovery().bind(address).port(0)
}

fn listed(n: u8, address: SocketAddr) -> StaticDevice {
    StaticDevice { id: Some(id(n)), ..StaticDevice::at(address) }
}

/// May run again; may not.
fn page(payload: &[u8]) -> Order<'_> {
    Order::new(OrderKind::SHOW_PAGE, 1, payload).idempotent()
}

fn once(payload: &[u8]) -> Order<'_> {
    Order::new(OrderKind::PRINT, 1, payload)
}

async fn proxy(target: SocketAddr, plan: Plan) -> Proxy {
    Proxy::start((Ipv4Addr::LOCALHOST, 0).into(), target, plan).await.unwrap()
}

/// Bytes to the device, bytes to the server.
fn up(faults: Faults) -> Plan {
    Plan { up: faults, ..Plan::default() }
}

fn down(faults: Faults) -> Plan {
    Plan { down: faults, ..Plan::default() }
}

fn cut_at(at: u64) -> Faults {
    Faults { cut_at: Some(at), ..Faults::default() }
}

fn stall_at(at: u64) -> Faults {
    Faults { stall_at: Some(at), ..Faults::default() }
}

/// The next end of a session, with the device it was with.
async fn next_end(events: &mut Receiver<ServerEvent>) -> (Option<NodeId>, Ended) {
    loop {
        if let ServerEvent::Session(Session::Disconnected { id, why, .. }) = events.recv().await.unwrap() {
            return (id, why);
        }
    }
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let all = async {
        while !holds().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, all).await.unwrap_or_else(|_| panic!("{what}"));
}

/// Runs every case, a few at a time. Hand in an iterator, not an array: a case is 50 KB, and a dozen of them on the stack of a
/// test is too much.
async fn each<F: Future<Output = ()> + 'static>(cases: impl IntoIterator<Item = F>) {
    let run = async {
        let mut running = JoinSet::new();
        for case in cases {
            if running.len() >= AT_ONCE {
                running.join_next().await.unwrap().unwrap();
            }
            running.spawn_local(case);
        }
        while let Some(done) = running.join_next().await {
            done.unwrap();
        }
    };
    LocalSet::new().run_until(run).await;
}
