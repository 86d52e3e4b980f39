//! The devices of a farm, without sockets and clock: seekers, their addresses and their deadlines.

use core::cmp::Reverse;
use core::fmt;
use core::net::{Ipv4Addr, SocketAddrV4};
use core::time::Duration;
use std::collections::{BinaryHeap, HashMap};

use discovery::{Arrival, Destination, DeviceConfig, LinkId, Seeker, SeekerEvent, Transmit};
use wire_format::datagram::Firmware;
use wire_format::datagram::header::{DATAGRAM_MAX, Kind};
use wire_format::ids::{DeviceCode, Name, NodeId, Store, Tags};
use wire_format::rng::Rng;
use wire_format::time::Instant;

use super::{FarmConfig, device_keys};

/// The one interface of every device.
const LINK: LinkId = LinkId(0);
/// Where the kind stands in a datagram's header.
const KIND_AT: usize = 5;
/// Announces are counted in bins of this, for as long as [`BINS_MAX`].
const BIN: Duration = Duration::from_millis(10);
const BINS_MAX: usize = 12_000;

/// What takes a device's datagrams.
pub trait Wire {
    /// A datagram leaves, from this address.
    fn send(&mut self, from: Ipv4Addr, to: Destination, bytes: &[u8]);
}

/// How much is lost: parts of 1 per datagram and device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// Of what devices send.
    pub sent: f64,
    /// Of what is sent to one device.
    pub heard: f64,
    /// Of broadcasts, for each device that would hear it.
    pub broadcast: f64,
}

impl Loss {
    /// Nothing is lost.
    pub const NONE: Self = Self::all(0.0);

    /// The same for everything.
    #[must_use]
    pub const fn all(part: f64) -> Self {
        Self { sent: part, heard: part, broadcast: part }
    }
}

/// What the devices have sent and heard together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    sent: [u64; 7],
    heard: [u64; 7],
    /// Bytes of what was sent.
    pub sent_bytes: u64,
    /// Bytes of what was heard by unicast.
    pub heard_bytes: u64,
    /// Of what was sent, broadcasts.
    pub broadcasts: u64,
    /// Lost on purpose.
    pub lost: u64,
    /// Unicast datagrams for an address that is no device's, or of one that is off.
    pub astray: u64,
    /// Datagrams a device dropped and counted.
    pub dropped: u64,
    /// Times a device was registered.
    pub registered: u64,
    /// When the last one was, the first time since [`Crowd::begin_round`].
    pub last_registered: Instant,
    /// Times a device was refused.
    pub refused: u64,
    /// ANNOUNCEs per 10 ms since the start, for two minutes: by the time they were due, so that a machine that stands still
    /// for a moment does not count as a burst of the devices.
    pub announces_per_bin: Vec<u32>,
}

impl Counts {
    /// Datagrams of this kind that devices sent.
    #[must_use]
    pub fn sent(&self, kind: Kind) -> u64 {
        self.sent[kind as usize]
    }

    /// Datagrams of this kind that arrived, a broadcast once.
    #[must_use]
    pub fn heard(&self, kind: Kind) -> u64 {
        self.heard[kind as usize]
    }

    /// Everything devices sent.
    #[must_use]
    pub fn sent_in_all(&self) -> u64 {
        self.sent.iter().sum()
    }

    /// Everything that arrived.
    #[must_use]
    pub fn heard_in_all(&self) -> u64 {
        self.heard.iter().sum()
    }

    /// The most ANNOUNCEs of 10 ms, and their mean from the first to the last one.
    #[must_use]
    pub fn announce_peak_and_mean(&self) -> (u32, f64) {
        let first = self.announces_per_bin.iter().position(|&count| count > 0).unwrap_or(0);
        let last = self.announces_per_bin.iter().rposition(|&count| count > 0).unwrap_or(0);
        let sum: u32 = self.announces_per_bin.iter().sum();
        let peak = self.announces_per_bin.iter().copied().max().unwrap_or(0);
        (peak, f64::from(sum) / (last + 1 - first) as f64)
    }

