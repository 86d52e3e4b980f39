//! The memory of devices that are away and are owed orders: a server in a process of its own, whose devices all refuse.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType};
use serde_json::{Value, json};
use tillwire::{Security, StaticDevice, Store, StoreServer, Target};

use super::child::Child;
use super::contestant::CONNECTED_WITHIN;
use super::{machine, order, peers};
use crate::error::{Failure, Outcome, Verdict};
use crate::{out, start};

/// How often is looked whether all devices were dialled.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Memory is looked at this long after something was done.
const SETTLE_FOR: Duration = Duration::from_millis(500);

/// The hidden command.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Args {
    /// Devices, all away.
    #[arg(long)]
    devices: u32,
    /// Devices there is room for.
    #[arg(long)]
    capacity: u32,
    /// Orders they are owed; looked at after as many, and after twice as many.
    #[arg(long)]
    orders: u32,
    /// Bytes of payload.
    #[arg(long)]
    payload: u32,
}

/// How memory grew: with the first orders, and with as many more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Growth {
    first: u64,
    second: u64,
}

impl Growth {
    /// Runs the hidden command and hears what it found.
    pub(super) fn of(devices: u32, capacity: u32, orders: u32, payload: u32) -> Result<Self, Failure> {
        let words = [
            "bench-owed".to_owned(),
            format!("--devices={devices}"),
            format!("--capacity={capacity}"),
            format!("--orders={orders}"),
            format!("--payload={payload}"),
        ];
        let mut child = Child::start(&words)?;
        let line = child.expect("owed")?;
        child.end();
        let number = |name: &str| line.get(name).and_then(Value::as_u64).unwrap_or_default();
        Ok(Self { first: number("first_bytes"), second: number("second_bytes") })
    }

    /// What is not paid per order: what the first orders took beyond what as many more took.
    pub(super) fn besides_records(&self) -> u64 {
        self.first.saturating_sub(self.second)
    }

    /// Bytes of one live record.
    pub(super) fn record(&self, orders: u32) -> f64 {
        self.second as f64 / f64::from(orders.max(1))
    }
}

/// Dials everybody once, then owes.
pub(crate) fn run(args: Args) -> Outcome {
    let refusing =
        refusing().map_err(|error| Failure::broken(format!("no port to refuse on: {error}"), ""))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::broken(format!("no runtime: {error}"), ""))?;
    let looks = runtime.block_on(async {
        let server = serve(args, refusing.1).await?;
        let mut looks = [look().await, 0, 0];
        for look_after in looks.iter_mut().skip(1) {
            owe(&server, args).await?;
            *look_after = look().await;
        }
        server.shutdown().await;
        Ok::<_, Failure>(looks)
    })?;
    let [none, once, twice] = looks;
    out::json(&json!({
        "event": "owed",
        "first_bytes": once.saturating_sub(none),
        "second_bytes": twice.saturating_sub(once),
    }));
    Ok(Verdict::AllRight)
}

/// A bound socket on which nobody listens: whoever dials it is refused.
fn refusing() -> std::io::Result<(rustix::fd::OwnedFd, u16)> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0))?;
    let bound = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
    Ok((socket, bound.port()))
}

/// A server that has dialled every device once, in vain.
async fn serve(args: Args, port: u16) -> Result<StoreServer, Failure> {
    let store = Store::new(1, "BENCH").map_err(|error| Failure::broken(error.to_string(), ""))?;
    let mut builder = StoreServer::builder(store)
        .security(Security::open_network())
        .staging(true)
        .no_discovery()
        .live_orders(usize::try_from(args.orders).unwrap_or(usize::MAX).saturating_mul(2))
        .capacity(usize::try_from(args.capacity).unwrap_or(usize::MAX));
    for index in 0..args.devices {
        let address = peers::address(index);
        let at = StaticDevice::at((address, port).into());
        builder = builder.device(StaticDevice { id: Some(peers::id(address)), ..at });
    }
    let server = builder.start().await.map_err(|error| start::failure(&error))?;
    let deadline = machine::now() + CONNECTED_WITHIN;
    loop {
        let failed = server.stats().await.map_or(0, |stats| stats.push.fleet.dials_failed);
        if failed >= u64::from(args.devices) {
            return Ok(server);
        }
        if machine::now() > deadline {
            return Err(Failure::broken(format!("only {failed} of {} devices refused", args.devices), ""));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// So many orders for everybody, taken in by the server.
async fn owe(server: &StoreServer, args: Args) -> Result<(), Failure> {
    let payload = order::payload(args.payload);
    let order = order::order(&payload);
    for _ in 0..args.orders {
        server
            .push(&order, &Target::all())
            .await
            .map_err(|error| Failure::broken(format!("an order was not accepted: {error}"), ""))?;
    }
    // The answer comes after all that was said before.
    server.stats().await.map(drop).ok_or_else(|| Failure::broken("the server stopped", ""))
}

async fn look() -> u64 {
    tokio::time::sleep(SETTLE_FOR).await;
    machine::proportional_bytes()
}
