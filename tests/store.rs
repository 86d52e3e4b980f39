//! A whole store over real sockets on loopback: servers and devices as applications start them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tillwire::{
    Delivered, Device, DeviceBuilder, DeviceEvent, DeviceKind, NodeId, Order, OrderKind, Outcome, PushError,
    Resource, Security, ServerBuilder, ServerEvent, StartError, StaticDevice, Store, StoreServer, Tags,
    Target, Verdict,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const LOOPBACK: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);
const SOON: Duration = Duration::from_secs(10);

/// Ports that no other test of this file uses: (discovery, push).
fn ports() -> (u16, u16) {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let n = NEXT.fetch_add(2, Ordering::Relaxed);
    let base = 21_000 + u16::try_from(std::process::id() % 400).unwrap() * 20;
    (base + n, base + n + 1)
}

fn store() -> Store {
    Store::new(1, "PARIS-12").unwrap()
}

fn id(n: u8) -> NodeId {
    NodeId([n; 16])
}

fn server(ports: (u16, u16)) -> ServerBuilder {
    StoreServer::builder(store())
        .security(Security::open_network())
        .bind(Ipv4Addr::LOCALHOST)
        .broadcast(LOOPBACK)
        .discovery_port(ports.0)
        .push_port(ports.1)
}

fn device(n: u8, ports: (u16, u16)) -> DeviceBuilder {
    Device::builder(store(), id(n))
        .security(Security::open_network())
        .bind(Ipv4Addr::new(127, 9, 0, n))
        .broadcast(LOOPBACK)
        .discovery_port(ports.0)
        .port(ports.1)
}

/// What a handler saw: number and payload of each order.
type Seen = Arc<Mutex<Vec<(u64, Vec<u8>)>>>;

