//! Discovery: any list of operations against a server's roster and a device's seeker, which also hear each other, and
//! against a device that belongs to no store yet and hears both.
//!
//! After every operation both are drained, and: whoever follows the events knows what the roster knows; every datagram
//! sent is well formed, of its own side, and answers no more bytes than came; no timer stays; no table grows.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use discovery::{
    Arrival, Destination, DeviceConfig, Event, LinkId, Roster, Seeker, ServerConfig, Slot, State, Transmit,
    What,
};
use wire_format::datagram::{
    Ack, Announce, Beacon, Bye, Challenge, DATAGRAM_MAX, Datagram, Node, Nonce, Seek, Status, ack, bye,
};
use wire_format::ids::{DeviceKind, NodeId, Store};
use wire_format::time::Instant;

use super::lister::Lister;
use super::{Seed, Source};

/// Devices that fit: fewer than there are ids, so that the roster overflows.
const SLOTS: usize = 4;
const SERVER: u8 = 200;
const DEVICE: u8 = 1;
/// The device without a store.
const LISTER: u8 = 100;
const LINK: LinkId = LinkId(0);
/// Datagrams and events of one drain: every table has fewer entries.
const DRAIN_MAX: usize = 256;

/// Any bytes as a list of operations.
///
/// # Panics
///
/// If an invariant is broken.
pub fn roster_ops(data: &[u8]) {
    let mut source = Source(data);
    let mut world = World::new(source.u8());
    for _ in 0..400 {
        if source.is_empty() {
            break;
        }
        world.operation(&mut source);
        world.drain(None);
        world.check();
    }
}

struct World {
    roster: Roster<Vec<Slot>>,
    seeker: Seeker,
    lister: Lister,
    now: Instant,
    sequence: u32,
    /// The server's last question: the cookie, and where it went.
    asked: Option<(Nonce, SocketAddrV4)>,
    /// Whether the roster and the seeker hear each other.
    joined: bool,
    mirror: HashMap<NodeId, SocketAddrV4>,
    generation: u64,
}

impl World {
    fn new(mode: u8) -> Self {
        let mut server =
            ServerConfig { forget_s: 100, lease_s: 30, ..ServerConfig::new(id(SERVER), store()) };
        server.expected_devices = u32::from(mode >> 4);
        let device = DeviceConfig { epoch: 7, ..DeviceConfig::new(id(DEVICE), store()) };
        let now = Instant::from_millis(1_000);
        let mut world = Self {
            roster: Roster::new(server, vec![Slot::EMPTY; SLOTS], now, u64::from(mode)),
            seeker: Seeker::new(device, now, u64::from(mode) + 1),
            lister: Lister::new(id(LISTER), now, u64::from(mode) + 2),
            now,
            sequence: 0,
            asked: None,
            joined: mode & 1 != 0,
            mirror: HashMap::new(),
            generation: 0,
        };
        world.roster.link_up(now, LINK);
        world.seeker.link_up(now, LINK);
        world
    }

    fn operation(&mut self, source: &mut Source<'_>) {
        match source.u8() % 16 {
            0..=2 => self.wait(Duration::from_millis(u64::from(source.u16()))),
            3 => self.wait(Duration::from_millis(u64::from(source.u8()))),
            4 => {
                // This side stood still: nobody kept the deadlines.
                self.now = self.now + Duration::from_millis(u64::from(source.u16()) * 8);
                self.roster.handle_timeout(self.now);
                self.seeker.handle_timeout(self.now);
                self.lister.handle_timeout(self.now);
            }
            5 => {
                let (node, linked) = (id(source.u8() % 8), source.bool());
                let known = self.roster.find(node).is_some();
                assert_eq!(self.roster.set_linked(self.now, node, linked), known);
            }
            6 => self.seeker.set_linked(self.now, source.bool()),
            7 => {
                let link = LinkId(source.u8() % 18);
                match source.u8() % 6 {
                    0 => self.roster.link_up(self.now, link),
                    1 => self.roster.link_down(self.now, link),
                    2 => self.seeker.link_up(self.now, link),
                    3 => self.seeker.link_down(self.now, link),
                    which => self.lister.link(self.now, link, which == 4),
                }
            }
            8 => match source.u8() {
                0 => self.roster.stop(self.now, bye::Reason::RESTARTING, 5),
                1 => self.seeker.stop(self.now),
                2..=127 => self.joined = !self.joined,
                128..=135 => self.lister.adopt(self.now, store(), source.bool()),
                _ => {}
            },
            9 => {
                let (len, at) = (usize::from(source.u8()), source.u8());
                let bytes = source.bytes(len).to_vec();
                self.deliver(at, &bytes);
            }
            _ => {
                let (to, datagram) = (source.u8(), self.crafted(source));
                self.deliver(to, &datagram);
            }
        }
    }

