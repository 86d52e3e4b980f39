//! A device that belongs to no store, over real sockets on loopback: it lists servers, and a choice makes it a device.

use std::net::Ipv4Addr;
use std::time::Duration;

use tillwire::discovery::SeekerEvent;
use tillwire::discovery::driver::{Net, OpenErrorKind};
use tillwire::{
    Delivered, NodeId, Order, OrderKind, Outcome, Security, StartError, Store, StoreServer, Target,
    Unprovisioned, Verdict, find_servers,
};

const SOON: Duration = Duration::from_secs(20);

/// A port that no other process of this test uses, nor another test of this file.
fn port(test: u16) -> u16 {
    41_301 + 2 * (u16::try_from(std::process::id() % 200).unwrap() * 4 + test)
}

fn net(host: u8, port: u16) -> Net {
    let bind = Some(Ipv4Addr::new(127, 83, 0, host));
    Net { bind, broadcast: Some(Ipv4Addr::new(127, 255, 255, 255)), port, ..Net::default() }
}

async fn server(host: u8, port: u16, store: Store, staging: bool) -> StoreServer {
    let builder = StoreServer::builder(store).security(Security::open_network()).staging(staging);
    let net = net(host, port);
    let builder = builder.name("Back office").bind(net.bind.unwrap()).discovery_net(net).push_port(port);
    builder.start().await.unwrap()
}

#[tokio::test]
async fn a_till_out_of_the_box_lists_the_servers_and_the_chosen_one_pushes_to_it() {
    let (port, paris) = (port(0), Store::new(7, "PARIS-12").unwrap());
    let lyon = Store::new(7, "LYON-3").unwrap();
    let servers = [
        server(1, port, paris, false).await,
        server(2, port, paris, true).await,
        server(3, port, lyon, false).await,
    ];
    let mut till = Unprovisioned::listen(NodeId([9; 16]), net(9, port)).unwrap();
    let mut found = 0;
    while found < servers.len() {
        let event = tokio::time::timeout(SOON, till.next_event()).await.expect("in time").unwrap();
        found += usize::from(matches!(event.event, SeekerEvent::CandidateFound { .. }));
    }
    let list = till.candidates().await;
    let stores: Vec<_> = list.iter().map(|known| (known.store, known.staging)).collect();
    assert_eq!(stores, [(lyon, false), (paris, false), (paris, true)]);
    assert!(list.iter().all(|known| known.name.as_str() == "Back office" && known.age < SOON));
    assert_eq!(till.stats().await.unwrap().protocol.sent_announce, 0);

    let [productive, others @ ..] = &servers;
    let device = till.choose(&list[1]).await.security(Security::open_network()).port(port);
    let device = device.start(|_: &Delivered<'_>| Verdict::Applied).await.unwrap();
    let order = Order::new(OrderKind::SHOW_PAGE, 1, b"/").idempotent();
    let mut events = productive.subscribe();
    while productive.devices().await.iter().all(|known| !known.push.connected) {
        tokio::time::timeout(SOON, events.recv()).await.expect("in time").unwrap();
    }
    let report = productive.push(&order, &Target::all()).await.unwrap().settled(SOON).await;
    assert_eq!((report.targets(), report.count(Outcome::APPLIED)), (1, 1));
    for other in others {
        assert!(other.devices().await.is_empty());
    }
    device.shutdown().await;
    for server in servers {
        server.shutdown().await;
    }
}

#[tokio::test]
async fn servers_are_found_once_and_a_taken_port_is_said() {
    let (port, store) = (port(1), Store::new(7, "PARIS-12").unwrap());
    let running = server(11, port, store, true).await;
    let found = find_servers(net(12, port), Duration::from_secs(3)).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].store, found[0].staging, found[0].address.port()), (store, true, 80));
    let taken = find_servers(net(11, port), Duration::ZERO).await.unwrap_err();
    let StartError::Discovery(error) = taken else { panic!("{taken}") };
    assert_eq!(error.kind(), OpenErrorKind::PortInUse);
    running.shutdown().await;
    assert_eq!(find_servers(net(12, port), Duration::from_millis(100)).await.unwrap(), []);
}
