//! The power goes at every step.

use proptest::prelude::*;

use super::*;

/// What must be found, and what may be found instead if the last call did not return.
struct Model {
    synced: Records,
    perhaps: Option<Records>,
    next: u32,
}

impl Model {
    fn new() -> Self {
        Self { synced: Vec::new(), perhaps: None, next: 0 }
    }

    /// Appends, or replaces everything by the last `keep` records. False once the power is gone.
    fn step(&mut self, flash: &mut Flash, replace: bool, keep: usize) -> bool {
        let mut after = self.synced.clone();
        let done = if replace || flash.wants_snapshot() {
            after.drain(..after.len().saturating_sub(keep));
            flash.replace(&mut snapshot(&after))
        } else {
            after.push(record(self.next));
            self.next += 1;
            flash.append(after.last().unwrap())
        };
        match done {
            Ok(()) => self.synced = after,
            Err(error) => {
                assert_eq!(error, FlashError::Pages(Cut), "nothing else goes wrong");
                self.perhaps = Some(after);
            }
        }
        done.is_ok()
    }

    /// After a boot: one of the two, and from now on that one.
    fn found(&mut self, found: Found, told: &Records) {
        assert_ne!(found, Found::Damaged, "a power cut damages nothing that was synced");
        if *told != self.synced {
            assert_eq!(Some(told), self.perhaps.as_ref(), "synced is {:?}", self.synced);
        }
        assert!(found == Found::Whole || told.is_empty());
        self.synced.clone_from(told);
        self.perhaps = None;
    }
}

/// Boots until it is up, with the power going again where `cuts` says so.
fn boot(mut chip: Chip, model: &mut Model, cuts: &mut impl Iterator<Item = (u64, u64)>) -> Flash {
    loop {
        chip.boot();
        if let Some((after, seed)) = cuts.next() {
            chip.cut_after(after, seed);
        }
        let mut flash = Flash::new(chip).unwrap();
        let mut told = Vec::new();
        match flash.replay(&mut |record| told.push(record.to_vec())) {
            Ok(found) => {
                model.found(found, &told);
                return flash;
            }
            Err(error) => {
                assert_eq!(error, FlashError::Pages(Cut));
                chip = flash.into_pages();
            }
        }
    }
}

/// A fixed run that appends, fills pages and replaces, cut at its step `at`; then on for a while. False if it ended before.
fn cut_once(shape: FlashShape, at: u64, seed: u64) -> bool {
    let mut model = Model::new();
    let mut flash = boot(Chip::new(shape), &mut model, &mut core::iter::empty());
    flash.pages.cut_after(at, seed);
    let mut steps = 0..60;
    while steps.next().is_some_and(|step| model.step(&mut flash, step % 23 == 22, 3)) {}
    let cut = flash.pages.is_dark();
    let mut flash = boot(flash.into_pages(), &mut model, &mut core::iter::empty());
    for step in 0..20 {
        assert!(model.step(&mut flash, step == 7, 2));
    }
    let (_, found, told) = reopened(flash);
    assert_eq!((found, told), (Found::Whole, model.synced));
    cut
}

#[test]
fn a_cut_at_every_step_loses_nothing_that_was_synced() {
    for (pages, unit_bytes) in [(2, 1), (2, 8), (2, 32), (3, 4), (5, 16)] {
        let shape = FlashShape { pages, unit_bytes, ..SMALL };
        let mut at = 0;
        while cut_once(shape, at, at) {
            // Units of one byte are thousands: every seventh of them, which passes through all places of a record.
            at += if unit_bytes == 1 { 7 } else { 1 };
        }
        assert!(at > 100, "{pages} pages, units of {unit_bytes}: {at} steps");
    }
}

#[test]
fn a_first_snapshot_that_is_cut_is_no_damage() {
    for at in 0.. {
        let mut flash = new(SMALL);
        flash.pages.cut_after(at, at);
        let done = flash.replace(&mut snapshot(&records(0..5))).is_ok();
        let (_, found, told) = reopened(flash);
        assert!(found == Found::New || found == Found::Whole, "{found:?} at {at}");
        assert!(told.is_empty() || told == records(0..5), "{told:?} at {at}");
        if done {
            break;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Cut after cut, also while it boots.
    #[test]
    fn after_any_cuts_everything_synced_is_there_and_nothing_invented(
        pages in 2_u32..6,
        unit in 0_u32..6,
        cuts in prop::collection::vec((0_u64..200, any::<u64>()), 1..30),
        steps in prop::collection::vec((0_u8..20, 0_usize..6), 1..120),
    ) {
        let mut model = Model::new();
        let mut cuts = cuts.into_iter();
        let shape = FlashShape { pages, unit_bytes: 1 << unit, ..SMALL };
        let mut flash = boot(Chip::new(shape), &mut model, &mut cuts);
        for (kind, keep) in steps {
            if !model.step(&mut flash, kind == 0, keep) {
                flash = boot(flash.into_pages(), &mut model, &mut cuts);
            }
        }
        let flash = boot(flash.into_pages(), &mut model, &mut core::iter::empty());
        prop_assert_eq!(reopened(flash).2, model.synced);
    }
}
