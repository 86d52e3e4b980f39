//! The ring against a list.

use wire_format::rng::Rng;

use super::pieces::Piece;
use super::*;

const LOG: Log = Log(0);
const OTHER: Log = Log(1);
const SLOTS: usize = 12;

type TheRing = Ring<[OutcomeSlot; SLOTS]>;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Waiting,
    Started,
    Ended,
    Answer,
}

/// What a list keeps of an order.
#[derive(Clone, Copy, Debug)]
struct Kept {
    place: Place,
    stage: Stage,
    said: bool,
    recent: bool,
}

/// The list, in the order of receipt, and what the block being written says.
#[derive(Default)]
struct Model {
    kept: Vec<Kept>,
    writing: Option<Vec<(Lane, u64)>>,
    next: u64,
}

impl Model {
    fn is_held(&self, at: usize) -> bool {
        let place = self.kept[at].place;
        self.kept[..at].iter().any(|kept| {
            (kept.place.log, kept.place.lane) == (place.log, place.lane)
                && matches!(kept.stage, Stage::Waiting | Stage::Started)
        })
    }

    /// What a block says next, of the first log that has something to say.
    fn unsaid(&self, max: usize) -> Vec<usize> {
        let ready = |at: &usize| {
            let kept = self.kept[*at];
            matches!(kept.stage, Stage::Ended | Stage::Answer)
                && kept.place.log == LOG
                && !kept.said
                && (kept.stage == Stage::Answer || !self.is_held(*at))
        };
        (0..self.kept.len()).filter(ready).take(max).collect()
    }

    fn pick(&self, rng: &mut Rng, stage: Stage) -> Option<usize> {
        let found: Vec<_> = (0..self.kept.len()).filter(|at| self.kept[*at].stage == stage).collect();
        (!found.is_empty()).then(|| found[rng.below(found.len() as u64) as usize])
    }
}

fn said(ring: &TheRing, max: u16) -> Vec<(Lane, u64)> {
    let pieces = ring.pieces(max).inspect(|piece| assert!((1..=usize::from(max)).contains(&piece.len())));
    pieces
        .flat_map(|piece| {
            let entries: Vec<_> = piece.in_lane_order().map(|slot| (slot.lane(), slot.number())).collect();
            assert_eq!(entries.len(), piece.len());
            assert!(entries.is_sorted_by_key(|(lane, _)| *lane));
            entries
        })
        .collect()
}

fn end(ring: &mut TheRing, place: Place) {
    assert!(ring.end(place, 0, Code::APPLIED, 0, None));
    ring.release(place.log, place.lane, Note::NONE);
}

/// One random step on both.
fn step(rng: &mut Rng, ring: &mut TheRing, model: &mut Model) {
    let log = if rng.below(4) == 0 { OTHER } else { LOG };
    let lane = Lane::ALL[rng.below(3) as usize];
    match rng.below(10) {
        0..=2 => {
            model.next += 1;
            let place = Place { log, lane, number: model.next };
            let room = ring.has_room();
            assert!(room || model.writing.is_some() || model.kept.len() == SLOTS);
            assert_eq!(ring.open(place, 0), room);
            if room {
                model.kept.push(Kept { place, stage: Stage::Waiting, said: false, recent: true });
            }
        }
        3 => {
            if let Some(at) = model.pick(rng, Stage::Waiting) {
                ring.start(model.kept[at].place);
                model.kept[at].stage = Stage::Started;
            }
        }
        4 => {
            let stage = if rng.below(2) == 0 { Stage::Waiting } else { Stage::Started };
            if let Some(at) = model.pick(rng, stage) {
                end(ring, model.kept[at].place);
                model.kept[at].stage = Stage::Ended;
            }
        }
        5 => {
            let place = Place { log, lane, number: rng.below(model.next + 1) };
            if ring.push_answer(place) {
                model.kept.push(Kept { place, stage: Stage::Answer, said: false, recent: false });
            }
        }
        6 => {
            let number = rng.below(model.next + 1);
            let goes = |kept: &Kept| {
                kept.stage != Stage::Answer
                    && (kept.place.log, kept.place.lane) == (log, lane)
                    && kept.place.number <= number
            };
            let open = |kept: &&Kept| goes(kept) && kept.stage != Stage::Ended;
            let open = model.kept.iter().filter(open).count();
            let before = model.kept.len();
            model.kept.retain(|kept| !goes(kept));
            let freed = ring.settle(log, lane, number);
            ring.release(log, lane, Note::NONE);
            assert_eq!(usize::from(freed.open), open);
            assert_eq!(usize::from(freed.ended), before - model.kept.len() - open);
        }
        7 if model.writing.is_none() => {
            let max = 1 + rng.below(5) as u16;
            let unsaid = model.unsaid(max.into());
            let begun = ring.begin_block([Some(LOG), None], max);
            assert_eq!(begun.map_or(0, |(_, count)| usize::from(count)), unsaid.len());
            let entry = |at: &usize| (model.kept[*at].place.lane, model.kept[*at].place.number);
            model.writing = begun.map(|_| unsaid.iter().map(entry).collect());
            for at in unsaid {
                model.kept[at].said = true;
            }
        }
        8 if model.writing.is_some() => {
            ring.end_block();
            model.kept.retain(|kept| !(kept.said && kept.stage == Stage::Answer));
            model.writing = None;
        }
        9 if rng.below(4) == 0 => {
            ring.drop_block();
            ring.rewind();
            model.writing = None;
            let held: Vec<_> = (0..model.kept.len()).map(|at| model.is_held(at)).collect();
            let mut at = 0;
            model.kept.retain(|kept| {
                at += 1;
                kept.stage == Stage::Started || kept.stage == Stage::Ended && !held[at - 1]
            });
            model.kept.iter_mut().for_each(|kept| (kept.said, kept.recent) = (false, false));
        }
        _ => {}
    }
}

