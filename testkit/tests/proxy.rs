//! The fault proxy does what it says: an echo server behind it is cut, frozen, delayed, corrupted and dribbled.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use testkit::proxy::{Faults, OnKind, Plan, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
const SENT: &[u8] = b"0123456789abcdef";

async fn echo() -> SocketAddr {
    let listener = TcpListener::bind(ANY).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = socket.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

async fn through(plan: Plan) -> (Proxy, TcpStream) {
    let proxy = Proxy::start(ANY, echo().await, plan).await.unwrap();
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    client.write_all(SENT).await.unwrap();
    (proxy, client)
}

/// What arrives until nothing more can.
async fn rest(client: &mut TcpStream) -> Vec<u8> {
    let mut got = Vec::new();
    match client.read_to_end(&mut got).await {
        Ok(_) => got,
        // A cut with bytes under way is a reset: what came before it counts.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => got,
        Err(error) => panic!("{error}"),
    }
}

fn up(faults: Faults) -> Plan {
    Plan { up: faults, ..Plan::default() }
}

fn down(faults: Faults) -> Plan {
    Plan { down: faults, ..Plan::default() }
}

#[tokio::test]
async fn without_faults_everything_passes_and_ends_when_the_sender_ends() {
    let (proxy, mut client) = through(Plan::default()).await;
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await, SENT);
    assert_eq!(proxy.accepted(), 1);
}

#[tokio::test]
async fn cut_at_a_byte_in_either_direction() {
    for at in [0, 1, 7, 15] {
        let (_proxy, mut client) = through(down(Faults { cut_at: Some(at), ..Faults::default() })).await;
        assert_eq!(rest(&mut client).await, SENT[..usize::try_from(at).unwrap()], "down at {at}");
        // What the echo returned may be lost with the cut, but never more than was let through.
        let (_proxy, mut client) = through(up(Faults { cut_at: Some(at), ..Faults::default() })).await;
        assert!(SENT[..usize::try_from(at).unwrap()].starts_with(&rest(&mut client).await), "up at {at}");
    }
}

#[tokio::test]
async fn a_stall_lets_nothing_through_and_closes_nothing() {
    let (proxy, mut client) = through(down(Faults { stall_at: Some(5), ..Faults::default() })).await;
    let mut got = [0; 5];
    client.read_exact(&mut got).await.unwrap();
    assert_eq!(got, SENT[..5]);
    let more = tokio::time::timeout(Duration::from_millis(100), client.read_u8()).await;
    assert!(more.is_err(), "neither a byte nor an end: {more:?}");
    proxy.cut_all();
    assert_eq!(rest(&mut client).await, b"");
}

