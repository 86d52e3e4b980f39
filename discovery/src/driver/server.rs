//! The server's half: a roster on sockets.

use core::net::{Ipv4Addr, SocketAddrV4};
use core::time::Duration;

use tokio::sync::{mpsc, oneshot};
use wire_format::datagram::Firmware;
use wire_format::ids::{DeviceCode, DeviceKind, Name, NodeId, Tags};
use wire_format::time::Instant;

use super::run::{self, Core, Task};
use super::wire::Wire;
use super::{Net, NetStats, OpenError, trace};
use crate::auth::{KeyMap, KeyRing, ServerKeys};
use crate::config::Services;
use crate::roster::{RECORD_LEN, Reason, Restored, SnapshotError};
use crate::{Arrival, DeviceView, Event, LinkId, Roster, ServerConfig, Slot, State, Stats, Transmit};

/// Starts a server's discovery on the current tokio runtime: opens the sockets, then runs a roster of `capacity`
/// devices. `seed` should differ at each start.
///
/// No interface need be up: those that come later are found.
///
/// # Panics
///
/// As tokio does, on a runtime that was built without I/O or time.
pub fn spawn(net: Net, config: ServerConfig, capacity: usize, seed: u64) -> Result<ServerDriver, OpenError> {
    spawn_with(net, Start::new(config, capacity, seed))
}

/// What a server's discovery starts with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Start {
    /// What the server says about itself, and its timers.
    pub config: ServerConfig,
    /// Devices that fit. Memory for all is taken at the start.
    pub capacity: usize,
    /// Should differ at each start.
    pub seed: u64,
    /// What [`ServerHandle::snapshot`] gave in an earlier run. Default none.
    pub snapshot: Option<Vec<u8>>,
    /// Keys for authenticated mode, in which `seed` must be unpredictable. Default none: clear mode, for the whole run.
    pub keys: Option<ServerKeys>,
}

impl Start {
    /// A server that remembers nothing.
    #[must_use]
    pub const fn new(config: ServerConfig, capacity: usize, seed: u64) -> Self {
        Self { config, capacity, seed, snapshot: None, keys: None }
    }
}

/// [`spawn`] with all that can be said. What came of the snapshot tells [`ServerDriver::restored`]; one that is not
/// usable keeps no server from starting.
///
/// # Panics
///
/// As tokio does, on a runtime that was built without I/O or time.
pub fn spawn_with(net: Net, start: Start) -> Result<ServerDriver, OpenError> {
    let at = SocketAddrV4::new(net.bind.unwrap_or(Ipv4Addr::UNSPECIFIED), net.port);
    let Start { config, capacity, seed, snapshot, keys } = start;
    let (node, rate_per_s) = (("server", config.id), config.rate_per_s);
    let mut restored = None;
    let make = |now| {
        let slots = vec![Slot::EMPTY; capacity].into_boxed_slice();
        let (announce, beacon) = keys.map(|ServerKeys { announce, beacon }| (announce, beacon)).unzip();
        // On the heap at once: it would be moved a dozen times on its way into the task.
        let mut roster = Box::new(Roster::assemble(config, slots, now, seed, announce, beacon));
        restored = snapshot.map(|snapshot| roster.restore(now, &snapshot));
        Server { roster }
    };
    let open = || Wire::open(net, []).inspect(|wire| wire.warn_of_small_queue(rate_per_s));
    let task = run::spawn(open, make, at, node)?;
    let handle = ServerHandle { commands: task.commands().clone() };
    Ok(ServerDriver { task, handle, restored })
}

/// A server's running discovery. Dropped, it ends at once and without a goodbye; [`ServerDriver::shutdown`] is the
/// polite way.
#[derive(Debug)]
pub struct ServerDriver {
    task: Task<Server>,
    handle: ServerHandle,
    restored: Option<Result<Restored, SnapshotError>>,
}

impl ServerDriver {
    /// The next event; `None` after the task has ended. Cancel-safe: an event is either returned or still to come.
    ///
    /// Whoever is slow to ask loses nothing: up to [`EVENTS_MAX`](super::EVENTS_MAX) events wait here, the rest waits,
    /// merged per device, in the roster.
    pub async fn next_event(&mut self) -> Option<ServerEvent> {
        self.task.next_event().await
    }

    /// What other tasks use beside this one.
    #[must_use]
    pub const fn handle(&self) -> &ServerHandle {
        &self.handle
    }

    /// What came of the snapshot it was started with; `None` without one.
    #[must_use]
    pub const fn restored(&self) -> Option<Result<Restored, SnapshotError>> {
        self.restored
    }

    /// Says goodbye to the devices and ends the task. The port is free when this returns.
    pub async fn shutdown(self) {
        self.shutdown_for(Reason::LEAVING, 0).await;
    }

