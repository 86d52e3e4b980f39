//! The server's side on tokio: one task owns the fleet and every socket.
//!
//! ```text
//! application ── push() ──▶ encode once, number it, one message ──┐
//!                                                                 ▼
//! tokio's reactor ── device wakers ──▶ ready list ──▶ shard task: submit → plan → write, read → settle
//!                                                                 │
//! application ◀── fan-out settled, events ────────────────────────┘
//! ```
//!
//! There is no task, no channel and no lock per device or per order: a push is one message and one wake-up however many
//! devices it goes to. No lock is held across a system call.

mod bell;
mod conn;
mod directory;
mod fan_out;
mod ready;
mod shard;
mod sockets;
mod target;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::sync::{Notify, broadcast, oneshot};
use tokio::task::JoinHandle;
use wire_format::error::EmitError;
use wire_format::ids::{DeviceKind, NodeId, Tags};

pub use conn::ConnConfig;
pub use directory::Entry;
pub use fan_out::{DeviceResult, FanOut, Latency, Pending, Report, Standing};
pub use target::Target;

use self::bell::Bell;
use self::directory::Directory;
use self::fan_out::{Ledger, State};
use crate::driver::trace;
use crate::ended::Ended;
use crate::fleet::{DeviceIndex, FleetConfig, Stats};
use crate::histogram::Histogram;
use crate::order::Order;

/// Live orders of one server, if nothing else is said.
pub const ORDERS_DEFAULT: usize = 4_096;
/// Devices of one server, if nothing else is said.
pub const DEVICES_DEFAULT: usize = 10_000;
/// Bytes of all live orders together, if nothing else is said; a push beyond it is refused as full.
pub const BODIES_MAX: usize = 256 << 20;
/// Events a subscriber may lag behind before it is told how many it missed.
pub const EVENTS_MAX: usize = 1_024;

/// What the server's side of order push needs to know.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Who this server is and how it treats its devices.
    pub fleet: FleetConfig,
    /// How sockets are opened.
    pub conn: ConnConfig,
    /// Most devices; [`DEVICES_DEFAULT`]. Memory for all of them is taken at the start.
    pub devices: usize,
    /// Most live orders; [`ORDERS_DEFAULT`].
    pub orders: usize,
    /// Most bytes of all live orders together; [`BODIES_MAX`].
    pub bytes: usize,
    /// Seed of the jitter of dials and pings.
    pub seed: u64,
}

/// Why an order was not accepted. Nothing was sent, nothing is kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// No device known to this server matches the target.
    #[error("no known device matches {target}")]
    NoTarget {
        /// The target, in words.
        target: Target,
    },
    /// The order breaks a limit of the protocol.
    #[error("the order cannot be sent: {0}")]
    Order(EmitError),
    /// As many orders as there is room for wait for outcomes. Try again when one has settled.
    #[error("{live} orders wait for outcomes, the most this server keeps; try again when one has settled")]
    FullOrders {
        /// Orders that wait.
        live: usize,
    },
    /// The live orders hold as many bytes as there is room for.
    #[error(
        "the orders that wait hold {bytes} bytes, the most this server keeps; try again when one has settled"
    )]
    FullBytes {
        /// Bytes of the orders that wait.
        bytes: usize,
    },
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Stopped,
}

/// Why a device was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// As many devices as there is room for are listed.
    #[error("{capacity} devices are listed, the most this server was started for")]
    Full {
        /// The limit the server was started with.
        capacity: usize,
    },
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Stopped,
}

/// A device the server is told of: from a list, or from discovery.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    /// Its id, if known; otherwise it is learnt at the first session.
    pub id: Option<NodeId>,
    /// Where to dial it.
    pub address: SocketAddr,
    /// Its kind, until it says so itself.
    pub kind: DeviceKind,
    /// Its zone, until it says so itself; 0 for none.
    pub zone: u32,
    /// Its tags, until it says so itself.
    pub tags: Tags,
}

/// What happens to sessions.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A session is open.
    Connected {
        /// Whose.
        id: NodeId,
        /// Where it was dialled.
        address: SocketAddr,
        /// The device was restarted since the last session.
        rebooted: bool,
    },
    /// A session, or an attempt at one, ended.
    Disconnected {
        /// Whose; `None` if the device never said who it is.
        id: Option<NodeId>,
        /// Where it was dialled.
        address: Option<SocketAddr>,
        /// Why, and whose fault.
        why: Ended,
    },
}

