//! The marks of a fleet against the outcomes that were told.
//!
//! Every mark of an order is looked at whenever an outcome of it was told: with ten thousand devices that is ten thousand looks
//! at ten thousand marks, so what the marks have to be is kept as bytes beside them.

use std::collections::BTreeMap;

use push::Mark;

use super::world::World;
use crate::history::OrderId;

/// Told was nothing yet: the mark may be ahead of that.
const OPEN: u8 = 0xFF;
/// The device has another place of which the mark counts.
const ELSEWHERE: u8 = 0xFE;

/// By place in the fleet: the byte that the mark of an order has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expected(Vec<u8>);

impl Expected {
    fn agrees(&self, marks: &[u8]) -> bool {
        let agree = |(mark, expected): (&u8, &u8)| *expected >= ELSEWHERE || mark == expected;
        // Without a way out in the middle: so it is some bytes at a time.
        self.0.len() == marks.len() && marks.iter().zip(&self.0).fold(true, |all, pair| all & agree(pair))
    }
}

impl World {
    /// What was told of an order on a device is what its mark has to be from now on.
    pub(super) fn expect_mark(&mut self, at: usize, order: OrderId, device: usize) {
        let told = self.ledger.outcome(order, device);
        let server = &mut self.servers[at];
        let (Some(Expected(expected)), Some(code)) = (server.expected.get_mut(&order.number), told) else {
            return;
        };
        for (expected, of) in expected.iter_mut().zip(&server.device_of) {
            if *of == device && *expected != ELSEWHERE {
                *expected = code.0;
            }
        }
    }

    /// Marks of an order and the outcomes told agree.
    pub(super) fn check_marks(&mut self, at: usize, number: u64) {
        let server = &self.servers[at];
        let Some((_, marks)) = server.fleet.as_ref().and_then(|fleet| fleet.marks(number)) else { return };
        let agrees = server.expected.get(&number).is_some_and(|expected| expected.agrees(marks));
        // Tests look at all of it every time.
        if agrees && !cfg!(debug_assertions) {
            return;
        }
        let marks = marks.to_vec();
        let expected = self.compare_marks(at, server.order(number), &marks, false);
        debug_assert!(!agrees || self.servers[at].expected.get(&number) == Some(&expected));
        self.servers[at].expected.insert(number, expected);
    }

    /// Holds every mark of an order against what was told; what they have to be as far as that goes.
    pub(super) fn compare_marks(&mut self, at: usize, order: OrderId, marks: &[u8], over: bool) -> Expected {
        // A device that was taken out and listed again has had several places.
        let mut by_device = BTreeMap::new();
        for ((place, device), mark) in self.servers[at].device_of.iter().enumerate().zip(marks) {
            let known = by_device.entry(*device).or_insert((place, Mark(*mark)));
            *known = if known.1 == Mark::NOT_TARGETED { (place, Mark(*mark)) } else { *known };
        }
        let mut expected = vec![ELSEWHERE; marks.len()];
        for (device, (place, mark)) in by_device {
            let told = self.ledger.outcome(order, device);
            let is_target = self.ledger.is_target(order, device);
            let right = match (is_target, over || told.is_some()) {
                (false, _) => (mark, told) == (Mark::NOT_TARGETED, None),
                (true, true) => mark.code() == told,
                (true, false) => true,
            };
            if !right {
                let detail = format!("the mark is {mark}, told was {told:?}");
                self.ledger.fail(self.now, "MarkDiffers", Some(device), &[order], detail);
            }
            expected[place] = match told {
                Some(code) => code.0,
                None if is_target => OPEN,
                None => Mark::NOT_TARGETED.0,
            };
        }
        Expected(expected)
    }
}
