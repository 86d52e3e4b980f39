//! The device's side on tokio: one task listens, serves the store server and calls the handler.

mod conn;
mod endpoint;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;

use self::endpoint::Endpoint;
use super::trace;
use crate::ended::Ended;
use crate::receiver::{Event as SessionEvent, Handler, ReceiverConfig, Stats};

/// Events a subscriber may lag behind before it is told how many it missed.
const EVENTS_MAX: usize = 256;
/// Connections the system holds for us while we are busy.
const BACKLOG: i32 = 16;

/// Why a device could not begin to listen. Nothing is left open.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for the store server on {address}: {source}")]
pub struct ListenError {
    /// The address asked for.
    pub address: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

/// What happens on a listening device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A server is served, will leave, or is served no more.
    Session(SessionEvent),
    /// A connection was closed from this side: a stranger that sent broken bytes, a server that was refused, a session
    /// that was replaced.
    Closed {
        /// Who had dialled.
        peer: SocketAddr,
        /// Why, and whose fault.
        why: Ended,
    },
}

#[derive(Debug)]
enum Command {
    Stats(oneshot::Sender<Box<Stats>>),
    Stop,
}

/// A listening device. Dropping it stops the task without a goodbye; [`Listener::shutdown`] says goodbye.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    commands: mpsc::Sender<Command>,
    events: broadcast::Sender<Event>,
    task: Option<JoinHandle<()>>,
}

impl Listener {
    /// Listens on `address` and serves with `handler` on the current tokio runtime. The handler runs inside the task and
    /// should answer within a second.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn spawn<H>(address: SocketAddr, config: ReceiverConfig, handler: H) -> Result<Self, ListenError>
    where
        H: Handler + Send + 'static,
    {
        let listener = listen(address).map_err(|source| ListenError { address, source })?;
        let address = listener.local_addr().map_err(|source| ListenError { address, source })?;
        let (commands, inbox) = mpsc::channel(8);
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let id = config.id;
        let endpoint = Endpoint::new(listener, config, handler, inbox, events.clone());
        let task = tokio::spawn(trace::task("device", id, endpoint.run()));
        Ok(Self { address, commands, events, task: Some(task) })
    }

    /// Where it listens; the port the system chose if 0 was asked for.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What happens to sessions, from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// A way to this device for other tasks.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { commands: self.commands.clone() }
    }

    /// Counters; `None` once the device has stopped.
    pub async fn stats(&self) -> Option<Box<Stats>> {
        self.handle().stats().await
    }

    /// Says BYE, closes the sockets and ends the task; at most `within`.
    pub async fn shutdown(mut self, within: Duration) {
        let _ = self.commands.send(Command::Stop).await;
        if let Some(mut task) = self.task.take()
            && tokio::time::timeout(within, &mut task).await.is_err()
        {
            task.abort();
        }
    }
}

/// A way to a listening device; clones lead to the same one. After its end every answer is empty.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
}

impl Handle {
    /// Counters; `None` once the device has stopped.
    pub async fn stats(&self) -> Option<Box<Stats>> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Stats(reply)).await.ok()?;
        answer.await.ok()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted device takes its port back at once; on Windows the option would let two processes share it.
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}
