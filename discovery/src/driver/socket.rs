//! Sockets: how they are opened, read in batches, and sent from. Nothing here knows an interface's name or a rule.

use core::array;
use core::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use core::task::{Context, Poll};
use std::io::{self, IoSliceMut};

use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::{OpenError, Opening};

/// Asked of the system for each socket's receive queue by default: on Linux, 4 MiB hold an announce from each of 10,000 devices.
pub const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// Room for one datagram: above the protocol's 1,200 bytes, so that a longer one is seen to be longer.
const DATAGRAM_BYTES: usize = 2_048;

/// Room for what Linux may join into one read (receive offload): up to 64 datagrams of one sender. The pages nobody
/// writes to cost no memory.
const JOINED_BYTES: usize = 65_536;

/// Whether one read fills as many slots as there are datagrams, so that an empty slot means an empty queue.
const READS_MANY: bool = cfg!(any(target_os = "linux", target_os = "android", target_os = "freebsd"));

/// The sockets through which a node hears unicast and broadcast on the protocol's port.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// Hears unicast, and sends everything.
    unicast: Port,
    /// Hear broadcasts where the node is bound to one address; none elsewhere.
    broadcasts: Vec<Port>,
}

#[derive(Debug)]
struct Port {
    socket: UdpSocket,
    reach: Reach,
}

/// How a port knows where a datagram was addressed to.
#[derive(Debug)]
enum Reach {
    /// It is bound to one address, so that is the one.
    Bound(Ipv4Addr),
    /// The system tells with every datagram.
    Told(UdpSocketState),
}

impl Sockets {
    /// One socket for every address of this host, exclusive.
    pub(crate) fn wildcard(port: u16) -> Result<Self, OpenError> {
        let at = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
        Ok(Self { unicast: Port::told(Opening::Wildcard, at)?, broadcasts: Vec::new() })
    }

