//! Clean text: UTF-8 without control characters (Unicode's `Cc`), decided a word at a time where it is plain ASCII.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Whether `bytes` is clean text.
#[inline]
pub(super) fn is_clean(bytes: &[u8]) -> bool {
    is_plain(bytes) || is_clean_unicode(bytes)
}

/// Whether every byte is a printable ASCII character. The last word overlaps the one before it.
#[inline]
fn is_plain(bytes: &[u8]) -> bool {
    let Some(last) = bytes.last_chunk() else { return is_plain_short(bytes) };
    let (words, _) = bytes.as_chunks();
    let odd = words.iter().fold(not_plain(*last), |odd, word| odd | not_plain(*word));
    odd == 0
}

/// The same below 8 bytes.
#[inline]
fn is_plain_short(bytes: &[u8]) -> bool {
    let mut word = [b' '; 8];
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let (low, high) = word.split_at_mut(4);
        low.copy_from_slice(first);
        high.copy_from_slice(last);
    } else {
        for (to, from) in word.iter_mut().zip(bytes) {
            *to = *from;
        }
    }
    not_plain(word) == 0
}

/// Zero if all eight bytes are in 0x20 to 0x7E.
#[inline]
const fn not_plain(word: [u8; 8]) -> u64 {
    let word = u64::from_le_bytes(word);
    let below_space = word.wrapping_sub(ONES * 0x20);
    let above_tilde = word.wrapping_add(ONES);
    (below_space | above_tilde | word) & HIGH
}

#[cold]
fn is_clean_unicode(bytes: &[u8]) -> bool {
    str::from_utf8(bytes).is_ok_and(|text| !text.chars().any(char::is_control))
}