/// A handler that applies pages, rejects the rest, and remembers what it saw.
fn screen(seen: &Seen) -> impl FnMut(&Delivered<'_>) -> Verdict + Send + 'static {
    let seen = Arc::clone(seen);
    move |delivered| {
        seen.lock().unwrap().push((delivered.order.number, delivered.order.payload.to_vec()));
        match delivered.order.kind {
            OrderKind::SHOW_PAGE => Verdict::Applied,
            _ => Verdict::RejectedKind,
        }
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

#[tokio::test]
async fn devices_are_discovered_and_served() {
    let ports = ports();
    let server = server(ports).start().await.unwrap();
    let seen = Seen::default();
    let mut devices = Vec::new();
    for n in 1..=20 {
        let kind = if n <= 5 { DeviceKind::KIOSK } else { DeviceKind::TILL };
        devices
            .push(device(n, ports).kind(kind).zone(u32::from(n % 2) + 1).start(screen(&seen)).await.unwrap());
    }
    connected(&server, 20).await;

    let page = Order::new(OrderKind::SHOW_PAGE, 1, b"/promo").idempotent();
    let report = server.push(&page, &Target::all()).await.unwrap().settled(SOON).await;
    assert_eq!(
        (report.targets(), report.outcomes(), report.unsettled()),
        (20, vec![(Outcome::APPLIED, 20)], 0)
    );
    assert!(report.latency().max > Duration::ZERO);

    let kiosks = Target::kind(DeviceKind::KIOSK).and_zone(2);
    let other = Order::new(OrderKind::MESSAGE, 1, b"hello");
    let report = server.push(&other, &kiosks).await.unwrap().settled(SOON).await;
    assert_eq!(report.outcomes(), vec![(Outcome::REJECTED_KIND, 3)]);

    let nobody = server.push(&page, &Target::zone(9)).await.unwrap_err();
    assert_eq!(nobody, PushError::NoTarget { target: Target::zone(9) });
    assert_eq!(seen.lock().unwrap().len(), 23, "each hand-over once");

    for device in devices {
        device.shutdown().await;
    }
    server.shutdown().await;
}

#[tokio::test]
async fn static_devices_need_no_discovery() {
    let ports = ports();
    let device = device(41, ports).no_discovery().start(apply).await.unwrap();
    let at = |n| SocketAddr::from((Ipv4Addr::new(127, 9, 0, n), ports.1));
    let absent =
        StaticDevice { id: Some(id(42)), tags: Tags::new(["bakery"]).unwrap(), ..StaticDevice::at(at(42)) };
    let server =
        server(ports).no_discovery().device(StaticDevice::at(at(41))).device(absent).start().await.unwrap();
    connected(&server, 1).await;
    let order = Order::new(OrderKind::SHOW_PAGE, 1, b"x");
    let report = server.push(&order, &Target::id(id(41))).await.unwrap().settled(SOON).await;
    assert_eq!(report.count(Outcome::APPLIED), 1);
    let fan_out = server.push(&order, &Target::tag("bakery")).await.unwrap();
    let report = fan_out.settled(Duration::from_millis(100)).await;
    assert_eq!(report.unsettled(), 1);
    assert_eq!(report.pending()[0].0.name(), "unreachable");
    drop(device);
    server.shutdown().await;
}

#[tokio::test]
async fn a_restarted_device_is_found_again_and_gets_its_next_order() {
    let ports = ports();
    let server = server(ports).start().await.unwrap();
    let first = device(50, ports).start(apply).await.unwrap();
    connected(&server, 1).await;
    drop(first); // no goodbye: as if it was killed
    tokio::time::sleep(Duration::from_millis(50)).await;
    let order = Order::new(OrderKind::SHOW_PAGE, 1, b"while it is away").idempotent();
    let fan_out = server.push(&order, &Target::id(id(50))).await.unwrap();
    let count = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&count);
    let handler = move |_: &Delivered<'_>| {
        counted.fetch_add(1, Ordering::Relaxed);
        Verdict::Applied
    };
    let second = device(50, ports).start(handler).await.unwrap();
    let report = fan_out.settled(SOON).await;
    assert_eq!((report.count(Outcome::APPLIED), count.load(Ordering::Relaxed)), (1, 1));
    second.shutdown().await;
    server.shutdown().await;
}

#[tokio::test]
async fn another_device_at_the_address_gets_no_order() {
    let ports = ports();
    let seen = Seen::default();
    let impostor = device(60, ports).no_discovery().start(screen(&seen)).await.unwrap();
    let listed = StaticDevice { id: Some(id(61)), ..StaticDevice::at(impostor.address()) };
    let server = server(ports).no_discovery().device(listed).start().await.unwrap();
    let mut events = server.subscribe();
    let fan_out = server.push(&Order::new(OrderKind::SHOW_PAGE, 1, b"x"), &Target::id(id(61))).await.unwrap();
    let why = tokio::time::timeout(SOON, async {
        loop {
            if let ServerEvent::Session(push::driver::server::Event::Disconnected { why, .. }) =
                events.recv().await.unwrap()
            {
                return why.to_string();
            }
        }
    });
    assert_eq!(why.await.unwrap(), "the peer refused the session: wrong-device");
    assert_eq!(fan_out.report().await.unsettled(), 1);
    assert!(seen.lock().unwrap().is_empty());
    server.shutdown().await;
    impostor.shutdown().await;
}

#[tokio::test]
async fn staging_and_other_stores_stay_apart() {
    let ports = ports();
    let server = server(ports).start().await.unwrap();
    let test_device = device(70, ports).staging(true).start(apply).await.unwrap();
    let other_store = Device::builder(Store::new(1, "LYON-3").unwrap(), id(71))
        .security(Security::open_network())
        .bind(Ipv4Addr::new(127, 9, 0, 71))
        .broadcast(LOOPBACK)
        .discovery_port(ports.0)
        .port(ports.1)
        .start(apply)
        .await
        .unwrap();
    let ours = device(72, ports).start(apply).await.unwrap();
    connected(&server, 1).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let known: Vec<_> = server.devices().await.iter().filter_map(|device| device.push.id).collect();
    assert_eq!(known, [id(72)]);
    for device in [test_device, other_store, ours] {
        device.shutdown().await;
    }
    server.shutdown().await;
}

#[tokio::test]
async fn nothing_is_half_started() {
    let ports = ports();
    let unchosen = StoreServer::builder(store()).start().await.unwrap_err();
    assert!(matches!(unchosen, StartError::SecurityNotChosen));
    let first = server(ports).start().await.unwrap();
    let second = server(ports).start().await.unwrap_err();
    assert!(
        matches!(&second, StartError::Discovery(error) if error.source.kind() == std::io::ErrorKind::AddrInUse),
        "{second}"
    );
    first.shutdown().await;
    server(ports).start().await.expect("the port is free again at once").shutdown().await;

    let one = device(80, ports).start(apply).await.unwrap();
    let two = device(80, ports).start(apply).await.unwrap_err();
    assert!(matches!(two, StartError::Listen(_)), "{two}");
    one.shutdown().await;
    device(80, ports).start(apply).await.expect("both ports are free again at once").shutdown().await;
}

#[tokio::test]
async fn an_order_of_the_largest_size_is_served() {
    let ports = ports();
    let device = device(98, ports).no_discovery().start(apply).await.unwrap();
    let server =
        server(ports).no_discovery().device(StaticDevice::at(device.address())).start().await.unwrap();
    connected(&server, 1).await;
    let payload = vec![7; tillwire::wire::frame::order::PAYLOAD_MAX];
    let order = Order::new(OrderKind::SHOW_PAGE, 1, &payload);
    let report = server.push(&order, &Target::all()).await.unwrap().settled(SOON).await;
    assert_eq!(report.outcomes(), [(Outcome::APPLIED, 1)]);
    server.shutdown().await;
    device.shutdown().await;
}

#[tokio::test]
async fn who_waits_for_an_order_is_told_when_the_server_stops() {
    let ports = ports();
    let absent =
        StaticDevice { id: Some(id(94)), ..StaticDevice::at((Ipv4Addr::new(127, 9, 0, 94), ports.1).into()) };
    let server = server(ports).no_discovery().device(absent).start().await.unwrap();
    let order = Order::new(OrderKind::SHOW_PAGE, 1, b"x");
    let fan_out = server.push(&order, &Target::all()).await.unwrap();
    let day = Duration::from_secs(86_400);
    let (report, ()) = tokio::join!(tokio::time::timeout(SOON, fan_out.settled(day)), server.shutdown());
    assert_eq!(report.expect("returns before the day is over").unsettled(), 1);
}

#[tokio::test]
async fn a_fifth_stranger_is_turned_away_and_the_session_lives() {
    let ports = ports();
    let device = device(95, ports).no_discovery().start(apply).await.unwrap();
    let server =
        server(ports).no_discovery().device(StaticDevice::at(device.address())).start().await.unwrap();
    connected(&server, 1).await;
    // The session and three strangers take the four places.
    let mut strangers = Vec::new();
    for _ in 0..4 {
        strangers.push(tokio::net::TcpStream::connect(device.address()).await.unwrap());
    }
    let turned_away = async { while strangers[3].read(&mut [0; 16]).await.is_ok_and(|len| len > 0) {} };
    tokio::time::timeout(SOON, turned_away).await.expect("the fifth is closed at once");
    let order = Order::new(OrderKind::SHOW_PAGE, 1, b"x");
    let report = server.push(&order, &Target::all()).await.unwrap().settled(SOON).await;
    assert_eq!(report.count(Outcome::APPLIED), 1);
    server.shutdown().await;
    device.shutdown().await;
}

#[tokio::test]
async fn garbage_on_the_order_port_is_closed_and_told_and_others_are_served() {
    let ports = ports();
    let device = device(96, ports).no_discovery().start(apply).await.unwrap();
    let mut events = device.subscribe();
    let server =
        server(ports).no_discovery().device(StaticDevice::at(device.address())).start().await.unwrap();
    connected(&server, 1).await;
    let mut stranger = tokio::net::TcpStream::connect(device.address()).await.unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\nHost: till\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // A reset is as good an end as any: what matters is that not a byte came back.
    let _ = tokio::time::timeout(SOON, stranger.read_to_end(&mut answer)).await.expect("is closed");
    assert_eq!(answer, []);
    let why = tokio::time::timeout(SOON, async {
        loop {
            if let DeviceEvent::Session(push::driver::device::Event::Closed { why, .. }) =
                events.recv().await.unwrap()
            {
                return why.to_string();
            }
        }
    });
    assert_eq!(
        why.await.unwrap(),
        "the peer sent broken bytes: checksum at byte 12: the checksum does not match"
    );
    let order = Order::new(OrderKind::SHOW_PAGE, 1, b"x");
    assert_eq!(
        server.push(&order, &Target::all()).await.unwrap().settled(SOON).await.count(Outcome::APPLIED),
        1
    );
    server.shutdown().await;
    device.shutdown().await;
}

#[tokio::test]
async fn a_dial_that_is_not_answered_is_given_up() {
    let ports = ports();
    let address = SocketAddr::from((Ipv4Addr::new(127, 9, 0, 97), ports.1));
    // A listener that accepts nobody, and callers that fill its queue: the next SYN is not answered.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(0).unwrap();
    let queue =
        std::iter::repeat_with(|| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)));
    let _queue: Vec<_> = queue.take(8).take_while(Result::is_ok).collect();
    let server = server(ports).no_discovery().device(StaticDevice::at(address)).start().await.unwrap();
    let given_up = async {
        while server.stats().await.unwrap().push.fleet.dials_failed == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, given_up).await.expect("the dial ends");
    server.shutdown().await;
}

