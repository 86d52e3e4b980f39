//! The poller on Linux: one epoll instance per shard, and a plain socket of twelve bytes per device.
//!
//! ```text
//! tokio's reactor ──(one descriptor: the epoll instance)──▶ shard task ── epoll_wait ──▶ up to 256 devices at once
//! ```
//!
//! A socket is registered once, edge-triggered, for both directions: no further system call when a dial ends or a write
//! was cut, and `epoll_wait` does not look again at sockets it has reported. A read that returns less than there was room
//! for has emptied the socket; only a full one, or a peer that is leaving, is read again.
//!
//! An event carries the number of its dial. A connection that was closed while its event waited to be looked at, and was
//! dialled again at once, does not take the event for its own.

use core::mem::MaybeUninit;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg, sockopt};
use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::conn::dial_error;
use super::sockets::Look;
use crate::fleet::{DeviceIndex, DialError};

/// Devices served before orders get their turn, as many as orders are written before devices get theirs. 3 KiB of
/// stack; one system call more for 256 devices.
pub(super) const EVENTS_MAX: usize = 256;
/// Bytes up to which a write of two parts is copied together: a list of parts costs the kernel more than a copy of 1 KiB.
const GATHER_MAX: usize = 1 << 10;
/// What the kernel is asked to tell, once per change.
const INTEREST: EventFlags =
    EventFlags::IN.union(EventFlags::OUT).union(EventFlags::RDHUP).union(EventFlags::ET);
/// The peer is leaving or has left: it is read to the end.
const LEAVING: EventFlags = EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR);
/// A dial has ended, one way or the other.
const ANSWERED: EventFlags = EventFlags::OUT.union(EventFlags::HUP).union(EventFlags::ERR);

/// The sockets of all devices, by index, and which of them are ready.
#[derive(Debug)]
pub(super) struct Epoll {
    /// tokio is told one thing: that this has events.
    instance: AsyncFd<OwnedFd>,
    conns: Vec<Conn>,
    /// What the kernel told last. Served up to `served`.
    events: Vec<Told>,
    served: usize,
    /// Devices that were not read empty, or not written to the end, and have to be looked at without an event.
    again: Vec<DeviceIndex>,
    /// The same, taken in this turn.
    again_now: Vec<DeviceIndex>,
    /// Where small writes of two parts become one.
    gather: Box<[u8]>,
}

/// A device's place, with its socket while there is one.
#[derive(Debug)]
struct Conn {
    socket: Option<OwnedFd>,
    /// The number of its last dial, with which its events come.
    dial: u32,
    stage: Stage,
    flags: u8,
}

/// What the kernel told about one socket.
#[derive(Clone, Copy, Debug)]
struct Told {
    device: DeviceIndex,
    /// The number of the dial the socket was opened with.
    dial: u32,
    what: EventFlags,
}

impl From<&Event> for Told {
    fn from(event: &Event) -> Self {
        let (data, what) = (event.data.u64(), event.flags);
        #[expect(clippy::cast_possible_truncation, reason = "the two halves it was made of")]
        let (device, dial) = (DeviceIndex(data as u32), (data >> 32) as u32);
        Self { device, dial, what }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Closed,
    Dialling,
    Open,
    Blocked,
}

const _: () = assert!(size_of::<Conn>() == 12);

/// There may be something to read.
const READABLE: u8 = 1 << 0;
/// A short read does not mean that the socket is empty: its end comes after.
const ENDING: u8 = 1 << 1;
/// It is on the list of those to look at again.
const LISTED: u8 = 1 << 2;

impl Conn {
    const CLOSED: Self = Self { socket: None, dial: 0, stage: Stage::Closed, flags: 0 };

