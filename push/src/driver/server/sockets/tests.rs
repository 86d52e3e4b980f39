//! Both pollers over real sockets.

use std::future::poll_fn;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Builder;

use super::*;

const NOW: Instant = Instant::ZERO;
const POLLERS: [Poller; 2] = [Poller::System, Poller::Portable];
const FIRST: DeviceIndex = DeviceIndex(0);
const SECOND: DeviceIndex = DeviceIndex(1);

/// Sockets of a poller, with their peers.
struct Bench {
    sockets: Sockets,
    listener: TcpListener,
    inbox: Vec<u8>,
}

impl Bench {
    fn new(poller: Poller, devices: u32) -> Self {
        let config = ConnConfig { poller, ..ConnConfig::default() };
        let mut sockets = Sockets::new(config, devices as usize);
        (0..devices).for_each(|device| sockets.add(DeviceIndex(device)));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { sockets, listener, inbox: vec![0; 64 << 10] }
    }

    fn dial(&mut self, device: DeviceIndex) {
        self.sockets.dial(NOW, device, self.listener.local_addr().unwrap()).unwrap();
    }

    /// Dials, and waits for both ends of the connection.
    async fn connect(&mut self, device: DeviceIndex) -> TcpStream {
        self.dial(device);
        // Another one may be looked at for nothing.
        while !self.ready().await.contains(&(device, Look::Dialled(Ok(())))) {}
        assert_eq!(self.read(device), Read::Empty);
        self.listener.accept().unwrap().0
    }

    /// What is ready, once something is; the task sleeps before.
    async fn ready(&mut self) -> Vec<(DeviceIndex, Look)> {
        let sockets = &mut self.sockets;
        let looks = poll_fn(|cx| {
            loop {
                let any = sockets.poll_ready(cx);
                let looks: Vec<_> = std::iter::from_fn(|| sockets.next_ready()).collect();
                if looks.iter().any(|&(_, look)| look != Look::Nothing) {
                    return Poll::Ready(looks);
                }
                if !any {
                    return Poll::Pending;
                }
            }
        });
        let mut looks =
            tokio::time::timeout(Duration::from_secs(20), looks).await.expect("something is ready");
        looks.retain(|&(_, look)| look != Look::Nothing);
        looks
    }

    /// What is ready without waiting for it.
    async fn ready_now(&mut self) -> Vec<(DeviceIndex, Look)> {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let sockets = &mut self.sockets;
        poll_fn(|cx| {
            sockets.poll_ready(cx);
            let looks = std::iter::from_fn(|| sockets.next_ready());
            Poll::Ready(looks.filter(|&(_, look)| look != Look::Nothing).collect())
        })
        .await
    }

    fn read(&mut self, device: DeviceIndex) -> Read {
        self.sockets.read(device, &mut self.inbox)
    }
}

