//! SipHash over words: where a stranger picks the key, he must not be able to pick the place in a table (1-3, as the
//! standard library does), nor guess a cookie (2-4).

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

    /// Where `words` belong in a table.
    #[inline]
    pub(crate) fn place(self, words: &[u64]) -> u64 {
        self.hash::<1, 3>(words)
    }

    /// Where `id` belongs in a table.
    #[inline]
    pub(crate) fn place_id(self, id: NodeId) -> u64 {
        let [low, high] = halves(id);
        self.place(&[low, high])
    }

    /// What nobody else can know about `id` and `number`.
    pub(crate) fn cookie(self, id: NodeId, number: u64) -> [u8; 8] {
        let [low, high] = halves(id);
        self.hash::<2, 4>(&[low, high, number]).to_le_bytes()
    }

    /// What nobody else can know about `id` and these three.
    pub(crate) fn cookie_of(self, id: NodeId, about: [u64; 3]) -> [u8; 8] {
        let ([low, high], [a, b, c]) = (halves(id), about);
        self.hash::<2, 4>(&[low, high, a, b, c]).to_le_bytes()
    }

    #[inline]
    fn hash<const EACH: usize, const LAST: usize>(self, words: &[u64]) -> u64 {
        let mut state = [
            self.k0 ^ 0x736f_6d65_7073_6575,
            self.k1 ^ 0x646f_7261_6e64_6f6d,
            self.k0 ^ 0x6c79_6765_6e65_7261,
            self.k1 ^ 0x7465_6462_7974_6573,
        ];
        let tail = (words.len() as u64 & 0x1F) << 59;
        for &word in words.iter().chain([&tail]) {
            state[3] ^= word;
            for _ in 0..EACH {
                round(&mut state);
            }
            state[0] ^= word;
        }
        state[2] ^= 0xFF;
        for _ in 0..LAST {
            round(&mut state);
        }
        state[0] ^ state[1] ^ state[2] ^ state[3]
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the two halves of the id")]
const fn halves(id: NodeId) -> [u64; 2] {
    let id = id.as_u128();
    [id as u64, (id >> 64) as u64]
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
    fn the_authors_vectors() {
        let secret = Secret { k0: 0x0706_0504_0302_0100, k1: 0x0f0e_0d0c_0b0a_0908 };
        let sixteen_bytes = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        assert_eq!(secret.hash::<2, 4>(&sixteen_bytes), 0x3f2a_cc7f_57c2_9bdb);
        assert_eq!(secret.hash::<2, 4>(&[]), 0x726f_db47_dd0e_0e31);
    }

    #[test]
    fn places_and_cookies_hang_on_the_secret_and_on_every_input() {
        let (a, b) = (Secret::new(1), Secret::new(2));
        let (one, two) = (NodeId([1; 16]), NodeId([2; 16]));
        assert_ne!(a.place_id(one), b.place_id(one));
        assert_ne!(a.place_id(one), a.place_id(two));
        assert_ne!(a.cookie(one, 1), b.cookie(one, 1));
        assert_ne!(a.cookie(one, 1), a.cookie(one, 2));
        assert_ne!(a.cookie(one, 1), a.cookie(two, 1));
    }
}
