//! Sets of device numbers: whom an order is for.
//!
//! In memory a set is one number, or its runs, or a bitmap, whichever is least; on disk it is:
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 1 | form | 1 LIST, 2 RUNS, 3 BITS; any of them is read, the shortest is written |
//! | 1 | 3 | – | zero |
//! | 4 | 4 | count | LIST: numbers; RUNS: runs; BITS: bytes of the bitmap; at least 1 |
//! | 8 | – | LIST | 4 bytes each: the numbers, rising |
//! | 8 | – | RUNS | 8 bytes each: first and last number of a run; between two runs at least one number is missing |
//! | 8 | – | BITS | 4 bytes: the number of the first bit; then the bitmap, lowest bit first; first and last byte are not zero |
//!
//! Every number is below [`DEVICES_MAX`].

use wire_format::bytes::Reader;
use wire_format::error::{Fault, ParseError};

/// Device numbers there may be: six times the largest store, so that numbers of removed devices need not be given again at
/// once. One order's targets take 64 KiB at most.
pub const DEVICES_MAX: u32 = 65_536;

const LIST: u8 = 1;
const RUNS: u8 = 2;
const BITS: u8 = 3;

/// Device numbers, each once, at least one: 24 bytes and, unless it is a single one, 12 bytes per run of consecutive numbers
/// or an eighth of a byte per number between the first and the last, whichever is less.
///
/// ```
/// use push::outbox::Targets;
/// let targets = Targets::from_sorted([3, 4, 5, 9]).unwrap();
/// assert_eq!(targets.len(), 4);
/// assert!(targets.contains(5) && !targets.contains(6));
/// assert!(Targets::from_sorted([4, 4]).is_none());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets(Form);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    One(u32),
    Runs(Box<[Run]>),
    Bits(Box<Bits>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: u32,
    last: u32,
    /// Numbers in the runs before it.
    rank: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Bits {
    /// A multiple of 64.
    first: u32,
    words: Box<[u64]>,
    len: u32,
}

impl Targets {
    /// This one number; `None` if it is not below [`DEVICES_MAX`].
    #[must_use]
    pub const fn one(device: u32) -> Option<Self> {
        if device < DEVICES_MAX { Some(Self(Form::One(device))) } else { None }
    }

    /// The given numbers; `None` if there are none, if they do not rise, or if one is not below [`DEVICES_MAX`].
    #[must_use]
    pub fn from_sorted(devices: impl IntoIterator<Item = u32>) -> Option<Self> {
        let mut runs = Builder::default();
        devices.into_iter().try_for_each(|device| runs.add(device, device))?;
        runs.finish()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::One(_) => 1,
            Form::Runs(runs) => runs.last().map_or(0, |run| run.rank + (run.last - run.first) + 1) as usize,
            Form::Bits(bits) => bits.len as usize,
        }
    }

    /// Never so: a set has at least one number.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this number is one of them.
    #[must_use]
    pub fn contains(&self, device: u32) -> bool {
        self.rank(device).is_some()
    }

    /// How many smaller numbers there are, if this one is there.
    pub(super) fn rank(&self, device: u32) -> Option<usize> {
        match &self.0 {
            Form::One(one) => (*one == device).then_some(0),
            Form::Runs(runs) => {
                let at = runs.partition_point(|run| run.last < device);
                let run = runs.get(at).filter(|run| run.first <= device)?;
                Some((run.rank + (device - run.first)) as usize)
            }
            Form::Bits(bits) => bits.rank(device),
        }
    }

    /// The numbers, rising.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.runs().flat_map(|(first, last)| first..=last)
    }

    /// First and last number of each run.
    pub(super) fn runs(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let mut at = 0;
        core::iter::from_fn(move || match &self.0 {
            Form::One(one) => (at == 0).then(|| {
                at = 1;
                (*one, *one)
            }),
            Form::Runs(runs) => {
                let run = runs.get(at as usize)?;
                at += 1;
                Some((run.first, run.last))
            }
            Form::Bits(bits) => {
                let (first, last) = bits.run_from(at)?;
                at = last + 1;
                Some((bits.first + first, bits.first + last))
            }
        })
    }

    /// Writes it behind what is there, in its shortest form.
    pub(super) fn emit(&self, into: &mut Vec<u8>) {
        let (mut runs, mut first, mut last) = (0_usize, u32::MAX, 0);
        for (from, to) in self.runs() {
            (runs, first, last) = (runs + 1, first.min(from), to);
        }
        let base = first / 8 * 8;
        let bytes = ((last - base) / 8 + 1) as usize;
        let (list_len, runs_len, bits_len) = (4 * self.len(), 8 * runs, 4 + bytes);
        let mut head = |form: u8, count: usize| {
            into.extend_from_slice(&[form, 0, 0, 0]);
            into.extend_from_slice(&(count as u32).to_le_bytes());
        };
        if list_len <= runs_len.min(bits_len) {
            head(LIST, self.len());
            self.iter().for_each(|device| into.extend_from_slice(&device.to_le_bytes()));
        } else if runs_len <= bits_len {
            head(RUNS, runs);
            for (from, to) in self.runs() {
                into.extend_from_slice(&from.to_le_bytes());
                into.extend_from_slice(&to.to_le_bytes());
            }
        } else {
            head(BITS, bytes);
            into.extend_from_slice(&base.to_le_bytes());
            let start = into.len();
            into.resize(start + bytes, 0);
            let bitmap = into.get_mut(start..).unwrap_or_default();
            for device in self.iter() {
                if let Some(byte) = bitmap.get_mut(((device - base) / 8) as usize) {
                    *byte |= 1 << (device % 8);
                }
            }
        }
    }

    /// Reads one.
    pub(super) fn parse(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        let start = *reader;
        let form = reader.u8("form")?;
        reader.zeros("targets", 3)?;
        let count = reader.u32("count")? as usize;
        let mut runs = Builder::default();
        let added = match form {
            LIST if count == 1 => {
                return Self::one(reader.u32("targets")?).ok_or_else(|| start.error("targets", Fault::Range));
            }
            LIST => {
                let list = reader.bytes("targets", count.saturating_mul(4))?;
                list.chunks_exact(4).try_for_each(|number| runs.add(number_of(number), number_of(number)))
            }
            RUNS => {
                let list = reader.bytes("targets", count.saturating_mul(8))?;
                list.chunks_exact(8).try_for_each(|run| {
                    let (first, last) = run.split_at_checked(4)?;
                    runs.add_apart(number_of(first), number_of(last))
                })
            }
            BITS => {
                let base = reader.u32("targets")?;
                runs.add_bits(base, reader.bytes("targets", count)?)
            }
            _ => return Err(start.error("form", Fault::Range)),
        };
        added.and_then(|()| runs.finish()).ok_or_else(|| start.error("targets", Fault::Range))
    }
}