    fn count_sent(&mut self, since_start: Duration, broadcast: bool, bytes: &[u8]) {
        let kind = kind_of(bytes);
        self.sent[kind] += 1;
        self.sent_bytes += bytes.len() as u64;
        self.broadcasts += u64::from(broadcast);
        let bin = (since_start.as_micros() / BIN.as_micros()) as usize;
        if kind == Kind::Announce as usize && bin < BINS_MAX {
            if self.announces_per_bin.len() <= bin {
                self.announces_per_bin.resize(bin + 1, 0);
            }
            self.announces_per_bin[bin] += 1;
        }
    }
}

fn kind_of(bytes: &[u8]) -> usize {
    bytes.get(KIND_AT).and_then(|&number| Kind::new(number)).map_or(0, |kind| kind as usize)
}

/// A device as a shop has it: a name, a code, a zone, two tags, firmware.
#[must_use]
pub fn device(number: u32, store: Store) -> DeviceConfig {
    let mut id = *b"farm-device-\0\0\0\0";
    id[12..].copy_from_slice(&number.to_be_bytes());
    let mut config = DeviceConfig::new(NodeId(id), store);
    config.name = Name::new(&format!("Till {number}")).unwrap_or(Name::EMPTY);
    config.code = DeviceCode::new(&format!("T-{number:05}")).unwrap_or(DeviceCode::EMPTY);
    config.zone = Some(number % 16);
    config.tags = Tags::new(["front", "cash"]).unwrap_or(Tags::EMPTY);
    config.firmware = Some(Firmware { version: 0x0001_0203, build: 4_711 });
    config
}

struct Device {
    config: DeviceConfig,
    address: Ipv4Addr,
    boots: u32,
    /// On, and since when it is registered in this boot.
    seeker: Option<Seeker>,
    registered: Option<Instant>,
    /// The round in which it was registered last.
    round: u32,
    boot_at: Instant,
    /// Its earliest entry among the deadlines.
    scheduled: Instant,
}

/// Devices that share a clock and a wire.
pub struct Crowd {
    devices: Vec<Device>,
    by_address: HashMap<Ipv4Addr, u32>,
    /// Never later than a device's own deadline; an entry that is too early only costs a look.
    deadlines: BinaryHeap<Reverse<(Instant, u32)>>,
    registered: u32,
    round: u32,
    registered_in_round: u32,
    authenticated: bool,
    loss: Loss,
    rng: Rng,
    start: Instant,
    /// When what happens now was due.
    moment: Instant,
    /// What happened so far.
    pub counts: Counts,
}

impl fmt::Debug for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (devices, registered) = (self.devices.len(), self.registered);
        f.debug_struct("Crowd").field("devices", &devices).field("registered", &registered).finish()
    }
}

impl Crowd {
    /// Devices that are off.
    #[must_use]
    pub fn new(config: &FarmConfig, now: Instant) -> Self {
        let device = |number: u32| {
            let address = Ipv4Addr::from_bits(config.first.to_bits().wrapping_add(number));
            let config = DeviceConfig { port: config.push_port, ..device(number, config.store) };
            Device {
                config,
                address,
                boots: 0,
                seeker: None,
                registered: None,
                round: 0,
                boot_at: Instant::NEVER,
                scheduled: Instant::NEVER,
            }
        };
        let devices: Vec<_> = (0..config.devices).map(device).collect();
        let by_address = (0..).zip(&devices).map(|(number, device)| (device.address, number)).collect();
        Self {
            devices,
            by_address,
            deadlines: BinaryHeap::new(),
            registered: 0,
            round: 1,
            registered_in_round: 0,
            authenticated: config.authenticated,
            loss: config.loss,
            rng: Rng::new(config.seed),
            start: now,
            moment: now,
            counts: Counts::default(),
        }
    }

