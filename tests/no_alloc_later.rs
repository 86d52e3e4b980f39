//! After warm-up a device's task allocates nothing for orders that are completed later, by another thread, with a result.

use std::net::Ipv4Addr;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use testkit::alloc::{Counting, Counts, count};
use tillwire::{
    Delivered, Device, NodeId, Order, OrderKind, Outcome, Security, StaticDevice, Store, StoreServer, Target,
    Ticket, Verdict,
};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SOON: Duration = Duration::from_secs(20);

fn store() -> Store {
    Store::new(1, "PARIS-12").unwrap()
}

/// Tickets on their way to the worker; taken with all its room at the start.
struct Work(Mutex<Vec<Ticket>>, Condvar);

impl Work {
    fn put(&self, ticket: Ticket) {
        self.0.lock().unwrap().push(ticket);
        self.1.notify_one();
    }

    fn take(&self) -> Ticket {
        let waiting = self.0.lock().unwrap();
        self.1.wait_while(waiting, |waiting| waiting.is_empty()).unwrap().pop().unwrap()
    }
}

async fn device(work: Arc<Work>) -> Device {
    let builder = Device::builder(store(), NodeId([5; 16])).security(Security::open_network());
    let builder = builder.bind(Ipv4Addr::new(127, 21, 0, 10)).port(0).no_discovery();
    let handler = move |order: &Delivered<'_>| {
        work.put(order.ticket);
        Verdict::Later
    };
    builder.start(handler).await.unwrap()
}

async fn push(server: &StoreServer, orders: usize) {
    let order = Order::new(OrderKind::PRINT, 1, &[0x5A; 200]).wants_result();
    let mut fan_outs = Vec::new();
    for _ in 0..orders {
        fan_outs.push(server.push(&order, &Target::all()).await.unwrap());
    }
    for fan_out in fan_outs {
        assert_eq!(fan_out.settled(SOON).await.count(Outcome::APPLIED), 1);
    }
}

fn measure() -> Counts {
    let work = Arc::new(Work(Mutex::new(Vec::with_capacity(64)), Condvar::new()));
    let (hand_out, started) = mpsc::channel();
    let (warm, warmed) = oneshot::channel();
    let (done, finished) = oneshot::channel::<()>();
    let tickets = Arc::clone(&work);
    let thread = std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        hand_out.send(runtime.block_on(device(tickets))).unwrap();
        runtime.block_on(warmed).unwrap();
        count(|| runtime.block_on(finished).unwrap())
    });
    let device = started.recv().unwrap();
    let handle = device.handle().clone();
    // Ends with the process: nothing tells it that no order will come any more.
    std::thread::spawn(move || {
        loop {
            let ticket = work.take();
            if handle.complete(ticket, Verdict::Applied, Some(&[7; 300])).is_err() {
                return;
            }
        }
    });
    let application = Builder::new_current_thread().enable_all().build().unwrap();
    application.block_on(async {
        let builder = StoreServer::builder(store()).security(Security::open_network()).no_discovery();
        let server = builder.device(StaticDevice::at(device.address())).start().await.unwrap();
        push(&server, 200).await;
        warm.send(()).unwrap();
        push(&server, 200).await;
        done.send(()).unwrap();
    });
    thread.join().unwrap()
}

/// What allocates per order does so in every run; a buffer that was met at its size for the first time does not.
#[test]
fn orders_completed_later_allocate_nothing() {
    let runs = (0..3).map(|_| measure());
    let seen: Vec<_> = runs.take_while(|run| *run != Counts::default()).collect();
    assert!(seen.len() < 3, "the device's thread allocated: {seen:?}");
}
