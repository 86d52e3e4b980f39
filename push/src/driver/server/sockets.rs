//! Every socket of a shard: dials, reads, writes, and which devices have something to do.
//!
//! Who tells that a socket is ready is the poller's business: `epoll` on Linux, `wakers` elsewhere. Here is what both need.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::task::Context;

use socket2::Socket;
use wire_format::time::Instant;

use super::conn::{ConnConfig, Poller, dial_error};
#[cfg(target_os = "linux")]
use super::epoll::Epoll;
use super::tails::{Tail, Tails};
use super::wakers::Wakers;
use crate::config::CONNECT_WITHIN;
use crate::fleet::{Closed, DeviceIndex, DialError};

/// What a ready device has for the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// The dial ended.
    Dialled(Result<(), DialError>),
    /// The socket is open; read it.
    Open {
        /// It takes bytes again.
        writable: bool,
    },
    /// Nothing to do.
    Nothing,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// Nothing is there now; the device becomes ready when there is.
    Empty,
    /// This many bytes stand at the front of the inbox: what was kept of a cut frame, then what came.
    Bytes(usize),
    /// The same, and they fill it: there may be any amount more.
    Full(usize),
    /// The connection is over.
    End(Closed),
}

/// Who tells which sockets are ready, and owns them.
#[derive(Debug)]
enum Polled {
    #[cfg(target_os = "linux")]
    Epoll(Epoll),
    Wakers(Wakers),
}

/// The same call to either poller.
macro_rules! either {
    ($polled:expr, $poller:ident => $call:expr) => {
        match $polled {
            #[cfg(target_os = "linux")]
            Polled::Epoll($poller) => $call,
            Polled::Wakers($poller) => $call,
        }
    };
}

impl Polled {
    fn new(poller: Poller, devices: usize) -> Self {
        #[cfg(target_os = "linux")]
        if poller == Poller::System
            && let Ok(epoll) = Epoll::new(devices)
        {
            return Self::Epoll(epoll);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = poller;
        Self::Wakers(Wakers::new(devices))
    }

    fn begin(&mut self, device: DeviceIndex, dial: u32, socket: Socket) -> io::Result<()> {
        either!(self, poller => poller.begin(device, dial, socket))
    }
}

/// The sockets of all devices of a shard, by the device's index.
#[derive(Debug)]
pub(super) struct Sockets {
    config: ConnConfig,
    polled: Polled,
    /// Per device, the beginning of a frame that did not end in the read it began in.
    tails: Vec<Tail>,
    kept: Tails,
    /// Dials in the order they began, with their numbers: all have the same time to succeed.
    dials: VecDeque<(Instant, DeviceIndex, u32)>,
    /// The number of the last dial.
    dial: u32,
}

impl Sockets {
    /// Room for that many devices.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O.
    pub(super) fn new(config: ConnConfig, devices: usize) -> Self {
        Self {
            polled: Polled::new(config.poller, devices),
            config,
            tails: Vec::with_capacity(devices),
            kept: Tails::default(),
            dials: VecDeque::new(),
            dial: 0,
        }
    }

    /// A place for the next device, whose index this is.
    pub(super) fn add(&mut self, device: DeviceIndex) {
        debug_assert_eq!(device.0 as usize, self.tails.len(), "the fleet numbers devices densely");
        self.tails.push(Tail::NONE);
        either!(&mut self.polled, poller => poller.add(device));
    }

    /// How many devices have a place.
    pub(super) const fn len(&self) -> usize {
        self.tails.len()
    }

    /// Begins to dial; the end of it is a [`Look::Dialled`], or comes from [`Sockets::poll_expired`].
    pub(super) fn dial(
        &mut self,
        now: Instant,
        device: DeviceIndex,
        address: SocketAddr,
    ) -> Result<(), DialError> {
        self.close(device);
        self.dial = self.dial.wrapping_add(1);
        let dial = self.dial;
        let begun = self.config.dial(address).and_then(|socket| self.polled.begin(device, dial, socket));
        begun.map_err(|error| dial_error(&error))?;
        self.dials.push_back((now + CONNECT_WITHIN, device, dial));
        Ok(())
    }

    /// The next device whose dial took too long; its socket is closed.
    pub(super) fn poll_expired(&mut self, now: Instant) -> Option<DeviceIndex> {
        while let Some(&(deadline, device, dial)) = self.dials.front() {
            // An entry whose dial has ended says nothing about a later dial of the same device.
            let under_way = either!(&self.polled, poller => poller.dialling(device)) == Some(dial);
            if under_way && now < deadline {
                return None;
            }
            self.dials.pop_front();
            if under_way {
                self.close(device);
                return Some(device);
            }
        }
        None
    }

    /// When [`Sockets::poll_expired`] wants to be asked.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.dials.front().map(|&(deadline, ..)| deadline)
    }

    /// Looks which devices are ready; false if none is, and then the task is woken when one becomes so. Afterwards
    /// [`Sockets::next_ready`] names them: all of them, before this is called again.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> bool {
        either!(&mut self.polled, poller => poller.poll_ready(cx))
    }

    /// The next device that is ready, and for what. An open one is then read until [`Read::Empty`] or [`Read::End`], or
    /// listed again: what is left unread is told once.
    pub(super) fn next_ready(&mut self) -> Option<(DeviceIndex, Look)> {
        either!(&mut self.polled, poller => poller.next_ready())
    }

    /// Makes a device ready again: there is more to do than one turn allows.
    pub(super) fn relist(&mut self, device: DeviceIndex) {
        either!(&mut self.polled, poller => poller.relist(device));
    }

    /// Reads once into the inbox, behind what [`Sockets::keep`] kept.
    pub(super) fn read(&mut self, device: DeviceIndex, inbox: &mut [u8]) -> Read {
        let Some(tail) = self.tails.get_mut(device.0 as usize) else { return Read::Empty };
        let kept = self.kept.get(*tail);
        let before = kept.len();
        let Some((front, room)) = inbox.split_at_mut_checked(before) else { return Read::End(Closed::Reset) };
        front.copy_from_slice(kept);
        let most = room.len();
        match either!(&mut self.polled, poller => poller.read(device, room)) {
            None => Read::Empty,
            Some(Ok(0)) => Read::End(Closed::Eof),
            Some(Ok(len)) => {
                self.kept.release(tail);
                if len == most { Read::Full(before + len) } else { Read::Bytes(before + len) }
            }
            Some(Err(_)) => Read::End(Closed::Reset),
        }
    }

    /// Keeps the beginning of a cut frame for the next read.
    pub(super) fn keep(&mut self, device: DeviceIndex, rest: &[u8]) {
        if let Some(tail) = self.tails.get_mut(device.0 as usize) {
            self.kept.keep(tail, rest);
        }
    }

    /// Writes what the kernel takes. Fewer bytes than given: the device becomes ready when it takes more.
    pub(super) fn write(&mut self, device: DeviceIndex, head: &[u8], body: &[u8]) -> io::Result<usize> {
        either!(&mut self.polled, poller => poller.write(device, head, body))
    }

    /// Closes the device's socket, if there is one.
    pub(super) fn close(&mut self, device: DeviceIndex) {
        either!(&mut self.polled, poller => poller.close(device));
        if let Some(tail) = self.tails.get_mut(device.0 as usize) {
            self.kept.release(tail);
        }
    }
}

#[cfg(test)]
mod tests;
