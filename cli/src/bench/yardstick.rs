//! The yardstick `raw-epoll`: what this machine takes for the same bytes over the same sockets if a program does
//! nothing else. One thread, blocking dials, no deadlines, no reconnects, no reports. It is not a server anybody could run.
//!
//! One order in a round: one write and one read per device. Many: as many frames in a write as the device's window and the
//! kernel take, answers as they come gathered.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::time::Timespec;
use tokio::sync::mpsc::UnboundedReceiver;
use wire_format::frame::hello::{FRAME_LEN, Hello, LogHead, VERSION};
use wire_format::frame::order::{Delivery, Order};
use wire_format::frame::outcome::Code;
use wire_format::frame::{Frame, Raw};
use wire_format::ids::{Lineage, NodeId, Store};
use wire_format::splitter::{Split, split};

use super::contestant::{Contestant, ROUND_WITHIN, Task};
use super::peers::{self, Window};
use super::{machine, order};
use crate::error::Failure;

/// Events taken from the kernel at a time.
const EVENTS: usize = 1_024;
/// Bytes read at a time.
const READ_MAX: usize = 64 << 10;
/// Dials before their answers are read.
const DIALS_PER_TURN: u32 = 256;
/// Largest body a device may send.
const BODY_MAX: u32 = tillwire::push::config::BODY_MAX;

/// The connected yardstick.
pub(super) struct RawEpoll {
    epoll: OwnedFd,
    conns: Vec<Conn>,
    inbox: Box<[u8]>,
    /// The frames of a round, one after the other; all have the same length.
    frames: Vec<u8>,
    orders: u32,
    payload: Vec<u8>,
    events: Vec<Event>,
    /// The last order of the last round.
    number: u64,
}

#[derive(Debug)]
struct Conn {
    stream: TcpStream,
    /// A frame that began in one read and did not end in it.
    tail: Vec<u8>,
    /// What the device said it takes.
    window: Window,
    /// Bytes of the round's frames that were written.
    written: usize,
    /// Orders of the round that were answered.
    answered: usize,
}

impl RawEpoll {
    /// Dials every device and waits for every WELCOME.
    pub(super) fn connect(task: Task, store: Store) -> Result<Self, Failure> {
        let broken = |error: std::io::Error| {
            Failure::broken(format!("raw-epoll cannot reach the devices: {error}"), "")
        };
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(|error| broken(error.into()))?;
        let payload = order::payload(task.payload);
        let orders = usize::try_from(task.orders).unwrap_or_default();
        let frames = vec![0; order::order(&payload).encoded_len().saturating_mul(orders)];
        let mut raw = Self {
            epoll,
            conns: Vec::with_capacity(usize::try_from(task.devices).unwrap_or_default()),
            inbox: vec![0; READ_MAX].into(),
            frames,
            orders: task.orders,
            payload,
            events: Vec::with_capacity(EVENTS),
            number: 0,
        };
        let mut hello = [0; FRAME_LEN];
        self::hello(store).emit(&mut hello).map_err(|error| Failure::broken(error.to_string(), ""))?;
        let mut welcomed = 0;
        for first in (0..task.devices).step_by(DIALS_PER_TURN as usize) {
            let end = task.devices.min(first.saturating_add(DIALS_PER_TURN));
            for index in first..end {
                raw.dial(index, task.port, &hello).map_err(broken)?;
            }
            welcomed += raw.welcomed(end.saturating_sub(first)).map_err(broken)?;
        }
        if welcomed == task.devices {
            return Ok(raw);
        }
        Err(Failure::broken(format!("only {welcomed} of {} devices welcomed raw-epoll", task.devices), ""))
    }

