//! Clean text: UTF-8 without control characters (Unicode's `Cc`). Plain ASCII, the usual case, is decided a word at a
//! time.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;
const SPACE: u64 = 0x20;

/// Whether `bytes` is clean text.
#[inline]
pub(super) fn is_clean(bytes: &[u8]) -> bool {
    plain(bytes, not_plain) || clean_unicode(bytes)
}

/// Whether `bytes` is clean text without commas: a tag.
#[inline]
pub(super) fn is_clean_tag(bytes: &[u8]) -> bool {
    plain(bytes, |word| not_plain(word) | commas(word)) || (clean_unicode(bytes) && !bytes.contains(&b','))
}

/// Whether `odd` finds nothing (zero) in the words of `bytes`. Words overlap where the length is no multiple of 8.
#[inline]
fn plain(bytes: &[u8], odd: impl Fn(u64) -> u64) -> bool {
    let ends = if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        odd(u64::from_le_bytes(*first)) | odd(u64::from_le_bytes(*last))
    } else if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        odd(u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last)))
    } else {
        odd(bytes.iter().fold(ONES * SPACE, |word, &byte| word << 8 | u64::from(byte)))
    };
    if bytes.len() <= 16 {
        return ends == 0;
    }
    let (words, _) = bytes.as_chunks();
    words.iter().fold(ends, |found, word| found | odd(u64::from_le_bytes(*word))) == 0
}

/// Zero if and only if all eight bytes are in 0x20 to 0x7E.
#[inline]
const fn not_plain(word: u64) -> u64 {
    let below_space = word.wrapping_sub(ONES * SPACE);
    let above_tilde = word.wrapping_add(ONES);
    (below_space | above_tilde | word) & HIGH
}

/// Zero if and only if none of the eight bytes is a comma.
#[inline]
const fn commas(word: u64) -> u64 {
    let word = word ^ (ONES * b',' as u64);
    word.wrapping_sub(ONES) & !word & HIGH
}

#[cold]
fn clean_unicode(bytes: &[u8]) -> bool {
    str::from_utf8(bytes).is_ok_and(|text| !text.chars().any(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slow(bytes: &[u8]) -> bool {
        clean_unicode(bytes)
    }

    /// Each byte at each place of each length, so that no word is looked at wrongly.
    #[test]
    fn the_fast_answer_is_the_slow_one() {
        for len in 0..=34 {
            for at in 0..len {
                for byte in 0..=255 {
                    let mut bytes = vec![b'~'; len];
                    bytes[at] = byte;
                    assert_eq!(is_clean(&bytes), slow(&bytes), "{byte:#x} at {at} of {len}");
                    let tag = slow(&bytes) && !bytes.contains(&b',');
                    assert_eq!(is_clean_tag(&bytes), tag, "{byte:#x} at {at} of {len}");
                }
            }
        }
        assert!(is_clean(b"") && is_clean_tag(b""));
    }

    proptest::proptest! {
        #[test]
        fn whatever_the_text(text in "[\\u{0}-\\u{A5},\\u{85}]{0,12}") {
            proptest::prop_assert_eq!(is_clean(text.as_bytes()), !text.chars().any(char::is_control));
            let tag = !text.chars().any(|c| c.is_control() || c == ',');
            proptest::prop_assert_eq!(is_clean_tag(text.as_bytes()), tag);
        }
    }
}
