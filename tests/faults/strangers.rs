//! Whoever else finds the port: scanners, browsers, slow-lorises, lengths that promise the moon. None of them gets a byte,
//! a buffer or a place for long, and the session of the store server goes on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use push::ended::{Ended, Fault};
use tillwire::{Device, Outcome, StoreServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use wire_format::frame::hello::LogHead;
use wire_format::frame::{Header, Kind};

use super::judge::Judge;
use super::link::Link;
use super::{
    AFTER_HELLO, AFTER_WELCOME, SOON, device, down, each, eventually, hello, listed, once, page, server, up,
};
use testkit::proxy::Faults;

/// A device in session with its server, which goes on while strangers come.
struct Shop {
    judge: Arc<Judge>,
    device: Device,
    server: StoreServer,
}

impl Shop {
    async fn open() -> Self {
        let judge = Judge::new();
        let device = device(1).start(judge.apply(1)).await.unwrap();
        let server = server().device(listed(1, device.address())).start().await.unwrap();
        eventually("the device connects", async || server.stats().await.unwrap().push.connected == 1).await;
        Self { judge, device, server }
    }

    fn address(&self) -> SocketAddr {
        self.device.address()
    }

    /// Serves as long as the stranger is there; one order after the other.
    async fn serve_while<T>(&self, stranger: impl Future<Output = T>) -> T {
        let serve = async {
            for n in 0_u64.. {
                let deed =
                    self.judge.push(&self.server, 1, if n % 2 == 0 { page } else { once }, 8, &[1]).await;
                let report = self.judge.settled(&deed, Duration::from_secs(2)).await;
                assert_eq!(report.count(Outcome::APPLIED), 1, "after {n} orders");
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            done = stranger => done,
            () = serve => unreachable!("it serves for ever"),
        }
    }

    /// Still the one session of the beginning; everything was applied once.
    async fn close(self) {
        self.judge.all_applied_once(SOON).await;
        let stats = self.server.stats().await.unwrap().push;
        assert_eq!((stats.fleet.sessions, stats.connected, stats.fleet.replays), (1, 1, 0));
    }
}

/// Everything that comes back until the connection ends.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    // A reset is as good an end as any.
    let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("it is closed");
    answer
}

#[tokio::test]
async fn what_is_no_hello_is_closed_at_once_without_a_byte() {
    let shop = Shop::open().await;
    let huge = |kind| Header::new(kind, u32::MAX).emit().to_vec();
    let mut flipped = hello(LogHead::default());
    flipped[100] ^= 4;
    let strangers = [
        b"GET / HTTP/1.1\r\nHost: till\r\n\r\n".to_vec(),
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        vec![0; 16],
        vec![0xFF; 4_096],
        // The header is right; nobody waits for, or makes room for, what it promises.
        huge(Kind::HELLO),
        huge(Kind::ORDER),
        huge(Kind(0x7E)),
        flipped,
    ];
    let all = async {
        for bytes in strangers {
            let since = Instant::now();
            let mut stream = TcpStream::connect(shop.address()).await.unwrap();
            let _ = stream.write_all(&bytes).await;
            assert_eq!(rest(&mut stream).await, b"", "{:02x?}", &bytes[..16]);
            assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
        }
    };
    shop.serve_while(all).await;
    shop.close().await;
}

#[tokio::test]
async fn a_length_of_four_gigabytes_in_a_session_ends_it_at_its_header() {
    // From the device: a liar that greets, then promises that. From a server: the same, after its HELLO.
    let judge = Judge::new();
    let device = device(1).start(judge.apply(1)).await.unwrap();
    let mut stream = TcpStream::connect(device.address()).await.unwrap();
    stream.write_all(&hello(LogHead::default())).await.unwrap();
    let mut welcome = vec![0; AFTER_WELCOME as usize];
    stream.read_exact(&mut welcome).await.unwrap();
    stream.write_all(&Header::new(Kind::ORDER, u32::MAX).emit()).await.unwrap();
    let bye = rest(&mut stream).await;
    assert_eq!((bye.len(), bye[4]), (16, Kind::BYE.0), "{bye:02x?}");
}

#[tokio::test]
async fn a_hello_that_drips_is_given_up_in_time() {
    let shop = Shop::open().await;
    let drip = async {
        let mut streams = Vec::new();
        for _ in 0..3 {
            streams.push(TcpStream::connect(shop.address()).await.unwrap());
        }
        let since = Instant::now();
        let hello = hello(LogHead::default());
        for byte in hello.chunks(1) {
            let mut open = 0;
            for stream in &mut streams {
                open += usize::from(stream.write_all(byte).await.is_ok());
            }
            if open == 0 {
                break;
            }
            // A byte each time: never silent, never done.
            sleep(Duration::from_millis(100)).await;
        }
        for stream in &mut streams {
            assert_eq!(rest(stream).await, b"");
        }
        // 3 s are what a HELLO may take.
        assert!(since.elapsed() < Duration::from_secs(6), "{:?}", since.elapsed());
    };
    shop.serve_while(drip).await;
    shop.close().await;
}

#[tokio::test]
async fn a_scan_of_the_port_takes_no_place_for_long() {
    let shop = Shop::open().await;
    let scan = async {
        for n in 0..200 {
            let stream = TcpStream::connect(shop.address()).await.unwrap();
            if n % 2 == 0 {
                // Half of them reset instead of closing.
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
        }
        // Silent ones as well: as many as fill every place, and then again.
        for _ in 0..3 {
            let mut silent = Vec::new();
            for _ in 0..6 {
                silent.push(TcpStream::connect(shop.address()).await.unwrap());
            }
            sleep(Duration::from_millis(1_100)).await;
        }
    };
    shop.serve_while(scan).await;
    shop.close().await;
}

/// A session in which this way pauses once before byte `at`; two orders end as ever.
async fn split_at(to_device: bool, at: u64) {
    let faults = Faults { split_at: Some(at), ..Faults::default() };
    let link = Link::start(if to_device { up(faults) } else { down(faults) }).await;
    link.push(page, 8).await;
    link.push(once, 8).await;
    link.all_applied_once().await;
    assert_eq!(link.server.stats().await.unwrap().push.fleet.sessions, 1, "{:?}", link.plan);
}

#[tokio::test]
async fn a_session_may_be_split_at_every_byte() {
    let len = page(&[0; 8]).encoded_len() as u64;
    let to_device = (0..AFTER_HELLO).step_by(7).chain(AFTER_HELLO..AFTER_HELLO + 2 * len);
    let to_server = (0..AFTER_WELCOME).step_by(7).chain(AFTER_WELCOME..AFTER_WELCOME + 52);
    each(to_device.map(|at| split_at(true, at))).await;
    each(to_server.map(|at| split_at(false, at))).await;
}

/// Two pieces of the stream arrive in the wrong order: the session ends over it, visibly, and no order is lost.
async fn swapped(to_device: bool, at: u64) {
    let faults = Faults { swap: Some((at, 8)), ..Faults::default() };
    let mut link = Link::start(if to_device { up(faults) } else { down(faults) }).await;
    link.push(page, 8).await;
    link.push(once, 8).await;
    let why = link.hit(testkit::proxy::Plan::default()).await;
    let seen = match why {
        Ended::Broken(_) => !to_device && why.fault() == Fault::Peer,
        Ended::Bye { .. } | Ended::Closed(_) => to_device,
        _ => false,
    };
    assert!(seen, "{:?}: {why}", link.plan);
    link.push(once, 8).await;
    link.all_applied_once().await;
}

#[tokio::test]
async fn pieces_in_the_wrong_order_are_seen() {
    let len = page(&[0; 8]).encoded_len() as u64;
    // Where the two pieces differ.
    let inside = [0, 4, 8, 16, 36, 40, 48, 56, len - 8, len, len + 8, len + 40];
    each(inside.into_iter().map(|at| swapped(true, AFTER_HELLO + at))).await;
    each([0, 4, 8, 16, 20, 28, 32].into_iter().map(|at| swapped(false, AFTER_WELCOME + at))).await;
}
