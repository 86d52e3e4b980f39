//! ANNOUNCEs made in advance, for measuring what a server does with them; and forged datagrams.

use core::net::{Ipv4Addr, SocketAddrV4};
use core::time::Duration;
use std::io;

use discovery::DeviceConfig;
use discovery::config::{ANNOUNCE_LEN_MIN, BEACON_LEN_MAX};
use discovery::driver::Clock;
use wire_format::datagram::ack::Code;
use wire_format::datagram::header::{DATAGRAM_MAX, Kind};
use wire_format::datagram::{Ack, Announce, CodeRef, Node, Nonce, Seek, StoreRef, TagsRef, TextRef};
use wire_format::ids::{NodeId, Store};
use wire_format::rng::Rng;
use wire_format::time::Instant;

use super::{FarmConfig, Sockets, device};

/// Where the header has the node id, the boot epoch and the sequence.
const ID_AT: usize = 16;
const EPOCH_AT: usize = 32;
const SEQUENCE_AT: usize = 36;
/// Where the header of an ANNOUNCE has the port for orders.
const PORT_AT: usize = 40;
/// Sends in a row before answers are looked at.
const SENDS_MAX: usize = 32;
/// Announces without an answer are repeated when nothing came for this long.
const REPEAT_AFTER: Duration = Duration::from_millis(250);

/// What became of a round of announces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fired {
    /// ANNOUNCEs sent, repetitions among them.
    pub sent: u64,
    /// Devices that got their ACK with "ok".
    pub acked: u32,
    /// ACKs that said something else.
    pub refused: u64,
    /// From the first ANNOUNCE to the last ACK.
    pub elapsed: Duration,
}

/// One ANNOUNCE per device, encoded.
#[derive(Debug)]
pub struct Announces {
    bytes: Box<[u8]>,
    len: usize,
    addresses: Vec<Ipv4Addr>,
    first: u32,
    rng: Rng,
}

impl Announces {
    /// Those of the devices of a farm, in their first boot.
    #[must_use]
    pub fn new(config: &FarmConfig, epoch: u32) -> Self {
        let mut bytes = Vec::new();
        let mut room = [0; DATAGRAM_MAX];
        let mut len = 0;
        for number in 0..config.devices {
            let about = DeviceConfig { epoch, ..device(number, config.store) };
            len = encode(&about, u64::from(number), &mut room);
            bytes.extend_from_slice(&room[..len]);
        }
        // Names are longer with larger numbers, and datagrams a multiple of 4: the last is the longest.
        let first = config.first.to_bits();
        let addresses = (0..config.devices).map(|n| Ipv4Addr::from_bits(first.wrapping_add(n))).collect();
        assert_eq!(bytes.len(), len * config.devices as usize, "all announces are of one size");
        Self { bytes: bytes.into(), len, addresses, first, rng: Rng::new(config.seed) }
    }

    /// Bytes of each.
    #[must_use]
    pub const fn len_each(&self) -> usize {
        self.len
    }

    /// Sends all of them, at random moments so that there are `per_s` a second (`None`: as fast as it goes), and repeats
    /// those without an ACK until `within` is over.
    pub fn fire(
        &mut self,
        sockets: &mut Sockets,
        server: SocketAddrV4,
        per_s: Option<u32>,
        within: Duration,
    ) -> io::Result<Fired> {
        let mut round = Round::new(self, per_s);
        while (round.fired.acked as usize) < self.addresses.len()
            && round.clock.now() < Instant::ZERO + within
        {
            for _ in 0..SENDS_MAX {
                let Some(number) = round.next() else { break };
                let at = number as usize * self.len;
                let announce = &mut self.bytes[at..at + self.len];
                next_sequence(announce);
                let announce = &self.bytes[at..at + self.len];
                // What the system does not take is repeated as if it had been lost.
                let _lost = sockets.send_from(self.addresses[number as usize], server, announce);
                round.fired.sent += 1;
            }
            let first = self.first;
            while sockets.receive(|_, _, to, _, bytes| {
                if let (Some(to), Ok(ack)) = (to, Ack::parse(bytes)) {
                    round.handle_ack(to.to_bits().wrapping_sub(first), &ack);
                }
            })? {}
            sockets.wait(round.idle_for())?;
        }
        Ok(round.fired)
    }
}