/// Counters of sessions and orders, and the latency of all outcomes since the start.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The fleet's counters.
    pub fleet: Stats,
    /// Devices listed.
    pub devices: usize,
    /// Devices with an open session.
    pub connected: usize,
    /// Orders that wait for outcomes.
    pub live_orders: usize,
    /// From push to outcome.
    pub latency: Histogram,
}

type NumberedOrder = crate::fleet::NewOrder<Vec<u8>, Ledger>;

enum Message {
    Submit(NumberedOrder),
    Add(Device, oneshot::Sender<Result<DeviceIndex, AddError>>),
    SetAddress(DeviceIndex, SocketAddr),
    Marks(u64, oneshot::Sender<(Vec<u8>, Histogram)>),
    Stats(oneshot::Sender<Box<Snapshot>>),
    Stop,
}

/// Numbers in log order, and the messages in the same order.
#[derive(Default)]
struct Outbox {
    next_number: u64,
    messages: VecDeque<Message>,
    stopped: bool,
}

/// Buffers that go round: after warm-up a push allocates no body, no marks, no histogram.
#[derive(Debug, Default)]
struct Pools {
    frames: Mutex<Vec<Vec<u8>>>,
    marks: Mutex<Vec<Vec<u8>>>,
    #[expect(clippy::vec_box, reason = "they move between pool, shard and handle: 8 bytes instead of 2 kB")]
    histograms: Mutex<Vec<Box<Histogram>>>,
}

/// Buffers of one sort that are kept for reuse.
const POOL_MAX: usize = 1_024;
/// A frame buffer larger than this is given back to the allocator instead.
const POOLED_FRAME_MAX: usize = 8 << 10;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pools {
    fn take<T: Default>(pool: &Mutex<Vec<T>>) -> T {
        lock(pool).pop().unwrap_or_default()
    }

    fn put<T>(pool: &Mutex<Vec<T>>, item: T) {
        let mut pool = lock(pool);
        if pool.len() < POOL_MAX {
            pool.push(item);
        }
    }

    fn recycle(&self, marks: Vec<u8>, mut latency: Box<Histogram>) {
        latency.clear();
        Self::put(&self.marks, marks);
        Self::put(&self.histograms, latency);
    }

    fn recycle_frame(&self, frame: Vec<u8>) {
        if frame.capacity() <= POOLED_FRAME_MAX {
            Self::put(&self.frames, frame);
        }
    }
}

/// What handles and the shard share.
pub(super) struct Shared {
    outbox: Mutex<Outbox>,
    directory: RwLock<Directory>,
    bell: Bell,
    pools: Pools,
    live_orders: AtomicUsize,
    live_bytes: AtomicUsize,
    orders_max: usize,
    bytes_max: usize,
    devices_max: usize,
    events: broadcast::Sender<Event>,
    /// Told once, when the shard has ended.
    ended: Notify,
}

impl core::fmt::Debug for Shared {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Shared").field("live_orders", &self.live_orders).finish_non_exhaustive()
    }
}

