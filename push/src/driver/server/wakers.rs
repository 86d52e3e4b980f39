//! The portable poller: tokio's sockets, each with a waker that puts its device on one list.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use socket2::Socket;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

use super::conn::dial_error;
use super::ready::{DeviceWaker, Ready};
use super::sockets::Look;
use crate::fleet::{DeviceIndex, DialError};

/// The sockets of all devices, by index, and which of them are ready.
#[derive(Debug)]
pub(super) struct Wakers {
    conns: Vec<Conn>,
    ready: Arc<Ready>,
    /// Devices that are ready, in the order they became so; swapped with the list of `Ready`. Served up to `served`.
    listed: Vec<DeviceIndex>,
    served: usize,
}

/// A device's place: its waker, and its socket while there is one.
#[derive(Debug)]
struct Conn {
    device_waker: Arc<DeviceWaker>,
    waker: Waker,
    stream: Option<TcpStream>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Closed,
    /// The number of the dial.
    Dialling(u32),
    Open,
    /// Open, and the kernel took less than it was given.
    Blocked,
}

impl Wakers {
    pub(super) fn new(devices: usize) -> Self {
        Self {
            conns: Vec::with_capacity(devices),
            ready: Arc::new(Ready::new(devices)),
            listed: Vec::with_capacity(devices),
            served: 0,
        }
    }

    pub(super) fn add(&mut self, device: DeviceIndex) {
        let device_waker = DeviceWaker::new(&self.ready, device);
        let waker = Waker::from(Arc::clone(&device_waker));
        self.conns.push(Conn { device_waker, waker, stream: None, stage: Stage::Closed });
    }

    fn conn(&mut self, device: DeviceIndex) -> Option<&mut Conn> {
        self.conns.get_mut(device.0 as usize)
    }

    pub(super) fn begin(&mut self, device: DeviceIndex, dial: u32, socket: Socket) -> io::Result<()> {
        let conn = self.conn(device).ok_or(io::ErrorKind::NotFound)?;
        conn.stream = Some(TcpStream::from_std(socket.into())?);
        conn.stage = Stage::Dialling(dial);
        // Lists the device: the first look registers its waker with the reactor.
        conn.waker.wake_by_ref();
        Ok(())
    }

    /// The number of the dial that is under way.
    pub(super) fn dialling(&self, device: DeviceIndex) -> Option<u32> {
        match self.conns.get(device.0 as usize)?.stage {
            Stage::Dialling(dial) => Some(dial),
            _ => None,
        }
    }

    pub(super) fn close(&mut self, device: DeviceIndex) {
        if let Some(conn) = self.conn(device) {
            conn.stream = None;
            conn.stage = Stage::Closed;
        }
    }

    pub(super) fn poll_ready(&mut self, cx: &Context<'_>) -> bool {
        self.ready.register(cx.waker());
        self.listed.clear();
        self.served = 0;
        self.ready.take(&mut self.listed)
    }

    pub(super) fn next_ready(&mut self) -> Option<(DeviceIndex, Look)> {
        let device = *self.listed.get(self.served)?;
        self.served += 1;
        let look = self.conn(device).map_or(Look::Nothing, Conn::look);
        Some((device, look))
    }

    pub(super) fn relist(&self, device: DeviceIndex) {
        if let Some(conn) = self.conns.get(device.0 as usize) {
            conn.waker.wake_by_ref();
        }
    }

    pub(super) fn read(&mut self, device: DeviceIndex, room: &mut [u8]) -> Option<io::Result<usize>> {
        let conn = self.conn(device)?;
        let stream = conn.stream.as_mut()?;
        let mut cx = Context::from_waker(&conn.waker);
        let mut buffer = ReadBuf::new(room);
        match Pin::new(stream).poll_read(&mut cx, &mut buffer) {
            Poll::Pending => None,
            Poll::Ready(Ok(())) => Some(Ok(buffer.filled().len())),
            Poll::Ready(Err(error)) => Some(Err(error)),
        }
    }

    pub(super) fn write(&mut self, device: DeviceIndex, head: &[u8], body: &[u8]) -> io::Result<usize> {
        self.conn(device).ok_or(io::ErrorKind::NotConnected)?.write(head, body)
    }
}

impl Conn {
    /// The device was listed: what is there to do?
    fn look(&mut self) -> Look {
        self.device_waker.unlist();
        let Some(stream) = &self.stream else { return Look::Nothing };
        let mut cx = Context::from_waker(&self.waker);
        match self.stage {
            Stage::Dialling(_) => match stream.poll_write_ready(&mut cx) {
                Poll::Pending => Look::Nothing,
                Poll::Ready(Err(error)) => Look::Dialled(Err(dial_error(&error))),
                Poll::Ready(Ok(())) => Look::Dialled(self.dialled()),
            },
            Stage::Blocked if stream.poll_write_ready(&mut cx).is_ready() => {
                self.stage = Stage::Open;
                Look::Open { writable: true }
            }
            Stage::Open | Stage::Blocked => Look::Open { writable: false },
            Stage::Closed => Look::Nothing,
        }
    }

    fn dialled(&mut self) -> Result<(), DialError> {
        match self.stream.as_ref().map(TcpStream::take_error) {
            Some(Ok(None)) => {
                self.stage = Stage::Open;
                Ok(())
            }
            Some(Ok(Some(error)) | Err(error)) => Err(dial_error(&error)),
            None => Err(DialError::Unreachable),
        }
    }

    fn write(&mut self, head: &[u8], body: &[u8]) -> io::Result<usize> {
        let Some(stream) = &self.stream else { return Err(io::ErrorKind::NotConnected.into()) };
        let result = match (head.is_empty(), body.is_empty()) {
            (true, _) => stream.try_write(body),
            (false, true) => stream.try_write(head),
            (false, false) => stream.try_write_vectored(&[IoSlice::new(head), IoSlice::new(body)]),
        };
        let written = match result {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        if written < head.len() + body.len() {
            self.stage = Stage::Blocked;
            let mut cx = Context::from_waker(&self.waker);
            if stream.poll_write_ready(&mut cx).is_ready() {
                self.waker.wake_by_ref();
            }
        }
        Ok(written)
    }
}
