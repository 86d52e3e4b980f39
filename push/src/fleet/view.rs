//! How one device stands, in plain numbers.

use core::time::Duration;

use super::device::{State, flag};
use super::devices::DeviceStorage;
use super::order::{MarkBytes, OrderStorage};
use super::{DeviceIndex, Fleet};

/// Where the connection to a device stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    /// None; it is dialled when its backoff is over, or when its address is known.
    Down,
    /// Being dialled, or between the connection and its WELCOME.
    Connecting,
    /// The session is open.
    Open,
    /// The session is over, the connection not yet closed.
    Ending,
}

/// How one device stands. Counters stay at their highest value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceView {
    /// Its connection.
    pub link: Link,
    /// The session is open and the device silent although it should answer: it gets no new orders.
    pub suspect: bool,
    /// It asked for no new orders: it is about to leave.
    pub draining: bool,
    /// Orders that have still to be written to it.
    pub owed: u32,
    /// Orders that were written and have no outcome.
    pub out: u32,
    /// Orders that were written and have an outcome that is not logged.
    pub unlogged: u32,
    /// Orders whose last attempt ended and which are tried again.
    pub retried: u32,
    /// Order credits it gave, and those in use: written and not settled.
    pub window_orders: u16,
    /// See `window_orders`.
    pub window_orders_used: u32,
    /// Byte credit it gave, and what of it is in use: bytes of orders written and not acknowledged.
    pub window_bytes: u32,
    /// See `window_bytes`.
    pub window_bytes_used: u32,
    /// Round trip of the last PING it answered.
    pub rtt: Option<Duration>,
    /// Sessions opened with it.
    pub sessions: u16,
    /// Orders written to it again.
    pub replays: u16,
    /// Times it became suspect.
    pub suspects: u16,
    /// Sessions that ended because nothing was heard of it.
    pub deads: u16,
    /// Orders that ended as POISON on it.
    pub poisons: u16,
}

/// The counters of one device, as its slot holds them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) sessions: u16,
    pub(crate) replays: u16,
    pub(crate) suspects: u16,
    pub(crate) deads: u16,
    pub(crate) poisons: u16,
    /// Microseconds of the last round trip; 0 none yet.
    pub(crate) rtt_us: u32,
    /// The low bits of the clock, in microseconds, when the last PING left.
    pub(crate) pinged_us: u32,
}

impl Tally {
    pub(crate) const ZERO: Self =
        Self { sessions: 0, replays: 0, suspects: 0, deads: 0, poisons: 0, rtt_us: 0, pinged_us: 0 };
}

impl<D: DeviceStorage, O: OrderStorage<B, M>, B: AsRef<[u8]>, M: MarkBytes> Fleet<D, O, B, M> {
    /// How a device stands now; `None` if there is no such device, or it was removed.
    pub fn view(&self, device: DeviceIndex) -> Option<DeviceView> {
        let index = device.0;
        let slot = self.devices.at(index);
        let tally = slot.tally;
        if index >= self.fresh || slot.state == State::Free || slot.is(flag::REMOVED) {
            return None;
        }
        Some(DeviceView {
            link: match slot.state {
                State::Dialling | State::Greeting => Link::Connecting,
                State::Open => Link::Open,
                State::Ending | State::Closing => Link::Ending,
                State::Free | State::Idle | State::Queued | State::Leaving => Link::Down,
            },
            suspect: slot.is(flag::SUSPECT),
            draining: slot.is(flag::DRAINING),
            owed: self.devices.sum(index, |track| track.owed).into(),
            out: self.devices.out(index).into(),
            unlogged: self.devices.sum(index, |track| track.lingering).saturating_add(slot.waiting).into(),
            retried: slot.retried.into(),
            window_orders: slot.window_orders,
            window_orders_used: self.devices.sum(index, |track| track.held).into(),
            window_bytes: slot.window_bytes,
            window_bytes_used: slot.bytes,
            rtt: (tally.rtt_us != 0).then(|| Duration::from_micros(tally.rtt_us.into())),
            sessions: tally.sessions,
            replays: tally.replays,
            suspects: tally.suspects,
            deads: tally.deads,
            poisons: tally.poisons,
        })
    }

    /// A PING has left for a device.
    pub(super) fn ping_left(&mut self, index: u32) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a difference of the low bits is enough for an hour"
        )]
        let now = self.now.as_micros() as u32;
        self.devices.at_mut(index).tally.pinged_us = now;
    }

    /// The answer to the last PING came.
    pub(super) fn ping_answered(&mut self, index: u32) {
        #[expect(clippy::cast_possible_truncation, reason = "as above")]
        let now = self.now.as_micros() as u32;
        let tally = &mut self.devices.at_mut(index).tally;
        tally.rtt_us = now.wrapping_sub(tally.pinged_us).max(1);
    }
}
