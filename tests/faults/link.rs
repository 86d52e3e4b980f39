//! A server and a device with a proxy between them, which does something to the first connection.

use std::net::SocketAddr;
use std::sync::Arc;

use push::driver::device::Event as Served;
use push::ended::Ended;
use testkit::proxy::{Plan, Proxy};
use tillwire::{Delivered, Device, DeviceEvent, Order, Outcome, ServerEvent, StoreServer, Verdict};
use tokio::sync::broadcast::Receiver;
use tokio::time::timeout;

use super::judge::{Deed, Judge};
use super::{SOON, at, device, eventually, listed, next_end, proxy, server};

/// A server and a device with a proxy between them.
pub(crate) struct Link {
    pub(crate) plan: Plan,
    pub(crate) judge: Arc<Judge>,
    pub(crate) server: StoreServer,
    pub(crate) device: Device,
    pub(crate) proxy: Proxy,
    pub(crate) server_events: Receiver<ServerEvent>,
    device_events: Receiver<DeviceEvent>,
}

impl Link {
    pub(crate) async fn start(plan: Plan) -> Self {
        let judge = Judge::new();
        let device = device(1).start(judge.apply(1)).await.unwrap();
        let device_events = device.subscribe();
        let proxy = proxy(device.address(), plan).await;
        let server = server().device(listed(1, proxy.address())).start().await.unwrap();
        let server_events = server.subscribe();
        Self { plan, judge, server, device, proxy, server_events, device_events }
    }

    /// Pushes an order with a payload of `len` bytes.
    pub(crate) async fn push(&self, make: impl Fn(&[u8]) -> Order<'_>, len: usize) -> Arc<Deed> {
        self.judge.push(&self.server, 1, make, len, &[1]).await
    }

    /// Waits for the first connection and sets what happens to those after it; then for the end of its session.
    pub(crate) async fn hit(&mut self, next: Plan) -> Ended {
        let plan = self.plan;
        let proxy = &self.proxy;
        eventually(&format!("{plan:?}: no connection"), async || proxy.accepted() > 0).await;
        proxy.set_plan(next);
        let ended = timeout(SOON, next_end(&mut self.server_events)).await;
        ended.unwrap_or_else(|_| panic!("{plan:?}: no end")).1
    }

    /// Switches the device off without a goodbye and on again at its address.
    pub(crate) async fn boot(&mut self) {
        let address = self.device.address();
        let SocketAddr::V4(v4) = address else { panic!("{address}") };
        let again = || at(1, *v4.ip()).port(address.port());
        // Another device takes its place until its port is free.
        self.device = device(1).start(|_: &Delivered<'_>| Verdict::RejectedKind).await.unwrap();
        eventually("the port is free again", async || match again().start(self.judge.apply(1)).await {
            Ok(device) => {
                self.device = device;
                true
            }
            Err(_) => false,
        })
        .await;
    }

    /// Why the device closed a connection.
    pub(crate) async fn device_closed(&mut self) -> Ended {
        let closed = timeout(SOON, async {
            loop {
                if let DeviceEvent::Session(Served::Closed { why, .. }) =
                    self.device_events.recv().await.unwrap()
                {
                    return why;
                }
            }
        });
        closed.await.unwrap_or_else(|_| panic!("{:?}: the device closed nothing", self.plan))
    }

    /// Every order that was pushed, and no other, was handed over once and ended once, as applied.
    pub(crate) async fn all_applied_once(&self) {
        self.judge.note(format!("{:?}", self.plan));
        self.judge.all_applied_once(SOON).await;
        let stats = self.server.stats().await.unwrap().push;
        let applied = stats.fleet.outcomes.of(Outcome::APPLIED);
        let pushed = self.judge.pushed() as u64;
        assert_eq!((applied, stats.live_orders), (pushed, 0), "{:?}", self.plan);
    }
}