    /// One exclusive socket for `address`, and shared ones for `broadcast` and for 255.255.255.255, which nodes that are
    /// not bound to an address send to: every such socket of the host hears each broadcast.
    pub(crate) fn bound(address: Ipv4Addr, broadcast: Ipv4Addr, port: u16) -> Result<Self, OpenError> {
        let at = SocketAddrV4::new(address, port);
        if cfg!(windows) {
            // There a socket bound to an address hears the broadcasts of its interface, and none can be bound to a
            // broadcast address.
            return Ok(Self { unicast: Port::told(Opening::Unicast, at)?, broadcasts: Vec::new() });
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
        Ok(Self { unicast, broadcasts })
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

    /// Ready when a datagram, or an error, waits.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let ready = |port: &Port, cx: &mut Context<'_>| port.socket.poll_recv_ready(cx).is_ready();
        // Each is asked, so that each wakes the task.
        let any = self.broadcasts.iter().fold(ready(&self.unicast, cx), |any, port| ready(port, cx) || any);
        if any { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Ready when the socket that sends takes another datagram, or has an error.
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.unicast.socket.poll_send_ready(cx).map(drop)
    }

    /// Moves what waits into `batch`, as far as it has room. An error leaves in `batch` what came before it.
    pub(crate) fn receive(&self, batch: &mut Batch) -> io::Result<()> {
        batch.len = 0;
        // Each has a share of its own: a flood of one sort must not keep the other out.
        let mut result = Ok(());
        let share = Batch::SLOTS / 4;
        for port in &self.broadcasts {
            result = port.receive(batch, batch.len.saturating_add(share)).and(result);
        }
        self.unicast.receive(batch, Batch::SLOTS).and(result)
    }

    /// Sends one datagram, from `source` if one is given: that also decides which interface a broadcast leaves by.
    pub(crate) fn send(&self, bytes: &[u8], to: SocketAddrV4, source: Option<Ipv4Addr>) -> io::Result<()> {
        let socket = &self.unicast.socket;
        match &self.unicast.reach {
            Reach::Bound(_) => socket.try_send_to(bytes, to.into()).map(drop),
            Reach::Told(state) => {
                let transmit = quinn_udp::Transmit {
                    destination: to.into(),
                    ecn: None,
                    contents: bytes,
                    segment_size: None,
                    src_ip: source.map(IpAddr::V4),
                };
                socket.try_io(Interest::WRITABLE, || state.try_send(socket.into(), &transmit))
            }
        }
    }

    /// An empty batch, sized for these sockets.
    pub(crate) fn batch(&self) -> Batch {
        let joins = |state: &UdpSocketState| {
            cfg!(any(target_os = "linux", target_os = "android")) && state.gro_segments() > 1
        };
        let slot = match &self.unicast.reach {
            Reach::Told(state) if joins(state) => JOINED_BYTES,
            _ => DATAGRAM_BYTES,
        };
        let room = slot.saturating_mul(Batch::SLOTS);
        Batch { room: vec![0; room].into_boxed_slice(), slot, filled: [Filled::NONE; Batch::SLOTS], len: 0 }
    }
}

impl Port {
    fn bound(what: Opening, at: SocketAddrV4) -> Result<Self, OpenError> {
        let socket = open(what, at)?;
        Ok(Self { socket, reach: Reach::Bound(*at.ip()) })
    }

    fn told(what: Opening, at: SocketAddrV4) -> Result<Self, OpenError> {
        let socket = open(what, at)?;
        let state =
            UdpSocketState::new((&socket).into()).map_err(|source| OpenError::new(what, at, source))?;
        Ok(Self { socket, reach: Reach::Told(state) })
    }

    /// Fills `batch` up to `limit` slots.
    fn receive(&self, batch: &mut Batch, limit: usize) -> io::Result<()> {
        while batch.len < limit {
            let got = match &self.reach {
                Reach::Bound(address) => self.receive_one(batch, *address),
                Reach::Told(state) => self.receive_many(batch, state, limit),
            };
            match got {
                Ok(0) => break,
                Ok(count) => batch.len = batch.len.saturating_add(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn receive_one(&self, batch: &mut Batch, address: Ipv4Addr) -> io::Result<usize> {
        let start = batch.len.saturating_mul(batch.slot);
        let room = batch.room.get_mut(start..).and_then(|rest| rest.get_mut(..batch.slot));
        let (Some(room), Some(filled)) = (room, batch.filled.get_mut(batch.len)) else { return Ok(0) };
        let (len, source) = self.socket.try_recv_from(room)?;
        *filled = Filled { len, stride: len, source, destination: Some(address), index: None };
        Ok(1)
    }

    fn receive_many(&self, batch: &mut Batch, state: &UdpSocketState, limit: usize) -> io::Result<usize> {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let free = limit.saturating_sub(batch.len).min(BATCH_SIZE);
        let mut slots = batch.room.chunks_exact_mut(batch.slot).skip(batch.len);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            array::from_fn(|_| IoSliceMut::new(slots.next().unwrap_or_default()));
        let Some(slices) = slices.get_mut(..free) else { return Ok(0) };
        let mut count = 0;
        let result = self.socket.try_io(Interest::READABLE, || {
            count = state.recv((&self.socket).into(), slices, &mut metas)?;
            // Fewer than asked for: the queue is empty, and saying so here spares the read that would find out.
            if READS_MANY && count < free { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        if count == 0 {
            return result.map(|()| 0);
        }
        let filled = batch.filled.iter_mut().skip(batch.len);
        for (filled, meta) in filled.zip(metas.iter().take(count)) {
            let destination = match meta.dst_ip {
                Some(IpAddr::V4(ip)) => Some(ip),
                _ => None,
            };
            let index = meta.interface_index;
            *filled = Filled { len: meta.len, stride: meta.stride, source: meta.addr, destination, index };
        }
        Ok(count)
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

/// What one read of the sockets brought.
#[derive(Debug)]
pub(crate) struct Batch {
    room: Box<[u8]>,
    slot: usize,
    filled: [Filled; Self::SLOTS],
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Filled {
    len: usize,
    stride: usize,
    source: SocketAddr,
    destination: Option<Ipv4Addr>,
    index: Option<u32>,
}

impl Filled {
    const NONE: Self = Self {
        len: 0,
        stride: 0,
        source: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)),
        destination: None,
        index: None,
    };
}

/// A datagram, and what the system tells about its way here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received<'b> {
    pub(crate) bytes: &'b [u8],
    pub(crate) source: SocketAddrV4,
    pub(crate) destination: Option<Ipv4Addr>,
    pub(crate) index: Option<u32>,
}

impl Batch {
    /// Reads held at once: enough that a burst is taken out of the kernel quickly, few enough that timers and sends
    /// come between.
    pub(crate) const SLOTS: usize = 64;

    /// Whether it is full, so that more may wait.
    pub(crate) const fn is_full(&self) -> bool {
        self.len >= Self::SLOTS
    }

    /// The datagrams, one by one, also where the system joined several of one sender.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Received<'_>> {
        let slots = self.room.chunks_exact(self.slot.max(1)).zip(&self.filled).take(self.len);
        slots.flat_map(|(room, filled)| {
            let bytes = room.get(..filled.len).unwrap_or(room);
            let single = bytes.is_empty().then_some(bytes);
            single.into_iter().chain(bytes.chunks(filled.stride.max(1))).filter_map(|bytes| {
                let SocketAddr::V4(source) = filled.source else { return None };
                Some(Received { bytes, source, destination: filled.destination, index: filled.index })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_datagrams_come_apart_and_empty_ones_count() {
        let mut batch = Batch {
            room: vec![0; 64 * Batch::SLOTS].into_boxed_slice(),
            slot: 64,
            filled: [Filled::NONE; Batch::SLOTS],
            len: 3,
        };
        batch.filled[0] = Filled { len: 50, stride: 20, ..Filled::NONE };
        batch.filled[2] = Filled { len: 64, stride: 64, ..Filled::NONE };
        let lens: Vec<usize> = batch.iter().map(|one| one.bytes.len()).collect();
        assert_eq!(lens, [20, 20, 10, 0, 64]);
        assert!(!batch.is_full());
        batch.len = Batch::SLOTS;
        assert!(batch.is_full());
    }

    #[tokio::test]
    async fn a_flood_of_unicasts_leaves_room_for_broadcasts() {
        let at = Ipv4Addr::new(127, 41, 0, 1);
        let sockets = Sockets::bound(at, Ipv4Addr::new(127, 255, 255, 255), 41_071).unwrap();
        let sender = std::net::UdpSocket::bind((Ipv4Addr::new(127, 41, 0, 2), 0)).unwrap();
        sender.set_broadcast(true).unwrap();
        for _ in 0..Batch::SLOTS * 2 {
            sender.send_to(&[1; 100], (at, 41_071)).unwrap();
        }
        sender.send_to(&[2; 10], "127.255.255.255:41071").unwrap();
        core::future::poll_fn(|cx| sockets.poll_readable(cx)).await;
        let mut batch = sockets.batch();
        let mut broadcasts = 0;
        for _ in 0..3 {
            sockets.receive(&mut batch).unwrap();
            broadcasts += batch.iter().filter(|one| one.bytes == [2; 10]).count();
        }
        assert_eq!(broadcasts, 1);
        assert!(sockets.receive_buffer_bytes() >= 100_000);
    }
}