/// Where a round stands.
struct Round {
    clock: Clock,
    /// When each leaves, in the order of numbers.
    moments: Vec<Instant>,
    /// Whom it is the turn of, among all or among those to be repeated.
    turn: usize,
    repeated: Vec<u32>,
    acked: Vec<bool>,
    last: Instant,
    fired: Fired,
}

impl Round {
    fn new(announces: &mut Announces, per_s: Option<u32>) -> Self {
        let devices = announces.addresses.len();
        let window = per_s
            .map_or(Duration::ZERO, |rate| Duration::from_secs_f64(devices as f64 / f64::from(rate.max(1))));
        let rng = &mut announces.rng;
        let mut moments: Vec<_> =
            (0..devices).map(|_| Instant::ZERO + rng.between(Duration::ZERO, window)).collect();
        moments.sort_unstable();
        Self {
            clock: Clock::start(),
            moments,
            turn: 0,
            repeated: Vec::new(),
            acked: vec![false; devices],
            last: Instant::ZERO,
            fired: Fired::default(),
        }
    }

    /// Whose ANNOUNCE leaves now.
    fn next(&mut self) -> Option<u32> {
        let now = self.clock.now();
        if let Some(&moment) = self.moments.get(self.turn) {
            if now < moment {
                return None;
            }
            self.turn += 1;
            self.last = now;
            return u32::try_from(self.turn - 1).ok();
        }
        if self.repeated.is_empty() && now.since(self.last) >= REPEAT_AFTER {
            let missing = (0..).zip(&self.acked).filter(|&(_, &acked)| !acked);
            self.repeated = missing.map(|(number, _)| number).collect();
            self.last = now;
        }
        self.repeated.pop()
    }

    fn idle_for(&self) -> Duration {
        let now = self.clock.now();
        match self.moments.get(self.turn) {
            Some(moment) => moment.since(now),
            None if !self.repeated.is_empty() => Duration::ZERO,
            None => (self.last + REPEAT_AFTER).since(now),
        }
    }

    fn handle_ack(&mut self, number: u32, ack: &Ack<'_>) {
        let Some(acked) = self.acked.get_mut(number as usize) else { return };
        if ack.status.code != Code::OK {
            self.fired.refused += 1;
        } else if !core::mem::replace(acked, true) {
            self.fired.acked += 1;
            self.last = self.clock.now();
            self.fired.elapsed = self.last.since(Instant::ZERO);
        }
    }
}

fn encode(about: &DeviceConfig, nonce: u64, room: &mut [u8]) -> usize {
    let from = Node {
        scope: about.store.map_or(0, |store| store.scope()),
        staging: about.staging,
        epoch: about.epoch,
        port: about.port,
        lease_s: 10,
        want_ack: true,
        ..Node::new(about.id, about.kind)
    };
    let announce = Announce {
        from,
        answers: 0,
        store: about.store.as_ref().map(StoreRef::from),
        // Of one length, whatever the number.
        name: TextRef::new("Till 00000"),
        services: None,
        addrs: None,
        firmware: about.firmware,
        caps: None,
        zone: about.zone,
        tags: TagsRef::new(&about.tags),
        nonce: Some(Nonce::Short(nonce.to_le_bytes())),
        app: None,
        code: CodeRef::new("T-00000"),
        pad_to: ANNOUNCE_LEN_MIN as u16,
        auth: None,
    };
    announce.emit(room).unwrap_or_default()
}

fn next_sequence(datagram: &mut [u8]) {
    if let Some(Ok(bytes)) = datagram.get_mut(SEQUENCE_AT..SEQUENCE_AT + 4).map(<&mut [u8; 4]>::try_from) {
        *bytes = u32::from_le_bytes(*bytes).wrapping_add(1).to_le_bytes();
    }
}

/// Forges ANNOUNCEs and SEEKs of devices that do not exist, from addresses that are not theirs.
#[derive(Debug)]
pub struct Forger {
    announce: Vec<u8>,
    seek: Vec<u8>,
    sockets: Sockets,
    server: SocketAddrV4,
    /// First address and how many of them.
    sources: (Ipv4Addr, u32),
    rng: Rng,
    /// Datagrams sent.
    pub sent: u64,
    /// Bytes of them.
    pub sent_bytes: u64,
    /// Datagrams that came back to one of the addresses.
    pub heard: u64,
    /// Bytes of them.
    pub heard_bytes: u64,
    /// Of [`Forger::heard_bytes`], broadcasts.
    pub heard_broadcast_bytes: u64,
}

