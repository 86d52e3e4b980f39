//! The server's half: a fleet of devices, the orders they are owed, and what to do next.
//!
//! A [`Fleet`] does no I/O and reads no clock. Its driver owns the sockets: it hands in what happened and carries out
//! what the `poll_` functions return. See the crate's documentation for the loop.
//!
//! | file | reason to exist |
//! | --- | --- |
//! | `device`, `devices`, `address`, `order` | the two tables: what is kept per device and per order |
//! | `track` | a lane of one of the two logs |
//! | `list`, `wheel` | intrusive lists and timers inside those tables |
//! | `marks` | the only code that changes marks, and with them cursors and counts |
//! | `submit`, `restore` | orders come in, new or out of the log after a restart |
//! | `log`, `fork` | ends and sessions that have to be in the durable log; a log that turns out to be a copy |
//! | `supersede`, `cancel` | orders that newer ones replace; orders that shall not be done any more |
//! | `retry` | attempts that end and are repeated |
//! | `dial` | who is dialled when |
//! | `session` | HELLO, WELCOME, the end of a session |
//! | `resume` | orders of earlier sessions when a device comes back |
//! | `receive` | frames from devices |
//! | `transmit`, `plan`, `credit`, `written` | what is written next; what the window allows; what has left |
//! | `posts`, `ask` | questions of both sides and their answers |
//! | `parts` | large payloads, piece by piece |
//! | `timeout` | liveness, lifetimes, the server's own pauses |
//! | `leave` | this side's planned end |
//! | `tell`, `view` | events; how one device stands |

mod address;
mod ask;
mod cancel;
mod credit;
mod device;
mod devices;
mod dial;
mod event;
mod fork;
mod leave;
mod list;
mod log;
mod marks;
mod order;
mod parts;
mod plan;
mod posts;
mod receive;
mod restore;
mod resume;
mod retry;
mod session;
mod stats;
mod submit;
mod supersede;
mod tell;
mod timeout;
mod track;
mod transmit;
mod view;
mod wheel;
mod written;

#[cfg(test)]
mod check;
#[cfg(test)]
mod tests;

use core::net::SocketAddr;

use wire_format::frame::bye;
use wire_format::ids::NodeId;
use wire_format::rng::Rng;
use wire_format::time::Instant;

pub use device::DeviceSlot;
pub use devices::{DeviceStorage, DeviceTables, TrackSlot};
pub use event::{AddError, Dial, Event, Facts, NewDevice, SubmitError, SubmitFault, Submitted, Transmit};
pub use log::{By, DeviceTrace, LogEntry, Trace};
pub use order::{MarkBytes, NewOrder, OrderSlot, OrderStorage};
pub use posts::{AskError, AskId, Question, ReplyError, Unanswered};
pub use receive::{Input, Item};
pub use stats::{Outcomes, Stats};
pub use view::{DeviceView, Link};

pub use crate::config::FleetConfig;
pub use crate::ended::{Closed, DialError, Ended};

use address::Address;
use device::{State, due, flag, link};
use devices::Devices;
use list::List;
use log::PerLog;
use order::Orders;
use plan::Plan;
use posts::Posts;
use tell::Told;
use wheel::Wheel;

/// A device of a fleet: dense, given by [`Fleet::add_device`], from 0. Used again only after the device was removed and
/// every order submitted before its removal has been handed back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceIndex(pub u32);

