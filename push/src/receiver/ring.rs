//! Outcomes that ended here and are not known to be safe at the server, in the caller's storage.
//!
//! ```text
//!            head            sent          sent + span             len        capacity
//!  ──────────┼───────────────┼─────────────────┼────────────────────┼────────────┤
//!  settled   │ said in this  │ in the block    │ ended, not said in │ free       │
//!            │ session       │ being written   │ this session       │            │
//! ```
//!
//! Entries stand in the order in which they ended, so each lane stands in log order. SETTLED kills entries where they
//! stand; the gaps are closed when the end of the storage is reached, which costs O(1) per entry because at least half of
//! it is free then. A new session starts again at the first live entry: what SETTLED did not cover is said again.

use wire_format::frame::outcome::Code;
use wire_format::ids::Lane;

use super::floors::Log;

/// One outcome on the device: 16 bytes of the storage given to [`super::Receiver::new`].
#[derive(Clone, Copy, Debug)]
pub struct OutcomeSlot {
    number: u64,
    elapsed_ms: u32,
    code: u8,
    detail: u8,
    log_lane: u8,
    state: u8,
}

const _: () = assert!(size_of::<OutcomeSlot>() == 16);

/// Not covered by SETTLED (or, for a duplicate's answer, not written).
const LIVE: u8 = 0x01;
/// In the block being written: stays where it is, even if it is settled meanwhile.
const WRITING: u8 = 0x02;
/// The answer to a duplicate: gone as soon as it is written, never looked up.
const ANSWER: u8 = 0x04;
/// Ended in the present session: counts against the session's window.
const RECENT: u8 = 0x08;

impl OutcomeSlot {
    /// A free slot, to fill the storage with.
    pub const EMPTY: Self = Self { number: 0, elapsed_ms: 0, code: 0, detail: 0, log_lane: 0, state: 0 };

    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    pub(super) const fn code(&self) -> Code {
        Code(self.code)
    }

    pub(super) const fn detail(&self) -> u8 {
        self.detail
    }

    pub(super) const fn elapsed_ms(&self) -> u32 {
        self.elapsed_ms
    }

    pub(super) fn lane(&self) -> Lane {
        Lane::new(self.log_lane & 0x03).unwrap_or_default()
    }

    const fn is(&self, bits: u8) -> bool {
        self.state & bits == bits
    }

    const fn is_in(&self, log: Log) -> bool {
        self.log_lane >> 2 == log.0
    }

    /// A result of this log and lane that SETTLED has not covered.
    const fn is_owed(&self, log: Log, lane: Lane) -> bool {
        self.state & (LIVE | ANSWER) == LIVE && self.log_lane == pack(log, lane)
    }
}

const fn pack(log: Log, lane: Lane) -> u8 {
    (log.0 << 2) | lane as u8
}

/// How an order ended, before it has a place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    pub(super) log: Log,
    pub(super) lane: Lane,
    pub(super) number: u64,
    pub(super) code: Code,
    pub(super) detail: u8,
    pub(super) elapsed_ms: u32,
}

/// The ring. Its capacity is the storage's length, 65,535 at most.
#[derive(Debug)]
pub(super) struct Ring<R> {
    slots: R,
    head: u16,
    sent: u16,
    span: u16,
    len: u16,
    live: u16,
    recent: u16,
}

impl<R: AsRef<[OutcomeSlot]> + AsMut<[OutcomeSlot]>> Ring<R> {
    pub(super) fn new(mut slots: R) -> Self {
        slots.as_mut().fill(OutcomeSlot::EMPTY);
        Self { slots, head: 0, sent: 0, span: 0, len: 0, live: 0, recent: 0 }
    }

    pub(super) fn capacity(&self) -> u16 {
        u16::try_from(self.slots.as_ref().len()).unwrap_or(u16::MAX)
    }

    /// Entries that are owed to the server, answers to duplicates included.
    pub(super) const fn live(&self) -> u16 {
        self.live
    }

    /// Outcomes of the present session that SETTLED has not covered.
    pub(super) const fn recent(&self) -> u16 {
        self.recent
    }

    /// Whether one more can be kept.
    pub(super) fn has_room(&mut self) -> bool {
        if self.len == self.capacity() {
            self.close_gaps();
        }
        self.len < self.capacity()
    }

    /// Whether an answer to a duplicate waits to be written.
    pub(super) fn has_answers(&self) -> bool {
        self.used().iter().any(|slot| slot.is(LIVE | ANSWER))
    }

