//! What must hold between any two calls, counted anew from the marks. For tests: it looks at everything.

use std::collections::BTreeMap;

use super::device::{Partial, State, due, flag};
use super::devices::DeviceStorage;
use super::list::{List, NONE};
use super::order::{MarkBytes, OrderStorage};
use super::track::{Track, TrackState, Tracks};
use super::wheel::Wheel;
use super::{Fleet, link};
use crate::mark::Mark;

impl<D: DeviceStorage, O: OrderStorage<B, M>, B: AsRef<[u8]>, M: MarkBytes> Fleet<D, O, B, M> {
    /// Panics if a count, a cursor or a list disagrees with the marks.
    pub(super) fn check(&self) {
        let (mut connections, mut half_open, mut strangers, mut durable_out) = (0, 0, 0, 0);
        for index in 0..self.fresh {
            let device = self.devices.at(index);
            let dialling = matches!(device.state, State::Dialling | State::Greeting);
            let connected = dialling || matches!(device.state, State::Open | State::Ending | State::Closing);
            connections += u32::from(connected);
            half_open += u32::from(dialling);
            strangers += u32::from(dialling && device.is(flag::STRANGER));
            self.check_device(index);
            if device.state == State::Open {
                let out = |&slot: &u32| {
                    self.orders.at(slot).track.is_durable() && self.orders.at(slot).mark(index).is_out()
                };
                durable_out += (0..self.orders.len()).filter(out).count();
            }
        }
        assert_eq!(self.durable_out as usize, durable_out, "orders of the durable log out there");
        assert_eq!(
            (connections, half_open, strangers),
            (self.connections, self.half_open, self.half_open_strangers)
        );
        self.check_orders();
    }

    fn check_device(&self, index: u32) {
        let device = self.devices.at(index);
        let bytes: u32 = Tracks::ALL.map(|track| self.check_track(index, track)).sum();
        let waits = |&slot: &u32| self.orders.at(slot).mark(index).is_waiting();
        let waiting = (0..self.orders.len()).filter(waits).count();
        assert_eq!(usize::from(device.waiting), waiting, "unlogged ends of device {index}");
        let unsaid = |&slot: &u32| {
            self.orders.at(slot).track.is_durable() && self.orders.at(slot).mark(index).is_unsaid()
        };
        let unsaid = (0..self.orders.len()).filter(unsaid).count();
        let gone = matches!(device.state, State::Free);
        assert!(gone || usize::from(device.unsaid) == unsaid, "ends of device {index} nobody wrote down");
        assert_eq!(device.skewed & !Tracks::of(true).0, 0, "device {index}");
        assert_eq!(device.bytes, bytes, "bytes of device {index}");
        assert_eq!(device.receipt_since == wire_format::time::Instant::NEVER, bytes == 0);
        let retried = |&slot: &u32| self.orders.at(slot).mark(index).is_retried();
        let retried = (0..self.orders.len()).filter(retried).count();
        assert_eq!(usize::from(device.retried), retried, "attempts of device {index}");
        assert!(device.cancel_told <= self.cancels);
        let writable = matches!(device.state, State::Open | State::Greeting | State::Ending)
            && !device.is(flag::BLOCKED);
        let ready = List::<{ link::READY }>::has(&self.devices, index);
        assert!(writable || !ready, "device {index} is ready in {:?}", device.state);
        assert!(
            !writable || device.due == 0 || ready,
            "device {index} has frames due and is not ready: {device:?}"
        );
        let armed = Wheel::<{ link::TIMER }>::due(&self.devices, index);
        let ticking = matches!(device.state, State::Dialling | State::Greeting | State::Open | State::Ending);
        assert!(!ticking || armed.is_some(), "device {index} in {:?} has no timer", device.state);
        assert!(
            armed.is_none_or(|at| at >= self.alarm || self.alarm <= self.now),
            "the alarm comes after a timer"
        );
        if device.state == State::Open && device.due & due::SETTLED == 0 && self.owes_settled(index) {
            assert!(
                List::<{ link::SETTLE }>::has(&self.devices, index),
                "device {index} is not told what is settled"
            );
        }
        if !device.id.is_none() && !device.is(flag::REMOVED) && device.state != State::Free {
            assert_eq!(self.devices.find(device.id), Some(index));
        }
        let transfer = device.transfer.slot;
        if transfer != NONE {
            let order = self.orders.at(transfer);
            assert!(order.blob != 0 && order.mark(index).is_out(), "the transfer of device {index}");
        }
        let untold = flag::DOUBT | flag::ENDED | flag::FORKED | flag::JOURNAL_LOST;
        let begins = device.is(flag::TRACE) && self.devices.sum(index, |track| track.lingering) == 0;
        if device.is(untold) || begins {
            assert!(List::<{ link::TELL }>::has(&self.devices, index));
        }
    }