fn number_of(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(u32::MAX, |bytes| u32::from_le_bytes(*bytes))
}

/// Collects rising numbers as runs.
#[derive(Debug, Default)]
struct Builder {
    runs: Vec<Run>,
    len: u32,
}

impl Builder {
    /// Adds a run behind the others; runs that touch become one.
    fn add(&mut self, first: u32, last: u32) -> Option<()> {
        if first > last || last >= DEVICES_MAX || self.runs.last().is_some_and(|run| first <= run.last) {
            return None;
        }
        let rank = self.len;
        self.len += last - first + 1;
        match self.runs.last_mut() {
            Some(run) if run.last + 1 == first => run.last = last,
            _ => self.runs.push(Run { first, last, rank }),
        }
        Some(())
    }

    fn add_apart(&mut self, first: u32, last: u32) -> Option<()> {
        let touches = self.runs.last().is_some_and(|run| run.last.checked_add(1) == Some(first));
        if touches { None } else { self.add(first, last) }
    }

    fn add_bits(&mut self, base: u32, bitmap: &[u8]) -> Option<()> {
        let ends_are_used = bitmap.first().is_some_and(|&byte| byte != 0) && bitmap.last() != Some(&0);
        if !ends_are_used || !base.is_multiple_of(8) || bitmap.len() as u64 * 8 > u64::from(DEVICES_MAX) {
            return None;
        }
        for (at, &byte) in (0..).zip(bitmap) {
            for bit in (0..8).filter(|bit| byte >> bit & 1 == 1) {
                let device = base.checked_add(8 * at + bit)?;
                self.add(device, device)?;
            }
        }
        Some(())
    }

    fn finish(self) -> Option<Targets> {
        let (&first, &last) = (self.runs.first()?, self.runs.last()?);
        if self.len == 1 {
            return Some(Targets(Form::One(first.first)));
        }
        let base = first.first / 64 * 64;
        let words = ((last.last - base) / 64 + 1) as usize;
        if self.runs.len() * size_of::<Run>() <= words * 8 {
            return Some(Targets(Form::Runs(self.runs.into())));
        }
        let mut bits = Bits { first: base, words: vec![0; words].into(), len: self.len };
        for device in self.runs.iter().flat_map(|run| run.first..=run.last) {
            bits.insert(device);
        }
        Some(Targets(Form::Bits(Box::new(bits))))
    }
}

impl Bits {
    fn insert(&mut self, device: u32) {
        let at = device - self.first;
        if let Some(word) = self.words.get_mut((at / 64) as usize) {
            *word |= 1 << (at % 64);
        }
    }

    fn rank(&self, device: u32) -> Option<usize> {
        let at = device.checked_sub(self.first)?;
        let (before, rest) = self.words.split_at_checked((at / 64) as usize)?;
        let word = rest.first()?;
        let below = word & ((1 << (at % 64)) - 1);
        let rank = before.iter().map(|word| word.count_ones()).sum::<u32>() + below.count_ones();
        (word >> (at % 64) & 1 == 1).then_some(rank as usize)
    }

    /// The first run at or behind a bit, as bits.
    fn run_from(&self, bit: u32) -> Option<(u32, u32)> {
        let first = self.find(bit, |word| word)?;
        let end = self.find(first, |word| !word).unwrap_or(self.words.len() as u32 * 64);
        Some((first, end - 1))
    }