/// Runs a test with each poller, on a runtime of one thread and on one of two.
fn with_each<F: Future<Output = ()> + Send>(test: impl Fn(Poller) -> F) {
    for poller in POLLERS {
        let mut builders = [Builder::new_current_thread(), Builder::new_multi_thread()];
        for builder in &mut builders {
            let runtime = builder.worker_threads(2).enable_all().build().unwrap();
            // As the shard runs: tokio's budget would make sockets look empty in the middle of a turn.
            runtime.block_on(tokio::task::unconstrained(test(poller)));
        }
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn linux_has_a_poller_of_its_own() {
    let polled = |poller| Sockets::new(ConnConfig { poller, ..ConnConfig::default() }, 1).polled;
    assert!(matches!(polled(Poller::System), Polled::Epoll(_)));
    assert!(matches!(polled(Poller::Portable), Polled::Wakers(_)));
}

#[test]
fn a_connection_is_dialled_read_written_and_ended() {
    with_each(|poller| async move {
        let mut bench = Bench::new(poller, 2);
        let mut peer = bench.connect(SECOND).await;
        peer.write_all(b"hello").unwrap();
        assert_eq!(bench.ready().await, [(SECOND, Look::Open { writable: false })]);
        assert_eq!((bench.read(SECOND), &bench.inbox[..5]), (Read::Bytes(5), &b"hello"[..]));
        assert_eq!(bench.read(SECOND), Read::Empty);
        for (head, body) in [(&b"he"[..], &b"ad"[..]), (b"", b"body"), (b"head", b"")] {
            assert_eq!(bench.sockets.write(SECOND, head, body).unwrap(), 4);
            let mut four = [0; 4];
            peer.read_exact(&mut four).unwrap();
            assert_eq!(four, *[head, body].concat());
        }
        drop(peer);
        assert_eq!(bench.ready().await, [(SECOND, Look::Open { writable: false })]);
        assert_eq!(bench.read(SECOND), Read::End(Closed::Eof));
        bench.sockets.close(SECOND);
        assert_eq!(bench.read(SECOND), Read::Empty);
        assert!(bench.sockets.write(SECOND, b"", b"late").is_err());
        assert!(bench.ready_now().await.is_empty());
    });
}

#[test]
fn a_refused_dial_says_so() {
    with_each(|poller| async move {
        let mut bench = Bench::new(poller, 1);
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        // Loopback may say so at once.
        if bench.sockets.dial(NOW, FIRST, address).is_ok() {
            assert_eq!(bench.ready().await, [(FIRST, Look::Dialled(Err(DialError::Refused)))]);
        }
        bench.sockets.close(FIRST);
        drop(bench.connect(FIRST).await);
    });
}

#[test]
fn a_dial_may_take_so_long_and_no_longer() {
    with_each(|poller| async move {
        let mut bench = Bench::new(poller, 2);
        bench.dial(FIRST);
        let deadline = bench.sockets.poll_timeout().unwrap();
        assert_eq!(deadline, NOW + CONNECT_WITHIN);
        assert_eq!(bench.sockets.poll_expired(NOW + (CONNECT_WITHIN - Duration::from_micros(1))), None);
        assert_eq!(bench.sockets.poll_expired(deadline), Some(FIRST));
        assert!(bench.ready_now().await.is_empty(), "its answer is nobody's any more");
        // An old dial's deadline means nothing to the next one, nor does one that ended in time.
        bench.dial(FIRST);
        bench.sockets.close(FIRST);
        let later = NOW + Duration::from_secs(1);
        bench.sockets.dial(later, FIRST, bench.listener.local_addr().unwrap()).unwrap();
        assert_eq!(bench.sockets.poll_expired(NOW + CONNECT_WITHIN), None);
        assert_eq!(bench.ready().await, [(FIRST, Look::Dialled(Ok(())))]);
        assert_eq!(bench.sockets.poll_expired(later + CONNECT_WITHIN), None);
        assert_eq!(bench.sockets.poll_timeout(), None);
    });
}

#[test]
fn what_is_left_of_a_cut_write_leaves_when_there_is_room() {
    with_each(|poller| async move {
        let mut bench = Bench::new(poller, 1);
        let mut peer = bench.connect(FIRST).await;
        let bytes: Vec<u8> = (0..16_u32 << 20).map(|n| (n % 251) as u8).collect();
        let mut sent = 0;
        // Until it takes nothing: what a second try after a cut write finds must not hide the news of room.
        while let left @ 1.. = bench.sockets.write(FIRST, b"", &bytes[sent..]).unwrap() {
            sent += left;
        }
        assert!(sent < bytes.len(), "no system takes 16 MB for a peer that does not read");
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            peer.read_to_end(&mut all).unwrap();
            all
        });
        while sent < bytes.len() {
            let looks = bench.ready().await;
            assert_eq!(bench.read(FIRST), Read::Empty);
            if !looks.contains(&(FIRST, Look::Open { writable: true })) {
                continue;
            }
            sent += bench.sockets.write(FIRST, &bytes[sent..sent + 1], &bytes[sent + 1..]).unwrap();
        }
        bench.sockets.close(FIRST);
        assert!(reader.join().unwrap() == bytes);
    });
}

