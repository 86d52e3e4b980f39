//! A server or a device of the facade on a host: on a thread of its own that sees the host's network.

use std::future::Future;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use push::driver::server::Event as Session;
use testkit::netns::Lan;
use tillwire::{
    Delivered, Device, DeviceBuilder, NodeId, Order, OrderKind, Outcome, Security, ServerBuilder,
    ServerEvent, StartError, Store, StoreServer, Target, Verdict,
};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::oneshot;

/// For what has to happen but not by a certain time.
pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) fn id(n: u8) -> NodeId {
    NodeId([n; 16])
}

fn store() -> Store {
    Store::new(7, "LYON-01").unwrap()
}

pub(crate) fn server() -> ServerBuilder {
    StoreServer::builder(store()).security(Security::open_network()).server_id(id(200)).capacity(16)
}

pub(crate) fn device(n: u8) -> DeviceBuilder {
    Device::builder(store(), id(n)).security(Security::open_network())
}

#[expect(clippy::disallowed_methods, reason = "the tests of a driver measure real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the network of the test needs real time to change")]
pub(crate) fn sleep(span: Duration) {
    std::thread::sleep(span);
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let asked = now();
    while !so() {
        assert!(asked.elapsed() < SOON, "waited in vain: {what}");
        sleep(Duration::from_millis(20));
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// The thread of a node. Dropped, the node ends at once and without a goodbye.
struct Thread {
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Thread {
    /// Runs `body` on a host until this is dropped; gives what it says when it has started.
    fn start<T, F>(
        lan: &Lan,
        host: &str,
        body: impl FnOnce(Sender<T>, oneshot::Receiver<()>) -> F + Send + 'static,
    ) -> (Self, T)
    where
        T: Send + 'static,
        F: Future<Output = ()>,
    {
        let (say, started) = channel();
        let (end, ended) = oneshot::channel();
        let thread = lan.spawn(host, move || runtime().block_on(body(say, ended)));
        let thread = Self { end: Some(end), thread: Some(thread) };
        (thread, started.recv_timeout(SOON).expect("the node starts"))
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the node panicked");
        }
    }
}

/// A program that another test is just starting holds a copy of every open file until it has begun: a port that was
/// closed may be in use for that long.
async fn started<T>(mut start: impl AsyncFnMut() -> Result<T, StartError>) -> T {
    let asked = now();
    loop {
        match start().await {
            Ok(node) => return node,
            Err(error) if asked.elapsed() > SOON => panic!("{error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// A store server on a host, and what it told.
pub(crate) struct Serving {
    pub(crate) server: Arc<StoreServer>,
    told: Arc<Mutex<Vec<String>>>,
    _thread: Thread,
}

pub(crate) fn serve(lan: &Lan, host: &str, builder: ServerBuilder) -> Serving {
    let told = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&told);
    let (thread, server) = Thread::start(lan, host, async move |say, end| {
        let server = Arc::new(started(|| builder.clone().start()).await);
        let mut events = server.subscribe();
        say.send(server).expect("the test waits");
        let listen = async {
            loop {
                match events.recv().await {
                    Ok(event) => lines.lock().unwrap().extend(line(&event)),
                    Err(RecvError::Lagged(missed)) => panic!("{missed} events came too fast"),
                    Err(RecvError::Closed) => return,
                }
            }
        };
        tokio::select! {
            () = listen => {}
            _ = end => {}
        }
    });
    Serving { server, told, _thread: thread }
}

fn line(event: &ServerEvent) -> Option<String> {
    match event {
        ServerEvent::Roster(told) => {
            let event = &told.event;
            Some(format!("{} {} {:?}", event.id.0[0], event.address, event.what))
        }
        ServerEvent::Session(Session::Connected { id, address, .. }) => {
            Some(format!("{} {address} connected", id.0[0]))
        }
        ServerEvent::Session(Session::Disconnected { id: Some(id), address: Some(address), .. }) => {
            Some(format!("{} {address} disconnected", id.0[0]))
        }
        _ => None,
    }
}

impl Serving {
    /// Waits until it has told something that begins so.
    pub(crate) fn says(&self, start: &str) {
        let asked = now();
        while !self.told.lock().unwrap().iter().any(|line| line.starts_with(start)) {
            assert!(asked.elapsed() < SOON, "not {start:?}, but {:#?}", self.told.lock().unwrap());
            sleep(Duration::from_millis(20));
        }
    }

    /// Everything it has told so far.
    pub(crate) fn said(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }

    /// Pushes an order to some devices and waits until each has applied it.
    pub(crate) fn applied(&self, payload: &[u8], to: &[u8]) {
        let order = Order::new(OrderKind::SHOW_PAGE, 1, payload).idempotent().lifetime(SOON * 4);
        let target = Target::ids(to.iter().copied().map(id));
        let report = runtime().block_on(async {
            self.server.push(&order, &target).await.expect("accepted").settled(SOON).await
        });
        assert_eq!(report.count(Outcome::APPLIED), to.len(), "{report:?}; {:#?}", self.said());
    }
}

/// A device on a host, and the payloads of the orders it applied.
pub(crate) struct Till {
    orders: Arc<Mutex<Vec<Vec<u8>>>>,
    _thread: Thread,
}

pub(crate) fn till(lan: &Lan, host: &str, builder: DeviceBuilder) -> Till {
    let orders = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&orders);
    let (thread, ()) = Thread::start(lan, host, async move |say, end| {
        let _device = started(|| {
            let seen = Arc::clone(&seen);
            builder.clone().start(move |delivered: &Delivered<'_>| {
                seen.lock().unwrap().push(delivered.order.payload.to_vec());
                Verdict::Applied
            })
        })
        .await;
        say.send(()).expect("the test waits");
        let _ended = end.await;
    });
    Till { orders, _thread: thread }
}

impl Till {
    pub(crate) fn orders(&self) -> Vec<Vec<u8>> {
        self.orders.lock().unwrap().clone()
    }
}