    /// How many devices are registered.
    #[must_use]
    pub const fn registered(&self) -> u32 {
        self.registered
    }

    /// Whether all are.
    #[must_use]
    pub fn all_registered(&self) -> bool {
        self.registered as usize == self.devices.len()
    }

    /// From here on it is counted anew who registers: with a server that was restarted.
    pub const fn begin_round(&mut self) {
        self.round += 1;
        self.registered_in_round = 0;
    }

    /// How many devices have registered since the last [`Crowd::begin_round`].
    #[must_use]
    pub const fn registered_in_round(&self) -> u32 {
        self.registered_in_round
    }

    /// How many devices there are.
    #[must_use]
    pub const fn devices(&self) -> u32 {
        self.devices.len() as u32
    }

    /// Since when a device is registered in its present boot.
    #[must_use]
    pub fn registered_at(&self, device: u32) -> Option<Instant> {
        self.devices[device as usize].registered
    }

    /// A device's address.
    #[must_use]
    pub fn address(&self, device: u32) -> Ipv4Addr {
        self.devices[device as usize].address
    }

    /// A device's state machine, while it is on.
    #[must_use]
    pub fn seeker(&self, device: u32) -> Option<&Seeker> {
        self.devices[device as usize].seeker.as_ref()
    }

    /// Changes what is lost from now on.
    pub const fn set_loss(&mut self, loss: Loss) {
        self.loss = loss;
    }

    /// Changes what a device says about itself from its next boot on: a clone has another one's id.
    pub fn configure(&mut self, device: u32, change: impl FnOnce(&mut DeviceConfig)) {
        change(&mut self.devices[device as usize].config);
    }

    /// A device has another address from now on.
    pub fn readdress(&mut self, device: u32, address: Ipv4Addr) {
        let before = core::mem::replace(&mut self.devices[device as usize].address, address);
        if self.by_address.get(&before) == Some(&device) {
            self.by_address.remove(&before);
        }
        self.by_address.insert(address, device);
    }

    /// Does something with every device that is on; then `reschedule`.
    pub fn each(&mut self, mut with: impl FnMut(&mut Seeker)) {
        self.devices.iter_mut().filter_map(|device| device.seeker.as_mut()).for_each(&mut with);
    }

    /// Boots all, each at a random moment of `span`.
    pub fn boot_within(&mut self, now: Instant, span: Duration) {
        for number in 0..self.devices.len() as u32 {
            let at = now + self.rng.between(Duration::ZERO, span);
            self.devices[number as usize].boot_at = at;
            self.schedule(number, at);
        }
    }

    /// A device boots now; then `reschedule_one`.
    pub fn boot(&mut self, now: Instant, number: u32) {
        self.power_off(number);
        let seed = self.rng.next_u64();
        let device = &mut self.devices[number as usize];
        device.boot_at = Instant::NEVER;
        device.boots += 1;
        let config = DeviceConfig { epoch: device.boots, epoch_random: false, ..device.config.clone() };
        let mut seeker = if self.authenticated {
            Seeker::with_keys(config, now, seed, device_keys(number))
        } else {
            Seeker::new(config, now, seed)
        };
        seeker.link_up(now, LINK);
        device.seeker = Some(seeker);
    }

    /// A device is cut off power.
    pub fn power_off(&mut self, number: u32) {
        let device = &mut self.devices[number as usize];
        device.seeker = None;
        if device.registered.take().is_some() {
            self.registered -= 1;
        }
    }

    /// A device says goodbye and goes.
    pub fn leave(&mut self, now: Instant, wire: &mut impl Wire, number: u32) {
        if let Some(seeker) = &mut self.devices[number as usize].seeker {
            seeker.stop(now);
        }
        self.drain(now, wire, number);
    }

    /// When [`Crowd::handle_timeout`] is due.
    #[must_use]
    pub fn next_due(&self) -> Instant {
        self.deadlines.peek().map_or(Instant::NEVER, |Reverse((at, _))| *at)
    }

