//! Both drivers on real sockets, under keys: who has them is found, who has not gets no answer.

use core::net::Ipv4Addr;
use core::time::Duration;

use discovery::auth::{DeviceKeys, Key, KeyRing, ServerKeys};
use discovery::driver::Net;
use discovery::driver::device::{self, DeviceDriver};
use discovery::driver::server::{self, ServerDriver};
use discovery::{DeviceConfig, SeekerEvent, ServerConfig, What};
use tokio::time::timeout;
use wire_format::ids::{NodeId, Store};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
const EVERYBODY: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);
const PORT: u16 = 41_161;

fn net(number: u8) -> Net {
    let bind = Some(Ipv4Addr::new(127, 61, 16, number));
    Net { bind, broadcast: Some(EVERYBODY), port: PORT, ..Net::default() }
}

fn id(number: u8) -> NodeId {
    NodeId([number; 16])
}

fn store() -> Store {
    Store::new(7, "LYON-16").unwrap()
}

/// The ring of whoever this is: one key with this number.
fn ring(owner: u8, key_id: u16) -> KeyRing {
    let mut bytes = [owner; 32];
    bytes[..2].copy_from_slice(&key_id.to_le_bytes());
    KeyRing::new(key_id, Key::new(bytes))
}

fn device_at(number: u8, keys: Option<KeyRing>) -> DeviceDriver {
    let config = DeviceConfig::new(id(number), store());
    let mut start = device::Start::new(config, u64::from(number));
    start.keys = keys.map(|announce| DeviceKeys { announce, beacon: ring(0xBE, 1) });
    device::spawn_with(net(number), start).unwrap()
}

async fn says(server: &mut ServerDriver, number: u8, wanted: What) {
    let search = async {
        loop {
            let told = server.next_event().await.expect("the server runs").event;
            assert!(told.id == id(1) || told.id == id(4), "a stranger got in: {told:?}");
            if (told.id, told.what) == (id(number), wanted) {
                return;
            }
        }
    };
    timeout(PATIENCE, search).await.expect("the server says so in time");
}

async fn registered(device: &mut DeviceDriver) {
    let search = async {
        while !matches!(
            device.next_event().await.expect("the device runs").event,
            SeekerEvent::Registered { .. }
        ) {}
    };
    timeout(PATIENCE, search).await.expect("the device registers in time");
}

/// Waits until a counter of the server's is above zero.
async fn counted(server: &ServerDriver, counter: impl Fn(&discovery::Stats) -> u64) {
    let search = async {
        while counter(&server.handle().stats().await.expect("the server runs").protocol) == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, search).await.expect("it is counted in time");
}

#[tokio::test]
async fn keys_decide_who_is_found_and_may_change_while_everybody_runs() {
    let announce = [(id(1), ring(1, 1)), (id(2), ring(2, 1))].into_iter().collect();
    let config = ServerConfig::new(id(0xEE), store());
    let mut start = server::Start::new(config, 16, 1);
    start.keys = Some(ServerKeys { announce, beacon: ring(0xBE, 1) });
    let mut server = server::spawn_with(net(200), start).unwrap();
    let (mut good, wrong) = (device_at(1, Some(ring(1, 1))), device_at(2, Some(ring(9, 1))));
    let (_without, mut later) = (device_at(3, None), device_at(4, Some(ring(4, 1))));
    says(&mut server, 1, What::Joined).await;
    registered(&mut good).await;
    counted(&server, |stats| stats.dropped_wrong_tag).await;
    counted(&server, |stats| stats.dropped_no_tag).await;
    counted(&server, |stats| stats.dropped_unknown_device).await;
    let stats = server.handle().stats().await.unwrap();
    assert_eq!((stats.devices, stats.protocol.received_auth_unverified), (1, 0));
    assert_eq!(wrong.handle().server().await.map(|server| server.registered), Some(false));
    // One is enrolled while everybody runs, one rotates its key, one is thrown out.
    server.handle().set_device_keys(id(4), ring(4, 1)).await;
    says(&mut server, 4, What::Joined).await;
    registered(&mut later).await;
    let rotated = ring(4, 2).with_previous(1, ring(4, 1).current().clone()).unwrap();
    server.handle().set_device_keys(id(4), rotated.clone()).await;
    later.handle().set_keys(DeviceKeys { announce: rotated, beacon: ring(0xBE, 1) }).await;
    later.handle().reconfigure(DeviceConfig { zone: Some(5), ..DeviceConfig::new(id(4), store()) }).await;
    says(&mut server, 4, What::Changed { fields: discovery::Fields::ZONE }).await;
    server.handle().revoke(id(1)).await;
    says(&mut server, 1, What::Lost).await;
    assert_eq!(server.handle().stats().await.unwrap().devices, 1);
    server.shutdown().await;
}
