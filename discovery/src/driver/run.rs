//! The run loop, the same for both halves: wait, take one input, drain, and again.

use core::future::poll_fn;
use core::pin::{Pin, pin};
use core::task::Poll;
use core::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Sleep;
use wire_format::time::Instant;

use super::net::Change;
use super::wire::{RECEIVE_PAUSE, Wire};
use super::{Clock, NetStats, OpenError, Opening};
use crate::{Arrival, LinkId, Transmit};

/// Events that wait for the application. The state machine keeps what is beyond, and merges it.
pub const EVENTS_MAX: usize = 256;

/// How long a shutdown may take: two goodbyes and the way to them. After that the task is ended by force.
pub const STOP_MAX: Duration = Duration::from_secs(2);

/// Commands that wait for the task; whoever has one more waits.
const COMMANDS_MAX: usize = 64;

/// Bytes of the largest datagram.
const DATAGRAM_MAX: usize = 1_200;

/// Sends and events in a row before inputs get their turn.
const DRAIN_MAX: usize = 256;

/// The shortest sleep: what is due again at once is due after this, so that a loop cannot spin.
const SLEEP_MIN: Duration = Duration::from_millis(1);

/// What the loop needs of a state machine: the calling contract of the cores, and the driver's commands.
pub(crate) trait Core: Send + 'static {
    /// An event with what the application will want to know beside it.
    type Event: Send + 'static;
    /// A request of a handle.
    type Command: Send + 'static;

    fn link_up(&mut self, now: Instant, link: LinkId);
    fn link_down(&mut self, now: Instant, link: LinkId);
    fn handle_datagram(&mut self, now: Instant, arrival: &Arrival, bytes: &[u8]);
    fn handle_timeout(&mut self, now: Instant);
    fn handle_command(&mut self, now: Instant, command: Self::Command, net: &NetStats);
    fn poll_transmit(&mut self, now: Instant, buffer: &mut [u8]) -> Option<Transmit>;
    fn poll_event(&mut self, now: Instant) -> Option<Self::Event>;
    fn poll_timeout(&self) -> Option<Instant>;
    fn is_stopped(&self) -> bool;
}

/// The application's end of a running loop. The task ends with it.
#[derive(Debug)]
pub(crate) struct Task<C: Core> {
    commands: mpsc::Sender<C::Command>,
    events: mpsc::Receiver<C::Event>,
    task: JoinHandle<()>,
}

/// Starts the loop on the current runtime; `make` builds the state machine when the sockets are open.
pub(crate) fn spawn<C: Core>(
    open: impl FnOnce() -> Result<Wire, OpenError>,
    make: impl FnOnce(Instant) -> C,
    at: core::net::SocketAddrV4,
) -> Result<Task<C>, OpenError> {
    let runtime = tokio::runtime::Handle::try_current()
        .map_err(|error| OpenError::new(Opening::Runtime, at, std::io::Error::other(error)))?;
    let wire = open()?;
    let clock = Clock::start();
    let core = make(clock.now());
    let (commands, requests) = mpsc::channel(COMMANDS_MAX);
    let (news, events) = mpsc::channel(EVENTS_MAX);
    let task = runtime.spawn(Loop::new(core, wire, clock, requests, news).run());
    Ok(Task { commands, events, task })
}

impl<C: Core> Task<C> {
    pub(crate) const fn commands(&self) -> &mpsc::Sender<C::Command> {
        &self.commands
    }

    pub(crate) async fn next_event(&mut self) -> Option<C::Event> {
        self.events.recv().await
    }

    /// Sends `stop` and waits for the task's end, [`STOP_MAX`] at most.
    pub(crate) async fn shutdown(mut self, stop: C::Command) {
        let ended = async {
            // A task that ended already takes no command, and need not.
            let _ended = self.commands.send(stop).await;
            (&mut self.task).await
        };
        if tokio::time::timeout(STOP_MAX, ended).await.is_err() {
            self.task.abort();
            // What it was doing is cut at its next wait; its sockets are closed when this returns.
            let _cancelled = (&mut self.task).await;
        }
    }
}

impl<C: Core> Drop for Task<C> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Asks the task something; `None` if it has ended.
pub(crate) async fn ask<K, T>(
    commands: &mpsc::Sender<K>,
    question: impl FnOnce(oneshot::Sender<T>) -> K,
) -> Option<T> {
    let (answer, answered) = oneshot::channel();
    commands.send(question(answer)).await.ok()?;
    answered.await.ok()
}