    /// A well-formed datagram of any kind, by any node, of one of two stores or of none, sometimes with one bit wrong.
    fn crafted(&mut self, source: &mut Source<'_>) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(u32::from(source.u8() % 4));
        let [kind, number, epoch, flip] = source.array();
        let store = if epoch & 0x20 != 0 { other_store() } else { store() };
        let unscoped = epoch & 0x40 != 0;
        let role = if number >= SERVER { DeviceKind::SERVER } else { DeviceKind::KIOSK };
        let from = Node {
            scope: if unscoped { 0 } else { store.scope() },
            epoch: u32::from(epoch % 3),
            epoch_random: epoch & 0x80 != 0,
            sequence: self.sequence,
            port: 8_081,
            lease_s: u16::from(source.u8()),
            staging: flip == 255,
            want_ack: flip & 1 != 0,
            ..Node::new(id(if number >= SERVER { number } else { number % 8 }), role)
        };
        let nonce = match self.asked {
            Some((nonce, _)) if flip & 2 == 0 => nonce,
            _ => Nonce::Short(source.array()),
        };
        let of_store = (!unscoped || flip & 16 != 0).then_some(&store);
        let datagram = datagram(kind, flip, from, nonce, of_store, source);
        let mut buffer = [0; DATAGRAM_MAX];
        let Ok(len) = datagram.emit(&mut buffer) else { return Vec::new() };
        let mut bytes = buffer[..len].to_vec();
        if flip > 240 {
            let at = usize::from(source.u16()) % len;
            bytes[at] ^= 1 << (flip % 8);
        }
        bytes
    }

    /// A datagram arrives: at the seeker if the highest bit of `to` is set, else at the roster; with the bit 0x20 at the device
    /// without a store too.
    fn deliver(&mut self, to: u8, bytes: &[u8]) {
        let arrival = Arrival { link: LINK, source: address(to & 0x07), broadcast: to & 0x40 != 0 };
        if to & 0x20 != 0 {
            self.lister.hear(self.now, &arrival, bytes);
        }
        if to & 0x80 != 0 {
            let _why = self.seeker.handle_datagram(self.now, &arrival, bytes);
        } else {
            self.drain(None);
            let before = self.roster.stats().received;
            let _why = self.roster.handle_datagram(self.now, &arrival, bytes);
            assert_eq!(self.roster.stats().received, before + 1);
            self.drain(Some((arrival.source, bytes.len())));
        }
    }

