//! The devices of a benchmark, all in one process and the same for every contestant: they welcome, answer each order at
//! once, and do nothing else. One thread, one epoll, one read and one write per order.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};
use serde_json::json;
use wire_format::frame::hello::LogHead;
use wire_format::frame::outcome::{self, Code, Entry};
use wire_format::frame::welcome::{LogFloors, Started};
use wire_format::frame::{Frame, Pong, Raw, Welcome, hello};
use wire_format::ids::{DeviceKind, NodeId, Tags};
use wire_format::splitter::{Split, split};

use super::machine;
use crate::error::{Failure, Outcome, Verdict};
use crate::{out, start};

/// Connections that may wait to be accepted: more than any contestant dials at a time.
const BACKLOG: i32 = 4_096;
/// Events taken from the kernel at a time.
const EVENTS: usize = 1_024;
/// Bytes read at a time, and the most bytes answered to one read.
const READ_MAX: usize = 64 << 10;
/// Orders a device takes at a time: a window must never be what is measured.
const WINDOW_ORDERS: u16 = 1_024;
/// Bytes of them.
const WINDOW_BYTES: u32 = 1 << 20;
/// Largest body a device takes: the largest order.
const BODY_MAX: u32 = wire_format::frame::order::BODY_MAX as u32;

const LISTENER: u64 = u64::MAX;
const STDIN: u64 = u64::MAX - 1;

/// The address of the device with this number: 127.57.x.y.
pub(super) fn address(index: u32) -> Ipv4Addr {
    let [_, _, high, low] = index.saturating_add(1).to_be_bytes();
    Ipv4Addr::new(127, 57, high, low)
}

/// The id of the device at this address.
pub(super) fn id(address: Ipv4Addr) -> NodeId {
    let mut id = [0xB5; 16];
    if let Some(end) = id.last_chunk_mut() {
        *end = address.octets();
    }
    NodeId(id)
}

/// The hidden command.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Args {
    /// Run on this core.
    #[arg(long)]
    core: Option<usize>,
}

/// Answers until its input ends.
pub(crate) fn run(args: Args) -> Outcome {
    start::raise_open_files();
    if let Some(core) = args.core {
        machine::pin(core);
    }
    let broken = |error: std::io::Error| Failure::broken(format!("the devices broke: {error}"), "");
    let mut peers = Peers::listen().map_err(broken)?;
    let port = peers.listener.local_addr().map_err(broken)?.port();
    out::json(&json!({"event": "ready", "port": port}));
    peers.serve().map_err(broken)?;
    Ok(Verdict::AllRight)
}

struct Peers {
    epoll: OwnedFd,
    /// On every address: ten thousand listeners would take the descriptors the connections need. Whoever does not come
    /// from this host is sent away.
    listener: TcpListener,
    conns: Vec<Option<Conn>>,
    inbox: Box<[u8]>,
    outbox: Box<[u8]>,
}

struct Conn {
    stream: TcpStream,
    address: Ipv4Addr,
    /// A frame that began in one read and did not end in it.
    tail: Vec<u8>,
}

impl Peers {
    fn listen() -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        rustix::net::listen(&listener, BACKLOG)?;
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        watch(&epoll, &listener, LISTENER)?;
        watch(&epoll, std::io::stdin(), STDIN)?;
        let (inbox, outbox) = (vec![0; READ_MAX].into(), vec![0; READ_MAX].into());
        Ok(Self { epoll, listener, conns: Vec::new(), inbox, outbox })
    }

    fn serve(&mut self) -> std::io::Result<()> {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    // Nothing is ever said there: it ends.
                    STDIN => return Ok(()),
                    index => self.ready(usize::try_from(index).unwrap_or(usize::MAX)),
                }
            }
        }
    }

    fn accept(&mut self) -> std::io::Result<()> {
        loop {
            let (stream, from) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // It was gone before it was taken.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let Ok(SocketAddr::V4(local)) = stream.local_addr() else { continue };
            if !from.ip().is_loopback() {
                continue;
            }
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            watch(&self.epoll, &stream, self.conns.len() as u64)?;
            self.conns.push(Some(Conn { stream, address: *local.ip(), tail: Vec::new() }));
        }
    }

    /// Reads once and answers; closes what does not speak as agreed.
    fn ready(&mut self, index: usize) {
        let Some(place) = self.conns.get_mut(index) else { return };
        let Some(conn) = place else { return };
        if conn.turn(&mut self.inbox, &mut self.outbox).is_none() {
            *place = None;
        }
    }
}

