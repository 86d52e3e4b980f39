//! Every socket of a shard: dials, reads, writes, and which devices have something to do.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Context;

use wire_format::time::Instant;

use super::conn::{Conn, ConnConfig};
use super::ready::Ready;
use crate::config::CONNECT_WITHIN;
use crate::fleet::{Closed, DeviceIndex, DialError};

/// What a ready device has for the shard.
#[derive(Debug)]
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

/// The sockets of all devices of a shard, by the device's index.
#[derive(Debug)]
pub(super) struct Sockets {
    config: ConnConfig,
    conns: Vec<Conn>,
    ready: Arc<Ready>,
    /// Devices that are ready, in the order they became so; swapped with the list of `Ready`. Served up to `served`.
    listed: Vec<DeviceIndex>,
    served: usize,
    /// Dials in the order they began: all have the same time to succeed.
    dials: VecDeque<(Instant, DeviceIndex)>,
}

impl Sockets {
    /// Room for that many devices.
    pub(super) fn new(config: ConnConfig, devices: usize) -> Self {
        Self {
            config,
            conns: Vec::with_capacity(devices),
            ready: Arc::new(Ready::new(devices)),
            listed: Vec::with_capacity(devices),
            served: 0,
            dials: VecDeque::new(),
        }
    }

    /// A place for the next device, whose index this is.
    pub(super) fn add(&mut self, device: DeviceIndex) {
        debug_assert_eq!(device.0 as usize, self.conns.len(), "the fleet numbers devices densely");
        self.conns.push(Conn::new(&self.ready, device));
    }

    /// How many devices have a place.
    pub(super) const fn len(&self) -> usize {
        self.conns.len()
    }

    fn conn(&mut self, device: DeviceIndex) -> Option<&mut Conn> {
        self.conns.get_mut(device.0 as usize)
    }

    /// Begins to dial; the end of it is a [`Look::Dialled`], or comes from [`Sockets::poll_expired`].
    pub(super) fn dial(
        &mut self,
        now: Instant,
        device: DeviceIndex,
        address: SocketAddr,
    ) -> Result<(), DialError> {
        let (deadline, config) = (now + CONNECT_WITHIN, self.config);
        let conn = self.conn(device).ok_or(DialError::Unreachable)?;
        conn.dial(address, &config, deadline)?;
        self.dials.push_back((deadline, device));
        Ok(())
    }

    /// The next device whose dial took too long; its socket is closed.
    pub(super) fn poll_expired(&mut self, now: Instant) -> Option<DeviceIndex> {
        while let Some(&(deadline, device)) = self.dials.front() {
            // An entry whose dial has ended says nothing about a later dial of the same device.
            let under_way = self.conn(device).and_then(|conn| conn.dial_deadline()) == Some(deadline);
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
        self.dials.front().map(|&(deadline, _)| deadline)
    }

    /// Looks which devices are ready; false if none is, and then the task is woken when one becomes so. Afterwards
    /// [`Sockets::next_ready`] names them: all of them, before this is called again.
    pub(super) fn poll_ready(&mut self, cx: &Context<'_>) -> bool {
        self.ready.register(cx.waker());
        self.listed.clear();
        self.served = 0;
        self.ready.take(&mut self.listed)
    }

    /// The next device that is ready, and for what.
    pub(super) fn next_ready(&mut self) -> Option<(DeviceIndex, Look)> {
        let device = *self.listed.get(self.served)?;
        self.served += 1;
        let look = self.conn(device).map_or(Look::Nothing, Conn::look);
        Some((device, look))
    }

    /// Makes a device ready again: there is more to do than one turn allows.
    pub(super) fn relist(&self, device: DeviceIndex) {
        if let Some(conn) = self.conns.get(device.0 as usize) {
            conn.relist();
        }
    }

    /// Reads once into the inbox, behind what [`Sockets::keep`] kept.
    pub(super) fn read(&mut self, device: DeviceIndex, inbox: &mut [u8]) -> Read {
        let Some(conn) = self.conn(device) else { return Read::Empty };
        let kept = conn.tail.len();
        let Some((tail, room)) = inbox.split_at_mut_checked(kept) else { return Read::Empty };
        tail.copy_from_slice(&conn.tail);
        let most = room.len();
        match conn.read(room) {
            None => Read::Empty,
            Some(Ok(0)) => Read::End(Closed::Eof),
            Some(Ok(len)) => {
                conn.tail.clear();
                if len == most { Read::Full(kept + len) } else { Read::Bytes(kept + len) }
            }
            Some(Err(_)) => Read::End(Closed::Reset),
        }
    }

    /// Keeps the beginning of a cut frame for the next read.
    pub(super) fn keep(&mut self, device: DeviceIndex, rest: &[u8]) {
        if let Some(conn) = self.conn(device) {
            conn.tail.extend_from_slice(rest);
        }
    }

    /// Writes what the kernel takes. Fewer bytes than given: the device becomes ready when it takes more.
    pub(super) fn write(&mut self, device: DeviceIndex, head: &[u8], body: &[u8]) -> io::Result<usize> {
        self.conn(device).ok_or(io::ErrorKind::NotConnected)?.write(head, body)
    }

    /// Closes the device's socket, if there is one.
    pub(super) fn close(&mut self, device: DeviceIndex) {
        if let Some(conn) = self.conn(device) {
            conn.close();
        }
    }
}
