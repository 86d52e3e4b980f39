//! The yardstick: a hand-written loop that learns devices. `epoll_wait`, then a `recvmmsg` for up to 32 datagrams until
//! none is left, a fixed-layout look at the header and the entries it keeps, a write into a flat table, one ACK per
//! announce, 32 to a `sendmmsg`.
//!
//! It has no deadlines, no leases, no events, no limits per source and trusts what it reads as far as memory allows. It
//! uses the same system calls the driver does, `quinn-udp`'s receive included; what it saves is everything else.

use core::array;
use core::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Stdin};
use std::net::UdpSocket;
use std::time::Duration;

use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::net::addr::SocketAddrArg;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg, sockopt};
use serde_json::{Value, json};
use tillwire::Store;

use super::super::machine;
use super::micros;
use super::node::Args;
use crate::error::{Failure, Outcome, Verdict};
use crate::out;

/// Room for one datagram, as the driver has it.
const SLOT: usize = 2_048;
/// Bytes of an ACK with a nonce of 8.
const ACK_LEN: usize = 48 + 12 + 8;
const SOCKET: u64 = 0;
const STDIN: u64 = 1;

/// What is kept of a device.
#[derive(Clone, Copy, Debug)]
struct Row {
    id: [u8; 16],
    source: SocketAddrV4,
    heard: Duration,
    epoch: u32,
    sequence: u32,
    kind: u16,
    port: u16,
    zone: u32,
    firmware: [u8; 8],
    name: [u8; 32],
    code: [u8; 16],
    tags: [u8; 48],
}

impl Row {
    const EMPTY: Self = Self {
        id: [0; 16],
        source: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0),
        heard: Duration::ZERO,
        epoch: 0,
        sequence: 0,
        kind: 0,
        port: 0,
        zone: 0,
        firmware: [0; 8],
        name: [0; 32],
        code: [0; 16],
        tags: [0; 48],
    };
}

pub(super) struct Raw {
    socket: UdpSocket,
    state: UdpSocketState,
    epoll: OwnedFd,
    scope: [u8; 4],
    rows: Box<[Row]>,
    devices: u32,
    room: Box<[u8]>,
    acks: Box<[[u8; ACK_LEN]]>,
    sequence: u32,
    cpu: Duration,
    counts: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    received: u64,
    received_bytes: u64,
    sent: u64,
    sent_bytes: u64,
    send_errors: u64,
}

impl Raw {
    /// Learns devices and does what its input says until that ends.
    pub(super) fn serve(args: Args, store: Store) -> Outcome {
        let broken = |error: io::Error| Failure::broken(format!("the hand-written loop broke: {error}"), "");
        let mut raw = Self::open(args, store).map_err(broken)?;
        epoll::add(&raw.epoll, io::stdin(), EventData::new_u64(STDIN), EventFlags::IN)
            .map_err(|error| broken(error.into()))?;
        let mut input = BufReader::new(io::stdin());
        let mut events = Vec::with_capacity(2);
        loop {
            events.clear();
            match epoll::wait(&raw.epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(broken(error.into())),
            }
            for event in &events {
                if event.data.u64() == SOCKET {
                    raw.learn().map_err(broken)?;
                } else if let Some(said) = raw.obey(&mut input).map_err(broken)? {
                    out::json(&said);
                } else {
                    return Ok(Verdict::AllRight);
                }
            }
        }
    }