    /// Fires what is due.
    pub fn handle_timeout(&mut self, now: Instant, wire: &mut impl Wire) {
        while let Some(&Reverse((at, number))) = self.deadlines.peek() {
            if at > now {
                return;
            }
            self.deadlines.pop();
            self.moment = at;
            let device = &mut self.devices[number as usize];
            if device.scheduled == at {
                device.scheduled = Instant::NEVER;
            }
            if device.boot_at <= now {
                self.boot(now, number);
            } else if let Some(seeker) = &mut device.seeker
                && seeker.poll_timeout().is_some_and(|due| due <= now)
            {
                seeker.handle_timeout(now);
            }
            self.drain(now, wire, number);
        }
    }

    /// A datagram for the device at `to`.
    pub fn handle_unicast(
        &mut self,
        now: Instant,
        wire: &mut impl Wire,
        to: Ipv4Addr,
        source: SocketAddrV4,
        bytes: &[u8],
    ) {
        self.moment = now;
        self.counts.heard[kind_of(bytes)] += 1;
        self.counts.heard_bytes += bytes.len() as u64;
        match self.by_address.get(&to) {
            Some(&number) if self.is_on(number) => {
                if self.is_lost(self.loss.heard) {
                    return;
                }
                let arrival = Arrival { link: LINK, source, broadcast: false };
                self.hear(now, wire, number, &arrival, bytes);
            }
            _ => self.counts.astray += 1,
        }
    }

    /// A broadcast: every device hears it, but for losses and its sender.
    pub fn handle_broadcast(
        &mut self,
        now: Instant,
        wire: &mut impl Wire,
        source: SocketAddrV4,
        bytes: &[u8],
    ) {
        self.moment = now;
        self.counts.heard[kind_of(bytes)] += 1;
        let arrival = Arrival { link: LINK, source, broadcast: true };
        for number in 0..self.devices.len() as u32 {
            let device = &self.devices[number as usize];
            if device.seeker.is_some() && device.address != *source.ip() && !self.is_lost(self.loss.broadcast)
            {
                self.hear(now, wire, number, &arrival, bytes);
            }
        }
    }

    /// Looks at every device anew, after [`Crowd::each`].
    pub fn reschedule(&mut self, now: Instant, wire: &mut impl Wire) {
        (0..self.devices.len() as u32).for_each(|number| self.drain(now, wire, number));
    }

    /// Looks at one device anew, after [`Crowd::boot`].
    pub fn reschedule_one(&mut self, now: Instant, wire: &mut impl Wire, number: u32) {
        self.drain(now, wire, number);
    }

    fn is_on(&self, number: u32) -> bool {
        self.devices[number as usize].seeker.is_some()
    }

    fn is_lost(&mut self, part: f64) -> bool {
        const WHOLE: f64 = (1_u64 << 32) as f64;
        let lost = part > 0.0 && (self.rng.below(1 << 32) as f64) < part * WHOLE;
        self.counts.lost += u64::from(lost);
        lost
    }

    fn hear(&mut self, now: Instant, wire: &mut impl Wire, number: u32, arrival: &Arrival, bytes: &[u8]) {
        if let Some(seeker) = &mut self.devices[number as usize].seeker {
            let dropped = seeker.handle_datagram(now, arrival, bytes).is_err();
            self.counts.dropped += u64::from(dropped);
        }
        self.drain(now, wire, number);
    }