/// All devices of one server, and every live order.
///
/// `D` and `O` are storage the caller owns: one [`DeviceSlot`] per device (304 bytes), one [`TrackSlot`] (224 bytes) for each log it
/// has got something of, and one [`OrderSlot`] per order that is not settled on every target. `B` is an order's one encoding, `M` its marks, a byte per device; both come back with
/// [`Event::Settled`].
#[derive(Debug)]
pub struct Fleet<D, O, B, M> {
    config: FleetConfig,
    devices: Devices<D>,
    orders: Orders<O, B, M>,
    rng: Rng,
    stats: Stats,
    /// Devices to which something can be written, first come first served.
    ready: List<{ link::READY }>,
    /// Devices to dial: those that answered before, listed ones that never did, and those whose address was only announced.
    queue: List<{ link::QUEUE }>,
    strangers: List<{ link::QUEUE }>,
    announced: List<{ link::QUEUE }>,
    /// Device slots free to be used again, first freed first.
    free: List<{ link::QUEUE }>,
    /// Device slots from here on were never used.
    fresh: u32,
    settle: List<{ link::SETTLE }>,
    close: List<{ link::CLOSE }>,
    tell: List<{ link::TELL }>,
    timers: Wheel<{ link::TIMER }>,
    deadlines: Wheel<{ order::link::TIMER }>,
    /// Orders with outcomes the server gives; orders that are over.
    sweep: List<{ order::link::TELL }>,
    done: List<{ order::link::TELL }>,
    told: Told,
    posts: Posts<B>,
    plan: Plan,
    /// The highest number submitted, by log.
    last: PerLog,
    /// Cancellations so far: what [`OrderSlot`]s and [`DeviceSlot`]s compare.
    cancels: u32,
    /// The highest fence a device has named.
    fence_heard: u64,
    /// Until when sessions may go on after [`Fleet::drain`].
    drain_until: Instant,
    /// The highest number of each log, given by this fleet or another one.
    heads: PerLog,
    /// The durable log is not what it was: nothing of it is sent. And its orders are given up.
    forked: bool,
    abandoned: bool,
    /// Orders of the durable log that are out in open sessions, device by device.
    durable_out: u32,
    /// No timer of a peer is due before; a call much later means that this side stood still.
    alarm: Instant,
    /// The microseconds this side stood still, so far.
    paused: u64,
    /// The latest time it was told.
    now: Instant,
    /// When the next dial may start, and the next one to an address that was only announced.
    dial_gate: Instant,
    announced_gate: Instant,
    /// The last stranger dialled was a listed one: the next is an announced one.
    announced_turn: bool,
    half_open: u32,
    half_open_strangers: u32,
    /// Devices with a dial or a connection.
    connections: u32,
    stopped: bool,
}

impl<D: DeviceStorage, O: OrderStorage<B, M>, B: AsRef<[u8]>, M: MarkBytes> Fleet<D, O, B, M> {
    /// A fleet without devices. The storage is emptied; it sets how many devices and live orders there may be: see
    /// [`DeviceTables`].
    pub fn new(config: FleetConfig, devices: D, orders: O, now: Instant, seed: u64) -> Self {
        Self {
            devices: Devices::new(devices, config.durable.is_some()),
            config,
            orders: Orders::new(orders),
            rng: Rng::new(seed),
            stats: Stats::default(),
            ready: List::EMPTY,
            queue: List::EMPTY,
            strangers: List::EMPTY,
            announced: List::EMPTY,
            free: List::EMPTY,
            fresh: 0,
            settle: List::EMPTY,
            close: List::EMPTY,
            tell: List::EMPTY,
            timers: Wheel::new(now),
            deadlines: Wheel::new(now),
            sweep: List::EMPTY,
            done: List::EMPTY,
            told: Told::EMPTY,
            posts: Posts::new(),
            plan: Plan::EMPTY,
            last: PerLog::default(),
            cancels: 0,
            fence_heard: 0,
            drain_until: Instant::NEVER,
            heads: PerLog::default(),
            forked: false,
            durable_out: 0,
            abandoned: false,
            alarm: Instant::NEVER,
            paused: 0,
            now,
            dial_gate: Instant::ZERO,
            announced_gate: Instant::ZERO,
            announced_turn: false,
            half_open: 0,
            half_open_strangers: 0,
            connections: 0,
            stopped: false,
        }
    }

    /// Adds a device; if its address is known it is dialled as soon as the pace allows.
    pub fn add_device(&mut self, now: Instant, new: NewDevice) -> Result<DeviceIndex, AddError> {
        if let Some(first) = new.id.and_then(|id| self.devices.find(id)) {
            return Err(AddError::Known { device: DeviceIndex(first) });
        }
        let index = self.vacant_device().ok_or(AddError::Full)?;
        self.devices.begin(index);
        if let Some(id) = new.id.filter(|id| !id.is_none()) {
            self.devices.index_id(index, id);
        }
        if let Some(address) = new.address {
            self.set_address(now, DeviceIndex(index), address);
        }
        Ok(DeviceIndex(index))
    }