#[tokio::test]
async fn orders_and_bytes_at_their_limits_and_one_past_each() {
    let ports = ports();
    let absent =
        StaticDevice { id: Some(id(90)), ..StaticDevice::at((Ipv4Addr::new(127, 9, 0, 90), ports.1).into()) };
    let order = Order::new(OrderKind::SHOW_PAGE, 1, b"12345678");
    let listed = || server(ports).no_discovery().device(absent);

    let by_orders = listed().live_orders(2).start().await.unwrap();
    for _ in 0..2 {
        by_orders.push(&order, &Target::all()).await.unwrap();
    }
    let full = by_orders.push(&order, &Target::all()).await.unwrap_err();
    let retry_after = Duration::from_millis(250);
    assert_eq!(full, PushError::Full { what: Resource::Orders, limit: 2, retry_after });
    by_orders.shutdown().await;

    let len = order.encoded_len();
    let by_bytes = listed().live_bytes(2 * len).start().await.unwrap();
    for _ in 0..2 {
        by_bytes.push(&order, &Target::all()).await.unwrap();
    }
    let full = by_bytes.push(&order, &Target::all()).await.unwrap_err();
    assert_eq!(full, PushError::Full { what: Resource::Bytes, limit: 2 * len, retry_after });
    by_bytes.shutdown().await;
}

#[tokio::test]
async fn more_devices_than_there_is_room_for_are_not_half_started() {
    let ports = ports();
    let listed = |n| StaticDevice::at((Ipv4Addr::new(127, 9, 0, n), ports.1).into());
    let builder = || server(ports).no_discovery().capacity(2).device(listed(91)).device(listed(92));
    builder().start().await.expect("two fit").shutdown().await;
    let error = builder().device(listed(93)).start().await.unwrap_err();
    assert!(matches!(error, StartError::TooManyDevices { listed: 3, capacity: 2 }), "{error}");
}
