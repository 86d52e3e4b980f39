//! The contestant `tillwire`: a store server as an application runs it, on one thread with a runtime of its own.

use std::time::Duration;

use tillwire::{Outcome, Security, StaticDevice, Store, StoreServer, Target};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::UnboundedReceiver;

use super::contestant::{CONNECTED_WITHIN, Contestant, ROUND_WITHIN, Task};
use super::{machine, order, peers};
use crate::error::Failure;
use crate::start;

/// How often is looked whether all devices are connected.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The connected server.
#[derive(Debug)]
pub(super) struct Tillwire {
    runtime: Runtime,
    server: StoreServer,
    target: Target,
    payload: Vec<u8>,
}

impl Tillwire {
    /// Starts the server with every device by address and waits until all are connected.
    pub(super) fn connect(task: Task, store: Store) -> Result<Self, Failure> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::broken(format!("no runtime: {error}"), ""))?;
        let server = runtime.block_on(async {
            let builder = StoreServer::builder(store)
                .security(Security::open_network())
                .staging(true)
                .no_discovery()
                .capacity(usize::try_from(task.devices).unwrap_or(usize::MAX));
            let server =
                (0..task.devices).fold(builder, |builder, index| builder.device(device(index, task.port)));
            let server = server.start().await.map_err(|error| start::failure(&error))?;
            connected(&server, task.devices).await?;
            Ok(server)
        })?;
        Ok(Self { runtime, server, target: Target::all(), payload: order::payload(task.payload) })
    }
}

fn device(index: u32, port: u16) -> StaticDevice {
    let address = peers::address(index);
    StaticDevice { id: Some(peers::id(address)), ..StaticDevice::at((address, port).into()) }
}

async fn connected(server: &StoreServer, devices: u32) -> Result<(), Failure> {
    let deadline = machine::now() + CONNECTED_WITHIN;
    loop {
        let connected = server.stats().await.map_or(0, |stats| stats.push.connected);
        if connected == usize::try_from(devices).unwrap_or(usize::MAX) {
            return Ok(());
        }
        if machine::now() > deadline {
            return Err(Failure::broken(format!("only {connected} of {devices} devices connected"), ""));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Contestant for Tillwire {
    fn wait(&mut self, told: &mut UnboundedReceiver<()>) -> Option<()> {
        self.runtime.block_on(told.recv())
    }

    fn round(&mut self) -> Result<u32, Failure> {
        let report = self.runtime.block_on(async {
            let order = order::order(&self.payload);
            let fan_out = self.server.push(&order, &self.target).await?;
            Ok(fan_out.settled(ROUND_WITHIN).await)
        });
        let report = report.map_err(|error: tillwire::PushError| {
            Failure::broken(format!("an order was not accepted: {error}"), "")
        })?;
        Ok(u32::try_from(report.count(Outcome::APPLIED)).unwrap_or(u32::MAX))
    }

    fn rest(&mut self, span: Duration) {
        self.runtime.block_on(async { tokio::time::sleep(span).await });
    }

    fn end(self: Box<Self>) {
        let Self { runtime, server, .. } = *self;
        runtime.block_on(server.shutdown());
    }
}
