//! The server's half: who is in the store.
//!
//! | file | what for |
//! | --- | --- |
//! | `slot` | what is kept of one device |
//! | `table`, `index` | the slots, the queues through them, and the way from an id to its slot |
//! | `input` | what a datagram does |
//! | `proof` | authenticated mode: whose datagram it is, and whether it is of now |
//! | `lease` | what time does |
//! | `beacons` | when a BEACON leaves, and how long its reply window is |
//! | `load` | how hard the announces press |
//! | `answer` | what is sent |
//! | `snapshot` | what a restart keeps |
//! | `notice` | events about nobody in the roster |

mod answer;
mod beacons;
mod index;
mod input;
mod lease;
mod load;
mod notice;
mod proof;
mod slot;
mod snapshot;
mod table;
#[cfg(test)]
mod tests;

pub use wire_format::datagram::bye::Reason;
use wire_format::ids::NodeId;
use wire_format::rng::{Rng, mix};
use wire_format::time::Instant;

pub use slot::{DeviceView, Slot, State};
pub use snapshot::{HEADER_LEN, RECORD_LEN, Restore, Restored, Snapshot, SnapshotError};

use crate::auth::{Clear, Cookies, KeyRing, Keys};
use crate::bucket::Buckets;
use crate::config::ServerConfig;
use crate::event::{Dropped, Event};
use crate::farewell::Farewell;
use crate::hash::Secret;
use crate::link::{Arrival, LinkId, Transmit};
use crate::pause::Wakefulness;
use crate::screen::Screen;
use crate::stats::Stats;
use slot::{Ask, News};
use table::{Queue, Ring};

/// Pairs of sources whose rate is watched: 16 KiB. At 1,000 announces a second 62 places are busy at a time.
const SOURCES: usize = 512;

/// The devices of one store, as a server knows them. `S` holds one [`Slot`] per device that fits.
///
/// One input, then drain: see the crate's documentation. Every datagram costs O(1), whatever the number of devices; every
/// device costs its slot and nothing else. The roster itself is 93 KiB, however many there are: where stacks are small, keep
/// it in a `static` or a `Box`.
#[derive(Debug)]
pub struct Roster<S, K = Clear> {
    config: ServerConfig,
    keys: K,
    /// The store's keys; `None` in clear mode.
    beacon_keys: Option<KeyRing>,
    cookies: Cookies,
    beacon_len: usize,
    screen: Screen,
    table: table::Table<S>,
    lease_clock: lease::LeaseClock,
    beacons: beacons::Beacons,
    replies: answer::Replies,
    dual_server: notice::Board,
    cloned: notice::Board,
    refused: notice::Board,
    farewell: Farewell,
    reason: Reason,
    retry_after_s: u16,
    buckets: Buckets<SOURCES>,
    wakefulness: Wakefulness,
    now: Instant,
    started: Instant,
    rng: Rng,
    secret: Secret,
    first_sequence: u32,
    sequence: u32,
    ask_number: u32,
    generation: u64,
    stats: Stats,
}

impl<S: AsRef<[Slot]> + AsMut<[Slot]>> Roster<S> {
    /// An empty roster in clear mode. `slots` is overwritten; its length is the capacity. `seed` should be unpredictable
    /// and differ at each start: jitter, an open epoch, cookies and the index hang on it.
    pub fn new(config: ServerConfig, slots: S, now: Instant, seed: u64) -> Self {
        Self::assemble(config, slots, now, seed, Clear, None)
    }
}

impl<S: AsRef<[Slot]> + AsMut<[Slot]>, K: Keys> Roster<S, K> {
    /// An empty roster in authenticated mode: like [`Roster::new`], with the announce keys of the devices and the store's
    /// beacon keys. `seed` must be unpredictable here: cookies hang on it.
    pub fn with_keys(
        config: ServerConfig,
        slots: S,
        now: Instant,
        seed: u64,
        keys: K,
        beacon_keys: KeyRing,
    ) -> Self {
        Self::assemble(config, slots, now, seed, keys, Some(beacon_keys))
    }

