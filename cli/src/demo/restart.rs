//! What survives: a server with an outbox that goes in the middle of its work and is started again, and devices with journals
//! that are restarted meanwhile.
//!
//! Half of the devices are switched on, and orders go to all of them. The server is dropped as a crash would drop it, every device
//! that was on is started again from its journal, and the server from its outbox. Then the other half is switched on. Each
//! device must have been handed each order once, and the server that never pushed them must report them all.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tillwire::{
    Delivered, Device, FanOut, NodeId, Order, OrderKind, Outcome, Security, StartError, StaticDevice,
    StoreServer, Target, Verdict,
};
use tokio::time::Instant;

use super::orders::{Deadline, refused};
use super::progress::Progress;
use super::{Args, plan};
use crate::error::Failure;
use crate::start;

/// Devices of this part, if the demo has as many.
const DEVICES_MAX: u32 = 20;
/// Orders pushed before the server goes.
const ORDERS: u64 = 10;
/// Not idempotent: it must not run twice.
const KIND: OrderKind = OrderKind(0x80DA);
/// How long a lock is waited for that the server before held, and how often is looked.
const UNLOCK_WITHIN: Duration = Duration::from_secs(5);
const LOOK_AFTER: Duration = Duration::from_millis(2);

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Survived {
    devices: usize,
    /// Devices started again from their journals.
    rebooted: usize,
    /// Orders the outbox had when the server was started again.
    orders: usize,
    /// (order, device) pairs without an outcome when the server went.
    owed: usize,
    /// Pairs that took effect, by the server's report at the end.
    applied: usize,
    /// Pairs a device was handed twice, or never.
    wrong: usize,
    /// Orders pushed again under their keys and answered with the first push.
    answered: usize,
    took: Duration,
}

impl Survived {
    /// As many pairs as there are, each once.
    pub(super) const fn is_right(&self) -> bool {
        let pairs = self.devices * ORDERS as usize;
        self.applied == pairs && self.wrong == 0 && self.answered == ORDERS as usize && self.owed > 0
    }