#[test]
fn the_last_words_of_a_peer_are_read_before_its_end() {
    with_each(|poller| async move {
        let mut bench = Bench::new(poller, 1);
        let mut peer = bench.connect(FIRST).await;
        peer.write_all(b"bye").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(bench.ready().await, [(FIRST, Look::Open { writable: false })]);
        let mut read = bench.read(FIRST);
        assert_eq!(read, Read::Bytes(3));
        while !matches!(read, Read::End(_)) {
            if read == Read::Empty {
                bench.ready().await;
            }
            read = bench.read(FIRST);
        }
        assert_eq!(read, Read::End(Closed::Eof));
        // Half of it is closed; the other half still takes what a farewell needs.
        assert_eq!(bench.sockets.write(FIRST, b"", b"bye").unwrap(), 3);
    });
}

#[test]
fn news_of_a_closed_connection_do_not_hit_the_next_one() {
    with_each(|poller| async move {
        let mut bench = Bench::new(poller, 2);
        let mut peers = [bench.connect(FIRST).await, bench.connect(SECOND).await];
        for peer in &mut peers {
            peer.write_all(b"news").unwrap();
        }
        let [first, _second] = peers;
        // Closing with a linger of zero resets it: an error waits with the bytes.
        socket2::SockRef::from(&first).set_linger(Some(Duration::ZERO)).unwrap();
        drop(first);
        tokio::time::sleep(Duration::from_millis(20)).await;
        // The news of both are taken; before they are looked at, the first is closed and dialled again.
        let any = poll_fn(|cx| Poll::Ready(bench.sockets.poll_ready(cx))).await;
        let any = any || { poll_fn(|cx| Poll::Ready(bench.sockets.poll_ready(cx))).await };
        assert!(any);
        let (crowded, _crowd) = crowded();
        bench.sockets.dial(NOW, FIRST, crowded).unwrap();
        let looks: Vec<_> = std::iter::from_fn(|| bench.sockets.next_ready()).collect();
        let first = |&(device, look): &(DeviceIndex, Look)| device == FIRST && look != Look::Nothing;
        assert!(!looks.iter().any(first), "nobody has answered the second dial: {looks:?}");
        assert_eq!(bench.read(FIRST), Read::Empty);
        assert_eq!(bench.read(SECOND), Read::Bytes(4), "others keep their news");
        assert_eq!(bench.read(SECOND), Read::Empty);
        assert!(!bench.ready_now().await.iter().any(first));
        assert_eq!(bench.sockets.poll_expired(NOW + CONNECT_WITHIN), Some(FIRST));
    });
}

/// A listener whose queue is full: dials to it are not answered.
fn crowded() -> (SocketAddr, Vec<Socket>) {
    let listener = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut crowd: Vec<_> = (0..4).map(|_| ConnConfig::default().dial(address).unwrap()).collect();
    crowd.push(listener);
    (address, crowd)
}

#[test]
fn who_fills_the_inbox_is_served_again_without_further_news() {
    with_each(|poller| async move {
        let mut bench = Bench::new(poller, 1);
        let mut peer = bench.connect(FIRST).await;
        let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        let copy = bytes.clone();
        let writer = std::thread::spawn(move || peer.write_all(&copy).map(|()| peer));
        let mut all = Vec::new();
        while all.len() < bytes.len() {
            bench.ready().await;
            loop {
                match bench.read(FIRST) {
                    Read::Full(len) => {
                        all.extend_from_slice(&bench.inbox[..len]);
                        bench.sockets.relist(FIRST);
                        bench.sockets.relist(FIRST);
                        break;
                    }
                    Read::Bytes(len) => all.extend_from_slice(&bench.inbox[..len]),
                    Read::Empty => break,
                    Read::End(how) => panic!("{how:?}"),
                }
            }
        }
        drop(writer.join().unwrap().unwrap());
        assert!(all == bytes);
    });
}

#[test]
fn a_cut_frame_waits_for_its_rest() {
    with_each(|poller| async move {
        let mut bench = Bench::new(poller, 1);
        let mut peer = bench.connect(FIRST).await;
        peer.write_all(b"half a fra").unwrap();
        bench.ready().await;
        assert_eq!(bench.read(FIRST), Read::Bytes(10));
        bench.sockets.keep(FIRST, b"a fra");
        assert_eq!(bench.read(FIRST), Read::Empty, "what is kept is no news");
        peer.write_all(b"me").unwrap();
        bench.ready().await;
        assert_eq!((bench.read(FIRST), &bench.inbox[..7]), (Read::Bytes(7), &b"a frame"[..]));
        assert_eq!(bench.read(FIRST), Read::Empty);
        // A connection's rest dies with it.
        bench.sockets.keep(FIRST, b"old");
        let mut peer = bench.connect(FIRST).await;
        peer.write_all(b"new").unwrap();
        bench.ready().await;
        assert_eq!((bench.read(FIRST), &bench.inbox[..3]), (Read::Bytes(3), &b"new"[..]));
    });
}

