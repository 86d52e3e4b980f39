//! CRC-32C (Castagnoli), the checksum of frames (specification, "Checksums").
//!
//! Polynomial 0x1EDC6F41 reflected, initial value and final xor 0xFFFFFFFF: the checksum of iSCSI and SCTP. One table of
//! 1 KiB; with the feature `std` the CPU's own instruction is used where there is one, and twelve tables for the twelve
//! bytes of a frame header, which are too few to be worth the way to the instruction.

/// The CRC-32C of `bytes`.
///
/// ```
/// assert_eq!(wire_format::crc::crc32c(b"123456789"), 0xE306_9283);
/// ```
#[inline]
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    append(0, bytes)
}

/// The CRC-32C of what `crc` covers followed by `bytes`.
#[cfg(feature = "std")]
#[inline]
#[must_use]
pub fn append(crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, bytes)
}

/// The CRC-32C of what `crc` covers followed by `bytes`.
#[cfg(not(feature = "std"))]
#[inline]
#[must_use]
pub fn append(crc: u32, bytes: &[u8]) -> u32 {
    append_with_table(crc, bytes)
}

/// The CRC-32C of exactly the 12 bytes a frame header's checksum covers: one look-up per byte, none waiting for another.
/// 2 ns instead of 6 for the general form, as long as the tables (12 KiB) are in the cache.
#[cfg(feature = "std")]
#[inline]
#[must_use]
pub fn crc32c_of_12(bytes: &[u8; 12]) -> u32 {
    let [a, b, c, d, rest @ ..] = bytes;
    let first = [!a, !b, !c, !d];
    let last_first = rest.iter().rev().chain(first.iter().rev());
    !SLICES.iter().zip(last_first).fold(0, |state, (table, &byte)| state ^ table[usize::from(byte)])
}

/// The CRC-32C of exactly the 12 bytes a frame header's checksum covers.
#[cfg(not(feature = "std"))]
#[inline]
#[must_use]
pub fn crc32c_of_12(bytes: &[u8; 12]) -> u32 {
    append_with_table(0, bytes)
}

/// The portable form; what a target without the feature `std` runs.
#[cfg(any(test, not(feature = "std")))]
fn append_with_table(crc: u32, bytes: &[u8]) -> u32 {
    let mut state = !crc;
    for &byte in bytes {
        let [low, ..] = (state ^ u32::from(byte)).to_le_bytes();
        state = TABLE[usize::from(low)] ^ (state >> 8);
    }
    !state
}

#[cfg(any(test, not(feature = "std")))]
static TABLE: [u32; 256] = table();

/// What a byte does to the state, by how many bytes follow it.
#[cfg(feature = "std")]
static SLICES: [[u32; 256]; 12] = {
    let mut slices = [table(); 12];
    let mut slice = 1;
    while slice < 12 {
        let mut i = 0;
        while i < 256 {
            let before = slices[slice - 1][i];
            slices[slice][i] = (before >> 8) ^ slices[0][(before & 0xFF) as usize];
            i += 1;
        }
        slice += 1;
    }
    slices
};

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "i < 256")]
        let mut value = i as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 0 { value >> 1 } else { (value >> 1) ^ 0x82F6_3B78 };
            bit += 1;
        }
        table[i] = value;
        i += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values_of_the_polynomial() {
        // RFC 3720, appendix B.4.
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(crc32c(&[]), 0);
    }

    proptest::proptest! {
        #[test]
        fn table_and_instruction_agree_at_every_split(bytes: Vec<u8>, at: proptest::sample::Index) {
            let (left, right) = bytes.split_at(at.index(bytes.len() + 1));
            proptest::prop_assert_eq!(append_with_table(append_with_table(0, left), right), crc32c(&bytes));
            proptest::prop_assert_eq!(append(append(0, left), right), crc32c(&bytes));
        }

        #[test]
        fn twelve_bytes_are_twelve_bytes(bytes: [u8; 12]) {
            proptest::prop_assert_eq!(crc32c_of_12(&bytes), crc32c(&bytes));
        }
    }
}
