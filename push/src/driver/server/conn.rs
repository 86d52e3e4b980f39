//! One socket to a device: dialling without blocking, reading and writing with the device's own waker.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

use wire_format::time::Instant;

use super::ready::{DeviceWaker, Ready};
use super::sockets::Look;
use crate::fleet::{DeviceIndex, DialError};

/// How the sockets to devices are opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnConfig {
    /// Dial from this address; `None` leaves the choice to the system.
    pub source: Option<IpAddr>,
}

/// Milliseconds after which the kernel gives up on unacknowledged bytes.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// A device's place in the shard: its waker, and its socket while there is one.
#[derive(Debug)]
pub(super) struct Conn {
    device_waker: Arc<DeviceWaker>,
    waker: Waker,
    stream: Option<TcpStream>,
    stage: Stage,
    /// A frame that began in one read and did not end in it.
    pub(super) tail: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Closed,
    /// Until then.
    Dialling(Instant),
    Open,
    /// Open, and the kernel took less than it was given.
    Blocked,
}

impl Conn {
    pub(super) fn new(ready: &Arc<Ready>, device: DeviceIndex) -> Self {
        let device_waker = DeviceWaker::new(ready, device);
        let waker = Waker::from(Arc::clone(&device_waker));
        Self { device_waker, waker, stream: None, stage: Stage::Closed, tail: Vec::new() }
    }

    /// Begins to dial, until `deadline`; the waker tells when there is an answer.
    pub(super) fn dial(
        &mut self,
        address: SocketAddr,
        config: &ConnConfig,
        deadline: Instant,
    ) -> Result<(), DialError> {
        self.close();
        let stream = start(address, config).map_err(|error| dial_error(&error))?;
        self.stream = Some(stream);
        self.stage = Stage::Dialling(deadline);
        // Lists the device: the first look registers its waker with the reactor.
        self.waker.wake_by_ref();
        Ok(())
    }

    /// Until when the dial that is under way may take; `None` if there is none.
    pub(super) const fn dial_deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Dialling(deadline) => Some(deadline),
            _ => None,
        }
    }

    /// Puts the device on the ready list again: there is more to do than one turn allows.
    pub(super) fn relist(&self) {
        self.waker.wake_by_ref();
    }

    pub(super) fn close(&mut self) {
        self.stream = None;
        self.stage = Stage::Closed;
        self.tail.clear();
    }

    /// The device was listed: what is there to do?
    pub(super) fn look(&mut self) -> Look {
        self.device_waker.unlist();
        let Some(stream) = &self.stream else { return Look::Nothing };
        let mut cx = Context::from_waker(&self.waker);
        match self.stage {
            Stage::Dialling(_) => match stream.poll_write_ready(&mut cx) {
                Poll::Pending => Look::Nothing,
                Poll::Ready(Err(error)) => Look::Dialled(Err(dial_error(&error))),
                Poll::Ready(Ok(())) => match stream.take_error() {
                    Ok(None) => {
                        self.stage = Stage::Open;
                        Look::Dialled(Ok(()))
                    }
                    Ok(Some(error)) | Err(error) => Look::Dialled(Err(dial_error(&error))),
                },
            },
            Stage::Blocked if stream.poll_write_ready(&mut cx).is_ready() => {
                self.stage = Stage::Open;
                Look::Open { writable: true }
            }
            Stage::Open | Stage::Blocked => Look::Open { writable: false },
            Stage::Closed => Look::Nothing,
        }
    }

    /// Reads into `room`; `None` when nothing is there now (the waker will tell), `Some(0)` at the end of the stream.
    pub(super) fn read(&mut self, room: &mut [u8]) -> Option<io::Result<usize>> {
        let stream = self.stream.as_mut()?;
        let mut cx = Context::from_waker(&self.waker);
        let mut buffer = ReadBuf::new(room);
        match Pin::new(stream).poll_read(&mut cx, &mut buffer) {
            Poll::Pending => None,
            Poll::Ready(Ok(())) => Some(Ok(buffer.filled().len())),
            Poll::Ready(Err(error)) => Some(Err(error)),
        }
    }

    /// Writes what the kernel takes. Fewer bytes than given: the device is listed again when it takes more.
    pub(super) fn write(&mut self, head: &[u8], body: &[u8]) -> io::Result<usize> {
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

fn start(address: SocketAddr, config: &ConnConfig) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    if let Some(source) = config.source.filter(|source| source.is_ipv4() == address.is_ipv4()) {
        // A bound socket takes a port of its source address for itself, for a minute longer than it lives: three restarts
        // with 10,000 devices would use up all 28,000. With this it shares the port with dials to other devices.
        #[cfg(not(windows))]
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if in_progress(&error) => {}
        Err(error) => return Err(error),
    }
    TcpStream::from_std(socket.into())
}

#[cfg(unix)]
fn in_progress(error: &io::Error) -> bool {
    // EINPROGRESS has no `ErrorKind` of its own in this release; the number is the same on every Linux but MIPS and SPARC.
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(EINPROGRESS)
}

#[cfg(all(unix, any(target_os = "linux", target_os = "android")))]
const EINPROGRESS: i32 = 115;
#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
const EINPROGRESS: i32 = 36;

#[cfg(not(unix))]
fn in_progress(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

fn dial_error(error: &io::Error) -> DialError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => DialError::Refused,
        io::ErrorKind::TimedOut => DialError::TimedOut,
        _ => DialError::Unreachable,
    }
}