    fn vacant_device(&mut self) -> Option<u32> {
        let lowest = self.orders.lowest();
        if let Some(index) = self.free.front()
            && self.devices.at(index).boot < lowest
            && self.devices.at(index).untraced == 0
        {
            self.free.remove(&mut self.devices, index);
            return Some(index);
        }
        let index = self.fresh;
        (index < self.devices.len()).then(|| {
            self.fresh = index.saturating_add(1);
            index
        })
    }

    /// Where a device listens, as its operator says: it is dialled at once, but not more than once a second. An open session
    /// goes on, and is probed if the address is another one.
    pub fn set_address(&mut self, now: Instant, device: DeviceIndex, address: SocketAddr) {
        self.readdress(now, device.0, Address::new(address), false);
    }

    /// The same, as an announce says, which proves nothing: an address that is neither listed nor that of the last session
    /// is dialled at the pace of [`FleetConfig::announced_dials_per_s`] until a session is open there.
    pub fn announce_address(&mut self, now: Instant, device: DeviceIndex, address: SocketAddr) {
        self.readdress(now, device.0, Address::new(address), true);
    }

    fn readdress(&mut self, now: Instant, index: u32, address: Address, announced: bool) {
        self.observe(now);
        let slot = self.devices.at_mut(index);
        let moved = slot.address != address || !slot.is(flag::ADDRESSED);
        // What is known of an address is not forgotten because somebody repeats it.
        let announced = announced && (moved || slot.is(flag::ANNOUNCED));
        if slot.is(flag::ANNOUNCED) != announced {
            // Another queue, where it waits anew.
            self.unqueue(index);
        }
        let slot = self.devices.at_mut(index);
        slot.address = address;
        slot.set(flag::ADDRESSED, true);
        slot.set(flag::ANNOUNCED, announced);
        match slot.state {
            State::Idle | State::Queued => self.hasten_dial(now, index),
            State::Dialling | State::Greeting | State::Ending | State::Closing => {
                let redial = moved || slot.is(flag::REDIAL);
                slot.set(flag::REDIAL, redial);
            }
            State::Open if moved => {
                slot.due |= due::PING;
                self.wake(index);
            }
            State::Open | State::Free | State::Leaving => {}
        }
    }

    /// Takes a device out. Its session ends, what it was owed ends as NOT_TARGETED, what it was sent as UNKNOWN; both as
    /// events. An order that is tried again ends as its attempt, if that has ended and waits for the log. False if there is
    /// no such device.
    pub fn remove_device(&mut self, now: Instant, device: DeviceIndex) -> bool {
        self.observe(now);
        let index = device.0;
        let slot = self.devices.at(index);
        if index >= self.devices.len() || slot.state == State::Free || slot.is(flag::REMOVED) {
            return false;
        }
        if !slot.id.is_none() {
            self.devices.unindex_id(index);
        }
        self.devices.at_mut(index).set(flag::REMOVED, true);
        match self.devices.at(index).state {
            State::Open => self.part(now, index, Ended::Removed, device::Farewell::Bye(bye::Code::NORMAL)),
            State::Dialling | State::Greeting => self.end(now, index, Ended::Removed),
            State::Idle | State::Queued => self.leave(index),
            State::Free | State::Ending | State::Closing | State::Leaving => {}
        }
        self.tell.push_back(&mut self.devices, index);
        true
    }

    /// The device with this id.
    pub fn find(&self, id: NodeId) -> Option<DeviceIndex> {
        self.devices.find(id).map(DeviceIndex)
    }

    /// The id of a device, once known.
    pub fn id(&self, device: DeviceIndex) -> Option<NodeId> {
        let slot = self.devices.at(device.0);
        (slot.state != State::Free && !slot.id.is_none()).then_some(slot.id)
    }

    /// Whether a device's session is open.
    pub fn is_open(&self, device: DeviceIndex) -> bool {
        self.devices.at(device.0).state == State::Open
    }

    /// Whether a device with an open session is silent although it should answer: it gets no new orders.
    pub fn is_suspect(&self, device: DeviceIndex) -> bool {
        self.is_open(device) && self.devices.at(device.0).is(flag::SUSPECT)
    }