    fn open(args: Args, store: Store) -> io::Result<Self> {
        let socket = UdpSocket::bind(args.at)?;
        socket.set_nonblocking(true)?;
        sockopt::set_socket_recv_buffer_size(&socket, args.buffer)?;
        let state = UdpSocketState::new((&socket).into())?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &socket, EventData::new_u64(SOCKET), EventFlags::IN)?;
        let rows = args.capacity.max(1).next_power_of_two() as usize * 2;
        Ok(Self {
            socket,
            state,
            epoll,
            scope: store.scope().to_le_bytes(),
            rows: vec![Row::EMPTY; rows].into(),
            devices: 0,
            room: vec![0; SLOT * BATCH_SIZE].into(),
            acks: vec![ack(store); BATCH_SIZE].into(),
            sequence: 0,
            cpu: Duration::ZERO,
            counts: Counts::default(),
        })
    }

    fn obey(&mut self, input: &mut BufReader<Stdin>) -> io::Result<Option<Value>> {
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if line.starts_with("up") {
            self.rows.fill(Row::EMPTY);
            self.devices = 0;
            self.counts = Counts::default();
            self.cpu = machine::thread_cpu();
            return Ok(Some(json!({"event": "up", "at_us": micros(machine::now())})));
        }
        let cpu = machine::thread_cpu() - self.cpu;
        let learnt = || self.rows.iter().filter(|row| row.source.port() != 0);
        Ok(Some(json!({
            "event": "look",
            "cpu_ns": u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX),
            "resident_bytes": machine::resident_bytes(),
            "devices": learnt().count(),
            "last_heard_us": learnt().map(|row| micros(row.heard)).max(),
            "received": self.counts.received,
            "received_bytes": self.counts.received_bytes,
            "sent": self.counts.sent,
            "sent_bytes": self.counts.sent_bytes,
            "sent_beacon": 0,
            "send_errors": self.counts.send_errors,
            "receive_buffer_bytes": sockopt::socket_recv_buffer_size(&self.socket)?,
        })))
    }

    /// Takes what waits and answers it.
    fn learn(&mut self) -> io::Result<()> {
        loop {
            let mut metas = [RecvMeta::default(); BATCH_SIZE];
            let mut room = core::mem::take(&mut self.room);
            let mut slots = room.chunks_exact_mut(SLOT);
            let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
                array::from_fn(|_| IoSliceMut::new(slots.next().unwrap_or_default()));
            let read = self.state.recv((&self.socket).into(), &mut slices, &mut metas);
            let count = match read {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            let now = machine::now();
            let mut to = [SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0); BATCH_SIZE];
            let mut answers = 0;
            for (meta, slot) in metas.iter().take(count).zip(room.chunks_exact(SLOT)) {
                let SocketAddr::V4(source) = meta.addr else { continue };
                for bytes in slot.get(..meta.len).unwrap_or_default().chunks(meta.stride.max(1)) {
                    self.counts.received += 1;
                    self.counts.received_bytes += bytes.len() as u64;
                    if answers < BATCH_SIZE && self.take(now, source, bytes, answers).is_some() {
                        to[answers] = source;
                        answers += 1;
                    }
                }
            }
            self.room = room;
            self.answer(&to[..answers]);
            // Fewer than asked for: the queue is empty.
            if count < BATCH_SIZE {
                return Ok(());
            }
        }
    }

    /// Writes a device down and its ACK into place `answer`; nothing if it is no ANNOUNCE of this store.
    fn take(&mut self, now: Duration, source: SocketAddrV4, bytes: &[u8], answer: usize) -> Option<()> {
        let (header, mut rest) = bytes.split_first_chunk::<48>()?;
        let ours = header[..4] == *b"TWLD" && header[4] >> 4 == 1 && header[5] == 3;
        let whole = u16::from_le_bytes([header[8], header[9]]) as usize == bytes.len() && header[7] == 12;
        if !ours || !whole || header[12..16] != self.scope {
            return None;
        }
        let mut row = Row { source, heard: now, ..Row::EMPTY };
        row.id.copy_from_slice(&header[16..32]);
        row.kind = u16::from_le_bytes([header[10], header[11]]);
        row.epoch = u32::from_le_bytes(*header[32..36].first_chunk()?);
        row.sequence = u32::from_le_bytes(*header[36..40].first_chunk()?);
        row.port = u16::from_le_bytes([header[40], header[41]]);
        let mut nonce = [0; 8];
        while let Some((head, after)) = rest.split_first_chunk::<4>() {
            let len = u16::from_le_bytes([head[2], head[3]]) as usize;
            let value = after.get(..len)?;
            match u16::from_le_bytes([head[0], head[1]]) {
                2 => row.name.get_mut(..len)?.copy_from_slice(value),
                5 => row.firmware = *value.first_chunk()?,
                7 => row.zone = u32::from_le_bytes(*value.first_chunk()?),
                8 => nonce = *value.first_chunk()?,
                13 => row.tags.get_mut(..len)?.copy_from_slice(value),
                14 => row.code.get_mut(..len)?.copy_from_slice(value),
                _ => {}
            }
            rest = after.get(len.next_multiple_of(4)..)?;
        }
        self.insert(&row);
        self.sequence = self.sequence.wrapping_add(1);
        let ack = self.acks.get_mut(answer)?;
        ack[36..40].copy_from_slice(&self.sequence.to_le_bytes());
        ack[44..48].copy_from_slice(&row.sequence.to_le_bytes());
        ack[52..60].copy_from_slice(&nonce);
        Some(())
    }

    /// Open addressing, half empty.
    fn insert(&mut self, row: &Row) {
        let id = u128::from_le_bytes(row.id);
        let mixed = wire_format::rng::mix(id as u64 ^ wire_format::rng::mix((id >> 64) as u64));
        let mask = self.rows.len() - 1;
        let mut at = mixed as usize & mask;
        for _ in 0..self.rows.len() {
            let place = &mut self.rows[at];
            if place.id == row.id || place.id == [0; 16] {
                self.devices += u32::from(place.id == [0; 16]);
                *place = *row;
                return;
            }
            at = (at + 1) & mask;
        }
    }

    fn answer(&mut self, to: &[SocketAddrV4]) {
        if to.is_empty() {
            return;
        }
        let mut next = to.iter();
        let addresses: [_; BATCH_SIZE] = array::from_fn(|_| next.next().unwrap_or(&to[0]).as_any());
        let bytes: [_; BATCH_SIZE] = array::from_fn(|at| [IoSlice::new(&self.acks[at])]);
        let mut controls: [_; BATCH_SIZE] = array::from_fn(|_| SendAncillaryBuffer::default());
        let mut parts = addresses.iter().zip(&bytes);
        let mut headers = controls.each_mut().map(|control| match parts.next() {
            Some((to, bytes)) => MMsgHdr::new_with_addr(to, bytes, control),
            None => MMsgHdr::new(&[], control),
        });
        let sent = sendmmsg(&self.socket, &mut headers[..to.len()], SendFlags::empty()).unwrap_or_default();
        self.counts.sent += sent as u64;
        self.counts.sent_bytes += (sent * ACK_LEN) as u64;
        self.counts.send_errors += (to.len() - sent) as u64;
    }
}

