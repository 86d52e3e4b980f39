//! What a store server offers beyond one push, over real sockets on loopback.

mod durable;
mod durable_rollouts;
mod fan_out;
mod payloads;
mod restart;
mod retries;
mod rollouts;
mod shards;
mod talk;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tillwire::{
    Delivered, Device, DeviceBuilder, NodeId, Security, ServerBuilder, StaticDevice, Store, StoreServer,
    Verdict,
};

const SOON: Duration = Duration::from_secs(15);

fn store() -> Store {
    Store::new(1, "PARIS-12").unwrap()
}

fn id(n: u8) -> NodeId {
    NodeId([n; 16])
}

/// A network of its own for each test: 127.20.`test`.n.
#[derive(Clone, Copy)]
struct Lan {
    test: u8,
    port: u16,
}

/// Ports differ by process, so that two runs of the tests do not meet.
fn lan(test: u8) -> Lan {
    Lan { test, port: 23_000 + u16::try_from(std::process::id() % 8_000).unwrap() }
}

impl Lan {
    fn at(self, n: u8) -> SocketAddr {
        (Ipv4Addr::new(127, 20, self.test, n), self.port).into()
    }

    fn device(self, n: u8) -> DeviceBuilder {
        Device::builder(store(), id(n))
            .security(Security::open_network())
            .bind(Ipv4Addr::new(127, 20, self.test, n))
            .port(self.port)
            .no_discovery()
    }

    /// Device `n`, listed with its id.
    fn listed(self, n: u8) -> StaticDevice {
        StaticDevice { id: Some(id(n)), ..StaticDevice::at(self.at(n)) }
    }

    /// Devices that apply everything.
    async fn devices(self, numbers: impl IntoIterator<Item = u8>) -> Vec<Device> {
        let mut devices = Vec::new();
        for n in numbers {
            devices.push(self.device(n).start(apply).await.unwrap());
        }
        devices
    }

    /// A server that lists these devices.
    fn server(self, numbers: impl IntoIterator<Item = u8>) -> ServerBuilder {
        let builder = StoreServer::builder(store()).security(Security::open_network()).no_discovery();
        numbers.into_iter().map(|n| self.listed(n)).fold(builder, ServerBuilder::device)
    }
}

fn apply(_: &Delivered<'_>) -> Verdict {
    Verdict::Applied
}

async fn connected(server: &StoreServer, count: usize) {
    let all = async {
        while server.devices().await.iter().filter(|device| device.push.connected).count() < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, all).await.expect("every device connects");
}