    /// [`ServerDriver::shutdown`] with a reason, and the seconds after which the devices should look again (0: not
    /// known).
    pub async fn shutdown_for(self, reason: Reason, retry_after_s: u16) {
        self.task.shutdown(Command::Stop(reason, retry_after_s)).await;
    }
}

/// A way to a server's running discovery; clones lead to the same one. After its end every answer is empty.
#[derive(Clone, Debug)]
pub struct ServerHandle {
    commands: mpsc::Sender<Command>,
}

impl ServerHandle {
    /// Says whether a push session with this device is healthy. While it is, the device need not refresh and is not
    /// suspected. Of a device that is not in the roster nothing is kept: say it again when it joins.
    pub async fn set_linked(&self, id: NodeId, linked: bool) {
        let _ended = self.commands.send(Command::SetLinked(id, linked)).await;
    }

    /// Every device in the roster, lost and left ones included, in no particular order.
    pub async fn devices(&self) -> Vec<Device> {
        run::ask(&self.commands, Command::Devices).await.unwrap_or_default()
    }

    /// One device.
    pub async fn find(&self, id: NodeId) -> Option<Device> {
        run::ask(&self.commands, |answer| Command::Find(id, answer)).await?
    }

    /// Everything the roster knows of its devices, for [`Start::snapshot`] of the next run: 232 bytes per device. `None`
    /// after the end. Events told before the answer came are in it.
    pub async fn snapshot(&self) -> Option<Vec<u8>> {
        run::ask(&self.commands, Command::Snapshot).await
    }

    /// Other keys for the store and all its devices from now on. A device that has none any more is lost at once. Does
    /// nothing in clear mode.
    pub async fn set_keys(&self, keys: ServerKeys) {
        let _ended = self.commands.send(Command::SetKeys(Box::new(keys))).await;
    }

    /// Other keys for one device from now on: it was enrolled, or its key is rotated. Does nothing in clear mode.
    pub async fn set_device_keys(&self, id: NodeId, keys: KeyRing) {
        let _ended = self.commands.send(Command::SetDeviceKeys(id, Some(Box::new(keys)))).await;
    }

    /// Takes a device's keys away: it is lost at once, and not heard again. Does nothing in clear mode.
    pub async fn revoke(&self, id: NodeId) {
        let _ended = self.commands.send(Command::SetDeviceKeys(id, None)).await;
    }

    /// The counters; `None` after the end.
    pub async fn stats(&self) -> Option<ServerStats> {
        run::ask(&self.commands, Command::Stats).await
    }
}

/// An event, with the device as it was when it was told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ServerEvent {
    /// What happened.
    pub event: Event,
    /// The device; `None` if it is not in the roster (another server, a device that was turned away).
    pub device: Option<Device>,
}

/// A device, copied out of the roster.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Device {
    /// Who it is.
    pub id: NodeId,
    /// What it is.
    pub kind: DeviceKind,
    /// Its display name, empty if it has none.
    pub name: Name,
    /// The product's code of it, empty if it has none.
    pub code: DeviceCode,
    /// Where it takes orders: the address its datagrams come from, and the port it announced.
    pub address: SocketAddrV4,
    /// Where its datagrams come from.
    pub source: SocketAddrV4,
    /// The interface they arrive on.
    pub link: LinkId,
    /// Where it stands.
    pub zone: Option<u32>,
    /// Its tags.
    pub tags: Tags,
    /// What it offers.
    pub services: Services,
    /// What runs on it.
    pub firmware: Option<Firmware>,
    /// What it can do, as bits.
    pub caps: Option<u64>,
    /// Its boot epoch.
    pub epoch: u32,
    /// How long ago it was heard.
    pub silent_for: Duration,
    /// Whether it has had a healthy push session, in this run or before the snapshot it was restored from.
    pub served: bool,
    /// How sure the roster is that it is here.
    pub state: State,
}

impl Device {
    fn new(view: &DeviceView<'_>, now: Instant) -> Self {
        Self {
            id: view.id,
            kind: view.kind,
            name: Name::new(view.name).unwrap_or_default(),
            code: DeviceCode::new(view.code).unwrap_or_default(),
            address: view.address,
            source: view.source,
            link: view.link,
            zone: view.zone,
            tags: *view.tags,
            services: *view.services,
            firmware: view.firmware,
            caps: view.caps,
            epoch: view.epoch,
            silent_for: now.since(view.heard),
            served: view.served,
            state: view.state,
        }
    }
}

/// What a server's discovery has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// The protocol's counters.
    pub protocol: Stats,
    /// The sockets' and interfaces' counters.
    pub net: NetStats,
    /// Devices that are here.
    pub devices: usize,
    /// Devices that fit.
    pub capacity: usize,
    /// The generation of the last event told.
    pub generation: u64,
}

