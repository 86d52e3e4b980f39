//! The device's half: where is my server?
//!
//! | file | what for |
//! | --- | --- |
//! | `trickle` | when a SEEK leaves |
//! | `register` | when an ANNOUNCE leaves |
//! | `server` | what is remembered of the server |
//! | `candidates` | the servers a device without a store lists |
//! | `input` | what a datagram does |
//! | `proof` | authenticated mode: who said it, and what a BEACON may do |
//! | `output` | what is sent |

mod candidates;
mod input;
mod news;
mod output;
mod proof;
mod register;
mod server;
mod trickle;

use core::net::SocketAddrV4;
use core::time::Duration;

use wire_format::datagram::Nonce;
use wire_format::datagram::ack::Code;
use wire_format::ids::{NodeId, Store};
use wire_format::rng::{Rng, mix};
use wire_format::time::Instant;

pub use candidates::{CANDIDATES_MAX, Candidate};
pub use server::ServerView;

use crate::auth::DeviceKeys;
use crate::bucket::Buckets;
use crate::config::DeviceConfig;
use crate::event::{Dropped, SeekerEvent};
use crate::farewell::Farewell;
use crate::hash::Secret;
use crate::link::{Arrival, Destination, LinkId, Transmit};
use crate::pause::Wakefulness;
use crate::screen::Screen;
use crate::stats::Stats;
use candidates::Candidates;
use news::News;
use proof::Hint;
use register::Register;
use server::Server;
use trickle::Trickle;

/// Pairs of sources whose rate is watched: its server, and the few neighbours that happen to ask.
const SOURCES: usize = 8;
/// A server is lost after three beacon intervals at their longest, and a little.
const LOST_AFTER: Duration = Duration::from_secs(35);
/// So that not all devices notice in the same moment.
const LOST_SPREAD: Duration = Duration::from_secs(3);
/// A server that is heard from another address only is followed there after two beacon intervals.
const ROAM_AFTER: Duration = Duration::from_secs(22);
/// A server is listened for so long at least before a device that slept takes it for lost: one beacon interval at its
/// longest, and a little.
const AWAKE_AT_LEAST: Duration = Duration::from_secs(12);
/// After a sleep, a new interface or a change, a registered device says so within this time.
const SOON: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));

/// A device that looks for its server and stays registered with it.
///
/// ```text
///               link up                  BEACON that selects it                 ACK ok
///   offline ──────────────▶ seeking ───────────────────────────▶ registering ──────────▶ registered
///                             ▲ SEEK, Trickle-paced               │  ▲ ANNOUNCE until    │ ANNOUNCE every lease/3,
///   with seeds: ANNOUNCE ─────┤                                   │  │ an ACK            │ none while linked
///   to them instead of SEEK   │◀── 35 s without its server ───────┴──┼───────────────────┤
///                             │                                      └── another epoch ──┤
///                             └──◀── away: retry-after, spread ◀──────── server BYE ◀─────┘
/// ```
#[derive(Debug)]
pub struct Seeker {
    config: DeviceConfig,
    /// `None` in clear mode.
    keys: Option<DeviceKeys>,
    screen: Screen,
    links: u16,
    /// Interfaces a SEEK wants to leave on, as bits.
    seek_on: u16,
    trickle: Option<Trickle>,
    register: Register,
    server: Option<Server>,
    /// Servers heard while the device belongs to no store.
    candidates: Candidates,
    /// Authenticated mode: where a server might be as well.
    hint: Option<Hint>,
    away: Option<Away>,
    /// The last refusal told.
    refused: Option<Code>,
    linked: bool,
    /// The last SEEK of another device.
    last_seek: (NodeId, u32),
    seed_turn: u8,
    /// What the next ANNOUNCE answers.
    answers: u32,
    nonce: [u8; 8],
    nonces: u64,
    /// What the next ANNOUNCE carries to show that it is of now, and where it goes at once.
    cookie: Option<[u8; 8]>,
    repeat_to: Option<Destination>,
    echo: Option<Echo>,
    news: News,
    farewell: Farewell,
    buckets: Buckets<SOURCES>,
    wakefulness: Wakefulness,
    rng: Rng,
    secret: Secret,
    sequence: u32,
    stats: Stats,
}

/// The server said goodbye; the device looks again then.
#[derive(Clone, Copy, Debug)]
struct Away {
    until: Instant,
}

