//! Peers that lie: they speak the protocol, each in its own wrong way.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use push::driver::server::Snapshot;
use push::ended::Ended;
use testkit::history::OrderId;
use tillwire::{
    DeviceKind, FanOut, Lane, Lineage, NodeId, Outcome, ServerBuilder, StoreServer, Tags, Target,
};
use tokio::time::{Instant, sleep, timeout};
use wire_format::error::EmitError;
use wire_format::frame::hello::LogHead;
use wire_format::frame::outcome::{self, Code, Entry};
use wire_format::frame::welcome::{FIXED_LEN, LaneFloor, LogFloors, Started};
use wire_format::frame::{CHECKSUM_LEN, Flags, Header, Hello, Kind, Order, Ping, Raw, Welcome, header};
use wire_format::splitter::{Split, split};

use super::judge::{Judge, payload};
use super::{
    AFTER_HELLO, AFTER_WELCOME, SOON, device, eventually, hello, id, listed, next_end, once, server,
};

const _: () = assert!(AFTER_HELLO as usize == wire_format::frame::hello::FRAME_LEN);
const _: () = assert!(AFTER_WELCOME as usize == header::LEN + FIXED_LEN + CHECKSUM_LEN);

/// A listener on loopback that reads each caller's HELLO and then does what `act` says, in a thread of its own.
fn fake(act: impl Fn(&Hello, &mut TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let act = Arc::new(act);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let act = Arc::clone(&act);
            std::thread::spawn(move || {
                let mut bytes = [0; AFTER_HELLO as usize];
                if stream.read_exact(&mut bytes).is_ok() {
                    let hello = Hello::parse(&Raw::parse(&bytes).unwrap()).unwrap();
                    act(&hello, &mut stream);
                }
            });
        }
    });
    address
}

/// The WELCOME a right device would answer with.
fn welcome(hello: &Hello) -> Welcome<'static> {
    Welcome {
        version: 1,
        staging: false,
        floors_persisted: false,
        journal_lost: false,
        kind: DeviceKind::TILL,
        device: hello.target,
        boot: 7,
        fence: hello.fence,
        server: hello.server,
        zone: 0,
        window_orders: 16,
        window_bytes: 16 << 10,
        max_body: 70_000,
        features: 0,
        tags: Tags::EMPTY,
        durable: LogFloors::default(),
        volatile: LogFloors::default(),
        started: Started::EMPTY,
    }
}

fn encoded(emit: impl FnOnce(&mut [u8]) -> Result<usize, EmitError>) -> Vec<u8> {
    let mut buffer = vec![0; 8 << 10];
    let len = emit(&mut buffer).unwrap();
    buffer.truncate(len);
    buffer
}

/// A frame of a kind that no version knows, which may be skipped.
fn ignorable(body: usize) -> Vec<u8> {
    let length = u32::try_from(body).unwrap();
    let header = Header { flags: Flags::IGNORABLE, ..Header::new(Kind(0x7E), length) };
    [&header.emit()[..], &vec![0xEE; body]].concat()
}

fn applied(number: u64, lane: Lane) -> Entry {
    Entry { number, code: Code::APPLIED, detail: 0, lane, ms: 0 }
}

fn outcomes(entries: &[Entry]) -> Vec<u8> {
    encoded(|buffer| outcome::emit(false, entries.iter().copied(), buffer))
}

/// 64 outcomes of numbers nobody gave.
fn invented() -> Vec<u8> {
    let number = |n: u64| if n < 32 { 1_000_000 + n } else { u64::MAX - 64 + n };
    outcomes(&(0..64).map(|n| applied(number(n), Lane::ALL[n as usize % 4])).collect::<Vec<_>>())
}

/// Greets, and then sends the same bytes for as long as somebody takes them.
fn flood(frame: Vec<u8>) -> SocketAddr {
    let bytes = frame.repeat((64 << 10) / frame.len());
    fake(move |hello, stream| {
        let greeting = encoded(|buffer| welcome(hello).emit(buffer));
        let _ = stream.write_all(&greeting);
        while stream.write_all(&bytes).is_ok() {}
    })
}

/// Serves as a right device does: every order is applied at once.
fn serve(stream: &mut TcpStream) {
    let mut unread = Vec::new();
    let mut room = vec![0; 64 << 10];
    while let Ok(len @ 1..) = stream.read(&mut room) {
        unread.extend_from_slice(&room[..len]);
        while let Ok(Split::Frame(raw)) = split(&unread, 70_000) {
            let answer = match raw.header.kind {
                Kind::ORDER => {
                    let (_, order) = Order::parse(&raw).unwrap();
                    outcomes(&[applied(order.number, order.lane)])
                }
                Kind::PING => encoded(|buffer| Ping::parse(&raw).unwrap().pong().emit(buffer)),
                _ => Vec::new(),
            };
            let len = raw.len();
            unread.drain(..len);
            if stream.write_all(&answer).is_err() {
                return;
            }
        }
    }
}