#[test]
fn no_wake_up_is_lost_between_many_devices() {
    const DEVICES: u32 = 40;
    const ROUNDS: u8 = 50;
    with_each(|poller| async move {
        let mut bench = Bench::new(poller, DEVICES);
        let mut peers = Vec::new();
        for device in 0..DEVICES {
            peers.push(bench.connect(DeviceIndex(device)).await);
        }
        // Each answers every byte, all of them from one thread, in its own time.
        let echo = std::thread::spawn(move || {
            for round in 0..ROUNDS {
                for peer in &mut peers {
                    let mut byte = [0];
                    peer.read_exact(&mut byte).unwrap();
                    assert_eq!(byte, [round]);
                    peer.write_all(&byte).unwrap();
                }
            }
            peers
        });
        for round in 0..ROUNDS {
            for device in 0..DEVICES {
                assert_eq!(bench.sockets.write(DeviceIndex(device), b"", &[round]).unwrap(), 1);
            }
            let mut missing = DEVICES;
            while missing != 0 {
                for (device, _) in bench.ready().await {
                    while let Read::Bytes(len) = bench.read(device) {
                        assert_eq!(bench.inbox[..len], [round]);
                        missing -= 1;
                    }
                }
            }
        }
        drop(echo.join().unwrap());
    });
}

#[cfg(target_os = "linux")]
#[test]
fn as_many_ready_devices_as_one_look_takes_and_one_more() {
    use crate::driver::server::epoll::EVENTS_MAX;
    with_each(|poller| async move {
        let devices = EVENTS_MAX as u32 + 1;
        let mut bench = Bench::new(poller, devices);
        let mut peers = Vec::new();
        for device in 0..devices {
            peers.push(bench.connect(DeviceIndex(device)).await);
        }
        for peer in &mut peers {
            peer.write_all(b"x").unwrap();
        }
        let mut seen = vec![0; devices as usize];
        let (mut turns, mut missing) = (0, devices);
        while missing != 0 {
            turns += 1;
            for (device, _) in bench.ready_now().await {
                seen[device.0 as usize] += 1;
                missing -= u32::from(bench.read(device) == Read::Bytes(1));
                assert_eq!(bench.read(device), Read::Empty);
            }
        }
        if poller == Poller::System {
            assert!(seen.iter().all(|&seen| seen == 1), "each once");
            assert_eq!(turns, 2);
        }
    });
}

#[cfg(target_os = "linux")]
#[test]
fn sockets_have_the_options_that_were_asked_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let usual = ConnConfig::default().dial(address).unwrap();
    assert!(usual.tcp_nodelay().unwrap());
    assert_eq!(usual.tcp_user_timeout().unwrap(), Some(Duration::from_secs(5)));
    assert_eq!(usual.tcp_notsent_lowat().unwrap(), 16 << 10);
    assert_eq!(usual.recv_buffer_size().unwrap(), 64 << 10, "Linux books twice as much");
    let special = ConnConfig {
        user_timeout: Duration::from_secs(7),
        notsent_max: Some(4_096),
        send_buffer: Some(20_000),
        receive_buffer: None,
        source: Some("127.0.0.9".parse().unwrap()),
        ..ConnConfig::default()
    };
    let special = special.dial(address).unwrap();
    assert_eq!(special.tcp_user_timeout().unwrap(), Some(Duration::from_secs(7)));
    assert_eq!(special.tcp_notsent_lowat().unwrap(), 4_096);
    assert_eq!(special.send_buffer_size().unwrap(), 40_000);
    assert_eq!(special.local_addr().unwrap().as_socket().unwrap().ip().to_string(), "127.0.0.9");
}
