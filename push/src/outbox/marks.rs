//! How an order stands with each of its targets.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 1 | mark | PENDING, RETRY_BUSY, RETRY_NO_SPACE, RETRY_FAILED, RETRYING, or the number of a final outcome |
//! | 1 | – | targets | the devices it stands so with |
//!
//! Each mark once, rising; each device once; how many such groups there are stands in the record.

use std::collections::BTreeMap;

use wire_format::bytes::Reader;
use wire_format::error::{Fault, ParseError};

use super::targets::Targets;
use crate::mark::Mark;

/// A mark for each target: what [`Targets`] takes, and one byte per target unless all are the same.
#[derive(Clone, Debug)]
pub struct Marks {
    targets: Targets,
    each: Each,
}

#[derive(Clone, Debug)]
enum Each {
    Same(Mark),
    /// By rank.
    Own(Box<[Mark]>),
}

impl PartialEq for Marks {
    /// However they are kept: marks that became the same one by one are the same.
    fn eq(&self, other: &Self) -> bool {
        self.targets == other.targets && self.iter().eq(other.iter())
    }
}

impl Eq for Marks {}

/// Whether a mark may stand in a log.
const fn is_kept(mark: Mark) -> bool {
    matches!(mark, Mark::PENDING) || mark.is_retried() || is_over(mark)
}

/// Whether it is the number of an outcome.
pub(super) const fn is_over(mark: Mark) -> bool {
    matches!(mark.0, 1..=9 | 16..=18 | 32..=37)
}

impl Marks {
    /// The same mark for all.
    #[must_use]
    pub const fn same(targets: Targets, mark: Mark) -> Self {
        Self { targets, each: Each::Same(mark) }
    }

    /// The devices.
    #[must_use]
    pub const fn targets(&self) -> &Targets {
        &self.targets
    }

    /// How it stands with this device; `None` if it is no target.
    #[must_use]
    pub fn get(&self, device: u32) -> Option<Mark> {
        self.at(self.targets.rank(device)?)
    }

    fn at(&self, rank: usize) -> Option<Mark> {
        match &self.each {
            Each::Same(mark) => Some(*mark),
            Each::Own(marks) => marks.get(rank).copied(),
        }
    }

    /// Every device and its mark, devices rising.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Mark)> + '_ {
        self.targets.iter().enumerate().filter_map(|(rank, device)| Some((device, self.at(rank)?)))
    }

    /// How many stand so.
    #[must_use]
    pub fn count(&self, is: impl Fn(Mark) -> bool) -> usize {
        match &self.each {
            Each::Same(mark) => usize::from(is(*mark)) * self.targets.len(),
            Each::Own(marks) => marks.iter().filter(|mark| is(**mark)).count(),
        }
    }

    /// Changes the mark of a target to `to`, if the mark it has `may` change; whether it did.
    pub(super) fn change(&mut self, device: u32, to: Mark, may: impl Fn(Mark) -> bool) -> bool {
        let Some(rank) = self.targets.rank(device) else { return false };
        if !self.at(rank).is_some_and(may) {
            return false;
        }
        match &mut self.each {
            Each::Same(mark) if self.targets.len() == 1 => *mark = to,
            Each::Same(mark) if *mark == to => {}
            Each::Same(mark) => {
                let mut marks = vec![*mark; self.targets.len()].into_boxed_slice();
                marks.iter_mut().skip(rank).take(1).for_each(|mark| *mark = to);
                self.each = Each::Own(marks);
            }
            Each::Own(marks) => marks.iter_mut().skip(rank).take(1).for_each(|mark| *mark = to),
        }
        true
    }

    /// Writes the groups behind what is there; how many there are.
    pub(super) fn emit(&self, into: &mut Vec<u8>) -> u8 {
        if let Each::Same(mark) = self.each {
            into.push(mark.0);
            self.targets.emit(into);
            return 1;
        }
        let mut groups = BTreeMap::<u8, Vec<u32>>::new();
        self.iter().for_each(|(device, mark)| groups.entry(mark.0).or_default().push(device));
        let mut count = 0;
        for (mark, devices) in groups {
            if let Some(targets) = Targets::from_sorted(devices) {
                into.push(mark);
                targets.emit(into);
                count += 1;
            }
        }
        count
    }

    /// Reads `count` groups.
    pub(super) fn parse(reader: &mut Reader<'_>, count: u8) -> Result<Self, ParseError> {
        let start = *reader;
        let (first, targets) = parse_group(reader, 0)?;
        if count <= 1 {
            return if count == 1 {
                Ok(Self::same(targets, first))
            } else {
                Err(start.error("groups", Fault::Range))
            };
        }
        let mut all: Vec<_> = targets.iter().map(|device| (device, first)).collect();
        let mut before = first.0;
        for _ in 1..count {
            let (mark, targets) = parse_group(reader, before)?;
            before = mark.0;
            all.extend(targets.iter().map(|device| (device, mark)));
        }
        all.sort_unstable_by_key(|(device, _)| *device);
        let targets = Targets::from_sorted(all.iter().map(|(device, _)| *device));
        let targets = targets.ok_or_else(|| start.error("targets", Fault::Repeated))?;
        let marks = all.into_iter().map(|(_, mark)| mark).collect();
        Ok(Self { targets, each: Each::Own(marks) })
    }
}

