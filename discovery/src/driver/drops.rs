//! How many datagrams the system has dropped at our sockets for want of room.
//!
//! Linux counts them for each socket and shows them in `/proc/self/net/udp`. There are ways to be told with each datagram
//! (SO_RXQ_OVFL), but none behind a safe interface, and a number every 100 ms is as good: it widens the next reply window.
//! Elsewhere nothing tells, and the rate at which announces arrive does it alone.

use core::time::Duration;
use std::fs::File;
use std::io::{self, Read, Seek};

use wire_format::time::Instant;

/// Where Linux shows its UDP sockets.
const PATH: &str = "/proc/self/net/udp";

/// Bytes of it that are read at most: 2,048 sockets. On a host with more of them the number may stay unknown.
const BYTES_MAX: usize = 256 << 10;

/// Read at a time.
const CHUNK_BYTES: usize = 8 << 10;

/// The shortest time between two looks.
const LOOK_APART: Duration = Duration::from_millis(100);

/// The same after a look that did not find our sockets. It read all it may, which takes milliseconds, and ours are still
/// behind thousands of others a moment later.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Looks at the counters once in a while.
#[derive(Debug)]
pub(crate) struct DropWatch<F = File> {
    counter: Option<DropCounter<F>>,
    at: Instant,
}

impl DropWatch {
    pub(crate) fn new(inodes: Vec<u64>) -> Self {
        Self { counter: DropCounter::open(inodes), at: Instant::ZERO }
    }
}

impl<F: Read + Seek> DropWatch<F> {
    /// Datagrams dropped so far; `None` if nobody knows, or the last look was less than 100 ms ago (10 s, if it found
    /// nothing).
    pub(crate) fn look(&mut self, now: Instant) -> Option<u64> {
        let counter = self.counter.as_mut().filter(|_| now >= self.at)?;
        let drops = counter.read();
        self.at = now + if drops.is_some() { LOOK_APART } else { LOOK_AGAIN };
        drops
    }
}

/// Reads the counters of some sockets.
#[derive(Debug)]
struct DropCounter<F = File> {
    file: F,
    /// The numbers the sockets go by there, each with what this look found of it. A socket may be shown twice when others
    /// come and go between two reads.
    sockets: Vec<(u64, Option<u64>)>,
    buffer: Box<[u8]>,
}

impl DropCounter {
    /// A counter for the sockets with these inodes; `None` if the system does not show it.
    fn open(inodes: Vec<u64>) -> Option<Self> {
        if inodes.is_empty() || !cfg!(target_os = "linux") {
            return None;
        }
        // Kept open: it shows the sockets of the network namespace it was opened in.
        Some(Self::new(File::open(PATH).ok()?, inodes))
    }
}

impl<F: Read + Seek> DropCounter<F> {
    fn new(file: F, inodes: Vec<u64>) -> Self {
        let sockets = inodes.into_iter().map(|inode| (inode, None)).collect();
        Self { file, sockets, buffer: vec![0; CHUNK_BYTES].into_boxed_slice() }
    }

    /// Datagrams dropped at all of them since they were opened; `None` if not all were found. Takes some 20 µs on a host
    /// with few sockets, and no memory.
    fn read(&mut self) -> Option<u64> {
        self.file.rewind().ok()?;
        self.sockets.iter_mut().for_each(|(_, drops)| *drops = None);
        let mut kept = 0_usize;
        for _ in 0..BYTES_MAX / CHUNK_BYTES {
            let len = match self.file.read(self.buffer.get_mut(kept..)?) {
                Ok(0) => break,
                Ok(len) => kept.saturating_add(len),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return None,
            };
            let text = self.buffer.get(..len)?;
            let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end.saturating_add(1));
            for (inode, drops) in text.get(..whole)?.split(|&byte| byte == b'\n').filter_map(counter) {
                for socket in self.sockets.iter_mut().filter(|socket| socket.0 == inode) {
                    socket.1 = Some(drops);
                }
            }
            let total = self.sockets.iter().map(|(_, drops)| *drops).sum();
            if let Some(total) = total {
                return Some(total);
            }
            self.buffer.copy_within(whole..len, 0);
            kept = len.saturating_sub(whole);
        }
        None
    }
}