    fn find(&self, bit: u32, look: impl Fn(u64) -> u64) -> Option<u32> {
        let (at, within) = ((bit / 64) as usize, bit % 64);
        let mut rest = self.words.get(at..)?.iter().zip((at as u32)..);
        let (&word, _) = rest.next()?;
        let here = look(word) >> within << within;
        if here != 0 {
            return Some(at as u32 * 64 + here.trailing_zeros());
        }
        rest.find_map(|(&word, at)| (look(word) != 0).then(|| at * 64 + look(word).trailing_zeros()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn sets() -> impl Strategy<Value = BTreeSet<u32>> {
        let spans = prop_oneof![Just(8_u32), Just(200), Just(5_000), Just(DEVICES_MAX)];
        let offset = prop_oneof![Just(0_u32), 0..DEVICES_MAX];
        (spans, offset).prop_flat_map(|(span, offset)| {
            let first = offset.min(DEVICES_MAX - span);
            proptest::collection::btree_set(first..first + span, 1..300)
        })
    }

    fn emitted(targets: &Targets) -> Vec<u8> {
        let mut bytes = vec![];
        targets.emit(&mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn a_set_is_what_it_was_made_of_and_comes_back(set in sets()) {
            let targets = Targets::from_sorted(set.iter().copied()).unwrap();
            prop_assert_eq!(targets.len(), set.len());
            prop_assert_eq!(targets.iter().collect::<Vec<_>>(), set.iter().copied().collect::<Vec<_>>());
            for (rank, &device) in set.iter().enumerate() {
                prop_assert_eq!(targets.rank(device), Some(rank));
                prop_assert_eq!(targets.contains(device + 1), set.contains(&(device + 1)));
                prop_assert_eq!(targets.contains(device.wrapping_sub(1)), device > 0 && set.contains(&(device - 1)));
            }
            let bytes = emitted(&targets);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(Targets::parse(&mut reader), Ok(targets));
            prop_assert!(reader.rest().is_empty());
        }

        #[test]
        fn any_bytes_are_a_set_or_an_error(mut bytes in proptest::collection::vec(any::<u8>(), 0..64), form in 0_u8..5, count in 0_u32..20) {
            if let Some(head) = bytes.first_chunk_mut::<8>() {
                *head = [form, 0, 0, 0, 0, 0, 0, 0];
                head[4..].copy_from_slice(&count.to_le_bytes());
            }
            if let Ok(targets) = Targets::parse(&mut Reader::new(&bytes)) {
                prop_assert!(!targets.is_empty());
                prop_assert_eq!(Targets::parse(&mut Reader::new(&emitted(&targets))), Ok(targets));
            }
        }
    }

    #[test]
    fn every_form_is_used_where_it_is_shortest() {
        let form = |devices: Vec<u32>| emitted(&Targets::from_sorted(devices).unwrap())[0];
        assert_eq!(form(vec![7]), LIST);
        assert_eq!(form(vec![7, 4_000, 60_000]), LIST);
        assert_eq!(form((0..10_000).collect()), RUNS);
        assert_eq!(form((0..10_000).step_by(2).collect()), BITS);
        let all = Targets::from_sorted(0..10_000).unwrap();
        assert_eq!(emitted(&all).len(), 16);
    }

    #[test]
    fn device_numbers_at_their_limit_and_one_past_it() {
        assert!(Targets::from_sorted([0, DEVICES_MAX - 1]).is_some());
        assert!(Targets::from_sorted([0, DEVICES_MAX]).is_none());
        assert!(Targets::one(DEVICES_MAX - 1).is_some() && Targets::one(DEVICES_MAX).is_none());
        let all = Targets::from_sorted((0..DEVICES_MAX).step_by(2)).unwrap();
        assert_eq!(Targets::parse(&mut Reader::new(&emitted(&all))), Ok(all));
    }

    #[test]
    fn what_no_set_is_written_as_is_refused() {
        let word = |numbers: &[u32]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>();
        let refused = |form: u8, count: u32, rest: Vec<u8>| {
            let mut bytes = vec![form, 0, 0, 0];
            bytes.extend(count.to_le_bytes());
            bytes.extend(rest);
            assert!(Targets::parse(&mut Reader::new(&bytes)).is_err(), "{bytes:?}");
        };
        refused(LIST, 0, vec![]);
        refused(LIST, 2, word(&[5, 5]));
        refused(LIST, 2, word(&[5]));
        refused(LIST, u32::MAX, word(&[5]));
        refused(RUNS, 1, word(&[5, 4]));
        refused(RUNS, 2, word(&[1, 4, 5, 6]));
        refused(RUNS, 1, word(&[0, u32::MAX]));
        refused(BITS, 2, [word(&[8]), vec![1, 0]].concat());
        refused(BITS, 1, [word(&[8]), vec![0]].concat());
        refused(BITS, 1, [word(&[9]), vec![1]].concat());
        refused(BITS, 1, [word(&[u32::MAX - 7]), vec![1]].concat());
        refused(4, 1, word(&[5]));
        assert!(Targets::parse(&mut Reader::new(&[LIST, 1, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0])).is_err());
    }
}