#[derive(Debug)]
enum Command {
    SetLinked(NodeId, bool),
    Devices(oneshot::Sender<Vec<Device>>),
    Find(NodeId, oneshot::Sender<Option<Device>>),
    Snapshot(oneshot::Sender<Vec<u8>>),
    Stats(oneshot::Sender<ServerStats>),
    SetKeys(Box<ServerKeys>),
    SetDeviceKeys(NodeId, Option<Box<KeyRing>>),
    Stop(Reason, u16),
}

/// A snapshot in one piece.
fn written(roster: &Roster<Box<[Slot]>, Option<KeyMap>>) -> Vec<u8> {
    let (mut snapshot, mut buffer) = (roster.snapshot(), [0; RECORD_LEN]);
    let mut bytes = Vec::with_capacity(snapshot.len());
    while let Some(piece) = snapshot.next_piece(&mut buffer) {
        bytes.extend_from_slice(piece);
    }
    bytes
}

#[derive(Debug)]
struct Server {
    roster: Box<Roster<Box<[Slot]>, Option<KeyMap>>>,
}

impl Server {
    /// Other keys for one device, or none any more; a device that loses them is lost.
    fn set_device_keys(&mut self, now: Instant, id: NodeId, ring: Option<KeyRing>) {
        let Some(keys) = self.roster.keys_mut() else { return };
        match ring {
            Some(ring) => drop(keys.insert(id, ring)),
            None => {
                drop(keys.remove(id));
                self.roster.revoke(now, id);
            }
        }
    }

    /// Other keys for all.
    fn set_keys(&mut self, now: Instant, new: ServerKeys) {
        let without = |id: &NodeId| new.announce.get(*id).is_none();
        let revoked: Vec<NodeId> = self.roster.iter().map(|device| device.id).filter(without).collect();
        let Some(keys) = self.roster.keys_mut() else { return };
        *keys = new.announce;
        self.roster.set_beacon_keys(new.beacon);
        for id in revoked {
            self.roster.revoke(now, id);
        }
    }
}

impl Core for Server {
    type Event = ServerEvent;
    type Command = Command;
    // They widen the next reply window.
    const FOLLOWS_DROPS: bool = true;

    fn link_up(&mut self, now: Instant, link: LinkId) {
        self.roster.link_up(now, link);
    }

    fn link_down(&mut self, now: Instant, link: LinkId) {
        self.roster.link_down(now, link);
    }

    fn handle_datagram(&mut self, now: Instant, arrival: &Arrival, bytes: &[u8]) {
        // The roster counts each reason; the application is not told of a single one.
        if let Err(why) = self.roster.handle_datagram(now, arrival, bytes) {
            trace::dropped(arrival.source, why);
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.roster.handle_timeout(now);
    }

    fn handle_receive_drops(&mut self, now: Instant, total: u64) {
        self.roster.handle_receive_drops(now, total);
    }

    fn handle_command(&mut self, now: Instant, command: Command, net: &NetStats) {
        let roster = &mut self.roster;
        // Whoever asked may have gone; the answer then goes nowhere.
        match command {
            Command::SetLinked(id, linked) => {
                roster.set_linked(now, id, linked);
            }
            Command::Devices(answer) => {
                let _gone = answer.send(roster.iter().map(|view| Device::new(&view, now)).collect());
            }
            Command::Find(id, answer) => {
                let _gone = answer.send(roster.find(id).map(|view| Device::new(&view, now)));
            }
            Command::Snapshot(answer) => {
                let _gone = answer.send(written(roster));
            }
            Command::Stats(answer) => {
                let _gone = answer.send(ServerStats {
                    protocol: *roster.stats(),
                    net: *net,
                    devices: roster.len(),
                    capacity: roster.capacity(),
                    generation: roster.generation(),
                });
            }
            Command::SetKeys(keys) => self.set_keys(now, *keys),
            Command::SetDeviceKeys(id, ring) => self.set_device_keys(now, id, ring.map(|ring| *ring)),
            Command::Stop(reason, retry_after_s) => roster.stop(now, reason, retry_after_s),
        }
    }

    fn tells_counters(command: &Command) -> bool {
        matches!(command, Command::Stats(_))
    }

    fn poll_transmit(&mut self, now: Instant, buffer: &mut [u8]) -> Option<Transmit> {
        self.roster.poll_transmit(now, buffer)
    }

    fn poll_event(&mut self, now: Instant) -> Option<ServerEvent> {
        let event = self.roster.poll_event()?;
        trace::roster(&event);
        let device = self.roster.find(event.id).map(|view| Device::new(&view, now));
        Some(ServerEvent { event, device })
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.roster.poll_timeout()
    }

    fn is_stopped(&self) -> bool {
        self.roster.is_stopped()
    }
}
