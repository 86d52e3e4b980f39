//! Sockets: how they are opened, read in batches, and sent from. Nothing here knows an interface's name or a rule.
//!
//! | | Linux | elsewhere |
//! | --- | --- | --- |
//! | receiving | one `recvmmsg` for up to 32 datagrams | one call each |
//! | sending from the socket of one address | one `sendmmsg` for up to 16 datagrams | one call each |
//! | sending from the socket for every address | one call each: the source address is pinned per datagram, and `sendmmsg` behind a safe interface has no room for that | the same |
//!
//! Errors: a socket that is not connected gets no ICMP errors on Linux. Windows reports a neighbour's "port unreachable"
//! (WSAECONNRESET), "time exceeded" (WSAENETRESET) and every datagram that is longer than its slot (WSAEMSGSIZE) as
//! errors of the next receive; nobody below us switches that off (`SIO_UDP_CONNRESET`: not tokio, mio, socket2 or
//! quinn-udp), and it needs no switch: each such error is taken off the queue like the datagram it stands for.

use core::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use core::task::{Context, Poll};
use std::io;

use quinn_udp::UdpSocketState;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::batch::Batch;
use super::outbox::{Outbox, Outgoing};
use super::{OpenError, Opening};

/// Asked of the system for each socket's receive queue by default: on Linux, 4 MiB hold an announce from each of 10,000 devices.
pub const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// Whether one read fills as many slots as there are datagrams, so that an empty slot means an empty queue.
const READS_MANY: bool = cfg!(any(target_os = "linux", target_os = "android", target_os = "freebsd"));

/// The sockets through which a node hears unicast and broadcast on the protocol's port.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// Hears unicast, and sends everything.
    unicast: Port,
    /// Hear broadcasts where the node is bound to one address; none elsewhere.
    broadcasts: Vec<Port>,
    /// What tests make fail.
    #[cfg(test)]
    pub(crate) faults: super::faults::Faults,
}

#[derive(Debug)]
struct Port {
    socket: UdpSocket,
    state: UdpSocketState,
    /// The one address it is bound to, where that is also the one everything it hears was sent to. `None`: the system
    /// tells with every datagram.
    bound: Option<Ipv4Addr>,
}

impl Sockets {
    /// One socket for every address of this host, exclusive.
    pub(crate) fn wildcard(port: u16) -> Result<Self, OpenError> {
        let at = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
        Ok(Self::new(Port::told(Opening::Wildcard, at)?, Vec::new()))
    }

    /// One exclusive socket for `address`, and shared ones for `broadcast` and for 255.255.255.255, which nodes that are
    /// not bound to an address send to: every such socket of the host hears each broadcast.
    pub(crate) fn bound(address: Ipv4Addr, broadcast: Ipv4Addr, port: u16) -> Result<Self, OpenError> {
        let at = SocketAddrV4::new(address, port);
        if cfg!(windows) {
            // There a socket bound to an address hears the broadcasts of its interface, and none can be bound to a
            // broadcast address.
            return Ok(Self::new(Port::told(Opening::Unicast, at)?, Vec::new()));
        }
        let unicast = Port::bound(Opening::Unicast, at)?;
        let mut broadcasts = vec![Port::bound(Opening::Broadcast, SocketAddrV4::new(broadcast, port))?];
        if !address.is_loopback() && !broadcast.is_broadcast() {
            let limited = SocketAddrV4::new(Ipv4Addr::BROADCAST, port);
            match Port::bound(Opening::Broadcast, limited) {
                Ok(port) => broadcasts.push(port),
                Err(error) if error.kind() == super::OpenErrorKind::NoSuchAddress => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self::new(unicast, broadcasts))
    }

    fn new(unicast: Port, broadcasts: Vec<Port>) -> Self {
        Self {
            unicast,
            broadcasts,
            #[cfg(test)]
            faults: super::faults::Faults::default(),
        }
    }

    /// Asks the system for so many bytes of receive queue. A smaller one is granted silently on some systems and refused on
    /// others: both are survivable.
    pub(crate) fn ask_receive_buffer(&self, bytes: usize) {
        for port in self.broadcasts.iter().chain([&self.unicast]) {
            let _refused = socket2::SockRef::from(&port.socket).set_recv_buffer_size(bytes);
        }
    }

    /// Bytes the system granted to the receive queue (Linux counts its own overhead in, and reports the double).
    pub(crate) fn receive_buffer_bytes(&self) -> usize {
        let granted = |port: &Port| socket2::SockRef::from(&port.socket).recv_buffer_size().unwrap_or(0);
        self.broadcasts.iter().map(granted).fold(granted(&self.unicast), usize::min)
    }

    /// What Linux calls these sockets in its tables; nothing elsewhere, or if it does not tell.
    pub(crate) fn inodes(&self) -> Vec<u64> {
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd as _;
            use std::os::unix::fs::MetadataExt as _;
            let path = |port: &Port| format!("/proc/self/fd/{}", port.socket.as_raw_fd());
            let inode = |port: &Port| std::fs::metadata(path(port)).map(|file| file.ino());
            let ports = core::iter::once(&self.unicast).chain(&self.broadcasts);
            ports.map(inode).collect::<io::Result<_>>().unwrap_or_default()
        }
        #[cfg(not(target_os = "linux"))]
        Vec::new()
    }

    /// Ready when a datagram, or an error, waits.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        #[cfg(test)]
        if self.faults.receive_waits() {
            return Poll::Ready(());
        }
        let ready = |port: &Port, cx: &mut Context<'_>| port.socket.poll_recv_ready(cx).is_ready();
        // Each is asked, so that each wakes the task.
        let any = self.broadcasts.iter().fold(ready(&self.unicast, cx), |any, port| ready(port, cx) || any);
        if any { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Ready when the socket that sends takes another datagram, or has an error.
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.unicast.socket.poll_send_ready(cx).map(drop)
    }

