//! One key, and the tag it makes: HMAC-SHA-256, its first 16 bytes.
//!
//! The crate `hmac` itself: with a key of fixed length no panic of it is left in an optimised build (`ci/no-panic.sh`).

use core::fmt;

use wire_format::datagram::entry::TAG_LEN;

/// A key of 32 bytes. Wiped when it is dropped, and not shown by `Debug`.
///
/// Each device needs a key of its own: the key is what tells one device's ACK from another's.
#[cfg(feature = "auth")]
#[derive(Clone)]
pub struct Key([u8; Self::LEN]);

/// A key. This build leaves out the feature `auth`, so there is none.
#[cfg(not(feature = "auth"))]
#[derive(Clone)]
pub enum Key {}

impl Key {
    /// Bytes of a key.
    pub const LEN: usize = 32;
}

#[cfg(feature = "auth")]
impl Key {
    /// A key of these bytes: random ones, or derived from random ones for this purpose alone.
    #[must_use]
    pub const fn new(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The tag for `covered`.
    #[must_use]
    pub fn tag(&self, covered: &[u8]) -> [u8; TAG_LEN] {
        use hmac::Mac;
        let mut mac = self.mac();
        mac.update(covered);
        mac.finalize().into_bytes().first_chunk().copied().unwrap_or_default()
    }

    /// Whether `tag` is the one for `covered`, in a time that does not depend on where they differ.
    #[must_use]
    pub fn verifies(&self, covered: &[u8], tag: &[u8; TAG_LEN]) -> bool {
        use hmac::Mac;
        let mut mac = self.mac();
        mac.update(covered);
        mac.verify_truncated_left(tag).is_ok()
    }

    fn mac(&self) -> hmac::Hmac<sha2::Sha256> {
        // The block form takes no length that could be wrong: the key, and zeros up to the block.
        let mut block = hmac::digest::Key::<hmac::Hmac<sha2::Sha256>>::default();
        for (place, byte) in block.iter_mut().zip(self.0) {
            *place = byte;
        }
        <hmac::Hmac<sha2::Sha256> as hmac::digest::KeyInit>::new(&block)
    }
}

#[cfg(not(feature = "auth"))]
impl Key {
    /// The tag for `covered`.
    #[must_use]
    pub const fn tag(&self, _covered: &[u8]) -> [u8; TAG_LEN] {
        match *self {}
    }

    /// Whether `tag` is the one for `covered`.
    #[must_use]
    pub const fn verifies(&self, _covered: &[u8], _tag: &[u8; TAG_LEN]) -> bool {
        match *self {}
    }
}

#[cfg(feature = "auth")]
impl Drop for Key {
    fn drop(&mut self) {
        use zeroize::Zeroize;
        self.0.zeroize();
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

#[cfg(test)]
#[cfg(feature = "auth")]
mod tests {
    use super::*;

    /// RFC 4231, cases whose keys fit; shorter keys are the same as keys filled up with zeros.
    #[test]
    fn the_vectors_of_rfc_4231() {
        let key = |bytes: &[u8]| {
            let mut full = [0; 32];
            full[..bytes.len()].copy_from_slice(bytes);
            Key::new(full)
        };
        let counted: Vec<u8> = (1..=25).collect();
        let cases: [(Key, &[u8], [u8; 16]); 4] = [
            (key(&[0x0B; 20]), b"Hi There", 0xB034_4C61_D8DB_3853_5CA8_AFCE_AF0B_F12B_u128.to_be_bytes()),
            (
                key(b"Jefe"),
                b"what do ya want for nothing?",
                0x5BDC_C146_BF60_754E_6A04_2426_0895_75C7_u128.to_be_bytes(),
            ),
            (key(&[0xAA; 20]), &[0xDD; 50], 0x773E_A91E_3680_0E46_854D_B8EB_D091_81A7_u128.to_be_bytes()),
            (key(&counted), &[0xCD; 50], 0x8255_8A38_9A44_3C0E_A4CC_8198_99F2_083A_u128.to_be_bytes()),
        ];
        for (key, text, tag) in cases {
            assert_eq!(key.tag(text), tag);
            assert!(key.verifies(text, &tag));
            for bit in 0..128 {
                let wrong = (u128::from_be_bytes(tag) ^ 1 << bit).to_be_bytes();
                assert!(!key.verifies(text, &wrong), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(format!("{:?}", Key::new([7; 32])), "Key");
    }
}
