//! The devices of a benchmark, all in one process and the same for every contestant: they welcome, answer at once all
//! orders that came in one read, and do nothing else. One thread, one epoll, one read and one write per turn of a device.
//!
//! They must never be what is measured, so they verify no body: of an ORDER they look at its header, number and lane. That
//! a body arrives whole is the business of the tests.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};
use serde_json::json;
use tillwire::push::receiver;
use wire_format::frame::hello::LogHead;
use wire_format::frame::outcome::{self, Code, ENTRIES_MAX, Entry};
use wire_format::frame::welcome::{LogFloors, Started};
use wire_format::frame::{Flags, Frame, Kind, Pong, Raw, Welcome, hello};
use wire_format::ids::{DeviceKind, Lane, NodeId, Tags};
use wire_format::splitter::{Split, split};

use super::machine;
use crate::error::{Failure, Outcome, Verdict};
use crate::{out, start};

/// Connections that may wait to be accepted: more than any contestant dials at a time.
const BACKLOG: i32 = 4_096;
/// Events taken from the kernel at a time.
const EVENTS: usize = 1_024;
/// Bytes read at a time: many orders of the usual size, and a tail of the largest.
const READ_MAX: usize = 256 << 10;
/// Bytes answered to one read at most: a read holds at most this many of the smallest orders, answered 64 to a frame.
const ANSWER_MAX: usize = READ_MAX;
/// Where an ORDER's body has its number and its lane (specification, 4.4.4).
const NUMBER_AT: usize = 0;
const LANE_AT: usize = 34;
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

/// What a device says it takes before an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) orders: u16,
    pub(super) bytes: u32,
}

impl Window {
    /// So large that it is not what is measured.
    pub(super) const WIDE: Self = Self { orders: 1_024, bytes: 1 << 20 };
    /// What the pipeline's budget is stated for.
    pub(super) const DECLARED: Self = Self { orders: 1_024, bytes: 256 << 10 };
    /// What a device of this library declares if nothing else is said: 16 orders, one of the largest size.
    pub(super) const DEFAULT: Self = Self { orders: receiver::WINDOW_ORDERS, bytes: receiver::WINDOW_BYTES };
}

/// The hidden command.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Args {
    /// Run on this core.
    #[arg(long)]
    core: Option<usize>,
    /// Orders each device takes before an outcome is settled.
    #[arg(long)]
    window_orders: u16,
    /// Bytes of orders each takes before an answer.
    #[arg(long)]
    window_bytes: u32,
}

/// Answers until its input ends.
pub(crate) fn run(args: Args) -> Outcome {
    start::raise_open_files();
    if let Some(core) = args.core {
        machine::pin(core);
    }
    let broken = |error: std::io::Error| Failure::broken(format!("the devices broke: {error}"), "");
    let window = Window { orders: args.window_orders, bytes: args.window_bytes };
    let mut peers = Peers::listen(window).map_err(broken)?;
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
    window: Window,
}

struct Conn {
    stream: TcpStream,
    address: Ipv4Addr,
    /// A frame that began in one read and did not end in it.
    tail: Vec<u8>,
}

impl Peers {
    fn listen(window: Window) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        rustix::net::listen(&listener, BACKLOG)?;
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        watch(&epoll, &listener, LISTENER)?;
        watch(&epoll, std::io::stdin(), STDIN)?;
        let (inbox, outbox) = (vec![0; READ_MAX].into(), vec![0; ANSWER_MAX].into());
        Ok(Self { epoll, listener, conns: Vec::new(), inbox, outbox, window })
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
        if conn.turn(self.window, &mut self.inbox, &mut self.outbox).is_none() {
            *place = None;
        }
    }
}

fn watch(epoll: &OwnedFd, what: impl AsFd, number: u64) -> std::io::Result<()> {
    Ok(epoll::add(epoll, what, EventData::new_u64(number), EventFlags::IN)?)
}

impl Conn {
    /// `None` ends the connection.
    fn turn(&mut self, window: Window, inbox: &mut [u8], outbox: &mut [u8]) -> Option<()> {
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
        let mut answers = Answers::to(outbox);
        let mut at = 0;
        while let Split::Frame(raw) = split(inbox.get(at..len)?, BODY_MAX).ok()? {
            at += raw.len();
            match raw.header.kind {
                Kind::ORDER => answers.outcome(&raw)?,
                _ => self.answer(&raw, window, &mut answers)?,
            }
        }
        self.tail.clear();
        self.tail.extend_from_slice(inbox.get(at..len)?);
        let answer = answers.finish()?;
        // Bytes to a socket whose buffer is nearly empty: less than all of them means that nobody reads.
        let written = if answer.is_empty() { 0 } else { self.stream.write(answer).ok()? };
        (written == answer.len()).then_some(())
    }