    /// The marks of a live order, and the device the first one belongs to.
    pub fn marks(&self, number: u64) -> Option<(DeviceIndex, &[u8])> {
        let live = self.orders.at(self.orders.find(number)?).live.as_ref()?;
        Some((DeviceIndex(live.first), live.marks.as_ref()))
    }

    /// What was handed in as the frame of a live order.
    pub fn frame(&self, number: u64) -> Option<&B> {
        self.orders.at(self.orders.find(number)?).live.as_ref().map(|live| &live.frame)
    }

    /// What was handed in as marks of a live order. Found until [`Event::Settled`] hands it back.
    pub fn ledger(&self, number: u64) -> Option<&M> {
        self.orders.at(self.orders.find(number)?).live.as_ref().map(|live| &live.marks)
    }

    /// The same, to change what the caller keeps beside the marks. The marks themselves are the fleet's.
    pub fn ledger_mut(&mut self, number: u64) -> Option<&mut M> {
        let slot = self.orders.find(number)?;
        self.orders.at_mut(slot).live.as_mut().map(|live| &mut live.marks)
    }

    /// Live orders: not settled on every target, or not handed back.
    pub const fn live_orders(&self) -> u32 {
        self.orders.used
    }

    /// The fence every HELLO names.
    pub const fn fence(&self) -> u64 {
        self.config.fence
    }

    /// The highest fence a device has named when it refused or welcomed this server; 0 if none did.
    pub const fn fence_heard(&self) -> u64 {
        self.fence_heard
    }

    /// From now on every HELLO says `fence` and TAKEOVER: the operator's decision that this server takes the shop over, with
    /// a fence above [`Fleet::fence_heard`]. Keep the fence before you call this. Sessions of a lower fence end with BYE and
    /// greet anew: a device that never heard of the new one would not refuse who had the shop before.
    pub fn take_over(&mut self, now: Instant, fence: u64) {
        self.observe(now);
        let same = self.config.takeover && self.config.fence == fence;
        self.config.fence = fence;
        self.config.takeover = true;
        for index in 0..if same { 0 } else { self.fresh } {
            self.devices.at_mut(index).set(flag::RAISED, true);
            self.greet_anew(now, index);
        }
    }

    /// The counters.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Stops: BYE to every open session, nothing is dialled or submitted any more. See [`Fleet::is_stopped`].
    pub fn stop(&mut self, now: Instant) {
        self.observe(now);
        self.stopped = true;
        for index in 0..self.fresh {
            match self.devices.at(index).state {
                State::Open => {
                    self.part(now, index, Ended::Stopped, device::Farewell::Bye(bye::Code::NORMAL))
                }
                State::Dialling | State::Greeting => self.end(now, index, Ended::Stopped),
                State::Idle | State::Queued => self.rest(index),
                State::Free | State::Ending | State::Closing | State::Leaving => {}
            }
        }
    }

    /// Whether [`Fleet::stop`] has come to its end: no connection is left.
    pub const fn is_stopped(&self) -> bool {
        self.stopped && self.connections == 0
    }

    /// A connection whose session is over and that has to be closed now; what was read from it last is worthless. Do not
    /// report it closed afterwards.
    pub fn poll_close(&mut self) -> Option<(DeviceIndex, Ended)> {
        let index = self.close.pop_front(&mut self.devices)?;
        let why = self.devices.at(index).why;
        self.connection_gone(index);
        Some((DeviceIndex(index), why))
    }

    /// Puts a device on the list of those that may have something to write, if it can be written to.
    fn wake(&mut self, index: u32) {
        let slot = self.devices.at(index);
        if matches!(slot.state, State::Open | State::Greeting | State::Ending) && !slot.is(flag::BLOCKED) {
            self.ready.push_back(&mut self.devices, index);
        }
    }

    /// When a device's timer is due.
    fn timer_of(&self, index: u32) -> Option<Instant> {
        Wheel::<{ link::TIMER }>::due(&self.devices, index)
    }

    /// Arms a device's timer.
    fn arm(&mut self, index: u32, at: Instant) {
        self.timers.arm(&mut self.devices, index, at);
        self.alarm = self.alarm.min(at);
    }

    /// The clock without the time this side stood still: what the silence of peers is measured in.
    const fn awake(&self, now: Instant) -> Instant {
        Instant::from_micros(now.as_micros().saturating_sub(self.paused))
    }
}