/// An ACK "ok", its sequence, the announce's and its nonce still to be filled in.
fn ack(store: Store) -> [u8; ACK_LEN] {
    use wire_format::datagram::ack::Code;
    use wire_format::datagram::{Ack, Node, Nonce, Status};
    use wire_format::ids::{DeviceKind, NodeId};
    let from =
        Node { scope: store.scope(), lease_s: 90, ..Node::new(NodeId([0xEE; 16]), DeviceKind::SERVER) };
    let status = Status { code: Code::OK, retry_after_s: 0, detail: 0 };
    let ack = Ack { from, announce_sequence: 0, status, nonce: Some(Nonce::Short([0; 8])), auth: None };
    let mut bytes = [0; ACK_LEN];
    // The size is checked by the test below.
    let _len = ack.emit(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use testkit::farm::{Announces, FarmConfig};
    use wire_format::datagram::Ack;

    #[test]
    fn it_learns_the_farm_s_announces_and_its_acks_are_acks() {
        let store = super::super::node::store().unwrap();
        let ack = ack(store);
        assert_eq!(Ack::parse(&ack).unwrap().announce_sequence, 0);
        let at = SocketAddrV4::new(Ipv4Addr::new(127, 57, 5, 40), 41_524);
        let args = Args::for_test(at, 50);
        let mut raw = Raw::open(args, store).unwrap();
        let config = FarmConfig::new(50, Ipv4Addr::new(127, 58, 48, 1), 41_524, store);
        let mut announces = Announces::new(&config, 1);
        let mut sockets =
            testkit::farm::Sockets::open(0, SocketAddrV4::new(config.broadcast, 41_524)).unwrap();
        let learning = std::thread::spawn(move || {
            while raw.devices < 50 || raw.counts.sent < 50 {
                raw.learn().unwrap();
                std::thread::yield_now();
            }
            raw
        });
        let fired = announces.fire(&mut sockets, at, None, Duration::from_secs(30)).unwrap();
        assert_eq!((fired.acked, fired.refused), (50, 0));
        let raw = learning.join().unwrap();
        let kept = raw.rows.iter().find(|row| row.id[12..] == 7_u32.to_be_bytes()).unwrap();
        assert_eq!((kept.zone, kept.port, *kept.source.ip()), (7, 8_081, Ipv4Addr::new(127, 58, 48, 8)));
        assert_eq!((&kept.name[..10], &kept.code[..7]), (&b"Till 00000"[..], &b"T-00000"[..]));
        assert_eq!(kept.firmware[4..6], 4_711_u16.to_le_bytes());
        assert_ne!(kept.tags, [0; 48]);
    }
}