    /// Keeps the result of an order of this session. `false` if there is no room.
    pub(super) fn push(&mut self, ending: Ending) -> bool {
        let kept = self.put(ending, LIVE | RECENT);
        self.recent = self.recent.saturating_add(u16::from(kept));
        kept
    }

    /// Answers an order that ended before: DUPLICATE with the code it ended with, 0 if that is forgotten.
    pub(super) fn push_answer(&mut self, log: Log, lane: Lane, number: u64) -> bool {
        let first = self.used().iter().find(|slot| slot.number == number && slot.is_owed(log, lane));
        let detail = first.map_or(0, |slot| slot.code);
        let ending = Ending { log, lane, number, code: Code::DUPLICATE, detail, elapsed_ms: 0 };
        self.put(ending, LIVE | ANSWER)
    }

    fn put(&mut self, ending: Ending, state: u8) -> bool {
        if !self.has_room() {
            return false;
        }
        let Some(slot) = self.slots.as_mut().get_mut(usize::from(self.len)) else { return false };
        *slot = OutcomeSlot {
            number: ending.number,
            elapsed_ms: ending.elapsed_ms,
            code: ending.code.0,
            detail: ending.detail,
            log_lane: pack(ending.log, ending.lane),
            state,
        };
        self.len = self.len.saturating_add(1);
        self.live = self.live.saturating_add(1);
        true
    }

    /// Forgets what the server has logged: all of this lane up to `number`. How many that were.
    ///
    /// Ends at the first entry of the lane above `number`: what it visits is what it frees, and what other lanes owe
    /// between.
    pub(super) fn settle(&mut self, log: Log, lane: Lane, number: u64) -> u16 {
        let (mut settled, mut recent) = (0_u16, 0_u16);
        let head = usize::from(self.head);
        for slot in self.used_mut().iter_mut().skip(head).filter(|slot| slot.is_owed(log, lane)) {
            if slot.number > number {
                break;
            }
            recent = recent.saturating_add(u16::from(slot.is(RECENT)));
            slot.state &= !(LIVE | RECENT);
            settled = settled.saturating_add(1);
        }
        self.recent = self.recent.saturating_sub(recent);
        self.live = self.live.saturating_sub(settled);
        self.skip_dead();
        settled
    }

    /// The lineage behind `log` is gone, and with it whoever waited for its outcomes. How many were dropped.
    pub(super) fn forget(&mut self, log: Log) -> u16 {
        let before = self.live;
        self.drop_where(|slot| slot.is_in(log));
        before.saturating_sub(self.live)
    }

    /// A new session: nothing has been said in it. Answers nobody waits for any more go.
    pub(super) fn rewind(&mut self) {
        (self.sent, self.span) = (0, 0);
        for slot in self.used_mut() {
            slot.state &= !(WRITING | RECENT);
        }
        self.drop_where(|slot| slot.is(ANSWER));
        self.sent = self.head;
    }

    /// Fixes what the next block says: unsaid entries of one of the two logs, at most `max`, in the order they ended. The
    /// log and how many; `None` if nothing of these logs is unsaid.
    pub(super) fn begin_block(&mut self, logs: [Option<Log>; 2], max: u16) -> Option<(Log, u16)> {
        let mut chosen = None;
        let mut count = 0_u16;
        let mut end = self.sent;
        let from = usize::from(self.sent);
        for slot in self.used_mut().iter_mut().skip(from) {
            let log = logs.into_iter().flatten().find(|log| slot.is_in(*log));
            if let (true, Some(log)) = (slot.is(LIVE), log) {
                if count == max || chosen.is_some_and(|chosen| chosen != log) {
                    break;
                }
                chosen = Some(log);
                slot.state |= WRITING;
                count = count.saturating_add(1);
            }
            end = end.saturating_add(1);
        }
        if chosen.is_none() {
            // What stands here is settled, or belongs to lineages this session does not serve.
            self.sent = end;
        }
        self.span = end.saturating_sub(self.sent);
        chosen.map(|log| (log, count))
    }