impl Shared {
    fn directory(&self) -> RwLockReadGuard<'_, Directory> {
        self.directory.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut Directory)) {
        change(&mut self.directory.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn is_stopped(&self) -> bool {
        lock(&self.outbox).stopped
    }

    /// Hands a message to the shard; false if it has stopped.
    fn send(&self, message: Message) -> bool {
        {
            let mut outbox = lock(&self.outbox);
            if outbox.stopped {
                return false;
            }
            outbox.messages.push_back(message);
        }
        self.bell.ring();
        true
    }

    async fn snapshot(&self, number: u64) -> Option<(Vec<u8>, Histogram)> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Marks(number, reply)).then_some(())?;
        answer.await.ok()
    }

    /// Takes a place among the live orders, or says what is full.
    fn reserve(&self, bytes: usize) -> Result<(), PushError> {
        let live = self.live_orders.fetch_add(1, Ordering::Relaxed);
        let held = self.live_bytes.fetch_add(bytes, Ordering::Relaxed);
        if live < self.orders_max && held.saturating_add(bytes) <= self.bytes_max {
            return Ok(());
        }
        self.release(bytes);
        if live < self.orders_max {
            Err(PushError::FullBytes { bytes: held })
        } else {
            Err(PushError::FullOrders { live })
        }
    }

    fn release(&self, bytes: usize) {
        self.live_orders.fetch_sub(1, Ordering::Relaxed);
        self.live_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The running server side. Dropping it stops the task without a goodbye; [`Server::stop`] says goodbye.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Server {
    /// Starts the shard's task on the current tokio runtime.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn spawn(config: ServerConfig) -> Self {
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let shared = Arc::new(Shared {
            outbox: Mutex::new(Outbox { next_number: 1, ..Outbox::default() }),
            directory: RwLock::default(),
            bell: Bell::default(),
            pools: Pools::default(),
            live_orders: AtomicUsize::new(0),
            live_bytes: AtomicUsize::new(0),
            orders_max: config.orders,
            bytes_max: config.bytes,
            devices_max: config.devices,
            events,
            ended: Notify::new(),
        });
        let id = config.fleet.server;
        let shard = shard::Shard::new(config, Arc::clone(&shared));
        // The shard takes turns of its own; tokio's per-poll budget would cut them at 128 sockets.
        let task = tokio::spawn(trace::task("server", id, tokio::task::unconstrained(shard.run())));
        Self { shared, task: Mutex::new(Some(task)) }
    }

    /// Adds a device, or finds it by its id and gives it its new address (which dials at once).
    pub async fn set_device(&self, device: Device) -> Result<DeviceIndex, AddError> {
        let known = device.id.and_then(|id| self.shared.directory().find(id));
        if let Some(index) = known {
            let sent = self.shared.send(Message::SetAddress(index, device.address));
            return if sent { Ok(index) } else { Err(AddError::Stopped) };
        }
        let (reply, answer) = oneshot::channel();
        if !self.shared.send(Message::Add(device, reply)) {
            return Err(AddError::Stopped);
        }
        answer.await.unwrap_or(Err(AddError::Stopped))
    }

    /// Pushes an order: resolves the target, encodes once, numbers it, hands it to the shard. Returns at once; the
    /// outcomes come through the [`FanOut`].
    pub fn push(&self, order: &Order<'_>, target: &Target) -> Result<FanOut, PushError> {
        order.check().map_err(PushError::Order)?;
        let len = order.encoded_len();
        self.shared.reserve(len)?;
        let mut marks = Pools::take(&self.shared.pools.marks);
        let Some(resolved) = self.shared.directory().resolve(target, &mut marks) else {
            self.shared.release(len);
            Pools::put(&self.shared.pools.marks, marks);
            return Err(PushError::NoTarget { target: target.clone() });
        };
        let mut frame = Pools::take(&self.shared.pools.frames);
        frame.resize(len, 0);
        let latency = Pools::take(&self.shared.pools.histograms);
        let state = {
            let mut outbox = lock(&self.shared.outbox);
            if outbox.stopped {
                return Err(PushError::Stopped);
            }
            let number = outbox.next_number;
            order.emit(number, &mut frame).map_err(PushError::Order)?;
            outbox.next_number += 1;
            let state = Arc::new(State::new(number, resolved.first, resolved.targets));
            outbox.messages.push_back(Message::Submit(crate::fleet::NewOrder {
                number,
                lane: order.lane,
                kind_flags: order.kind_flags,
                lifetime: Some(order.lifetime),
                frame,
                first: resolved.first,
                marks: Ledger { marks, latency, state: Arc::clone(&state) },
            }));
            state
        };
        self.shared.bell.ring();
        trace::order_accepted(state.number, order, state.targets, len);
        Ok(FanOut { state, shared: Arc::clone(&self.shared) })
    }

    /// Every device known, by index.
    #[must_use]
    pub fn devices(&self) -> Vec<Entry> {
        self.shared.directory().entries().to_vec()
    }

    /// Sessions as they open and end, from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// Counters; `None` once the server has stopped.
    pub async fn stats(&self) -> Option<Box<Snapshot>> {
        let (reply, answer) = oneshot::channel();
        self.shared.send(Message::Stats(reply)).then_some(())?;
        answer.await.ok()
    }

    /// Says BYE on every session, closes the sockets and ends the task; at most `within`. Orders that have no outcome
    /// yet stay without one: the log in memory ends here. A second call finds nothing to do.
    pub async fn stop(&self, within: Duration) {
        self.shared.send(Message::Stop);
        let task = lock(&self.task).take();
        if let Some(mut task) = task
            && tokio::time::timeout(within, &mut task).await.is_err()
        {
            task.abort();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
    }
}