struct Loop<C: Core> {
    core: C,
    wire: Wire,
    clock: Clock,
    requests: mpsc::Receiver<C::Command>,
    news: mpsc::Sender<C::Event>,
    buffer: [u8; DATAGRAM_MAX],
    /// More to receive, send or tell than one turn allows: no waiting.
    more: bool,
    /// The event channel is full.
    crowded: bool,
    /// Nothing is received before this, after a failure.
    rest_until: Instant,
}

impl<C: Core> Loop<C> {
    fn new(
        core: C,
        wire: Wire,
        clock: Clock,
        requests: mpsc::Receiver<C::Command>,
        news: mpsc::Sender<C::Event>,
    ) -> Self {
        let buffer = [0; DATAGRAM_MAX];
        let rest_until = Instant::ZERO;
        Self { core, wire, clock, requests, news, buffer, more: false, crowded: false, rest_until }
    }

    async fn run(mut self) {
        let mut batch = self.wire.batch();
        let mut timer = Box::pin(tokio::time::sleep(Duration::ZERO));
        loop {
            self.follow_interfaces().await;
            self.tell();
            if self.core.is_stopped() {
                return;
            }
            match self.wait(timer.as_mut()).await {
                Woken::Orphaned => return,
                Woken::Command(command) => {
                    let now = self.clock.now();
                    self.core.handle_command(now, command, &self.wire.stats);
                    self.drain(now).await;
                }
                Woken::Ready => {}
            }
            let now = self.clock.now();
            if now >= self.rest_until {
                match self.wire.receive(&mut batch) {
                    Ok(()) => self.more |= batch.is_full(),
                    Err(_) => self.rest_until = now + RECEIVE_PAUSE,
                }
                for one in batch.iter() {
                    if let Some(arrival) = self.wire.arrival(&one) {
                        self.core.handle_datagram(now, &arrival, one.bytes);
                        self.drain(now).await;
                    }
                }
            }
            let now = self.clock.now();
            if self.core.poll_timeout().is_some_and(|at| at <= now) {
                self.core.handle_timeout(now);
            }
            self.drain(now).await;
        }
    }

    async fn follow_interfaces(&mut self) {
        let now = self.clock.now();
        for change in self.wire.scan(now) {
            match change {
                Change::Up(link) => self.core.link_up(now, link),
                Change::Down(link) => self.core.link_down(now, link),
            }
            self.drain(now).await;
        }
    }

    /// Sends what the core wants sent.
    async fn drain(&mut self, now: Instant) {
        for _ in 0..DRAIN_MAX {
            let Some(Transmit { to, len }) = self.core.poll_transmit(now, &mut self.buffer) else { return };
            if let Some(bytes) = self.buffer.get(..len) {
                self.wire.send(now, to, bytes).await;
            }
        }
        self.more = true;
    }

    /// Tells the application what the core has to tell, while the channel has room.
    fn tell(&mut self) {
        self.crowded = false;
        let now = self.clock.now();
        for _ in 0..DRAIN_MAX {
            let Ok(room) = self.news.try_reserve() else {
                self.crowded = true;
                return;
            };
            let Some(event) = self.core.poll_event(now) else { return };
            room.send(event);
        }
        self.more = true;
    }

    /// Waits for a command, a datagram, room in the event channel, or the time of the next deadline.
    async fn wait(&mut self, mut timer: Pin<&mut Sleep>) -> Woken<C::Command> {
        let now = self.clock.now();
        let resting = now < self.rest_until;
        let mut at = self.core.poll_timeout().unwrap_or(Instant::NEVER).min(self.wire.scan_at());
        if resting {
            at = at.min(self.rest_until);
        }
        let at = self.clock.deadline(at.max(now + SLEEP_MIN));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        let more = core::mem::take(&mut self.more);
        let (wire, requests, crowded) = (&self.wire, &mut self.requests, self.crowded);
        let mut room = pin!(self.news.reserve());
        poll_fn(|cx| {
            if let Poll::Ready(command) = requests.poll_recv(cx) {
                return Poll::Ready(command.map_or(Woken::Orphaned, Woken::Command));
            }
            let readable = !resting && wire.poll_readable(cx).is_ready();
            let has_room = crowded && room.as_mut().poll(cx).is_ready();
            if more || readable || has_room || timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Woken::Ready);
            }
            Poll::Pending
        })
        .await
    }
}

/// Why the loop goes on.
enum Woken<K> {
    /// A handle asks something.
    Command(K),
    /// Something can be read, told or is due.
    Ready,
    /// Nobody holds a handle any more.
    Orphaned,
}
