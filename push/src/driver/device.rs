//! The device's side on tokio: one task listens, serves the store server and calls the handler.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Sleep;
use wire_format::splitter::{self, Split};
use wire_format::time::Instant;

use super::{Clock, trace};
use crate::ended::Ended;
use crate::receiver::{
    ConnId, Event as SessionEvent, HELLO_BYTES, Handler, OutcomeSlot, Receiver, ReceiverConfig, Stats,
};

/// Connections at once: the server's session, and strangers that have not said HELLO yet.
const CONNS: usize = 4;
/// Bytes read into at once in an open session; grows to a whole frame when a larger one is announced.
const BUFFER: usize = 4 << 10;
/// Events a subscriber may lag behind before it is told how many it missed.
const EVENTS_MAX: usize = 256;
/// How long a stopping device waits for its last bytes to leave.
const STOP_WITHIN: Duration = Duration::from_secs(1);
/// Pause after the system refused to hand over a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
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

#[derive(Debug)]
struct Conn {
    id: ConnId,
    peer: SocketAddr,
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Unread bytes stand in `buffer[start..end]`.
    start: usize,
    end: usize,
    blocked: bool,
}

struct Endpoint<H> {
    receiver: Receiver<Box<[OutcomeSlot]>, CONNS>,
    max_body: u32,
    listener: TcpListener,
    conns: Vec<Conn>,
    handler: H,
    clock: Clock,
    commands: mpsc::Receiver<Command>,
    events: broadcast::Sender<Event>,
    scratch: Box<[u8]>,
    timer: Option<Pin<Box<Sleep>>>,
    accept_after: Option<Instant>,
    stopping: Option<Instant>,
}

impl<H: Handler> Endpoint<H> {
    fn new(
        listener: TcpListener,
        config: ReceiverConfig,
        handler: H,
        commands: mpsc::Receiver<Command>,
        events: broadcast::Sender<Event>,
    ) -> Self {
        let clock = Clock::start();
        let ring = vec![OutcomeSlot::EMPTY; config.ring_len()].into_boxed_slice();
        let max_body = config.max_body;
        Self {
            receiver: Receiver::new(config, ring, clock.now()),
            max_body,
            listener,
            conns: Vec::with_capacity(CONNS),
            handler,
            clock,
            commands,
            events,
            scratch: vec![0; 4 << 10].into(),
            timer: None,
            accept_after: None,
            stopping: None,
        }
    }