    /// Time passes as a driver lets it: every deadline is kept, and none stays.
    fn wait(&mut self, span: Duration) {
        let end = self.now + span;
        for _ in 0..10_000 {
            let due = [self.roster.poll_timeout(), self.seeker.poll_timeout(), self.lister.due()];
            let due = due.into_iter().flatten().min();
            let Some(due) = due.filter(|due| *due <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(due);
            self.roster.handle_timeout(self.now);
            self.seeker.handle_timeout(self.now);
            self.lister.handle_timeout(self.now);
            self.drain(None);
            let stays = |due: Option<Instant>| due.is_some_and(|due| due <= self.now);
            assert!(!stays(self.roster.poll_timeout()), "a deadline of the roster stays");
            assert!(!stays(self.seeker.poll_timeout()), "a deadline of the seeker stays");
            assert!(!stays(self.lister.due()), "a deadline of the lister stays");
        }
        panic!("more than 10,000 deadlines in {span:?}");
    }

    /// Takes everything the two have to say, until both are silent. `question`: who just sent how many bytes.
    fn drain(&mut self, question: Option<(SocketAddrV4, usize)>) {
        let mut answered = 0;
        for round in 0.. {
            assert!(round < DRAIN_MAX, "the two never fall silent");
            let sent = self.drain_roster(question.map(|(asker, _)| asker), &mut answered);
            if let (Some((_, asked)), 0) = (question, round) {
                assert!(answered <= asked, "{answered} bytes answer {asked}");
            }
            if !self.drain_seeker() && !sent {
                break;
            }
        }
    }

    fn drain_roster(&mut self, asker: Option<SocketAddrV4>, answered: &mut usize) -> bool {
        let mut buffer = [0; DATAGRAM_MAX];
        let mut rounds = 0;
        while let Some(Transmit { to, len }) = self.roster.poll_transmit(self.now, &mut buffer) {
            rounds += 1;
            assert!(rounds < DRAIN_MAX, "the roster never falls silent");
            let sent = Datagram::parse(&buffer[..len]).expect("what is sent is well formed");
            assert!(sent.from().id == id(SERVER) && !sent.from().staging);
            match to {
                Destination::Unicast(_, source) => {
                    *answered += if asker == Some(source) { len } else { 0 };
                    if let Datagram::Challenge(Challenge { answer: false, nonce, .. }) = sent {
                        self.asked = Some((nonce, source));
                    }
                }
                Destination::Broadcast(link) => {
                    assert!(link.0 < 16, "a broadcast on a link that is not one");
                    let arrival = Arrival { link: LINK, source: address(0), broadcast: true };
                    self.lister.hear(self.now, &arrival, &buffer[..len]);
                }
            }
            if self.joined {
                let broadcast = matches!(to, Destination::Broadcast(_));
                let arrival = Arrival { link: LINK, source: address(0), broadcast };
                let _why = self.seeker.handle_datagram(self.now, &arrival, &buffer[..len]);
            }
        }
        for round in 0.. {
            assert!(round < DRAIN_MAX, "the roster never runs out of events");
            let Some(event) = self.roster.poll_event() else { break };
            self.note(&event);
        }
        rounds != 0
    }

    fn drain_seeker(&mut self) -> bool {
        let mut buffer = [0; DATAGRAM_MAX];
        let mut rounds = 0;
        while let Some(Transmit { len, .. }) = self.seeker.poll_transmit(self.now, &mut buffer) {
            rounds += 1;
            assert!(rounds < DRAIN_MAX, "the seeker never falls silent");
            let sent = Datagram::parse(&buffer[..len]).expect("what is sent is well formed");
            assert!(sent.from().id == id(DEVICE) && !sent.from().is_server());
            if self.joined {
                let arrival = Arrival { link: LINK, source: address(DEVICE), broadcast: false };
                let _why = self.roster.handle_datagram(self.now, &arrival, &buffer[..len]);
            }
        }
        let mut events = 0;
        while self.seeker.poll_event().is_some() {
            events += 1;
            assert!(events < DRAIN_MAX, "the seeker never runs out of events");
        }
        rounds != 0
    }

    fn note(&mut self, event: &Event) {
        self.generation += 1;
        assert_eq!(event.generation, self.generation, "an event without its number");
        match event.what {
            What::Joined => assert_eq!(self.mirror.insert(event.id, event.address), None, "joined twice"),
            What::Lost | What::Left => assert!(self.mirror.remove(&event.id).is_some(), "gone twice"),
            What::Back | What::Moved { .. } | What::Changed { .. } | What::Rebooted { .. } => {
                self.mirror.insert(event.id, event.address);
            }
            What::Suspect | What::Conflict { .. } => assert!(self.mirror.contains_key(&event.id)),
            What::DualServer | What::ServerCloned | What::Refused { .. } => {}
        }
    }

    fn check(&self) {
        let here = self.roster.iter().filter(|view| !matches!(view.state, State::Lost | State::Left));
        let known: HashMap<_, _> = here.map(|view| (view.id, view.address)).collect();
        assert_eq!(known, self.mirror, "the events tell another story than the roster");
        assert_eq!(known.len(), self.roster.len());
        assert!(self.roster.iter().count() <= SLOTS && self.roster.capacity() == SLOTS);
        for view in self.roster.iter() {
            assert_eq!(self.roster.find(view.id), Some(view), "a device that is not found by its id");
        }
    }
}

/// A datagram of the kind chosen, its fields from the input.
fn datagram<'a>(
    kind: u8,
    flip: u8,
    from: Node,
    nonce: Nonce,
    store: Option<&'a Store>,
    source: &mut Source<'_>,
) -> Datagram<'a> {
    let of_store = store.map(Into::into);
    let pad_to = u16::from(source.u8()) * 2;
    match kind % 7 {
        0 => Datagram::Seek(Seek { from, suppressed: 0, store: of_store, name: None, pad_to, auth: None }),
        1 => Datagram::Beacon(Beacon {
            from,
            window_ms: u16::from(source.u8()) * 16,
            select_bits: source.u8() % 5,
            select_salt: 1,
            store: of_store,
            name: None,
            services: None,
            addrs: None,
            priority: Some(u16::from(source.u8())),
            caps: None,
            auth: None,
        }),
        2 => {
            let status = Status { code: ack::Code(source.u8() % 10), retry_after_s: source.u8(), detail: 0 };
            let announce_sequence = u32::from(source.u16());
            Datagram::Ack(Ack { from, announce_sequence, status, nonce: Some(nonce), auth: None })
        }
        3 => {
            let retry_after_s = u16::from(source.u8());
            let reason = bye::Reason(u16::from(source.u8() % 4));
            Datagram::Bye(Bye { from, reason, retry_after_s, store: of_store, auth: None })
        }
        4 => Datagram::Challenge(Challenge { from, answer: source.bool(), nonce, auth: None }),
        _ => Datagram::Announce(Announce {
            store: of_store,
            zone: (flip & 4 != 0).then_some(u32::from(flip)),
            nonce: (flip & 8 != 0).then_some(nonce),
            pad_to: pad_to.max(96),
            ..Announce::without_entries(from, 0)
        }),
    }
}

