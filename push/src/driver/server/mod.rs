//! The server's side on tokio: a few shards, each a task that owns a fleet and its sockets.
//!
//! ```text
//! application ── push() ──▶ encode once, number it, one message per shard ──┐
//!                                                                           ▼
//! kernel ── epoll, up to 256 ready devices a turn ──▶ shard task: submit → plan → write, read → settle
//!                                                                           │
//! application ◀── fan-out settled (the last shard), events ─────────────────┘
//! ```
//!
//! There is no task, no channel and no lock per device or per order: a push is one message and one wake-up per shard
//! however many devices it goes to. No lock is held across a system call.
//!
//! Numbers are the same at all shards and rise in each mailbox: whoever takes one puts its messages there under the same
//! lock. A device belongs to one shard from the day it is added: the one with the fewest devices then.
//!
//! On Linux a shard has an epoll instance of its own, of which tokio watches one descriptor: it wakes the task, and the
//! task asks the kernel itself, once per turn. A device is a plain socket there, without a waker or a place in tokio's
//! reactor. On other systems, or with [`Poller::Portable`], sockets are tokio's and have a waker each.
//!
//! Locks are taken in this order, and not the other way round: directory, numbers, mailbox.

mod addition;
mod ask;
mod bell;
mod conn;
mod directory;
#[cfg(target_os = "linux")]
mod epoll;
mod error;
mod events;
mod fan_out;
mod frame;
mod keys;
mod logging;
mod manage;
mod open;
mod positions;
mod push;
mod ready;
mod report;
mod restore;
mod retry;
mod rollout;
mod room;
mod shard;
mod shared;
mod sockets;
mod stream;
mod tables;
mod tails;
mod target;
mod versions;
mod wakers;
mod writer;

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use tokio::runtime::RuntimeFlavor;
use tokio::sync::{broadcast, oneshot};
use tokio::task::JoinHandle;
use wire_format::ids::{DeviceKind, Lineage, NodeId, Tags};

pub use ask::{ASKED_MAX, AskError, Asked, Questions};
pub use conn::{ConnConfig, Poller};
pub use directory::Entry;
pub use error::{AddError, OutboxFault, PushError, Resource, TakeoverError};
pub use fan_out::{FanOut, Progress, Quorum};
pub use keys::{KEYS_BYTES_MAX, KEYS_KEPT, KEYS_MAX};
pub use open::Recovered;
pub use report::{DeviceResult, Latency, Pending, Report, Standing};
pub use retry::RETRIES_MAX;
pub use rollout::{Aborted, ROLLOUTS_MAX, Rolling, Rollout, RolloutReport, RolloutView, STEPS_MAX};
pub use room::RESULTS_BYTES_MAX;
pub use stream::{DeviceOutcome, Outcomes};
pub use target::{TARGET_DEPTH_MAX, Target, TargetError};
pub use writer::{WAITING_BYTES_MAX, WAITING_MAX};

use self::directory::Reserved;
use self::shard::Shard;
use self::shared::{Message, Shared, Word, lock};
use crate::driver::trace;
use crate::ended::Ended;
use crate::fleet::{DeviceIndex, FleetConfig, Stats};
use crate::histogram::Histogram;
use crate::outbox;

/// Live orders of one server, if nothing else is said.
pub const ORDERS_DEFAULT: usize = 4_096;
/// Devices of one server, if nothing else is said.
pub const DEVICES_DEFAULT: usize = 10_000;
/// Bytes of all live orders together, if nothing else is said; a push beyond it is refused as full.
pub const BODIES_MAX: usize = 256 << 20;
/// Most shards of one server: an order knows the ones it goes to by a bit each.
pub const SHARDS_MAX: usize = 64;
/// Most shards if nothing else is said: beyond these the kernel's network path is what costs.
pub const SHARDS_AUTO_MAX: usize = 4;
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
    /// Tasks that serve the devices, each with its share of them; at most [`SHARDS_MAX`]. `None`: one per core up to
    /// [`SHARDS_AUTO_MAX`], and one on a runtime with a single thread.
    pub shards: Option<usize>,
}