fn watch(epoll: &OwnedFd, what: impl AsFd, number: u64) -> std::io::Result<()> {
    Ok(epoll::add(epoll, what, EventData::new_u64(number), EventFlags::IN)?)
}

impl Conn {
    /// `None` ends the connection.
    fn turn(&mut self, inbox: &mut [u8], outbox: &mut [u8]) -> Option<()> {
        let kept = self.tail.len();
        let (front, room) = inbox.split_at_mut_checked(kept)?;
        front.copy_from_slice(&self.tail);
        let len = match self.stream.read(room) {
            Ok(0) => return None,
            Ok(len) => kept + len,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Some(());
            }
            Err(_) => return None,
        };
        let (mut at, mut answered) = (0, 0);
        while let Split::Frame(raw) = split(inbox.get(at..len)?, BODY_MAX).ok()? {
            at += raw.len();
            answered += self.answer(&raw, outbox.get_mut(answered..)?)?;
        }
        self.tail.clear();
        self.tail.extend_from_slice(inbox.get(at..len)?);
        let answer = outbox.get(..answered)?;
        // A few dozen bytes to a socket whose buffer is empty: less than all of them means that nobody reads.
        let written = if answer.is_empty() { 0 } else { self.stream.write(answer).ok()? };
        (written == answered).then_some(())
    }

    /// Bytes answered; `None` ends the connection.
    fn answer(&self, raw: &Raw<'_>, outbox: &mut [u8]) -> Option<usize> {
        match Frame::parse(raw).ok()? {
            Frame::Hello(hello) => welcome(&hello, self.address).emit(outbox).ok(),
            Frame::Order(delivery, order) => {
                let entry =
                    Entry { number: order.number, code: Code::APPLIED, detail: 0, lane: order.lane, ms: 0 };
                outcome::emit(delivery.durable, core::iter::once(entry), outbox).ok()
            }
            Frame::Ping(ping) => Pong { token: ping.token }.emit(outbox).ok(),
            Frame::Settled(_) | Frame::Pong(_) => Some(0),
            _ => None,
        }
    }
}

fn welcome(hello: &hello::Hello, address: Ipv4Addr) -> Welcome<'static> {
    let LogHead { lineage, .. } = hello.volatile;
    Welcome {
        version: hello::VERSION,
        staging: hello.staging,
        floors_persisted: false,
        journal_lost: false,
        kind: DeviceKind::TILL,
        device: id(address),
        boot: 1,
        fence: hello.fence,
        server: hello.server,
        zone: 0,
        window_orders: WINDOW_ORDERS,
        window_bytes: WINDOW_BYTES,
        max_body: BODY_MAX,
        features: 0,
        tags: Tags::EMPTY,
        durable: LogFloors::default(),
        volatile: LogFloors { lineage, ..LogFloors::default() },
        started: Started::from(&[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_has_an_address_and_an_id_of_its_own() {
        assert_eq!(address(0), Ipv4Addr::new(127, 57, 0, 1));
        assert_eq!(address(255), Ipv4Addr::new(127, 57, 1, 0));
        let ids: std::collections::HashSet<_> = (0..10_000).map(|index| id(address(index))).collect();
        assert_eq!(ids.len(), 10_000);
    }
}
