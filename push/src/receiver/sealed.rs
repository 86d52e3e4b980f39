//! A journal's record as it lies in flash or in a file: the same eight bytes before each.
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 1 | length of the record, 1 to 64 |
//! | 1 | 1 | low byte of the generation it belongs to |
//! | 2 | 2 | sequence: what it counts is the store's affair |
//! | 4 | 4 | CRC-32C of the four bytes above and the record |
//! | 8 | … | the record |
//!
//! A length of 0 or above 64 is none: neither zeros nor erased flash look like a record.

use wire_format::crc::{append, crc32c};

use super::journal::RECORD_MAX;

/// Bytes before the record itself.
pub(crate) const HEAD_LEN: usize = 8;
/// Bytes of the longest record with its head.
pub(crate) const SEALED_MAX: usize = HEAD_LEN + RECORD_MAX;

/// What is said of a record beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) generation: u8,
    pub(crate) sequence: u16,
}

/// A record that passed its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opened<'a> {
    pub(crate) stamp: Stamp,
    pub(crate) record: &'a [u8],
}

impl Opened<'_> {
    /// Bytes it takes, its head included.
    pub(crate) const fn sealed_len(&self) -> usize {
        HEAD_LEN.saturating_add(self.record.len())
    }
}

/// Writes the record with its head to the front of `into`: how many bytes. `None` if it is empty, or longer than a record
/// may be.
pub(crate) fn seal(record: &[u8], stamp: Stamp, into: &mut [u8; SEALED_MAX]) -> Option<usize> {
    let len = u8::try_from(record.len()).ok().filter(|_| (1..=RECORD_MAX).contains(&record.len()))?;
    let (head, body) = into.split_first_chunk_mut::<HEAD_LEN>()?;
    body.get_mut(..record.len())?.copy_from_slice(record);
    let [low, high] = stamp.sequence.to_le_bytes();
    let front = [len, stamp.generation, low, high];
    let [a, b, c, d] = append(crc32c(&front), record).to_le_bytes();
    *head = [front[0], front[1], front[2], front[3], a, b, c, d];
    Some(HEAD_LEN.saturating_add(record.len()))
}

/// The record at the front of `bytes`, if there is a whole one.
pub(crate) fn open(bytes: &[u8]) -> Option<Opened<'_>> {
    let (&[short, generation, low, high, a, b, c, d], body) = bytes.split_first_chunk::<HEAD_LEN>()?;
    let len = usize::from(short);
    let record = body.get(..len).filter(|_| (1..=RECORD_MAX).contains(&len))?;
    let crc = append(crc32c(&[short, generation, low, high]), record);
    let stamp = Stamp { generation, sequence: u16::from_le_bytes([low, high]) };
    (crc == u32::from_le_bytes([a, b, c, d])).then_some(Opened { stamp, record })
}

/// Finds the one bit that, turned over, makes the front of `bytes` a record of `generation`, and turns it.
///
/// One bit of a record that was written whole may change while it lies there. Two records differ in many bits, so a
/// repaired one is what was written. What a power cut has torn has more than one bit missing; if it has not, it is
/// repaired as well, and nobody was told that it is not there.
pub(crate) fn repair(bytes: &mut [u8], generation: u8) -> bool {
    let flips = bytes.len().min(SEALED_MAX).saturating_mul(8);
    for flip in 0..flips {
        turn(bytes, flip);
        if bytes.get(1) == Some(&generation)
            && open(bytes).is_some_and(|opened| flip / 8 < opened.sealed_len())
        {
            return true;
        }
        turn(bytes, flip);
    }
    false
}

fn turn(bytes: &mut [u8], bit: usize) {
    if let Some(byte) = bytes.get_mut(bit / 8) {
        *byte ^= 1 << (bit % 8);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STAMP: Stamp = Stamp { generation: 0xA5, sequence: 0x0102 };

    fn sealed(record: &[u8]) -> Vec<u8> {
        let mut room = [0xEE; SEALED_MAX];
        let len = seal(record, STAMP, &mut room).unwrap();
        room[..len].to_vec()
    }

    #[test]
    fn the_bytes_are_those_of_the_table() {
        let bytes = sealed(b"abc");
        assert_eq!(bytes[..4], [3, 0xA5, 0x02, 0x01]);
        assert_eq!(bytes[4..8], crc32c(&[3, 0xA5, 0x02, 0x01, b'a', b'b', b'c']).to_le_bytes());
        assert_eq!(&bytes[8..], b"abc");
    }

    #[test]
    fn a_record_at_its_limits_and_one_past_each() {
        let mut room = [0; SEALED_MAX];
        assert_eq!(seal(&[7; RECORD_MAX], STAMP, &mut room), Some(SEALED_MAX));
        assert_eq!(open(&room).unwrap().record, [7; RECORD_MAX]);
        assert_eq!(seal(&[7; RECORD_MAX + 1], STAMP, &mut room), None);
        assert_eq!(seal(&[7], STAMP, &mut room), Some(HEAD_LEN + 1));
        assert_eq!(seal(&[], STAMP, &mut room), None);
        assert_eq!((open(&[0; SEALED_MAX]), open(&[0xFF; SEALED_MAX]), open(&[])), (None, None, None));
    }

    #[test]
    fn every_single_bit_is_repaired_and_no_pair_of_neighbours() {
        let whole = sealed(b"started 17 of lane 2");
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            turn(&mut bytes, bit);
            assert_eq!(open(&bytes), None, "bit {bit}");
            assert!(repair(&mut bytes, STAMP.generation), "bit {bit}");
            assert_eq!(bytes, whole);
            if bit > 0 {
                turn(&mut bytes, bit);
                turn(&mut bytes, bit - 1);
                assert!(!repair(&mut bytes, STAMP.generation), "bits {bit} and the one before");
            }
        }
        let mut bytes = whole.clone();
        turn(&mut bytes, 90);
        assert!(!repair(&mut bytes, STAMP.generation ^ 0xF0), "of another generation");
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_as_it_was(record in prop::collection::vec(any::<u8>(), 1..=RECORD_MAX), generation: u8, sequence: u16) {
            let stamp = Stamp { generation, sequence };
            let mut room = [0; SEALED_MAX];
            let len = seal(&record, stamp, &mut room).unwrap();
            let opened = open(&room[..len]).unwrap();
            prop_assert_eq!(opened, Opened { stamp, record: &record });
            prop_assert_eq!(opened.sealed_len(), len);
            prop_assert_eq!(open(&room[..len - 1]), None);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(mut bytes: Vec<u8>) {
            let opened = open(&bytes).map(|opened| opened.stamp.generation);
            if opened.is_none() {
                repair(&mut bytes, 1);
            }
        }
    }
}
