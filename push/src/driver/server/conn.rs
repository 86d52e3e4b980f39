//! How a socket to a device is opened: its options, and a dial that does not block.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::fleet::DialError;

/// Milliseconds after which the kernel gives up on bytes nobody acknowledged.
const USER_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes the kernel takes beyond what it can send at once.
const NOTSENT_MAX: u32 = 16 << 10;
/// Bytes from one device the kernel keeps for us unread.
const RECEIVE_BUFFER: usize = 32 << 10;

/// How the sockets to devices are opened.
///
/// Every socket has `TCP_NODELAY`: an order is one write, and must not wait for the acknowledgement of the one before.
/// Options the system refuses are left as they are: an order arrives without them too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnConfig {
    /// Dial from this address; `None` leaves the choice to the system.
    pub source: Option<IpAddr>,
    /// Who tells which sockets are ready.
    pub poller: Poller,
    /// `TCP_USER_TIMEOUT`, where the platform has it: after this time without an acknowledgement the kernel closes the
    /// connection. 5 s, as long as the fleet itself waits for a silent device: without it a connection whose last bytes
    /// were lost would be kept and repeated for a quarter of an hour.
    pub user_timeout: Duration,
    /// `TCP_NOTSENT_LOWAT`, where the platform has it, in bytes: how much the kernel takes that it cannot send yet.
    /// 16 KiB. What it holds cannot be overtaken any more: an urgent order waits behind it, 1.3 ms on a link of 100 Mb/s,
    /// instead of behind the hundreds of kilobytes a send buffer grows to. `None` leaves it to the system.
    pub notsent_max: Option<u32>,
    /// `SO_SNDBUF` in bytes. `None` (the default) leaves it to the system, which grows it with the link: what a device
    /// is sent unasked is bounded by its window already.
    pub send_buffer: Option<usize>,
    /// `SO_RCVBUF` in bytes; Linux books twice as much, for its own headers. 32 KiB: devices send little, and a device
    /// that floods us fills this and no more of the kernel's memory (10,000 of them 640 MB, not the 60 GB the system's
    /// own limit allows). `None` leaves it to the system.
    pub receive_buffer: Option<usize>,
}

/// Who tells which sockets are ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Poller {
    /// The best this system has: on Linux one epoll instance per shard, of which tokio watches one descriptor;
    /// elsewhere, or if the system refuses, [`Poller::Portable`].
    #[default]
    System,
    /// tokio's own sockets, and a waker per device. Works wherever tokio does, for some 300 bytes more per device.
    Portable,
}

impl Default for ConnConfig {
    fn default() -> Self {
        Self {
            source: None,
            poller: Poller::System,
            user_timeout: USER_TIMEOUT,
            notsent_max: Some(NOTSENT_MAX),
            send_buffer: None,
            receive_buffer: Some(RECEIVE_BUFFER),
        }
    }
}

impl ConnConfig {
    /// Begins to dial. The socket becomes writable when there is an answer; [`Socket::take_error`] has it.
    pub(super) fn dial(&self, address: SocketAddr) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        self.set_options(&socket);
        let source = self.source.filter(|source| source.is_ipv4() == address.is_ipv4());
        if let Some(source) = source.filter(|&source| !is_chosen_anyway(source, address)) {
            // A bound socket takes a port of its source address for itself, for a minute longer than it lives: three
            // restarts with 10,000 devices would use up all 28,000. With this it shares the port with dials to others.
            #[cfg(not(windows))]
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if in_progress(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(socket)
    }

    /// The buffers have to be set before the handshake, which tells the peer how large a window may become.
    fn set_options(&self, socket: &Socket) {
        let _ = socket.set_tcp_nodelay(true);
        if let Some(bytes) = self.send_buffer {
            let _ = socket.set_send_buffer_size(bytes);
        }
        if let Some(bytes) = self.receive_buffer {
            let _ = socket.set_recv_buffer_size(bytes);
        }
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            let _ = socket.set_tcp_user_timeout(Some(self.user_timeout));
            if let Some(bytes) = self.notsent_max {
                let _ = socket.set_tcp_notsent_lowat(bytes);
            }
        }
    }
}

/// Whether a dial to `address` leaves from `source` without being told. Then it need not be bound: Linux searches a port for
/// a bound socket among those of all others, most of a millisecond with 10,000 of them, and gives each to one only, while
/// those it finds for a connection are shared by devices.
fn is_chosen_anyway(source: IpAddr, address: SocketAddr) -> bool {
    // Nothing is sent: a socket for datagrams is given its address by the routes.
    let chosen = || {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.connect(&address.into())?;
        socket.local_addr()
    };
    chosen().is_ok_and(|local| local.as_socket().is_some_and(|local| local.ip() == source))
}

#[cfg(unix)]
fn in_progress(error: &io::Error) -> bool {
    // EINPROGRESS has no `ErrorKind` of its own in this release; the number is the same on every Linux but MIPS and SPARC.
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(EINPROGRESS)
}

#[cfg(all(unix, any(target_os = "linux", target_os = "android")))]
const EINPROGRESS: i32 = 115;
#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
const EINPROGRESS: i32 = 36;

#[cfg(not(unix))]
fn in_progress(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// Why a dial failed, in the words of the core.
pub(super) fn dial_error(error: &io::Error) -> DialError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => DialError::Refused,
        io::ErrorKind::TimedOut => DialError::TimedOut,
        _ => DialError::Unreachable,
    }
}