    /// The bytes not acknowledged in one track.
    fn check_track(&self, index: u32, track: Track) -> u32 {
        let device = self.devices.at(index);
        let state = self.devices.track(index, track);
        let TrackState { held, ended, settled, floor, .. } = *state;
        let mut counted = TrackState { held, ended, settled, floor, ..TrackState::EMPTY };
        let mut bytes = 0;
        let mut slot = self.orders.first_of(track);
        let (mut last, mut pending) = (0, 0);
        while slot != NONE {
            let order = self.orders.at(slot);
            assert!(order.number > last, "{track:?} is not in log order");
            last = order.number;
            let mark = order.mark(index);
            let count = |is: bool, cursor: &mut u32, count: &mut u16| {
                if is {
                    *cursor = if *cursor == NONE { slot } else { *cursor };
                    *count += 1;
                }
            };
            count(mark.is_owed(), &mut counted.next, &mut counted.owed);
            count(mark == Mark::SENT, &mut counted.unreceived, &mut counted.sent);
            count(mark.is_held(), &mut counted.oldest, &mut counted.out);
            counted.lingering += u16::from(mark.is_lingering());
            bytes += if mark == Mark::SENT { order.len } else { 0 };
            assert!(mark != Mark::REPEAT || pending == 0, "a repetition behind a first delivery");
            pending += u32::from(mark == Mark::PENDING);
            let unlogged = mark.is_unlogged() || mark == Mark::RECALLED;
            assert!(!unlogged || track.is_durable(), "an end of the volatile log waits to be logged");
            slot = self.orders.behind(slot);
        }
        assert_eq!(format!("{state:?}"), format!("{counted:?}"), "device {index}, {track:?}");
        assert!(
            device.state != State::Open || state.held >= state.holding(),
            "device {index}, {track:?}: {state:?}"
        );
        assert_eq!(device.owing & track.bit() != 0, state.owed != 0, "device {index}, {track:?}");
        let busy = device.busy & track.bit() != 0;
        assert!(
            busy || state.is_quiet() || device.state != State::Open,
            "device {index}, {track:?}: {state:?}"
        );
        assert!(busy || state.owed == 0 && state.out == 0, "device {index}, {track:?}: {state:?}");
        // Nothing is settled that has not ended for good.
        let lowest = [state.next, state.oldest].into_iter().filter(|&slot| slot != NONE);
        for slot in lowest {
            assert!(self.orders.at(slot).number > state.settled || device.state != State::Open);
        }
        bytes
    }

    fn check_orders(&self) {
        let mut pins = BTreeMap::new();
        for index in 0..self.fresh {
            if let Partial::Order { slot, .. } | Partial::Piece { slot, .. } = self.devices.at(index).partial
            {
                *pins.entry(slot).or_insert(0) += 1;
            }
        }
        let mut used = 0;
        let mut newest = std::collections::BTreeSet::new();
        for slot in 0..self.orders.len() {
            let order = self.orders.at(slot);
            let Some(live) = &order.live else { continue };
            used += 1;
            let marks = live.marks.as_ref().iter().map(|&mark| Mark(mark));
            let open = marks.filter(|&mark| mark != Mark::NOT_TARGETED && !mark.is_final()).count();
            assert_eq!(order.open as usize, open, "order {}", order.number);
            assert_eq!(order.pins, pins.get(&slot).copied().unwrap_or(0), "order {}", order.number);
            assert_eq!(self.orders.find(order.number), Some(slot));
            let untold = live.marks.as_ref().iter().any(|&mark| Mark(mark).is_withdrawn());
            assert!(!untold || List::<{ super::order::link::TELL }>::has(&self.orders, slot));
            assert!(order.cancel_seq <= self.cancels);
            let unsent = live.marks.as_ref().iter().filter(|&&mark| Mark(mark).is_unsent()).count();
            assert_eq!(order.unsent as usize, unsent, "order {}", order.number);
            if order.key.key != 0 {
                let pending =
                    live.marks.as_ref().iter().enumerate().filter(|(_, mark)| **mark == Mark::PENDING.0);
                pending.for_each(|(at, _)| {
                    assert!(
                        newest.insert((order.key.key, at as u32 + live.first)),
                        "two versions of one key wait for a device"
                    )
                });
            }
        }
        assert_eq!(used, self.orders.used);
    }
}