    fn dial(&mut self, index: u32, port: u16, hello: &[u8]) -> std::io::Result<()> {
        let mut stream = TcpStream::connect((peers::address(index), port))?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        // One order is one read: an event tells of it. Of many, only changes are told, of room to write as well.
        let many = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
        let flags = if self.orders == 1 { EventFlags::IN } else { many };
        epoll::add(&self.epoll, &stream, EventData::new_u64(u64::from(index)), flags)?;
        stream.write_all(hello)?;
        self.conns.push(Conn { stream, tail: Vec::new(), window: Window::DEFAULT, written: 0, answered: 0 });
        Ok(())
    }

    /// Reads until so many have welcomed, or no more patience; how many did.
    fn welcomed(&mut self, missing: u32) -> std::io::Result<u32> {
        let deadline = machine::now() + ROUND_WITHIN;
        let mut came = 0;
        while came < missing && self.wait_until(deadline)? {
            for event in &self.events {
                let Some(conn) = at(&mut self.conns, event) else { continue };
                let window = &mut conn.window;
                read_frames(&mut conn.stream, &mut conn.tail, &mut self.inbox, |frame| {
                    if let Frame::Welcome(welcome) = frame {
                        *window = Window { orders: welcome.window_orders, bytes: welcome.window_bytes };
                        came += 1;
                    }
                })?;
            }
        }
        Ok(came)
    }

    /// Waits for events; false if there is no time left.
    fn wait_until(&mut self, deadline: Duration) -> std::io::Result<bool> {
        let left = deadline.saturating_sub(machine::now());
        if left.is_zero() {
            return Ok(false);
        }
        self.wait(left)?;
        Ok(true)
    }

    fn wait(&mut self, span: Duration) -> std::io::Result<()> {
        let seconds = i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
        let timeout = Timespec { tv_sec: seconds, tv_nsec: span.subsec_nanos().into() };
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The round's frames under new numbers; the length of each.
    fn encode(&mut self) -> std::io::Result<usize> {
        let (mut at, mut len) = (0, 0);
        for _ in 0..self.orders {
            self.number += 1;
            let room = self.frames.get_mut(at..).unwrap_or_default();
            len = wire_order(self.number, &self.payload)
                .emit(&DELIVERY, room)
                .map_err(|error| std::io::Error::other(error.to_string()))?;
            at += len;
        }
        Ok(len)
    }

    /// Every order to every device; how many were applied.
    fn push(&mut self) -> std::io::Result<u64> {
        let (first, deadline) = (self.number + 1, machine::now() + ROUND_WITHIN);
        let len = self.encode()?;
        let missing = u64::from(self.orders) * self.conns.len() as u64;
        for conn in &mut self.conns {
            (conn.written, conn.answered) = (0, 0);
            conn.pump(&self.frames, len)?;
        }
        let mut applied = 0;
        while applied < missing && self.wait_until(deadline)? {
            for event in &self.events {
                let Some(conn) = at(&mut self.conns, event) else { continue };
                if { event.flags }.contains(EventFlags::IN) {
                    applied += conn.answers(first, &mut self.inbox)?;
                }
                conn.pump(&self.frames, len)?;
            }
        }
        Ok(applied)
    }
}

fn at<'c>(conns: &'c mut [Conn], event: &Event) -> Option<&'c mut Conn> {
    conns.get_mut(usize::try_from(event.data.u64()).unwrap_or(usize::MAX))
}