#[test]
fn it_does_what_a_list_would_do() {
    for seed in 0..400 {
        let mut rng = Rng::new(seed);
        let mut ring = Ring::new([OutcomeSlot::EMPTY; SLOTS]);
        let mut model = Model::default();
        for _ in 0..400 {
            step(&mut rng, &mut ring, &mut model);
            assert_eq!(usize::from(ring.live()), model.kept.len(), "seed {seed}");
            let recent = model.kept.iter().filter(|kept| kept.recent).count();
            assert_eq!(usize::from(ring.recent()), recent, "seed {seed}");
            let Some(expected) = &model.writing else { continue };
            let (mut block, mut pieces) = (said(&ring, 64), said(&ring, 2));
            let mut expected = expected.clone();
            for list in [&mut block, &mut pieces, &mut expected] {
                list.sort_unstable();
            }
            assert_eq!((&block, &pieces), (&expected, &expected), "seed {seed}");
        }
    }
}

fn place(log: Log, number: u64) -> Place {
    Place { log, lane: Lane::Normal, number }
}

#[test]
fn a_lineage_that_goes_takes_its_outcomes_along() {
    let mut ring = Ring::new([OutcomeSlot::EMPTY; 4]);
    for (log, number) in [(LOG, 1), (OTHER, 1), (LOG, 2), (OTHER, 2)] {
        assert!(ring.open(place(log, number), 0));
        assert!(ring.end(place(log, number), 0, Code::APPLIED, 0, None));
        ring.release_one(place(log, number), Note::NONE);
    }
    assert!(!ring.open(place(LOG, 3), 0));
    assert_eq!((ring.forget(LOG), ring.live(), ring.recent()), (2, 2, 2));
    assert!(ring.open(place(LOG, 3), 0));
    assert!(ring.push_answer(place(OTHER, 2)));
    assert_eq!(ring.begin_block([None, Some(OTHER)], 9), Some((OTHER, 3)));
    let codes: Vec<_> =
        ring.pieces(9).flat_map(Piece::in_lane_order).map(|slot| (slot.code(), slot.detail())).collect();
    assert_eq!(codes, [(Code::APPLIED, 0), (Code::APPLIED, 0), (Code::DUPLICATE, Code::APPLIED.0)]);
}

#[test]
fn what_ended_early_is_held_until_what_came_before_it_has_ended() {
    let mut ring = Ring::new([OutcomeSlot::EMPTY; 8]);
    for number in 1..=4 {
        assert!(ring.open(place(LOG, number), 1_000));
    }
    ring.start(place(LOG, 1));
    assert!(ring.end(place(LOG, 3), 1_500, Code::CANCELLED, 0, None));
    assert_eq!(ring.release(LOG, Lane::Normal, Note::NONE), None);
    assert_eq!(ring.begin_block([Some(LOG), None], 9), None);
    assert!(ring.end(place(LOG, 1), 2_000, Code::APPLIED, 0, None));
    assert_eq!(ring.release(LOG, Lane::Normal, Note::NONE), Some(1));
    assert_eq!(ring.begin_block([Some(LOG), None], 9), Some((LOG, 1)));
    ring.end_block();
    assert!(ring.end(place(LOG, 2), 3_000, Code::BUSY, 0, Some(250)));
    assert_eq!(ring.release(LOG, Lane::Normal, Note::NONE), Some(3));
    assert_eq!(ring.begin_block([Some(LOG), None], 9), Some((LOG, 2)));
    let told: Vec<_> =
        ring.pieces(9).flat_map(Piece::in_lane_order).map(|slot| (slot.number(), slot.ms())).collect();
    assert_eq!(told, [(2, 250), (3, 500)]);
    // What ends twice, or is not there, changes nothing.
    assert!(!ring.end(place(LOG, 2), 0, Code::APPLIED, 0, None));
    assert!(!ring.end(place(OTHER, 4), 0, Code::APPLIED, 0, None));
}

#[test]
fn a_new_session_keeps_what_is_at_work_and_what_is_owed() {
    let mut ring = Ring::new([OutcomeSlot::EMPTY; SLOTS]);
    for number in 1..=4 {
        assert!(ring.open(place(LOG, number), 0));
    }
    end(&mut ring, place(LOG, 1));
    ring.start(place(LOG, 2));
    assert!(ring.end(place(LOG, 4), 0, Code::EXPIRED, 0, None));
    ring.rewind();
    let left: Vec<_> = (1..=4).filter(|number| ring.by_number(LOG, *number).is_some()).collect();
    assert_eq!((left, ring.live(), ring.recent()), (vec![1, 2], 2, 0));
    assert_eq!(ring.receive_again(place(LOG, 2)), Some(()));
    assert_eq!((ring.receive_again(place(LOG, 3)), ring.recent()), (None, 1));
}