    async fn run(mut self) {
        core::future::poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = self.clock.now();
            // First of all: after a long freeze what waits in the sockets is stale, and the core says so.
            self.receiver.handle_timeout(now);
            self.drain();
            let mut busy = self.take_commands(cx, now);
            busy |= self.accept(cx, now);
            busy |= self.read(cx, now);
            busy |= self.transmit(cx, now);
            self.drain();
            let stopped = |since| self.receiver.is_stopped() || now.since(since) > STOP_WITHIN;
            if self.stopping.is_some_and(stopped) {
                return Poll::Ready(());
            }
            if !busy && self.sleep(cx) {
                return Poll::Pending;
            }
        }
    }

    fn take_commands(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let Poll::Ready(Some(command)) = self.commands.poll_recv(cx) else { return false };
        match command {
            Command::Stats(reply) => drop(reply.send(Box::new(self.receiver.stats().clone()))),
            Command::Stop => {
                self.stopping.get_or_insert(now);
                self.receiver.stop(now);
            }
        }
        true
    }

    fn accept(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        if self.accept_after.is_some_and(|after| now < after) {
            return false;
        }
        self.accept_after = None;
        let Poll::Ready(accepted) = self.listener.poll_accept(cx) else { return false };
        match accepted {
            Ok((stream, peer)) => {
                if let Ok(id) = self.receiver.handle_connected(now, peer) {
                    let _ = stream.set_nodelay(true);
                    let buffer = vec![0; HELLO_BYTES];
                    self.conns.push(Conn { id, peer, stream, buffer, start: 0, end: 0, blocked: false });
                }
            }
            // It concerns one visitor, or descriptors are short for a while: never the end of the listener.
            Err(_) => self.accept_after = Some(now + ACCEPT_PAUSE),
        }
        true
    }

    /// Reads every connection once and hands over what is whole. True if there was anything.
    fn read(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut busy = false;
        for at in (0..self.conns.len()).rev() {
            let conn = &mut self.conns[at];
            if conn.blocked && conn.stream.poll_write_ready(cx).is_ready() {
                conn.blocked = false;
                self.receiver.handle_writable(now, conn.id);
                busy = true;
            }
            match conn.fill(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(len)) if len > 0 => busy = true,
                Poll::Ready(_) => {
                    let conn = self.conns.swap_remove(at);
                    self.receiver.handle_closed(now, conn.id);
                    busy = true;
                    continue;
                }
            }
            // Also without new bytes: what had to wait for the last drain need not wait any more.
            busy |= self.digest(now, at);
        }
        busy
    }

    /// Hands the unread bytes of a connection to the core, frame by frame, and its orders to the handler. True if any
    /// were used.
    fn digest(&mut self, now: Instant, at: usize) -> bool {
        let conn = &mut self.conns[at];
        let before = conn.start;
        while let Some(bytes @ [_, ..]) = conn.buffer.get(conn.start..conn.end) {
            let Ok(input) = self.receiver.handle_bytes(now, conn.id, bytes) else {
                // It ends; what it still sent is worth nothing.
                conn.start = conn.end;
                break;
            };
            if let Some(order) = input.order {
                let verdict = self.handler.handle(&order);
                self.receiver.complete(self.clock.now(), order.ticket, verdict);
            }
            if input.consumed == 0 {
                break;
            }
            conn.start += input.consumed;
        }
        let used = conn.start > before;
        conn.make_room(self.max_body);
        used
    }

    fn transmit(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut busy = false;
        while let Some(transmit) = self.receiver.poll_transmit(now, &mut self.scratch) {
            let id = transmit.conn;
            let Some(at) = self.conns.iter().position(|conn| conn.id == id) else { return busy };
            let total = transmit.head.len() + transmit.body.len();
            let conn = &mut self.conns[at];
            match conn.write(cx, transmit.head, transmit.body) {
                Ok(written) => {
                    conn.blocked = written < total;
                    self.receiver.handle_written(now, id, written);
                }
                Err(_) => {
                    self.conns.swap_remove(at);
                    self.receiver.handle_closed(now, id);
                }
            }
            busy = true;
        }
        busy
    }

    fn drain(&mut self) {
        while let Some((id, why)) = self.receiver.poll_close() {
            if let Some(at) = self.conns.iter().position(|conn| conn.id == id) {
                let conn = self.conns.swap_remove(at);
                trace::turned_away(conn.peer, why);
                self.tell(Event::Closed { peer: conn.peer, why });
            }
        }
        while let Some(event) = self.receiver.poll_event() {
            trace::served(&event);
            self.tell(Event::Session(event));
        }
    }

    fn tell(&self, event: Event) {
        // Nobody listening is not an error.
        let _ = self.events.send(event);
    }

    /// Sets the timer to the next thing that is due. False if that is now.
    fn sleep(&mut self, cx: &mut Context<'_>) -> bool {
        let stop = self.stopping.map(|since| since + STOP_WITHIN);
        let Some(due) = [self.receiver.poll_timeout(), self.accept_after, stop].into_iter().flatten().min()
        else {
            return true;
        };
        let at = self.clock.tokio(due);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx).is_pending()
    }
}

impl Conn {
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(room @ [_, ..]) = self.buffer.get_mut(self.end..) else { return Poll::Pending };
        let mut room = ReadBuf::new(room);
        core::task::ready!(Pin::new(&mut self.stream).poll_read(cx, &mut room))?;
        let len = room.filled().len();
        self.end += len;
        Poll::Ready(Ok(len))
    }

    /// Moves the unread tail to the front once the buffer is full, and grows it if the frame that has begun is larger.
    fn make_room(&mut self, max_body: u32) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.end < self.buffer.len() {
            return;
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if let Ok(Split::Need(need)) = splitter::split(&self.buffer[..self.end], max_body)
            && need > self.buffer.len()
        {
            self.buffer.resize(need.max(BUFFER), 0);
        }
    }

    fn write(&mut self, cx: &mut Context<'_>, head: &[u8], body: &[u8]) -> io::Result<usize> {
        let result = self.stream.try_write_vectored(&[IoSlice::new(head), IoSlice::new(body)]);
        let written = match result {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => 0,
            other => other?,
        };
        if written < head.len() + body.len() && self.stream.poll_write_ready(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Ok(written)
    }
}