    /// With keys of which kind ever. In clear mode there are no beacon keys.
    pub(crate) fn assemble(
        config: ServerConfig,
        slots: S,
        now: Instant,
        seed: u64,
        keys: K,
        beacon_keys: Option<KeyRing>,
    ) -> Self {
        let mut rng = Rng::new(seed);
        let config = config.clamped(rng.next_u64());
        let secret = Secret::new(mix(rng.next_u64()));
        let table = table::Table::new(slots, secret);
        let first_sequence = crate::first_sequence(&mut rng);
        Self {
            beacons: beacons::Beacons::new(config.expected_devices, table.capacity(), config.rate_per_s),
            beacon_len: answer::beacon_len(&config, beacon_keys.is_some()),
            screen: Screen::of_server(config.id, config.store, config.staging),
            config,
            keys,
            beacon_keys,
            cookies: Cookies::new(secret),
            table,
            lease_clock: lease::LeaseClock::default(),
            replies: answer::Replies::new(),
            dual_server: notice::Board::new(),
            cloned: notice::Board::new(),
            refused: notice::Board::new(),
            farewell: Farewell::new(),
            reason: Reason::LEAVING,
            retry_after_s: 0,
            buckets: Buckets::new(secret),
            wakefulness: Wakefulness::new(now),
            now,
            started: now,
            first_sequence,
            sequence: first_sequence,
            rng,
            secret,
            ask_number: 0,
            generation: 0,
            stats: Stats::default(),
        }
    }

    /// An interface can be used from now on, or has another address: beacons leave there at 0, 1 and 3 s, then every
    /// 10 s. Numbers above 15 are ignored.
    pub fn link_up(&mut self, now: Instant, link: LinkId) {
        self.advance(now);
        if !self.farewell.is_begun() {
            self.beacons.link_up(now, link);
        }
    }

    /// An interface is gone: nothing is broadcast there any more. Its devices keep their leases.
    pub fn link_down(&mut self, now: Instant, link: LinkId) {
        self.advance(now);
        self.beacons.link_down(link);
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
        self.beacons.handle_timeout(now, self.config.beacon_interval(), &mut self.rng);
        self.expire(now);
    }

    /// The receiving socket has dropped `total` datagrams since it was opened, for want of room. A rise doubles the next
    /// reply window; while devices answer the last one, the next BEACON leaves as soon as one may.
    pub fn handle_receive_drops(&mut self, now: Instant, total: u64) {
        self.advance(now);
        if !self.farewell.is_begun() {
            self.beacons.handle_drops(now, total);
        }
    }

    /// Whether a push session with this device is healthy. While it is, the device needs no refresh and is never
    /// suspected. `false` if the device is not in the roster.
    pub fn set_linked(&mut self, now: Instant, id: NodeId, linked: bool) -> bool {
        self.advance(now);
        let Some(at) = self.table.find(id) else { return false };
        let was = self.table.at(at).wiring.lease_queue() == Some(Queue::Linked);
        if linked && !was {
            self.table.at_mut(at).past.set(slot::Past::SERVED, true);
            if self.table.at(at).ask == Ask::Suspect {
                self.settle(at);
            }
            self.fresh(at, now);
            self.table.push(Queue::Linked, at);
        } else if was && !linked {
            // Out of the queue first: a linked device has no lease that could begin again.
            self.table.push(Queue::Free, at);
            self.fresh(at, now);
        }
        true
    }

    /// The announce keys. Changing them is how devices are enrolled, their keys rotated and taken away; what was sent
    /// under a key that is gone is dropped from then on.
    pub const fn keys_mut(&mut self) -> &mut K {
        &mut self.keys
    }

    /// Other beacon keys: the next beacon leaves under their current one. Does nothing in clear mode.
    pub fn set_beacon_keys(&mut self, keys: KeyRing) {
        if self.beacon_keys.is_some() {
            self.beacon_keys = Some(keys);
        }
    }

    /// Tells this device as lost now instead of when its lease ends: its keys were taken away. `false` if it is not here.
    pub fn revoke(&mut self, now: Instant, id: NodeId) -> bool {
        self.advance(now);
        let Some(at) = self.table.find(id).filter(|&at| !self.table.at(at).is_gone()) else { return false };
        self.gone(at, now, News::LOST);
        true
    }

    /// Says goodbye: BYE on every link, twice, 100 ms apart, then [`Roster::is_stopped`]. `retry_after_s` tells the
    /// devices when to look again (0: unknown). Nothing else is sent or taken from now on.
    pub fn stop(&mut self, now: Instant, reason: Reason, retry_after_s: u16) {
        self.advance(now);
        self.reason = reason;
        self.retry_after_s = retry_after_s;
        self.farewell.begin(now, self.beacons.up());
        self.beacons.silence();
        self.replies = answer::Replies::new();
        while let Some(at) = self.table.head(Queue::Probe) {
            self.table.remove(Ring::Probe, at);
        }
    }