    /// The block in pieces of at most `max` entries: what one OUTCOME frame holds.
    pub(super) fn pieces(&self, max: u16) -> Pieces<'_> {
        let (from, end) = (usize::from(self.sent), usize::from(self.sent.saturating_add(self.span)));
        Pieces { slots: self.used().get(from..end).unwrap_or(&[]), max: max.max(1) }
    }

    /// The block has left as a whole.
    pub(super) fn end_block(&mut self) {
        let from = usize::from(self.sent);
        let end = self.sent.saturating_add(self.span);
        let mut answers = 0_u16;
        for slot in self.used_mut().get_mut(from..usize::from(end)).unwrap_or(&mut []) {
            if slot.is(WRITING | ANSWER) {
                slot.state = 0;
                answers = answers.saturating_add(1);
            }
            slot.state &= !WRITING;
        }
        self.live = self.live.saturating_sub(answers);
        (self.sent, self.span) = (end, 0);
        self.skip_dead();
    }

    /// The block was given up.
    pub(super) fn drop_block(&mut self) {
        for slot in self.used_mut() {
            slot.state &= !WRITING;
        }
        self.span = 0;
        self.skip_dead();
    }

    fn used(&self) -> &[OutcomeSlot] {
        self.slots.as_ref().get(..usize::from(self.len)).unwrap_or(&[])
    }

    fn used_mut(&mut self) -> &mut [OutcomeSlot] {
        self.slots.as_mut().get_mut(..usize::from(self.len)).unwrap_or(&mut [])
    }

    fn drop_where(&mut self, goes: impl Fn(&OutcomeSlot) -> bool) {
        let (mut live, mut recent) = (0_u16, 0_u16);
        for slot in self.used_mut() {
            if goes(slot) {
                slot.state = 0;
            }
            live = live.saturating_add(u16::from(slot.is(LIVE)));
            recent = recent.saturating_add(u16::from(slot.is(LIVE | RECENT)));
        }
        (self.live, self.recent) = (live, recent);
        self.skip_dead();
    }

    /// Moves `head` to the first live entry, and everything back to the start of the storage if there is none.
    fn skip_dead(&mut self) {
        let dead = |slot: &&OutcomeSlot| slot.state & (LIVE | WRITING) == 0;
        let skipped = self.used().iter().skip(usize::from(self.head)).take_while(dead).count();
        self.head = self.head.saturating_add(u16::try_from(skipped).unwrap_or(u16::MAX));
        if self.head == self.len && self.span == 0 {
            (self.head, self.sent, self.len) = (0, 0, 0);
        }
    }

    /// Moves what is live or being written to the front, in its order.
    fn close_gaps(&mut self) {
        let (mut to, mut sent, mut span) = (0_u16, 0_u16, 0_u16);
        for from in 0..self.len {
            let Some(slot) = self.used().get(usize::from(from)).copied() else { break };
            if slot.state & (LIVE | WRITING) == 0 {
                continue;
            }
            if from < self.sent {
                sent = sent.saturating_add(1);
            } else if from < self.sent.saturating_add(self.span) {
                span = span.saturating_add(1);
            }
            if let Some(place) = self.slots.as_mut().get_mut(usize::from(to)) {
                *place = slot;
            }
            to = to.saturating_add(1);
        }
        (self.head, self.sent, self.span, self.len) = (0, sent, span, to);
    }
}

/// The entries of a block, cut into what fits one OUTCOME frame.
#[derive(Clone, Debug)]
pub(super) struct Pieces<'r> {
    slots: &'r [OutcomeSlot],
    max: u16,
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
pub(super) struct Piece<'r> {
    slots: &'r [OutcomeSlot],
    count: u16,
}

impl<'r> Piece<'r> {
    pub(super) const fn len(&self) -> usize {
        self.count as usize
    }

    /// Lane by lane, each in log order.
    pub(super) fn in_lane_order(self) -> impl Iterator<Item = &'r OutcomeSlot> {
        Lane::ALL.into_iter().flat_map(move |lane| {
            self.slots.iter().filter(move |slot| slot.is(WRITING) && slot.lane() == lane)
        })
    }
}

#[cfg(test)]
mod tests {
    use wire_format::rng::Rng;

    use super::*;

    const LOG: Log = Log(0);
    const OTHER: Log = Log(1);

    fn ending(log: Log, lane: Lane, number: u64) -> Ending {
        Ending { log, lane, number, code: Code::APPLIED, detail: 0, elapsed_ms: 0 }
    }

    /// What is owed, in the order it ended: log, lane, number, said in this session, answer.
    type Model = Vec<(Log, Lane, u64, bool, bool)>;

    fn said(ring: &Ring<[OutcomeSlot; 12]>, max: u16) -> Vec<(Lane, u64)> {
        let pieces = ring.pieces(max).inspect(|piece| assert!((1..=usize::from(max)).contains(&piece.len())));
        pieces
            .flat_map(|piece| {
                let entries: Vec<_> =
                    piece.in_lane_order().map(|slot| (slot.lane(), slot.number())).collect();
                assert_eq!(entries.len(), piece.len());
                assert!(entries.is_sorted_by_key(|(lane, _)| *lane));
                entries
            })
            .collect()
    }