    const fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// What an event means for this connection.
    fn look(&mut self, told: EventFlags) -> Look {
        if told.intersects(LEAVING) {
            self.flags |= READABLE | ENDING;
        }
        if told.contains(EventFlags::IN) {
            self.flags |= READABLE;
        }
        match self.stage {
            Stage::Dialling if told.intersects(ANSWERED) => Look::Dialled(self.dialled()),
            Stage::Blocked if told.contains(EventFlags::OUT) => {
                self.stage = Stage::Open;
                Look::Open { writable: true }
            }
            Stage::Open | Stage::Blocked => Look::Open { writable: false },
            Stage::Dialling | Stage::Closed => Look::Nothing,
        }
    }

    fn dialled(&mut self) -> Result<(), DialError> {
        let socket = self.socket.as_ref().ok_or(DialError::Unreachable)?;
        match sockopt::socket_error(socket) {
            Ok(Ok(())) => {
                self.stage = Stage::Open;
                Ok(())
            }
            Ok(Err(error)) | Err(error) => Err(dial_error(&error.into())),
        }
    }

    fn read(&mut self, room: &mut [u8]) -> Option<io::Result<usize>> {
        let socket = self.socket.as_ref().filter(|_| self.is(READABLE))?;
        let most = room.len();
        match retry_on_intr(|| recv(socket, &mut *room, RecvFlags::empty())) {
            Ok((_, len)) => {
                if len < most && !self.is(ENDING) {
                    self.flags &= !READABLE;
                }
                Some(Ok(len))
            }
            Err(Errno::AGAIN) => {
                self.flags &= !READABLE;
                None
            }
            Err(error) => Some(Err(error.into())),
        }
    }