/// Inode and drops of a line: its tenth word and its last.
fn counter(line: &[u8]) -> Option<(u64, u64)> {
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let inode = number(words.nth(9)?)?;
    Some((inode, number(words.nth(2)?)?))
}

fn number(word: &[u8]) -> Option<u64> {
    core::str::from_utf8(word).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_system_and_lines_that_are_none() {
        let line = b" 1024: C8CC3D7F:A21E 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 48213 2 \
                     0000000000000000 117      ";
        assert_eq!(counter(line), Some((48_213, 117)));
        let title = b"   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode \
                      ref pointer drops             ";
        assert_eq!(counter(title), None);
        for len in 0..line.len() - 10 {
            assert_eq!(counter(&line[..len]), None, "{len}");
        }
    }

    #[test]
    fn as_many_sockets_as_are_read_and_one_more() {
        let line = |inode: usize| {
            let line = format!("{inode}: 0:1 0:0 07 0:0 0:0 0 0 0 {inode} 2 0 5");
            format!("{line:127}\n")
        };
        let last = BYTES_MAX / 128;
        let text: String = (1..=last + 1).map(line).collect();
        let read =
            |inodes: &[u64]| DropCounter::new(io::Cursor::new(text.as_bytes()), inodes.to_vec()).read();
        assert_eq!(read(&[1, 700, last as u64]), Some(15));
        assert_eq!(read(&[1, last as u64 + 1]), None);
    }

    #[test]
    fn a_socket_that_is_shown_twice_counts_once() {
        let line = |inode: u64, drops: u64| format!("1: 0:1 0:0 07 0:0 0:0 0 0 0 {inode} 2 0 {drops}\n");
        let text = [line(7, 5), line(7, 5), line(8, 6)].concat();
        let read =
            |inodes: &[u64]| DropCounter::new(io::Cursor::new(text.as_bytes()), inodes.to_vec()).read();
        assert_eq!((read(&[7, 8]), read(&[7, 9]), read(&[8])), (Some(11), None, Some(6)));
    }

    #[test]
    fn looks_are_a_tenth_of_a_second_apart_and_ten_seconds_after_one_that_found_nothing() {
        let mut watch = DropWatch::<io::Cursor<&[u8]>> { counter: None, at: Instant::ZERO };
        assert_eq!((watch.look(Instant::ZERO), watch.at), (None, Instant::ZERO), "nobody tells");
        let list =
            |text: &'static str, inode| DropCounter::new(io::Cursor::new(text.as_bytes()), vec![inode]);
        let line = "1: 0:1 0:0 07 0:0 0:0 0 0 0 7 2 0 3\n";
        watch.counter = Some(list(line, 7));
        let ms = |ms| Instant::ZERO + Duration::from_millis(ms);
        assert_eq!([0, 50, 99, 100].map(|at| watch.look(ms(at))), [Some(3), None, None, Some(3)]);
        watch.counter = Some(list(line, 8));
        assert_eq!((watch.look(ms(200)), watch.at), (None, ms(10_200)), "it is not in the list");
        watch.counter = Some(list(line, 7));
        assert_eq!([300, 10_199, 10_200].map(|at| watch.look(ms(at))), [None, None, Some(3)]);
        assert_eq!(watch.at, ms(10_300));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_a_small_queue_drops_is_counted() {
        use std::os::unix::fs::MetadataExt as _;
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        let at = std::net::SocketAddr::from(([127, 43, 0, 1], 41_473));
        socket.bind(&at.into()).unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
        let inode = std::fs::metadata(format!("/proc/self/fd/{fd}")).unwrap().ino();
        let mut counter = DropCounter::open(vec![inode]).unwrap();
        assert_eq!(counter.read(), Some(0));
        let sender = std::net::UdpSocket::bind("127.43.0.2:0").unwrap();
        for _ in 0..1_000 {
            sender.send_to(&[7; 100], at).unwrap();
        }
        socket.set_nonblocking(true).unwrap();
        let received =
            core::iter::repeat_with(|| (&socket).read(&mut [0; 200])).take_while(Result::is_ok).count();
        assert!(received < 900, "{received}");
        assert_eq!(counter.read(), Some(1_000 - received as u64));
        assert_eq!(
            DropCounter::open(vec![inode, 1]).and_then(|mut one| one.read()),
            None,
            "one is not there"
        );
    }
}
