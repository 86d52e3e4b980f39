//! One new device beside a server that runs: the library's drivers on both sides, in this process.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::json;
use tillwire::NodeId;
use tillwire::discovery::driver::{Net, OpenError, device, server};
use tillwire::discovery::{DeviceConfig, SeekerEvent, ServerConfig};

use super::super::figures::{Spread, rounded};
use super::super::machine;
use super::node::store;
use super::row::{Budget, Row};
use super::{Args, BROADCAST, Section, micros};
use crate::error::Failure;

/// Stores that are measured beside each other; each waits most of its time.
const STORES: u32 = 10;
/// From its start to the ACK, the median.
const BUDGET_MS: f64 = 600.0;
/// A device that is not registered by then is not right.
const WITHIN: Duration = Duration::from_secs(30);
/// Between two devices of one store: longer than a server keeps its answers apart, and never in step with its beacons.
const APART: (Duration, Duration) = (Duration::from_millis(1_100), Duration::from_millis(1_900));
/// Address of a store's server: 127.57.251.x; of its devices: 127.59.x.y.
const HOSTS: [u8; 2] = [57, 59];

/// Starts devices one after the other, and waits for each.
pub(super) fn single(args: &Args) -> Result<Row, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::broken(format!("no runtime: {error}"), ""))?;
    let times = runtime.block_on(async {
        let stores = STORES.min(args.singles);
        let mut tasks = Vec::new();
        for number in 0..stores {
            let devices = args.singles / stores + u32::from(number < args.singles % stores);
            tasks.push(tokio::spawn(one_store(number, devices)));
        }
        let mut times = Vec::new();
        for task in tasks {
            let found = task.await.map_err(|error| Failure::broken(error.to_string(), ""))?;
            times.extend(found?);
        }
        Ok::<_, Failure>(times)
    })?;
    let right = times.len() == args.singles as usize;
    let worst = times.iter().copied().fold(0.0, f64::max);
    let spread = Spread::of(times);
    Ok(Row {
        section: Section::Single,
        figures: json!({
            "devices": args.singles,
            "registered_ms": rounded(spread.median),
            "registered_ms_quarters": spread.json(),
            "registered_ms_max": rounded(worst),
        }),
        said: format!(
            "{} devices, one at a time: {:.0} ({:.0}-{:.0}) ms until registered, {worst:.0} ms at most",
            args.singles, spread.median, spread.quarter, spread.three_quarters
        ),
        budgets: vec![Budget::new("registered_ms", spread.median, BUDGET_MS)],
        right,
        pinned: true,
    })
}

/// Each store has a port of its own, so none hears another's broadcasts.
fn net(bind: Ipv4Addr, port: u16) -> Net {
    Net { bind: Some(bind), broadcast: Some(BROADCAST), port, ..Net::default() }
}

/// How long each of these devices took, in ms.
async fn one_store(number: u32, devices: u32) -> Result<Vec<f64>, Failure> {
    let [.., last] = number.to_be_bytes();
    let at = Ipv4Addr::new(127, HOSTS[0], 251, last + 1);
    let port = std::net::UdpSocket::bind((at, 0)).and_then(|socket| socket.local_addr());
    let port = port.map_err(|error| Failure::broken(format!("no port at {at}: {error}"), ""))?.port();
    let failed = |error: OpenError| Failure::broken(error.to_string(), "is the loopback interface up?");
    let config = ServerConfig::new(NodeId([0xEE; 16]), store()?);
    let mut server = server::spawn(net(at, port), config, 64, u64::from(number)).map_err(failed)?;
    let mut times = Vec::new();
    let mut rng = wire_format::rng::Rng::new(micros(machine::now()) ^ u64::from(number));
    for turn in 0..devices {
        let pause = tokio::time::sleep(rng.between(APART.0, APART.1));
        tokio::pin!(pause);
        // The server's application is there meanwhile.
        while tokio::select! { () = &mut pause => false, _told = server.next_event() => true } {}
        let bind = Ipv4Addr::new(127, HOSTS[1], last, u8::try_from(turn % 250).unwrap_or_default() + 1);
        let mut id = *b"single-device-00";
        id[14..].copy_from_slice(&u16::try_from(turn).unwrap_or_default().to_be_bytes());
        let begun = machine::now();
        let config = DeviceConfig::new(NodeId(id), store()?);
        let mut device = device::spawn(net(bind, port), config, rng.next_u64()).map_err(failed)?;
        let registered = async {
            while let Some(told) = device.next_event().await {
                if matches!(told.event, SeekerEvent::Registered { .. }) {
                    return true;
                }
            }
            false
        };
        if tokio::time::timeout(WITHIN, registered).await == Ok(true) {
            times.push((machine::now() - begun).as_secs_f64() * 1e3);
        }
        device.shutdown().await;
    }
    server.shutdown().await;
    Ok(times)
}