impl Forger {
    /// Forges for a server of `store`, from `sources.1` addresses from `sources.0` on.
    pub fn new(
        server: SocketAddrV4,
        broadcast: Ipv4Addr,
        store: Store,
        sources: (Ipv4Addr, u32),
        seed: u64,
    ) -> io::Result<Self> {
        let about = device(0, store);
        let mut room = [0; DATAGRAM_MAX];
        let len = encode(&about, 0, &mut room);
        let announce = room[..len].to_vec();
        let from = Node { scope: store.scope(), ..Node::new(about.id, about.kind) };
        let store = Some(StoreRef::from(&store));
        let seek = Seek { from, suppressed: 0, store, name: None, pad_to: BEACON_LEN_MAX as u16, auth: None };
        let len = seek.emit(&mut room).unwrap_or_default();
        Ok(Self {
            announce,
            seek: room[..len].to_vec(),
            sockets: Sockets::open(0, SocketAddrV4::new(broadcast, server.port()))?,
            server,
            sources,
            rng: Rng::new(seed),
            sent: 0,
            sent_bytes: 0,
            heard: 0,
            heard_bytes: 0,
            heard_broadcast_bytes: 0,
        })
    }

    /// An ANNOUNCE of a random id from a random address, with this port for orders; the address.
    pub fn announce(&mut self, push_port: u16) -> io::Result<Ipv4Addr> {
        let id = self.random_id();
        self.announce_as(id, push_port)
    }

    /// The same with an id that is not random.
    pub fn announce_as(&mut self, id: NodeId, push_port: u16) -> io::Result<Ipv4Addr> {
        self.announce[PORT_AT..PORT_AT + 2].copy_from_slice(&push_port.to_le_bytes());
        let mut datagram = core::mem::take(&mut self.announce);
        let sent = self.send(&mut datagram, id);
        self.announce = datagram;
        sent
    }

    /// A SEEK of a random id from a random address, by unicast; the address.
    pub fn seek(&mut self) -> io::Result<Ipv4Addr> {
        let id = self.random_id();
        let mut datagram = core::mem::take(&mut self.seek);
        let sent = self.send(&mut datagram, id);
        self.seek = datagram;
        sent
    }

    fn random_id(&mut self) -> NodeId {
        let id = u128::from(self.rng.next_u64()) << 64 | u128::from(self.rng.next_u64() | 1);
        NodeId(id.to_le_bytes())
    }

    fn send(&mut self, datagram: &mut [u8], id: NodeId) -> io::Result<Ipv4Addr> {
        let (first, count) = self.sources;
        let nth = self.rng.below(u64::from(count)) as u32;
        let source = Ipv4Addr::from_bits(first.to_bits().wrapping_add(nth));
        datagram[ID_AT..ID_AT + 16].copy_from_slice(&id.0);
        datagram[EPOCH_AT..EPOCH_AT + 8].copy_from_slice(&self.rng.next_u64().to_le_bytes());
        self.sockets.send_from(source, self.server, datagram)?;
        self.sent += 1;
        self.sent_bytes += datagram.len() as u64;
        Ok(source)
    }

    /// Takes what came back, and waits for more for that long.
    pub fn listen(&mut self, span: Duration) -> io::Result<()> {
        let clock = Clock::start();
        loop {
            let (mut heard, mut all, mut broadcasts) = (0, 0, 0);
            while self.sockets.receive(|_, broadcast, _, _, bytes| {
                heard += 1;
                all += bytes.len() as u64;
                broadcasts += if broadcast { bytes.len() as u64 } else { 0 };
                debug_assert!(bytes.get(5) != Some(&(Kind::Announce as u8)), "a server announces nothing");
            })? {}
            self.heard += heard;
            self.heard_bytes += all;
            self.heard_broadcast_bytes += broadcasts;
            let left = (Instant::ZERO + span).since(clock.now());
            if left.is_zero() {
                return Ok(());
            }
            self.sockets.wait(left)?;
        }
    }
}