fn parse_group(reader: &mut Reader<'_>, before: u8) -> Result<(Mark, Targets), ParseError> {
    let start = *reader;
    let mark = Mark(reader.u8("mark")?);
    if !is_kept(mark) || mark.0 <= before {
        return Err(start.error("mark", Fault::Range));
    }
    Ok((mark, Targets::parse(reader)?))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEPT: [Mark; 8] = [
        Mark(1),
        Mark(9),
        Mark(16),
        Mark(37),
        Mark::PENDING,
        Mark::RETRY_BUSY,
        Mark::RETRYING,
        Mark::RETRY_FAILED,
    ];

    pub(in crate::outbox) fn marks() -> impl Strategy<Value = Marks> {
        let devices = proptest::collection::btree_map(0_u32..2_000, 0_usize..8, 1..60);
        (devices, any::<bool>()).prop_map(|(devices, same)| {
            let targets = Targets::from_sorted(devices.keys().copied()).unwrap();
            let mut marks = Marks::same(targets, KEPT[devices.len() % 8]);
            for (device, mark) in devices.into_iter().filter(|_| !same) {
                assert!(marks.change(device, KEPT[mark], |_| true));
                assert_eq!(marks.get(device), Some(KEPT[mark]));
            }
            marks
        })
    }

    proptest! {
        #[test]
        fn marks_come_back(marks in marks()) {
            let mut bytes = vec![];
            let count = marks.emit(&mut bytes);
            let read = Marks::parse(&mut Reader::new(&bytes), count).unwrap();
            prop_assert!(read.iter().eq(marks.iter()));
            let open = |mark: Mark| !is_over(mark);
            prop_assert_eq!(read.count(open), marks.iter().filter(|(_, mark)| open(*mark)).count());
            prop_assert!(Marks::parse(&mut Reader::new(&bytes), count + 1).is_err());
            prop_assert!(Marks::parse(&mut Reader::new(&bytes), 0).is_err());
        }
    }

    #[test]
    fn only_what_may_change_changes() {
        let mut marks = Marks::same(Targets::from_sorted([1, 5]).unwrap(), Mark::PENDING);
        assert!(!marks.change(2, Mark(1), |_| true), "no target");
        assert!(marks.change(5, Mark(1), |mark| !is_over(mark)));
        assert!(!marks.change(5, Mark(2), |mark| !is_over(mark)), "an end is an end");
        assert_eq!(marks.iter().collect::<Vec<_>>(), [(1, Mark::PENDING), (5, Mark(1))]);
    }

    #[test]
    fn marks_that_became_the_same_are_the_same() {
        let targets = || Targets::from_sorted([1, 5]).unwrap();
        let mut marks = Marks::same(targets(), Mark::PENDING);
        for device in [1, 5] {
            assert_ne!(marks, Marks::same(targets(), Mark(1)));
            assert!(marks.change(device, Mark(1), |_| true));
        }
        assert_eq!(marks, Marks::same(targets(), Mark(1)));
        assert_ne!(marks, Marks::same(Targets::from_sorted([1, 6]).unwrap(), Mark(1)));
    }

    #[test]
    fn two_marks_for_a_device_are_refused() {
        let group = |mark: u8| [mark, 1, 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0];
        let read = |groups: &[[u8; 13]]| Marks::parse(&mut Reader::new(&groups.concat()), groups.len() as u8);
        assert!(read(&[group(1)]).is_ok());
        assert_eq!(read(&[group(1), group(2)]).unwrap_err().fault, Fault::Repeated);
        assert_eq!(read(&[group(2), group(1)]).unwrap_err().fault, Fault::Range);
        assert_eq!(read(&[group(Mark::SENT.0)]).unwrap_err().fault, Fault::Range);
    }
}
