//! The server that is measured, in a process of its own: the library's driver with its events read, or the hand-written
//! loop. It does what it is told line by line, and looks at itself when it is asked.
//!
//! | line | what it does | what it says |
//! | --- | --- | --- |
//! | `up EXPECTED RATE` | starts a server that knows nobody; one that runs is dropped as by a crash | `up`: when |
//! | `link` | says that a push session with every device is healthy | `linked` |
//! | `look` | nothing | `look`: CPU since `up`, memory, counters |

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::farm;
use tillwire::discovery::ServerConfig;
use tillwire::discovery::auth::ServerKeys;
use tillwire::discovery::driver::server::{self, ServerDriver, Start};
use tillwire::discovery::driver::{Net, OpenErrorKind};
use tillwire::{NodeId, Store};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::super::{contestant::Who, machine};
use super::raw::Raw;
use super::{BROADCAST, micros};
use crate::error::{Failure, Outcome, Verdict};
use crate::out;

/// A dropped server has freed its port within this time.
const FREE_WITHIN: Duration = Duration::from_secs(2);

/// The hidden command.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Args {
    #[arg(long)]
    who: Who,
    /// Where it listens.
    #[arg(long)]
    pub(super) at: SocketAddrV4,
    /// Devices there is room for.
    #[arg(long)]
    pub(super) capacity: u32,
    /// Bytes of receive queue asked for.
    #[arg(long)]
    pub(super) buffer: usize,
    /// Authenticated mode.
    #[arg(long)]
    auth: bool,
    /// Run on this core.
    #[arg(long)]
    core: Option<usize>,
}

#[cfg(test)]
impl Args {
    pub(super) const fn for_test(at: SocketAddrV4, capacity: u32) -> Self {
        Self { who: Who::RawEpoll, at, capacity, buffer: 4 << 20, auth: false, core: None }
    }
}

/// Does what its input says until that ends.
pub(crate) fn run(args: Args) -> Outcome {
    let pinned = args.core.is_some_and(machine::pin);
    let store = store()?;
    out::json(&json!({"event": "ready", "pinned": pinned}));
    if args.who == Who::RawEpoll {
        return Raw::serve(args, store);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::broken(format!("no runtime: {error}"), ""))?;
    let mut told = lines();
    runtime.block_on(async {
        let mut node = Node { args, store, driver: None, cpu: Duration::ZERO };
        loop {
            tokio::select! {
                biased;
                line = told.recv() => match line {
                    Some(line) => out::json(&node.obey(&line).await?),
                    None => return Ok(Verdict::AllRight),
                },
                () = events(&mut node.driver) => {}
            }
        }
    })
}

/// The store of the benchmark.
pub(super) fn store() -> Result<Store, Failure> {
    Store::new(1, "BENCH").map_err(|error| Failure::broken(error.to_string(), ""))
}

/// Its events are read, as an application reads them.
async fn events(driver: &mut Option<ServerDriver>) {
    match driver {
        Some(driver) => drop(driver.next_event().await),
        None => core::future::pending().await,
    }
}

struct Node {
    args: Args,
    store: Store,
    driver: Option<ServerDriver>,
    /// What this thread had of a CPU when the server came up.
    cpu: Duration,
}

impl Node {
    async fn obey(&mut self, line: &str) -> Result<Value, Failure> {
        let mut words = line.split(' ');
        let what = words.next().unwrap_or_default();
        let mut number = || words.next().and_then(|word| word.parse::<u32>().ok()).unwrap_or_default();
        match what {
            "up" => self.up(number(), number()).await,
            "link" => self.link().await,
            _ => self.look().await,
        }
    }

    async fn up(&mut self, expected: u32, rate: u32) -> Result<Value, Failure> {
        drop(self.driver.take());
        let config = ServerConfig {
            expected_devices: expected,
            rate_per_s: rate,
            ..ServerConfig::new(NodeId([0xEE; 16]), self.store)
        };
        let Args { at, capacity, buffer, .. } = self.args;
        let net = Net {
            bind: Some(*at.ip()),
            broadcast: Some(BROADCAST),
            port: at.port(),
            receive_buffer_bytes: buffer,
            ..Net::default()
        };
        let mut start = Start::new(config, capacity as usize, 0);
        start.keys = self.args.auth.then(|| ServerKeys {
            announce: farm::server_keys(capacity, self.store),
            beacon: farm::beacon_keys(),
        });
        let begun = machine::now();
        let driver = loop {
            // Another epoch at each start.
            start.seed = micros(machine::now());
            match server::spawn_with(net.clone(), start.clone()) {
                Ok(driver) => break driver,
                Err(error)
                    if error.kind() == OpenErrorKind::PortInUse && machine::now() - begun < FREE_WITHIN =>
                {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(error) => return Err(Failure::broken(error.to_string(), "is the port in use?")),
            }
        };
        self.driver = Some(driver);
        self.cpu = machine::thread_cpu();
        Ok(json!({"event": "up", "at_us": micros(machine::now())}))
    }

    async fn link(&self) -> Result<Value, Failure> {
        let handle = self.driver()?.handle();
        for device in handle.devices().await {
            handle.set_linked(device.id, true).await;
        }
        Ok(json!({"event": "linked"}))
    }

    async fn look(&self) -> Result<Value, Failure> {
        let cpu = machine::thread_cpu() - self.cpu;
        let stats = self.driver()?.handle().stats().await;
        let stats = stats.ok_or_else(|| Failure::broken("the server has ended", ""))?;
        let (net, protocol) = (stats.net, stats.protocol);
        Ok(json!({
            "event": "look",
            "cpu_ns": u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX),
            "resident_bytes": machine::resident_bytes(),
            "devices": stats.devices,
            "received": net.received,
            "received_bytes": protocol.received_bytes,
            "sent": protocol.sent,
            "sent_bytes": protocol.sent_bytes,
            "sent_beacon": protocol.sent_beacon,
            "send_errors": net.send_errors,
            "receive_buffer_bytes": net.receive_buffer_bytes,
        }))
    }

    fn driver(&self) -> Result<&ServerDriver, Failure> {
        self.driver.as_ref().ok_or_else(|| Failure::broken("no server is up", ""))
    }
}

/// Each line of input, read on a thread that does nothing else.
fn lines() -> UnboundedReceiver<String> {
    let (tell, told) = unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    told
}

/// The address servers of the benchmark have: 127.57.250.1.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 57, 250, 1);
