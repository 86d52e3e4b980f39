//! The marks of a fleet against the outcomes that were told.
//!
//! Every mark of an order is looked at whenever an outcome of it was told: with ten thousand devices that is ten thousand looks
//! at ten thousand marks, so what the marks have to be is kept as bytes beside them.

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
        let count = self.devices.len();
        // A device that was taken out and listed again has had several places. Behind all: places nobody has.
        let mut by_device = vec![None; count + 1];
        for ((place, device), mark) in self.servers[at].device_of.iter().enumerate().zip(marks) {
            let known = &mut by_device[count.min(*device)];
            if known.is_none_or(|(_, before)| before == Mark::NOT_TARGETED) {
                *known = Some((place, Mark(*mark)));
            }
        }
        let mut meant = vec![false; count + 1];
        self.ledger.targets(order).for_each(|device| meant[device] = true);
        let mut expected = vec![ELSEWHERE; marks.len()];
        for (device, known) in by_device.into_iter().enumerate() {
            let Some((place, mark)) = known else { continue };
            // Of others nothing can have been told: the judge takes no such line.
            let told = if meant[device] { self.ledger.outcome(order, device) } else { None };
            let right = match (meant[device], over || told.is_some()) {
                (false, _) => mark == Mark::NOT_TARGETED,
                (true, true) => mark.code() == told,
                (true, false) => true,
            };
            if !right {
                let detail = format!("the mark is {mark}, told was {told:?}");
                self.ledger.fail(self.now, "MarkDiffers", Some(device), &[order], detail);
            }
            expected[place] = match told {
                Some(code) => code.0,
                None if meant[device] => OPEN,
                None => Mark::NOT_TARGETED.0,
            };
        }
        Expected(expected)
    }
}
