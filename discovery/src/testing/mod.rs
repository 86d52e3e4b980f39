//! A store in virtual time: servers and devices on one seeded, lossy LAN, no sockets and no clock.
//!
//! Every node is driven by the calling contract: one input, then drain. What the network does to datagrams is in `lan`; a
//! world that fails says its seed and what was sent.

#[cfg(feature = "auth")]
mod auth;
#[cfg(feature = "auth")]
mod auth_forged;
#[cfg(feature = "auth")]
mod auth_operations;
#[cfg(feature = "auth")]
mod auth_replay;
#[cfg(feature = "auth")]
mod auth_rotation;
#[cfg(feature = "auth")]
mod auth_vectors;
mod bench_lan;
mod candidates;
mod conflicts;
pub(crate) mod datagrams;
mod forgery;
mod hostile;
mod implosion;
mod lan;
mod limits;
mod operations;
mod power;
mod scale;
mod scenarios;
mod seeds;
mod sleep;
mod storm;
mod versions;
mod weather;

use core::net::{Ipv4Addr, SocketAddrV4};
use core::time::Duration;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::rc::Rc;

use wire_format::ids::{NodeId, Store};
use wire_format::rng::Rng;
use wire_format::time::Instant;

use crate::auth::{DeviceKeys, Key, KeyRing, Keys, NoKey};
use crate::config::{DeviceConfig, PORT, ServerConfig};
use crate::event::{Event, SeekerEvent, What};
use crate::link::{Arrival, Destination, LinkId, Transmit};
use crate::roster::{Roster, Slot, State};
use crate::seeker::Seeker;
use lan::{Action, Due};

pub(crate) const LINK: LinkId = LinkId(0);

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(crate) fn store() -> Store {
    Store::new(7, "PARIS-12").unwrap()
}

/// The id with this number.
pub(crate) fn id(number: u32) -> NodeId {
    let mut bytes = [0xA5; 16];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    NodeId(bytes)
}

/// The address with this number, at the discovery port.
pub(crate) fn address(number: u32) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from_bits(0x0A00_0000 + number), PORT)
}

pub(crate) fn server_config() -> ServerConfig {
    ServerConfig { epoch: 1, epoch_random: false, ..ServerConfig::new(id(1_000_000), store()) }
}

pub(crate) fn device_config(number: u32) -> DeviceConfig {
    DeviceConfig { epoch: 1, epoch_random: false, ..DeviceConfig::new(id(number), store()) }
}

/// The keys of a whole store: what its server has, and what each device gets.
#[derive(Clone)]
pub(crate) struct StoreKeys {
    pub(crate) announce: HashMap<NodeId, KeyRing>,
    pub(crate) beacon: KeyRing,
}

impl Keys for StoreKeys {
    fn announce_key(&self, device: NodeId, key_id: u16) -> Result<&Key, NoKey> {
        self.announce.get(&device).ok_or(NoKey::Device)?.find(key_id)
    }

    fn current_key_id(&self, device: NodeId) -> Result<u16, NoKey> {
        self.announce.get(&device).map(KeyRing::current_id).ok_or(NoKey::Device)
    }
}

pub(crate) type StoreRoster = Roster<Vec<Slot>, Option<StoreKeys>>;

pub(crate) enum Core {
    Server(Box<StoreRoster>),
    Device(Box<Seeker>),
}

pub(crate) struct Node {
    pub(crate) core: Core,
    pub(crate) address: SocketAddrV4,
    pub(crate) on: bool,
    pub(crate) frozen: bool,
    /// What its socket holds: while it is frozen, or because it takes its time.
    held: VecDeque<(Arrival, Rc<[u8]>)>,
    /// Datagrams its socket holds, and how many it had no room for.
    pub(crate) held_max: usize,
    pub(crate) drops: u64,
    /// What a datagram costs its process; the next ones wait in the socket.
    pub(crate) each: Option<Duration>,
    /// Its process looks into the socket at some time.
    reading: bool,
    /// It lives behind a router: no broadcast reaches it or leaves it.
    pub(crate) routed: bool,
    armed: Option<Instant>,
    /// What a server told.
    pub(crate) events: Vec<(Instant, Event)>,
    /// What a device told.
    pub(crate) told: Vec<(Instant, SeekerEvent)>,
    /// When each datagram of this node left, and its kind's number.
    pub(crate) sent: Vec<(Instant, u8)>,
}

