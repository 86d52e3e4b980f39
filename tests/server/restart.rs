//! What a server keeps of discovery over its restart.

use tillwire::discovery::driver::Net;
use tillwire::discovery::{SnapshotError, State};

use super::*;

/// The broadcast address of loopback.
const LOOPBACK: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);

/// A server with discovery on a network of its own on loopback.
fn finding(lan: Lan, host: u8, port: u16) -> ServerBuilder {
    let bind = Ipv4Addr::new(127, 20, lan.test, host);
    let broadcast = Some(LOOPBACK);
    StoreServer::builder(store()).security(Security::open_network()).bind(bind).discovery_net(Net {
        bind: Some(bind),
        broadcast,
        port,
        ..Net::default()
    })
}

#[tokio::test]
async fn a_restarted_server_lists_and_dials_whom_it_knew_before_it_hears_anybody() {
    let (lan, port) = (lan(60), 41_260);
    let device = lan.device(2).discovery_net(Net { broadcast: Some(LOOPBACK), port, ..Net::default() });
    let device = device.start(apply).await.unwrap();
    let first = finding(lan, 1, port).push_port(lan.port).start().await.unwrap();
    assert_eq!(first.roster_restored(), None);
    connected(&first, 1).await;
    let snapshot = first.roster_snapshot().await.unwrap();
    first.shutdown().await;

    // At a port of discovery where nobody speaks.
    let second = finding(lan, 1, port + 1).push_port(lan.port).restore_roster(snapshot.clone());
    let second = second.start().await.unwrap();
    let restored = second.roster_restored().unwrap().unwrap();
    assert_eq!((restored.unconfirmed, restored.damaged), (1, 0));
    assert_eq!(second.devices().await.len(), 1, "listed before the start returns");
    connected(&second, 1).await;
    let linked = async {
        while second.devices().await[0].roster.map(|device| device.state) != Some(State::Linked) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, linked).await.expect("the session vouches for it");
    second.shutdown().await;

    // Where its push port may not be dialled it is known and left alone.
    let third = finding(lan, 1, port + 1).restore_roster(snapshot.clone()).start().await.unwrap();
    assert!(third.devices().await.is_empty());
    third.shutdown().await;

    let mut other = snapshot;
    other[0] ^= 1;
    let fourth = finding(lan, 1, port + 1).restore_roster(other).start().await.unwrap();
    assert_eq!(fourth.roster_restored(), Some(Err(SnapshotError::Foreign)), "and it started all the same");
    fourth.shutdown().await;
    device.shutdown().await;
}
