//! The keys of one owner.

use super::Key;
use super::keys::NoKey;

/// Up to three keys of one owner: what it signs with, what it signed with before, and what it will sign with.
///
/// ```
/// # #[cfg(feature = "tokio")] {
/// use discovery::auth::{Key, KeyRing};
/// let ring = KeyRing::new(7, Key::new([1; 32])).with_next(8, Key::new([2; 32]))?;
/// assert_eq!(ring.current_id(), 7);
/// let rotated = ring.rotated();
/// assert_eq!(rotated.current_id(), 8);
/// assert!(rotated.find(7).is_ok() && rotated.find(9).is_err());
/// # }
/// # Ok::<(), discovery::auth::RepeatedKeyId>(())
/// ```
#[derive(Clone, Debug)]
pub struct KeyRing {
    current: Numbered,
    previous: Option<Numbered>,
    next: Option<Numbered>,
}

#[derive(Clone, Debug)]
struct Numbered {
    id: u16,
    key: Key,
}

/// Two keys of one ring have the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("two keys of one ring have the number {key_id}")]
pub struct RepeatedKeyId {
    /// That number.
    pub key_id: u16,
}

impl KeyRing {
    /// A ring of one key.
    #[must_use]
    pub const fn new(key_id: u16, key: Key) -> Self {
        Self { current: Numbered { id: key_id, key }, previous: None, next: None }
    }

    /// The same, and a key that is still accepted; it replaces the one there was.
    pub fn with_previous(mut self, key_id: u16, key: Key) -> Result<Self, RepeatedKeyId> {
        self.previous = None;
        self.distinct(key_id)?;
        self.previous = Some(Numbered { id: key_id, key });
        Ok(self)
    }

    /// The same, and a key that is accepted already; it replaces the one there was.
    pub fn with_next(mut self, key_id: u16, key: Key) -> Result<Self, RepeatedKeyId> {
        self.next = None;
        self.distinct(key_id)?;
        self.next = Some(Numbered { id: key_id, key });
        Ok(self)
    }

    /// The next key is the current one now, and the current one the previous. Without a next key nothing changes.
    #[must_use]
    pub fn rotated(self) -> Self {
        match self.next {
            Some(next) => Self { current: next, previous: Some(self.current), next: None },
            None => self,
        }
    }

    /// The number of the key that signs.
    #[must_use]
    pub const fn current_id(&self) -> u16 {
        self.current.id
    }

    /// The key that signs.
    #[must_use]
    pub const fn current(&self) -> &Key {
        &self.current.key
    }

    /// The key with this number, if it is one of the three.
    pub fn find(&self, key_id: u16) -> Result<&Key, NoKey> {
        let all = [Some(&self.current), self.previous.as_ref(), self.next.as_ref()];
        all.into_iter()
            .flatten()
            .find(|numbered| numbered.id == key_id)
            .map(|numbered| &numbered.key)
            .ok_or(NoKey::KeyId)
    }

    fn distinct(&self, key_id: u16) -> Result<(), RepeatedKeyId> {
        if self.find(key_id).is_ok() { Err(RepeatedKeyId { key_id }) } else { Ok(()) }
    }
}

#[cfg(test)]
#[cfg(feature = "auth")]
mod tests {
    use super::*;

    fn key(byte: u8) -> Key {
        Key::new([byte; 32])
    }

    /// Which keys a ring accepts, told by what they make of an empty text.
    fn accepted(ring: &KeyRing) -> Vec<u16> {
        (0..9).filter(|id| ring.find(*id).is_ok()).collect()
    }

    #[test]
    fn three_keys_are_accepted_and_the_current_one_signs() {
        let ring = KeyRing::new(2, key(2)).with_previous(1, key(1)).unwrap().with_next(3, key(3)).unwrap();
        assert_eq!((accepted(&ring), ring.current_id()), (vec![1, 2, 3], 2));
        for id in 1..4 {
            let expected = key(u8::try_from(id).unwrap()).tag(b"");
            assert_eq!(ring.find(id).unwrap().tag(b""), expected);
        }
        let ring = ring.rotated();
        assert_eq!((accepted(&ring), ring.current_id()), (vec![2, 3], 3));
        assert_eq!(ring.current().tag(b""), key(3).tag(b""));
        let ring = ring.rotated();
        assert_eq!((accepted(&ring), ring.current_id()), (vec![2, 3], 3), "nothing to rotate to");
    }

    #[test]
    fn numbers_stand_for_one_key_each() {
        let ring = KeyRing::new(2, key(2)).with_previous(1, key(1)).unwrap();
        let repeated = |result: Result<KeyRing, RepeatedKeyId>| result.err().map(|error| error.key_id);
        assert_eq!(repeated(ring.clone().with_previous(2, key(9))), Some(2));
        assert_eq!(repeated(ring.clone().with_next(1, key(9))), Some(1));
        assert_eq!(repeated(ring.with_previous(1, key(9))), None, "the same place may be filled again");
    }
}