/// A datagram as somebody on the LAN records it.
#[derive(Clone, Debug)]
pub(crate) struct Taped {
    pub(crate) at: Instant,
    pub(crate) node: usize,
    pub(crate) to: Destination,
    pub(crate) source: SocketAddrV4,
    pub(crate) broadcast: bool,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) nodes: Vec<Node>,
    /// Copies lost, delivered twice, and overtaken, per 1,000; and by how much these come late.
    pub(crate) loss: u64,
    pub(crate) duplicates: u64,
    /// Copies of broadcasts lost besides, per 1,000.
    pub(crate) broadcast_loss: u64,
    /// The keys that nodes made from now on have; `None` is clear mode. A device that is not in it has none.
    pub(crate) keys: Option<StoreKeys>,
    /// Every datagram sent, and where from, once this is something.
    pub(crate) tape: Option<Vec<Taped>>,
    pub(crate) overtaken: u64,
    pub(crate) late: Duration,
    /// Of what is sent to servers, and of what is sent to devices, so much more is lost, per 1,000.
    pub(crate) loss_up: u64,
    pub(crate) loss_down: u64,
    /// A loop in the network: each datagram arrives so many times.
    pub(crate) loops: usize,
    /// Check every invariant of a roster after each of its inputs.
    pub(crate) check: bool,
    queue: BinaryHeap<Due>,
    order: u64,
    seed: u64,
    rng: Rng,
    at: HashMap<SocketAddrV4, usize>,
    buffer: Vec<u8>,
}

