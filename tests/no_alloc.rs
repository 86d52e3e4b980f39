//! After warm-up, the threads that serve sockets allocate nothing: per order, outcome, ping or refresh.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use testkit::alloc::{Counting, Counts, count};
use tillwire::{
    Delivered, Device, NodeId, Order, OrderKind, Outcome, Security, StaticDevice, Store, StoreServer, Target,
    Verdict,
};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const DEVICES: u8 = 20;
const PORT: u16 = 19_311;
const SOON: Duration = Duration::from_secs(20);

fn store() -> Store {
    Store::new(1, "PARIS-12").unwrap()
}

/// A thread with a runtime of its own: starts `make`, hands it out, counts what it allocates between the first two signals,
/// and ends with the third. What ends closes connections, which costs the other side something: nobody may end while
/// another still counts.
struct Served<T> {
    started: T,
    warm: oneshot::Sender<()>,
    done: oneshot::Sender<()>,
    counted: mpsc::Receiver<Counts>,
    end: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

fn serve<T, F>(make: impl FnOnce() -> F + Send + 'static) -> Served<T>
where
    F: Future<Output = T>,
    T: Send + 'static,
{
    let (hand_out, started) = mpsc::channel();
    let (warm, warmed) = oneshot::channel();
    let (done, finished) = oneshot::channel();
    let (tell, counted) = mpsc::channel();
    let (end, ending) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        hand_out.send(runtime.block_on(make())).unwrap();
        runtime.block_on(warmed).unwrap();
        tell.send(count(|| runtime.block_on(finished).unwrap())).unwrap();
        ending.recv().unwrap();
        runtime.shutdown_timeout(Duration::from_secs(1));
    });
    Served { started: started.recv().unwrap(), warm, done, counted, end, thread }
}

async fn devices() -> Vec<Device> {
    let mut devices = Vec::new();
    for n in 1..=DEVICES {
        let device = Device::builder(store(), NodeId([n; 16]))
            .security(Security::open_network())
            .bind(Ipv4Addr::new(127, 9, 1, n))
            .port(PORT)
            .no_discovery();
        devices.push(device.start(|_: &Delivered<'_>| Verdict::Applied).await.unwrap());
    }
    devices
}

async fn server(shards: usize, outbox: Option<PathBuf>) -> StoreServer {
    let builder =
        StoreServer::builder(store()).security(Security::open_network()).no_discovery().shards(shards);
    let builder = outbox.into_iter().fold(builder, tillwire::ServerBuilder::outbox);
    let listed = (1..=DEVICES).map(|n| StaticDevice::at((Ipv4Addr::new(127, 9, 1, n), PORT).into()));
    listed.fold(builder, tillwire::ServerBuilder::device).start().await.unwrap()
}

async fn push(server: &StoreServer, orders: usize) {
    let order = Order::new(OrderKind::SHOW_PAGE, 1, &[0x5A; 200]).idempotent();
    for _ in 0..orders {
        let report = server.push(&order, &Target::all()).await.unwrap().settled(SOON).await;
        assert_eq!(report.count(Outcome::APPLIED), usize::from(DEVICES));
    }
    // Several on their way at once.
    let mut fan_outs = Vec::new();
    for _ in 0..orders {
        fan_outs.push(server.push(&order, &Target::all()).await.unwrap());
    }
    for fan_out in fan_outs {
        assert_eq!(fan_out.settled(SOON).await.unsettled(), 0);
    }
}

fn measure(shards: usize, outbox: Option<PathBuf>) -> (Counts, Counts) {
    let devices = serve(devices);
    let server = serve(move || server(shards, outbox));
    let store = &server.started;
    let application = Builder::new_current_thread().enable_all().build().unwrap();
    application.block_on(async {
        while store.devices().await.iter().any(|device| !device.push.connected) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        push(store, 50).await;
    });
    server.warm.send(()).unwrap();
    devices.warm.send(()).unwrap();
    application.block_on(async {
        push(store, 50).await;
        // Long enough for a ping to every device.
        tokio::time::sleep(Duration::from_millis(3_500)).await;
        push(store, 5).await;
    });
    server.done.send(()).unwrap();
    devices.done.send(()).unwrap();
    let counts = (server.counted.recv().unwrap(), devices.counted.recv().unwrap());
    server.end.send(()).unwrap();
    server.thread.join().unwrap();
    devices.end.send(()).unwrap();
    devices.thread.join().unwrap();
    counts
}

#[test]
fn serving_orders_allocates_nothing() {
    for shards in [1, 2] {
        let nothing = <(Counts, Counts)>::default();
        let counted = measure(shards, None);
        assert_eq!(counted, nothing, "{shards} shards: what the server, and the devices, allocated");
        // The thread that writes the outbox serves no sockets.
        let outbox = std::env::temp_dir().join(format!("tillwire-no-alloc-{}", std::process::id()));
        let counted = measure(shards, Some(outbox.clone()));
        let _ = std::fs::remove_dir_all(outbox);
        assert_eq!(counted, nothing, "the same of durable orders");
    }
}
