//! The two sockets of a farm.

use core::array;
use core::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use core::time::Duration;
use std::io::{self, IoSliceMut};
use std::net::UdpSocket;

use discovery::Destination;
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, Socket, Type};

use super::Wire;
use super::drops::receive_drops;

/// Room for each read: the system may join datagrams of one sender.
const SLOT: usize = 65_536;
/// Asked for each socket: a farm must not lose what a server sends.
const BUFFER_BYTES: usize = 8 << 20;

/// A socket that sends from any address and hears what comes to any, and one that hears broadcasts.
#[derive(Debug)]
pub struct Sockets {
    all: Port,
    /// None if the first one has the port of broadcasts, and so hears them.
    broadcasts: Option<Port>,
    to: SocketAddrV4,
    room: Box<[u8]>,
    /// Datagrams the system did not take.
    pub send_errors: u64,
}

#[derive(Debug)]
struct Port {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl Port {
    fn open(at: SocketAddrV4, shared: bool) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.set_broadcast(true)?;
        // What the system's limit allows.
        let _smaller = socket.set_recv_buffer_size(BUFFER_BYTES);
        socket.set_reuse_address(shared)?;
        socket.bind(&at.into())?;
        let socket = UdpSocket::from(socket);
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Self { socket, state })
    }

    fn address(&self) -> Option<SocketAddrV4> {
        match self.socket.local_addr() {
            Ok(SocketAddr::V4(at)) => Some(at),
            _ => None,
        }
    }
}

impl Sockets {
    /// Sends from `source_port` (0: any), hears broadcasts at `broadcast`.
    pub fn open(source_port: u16, broadcast: SocketAddrV4) -> io::Result<Self> {
        let all = Port::open(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, source_port), false)?;
        let broadcasts =
            if source_port == broadcast.port() { None } else { Some(Port::open(broadcast, true)?) };
        let room = vec![0; SLOT * BATCH_SIZE].into_boxed_slice();
        Ok(Self { all, broadcasts, to: broadcast, room, send_errors: 0 })
    }

    /// Waits until something can be read, `within` at most.
    pub fn wait(&self, within: Duration) -> io::Result<()> {
        let timeout = Timespec {
            tv_sec: i64::try_from(within.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(within.subsec_nanos()),
        };
        let broadcasts = self.broadcasts.as_ref().unwrap_or(&self.all);
        let mut fds = [&self.all, broadcasts].map(|port| PollFd::new(&port.socket, PollFlags::IN));
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Hands over what one read of each socket brings: whether it was a broadcast, the address it was sent to, its source and
    /// its bytes. False if that was all there was.
    pub fn receive(
        &mut self,
        mut hand_over: impl FnMut(&mut Self, bool, Option<Ipv4Addr>, SocketAddrV4, &[u8]),
    ) -> io::Result<bool> {
        let mut more = false;
        let mut room = core::mem::take(&mut self.room);
        for broadcast in [true, false] {
            let port = if broadcast { self.broadcasts.as_ref() } else { Some(&self.all) };
            let Some(port) = port else { continue };
            let mut metas = [RecvMeta::default(); BATCH_SIZE];
            let mut slots = room.chunks_exact_mut(SLOT);
            let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
                array::from_fn(|_| IoSliceMut::new(slots.next().unwrap_or_default()));
            let count = match port.state.recv((&port.socket).into(), &mut slices, &mut metas) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => {
                    self.room = room;
                    return Err(error);
                }
            };
            more |= count == BATCH_SIZE;
            for (meta, slot) in metas.iter().take(count).zip(room.chunks_exact(SLOT)) {
                let SocketAddr::V4(source) = meta.addr else { continue };
                let to = match meta.dst_ip {
                    Some(IpAddr::V4(to)) => Some(to),
                    _ => None,
                };
                let broadcast = broadcast || to.is_some_and(|to| to == *self.to.ip() || to.is_broadcast());
                for bytes in slot[..meta.len].chunks(meta.stride.max(1)) {
                    hand_over(self, broadcast, to, source, bytes);
                }
            }
        }
        self.room = room;
        Ok(more)
    }

    /// Sends a datagram from an address of this host.
    pub fn send_from(&mut self, from: Ipv4Addr, to: SocketAddrV4, bytes: &[u8]) -> io::Result<()> {
        let transmit = Transmit {
            destination: to.into(),
            ecn: None,
            contents: bytes,
            segment_size: None,
            src_ip: Some(from.into()),
        };
        self.all.state.try_send((&self.all.socket).into(), &transmit)
    }

    /// Datagrams the system dropped because these sockets were full.
    #[must_use]
    pub fn drops(&self) -> u64 {
        let ports = self.broadcasts.iter().chain([&self.all]);
        ports.filter_map(Port::address).filter_map(receive_drops).sum()
    }
}

impl Wire for Sockets {
    fn send(&mut self, from: Ipv4Addr, to: Destination, bytes: &[u8]) {
        let to = match to {
            Destination::Broadcast(_) => self.to,
            Destination::Unicast(_, to) => to,
        };
        self.send_errors += u64::from(self.send_from(from, to, bytes).is_err());
    }
}
