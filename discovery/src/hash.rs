//! SipHash-2-4 over words: where a stranger picks the key, he must not be able to pick the place in a table, nor guess a
//! cookie.

use wire_format::ids::NodeId;
use wire_format::rng::mix;

/// A secret of this process.
#[derive(Clone, Copy)]
pub(crate) struct Secret {
    k0: u64,
    k1: u64,
}

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// Both halves from one seed: as good as the seed's 64 bits.
    pub(crate) const fn new(seed: u64) -> Self {
        Self { k0: mix(seed), k1: mix(seed ^ 0x9E37_79B9_7F4A_7C15) }
    }

    /// The hash of `words`.
    #[inline]
    pub(crate) fn hash(self, words: &[u64]) -> u64 {
        let mut state = [
            self.k0 ^ 0x736f_6d65_7073_6575,
            self.k1 ^ 0x646f_7261_6e64_6f6d,
            self.k0 ^ 0x6c79_6765_6e65_7261,
            self.k1 ^ 0x7465_6462_7974_6573,
        ];
        let tail = (words.len() as u64 & 0x1F) << 59;
        for &word in words.iter().chain([&tail]) {
            state[3] ^= word;
            round(&mut state);
            round(&mut state);
            state[0] ^= word;
        }
        state[2] ^= 0xFF;
        for _ in 0..4 {
            round(&mut state);
        }
        state[0] ^ state[1] ^ state[2] ^ state[3]
    }

    /// The hash of an id and a number.
    #[inline]
    pub(crate) fn hash_id(self, id: NodeId, number: u64) -> u64 {
        let id = id.as_u128();
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of the id")]
        let words = [id as u64, (id >> 64) as u64, number];
        self.hash(&words)
    }
}

#[inline]
const fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authors_vector_of_sixteen_bytes() {
        let secret = Secret { k0: 0x0706_0504_0302_0100, k1: 0x0f0e_0d0c_0b0a_0908 };
        assert_eq!(secret.hash(&[0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]), 0x3f2a_cc7f_57c2_9bdb);
        assert_eq!(secret.hash(&[]), 0x726f_db47_dd0e_0e31);
    }
}