/// What a failure leaves behind, so that it can be seen again.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let sent = [SEEK, BEACON, ANNOUNCE, ACK, BYE, CHALLENGE].map(|kind| self.sent(kind));
            let (seed, at, nodes) = (self.seed, self.now.as_millis(), self.nodes.len());
            eprintln!(
                "world of seed {seed} at {at} ms: {nodes} nodes; SEEK, BEACON, ANNOUNCE, ACK, BYE, CHALLENGE: {sent:?}"
            );
        }
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            now: Instant::from_millis(1_000),
            nodes: vec![],
            loss: 0,
            duplicates: 0,
            broadcast_loss: 0,
            keys: None,
            tape: None,
            overtaken: 0,
            late: ms(50),
            loss_up: 0,
            loss_down: 0,
            loops: 1,
            check: false,
            queue: BinaryHeap::new(),
            order: 0,
            seed,
            rng: Rng::new(seed),
            at: HashMap::new(),
            buffer: vec![0; 1_200],
        }
    }

    fn push(&mut self, after: Duration, action: Action) {
        self.order += 1;
        self.queue.push(Due { at: self.now + after, order: self.order, action });
    }

    fn add(&mut self, core: Core, address: SocketAddrV4, after: Duration) -> usize {
        let at = self.nodes.len();
        self.nodes.push(Node {
            core,
            address,
            on: false,
            frozen: false,
            held: VecDeque::new(),
            held_max: usize::MAX,
            drops: 0,
            each: None,
            reading: false,
            routed: false,
            armed: None,
            events: vec![],
            told: vec![],
            sent: vec![],
        });
        self.at.insert(address, at);
        self.push(after, Action::Boot(at));
        at
    }

    /// A server at `address`, starting after `after`.
    pub(crate) fn server(
        &mut self,
        config: ServerConfig,
        capacity: usize,
        address: SocketAddrV4,
        after: Duration,
    ) -> usize {
        let seed = self.rng.next_u64();
        let (keys, slots) = (self.keys.clone(), vec![Slot::EMPTY; capacity]);
        let beacon_keys = keys.as_ref().map(|keys| keys.beacon.clone());
        let roster = Roster::assemble(config, slots, self.now, seed, keys, beacon_keys);
        self.add(Core::Server(Box::new(roster)), address, after)
    }

    /// A device at `address`, booting after `after`.
    pub(crate) fn device(&mut self, config: DeviceConfig, address: SocketAddrV4, after: Duration) -> usize {
        let seed = self.rng.next_u64();
        let keys = self.keys.as_ref().and_then(|keys| {
            let announce = keys.announce.get(&config.id)?.clone();
            Some(DeviceKeys { announce, beacon: keys.beacon.clone() })
        });
        let seeker = Seeker::assemble(config, self.now, seed, keys);
        self.add(Core::Device(Box::new(seeker)), address, after)
    }

    /// `count` devices, numbered from 1, booting within `within`; the number of the first node.
    pub(crate) fn devices(&mut self, count: u32, within: Duration) -> usize {
        let first = self.nodes.len();
        for number in 1..=count {
            let after = self.rng.between(Duration::ZERO, within);
            self.device(device_config(number), address(number), after);
        }
        first
    }

    /// The power is gone: nothing is said, nothing is heard.
    pub(crate) fn off(&mut self, node: usize) {
        self.nodes[node].on = false;
        let address = self.nodes[node].address;
        self.at.retain(|at, owner| (*at, *owner) != (address, node));
    }

    /// The node has another address from now on, and its driver has seen it.
    pub(crate) fn readdress(&mut self, nodes: &[(usize, SocketAddrV4)]) {
        for &(node, _) in nodes {
            let address = self.nodes[node].address;
            self.at.retain(|at, owner| (*at, *owner) != (address, node));
        }
        for &(node, address) in nodes {
            self.nodes[node].address = address;
            self.at.insert(address, node);
        }
        for &(node, _) in nodes {
            self.up(node);
        }
    }

    /// Its interface can be used, or has another address.
    fn up(&mut self, node: usize) {
        let now = self.now;
        match &mut self.nodes[node].core {
            Core::Server(roster) => roster.link_up(now, LINK),
            Core::Device(seeker) => seeker.link_up(now, LINK),
        }
        self.drain(node);
    }

    pub(crate) fn freeze(&mut self, node: usize) {
        self.nodes[node].frozen = true;
    }

    /// The process goes on: first what its socket held, then its clock.
    pub(crate) fn thaw(&mut self, node: usize) {
        self.nodes[node].frozen = false;
        self.nodes[node].armed = None;
        if self.nodes[node].each.is_some() {
            self.look(node);
            return self.timeout(node);
        }
        for (arrival, bytes) in core::mem::take(&mut self.nodes[node].held) {
            self.input(node, &arrival, &bytes);
        }
        if let drops @ 1.. = self.nodes[node].drops {
            self.with_roster(node, |roster, now| roster.handle_receive_drops(now, drops));
        }
        self.timeout(node);
    }

    pub(crate) fn roster(&self, node: usize) -> &StoreRoster {
        let Core::Server(roster) = &self.nodes[node].core else { panic!("node {node} is a device") };
        roster
    }

    pub(crate) fn seeker(&self, node: usize) -> &Seeker {
        let Core::Device(seeker) = &self.nodes[node].core else { panic!("node {node} is a server") };
        seeker
    }

    /// Does something with a server, then drains it.
    pub(crate) fn with_roster<R>(
        &mut self,
        node: usize,
        act: impl FnOnce(&mut StoreRoster, Instant) -> R,
    ) -> R {
        let now = self.now;
        let Core::Server(roster) = &mut self.nodes[node].core else { panic!("node {node} is a device") };
        let result = act(roster, now);
        self.drain(node);
        result
    }

    /// Does something with a device, then drains it.
    pub(crate) fn with_seeker<R>(&mut self, node: usize, act: impl FnOnce(&mut Seeker, Instant) -> R) -> R {
        let now = self.now;
        let Core::Device(seeker) = &mut self.nodes[node].core else { panic!("node {node} is a server") };
        let result = act(seeker, now);
        self.drain(node);
        result
    }

    /// A datagram from anywhere to a node, as if the network had delivered it.
    pub(crate) fn inject(&mut self, node: usize, source: SocketAddrV4, broadcast: bool, bytes: &[u8]) {
        let arrival = Arrival { link: LINK, source, broadcast };
        self.input(node, &arrival, bytes);
    }

    fn input(&mut self, node: usize, arrival: &Arrival, bytes: &[u8]) {
        let now = self.now;
        let _reason = match &mut self.nodes[node].core {
            Core::Server(roster) => roster.handle_datagram(now, arrival, bytes),
            Core::Device(seeker) => seeker.handle_datagram(now, arrival, bytes),
        };
        self.drain(node);
    }

    fn timeout(&mut self, node: usize) {
        let now = self.now;
        match &mut self.nodes[node].core {
            Core::Server(roster) => roster.handle_timeout(now),
            Core::Device(seeker) => seeker.handle_timeout(now),
        }
        self.drain(node);
    }

    fn drain(&mut self, node: usize) {
        let now = self.now;
        let mut buffer = core::mem::take(&mut self.buffer);
        loop {
            let transmit = match &mut self.nodes[node].core {
                Core::Server(roster) => roster.poll_transmit(now, &mut buffer),
                Core::Device(seeker) => seeker.poll_transmit(now, &mut buffer),
            };
            let Some(Transmit { to, len }) = transmit else { break };
            self.nodes[node].sent.push((now, buffer[5]));
            if let Some(tape) = &mut self.tape {
                let broadcast = matches!(to, Destination::Broadcast(_));
                tape.push(Taped {
                    at: now,
                    node,
                    to,
                    source: self.nodes[node].address,
                    broadcast,
                    bytes: buffer[..len].to_vec(),
                });
            }
            self.send(node, to, buffer[..len].into());
        }
        self.buffer = buffer;
        let check = self.check;
        let owner = &mut self.nodes[node];
        let due = match &mut owner.core {
            Core::Server(roster) => {
                while let Some(event) = roster.poll_event() {
                    owner.events.push((now, event));
                }
                if check {
                    roster.check();
                }
                roster.poll_timeout()
            }
            Core::Device(seeker) => {
                while let Some(event) = seeker.poll_event() {
                    owner.told.push((now, event));
                }
                seeker.poll_timeout()
            }
        };
        if let Some(due) = due
            && owner.armed.is_none_or(|armed| due < armed)
        {
            owner.armed = Some(due);
            self.push(due.since(now), Action::Timer(node));
        }
    }

    /// Devices here, as this server sees them.
    pub(crate) fn present(&self, server: usize) -> usize {
        self.roster(server).len()
    }

    /// The state of the device with this number.
    pub(crate) fn state(&self, server: usize, number: u32) -> Option<State> {
        self.roster(server).find(id(number)).map(|view| view.state)
    }

    /// Runs in steps until `done`, at most `limit`; how long it took.
    pub(crate) fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> Option<Duration> {
        let start = self.now;
        while self.now.since(start) < limit {
            if done(self) {
                return Some(self.now.since(start));
            }
            self.run(ms(10));
        }
        None
    }

    /// Datagrams of a kind sent by everybody.
    pub(crate) fn sent(&self, kind: u8) -> usize {
        self.nodes.iter().flat_map(|node| &node.sent).filter(|sent| sent.1 == kind).count()
    }

    /// What a server told about a device, in order.
    pub(crate) fn news(&self, server: usize, number: u32) -> Vec<What> {
        let events = &self.nodes[server].events;
        events.iter().filter(|(_, event)| event.id == id(number)).map(|(_, event)| event.what).collect()
    }
}

pub(crate) const SEEK: u8 = 1;
pub(crate) const BEACON: u8 = 2;
pub(crate) const ANNOUNCE: u8 = 3;
pub(crate) const ACK: u8 = 4;
pub(crate) const BYE: u8 = 5;
pub(crate) const CHALLENGE: u8 = 6;