impl Conn {
    /// Writes what the window lets out and the kernel takes.
    fn pump(&mut self, frames: &[u8], len: usize) -> std::io::Result<()> {
        let bytes = usize::try_from(self.window.bytes).unwrap_or(usize::MAX);
        let window = usize::from(self.window.orders).min(bytes / len.max(1)).max(1);
        let until = self.answered.saturating_add(window).saturating_mul(len).min(frames.len());
        while let Some(part @ [_, ..]) = frames.get(self.written..until) {
            match self.stream.write(part) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads outcomes; how many orders were applied. They come in the order they were written.
    fn answers(&mut self, first: u64, inbox: &mut [u8]) -> std::io::Result<u64> {
        let Self { stream, tail, answered, .. } = self;
        let before = *answered;
        let mut strange = false;
        read_frames(stream, tail, inbox, |frame| {
            let Frame::Outcome(outcome) = frame else { return };
            for entry in outcome.entries.iter() {
                strange |= entry.number != first + *answered as u64 || entry.code != Code::APPLIED;
                *answered += 1;
            }
        })?;
        if strange { Err(ErrorKind::InvalidData.into()) } else { Ok((*answered - before) as u64) }
    }
}

/// Reads once, or again while the buffer was filled, and hands every whole frame over.
fn read_frames(
    stream: &mut TcpStream,
    tail: &mut Vec<u8>,
    inbox: &mut [u8],
    mut each: impl FnMut(&Frame<'_>),
) -> std::io::Result<()> {
    let invalid = |_| std::io::Error::from(ErrorKind::InvalidData);
    loop {
        let kept = tail.len();
        let (front, room) = inbox.split_at_mut_checked(kept).ok_or(ErrorKind::InvalidData)?;
        front.copy_from_slice(tail);
        let most = room.len();
        let len = match stream.read(room) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(len) => len,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut rest = inbox.get(..kept + len).unwrap_or_default();
        while let Split::Frame(raw @ Raw { .. }) = split(rest, BODY_MAX).map_err(invalid)? {
            each(&Frame::parse(&raw).map_err(invalid)?);
            rest = rest.get(raw.len()..).unwrap_or_default();
        }
        tail.clear();
        tail.extend_from_slice(rest);
        if len < most {
            return Ok(());
        }
    }
}

impl Contestant for RawEpoll {
    fn wait(&mut self, told: &mut UnboundedReceiver<()>) -> Option<()> {
        told.blocking_recv()
    }

    fn round(&mut self) -> Result<u64, Failure> {
        self.push().map_err(|error| Failure::broken(format!("raw-epoll lost a device: {error}"), ""))
    }

    fn rest(&mut self, span: Duration) {
        let end = machine::now() + span;
        loop {
            let left = end.saturating_sub(machine::now());
            // Nothing comes without an order; what can be read is a device that left, and the next round says so.
            let came = |event: &Event| { event.flags }.contains(EventFlags::IN);
            if left.is_zero() || self.wait(left).is_err() || self.events.iter().any(came) {
                return;
            }
        }
    }

    fn end(self: Box<Self>) {}
}

const DELIVERY: Delivery = Delivery {
    durable: false,
    replay: false,
    needs_result: false,
    // A day, as an order of the library has it if nothing else is said.
    remaining_ms: Some(86_400_000),
};

fn wire_order(number: u64, payload: &[u8]) -> Order<'_> {
    Order {
        number,
        order_key: 0,
        supersede_key: 0,
        supersede_version: 0,
        kind: order::KIND,
        lane: order::LANE,
        kind_flags: order::FLAGS,
        schema: order::SCHEMA,
        options: &[],
        payload,
    }
}

fn hello(store: Store) -> Hello {
    Hello {
        version_min: VERSION,
        version_max: VERSION,
        staging: true,
        takeover: false,
        store,
        max_body: BODY_MAX,
        target: NodeId::NONE,
        server: NodeId([0xE0; 16]),
        fence: 1,
        epoch: 1,
        ping_interval_ms: 3_000,
        features: 0,
        durable: LogHead::default(),
        volatile: LogHead { lineage: Lineage([0xE1; 16]), run: 1, head: 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_contestants_write_the_same_bytes() {
        let payload = order::payload(200);
        let (mut raw, mut ours) = ([0; 512], [0; 512]);
        let raw_len = wire_order(7, &payload).emit(&DELIVERY, &mut raw).unwrap();
        let ours_len = order::order(&payload).emit(7, &mut ours).unwrap();
        assert_eq!(raw[..raw_len], ours[..ours_len]);
    }
}