/// An answer to a CHALLENGE.
#[derive(Clone, Copy, Debug)]
struct Echo {
    to: SocketAddrV4,
    link: LinkId,
    nonce: Nonce,
    budget: usize,
}

impl Seeker {
    /// A device that has just booted, in clear mode. `seed` must differ between devices and boots and should be
    /// unpredictable: their timing, an open epoch and their nonces hang on it.
    #[must_use]
    pub fn new(config: DeviceConfig, now: Instant, seed: u64) -> Self {
        Self::assemble(config, now, seed, None)
    }

    /// A device that has just booted, in authenticated mode. `seed` must be unpredictable: nonces hang on it.
    #[must_use]
    pub fn with_keys(config: DeviceConfig, now: Instant, seed: u64, keys: DeviceKeys) -> Self {
        Self::assemble(config, now, seed, Some(keys))
    }

    pub(crate) fn assemble(config: DeviceConfig, now: Instant, seed: u64, keys: Option<DeviceKeys>) -> Self {
        let mut rng = Rng::new(seed);
        let config = config.clamped(rng.next_u64());
        let secret = Secret::new(mix(rng.next_u64()));
        let mut seeker = Self {
            screen: Screen::of_device(config.id, config.store, config.staging),
            config,
            keys,
            links: 0,
            seek_on: 0,
            trickle: None,
            register: Register::new(),
            server: None,
            candidates: Candidates::new(),
            hint: None,
            away: None,
            refused: None,
            linked: false,
            last_seek: (NodeId::NONE, 0),
            seed_turn: 0,
            answers: 0,
            nonce: [0; 8],
            nonces: 0,
            cookie: None,
            repeat_to: None,
            echo: None,
            news: News::new(),
            farewell: Farewell::new(),
            buckets: Buckets::new(secret),
            wakefulness: Wakefulness::new(now),
            sequence: crate::first_sequence(&mut rng),
            rng,
            secret,
            stats: Stats::default(),
        };
        seeker.look(now);
        seeker
    }

    /// An interface can be used from now on, or has another address. The device asks there, or tells its server, within
    /// a second. Numbers above 15 are ignored.
    pub fn link_up(&mut self, now: Instant, link: LinkId) {
        self.advance(now);
        self.links |= link.bit();
        if self.farewell.is_begun() || self.away.is_some() {
            return;
        }
        if self.server.is_some() {
            self.register.again(now, SOON.0, SOON.1, &mut self.rng);
        } else {
            self.look(now);
        }
    }

    /// An interface is gone. The server that was heard there is lost, and looked for on the others.
    pub fn link_down(&mut self, now: Instant, link: LinkId) {
        self.advance(now);
        self.links &= !link.bit();
        self.seek_on &= self.links;
        self.candidates.link_down(link);
        self.hint = self.hint.take().filter(|hint| hint.server.link != link);
        if self.server.as_ref().is_some_and(|server| server.link == link) {
            self.lose(now);
        } else if self.links == 0 {
            self.trickle = None;
        }
    }