    /// Adds what waits to `batch`, as far as it has room. An error leaves in `batch` what came before it; there may be
    /// more behind it.
    pub(crate) fn receive(&self, batch: &mut Batch) -> io::Result<()> {
        #[cfg(test)]
        self.faults.receive()?;
        // Each has a share of its own: a flood of one sort must not keep the other out.
        let mut result = Ok(());
        let share = Batch::SLOTS / 4;
        for port in &self.broadcasts {
            result = port.receive(batch, batch.len().saturating_add(share)).and(result);
        }
        self.unicast.receive(batch, Batch::SLOTS).and(result)
    }

    /// Sends from the `from`th datagram on, one at least, and gives how many. An error is about the `from`th.
    pub(crate) fn send(&self, outbox: &Outbox, from: usize) -> io::Result<usize> {
        #[cfg(test)]
        self.faults.send(outbox.iter_from(from).next())?;
        let mut posts = outbox.iter_from(from);
        #[cfg(target_os = "linux")]
        let together = outbox.iter_from(from).take_while(|post| !post.on_link).count();
        #[cfg(target_os = "linux")]
        if self.unicast.bound.is_some() && together > 1 {
            let posts = posts.take(together);
            #[cfg(test)]
            let posts = self.faults.fine(posts);
            let socket = &self.unicast.socket;
            return socket.try_io(Interest::WRITABLE, || super::sendmany::send(socket, posts));
        }
        let Some(one) = posts.next() else { return Ok(1) };
        self.unicast.send(&one).map(|()| 1)
    }
}

impl Port {
    fn bound(what: Opening, at: SocketAddrV4) -> Result<Self, OpenError> {
        Ok(Self { bound: Some(*at.ip()), ..Self::told(what, at)? })
    }

    fn told(what: Opening, at: SocketAddrV4) -> Result<Self, OpenError> {
        let socket = open(what, at)?;
        let state =
            UdpSocketState::new((&socket).into()).map_err(|source| OpenError::new(what, at, source))?;
        Ok(Self { socket, state, bound: None })
    }

    /// Fills `batch` up to `limit` slots.
    fn receive(&self, batch: &mut Batch, limit: usize) -> io::Result<()> {
        while batch.len() < limit.min(Batch::SLOTS) {
            match self.receive_some(batch, limit) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn receive_some(&self, batch: &mut Batch, limit: usize) -> io::Result<usize> {
        batch.fill(limit, self.bound, |slices, metas| {
            let mut count = 0;
            let result = self.socket.try_io(Interest::READABLE, || {
                count = self.state.recv((&self.socket).into(), slices, metas)?;
                // Fewer than asked for: the queue is empty, and saying so here spares the read that would find out.
                if READS_MANY && count < slices.len() {
                    Err(io::ErrorKind::WouldBlock.into())
                } else {
                    Ok(())
                }
            });
            if count == 0 { result.map(|()| 0) } else { Ok(count) }
        })
    }

    /// Sends one datagram. Its source address decides which interface a limited broadcast leaves by. For a subnet's own
    /// broadcast address it does not: while that interface is down, Linux would hand it to the default gateway.
    fn send(&self, one: &Outgoing<'_>) -> io::Result<()> {
        let socket = &self.socket;
        #[cfg(target_os = "linux")]
        if one.on_link {
            let past_routers = rustix::net::SendFlags::DONTROUTE;
            let send = || Ok(rustix::net::sendto(socket, one.bytes, past_routers, &one.to)?);
            return socket.try_io(Interest::WRITABLE, send).map(drop);
        }
        if self.bound.is_some() {
            return socket.try_send_to(one.bytes, one.to.into()).map(drop);
        }
        let transmit = quinn_udp::Transmit {
            destination: one.to.into(),
            ecn: None,
            contents: one.bytes,
            segment_size: None,
            src_ip: one.source.map(IpAddr::V4),
        };
        socket.try_io(Interest::WRITABLE, || self.state.try_send(socket.into(), &transmit))
    }
}

fn open(what: Opening, at: SocketAddrV4) -> Result<UdpSocket, OpenError> {
    let wrap = |source| OpenError::new(what, at, source);
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).map_err(wrap)?;
    socket.set_nonblocking(true).map_err(wrap)?;
    socket.set_broadcast(true).map_err(wrap)?;
    if what == Opening::Broadcast {
        socket.set_reuse_address(true).map_err(wrap)?;
    }
    socket.bind(&at.into()).map_err(wrap)?;
    UdpSocket::from_std(socket.into()).map_err(wrap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_flood_of_unicasts_leaves_room_for_broadcasts() {
        let at = Ipv4Addr::new(127, 41, 0, 1);
        let sockets = Sockets::bound(at, Ipv4Addr::new(127, 255, 255, 255), 41_471).unwrap();
        let sender = std::net::UdpSocket::bind((Ipv4Addr::new(127, 41, 0, 2), 0)).unwrap();
        sender.set_broadcast(true).unwrap();
        for _ in 0..Batch::SLOTS * 2 {
            sender.send_to(&[1; 100], (at, 41_471)).unwrap();
        }
        sender.send_to(&[2; 10], "127.255.255.255:41471").unwrap();
        core::future::poll_fn(|cx| sockets.poll_readable(cx)).await;
        let mut batch = Batch::new();
        let mut broadcasts = 0;
        for _ in 0..3 {
            batch.clear();
            sockets.receive(&mut batch).unwrap();
            broadcasts += batch.iter().filter(|one| one.bytes == [2; 10]).count();
        }
        assert_eq!(broadcasts, 1);
        assert!(sockets.receive_buffer_bytes() >= 100_000);
    }
}
