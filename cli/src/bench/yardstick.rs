//! The yardstick `raw-epoll`: what this machine takes for the same bytes over the same sockets if a program does
//! nothing else. One thread, blocking dials, one write and one read per device and order; no deadlines, no windows, no
//! reconnects, no reports. It is not a server anybody could run.

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
use super::{machine, order, peers};
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
    frame: Vec<u8>,
    payload: Vec<u8>,
    events: Vec<Event>,
    number: u64,
}

#[derive(Debug)]
struct Conn {
    stream: TcpStream,
    /// A frame that began in one read and did not end in it.
    tail: Vec<u8>,
}

impl RawEpoll {
    /// Dials every device and waits for every WELCOME.
    pub(super) fn connect(task: Task, store: Store) -> Result<Self, Failure> {
        let broken = |error: std::io::Error| {
            Failure::broken(format!("raw-epoll cannot reach the devices: {error}"), "")
        };
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(|error| broken(error.into()))?;
        let payload = order::payload(task.payload);
        let frame = vec![0; order::order(&payload).encoded_len()];
        let mut raw = Self {
            epoll,
            conns: Vec::with_capacity(usize::try_from(task.devices).unwrap_or_default()),
            inbox: vec![0; READ_MAX].into(),
            frame,
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
            let missing = end.saturating_sub(first);
            welcomed += raw.collect(missing, |frame| matches!(frame, Frame::Welcome(_))).map_err(broken)?;
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
        epoll::add(&self.epoll, &stream, EventData::new_u64(u64::from(index)), EventFlags::IN)?;
        stream.write_all(hello)?;
        self.conns.push(Conn { stream, tail: Vec::new() });
        Ok(())
    }

    /// Reads until `missing` frames that are `wanted` have come, or no more patience; how many came.
    fn collect(&mut self, missing: u32, wanted: impl Fn(&Frame<'_>) -> bool) -> std::io::Result<u32> {
        let deadline = machine::now() + ROUND_WITHIN;
        let mut came = 0;
        while came < missing {
            let left = deadline.saturating_sub(machine::now());
            if left.is_zero() {
                break;
            }
            self.wait(left)?;
            for event in &self.events {
                let index = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
                if let Some(conn) = self.conns.get_mut(index) {
                    came += conn.read(&mut self.inbox, &wanted)?;
                }
            }
        }
        Ok(came)
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

    fn push(&mut self) -> std::io::Result<u32> {
        self.number += 1;
        let number = self.number;
        let len = wire_order(number, &self.payload)
            .emit(&DELIVERY, &mut self.frame)
            .map_err(|error| std::io::Error::other(error.to_string()))?;
        let frame = self.frame.get(..len).unwrap_or_default();
        for conn in &mut self.conns {
            if conn.stream.write(frame)? != frame.len() {
                return Err(ErrorKind::WriteZero.into());
            }
        }
        let devices = u32::try_from(self.conns.len()).unwrap_or(u32::MAX);
        self.collect(devices, |frame| match frame {
            Frame::Outcome(outcome) => {
                outcome.entries.iter().any(|entry| entry.number == number && entry.code == Code::APPLIED)
            }
            _ => false,
        })
    }
}

impl Conn {
    /// Reads once; how many of the frames were `wanted`.
    fn read(&mut self, inbox: &mut [u8], wanted: &impl Fn(&Frame<'_>) -> bool) -> std::io::Result<u32> {
        let kept = self.tail.len();
        let (front, room) = inbox.split_at_mut_checked(kept).ok_or(ErrorKind::InvalidData)?;
        front.copy_from_slice(&self.tail);
        let len = match self.stream.read(room) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(len) => kept + len,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(0);
            }
            Err(error) => return Err(error),
        };
        let invalid = |_| std::io::Error::from(ErrorKind::InvalidData);
        let mut rest = inbox.get(..len).unwrap_or_default();
        let mut count = 0;
        while let Split::Frame(raw @ Raw { .. }) = split(rest, BODY_MAX).map_err(invalid)? {
            count += u32::from(wanted(&Frame::parse(&raw).map_err(invalid)?));
            rest = rest.get(raw.len()..).unwrap_or_default();
        }
        self.tail.clear();
        self.tail.extend_from_slice(rest);
        Ok(count)
    }
}

impl Contestant for RawEpoll {
    fn wait(&mut self, told: &mut UnboundedReceiver<()>) -> Option<()> {
        told.blocking_recv()
    }

    fn round(&mut self) -> Result<u32, Failure> {
        self.push().map_err(|error| Failure::broken(format!("raw-epoll lost a device: {error}"), ""))
    }

    fn rest(&mut self, span: Duration) {
        let end = machine::now() + span;
        loop {
            let left = end.saturating_sub(machine::now());
            // Nothing comes without an order; an event would be a device that left, and the next round says so.
            if left.is_zero() || self.wait(left).is_err() || !self.events.is_empty() {
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