#[tokio::test]
async fn one_bit_flips_where_it_was_asked_to() {
    let (_proxy, mut client) = through(up(Faults { flip: Some((3, 0x20)), ..Faults::default() })).await;
    let mut got = [0; SENT.len()];
    client.read_exact(&mut got).await.unwrap();
    let mut expected = SENT.to_vec();
    expected[3] ^= 0x20;
    assert_eq!(got, expected[..]);
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the proxy works in real time")]
async fn one_byte_at_a_time_with_a_delay_takes_that_long() {
    let faults = Faults { chunk: Some(1), delay: Duration::from_millis(5), ..Faults::default() };
    let start = Instant::now();
    let (_proxy, mut client) = through(down(faults)).await;
    let mut got = [0; SENT.len()];
    client.read_exact(&mut got).await.unwrap();
    assert_eq!(got, SENT);
    assert!(start.elapsed() >= Duration::from_millis(80), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_new_plan_counts_for_the_next_connection() {
    let (proxy, mut first) = through(Plan::default()).await;
    let mut got = [0; SENT.len()];
    first.read_exact(&mut got).await.unwrap();
    proxy.set_plan(up(Faults { cut_at: Some(0), ..Faults::default() }));
    let mut second = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(rest(&mut second).await, b"", "cut before its first byte");
    first.write_all(SENT).await.unwrap();
    first.read_exact(&mut got).await.unwrap();
    assert_eq!((&got[..], proxy.accepted()), (SENT, 2));
}

#[tokio::test]
async fn a_target_that_is_not_there_looks_like_a_close() {
    let nobody = TcpListener::bind(ANY).await.unwrap().local_addr().unwrap();
    let proxy = Proxy::start(ANY, nobody, Plan::default()).await.unwrap();
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(rest(&mut client).await, b"");
}

#[tokio::test]
async fn a_split_changes_nothing_but_the_pieces() {
    let (_proxy, mut client) = through(down(Faults { split_at: Some(7), ..Faults::default() })).await;
    let mut got = [0; SENT.len()];
    client.read_exact(&mut got).await.unwrap();
    assert_eq!(got, SENT);
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the proxy works in real time")]
async fn a_slow_line_takes_as_long_as_its_rate_says() {
    let start = Instant::now();
    let (_proxy, mut client) = through(down(Faults { rate: 160, ..Faults::default() })).await;
    let mut got = [0; SENT.len()];
    client.read_exact(&mut got).await.unwrap();
    assert_eq!(got, SENT);
    assert!(start.elapsed() >= Duration::from_millis(100), "{:?}", start.elapsed());
}

#[tokio::test]
async fn two_pieces_change_places() {
    let (_proxy, mut client) = through(down(Faults { swap: Some((2, 3)), ..Faults::default() })).await;
    let mut got = [0; SENT.len()];
    client.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"0156723489abcdef");
}

/// Two frames: the first of kind 7 with 4 bytes, the second of kind 8 with none.
fn frames() -> Vec<u8> {
    let mut bytes = vec![0; 16 + 4 + 16];
    (bytes[0], bytes[4], bytes[24]) = (4, 7, 8);
    bytes
}

async fn frames_through(on: OnKind) -> (Proxy, TcpStream) {
    let plan = down(Faults { on_kind: Some((7, on)), ..Faults::default() });
    let proxy = Proxy::start(ANY, echo().await, Plan { reset: true, ..plan }).await.unwrap();
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    client.write_all(&frames()).await.unwrap();
    (proxy, client)
}

#[tokio::test]
async fn a_frame_of_the_chosen_kind_is_lost_held_or_the_end() {
    let (_proxy, mut client) = frames_through(OnKind::Cut).await;
    assert_eq!(client.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let (_proxy, mut client) = frames_through(OnKind::Drop).await;
    let mut got = [0; 16];
    client.read_exact(&mut got).await.unwrap();
    assert_eq!(got, frames()[20..]);
    let (_proxy, mut client) = frames_through(OnKind::Hold(Duration::from_millis(60))).await;
    let mut got = [0; 36];
    let early = tokio::time::timeout(Duration::from_millis(20), client.read_exact(&mut got)).await;
    assert!(early.is_err(), "{early:?}");
    client.read_exact(&mut got).await.unwrap();
    assert_eq!(got, frames()[..]);
}

#[tokio::test]
async fn a_target_may_keep_a_dead_connection_and_be_another_one() {
    let (told, mut heard) = tokio::sync::mpsc::channel(1);
    let listener = TcpListener::bind(ANY).await.unwrap();
    let dead = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut got = Vec::new();
        let _ = socket.read_to_end(&mut got).await;
        told.send(got).await.unwrap();
    });
    let plan = Plan { half_open: true, ..up(Faults { cut_at: Some(4), ..Faults::default() }) };
    let proxy = Proxy::start(ANY, dead, plan).await.unwrap();
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    client.write_all(SENT).await.unwrap();
    assert_eq!(rest(&mut client).await, b"", "the one who connected is told");
    let early = tokio::time::timeout(Duration::from_millis(100), heard.recv()).await;
    assert!(early.is_err(), "the target is not: {early:?}");
    assert_eq!((proxy.most_up(), proxy.most_up()), (4, 0));

    proxy.set_plan(Plan::default());
    proxy.set_target(echo().await);
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    client.write_all(SENT).await.unwrap();
    let mut got = [0; SENT.len()];
    client.read_exact(&mut got).await.unwrap();
    assert_eq!((&got[..], proxy.most_up()), (SENT, SENT.len() as u64));
    drop(proxy);
    assert_eq!(heard.recv().await.unwrap(), SENT[..4]);
}