    /// A datagram arrived. The error says why it changed nothing; it is counted, and there is nothing else to do about it.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        arrival: &Arrival,
        datagram: &[u8],
    ) -> Result<(), Dropped> {
        self.advance(now);
        self.stats.received = self.stats.received.wrapping_add(1);
        self.stats.received_bytes = self.stats.received_bytes.wrapping_add(datagram.len() as u64);
        let taken = if self.farewell.is_begun() {
            Err(Dropped::Stopped)
        } else {
            self.receive(now, arrival, datagram)
        };
        taken.inspect_err(|&why| self.stats.count_dropped(why))
    }

    /// The time `poll_timeout` named has come. Early calls do nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        self.farewell.handle_timeout(now);
        if self.farewell.is_begun() {
            return;
        }
        if self.away.is_some_and(|away| away.until <= now) {
            self.away = None;
            (self.server, self.hint) = (None, None);
            self.look(now);
        }
        self.candidates.expire(now);
        if self.lost_at().is_some_and(|lost_at| lost_at <= now) {
            self.lose(now);
        }
        if let Some(trickle) = &mut self.trickle {
            match trickle.handle_timeout(now, &mut self.rng) {
                Some(true) => self.seek_on = self.links,
                Some(false) => self.stats.seek_suppressed = self.stats.seek_suppressed.wrapping_add(1),
                None => {}
            }
        }
        let to_seed = self.server.is_none();
        self.register.handle_timeout(now, to_seed, &mut self.rng);
    }

    /// Whether a push session with the server is healthy. While it is, the device sends no refresh, and its server is not
    /// lost.
    pub fn set_linked(&mut self, now: Instant, linked: bool) {
        self.advance(now);
        if self.linked == linked {
            return;
        }
        self.linked = linked;
        if self.away.is_some() {
            return;
        }
        self.heard_server(now);
        if let Some(server) = self.server.as_ref().filter(|server| server.registered) {
            self.register.acked(now, server.lease(), linked, &mut self.rng);
        }
    }

    /// The device says something else about itself from now on, and tells its server within the last reply window. Its
    /// id, store, side of staging, epoch and seeds stay what they were.
    pub fn reconfigure(&mut self, now: Instant, config: DeviceConfig) {
        self.advance(now);
        let DeviceConfig { id, store, staging, epoch, epoch_random, seeds, .. } = self.config;
        self.config = DeviceConfig { id, store, staging, epoch, epoch_random, seeds, ..config };
        if self.server.as_ref().is_some_and(|server| server.registered) && self.away.is_none() {
            let window = self.register.window();
            self.register.again(now, Duration::ZERO, window, &mut self.rng);
        }
    }

    /// The device belongs to this store and side of staging from now on, and looks for its server there, within a second.
    /// The list of candidates is dropped without a word. `false` if the device belongs to a store already, or is leaving:
    /// then nothing changes.
    pub fn adopt(&mut self, now: Instant, store: Store, staging: bool) -> bool {
        self.advance(now);
        let adopts = self.config.store.is_none() && !self.farewell.is_begun();
        if adopts {
            (self.config.store, self.config.staging) = (Some(store), staging);
            self.screen = Screen::of_device(self.config.id, self.config.store, staging);
            self.candidates = Candidates::new();
            self.seek_on = 0;
            self.look(now);
        }
        adopts
    }

    /// The servers a device without a store has heard: at most [`CANDIDATES_MAX`], of any store and of both sides of staging,
    /// in no particular order. A human chooses one, for whoever sends BEACONs can be listed; then see [`Seeker::adopt`].
    ///
    /// ```
    /// use discovery::{DeviceConfig, Seeker};
    /// use wire_format::ids::NodeId;
    /// # use wire_format::time::Instant;
    /// # let now = Instant::ZERO;
    /// let mut seeker = Seeker::new(DeviceConfig::unprovisioned(NodeId([7; 16])), now, 42);
    /// // … the network is heard for a while, and a person looks at the list:
    /// for server in seeker.candidates() {
    ///     let side = if server.staging { "test" } else { "production" };
    ///     println!("{} {} {side} at {}", server.store, server.name, server.address);
    /// }
    /// let chosen = seeker.candidates().next().map(|server| (server.store, server.staging));
    /// if let Some((store, staging)) = chosen {
    ///     seeker.adopt(now, store, staging);
    /// }
    /// ```
    pub fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.candidates.iter()
    }

    /// Other keys from now on. A device that was in clear mode forgets the server it had, which has proven nothing, and
    /// looks for it anew; there is no way back to clear mode.
    pub fn set_keys(&mut self, now: Instant, keys: DeviceKeys) {
        self.advance(now);
        let first = self.keys.replace(keys).is_none();
        if first && !self.farewell.is_begun() {
            self.lose(now);
        }
    }

    /// Says goodbye to the server, twice, 100 ms apart, then [`Seeker::is_stopped`]. Nothing else is sent or taken from
    /// now on.
    pub fn stop(&mut self, now: Instant) {
        self.advance(now);
        let known = self.server.as_ref().is_some_and(|server| server.registered) && self.away.is_none();
        self.farewell.begin(now, u16::from(known));
        self.seek_on = 0;
        self.trickle = None;
        (self.echo, self.repeat_to) = (None, None);
        self.register.silence();
    }

    /// Whether the last goodbye was handed out.
    #[must_use]
    pub const fn is_stopped(&self) -> bool {
        self.farewell.is_over()
    }

    /// The next datagram to send, written to `buffer` (1,200 bytes are always enough; what does not fit is dropped and
    /// counted). Call until it returns nothing.
    pub fn poll_transmit(&mut self, now: Instant, buffer: &mut [u8]) -> Option<Transmit> {
        self.transmit(now, buffer)
    }

    /// The next event. Call until it returns nothing; one that is not fetched is replaced by what it comes to.
    pub fn poll_event(&mut self) -> Option<SeekerEvent> {
        self.news.take().or_else(|| self.candidates.take_event())
    }

    /// When to call [`Seeker::handle_timeout`]; `None` if nothing is ever due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.farewell.is_begun() {
            return self.farewell.due();
        }
        let trickle = self.trickle.as_ref().map(Trickle::due);
        let away = self.away.map(|away| away.until);
        let candidates = self.candidates.due();
        [trickle, away, self.register.due(), self.lost_at(), candidates].into_iter().flatten().min()
    }

    /// The server found, if any.
    #[must_use]
    pub fn server(&self) -> Option<ServerView<'_>> {
        self.server.as_ref().filter(|_| self.away.is_none()).map(Server::view)
    }

    /// What it was made with, the epoch drawn.
    #[must_use]
    pub const fn config(&self) -> &DeviceConfig {
        &self.config
    }

    /// The counters.
    #[must_use]
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Looks for a server: by SEEK on every interface, or by ANNOUNCE to the seeds. Without a store nobody is announced to.
    fn look(&mut self, now: Instant) {
        self.trickle = None;
        self.answers = 0;
        self.draw_nonce();
        if self.config.store.is_some() && self.config.seeds.iter().any(Option::is_some) {
            self.register.begin_seeds(now, &mut self.rng);
        } else {
            self.register.silence();
            if self.links != 0 {
                self.trickle = Some(Trickle::new(now, &mut self.rng));
            }
        }
    }

    /// The server is gone, and nobody said so.
    fn lose(&mut self, now: Instant) {
        self.hint = None;
        let away = self.away.take().is_some();
        if let Some(server) = self.server.take().filter(|_| !away) {
            self.news.push(SeekerEvent::ServerLost { id: server.id });
        }
        self.refused = None;
        self.look(now);
    }

    /// When the server counts as lost; never while the push session is healthy, or once it has said goodbye.
    fn lost_at(&self) -> Option<Instant> {
        self.server.as_ref().filter(|_| !self.linked && self.away.is_none()).map(|server| server.lost_at)
    }

    /// A sign of life of the server.
    fn heard_server(&mut self, now: Instant) {
        let spread = self.rng.between(Duration::ZERO, LOST_SPREAD);
        if let Some(server) = &mut self.server {
            // No beacon crosses a router: behind one, the lease is what remains.
            let patience = if server.by_seed { server.lease().max(LOST_AFTER) } else { LOST_AFTER };
            server.lost_at = now + patience + spread;
        }
    }

    fn is_seed(&self, arrival: &Arrival) -> bool {
        self.config.seeds.iter().flatten().any(|seed| seed.ip() == arrival.source.ip())
    }

    /// A nonce nobody can know: an ACK proves that its sender has seen our ANNOUNCE.
    fn draw_nonce(&mut self) {
        self.nonces = self.nonces.wrapping_add(1);
        self.nonce = self.secret.cookie(self.config.id, self.nonces);
        (self.cookie, self.repeat_to) = (None, None);
    }

    /// Time moves on. After a sleep the device asks or tells its server anew within a second, and its server gets the
    /// time back that nobody listened.
    fn advance(&mut self, now: Instant) {
        let deadline = || self.poll_timeout();
        let slept = self.wakefulness.slept(now, deadline);
        self.wakefulness.handle(now);
        let Some(slept) = slept else { return };
        if self.farewell.is_begun() {
            return;
        }
        self.stats.pauses = self.stats.pauses.wrapping_add(1);
        if self.trickle.is_some() {
            self.trickle = Some(Trickle::new(now, &mut self.rng));
        }
        if let Some(server) = &mut self.server {
            server.lost_at = (server.lost_at + slept).max(now + AWAKE_AT_LEAST);
        }
        self.candidates.sleep(now, slept);
        if self.register.due().is_some_and(|due| due <= now) {
            self.register.again(now, SOON.0, SOON.1, &mut self.rng);
        }
    }
}