impl ServerConfig {
    fn shards(&self) -> usize {
        self.shards.unwrap_or_else(shards_by_runtime).clamp(1, SHARDS_MAX)
    }
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
    /// A device obeys another server, which took the store over: what it was owed here ends as FENCED, what it was sent
    /// and had not answered as UNKNOWN. See [`Server::takeover`].
    Fenced {
        /// Whose.
        id: Option<NodeId>,
        /// Where it is dialled.
        address: Option<SocketAddr>,
        /// The fence it has accepted.
        fence: u64,
    },
    /// The outbox cannot be written: durable orders are refused, and what was to be kept is tried again until
    /// [`Event::OutboxBack`]. Volatile orders go on.
    OutboxFailed {
        /// Why.
        fault: OutboxFault,
    },
    /// The outbox is written again.
    OutboxBack,
    /// Something in the outbox cannot be read any more, which was found out when it should have been written again: its disk
    /// fails. Orders that live are in memory and were written again from there ([`outbox::Stats::mended`]); this one was not, and
    /// the next start will not find it. What this server still knows of it goes on.
    OutboxLost {
        /// What.
        lost: outbox::Lost,
    },
    /// A device has seen orders of this server's durable log that are not in it: the outbox was restored from a backup, or
    /// another server runs on a copy of it. The log was given up before an order of it left and begins anew under another
    /// lineage: what was owed is in doubt, and an operator has to find out what the backup does not have.
    Forked {
        /// Which device.
        id: Option<NodeId>,
        /// Where it is dialled.
        address: Option<SocketAddr>,
    },
    /// After [`Event::Forked`]: the durable log has begun anew. Orders are accepted again.
    Renewed {
        /// Its lineage.
        lineage: Lineage,
        /// Its first run.
        run: u64,
    },
    /// A durable rollout is over: see [`Server::rolling_out`].
    RolloutEnded {
        /// Its number.
        rollout: u64,
        /// Why it stopped itself.
        aborted: Option<Aborted>,
        /// Somebody stopped it.
        stopped: bool,
        /// How often the server was started again while it went on.
        restarts: u16,
    },
    /// A device has lost its journal: what it had been sent, and may have done, is in doubt, or is sent again if it may run
    /// twice.
    JournalLost {
        /// Which device.
        id: Option<NodeId>,
        /// Where it is dialled.
        address: Option<SocketAddr>,
    },
}

/// Counters of sessions and orders, and the latency of all outcomes since the start.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The fleet's counters.
    pub fleet: Stats,
    /// Devices listed.
    pub devices: usize,
    /// Devices with an open session.
    pub connected: usize,
    /// Orders that wait for outcomes.
    pub live_orders: usize,
    /// Results of devices that were lost because [`RESULTS_BYTES_MAX`] are kept.
    pub results_lost: u64,
    /// The outbox; `None` without one.
    pub outbox: Option<outbox::Stats>,
    /// From push to outcome.
    pub latency: Histogram,
}

