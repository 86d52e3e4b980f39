//! One record of the log: a header of 32 bytes, a body, zeros to a multiple of 8.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 4 | magic | the bytes `TWLR` |
//! | 4 | 4 | length | bytes of the body, at most [`BODY_MAX`] |
//! | 8 | 8 | sequence | +1 from record to record of one log, from 1, below 2^62 |
//! | 16 | 1 | kind | what the body is; this floor does not look at it |
//! | 17 | 1 | flags | 0x01 END: the last record of a commit; the rest zero |
//! | 18 | 2 | – | zero |
//! | 20 | 4 | body checksum | CRC-32C of the body |
//! | 24 | 4 | commit | which commit it belongs to: +1 from one to the next, wrapping |
//! | 28 | 4 | header checksum | CRC-32C of the segment's salt and bytes 0 to 27 |
//!
//! The salt is drawn for each segment. It keeps a body that looks like a record (an order may carry any bytes) from being
//! taken for one when a damaged stretch is stepped over.

use wire_format::crc;

/// Bytes of the header.
pub(super) const HEADER_LEN: usize = 32;
/// Bytes of the largest body: a payload of 8 MiB as it is sent, its order, and 128 KiB of targets.
pub const BODY_MAX: usize = 9 << 20;
/// Where a record may begin.
pub(super) const ALIGN: usize = 8;

/// No log gets as far: adding to a sequence never overflows.
pub(super) const SEQUENCE_END: u64 = 1 << 62;

const MAGIC: [u8; 4] = *b"TWLR";
const END: u8 = 0x01;

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) len: u32,
    pub(super) sequence: u64,
    pub(super) kind: u8,
    /// The commit ends with this record.
    pub(super) end: bool,
    pub(super) body_crc: u32,
    pub(super) commit: u32,
}

impl Header {
    pub(super) fn new(sequence: u64, kind: u8, len: u32, body_crc: u32) -> Self {
        Self { len, sequence, kind, end: false, body_crc, commit: 0 }
    }

    /// The header in these bytes, if it is one of a segment with this salt.
    pub(super) fn parse(bytes: &[u8; HEADER_LEN], salt: u32) -> Option<Self> {
        let (covered, sum) = bytes.split_last_chunk::<4>()?;
        if bytes.first_chunk() != Some(&MAGIC) || crc::append(salt, covered) != u32::from_le_bytes(*sum) {
            return None;
        }
        let u32_at = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let sequence = u64::from_le_bytes(*bytes.get(8..)?.first_chunk()?);
        let [kind, flags, zero0, zero1] = *bytes.get(16..)?.first_chunk()?;
        let (end, body_crc, commit) = (flags & END != 0, u32_at(20)?, u32_at(24)?);
        let header = Self { len: u32_at(4)?, sequence, kind, end, body_crc, commit };
        let zeros = flags & !END == 0 && [zero0, zero1] == [0, 0];
        let fits = header.len as usize <= BODY_MAX && sequence < SEQUENCE_END;
        (zeros && fits).then_some(header)
    }

    pub(super) fn emit(&self, salt: u32) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let end = if self.end { END } else { 0 };
        let fields: [&[u8]; 6] = [
            &MAGIC,
            &self.len.to_le_bytes(),
            &self.sequence.to_le_bytes(),
            &[self.kind, end, 0, 0],
            &self.body_crc.to_le_bytes(),
            &self.commit.to_le_bytes(),
        ];
        let mut at = 0;
        for field in fields {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        }
        let sum = crc::append(salt, &bytes[..at]);
        bytes[at..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }
}

/// Bytes a record with a body of `len` bytes takes.
pub(super) const fn record_len(len: usize) -> usize {
    (HEADER_LEN + len).next_multiple_of(ALIGN)
}

/// What stands at one place of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A whole record.
    Record(Header, &'a [u8]),
    /// A header that is right, and a body that is not, or not all there.
    Damaged(Header),
    /// No header.
    Nothing,
}

/// Looks for a record at `at`.
pub(super) fn look(segment: &[u8], at: usize, salt: u32) -> Found<'_> {
    let Some(rest) = segment.get(at..) else { return Found::Nothing };
    let Some((head, rest)) = rest.split_first_chunk::<HEADER_LEN>() else { return Found::Nothing };
    let Some(header) = Header::parse(head, salt) else { return Found::Nothing };
    match rest.get(..header.len as usize) {
        Some(body) if crc::crc32c(body) == header.body_crc => Found::Record(header, body),
        _ => Found::Damaged(header),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(sequence: u64, body: &[u8], salt: u32) -> Vec<u8> {
        let header = Header::new(sequence, 7, body.len() as u32, crc::crc32c(body));
        let mut bytes = header.emit(salt).to_vec();
        bytes.extend_from_slice(body);
        bytes.resize(record_len(body.len()), 0);
        bytes
    }

    proptest! {
        #[test]
        fn what_was_written_is_found(sequence in 0..SEQUENCE_END, salt: u32, body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = record(sequence, &body, salt);
            let Found::Record(header, found) = look(&bytes, 0, salt) else { panic!("it is there") };
            prop_assert_eq!((header.sequence, header.kind, header.end, found), (sequence, 7, false, &body[..]));
        }

        #[test]
        fn any_flipped_bit_is_seen(bit in 0_usize..(32 + 24) * 8, body in proptest::collection::vec(any::<u8>(), 24)) {
            let mut bytes = record(5, &body, 9);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!matches!(look(&bytes, 0, 9), Found::Record(..)));
        }

        #[test]
        fn random_bytes_are_no_record(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0_usize..300) {
            prop_assert_eq!(look(&bytes, at, 1), Found::Nothing);
        }
    }

    #[test]
    fn a_record_of_another_salt_is_none_and_a_cut_one_is_damaged() {
        let bytes = record(1, b"body of 20 bytes ...", 3);
        assert_eq!(bytes.len(), 56);
        assert_eq!(look(&bytes, 0, 4), Found::Nothing);
        assert!(matches!(look(&bytes[..51], 0, 3), Found::Damaged(_)));
        assert!(matches!(look(&bytes[..52], 0, 3), Found::Record(..)));
    }

    #[test]
    fn a_body_at_the_limit_and_one_past_it() {
        let header = |len: usize| Header::new(1, 0, len as u32, 0);
        assert!(Header::parse(&header(BODY_MAX).emit(0), 0).is_some());
        assert_eq!(Header::parse(&header(BODY_MAX + 1).emit(0), 0), None);
    }
}
