//! Orders that replace each other: of one supersede key a device is owed the newest version only.
//!
//! Live orders with a key hang in hash chains through their slots, so an order costs as much as its key has live versions,
//! however many others there are.

use core::num::NonZeroU64;

use wire_format::frame::outcome::Code;
use wire_format::ids::Lane;
use wire_format::rng::mix;
use wire_format::time::Instant;

use super::Fleet;
use super::devices::DeviceStorage;
use super::event::SubmitFault;
use super::list::NONE;
use super::order::{MarkBytes, OrderStorage, Orders};
use crate::mark::Mark;

/// What an order's frame says about the orders it replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// 0: it replaces none.
    pub(crate) key: u64,
    pub(crate) version: u64,
    /// The order it is another attempt at: its version is not a new one, and its ends are that order's, which counts
    /// them. Said whatever the key is.
    pub(crate) root: Option<NonZeroU64>,
}

impl Key {
    pub(crate) const NONE: Self = Self { key: 0, version: 0, root: None };

    pub(crate) const fn is_retry(self) -> bool {
        self.root.is_some()
    }
}

impl<B: AsRef<[u8]>, M: MarkBytes, O: OrderStorage<B, M>> Orders<O, B, M> {
    /// Makes a live order known by its key, if it has one.
    pub(super) fn index_key(&mut self, slot: u32) {
        let key = self.at(slot).key.key;
        if key != 0 {
            let bucket = self.key_bucket(key);
            let first = core::mem::replace(&mut self.at_mut(bucket).key_bucket, slot);
            self.at_mut(slot).key_chain = first;
        }
    }

    /// Takes an order out of the table of keys.
    pub(super) fn unindex_key(&mut self, slot: u32) {
        let (key, after) = (self.at(slot).key.key, self.at(slot).key_chain);
        if key == 0 {
            return;
        }
        let bucket = self.key_bucket(key);
        let mut at = self.at(bucket).key_bucket;
        if at == slot {
            self.at_mut(bucket).key_bucket = after;
            return;
        }
        while at != NONE {
            let chain = self.at(at).key_chain;
            if chain == slot {
                self.at_mut(at).key_chain = after;
                return;
            }
            at = chain;
        }
    }

    /// The live order with this key after `slot` in the chain (from the start after NONE), or NONE.
    pub(super) fn next_version(&self, key: u64, slot: u32) -> u32 {
        let start =
            if slot == NONE { self.at(self.key_bucket(key)).key_bucket } else { self.at(slot).key_chain };
        let mut at = start;
        while at != NONE && self.at(at).key.key != key {
            at = self.at(at).key_chain;
        }
        at
    }

    fn key_bucket(&self, key: u64) -> u32 {
        u32::try_from(mix(key).checked_rem(u64::from(self.len())).unwrap_or(0)).unwrap_or(0)
    }
}

impl<D: DeviceStorage, O: OrderStorage<B, M>, B: AsRef<[u8]>, M: MarkBytes> Fleet<D, O, B, M> {
    /// Whether an order may stand beside the live ones of its key.
    pub(super) fn check_key(&self, key: Key, lane: Lane, deadline: Instant) -> Result<(), SubmitFault> {
        let mut slot = self.first_version(key);
        let mut last = None;
        while slot != NONE {
            let order = self.orders.at(slot);
            if order.open != 0 {
                if order.track.lane() != lane {
                    return Err(SubmitFault::KeyLane { lane: order.track.lane() });
                }
                if !key.is_retry() && key.version > order.key.version && deadline < order.deadline {
                    return Err(SubmitFault::ShorterLife);
                }
                last = last.max(Some(order.key.version));
            }
            slot = self.orders.next_version(key.key, slot);
        }
        match last {
            Some(last) if !key.is_retry() && key.version <= last => {
                Err(SubmitFault::VersionNotRising { last })
            }
            _ => Ok(()),
        }
    }

    /// Ends what an order replaces on the devices it is meant for, as its marks say: older versions that wait to be sent, for
    /// the first time or for another attempt. The marks are the new order's, not submitted yet.
    pub(super) fn overtake(
        &mut self,
        key: Key,
        first: u32,
        marks: &[u8],
        meant: impl Fn(Mark) -> bool + Copy,
    ) {
        let mut slot = self.first_version(key);
        while slot != NONE {
            let order = self.orders.at(slot);
            let older = order.unsent != 0 && order.key.version < key.version;
            if older && self.overtake_one(slot, first, marks, meant) {
                self.sweep_again(slot);
            }
            slot = self.orders.next_version(key.key, slot);
        }
    }

    fn overtake_one(&mut self, slot: u32, first: u32, marks: &[u8], meant: impl Fn(Mark) -> bool) -> bool {
        let mut any = false;
        for (index, &mark) in (first..).zip(marks) {
            if meant(Mark(mark)) && self.orders.at(slot).mark(index).is_unsent() {
                self.mark_withdrawn(index, slot, Mark::OVERTAKEN);
                any = true;
            }
        }
        any
    }

    /// Whether a newer version is on its way to this device, or was applied there.
    pub(super) fn is_overtaken(&self, key: Key, index: u32) -> bool {
        let mut slot = self.first_version(key);
        while slot != NONE {
            let order = self.orders.at(slot);
            let mark = order.mark(index);
            let ended = mark.code().or_else(|| mark.unlogged_code());
            let tried_again = mark.unlogged_code().is_some_and(Code::is_attempt_end);
            let counts = mark.is_owed() || mark.is_out() || mark.is_retried() || tried_again;
            let counts = counts || ended == Some(Code::APPLIED);
            if order.key.version > key.version && counts {
                return true;
            }
            slot = self.orders.next_version(key.key, slot);
        }
        false
    }

    fn first_version(&self, key: Key) -> u32 {
        if key.key == 0 { NONE } else { self.orders.next_version(key.key, NONE) }
    }
}
