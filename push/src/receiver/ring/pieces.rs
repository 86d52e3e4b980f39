//! A block of outcomes, cut into OUTCOME frames.

use wire_format::ids::Lane;

use super::{OutcomeSlot, WRITING};

/// The entries of a block, cut into what fits one OUTCOME frame.
#[derive(Clone, Debug)]
pub(in super::super) struct Pieces<'r> {
    pub(super) slots: &'r [OutcomeSlot],
    pub(super) max: u16,
}

impl<'r> Iterator for Pieces<'r> {
    type Item = Piece<'r>;

    fn next(&mut self) -> Option<Piece<'r>> {
        let (mut count, mut end) = (0_u16, 0_usize);
        for slot in self.slots {
            if slot.is(WRITING) {
                if count == self.max {
                    break;
                }
                count = count.saturating_add(1);
            }
            end = end.saturating_add(1);
        }
        let (piece, rest) = self.slots.split_at_checked(end)?;
        self.slots = rest;
        (count > 0).then_some(Piece { slots: piece, count })
    }
}

/// The entries of one OUTCOME frame.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Piece<'r> {
    slots: &'r [OutcomeSlot],
    count: u16,
}

impl<'r> Piece<'r> {
    pub(in super::super) const fn len(&self) -> usize {
        self.count as usize
    }

    /// Lane by lane, each in log order.
    pub(in super::super) fn in_lane_order(self) -> impl Iterator<Item = &'r OutcomeSlot> {
        Lane::ALL.into_iter().flat_map(move |lane| {
            self.slots.iter().filter(move |slot| slot.is(WRITING) && slot.lane() == lane)
        })
    }
}