/// Alone it takes 0.2 s; a machine that is busy with other things takes several times as long.
const SERVED_WITHIN: Duration = Duration::from_secs(5);

/// Pushes to the good device for a while; each order must be applied in time.
async fn served_for(judge: &Judge, server: &StoreServer, good: u8, span: Duration) {
    let since = Instant::now();
    let mut orders = 0_u32;
    while since.elapsed() < span {
        let deed = judge.push(server, 1, once, 8, &[good]).await;
        let report = judge.settled(&deed, SERVED_WITHIN).await;
        assert_eq!(report.count(Outcome::APPLIED), 1, "after {orders} orders: {:?}", report.pending());
        orders += 1;
        sleep(Duration::from_millis(5)).await;
    }
}

/// An order for everybody; only the good one keeps a history.
async fn push_to_all(judge: &Judge, server: &StoreServer, good: u8) -> (OrderId, FanOut) {
    let name = judge.name(1);
    let payload = payload(name, 8);
    judge.accepted(name, &once(&payload), &[good]);
    (name, server.push(&once(&payload), &Target::all()).await.unwrap())
}

async fn stats(server: &StoreServer) -> Box<Snapshot> {
    server.stats().await.unwrap().push
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_delay_nobody_and_are_counted() {
    const GOOD: u8 = 9;
    let judge = Judge::new();
    let good = device(GOOD).start(judge.apply(GOOD)).await.unwrap();
    let garbage = vec![0xA5; 999];
    let ping = encoded(|buffer| Ping { token: 1 }.emit(buffer));
    // The one that pings reads no answer: its way back is full in no time.
    let floods = [ignorable(0), ignorable(4_096), ping, invented(), garbage];
    let mut builder = server().device(listed(GOOD, good.address()));
    for (n, frame) in (1..).zip(floods) {
        builder = builder.device(listed(n, flood(frame)));
    }
    let server = builder.start().await.unwrap();
    let mut events = server.subscribe();
    let (name, to_all) = push_to_all(&judge, &server, GOOD).await;
    eventually("the floods run", async || {
        let stats = stats(&server).await;
        stats.connected >= 5 && stats.fleet.frames_ignored > 10_000 && stats.fleet.numbers_unknown > 10_000
    })
    .await;
    let before = stats(&server).await.fleet;
    served_for(&judge, &server, GOOD, Duration::from_secs(2)).await;
    let after = stats(&server).await.fleet;
    assert!(after.frames_ignored > before.frames_ignored + 1_000, "the flood did not stop meanwhile");
    // Who never acknowledges its order is given up after 5 s, however much else it says.
    assert!(after.broken >= 1, "{after:?}");
    let garbage = async {
        loop {
            if let (who, Ended::Broken(_)) = next_end(&mut events).await {
                return who;
            }
        }
    };
    assert_eq!(timeout(SOON, garbage).await.expect("garbage ends a session"), Some(id(5)));
    let report = to_all.report().await;
    let doubt = report.count(Outcome::IN_DOUBT);
    assert_eq!(
        (report.count(Outcome::APPLIED), report.unsettled()),
        (1, 5 - doubt),
        "{:?}",
        report.outcomes()
    );
    judge.outcome(name, GOOD.into(), Outcome::APPLIED).await;
    judge.all_applied_once(SOON).await;
    timeout(SOON, server.shutdown()).await.expect("a flood does not hold up a shutdown");
    good.shutdown().await;
}

/// What device `n` of the crowd does; each in its own wrong way.
fn misbehave(n: u8, hello: &Hello, stream: &mut TcpStream) {
    let right = welcome(hello);
    let greet = |welcome: Welcome<'_>| encoded(|buffer| welcome.emit(buffer));
    let oversized = Header::new(Kind::OUTCOME, hello.max_body + 1).emit();
    let LogHead { lineage, .. } = hello.volatile;
    let ahead = LogFloors { lineage, lanes: [LaneFloor { floor: u64::MAX, run: 1 }; 4] };
    let bytes = match n % WAYS {
        0 => greet(Welcome { device: NodeId([0xDD; 16]), ..right }),
        1 => greet(Welcome { staging: true, ..right }),
        2 => greet(Welcome { volatile: ahead, ..right }),
        3 => [&greet(right)[..], &oversized, &[0; 4_096]].concat(),
        4 => [&greet(right)[..], &greet(right)].concat(),
        5 => outcomes(&[applied(1, Lane::Normal)]),
        6 => vec![0x5A; 400],
        _ => [greet(right), invented().repeat(INVENTED)].concat(),
    };
    let _ = stream.write_all(&bytes);
    if n % WAYS == 7 {
        serve(stream);
    } else {
        // Stays until it is thrown out.
        while matches!(stream.read(&mut [0; 1_024]), Ok(1..)) {}
    }
}

const WAYS: u8 = 8;
/// Frames of 64 invented outcomes each liar sends.
const INVENTED: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_liars_is_counted_and_breaks_nothing() {
    const EACH: u64 = 28;
    const LIARS: u8 = WAYS * EACH as u8;
    const GOOD: u8 = 255;
    let judge = Judge::new();
    let good = device(GOOD).start(judge.apply(GOOD)).await.unwrap();
    let address = fake(|hello, stream| misbehave(hello.target.0[0], hello, stream));
    let liars = (8..LIARS + 8).map(|n| listed(n, address));
    let builder = server().capacity(256).device(listed(GOOD, good.address()));
    let server = liars.fold(builder, ServerBuilder::device).start().await.unwrap();
    let (name, to_all) = push_to_all(&judge, &server, GOOD).await;
    served_for(&judge, &server, GOOD, Duration::from_secs(1)).await;
    eventually("every liar was met", async || {
        let stats = stats(&server).await.fleet;
        stats.wrong_device >= EACH
            && stats.refused >= 3 * EACH
            && stats.broken >= 4 * EACH
            && stats.numbers_unknown >= EACH * INVENTED as u64 * 64
    })
    .await;
    served_for(&judge, &server, GOOD, Duration::from_secs(1)).await;

    // Who invents outcomes and then serves is served; nobody else got an order, or an end.
    let report = timeout(SOON, async {
        loop {
            let report = to_all.report().await;
            if report.count(Outcome::APPLIED) == EACH as usize + 1 {
                return report;
            }
            sleep(Duration::from_millis(20)).await;
        }
    });
    let report = report.await.expect("those that serve are served");
    assert_eq!(report.outcomes(), [(Outcome::APPLIED, EACH as usize + 1)]);
    assert_eq!(report.unsettled(), 7 * EACH as usize);
    let stats = stats(&server).await;
    assert!(stats.connected > EACH as usize, "{stats:?}");
    assert_eq!(stats.fleet.outcomes_repeated, 0);
    judge.outcome(name, GOOD.into(), Outcome::APPLIED).await;
    judge.all_applied_once(SOON).await;
    timeout(SOON, server.shutdown()).await.expect("a crowd does not hold up a shutdown");
    good.shutdown().await;
}

/// Opens a session as a server whose log is at `number`, sends that order `times` times in one write, and waits for as
/// many ends as `expected`.
fn repeat_order(
    address: SocketAddr,
    name: OrderId,
    number: u64,
    times: usize,
    expected: usize,
) -> Vec<(Code, u8)> {
    let volatile = LogHead { lineage: Lineage([3; 16]), run: 1, head: number };
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(&hello(volatile)).unwrap();
    stream.write_all(&encoded(|buffer| once(&payload(name, 8)).emit(number, buffer)).repeat(times)).unwrap();
    let (mut unread, mut ends) = (Vec::new(), Vec::new());
    let mut room = [0; 4_096];
    while ends.len() < expected {
        let len = stream.read(&mut room).expect("the device answers");
        assert_ne!(len, 0, "the device stays: {ends:?}");
        unread.extend_from_slice(&room[..len]);
        while let Ok(Split::Frame(raw)) = split(&unread, 4_096) {
            if let Ok(outcome) = outcome::Outcome::parse(&raw) {
                assert!(outcome.entries.iter().all(|entry| entry.number == number));
                ends.extend(outcome.entries.iter().map(|entry| (entry.code, entry.detail)));
            }
            let len = raw.len();
            unread.drain(..len);
        }
    }
    ends
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_sent_again_and_again_is_handed_over_once() {
    let judge = Judge::new();
    let device = device(1).start(judge.apply(1)).await.unwrap();
    let name = judge.name(1);
    judge.accepted(name, &once(&payload(name, 8)), &[1]);
    let address = device.address();
    let ends = tokio::task::spawn_blocking(move || {
        [(3, 3), (2, 3)].map(|(times, ends)| repeat_order(address, name, 9, times, ends))
    });
    let again = (Code::DUPLICATE, Code::APPLIED.0);
    // What nobody confirmed is told once more at the beginning of the next session.
    assert_eq!(ends.await.unwrap(), [[(Code::APPLIED, 0), again, again], [(Code::APPLIED, 0), again, again]]);
    judge.outcome(name, 1, Outcome::APPLIED).await;
    judge.history.assert_kept();
    device.shutdown().await;
}