fn store() -> Store {
    Store::new(7, "PARIS-12").expect("a store code")
}

fn other_store() -> Store {
    Store::new(8, "LYON-3").expect("a store code")
}

/// Number 0 is nobody: the all-zero id is refused by the codec.
fn id(number: u8) -> NodeId {
    NodeId([number; 16])
}

fn address(number: u8) -> SocketAddrV4 {
    // One of eight sources may not be answered.
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, number + 1), if number == 7 { 53 } else { 57_854 })
}

/// Lists that reach far: a device registers, is suspected, moves, leaves; roster and seeker meet.
pub(super) fn seeds(seeds: &mut Vec<Seed>) {
    // Announce of device 2 at address 2, acknowledged; then time.
    let announce = |number: u8, at: u8| vec![10, at, 1, 5, number, 1, 0, 90, 48];
    let wait = |high: u8| vec![0, 0, high];
    let mut push = |name: &str, parts: &[Vec<u8>]| {
        seeds.push(Seed { target: "roster_ops", name: name.into(), bytes: parts.concat() });
    };
    push("roster-and-seeker-meet", &[vec![1], wait(40), wait(80), vec![8, 0], wait(40)]);
    push("lease-ends", &[vec![0], announce(2, 2), wait(120), announce(3, 3), wait(250), wait(250)]);
    push(
        "too-many",
        &[vec![0], announce(2, 2), announce(3, 3), announce(4, 4), announce(5, 5), announce(6, 6)],
    );
    let answer = vec![10, 3, 1, 4, 2, 1, 0, 90, 48, 1];
    push("moved", &[vec![0], announce(2, 2), announce(2, 3), wait(2), answer, wait(10)]);
    let goodbye = vec![10, 2, 1, 3, 2, 1, 0, 90, 48, 0, 0];
    push("leaves", &[vec![0], announce(2, 2), goodbye, wait(20), announce(2, 2), vec![5, 2, 1], wait(200)]);
    let seek = vec![10, 2, 1, 0, 2, 1, 0, 90, 250];
    // A beacon of each store, by servers at different addresses, heard by the device without one; then silence, and a choice.
    let beacon =
        |number: u8, at: u8, epoch: u8| vec![10, 0x60 | at, 1, 1, number, epoch, 0, 90, 48, 10, 0, 100];
    let listed = [beacon(201, 1, 1), beacon(202, 2, 0x21), beacon(203, 2, 0x22), beacon(204, 2, 0x21)];
    let unscoped = vec![10, 0x63, 1, 0, 3, 0x41, 0, 90, 200];
    push(
        "lists",
        &[&[vec![0], wait(5)], &listed[..], &[unscoped, wait(250), vec![8, 130, 0], wait(20)]].concat(),
    );
    push(
        "asks",
        &[vec![0], seek.clone(), wait(3), vec![7, 3, 0], seek, vec![8, 1], vec![4, 255, 255], wait(9)],
    );
}
