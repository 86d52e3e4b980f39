//! The head of a page: which generation it belongs to, and as which page of it.
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 2 | magic, `TJ` |
//! | 2 | 2 | index of the page in its generation, 0 for the first |
//! | 4 | 4 | generation |
//! | 8 | 4 | of the first page: records of the snapshot; of the others: records of the generation before this page |
//! | 12 | 4 | CRC-32C of the twelve bytes above |

use wire_format::crc::crc32c;

/// Bytes of a page's head, before it is padded to a whole program unit.
pub(super) const HEAD_LEN: usize = 16;

const MAGIC: [u8; 2] = *b"TJ";

/// What a page's head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) index: u16,
    pub(super) generation: u32,
    pub(super) records: u32,
}

impl Head {
    pub(super) fn emit(self) -> [u8; HEAD_LEN] {
        let [index, generation, records] =
            [u32::from(self.index), self.generation, self.records].map(u32::to_le_bytes);
        let [a, b, c, d] = generation;
        let [e, f, g, h] = records;
        let front = [MAGIC[0], MAGIC[1], index[0], index[1], a, b, c, d, e, f, g, h];
        let mut bytes = [0; HEAD_LEN];
        let crc = crc32c(&front).to_le_bytes();
        for (byte, value) in bytes.iter_mut().zip(front.into_iter().chain(crc)) {
            *byte = value;
        }
        bytes
    }

    pub(super) fn parse(bytes: &[u8; HEAD_LEN]) -> Option<Self> {
        let [m, n, i, j, a, b, c, d, e, f, g, h, crc @ ..] = *bytes;
        let front = [m, n, i, j, a, b, c, d, e, f, g, h];
        ([m, n] == MAGIC && crc32c(&front) == u32::from_le_bytes(crc)).then_some(Self {
            index: u16::from_le_bytes([i, j]),
            generation: u32::from_le_bytes([a, b, c, d]),
            records: u32::from_le_bytes([e, f, g, h]),
        })
    }

    /// The same, also if one bit has changed; whether it had.
    pub(super) fn parse_repaired(mut bytes: [u8; HEAD_LEN]) -> Option<(Self, bool)> {
        if let Some(head) = Self::parse(&bytes) {
            return Some((head, false));
        }
        for at in 0..HEAD_LEN {
            for bit in 0..8 {
                turn(&mut bytes, at, bit);
                if let Some(head) = Self::parse(&bytes) {
                    return Some((head, true));
                }
                turn(&mut bytes, at, bit);
            }
        }
        None
    }
}

fn turn(bytes: &mut [u8; HEAD_LEN], at: usize, bit: u32) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1_u8.wrapping_shl(bit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Head = Head { index: 0x0201, generation: 0x0605_0403, records: 0x0A09_0807 };

    #[test]
    fn the_bytes_are_those_of_the_table() {
        let bytes = HEAD.emit();
        assert_eq!(bytes[..12], *b"TJ\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0A");
        assert_eq!(bytes[12..], crc32c(&bytes[..12]).to_le_bytes());
        assert_eq!(Head::parse(&bytes), Some(HEAD));
        assert_eq!((Head::parse(&[0xFF; HEAD_LEN]), Head::parse(&[0; HEAD_LEN])), (None, None));
    }

    #[test]
    fn one_changed_bit_is_repaired_and_two_are_not() {
        for bit in 0..HEAD_LEN * 8 {
            let mut bytes = HEAD.emit();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Head::parse(&bytes), None);
            assert_eq!(Head::parse_repaired(bytes), Some((HEAD, true)));
            if bit != 77 {
                bytes[77 / 8] ^= 1 << (77 % 8);
                assert_eq!(Head::parse_repaired(bytes), None, "bits {bit} and 77");
            }
        }
    }
}