    /// One random step on the ring and on a list; `writing` is what the block under way holds.
    fn step(
        rng: &mut Rng,
        ring: &mut Ring<[OutcomeSlot; 12]>,
        model: &mut Model,
        next: &mut u64,
        writing: &mut Option<Vec<(Lane, u64)>>,
    ) {
        let log = if rng.below(4) == 0 { OTHER } else { LOG };
        let lane = Lane::ALL[rng.below(3) as usize];
        match rng.below(8) {
            0..=2 => {
                *next += 1;
                let room = ring.has_room();
                assert!(room || writing.is_some() || model.len() == 12);
                assert_eq!(ring.push(ending(log, lane, *next)), room);
                if room {
                    model.push((log, lane, *next, false, false));
                }
            }
            3 => {
                let number = rng.below(*next + 1);
                if ring.push_answer(log, lane, number) {
                    model.push((log, lane, number, false, true));
                }
            }
            4 => {
                let number = rng.below(*next + 1);
                let before = model.len();
                model.retain(|(l, a, n, _, answer)| *answer || (*l, *a) != (log, lane) || *n > number);
                assert_eq!(usize::from(ring.settle(log, lane, number)), before - model.len());
            }
            5 if writing.is_none() => {
                let max = 1 + rng.below(5) as u16;
                let unsaid = model.iter_mut().filter(|entry| entry.0 == LOG && !entry.3).take(max.into());
                let expected: Vec<_> = unsaid
                    .map(|entry| {
                        entry.3 = true;
                        (entry.1, entry.2)
                    })
                    .collect();
                let begun = ring.begin_block([Some(LOG), None], max);
                assert_eq!(begun.map_or(0, |(_, count)| usize::from(count)), expected.len());
                *writing = begun.map(|_| expected);
            }
            6 if writing.is_some() => {
                ring.end_block();
                model.retain(|(_, _, _, said, answer)| !(*said && *answer));
                *writing = None;
            }
            7 if rng.below(4) == 0 => {
                ring.drop_block();
                ring.rewind();
                *writing = None;
                model.retain(|entry| !entry.4);
                model.iter_mut().for_each(|entry| entry.3 = false);
            }
            _ => {}
        }
    }

    #[test]
    fn it_does_what_a_list_would_do() {
        for seed in 0..300 {
            let mut rng = Rng::new(seed);
            let mut ring = Ring::new([OutcomeSlot::EMPTY; 12]);
            let (mut model, mut next, mut writing) = (Model::new(), 0, None);
            for _ in 0..400 {
                step(&mut rng, &mut ring, &mut model, &mut next, &mut writing);
                assert_eq!(usize::from(ring.live()), model.len(), "seed {seed}");
                if let Some(expected) = &writing {
                    let mut block = said(&ring, 64);
                    let mut pieces = said(&ring, 2);
                    let mut expected = expected.clone();
                    for list in [&mut block, &mut pieces, &mut expected] {
                        list.sort_unstable();
                    }
                    assert_eq!((&block, &pieces), (&expected, &expected), "seed {seed}");
                }
            }
        }
    }

    #[test]
    fn a_lineage_that_goes_takes_its_outcomes_along() {
        let mut ring = Ring::new([OutcomeSlot::EMPTY; 4]);
        for (log, number) in [(LOG, 1), (OTHER, 1), (LOG, 2), (OTHER, 2)] {
            assert!(ring.push(ending(log, Lane::Normal, number)));
        }
        assert!(!ring.push(ending(LOG, Lane::Normal, 3)));
        assert_eq!((ring.forget(LOG), ring.live(), ring.recent()), (2, 2, 2));
        assert!(ring.push(ending(LOG, Lane::Normal, 3)));
        assert!(ring.push_answer(OTHER, Lane::Normal, 2));
        assert_eq!(ring.begin_block([None, Some(OTHER)], 9), Some((OTHER, 3)));
        let codes: Vec<_> =
            ring.pieces(9).flat_map(Piece::in_lane_order).map(|slot| (slot.code(), slot.detail())).collect();
        assert_eq!(codes, [(Code::APPLIED, 0), (Code::APPLIED, 0), (Code::DUPLICATE, Code::APPLIED.0)]);
    }
}