    /// `None` ends the connection.
    fn answer(&self, raw: &Raw<'_>, window: Window, answers: &mut Answers<'_>) -> Option<()> {
        match Frame::parse(raw).ok()? {
            Frame::Hello(hello) => {
                let welcome = welcome(&hello, self.address, window);
                answers.put(|room| welcome.emit(room).ok())
            }
            Frame::Ping(ping) => answers.put(|room| Pong { token: ping.token }.emit(room).ok()),
            Frame::Settled(_) | Frame::Pong(_) => Some(()),
            _ => None,
        }
    }
}

/// The answers to one read, outcomes gathered 64 to a frame.
struct Answers<'o> {
    outbox: &'o mut [u8],
    len: usize,
    ended: [Entry; ENTRIES_MAX],
    count: usize,
    durable: bool,
}

impl<'o> Answers<'o> {
    fn to(outbox: &'o mut [u8]) -> Self {
        let none = Entry { number: 0, code: Code::APPLIED, detail: 0, lane: Lane::Normal, ms: 0 };
        Self { outbox, len: 0, ended: [none; ENTRIES_MAX], count: 0, durable: false }
    }

    /// An order came, and is applied.
    fn outcome(&mut self, raw: &Raw<'_>) -> Option<()> {
        let durable = raw.header.flags.contains(Flags::DURABLE);
        if self.count == ENTRIES_MAX || durable != self.durable {
            self.flush()?;
        }
        self.durable = durable;
        let number = u64::from_le_bytes(*raw.body.get(NUMBER_AT..)?.first_chunk()?);
        let lane = Lane::new(*raw.body.get(LANE_AT)?)?;
        *self.ended.get_mut(self.count)? = Entry { number, code: Code::APPLIED, detail: 0, lane, ms: 0 };
        self.count += 1;
        Some(())
    }

    /// The outcomes gathered so far become a frame.
    fn flush(&mut self) -> Option<()> {
        let ended = self.ended.get(..core::mem::take(&mut self.count))?;
        if !ended.is_empty() {
            let room = self.outbox.get_mut(self.len..)?;
            self.len += outcome::emit(self.durable, ended.iter().copied(), room).ok()?;
        }
        Some(())
    }

    fn put(&mut self, emit: impl FnOnce(&mut [u8]) -> Option<usize>) -> Option<()> {
        self.len += emit(self.outbox.get_mut(self.len..)?)?;
        Some(())
    }

    fn finish(mut self) -> Option<&'o [u8]> {
        self.flush()?;
        self.outbox.get(..self.len)
    }
}

fn welcome(hello: &hello::Hello, address: Ipv4Addr, window: Window) -> Welcome<'static> {
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
        window_orders: window.orders,
        window_bytes: window.bytes,
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
    #[test]
    fn outcomes_of_one_read_are_gathered() {
        use super::super::order;
        use wire_format::frame::order::{Delivery, Order};
        let delivery = Delivery { durable: false, replay: false, needs_result: false, remaining_ms: None };
        let (mut frame, mut outbox) = ([0; 512], vec![0; ANSWER_MAX]);
        let mut answers = Answers::to(&mut outbox);
        for number in 1..=100 {
            let order = Order {
                number,
                order_key: 0,
                supersede_key: 0,
                supersede_version: 0,
                kind: order::KIND,
                lane: Lane::Bulk,
                kind_flags: order::FLAGS,
                schema: order::SCHEMA,
                options: &[],
                payload: &[7; 33],
            };
            let len = order.emit(&delivery, &mut frame).unwrap();
            answers.outcome(&Raw::parse(&frame[..len]).unwrap()).unwrap();
        }
        let mut rest = answers.finish().unwrap();
        let mut numbers = Vec::new();
        let mut frames = 0;
        while let Split::Frame(raw) = split(rest, BODY_MAX).unwrap() {
            let Frame::Outcome(outcome) = Frame::parse(&raw).unwrap() else { panic!("{raw:?}") };
            assert!(outcome.entries.iter().all(|entry| entry.lane == Lane::Bulk));
            numbers.extend(outcome.entries.iter().map(|entry| entry.number));
            frames += 1;
            rest = &rest[raw.len()..];
        }
        assert_eq!((frames, numbers), (2, (1..=100).collect()), "64 to a frame, in order, none left out");
    }
}