    fn write(&mut self, head: &[u8], body: &[u8], gather: &mut [u8]) -> io::Result<usize> {
        let socket = self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        // A closed peer is an error, not a signal that ends the process.
        let flags = SendFlags::NOSIGNAL;
        let one = |bytes: &[u8]| retry_on_intr(|| send(socket, bytes, flags));
        let result = match (head.is_empty(), body.is_empty()) {
            (true, _) => one(body),
            (false, true) => one(head),
            (false, false) if let Some(both) = gathered(head, body, gather) => one(both),
            (false, false) => {
                let parts = [IoSlice::new(head), IoSlice::new(body)];
                retry_on_intr(|| sendmsg(socket, &parts, &mut SendAncillaryBuffer::default(), flags))
            }
        };
        let written = match result {
            Ok(written) => written,
            Err(Errno::AGAIN) => 0,
            Err(error) => return Err(error.into()),
        };
        if written < head.len() + body.len() {
            // The kernel tells when it takes more: it was full when this write ended.
            self.stage = Stage::Blocked;
        }
        Ok(written)
    }
}

impl Epoll {
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O.
    pub(super) fn new(devices: usize) -> io::Result<Self> {
        let instance = epoll::create(CreateFlags::CLOEXEC)?;
        #[allow(
            deprecated,
            reason = "its successor, since 1.53.3, wants an unsafe promise that an OwnedFd keeps by itself: to stay open and the same"
        )]
        let instance = AsyncFd::with_interest(instance, Interest::READABLE)?;
        Ok(Self {
            instance,
            conns: Vec::with_capacity(devices),
            events: Vec::with_capacity(EVENTS_MAX),
            served: 0,
            again: Vec::with_capacity(devices),
            again_now: Vec::with_capacity(devices),
            gather: vec![0; GATHER_MAX].into(),
        })
    }

    pub(super) fn add(&mut self, _device: DeviceIndex) {
        self.conns.push(Conn::CLOSED);
    }

    fn conn(&mut self, device: DeviceIndex) -> Option<&mut Conn> {
        self.conns.get_mut(device.0 as usize)
    }

    pub(super) fn begin(&mut self, device: DeviceIndex, dial: u32, socket: Socket) -> io::Result<()> {
        let place = self.conns.get_mut(device.0 as usize).ok_or(io::ErrorKind::NotFound)?;
        let socket = OwnedFd::from(socket);
        let data = EventData::new_u64(u64::from(dial) << 32 | u64::from(device.0));
        epoll::add(self.instance.get_ref(), &socket, data, INTEREST)?;
        // A listed device stays on the list; it finds nothing to read there.
        let flags = place.flags & LISTED;
        *place = Conn { socket: Some(socket), dial, stage: Stage::Dialling, flags };
        Ok(())
    }

    /// The number of the dial that is under way.
    pub(super) fn dialling(&self, device: DeviceIndex) -> Option<u32> {
        let conn = self.conns.get(device.0 as usize)?;
        (conn.stage == Stage::Dialling).then_some(conn.dial)
    }

    /// The kernel forgets a socket that is closed, with its events.
    pub(super) fn close(&mut self, device: DeviceIndex) {
        if let Some(conn) = self.conn(device) {
            conn.socket = None;
            conn.stage = Stage::Closed;
            conn.flags &= LISTED;
        }
    }

    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> bool {
        self.again_now.clear();
        core::mem::swap(&mut self.again, &mut self.again_now);
        self.served = 0;
        // The kernel is asked in every turn: tokio knows only what was there when it last slept. Its own answer is asked
        // for first, so that it cannot be about something that came after ours.
        let answer = self.instance.poll_read_ready(cx);
        self.events.clear();
        let all = wait(self.instance.get_ref(), &mut self.events);
        let any = !self.events.is_empty() || !self.again_now.is_empty();
        match answer {
            Poll::Ready(Ok(mut guard)) if all => {
                guard.clear_ready();
                // Only who is told to wait is woken.
                any | self.instance.poll_read_ready(cx).is_ready()
            }
            Poll::Ready(Ok(_)) => true,
            // The runtime ends; so will this task.
            Poll::Ready(Err(_)) | Poll::Pending => any,
        }
    }

    pub(super) fn next_ready(&mut self) -> Option<(DeviceIndex, Look)> {
        if let Some(device) = self.again_now.pop() {
            let look = self.conn(device).map_or(Look::Nothing, |conn| {
                conn.flags &= !LISTED;
                conn.look(EventFlags::empty())
            });
            return Some((device, look));
        }
        let Told { device, dial, what } = *self.events.get(self.served)?;
        self.served += 1;
        let conn = self.conn(device).filter(|conn| conn.dial == dial);
        Some((device, conn.map_or(Look::Nothing, |conn| conn.look(what))))
    }

    pub(super) fn relist(&mut self, device: DeviceIndex) {
        let Some(conn) = self.conns.get_mut(device.0 as usize) else { return };
        if !conn.is(LISTED) {
            conn.flags |= LISTED;
            self.again.push(device);
        }
    }

    pub(super) fn read(&mut self, device: DeviceIndex, room: &mut [u8]) -> Option<io::Result<usize>> {
        self.conn(device)?.read(room)
    }

    pub(super) fn write(&mut self, device: DeviceIndex, head: &[u8], body: &[u8]) -> io::Result<usize> {
        let conn = self.conns.get_mut(device.0 as usize).ok_or(io::ErrorKind::NotConnected)?;
        conn.write(head, body, &mut self.gather)
    }
}

/// Both parts in one, if they are small.
fn gathered<'g>(head: &[u8], body: &[u8], gather: &'g mut [u8]) -> Option<&'g [u8]> {
    let both = gather.get_mut(..head.len() + body.len())?;
    let (front, back) = both.split_at_mut(head.len());
    front.copy_from_slice(head);
    back.copy_from_slice(body);
    Some(both)
}

/// Takes what the kernel has to tell, without waiting for it. False if there may be more.
fn wait(instance: &OwnedFd, events: &mut Vec<Told>) -> bool {
    let mut room = [const { MaybeUninit::<Event>::uninit() }; EVENTS_MAX];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let Ok((told, _)) = epoll::wait(instance, &mut room, Some(&now)) else { return false };
    events.extend(told.iter().map(Told::from));
    told.len() < EVENTS_MAX
}
