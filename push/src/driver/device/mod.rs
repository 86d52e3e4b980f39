//! The device's side on tokio: one task listens, serves the store server and calls the handler.

mod blob;
mod conn;
mod desk;
mod endpoint;
mod handle;
mod keeper;
mod mailbox;

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

pub use self::handle::{Answer, AskError, HandOverError, Handle};
pub use self::mailbox::{POSTED_BYTES_MAX, POSTS_MAX};

use self::endpoint::Endpoint;
use self::mailbox::Mailbox;
use super::trace;
use crate::ended::Ended;
use crate::receiver::journal::{Found, Journal, NoJournal};
use crate::receiver::{Event as SessionEvent, Handler, ReceiverConfig, Stats};

/// Events a subscriber may lag behind before it is told how many it missed.
const EVENTS_MAX: usize = 256;
/// How long a shutdown waits for the task beyond the time it was given: more than the task itself takes to its end.
const LAST_BYTES_WITHIN: Duration = Duration::from_secs(2);
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

/// Why a device with a journal could not begin. Nothing is left open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError<E> {
    /// The port.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// What the journal holds could not be read: without it orders could be applied twice.
    #[error("the journal cannot be read")]
    Journal(#[source] E),
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
    /// The journal did not take a write: nobody is served until it takes one. Tried, and told, every two seconds.
    JournalFailed {
        /// What the system said; [`io::ErrorKind::Other`] if it was not the system.
        why: io::ErrorKind,
    },
    /// The journal takes writes again.
    JournalBack,
}

/// A listening device. Dropping it stops the task without a goodbye; [`Listener::shutdown`] says goodbye.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    handle: Handle,
    found: Found,
    events: broadcast::Sender<Event>,
    task: Option<JoinHandle<()>>,
}

impl Listener {
    /// Listens on `address` and serves with `handler` on the current tokio runtime. The handler runs inside the task and
    /// should answer within a second. There is no journal: every boot begins with an empty memory and says so.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn spawn<H>(address: SocketAddr, config: ReceiverConfig, handler: H) -> Result<Self, ListenError>
    where
        H: Handler + Send + 'static,
    {
        Self::spawn_with(address, config, handler, NoJournal).map_err(|error| match error {
            SpawnError::Listen(error) => error,
            SpawnError::Journal(never) => match never {},
        })
    }

    /// The same with a journal, which is replayed before anybody can connect. It is written inside the task: before the
    /// handler of an order that must not run twice, and before an outcome leaves, once for all that was read together.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn spawn_with<H, J>(
        address: SocketAddr,
        config: ReceiverConfig,
        handler: H,
        journal: J,
    ) -> Result<Self, SpawnError<J::Error>>
    where
        H: Handler + Send + 'static,
        J: Journal<Error: Error + 'static> + Send + 'static,
    {
        let cannot = |source| ListenError { address, source };
        let listener = listen(address).map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let mailbox = Arc::new(Mailbox::default());
        let handle = Handle { mailbox: Arc::clone(&mailbox) };
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let id = config.id;
        let opened = Endpoint::new(listener, config, handler, journal, (mailbox, events.clone()));
        let (endpoint, found) = opened.map_err(SpawnError::Journal)?;
        let task = tokio::spawn(trace::task("device", id, endpoint.run()));
        Ok(Self { address, handle, found, events, task: Some(task) })
    }

    /// What the journal held at the start.
    #[must_use]
    pub const fn found(&self) -> Found {
        self.found
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
        self.handle.clone()
    }

    /// Counters; `None` once the device has stopped.
    pub async fn stats(&self) -> Option<Box<Stats>> {
        self.handle.stats().await
    }

    /// Says DRAIN, lets what is at work end for at most `within`, says BYE, closes the sockets and ends the task. A device
    /// with nothing at work is gone at once.
    pub async fn shutdown(mut self, within: Duration) {
        self.handle.leave(within);
        if let Some(mut task) = self.task.take()
            && tokio::time::timeout(within + LAST_BYTES_WITHIN, &mut task).await.is_err()
        {
            task.abort();
        }
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