    pub(super) fn json(&self) -> Value {
        let Self { devices, rebooted, orders, owed, applied, wrong, answered, took } = *self;
        json!({
            "devices": devices, "rebooted": rebooted, "orders": orders, "owed": owed, "applied": applied, "wrong": wrong,
            "answered": answered, "elapsed_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// For a table: what, and how many.
    pub(super) fn rows(&self) -> [(&'static str, String); 5] {
        [
            ("orders on disk when it was started again", format!("{} of {ORDERS}", self.orders)),
            ("pairs owed over the restart", self.owed.to_string()),
            (
                "devices restarted meanwhile, from their journals",
                format!("{} of {}", self.rebooted, self.devices),
            ),
            ("pairs applied, each once", format!("{} of {}", self.applied, self.devices * ORDERS as usize)),
            ("pushed again under its key: the first push answers", format!("{} of {ORDERS}", self.answered)),
        ]
    }
}

/// A directory that goes with the demo.
#[derive(Debug)]
struct Place(PathBuf);

impl Place {
    fn make(port: u16) -> Result<Self, Failure> {
        let name = format!("tillwire-demo-{}-{port}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let made = std::fs::create_dir(&path);
        made.map_err(|error| {
            Failure::start(
                format!("cannot make {}: {error}", path.display()),
                "set TMPDIR to a directory with room",
            )
        })?;
        Ok(Self(path))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What cannot be removed is in the system's directory for such files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A device and what its application was handed: keys of orders.
struct Switched {
    at: u32,
    handed: Arc<Mutex<Vec<u64>>>,
    device: Option<Device>,
}

impl Switched {
    fn new(at: u32) -> Self {
        Self { at, handed: Arc::default(), device: None }
    }

    fn id(&self) -> NodeId {
        plan::Spec::new(plan::DEVICES_MAX + self.at, 0).id
    }

    fn address(&self) -> Ipv4Addr {
        plan::Spec::new(plan::DEVICES_MAX + self.at, 0).address
    }

    async fn switch_on(&mut self, args: Args, place: &Path) -> Result<(), Failure> {
        let store = plan::store().ok_or_else(|| Failure::start("the demo's store has no name", ""))?;
        let handed = Arc::clone(&self.handed);
        let apply = move |delivered: &Delivered<'_>| {
            handed.lock().unwrap_or_else(PoisonError::into_inner).push(delivered.order.order_key);
            Verdict::Applied
        };
        let device = Device::builder(store, self.id())
            .security(Security::open_network())
            .staging(true)
            .bind(self.address())
            .port(args.port_push)
            .no_discovery()
            .journal(place.join(format!("device-{}", self.at)))
            .start(apply);
        self.device = Some(device.await.map_err(|error| start::failure(&error))?);
        Ok(())
    }

    /// Waits until it was handed every order. What it answered is in its journal when it can be switched off.
    async fn has_all(&self, deadline: Deadline) -> Result<(), Failure> {
        while self.handed().len() < ORDERS as usize {
            if deadline.left().is_zero() {
                let had = self.handed().len();
                return Err(Failure::broken(
                    format!("a device of the restart was handed {had} of {ORDERS} orders in time"),
                    "this machine is too busy, or its disk too slow: TMPDIR may name a faster one",
                ));
            }
            tokio::time::sleep(LOOK_AFTER).await;
        }
        Ok(())
    }

    fn handed(&self) -> MutexGuard<'_, Vec<u64>> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn switch_off(&mut self) {
        if let Some(device) = self.device.take() {
            device.shutdown().await;
        }
    }

    /// Orders it was not handed exactly once.
    fn wrong(&self) -> usize {
        let handed = self.handed();
        let times = |key: u64| handed.iter().filter(|&&other| other == key).count();
        (1..=ORDERS).filter(|&key| times(key) != 1).count()
    }
}

/// A server from the outbox, once the one before has let go of it.
async fn serve(args: Args, place: &Path, devices: &[Switched]) -> Result<StoreServer, Failure> {
    let store = plan::store().ok_or_else(|| Failure::start("the demo's store has no name", ""))?;
    let mut builder = StoreServer::builder(store)
        .security(Security::open_network())
        .staging(true)
        .name("demo")
        .bind(plan::SERVER)
        .no_discovery()
        .outbox(place.join("outbox"));
    for device in devices {
        let address = SocketAddr::from((device.address(), args.port_push));
        builder = builder.device(StaticDevice { id: Some(device.id()), ..StaticDevice::at(address) });
    }
    let since = Instant::now();
    loop {
        match builder.clone().start().await {
            Err(StartError::OutboxDirectory { .. }) if since.elapsed() < UNLOCK_WITHIN => {
                tokio::time::sleep(LOOK_AFTER).await;
            }
            started => return started.map_err(|error| start::failure(&error)),
        }
    }
}

fn order(key: u64) -> Order<'static> {
    Order::new(KIND, 0, b"an order that must not run twice").key_number(key)
}

/// Plays it.
pub(super) async fn play(args: Args) -> Result<Survived, Failure> {
    let (begun, place) = (Instant::now(), Place::make(args.port_push)?);
    let progress = Progress::start(ORDERS as usize, "orders settled over a restart");
    let path = &place.0;
    let mut devices: Vec<_> = (0..args.devices.clamp(2, DEVICES_MAX)).map(Switched::new).collect();
    let on = devices.len() / 2;
    for device in devices.iter_mut().take(on) {
        device.switch_on(args, path).await?;
    }
    let server = serve(args, path, &devices).await?;
    let mut pushed = Vec::new();
    for key in 1..=ORDERS {
        let fan_out =
            server.push(&order(key), &Target::all()).await.map_err(|error| refused(&error.to_string()))?;
        pushed.push(fan_out);
    }
    // What the devices did is not all known to the server that goes: they tell the next one.
    let deadline = Deadline::begin();
    for device in devices.iter().take(on) {
        device.has_all(deadline).await?;
    }
    let owed = pushed.iter().map(|fan_out| fan_out.targets() - fan_out.ended()).sum();
    let numbers: Vec<_> = pushed.iter().map(FanOut::number).collect();
    drop((pushed, server));
    for device in devices.iter_mut().take(on) {
        device.switch_off().await;
        device.switch_on(args, path).await?;
    }
    let server = serve(args, path, &devices).await?;
    let orders = server.recovered().map_or(0, |found| found.orders.len());
    for device in devices.iter_mut().skip(on) {
        device.switch_on(args, path).await?;
    }
    let (mut applied, mut answered, deadline) = (0, 0, Deadline::begin());
    for (key, number) in (1..=ORDERS).zip(&numbers) {
        let fan_out =
            server.push(&order(key), &Target::all()).await.map_err(|error| refused(&error.to_string()))?;
        answered += usize::from(fan_out.number() == *number);
        applied += fan_out.settled(deadline.left()).await.count(Outcome::APPLIED);
        progress.inc();
    }
    server.shutdown().await;
    for device in &mut devices {
        device.switch_off().await;
    }
    let wrong = devices.iter().map(Switched::wrong).sum();
    let (devices, took) = (devices.len(), begun.elapsed());
    Ok(Survived { devices, rebooted: on, orders, owed, applied, wrong, answered, took })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_being_wrong_is_found() {
        let pairs = 20 * ORDERS as usize;
        let right = Survived {
            devices: 20,
            owed: 100,
            applied: pairs,
            answered: ORDERS as usize,
            ..Survived::default()
        };
        assert!(right.is_right());
        for wrong in [
            Survived { applied: pairs - 1, ..right },
            Survived { wrong: 1, ..right },
            Survived { answered: 9, ..right },
            Survived { owed: 0, ..right },
        ] {
            assert!(!wrong.is_right(), "{wrong:?}");
        }
    }
}
