//! The device's half: a seeker on sockets.

use alloc::vec::Vec;
use core::net::{Ipv4Addr, SocketAddrV4};
use core::time::Duration;

use tokio::sync::{mpsc, oneshot};
use wire_format::ids::{Name, NodeId, Store};
use wire_format::time::Instant;

use super::run::{self, Core, Task};
use super::wire::Wire;
use super::{Net, NetStats, OpenError, trace};
use crate::auth::DeviceKeys;
use crate::config::Services;
use crate::{Arrival, DeviceConfig, LinkId, Seeker, SeekerEvent, ServerView, Stats, Transmit};

/// Starts a device's discovery on the current tokio runtime: opens the sockets, then looks for the server. `seed` must
/// differ between devices: their timing hangs on it.
///
/// Without a store in `config` it asks for any, and lists the servers it hears: see [`DeviceHandle::candidates`].
///
/// No interface need be up: those that come later are found. The seeds of `config` are listened to wherever they live.
///
/// # Panics
///
/// As tokio does, on a runtime that was built without I/O or time.
pub fn spawn(net: Net, config: DeviceConfig, seed: u64) -> Result<DeviceDriver, OpenError> {
    spawn_with(net, Start::new(config, seed))
}

/// What a device's discovery starts with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Start {
    /// What the device says about itself.
    pub config: DeviceConfig,
    /// Must differ between devices and boots.
    pub seed: u64,
    /// Keys for authenticated mode, in which `seed` must be unpredictable. Default none: clear mode, until
    /// [`DeviceHandle::set_keys`].
    pub keys: Option<DeviceKeys>,
}

impl Start {
    /// A device without keys.
    #[must_use]
    pub const fn new(config: DeviceConfig, seed: u64) -> Self {
        Self { config, seed, keys: None }
    }
}

/// [`spawn`] with all that can be said.
///
/// # Panics
///
/// As tokio does, on a runtime that was built without I/O or time.
pub fn spawn_with(net: Net, start: Start) -> Result<DeviceDriver, OpenError> {
    let Start { config, seed, keys } = start;
    let at = SocketAddrV4::new(net.bind.unwrap_or(Ipv4Addr::UNSPECIFIED), net.port);
    let (seeds, node) = (config.seeds, ("device", config.id));
    let open = || Wire::open(net, seeds.iter().flatten().map(|seed| *seed.ip()));
    let task =
        run::spawn(open, |now| Finder { seeker: Seeker::assemble(config, now, seed, keys) }, at, node)?;
    let handle = DeviceHandle { commands: task.commands().clone() };
    Ok(DeviceDriver { task, handle })
}

/// A device's running discovery. Dropped, it ends at once and without a goodbye; [`DeviceDriver::shutdown`] is the
/// polite way.
#[derive(Debug)]
pub struct DeviceDriver {
    task: Task<Finder>,
    handle: DeviceHandle,
}

impl DeviceDriver {
    /// The next event; `None` after the task has ended. Cancel-safe: an event is either returned or still to come.
    pub async fn next_event(&mut self) -> Option<DeviceEvent> {
        self.task.next_event().await
    }

    /// What other tasks use beside this one.
    #[must_use]
    pub const fn handle(&self) -> &DeviceHandle {
        &self.handle
    }

    /// Says goodbye to the server and ends the task. The port is free when this returns.
    pub async fn shutdown(self) {
        self.task.shutdown(Command::Stop).await;
    }
}

/// A way to a device's running discovery; clones lead to the same one. After its end every answer is empty.
#[derive(Clone, Debug)]
pub struct DeviceHandle {
    commands: mpsc::Sender<Command>,
}

impl DeviceHandle {
    /// Says whether a push session with the server is healthy. While it is, the device sends no refresh.
    pub async fn set_linked(&self, linked: bool) {
        let _ended = self.commands.send(Command::SetLinked(linked)).await;
    }

    /// The device says something else about itself from now on. Its id and store stay what they were, and so do the
    /// seeds that are listened to.
    pub async fn reconfigure(&self, config: DeviceConfig) {
        let _ended = self.commands.send(Command::Reconfigure(Box::new(config))).await;
    }

    /// The server found, if any.
    pub async fn server(&self) -> Option<Server> {
        run::ask(&self.commands, Command::Server).await?
    }

    /// The servers heard while the device belongs to no store, at most [`CANDIDATES_MAX`](crate::seeker::CANDIDATES_MAX), those
    /// of one store beside each other, the one its devices would choose first.
    pub async fn candidates(&self) -> Vec<Candidate> {
        run::ask(&self.commands, Command::Candidates).await.unwrap_or_default()
    }

    /// The device belongs to this store and side of staging from now on, and looks for its server there. `false` if it
    /// belongs to one already, or discovery has ended.
    pub async fn adopt(&self, store: Store, staging: bool) -> bool {
        run::ask(&self.commands, |answer| Command::Adopt(store, staging, answer)).await.unwrap_or(false)
    }

    /// Other keys from now on. A device that was in clear mode forgets its server and looks for it anew.
    pub async fn set_keys(&self, keys: DeviceKeys) {
        let _ended = self.commands.send(Command::SetKeys(Box::new(keys))).await;
    }

    /// The counters; `None` after the end.
    pub async fn stats(&self) -> Option<DeviceStats> {
        run::ask(&self.commands, Command::Stats).await
    }
}