    /// Whether the last goodbye was handed out.
    pub const fn is_stopped(&self) -> bool {
        self.farewell.is_over()
    }

    /// The next datagram to send, written to `buffer` (1,200 bytes are always enough; what does not fit is dropped and
    /// counted). Call until it returns nothing.
    pub fn poll_transmit(&mut self, now: Instant, buffer: &mut [u8]) -> Option<Transmit> {
        self.transmit(now, buffer)
    }

    /// The next event. Call until it returns nothing; what is not fetched is merged into what it comes to.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.slot_event().or_else(|| {
            let notice =
                self.refused.take().or_else(|| self.dual_server.take()).or_else(|| self.cloned.take())?;
            Some(Event { generation: 0, id: notice.id, address: notice.address, what: notice.what })
        })?;
        self.generation = self.generation.wrapping_add(1);
        Some(Event { generation: self.generation, ..event })
    }

    /// When to call [`Roster::handle_timeout`]; `None` if nothing is ever due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.farewell.is_begun() {
            return self.farewell.due();
        }
        let due = self.beacons.due().min(self.lease_due());
        if due == Instant::NEVER { None } else { Some(due) }
    }

    /// The device with this id, lost and left ones included.
    pub fn find(&self, id: NodeId) -> Option<DeviceView<'_>> {
        self.table.find(id).and_then(|at| self.table.at(at).view())
    }

    /// Every device in the roster, lost and left ones included, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = DeviceView<'_>> {
        self.table.slots().iter().filter_map(Slot::view)
    }

    /// Devices that are here: fresh, suspected or linked, not unconfirmed.
    pub const fn len(&self) -> usize {
        self.table.len(Queue::Fresh) + self.table.len(Queue::Suspect) + self.table.len(Queue::Linked)
    }

    /// Whether no device is here.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Devices that fit.
    pub fn capacity(&self) -> usize {
        self.table.capacity() as usize
    }

    /// The generation of the last event handed out, 0 before the first.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// What it was made with, every number in its range and the epoch drawn.
    pub const fn config(&self) -> &ServerConfig {
        &self.config
    }

    /// The counters.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Every list, index and count agrees.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        self.table.check();
    }

    /// Whether this is what the answer to the question open for a device must carry.
    #[cfg(test)]
    pub(crate) fn is_cookie(&self, id: NodeId, nonce: wire_format::datagram::Nonce) -> bool {
        self.table
            .find(id)
            .is_some_and(|at| self.table.at(at).ask != Ask::Nothing && self.cookie(at) == nonce)
    }

    /// What this server's datagrams count from.
    #[cfg(test)]
    pub(crate) const fn first_sequence(&self) -> u32 {
        self.first_sequence
    }

    /// Time moves on. Time asleep is not charged to anybody's lease.
    fn advance(&mut self, now: Instant) {
        self.now = now;
        let slept = self.wakefulness.slept(now, || self.poll_timeout());
        self.wakefulness.handle(now);
        if let Some(slept) = slept {
            self.lease_clock.sleep(slept);
            self.stats.pauses = self.stats.pauses.wrapping_add(1);
        }
    }

    fn tell(&mut self, at: u32, news: News) {
        let slot = self.table.at_mut(at);
        slot.news.add(news);
        if slot.wiring.queue(Ring::News).is_none() {
            self.table.push(Queue::News, at);
        }
    }

    /// Nothing is to be told of this slot.
    fn hush(&mut self, at: u32) {
        self.table.at_mut(at).news = News::default();
        self.table.remove(Ring::News, at);
    }

    fn tell_if(&mut self, at: u32, news: News, happened: bool) {
        if happened {
            self.tell(at, news);
        }
    }

    /// The next event about a device, its generation left open.
    fn slot_event(&mut self) -> Option<Event> {
        loop {
            let at = self.table.head(Queue::News)?;
            let slot = self.table.at_mut(at);
            let (id, what) = (slot.id, slot.take_news());
            let address = slot.origin.push_address();
            if slot.news.is_empty() {
                self.table.remove(Ring::News, at);
            }
            if let Some(what) = what {
                return Some(Event { generation: 0, id, address, what });
            }
        }
    }
}
