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