/// An event, with the server as it was when it was told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeviceEvent {
    /// What happened.
    pub event: SeekerEvent,
    /// The server found at that time, if any.
    pub server: Option<Server>,
}

/// The server a device has found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Server {
    /// Who it is.
    pub id: NodeId,
    /// Its address, with its HTTP base port.
    pub address: SocketAddrV4,
    /// Its display name, empty if it has none or it was not said yet.
    pub name: Name,
    /// What it offers, as far as it was said.
    pub services: Services,
    /// Its boot epoch.
    pub epoch: u32,
    /// Whether it has acknowledged this device.
    pub registered: bool,
}

impl Server {
    fn new(view: &ServerView<'_>) -> Self {
        Self {
            id: view.id,
            address: view.address,
            name: Name::new(view.name).unwrap_or(Name::EMPTY),
            services: *view.services,
            epoch: view.epoch,
            registered: view.registered,
        }
    }
}

/// A store server that a device without a store has heard. It says this about itself, and proves nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Who it is.
    pub id: NodeId,
    /// Its address, with its HTTP base port.
    pub address: SocketAddrV4,
    /// Its display name, empty if it has none.
    pub name: Name,
    /// The store it serves.
    pub store: Store,
    /// It is a test server.
    pub staging: bool,
    /// Lower wins among servers of one store.
    pub priority: u16,
    /// What it offers.
    pub services: Services,
    /// How long ago it was heard last.
    pub age: Duration,
}

impl Candidate {
    fn new(known: &crate::Candidate, now: Instant) -> Self {
        Self {
            id: known.id,
            address: known.address,
            name: known.name,
            store: known.store,
            staging: known.staging,
            priority: known.priority,
            services: known.services,
            age: now.since(known.heard),
        }
    }

    /// Every candidate of `seeker`, in the order in which people look for theirs.
    fn all_of(seeker: &Seeker, now: Instant) -> Vec<Self> {
        let mut all: Vec<Self> = seeker.candidates().map(|known| Self::new(known, now)).collect();
        all.sort_by(|a, b| a.place().cmp(&b.place()));
        all
    }

    fn place(&self) -> (u32, &str, bool, u16, NodeId) {
        (self.store.entity(), self.store.code(), self.staging, self.priority, self.id)
    }
}

/// What a device's discovery has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceStats {
    /// The protocol's counters.
    pub protocol: Stats,
    /// The sockets' and interfaces' counters.
    pub net: NetStats,
}

#[derive(Debug)]
enum Command {
    SetLinked(bool),
    Reconfigure(Box<DeviceConfig>),
    Server(oneshot::Sender<Option<Server>>),
    Candidates(oneshot::Sender<Vec<Candidate>>),
    Adopt(Store, bool, oneshot::Sender<bool>),
    Stats(oneshot::Sender<DeviceStats>),
    SetKeys(Box<DeviceKeys>),
    Stop,
}

#[derive(Debug)]
struct Finder {
    seeker: Seeker,
}

impl Core for Finder {
    type Event = DeviceEvent;
    type Command = Command;

    fn link_up(&mut self, now: Instant, link: LinkId) {
        self.seeker.link_up(now, link);
    }

    fn link_down(&mut self, now: Instant, link: LinkId) {
        self.seeker.link_down(now, link);
    }

    fn handle_datagram(&mut self, now: Instant, arrival: &Arrival, bytes: &[u8]) {
        // The seeker counts each reason; the application is not told of a single one.
        if let Err(why) = self.seeker.handle_datagram(now, arrival, bytes) {
            trace::dropped(arrival.source, why);
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.seeker.handle_timeout(now);
    }

    fn handle_command(&mut self, now: Instant, command: Command, net: &NetStats) {
        let seeker = &mut self.seeker;
        // Whoever asked may have gone; the answer then goes nowhere.
        match command {
            Command::SetLinked(linked) => seeker.set_linked(now, linked),
            Command::Reconfigure(config) => seeker.reconfigure(now, *config),
            Command::Server(answer) => {
                let _gone = answer.send(seeker.server().map(|view| Server::new(&view)));
            }
            Command::Candidates(answer) => {
                let _gone = answer.send(Candidate::all_of(seeker, now));
            }
            Command::Adopt(store, staging, answer) => {
                let _gone = answer.send(seeker.adopt(now, store, staging));
            }
            Command::Stats(answer) => {
                let _gone = answer.send(DeviceStats { protocol: *seeker.stats(), net: *net });
            }
            Command::SetKeys(keys) => seeker.set_keys(now, *keys),
            Command::Stop => seeker.stop(now),
        }
    }

    fn tells_counters(command: &Command) -> bool {
        matches!(command, Command::Stats(_))
    }

    fn poll_transmit(&mut self, now: Instant, buffer: &mut [u8]) -> Option<Transmit> {
        self.seeker.poll_transmit(now, buffer)
    }

    fn poll_event(&mut self, _now: Instant) -> Option<DeviceEvent> {
        let event = self.seeker.poll_event()?;
        trace::seeker(&event);
        Some(DeviceEvent { event, server: self.seeker.server().map(|view| Server::new(&view)) })
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.seeker.poll_timeout()
    }

    fn is_stopped(&self) -> bool {
        self.seeker.is_stopped()
    }
}
