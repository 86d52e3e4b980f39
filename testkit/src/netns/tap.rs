//! What passes a host: a packet socket, which sees both directions and whatever no socket would take.

use std::fmt;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

/// `ETH_P_ALL`: every protocol, and what leaves as well as what arrives.
const EVERYTHING: u16 = 0x0003;
/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of packets nobody has looked at yet.
const WAITING_BYTES: usize = 4 << 20;

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// A datagram.
    Udp,
    /// A segment; the first of a connection or not.
    Tcp {
        /// It asks for a connection.
        syn: bool,
    },
    /// Something else, with its number; ports are 0.
    Other(u8),
}

/// An IPv4 packet.
#[derive(Clone, PartialEq, Eq)]
pub struct Packet {
    /// What it carries.
    pub protocol: Protocol,
    /// Who sent it.
    pub source: SocketAddrV4,
    /// To whom.
    pub destination: SocketAddrV4,
    /// The content of the datagram or segment.
    pub payload: Vec<u8>,
}

/// One line, with how the payload begins.
impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = &self.payload[..self.payload.len().min(8)];
        let Self { protocol, source, destination, payload } = self;
        write!(f, "{protocol:?} {source} > {destination}, {} bytes: {start:02x?}", payload.len())
    }
}

impl Packet {
    /// `None` for what is not IPv4, or is cut.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?));
        let first = *bytes.first()?;
        if first >> 4 != 4 {
            return None;
        }
        let total = usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
        let (source, destination, number) = (address(12)?, address(16)?, *bytes.get(9)?);
        let body = bytes.get(usize::from(first & 15) * 4..total)?;
        let port = |at: usize| Some(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?]));
        let (protocol, ports, header) = match number {
            17 => (Protocol::Udp, (port(0)?, port(2)?), 8),
            6 => {
                let (offset, flags) = (*body.get(12)?, *body.get(13)?);
                (
                    Protocol::Tcp { syn: flags & 0x12 == 0x02 },
                    (port(0)?, port(2)?),
                    usize::from(offset >> 4) * 4,
                )
            }
            other => (Protocol::Other(other), (0, 0), 0),
        };
        Some(Self {
            protocol,
            source: SocketAddrV4::new(source, ports.0),
            destination: SocketAddrV4::new(destination, ports.1),
            payload: body.get(header..)?.to_vec(),
        })
    }
}

/// Sees every IPv4 packet of a host, both ways. What passed waits in the kernel until it is looked at.
#[derive(Debug)]
pub struct Tap {
    socket: Socket,
}

impl Tap {
    pub(super) fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(i32::from(EVERYTHING.to_be()).into()))?;
        socket.set_nonblocking(true)?;
        socket.set_recv_buffer_size(WAITING_BYTES)?;
        Ok(Self { socket })
    }

    /// What passed since the last look.
    pub fn packets(&self) -> Vec<Packet> {
        let mut packets = Vec::new();
        let mut buffer = vec![0; 65_536];
        loop {
            match (&self.socket).read(&mut buffer) {
                Ok(len) => packets.extend(Packet::parse(&buffer[..len])),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return packets,
                // An interface went down: told once, and no fault of the socket.
                Err(_) => {}
            }
        }
    }

    /// The first packet from now on that `wanted` likes; those before it are passed over.
    ///
    /// # Panics
    ///
    /// If none comes within 20 s.
    pub fn wait(&self, what: &str, wanted: impl Fn(&Packet) -> bool) -> Packet {
        let mut seen = Vec::new();
        let deadline = now() + PATIENCE;
        while now() < deadline {
            for packet in self.packets() {
                if wanted(&packet) {
                    return packet;
                }
                seen.push(packet);
            }
            super::pause();
        }
        panic!("waited in vain for {what}; there were {seen:#?}")
    }
}

#[expect(clippy::disallowed_methods, reason = "a test waits for the network")]
fn now() -> Instant {
    Instant::now()
}