/// The running server side. Dropping it stops the tasks without a goodbye; [`Server::stop`] says goodbye.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    /// Of before the tasks began.
    first_events: Mutex<Option<broadcast::Receiver<Event>>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Server {
    /// Starts the shards' tasks on the current tokio runtime.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn spawn(config: ServerConfig) -> Self {
        let shared = Arc::new(Shared::new(&config, config.shards(), None));
        let shards = Shard::all(&config, &shared);
        Self::run(shared, shards, config.fleet.server)
    }

    fn run(shared: Arc<Shared>, shards: Vec<Box<Shard>>, server: NodeId) -> Self {
        let first_events = Mutex::new(Some(shared.events.subscribe()));
        let tasks = shards.into_iter().map(|shard| {
            // A shard takes turns of its own; tokio's per-poll budget would cut them at 128 sockets.
            let task = tokio::task::unconstrained(shard.run());
            tokio::spawn(trace::task("server", server, task))
        });
        let tasks = Mutex::new(tasks.collect());
        Self { shared, first_events, tasks }
    }

    /// Adds a device, or finds it by its id and gives it its new address (which dials at once). The answer is its
    /// position in [`Server::devices`] for as long as it is listed.
    ///
    /// A device is listed until [`Server::remove`], connected or not: targets are resolved against what was last heard of
    /// it.
    pub async fn set_device(&self, device: Device) -> Result<DeviceIndex, AddError> {
        self.list(device, Word::Operator).await
    }

    /// The same for a device that says itself that it is there, which proves nothing: an address that is neither listed nor
    /// that of its last session is dialled at the pace of [`FleetConfig::announced_dials_per_s`] until a session is open
    /// there.
    pub async fn announce_device(&self, device: Device) -> Result<DeviceIndex, AddError> {
        self.list(device, Word::Announce).await
    }

    /// Takes devices off the list for which nothing but announces speaks (nobody listed them, and no session was ever open)
    /// and that `stays` does not want: whoever forges announces must not fill the list for ever. How many there were; what
    /// they were owed ends as with [`Server::remove`].
    pub fn forget_announced(&self, mut stays: impl FnMut(NodeId) -> bool) -> usize {
        let gone: Vec<_> = self.shared.directory().announced().filter(|&(_, id)| !stays(id)).collect();
        gone.into_iter().filter(|&(position, _)| self.shared.remove(position)).count()
    }

    async fn list(&self, device: Device, word: Word) -> Result<DeviceIndex, AddError> {
        let capacity = self.shared.devices_max;
        let lowest = self.shared.lowest_kept.load(Ordering::Acquire);
        let (position, shard) = match self.shared.update(|directory| directory.reserve(device, word, lowest))
        {
            Reserved::Full => return Err(AddError::Full { capacity }),
            Reserved::Known(position) => return self.set_address(position, device.address, word),
            Reserved::New(position, shard) => (position, shard),
        };
        let (reply, answer) = oneshot::channel();
        if !self.shared.send(shard, Message::Add(device, position, word, reply)) {
            return Err(AddError::Stopped);
        }
        answer.await.unwrap_or(Err(AddError::Stopped))?;
        if word == Word::Operator && device.id.is_some() {
            self.shared.record_device(position);
        }
        Ok(DeviceIndex(position))
    }

    fn set_address(&self, position: u32, address: SocketAddr, word: Word) -> Result<DeviceIndex, AddError> {
        let shard = self.shared.directory().place(position).map(|(shard, _)| shard);
        // Removed in this moment: as if it had been removed after it.
        let Some(shard) = shard else { return Ok(DeviceIndex(position)) };
        let sent = self.shared.send(shard, Message::SetAddress(position, address, word));
        if sent { Ok(DeviceIndex(position)) } else { Err(AddError::Stopped) }
    }

    /// Takes a device off the list: its session ends with a BYE, what it was owed ends as NOT_TARGETED, what it was sent
    /// and has not answered as UNKNOWN. False if no device with this id is listed.
    pub fn remove(&self, id: NodeId) -> bool {
        let position = self.shared.directory().find(id);
        position.is_some_and(|position| self.shared.remove(position))
    }

    /// Every device listed, in the order they were added.
    #[must_use]
    pub fn devices(&self) -> Vec<Entry> {
        let directory = self.shared.directory();
        let mut entries = Vec::with_capacity(directory.len());
        entries.extend(directory.entries().map(|(_, entry)| entry.clone()));
        entries
    }

    /// How many tasks serve the devices.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shared.mailboxes.len()
    }

    /// Sessions as they open and end, from the very start: devices of an outbox are dialled at once. `None` for whoever asks
    /// second.
    #[must_use]
    pub fn events_from_start(&self) -> Option<broadcast::Receiver<Event>> {
        lock(&self.first_events).take()
    }

    /// Sessions as they open and end, from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        lock(&self.tasks).iter().for_each(JoinHandle::abort);
        self.shared.rollouts.abort();
        if let Some(outbox) = &self.shared.outbox {
            outbox.abandon();
        }
    }
}

/// How many shards there are where the application does not say: one per core up to [`SHARDS_AUTO_MAX`], and one on a
/// runtime with a single thread, where more would only take turns.
fn shards_by_runtime() -> usize {
    match tokio::runtime::Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => 1,
        _ => std::thread::available_parallelism().map_or(1, usize::from).min(SHARDS_AUTO_MAX),
    }
}