    /// Sends and notes what a device has to say, and when it is due again.
    fn drain(&mut self, now: Instant, wire: &mut impl Wire, number: u32) {
        let mut buffer = [0; DATAGRAM_MAX];
        loop {
            let Some(seeker) = &mut self.devices[number as usize].seeker else { return };
            let Some(Transmit { to, len }) = seeker.poll_transmit(now, &mut buffer) else { break };
            let bytes = &buffer[..len];
            self.counts.count_sent(
                self.moment.since(self.start),
                matches!(to, Destination::Broadcast(_)),
                bytes,
            );
            if !self.is_lost(self.loss.sent) {
                wire.send(self.devices[number as usize].address, to, bytes);
            }
        }
        let device = &mut self.devices[number as usize];
        let Some(seeker) = &mut device.seeker else { return };
        while let Some(event) = seeker.poll_event() {
            let was = device.registered.is_some();
            match event {
                SeekerEvent::Registered { .. } => {
                    self.counts.registered += 1;
                    device.registered = Some(now);
                    if core::mem::replace(&mut device.round, self.round) != self.round {
                        self.registered_in_round += 1;
                        self.counts.last_registered = now;
                    }
                }
                SeekerEvent::Refused { .. } => self.counts.refused += 1,
                _ => device.registered = None,
            }
            self.registered = self.registered + u32::from(device.registered.is_some()) - u32::from(was);
        }
        let due = seeker.poll_timeout().unwrap_or(Instant::NEVER);
        if seeker.is_stopped() {
            self.power_off(number);
        } else {
            self.schedule(number, due);
        }
    }

    fn schedule(&mut self, number: u32, due: Instant) {
        let device = &mut self.devices[number as usize];
        if due < device.scheduled {
            device.scheduled = due;
            self.deadlines.push(Reverse((due, number)));
        }
    }
}

/// Devices that hear each other and no server, for `span` of virtual time, booted within the first second: what they sent.
#[must_use]
pub fn seekers_alone(config: &FarmConfig, span: Duration) -> Counts {
    /// What was broadcast and not yet heard.
    struct Air(Vec<(SocketAddrV4, Vec<u8>)>, u16);
    impl Wire for Air {
        fn send(&mut self, from: Ipv4Addr, to: Destination, bytes: &[u8]) {
            if matches!(to, Destination::Broadcast(_)) {
                self.0.push((SocketAddrV4::new(from, self.1), bytes.to_vec()));
            }
        }
    }
    let start = Instant::from_millis(1_000);
    let mut crowd = Crowd::new(config, start);
    let mut air = Air(Vec::new(), config.port);
    crowd.boot_within(start, Duration::from_secs(1));
    while crowd.next_due() <= start + span {
        let now = crowd.next_due();
        crowd.handle_timeout(now, &mut air);
        for (source, bytes) in core::mem::take(&mut air.0) {
            crowd.handle_broadcast(now, &mut air, source, &bytes);
        }
    }
    crowd.counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(devices: u32) -> FarmConfig {
        FarmConfig::new(devices, Ipv4Addr::new(127, 58, 0, 1), 41_500, Store::new(1, "FARM").unwrap())
    }

    #[test]
    fn devices_alone_stay_quiet_and_the_same_seed_is_the_same_run() {
        let counts = seekers_alone(&config(300), Duration::from_secs(60));
        let seeks = counts.sent(Kind::Seek);
        assert!((5..=150).contains(&seeks), "{seeks} from 300 devices in a minute");
        assert_eq!(
            (counts.broadcasts, counts.sent_in_all(), counts.heard(Kind::Seek)),
            (seeks, seeks, seeks)
        );
        assert_eq!(counts, seekers_alone(&config(300), Duration::from_secs(60)));
    }

    #[test]
    fn what_is_lost_is_not_heard_and_counted() {
        let lost = FarmConfig { loss: Loss { broadcast: 1.0, ..Loss::NONE }, ..config(50) };
        let (deaf, hearing) = (
            seekers_alone(&lost, Duration::from_secs(60)),
            seekers_alone(&config(50), Duration::from_secs(60)),
        );
        // Devices that have not booted yet miss nothing.
        let missed = deaf.sent(Kind::Seek) * 49;
        assert!((missed * 9 / 10..=missed).contains(&deaf.lost), "{} of {missed}", deaf.lost);
        assert!(deaf.sent(Kind::Seek) > 3 * hearing.sent(Kind::Seek), "who hears nobody asks all the time");
    }
}
