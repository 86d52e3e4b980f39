//! Authenticated mode: datagrams under keys, told fresh from recorded ones without a clock.
//!
//! | file | what for |
//! | --- | --- |
//! | `key` | one key, and the tag it makes |
//! | `ring` | the keys of one owner: current, previous and next |
//! | `keys` | how a server finds the key of a device |
//! | `window` | which sequence numbers of one boot were seen |
//! | `cookie` | who has to prove that it is alive now, and how |
//!
//! # Which key
//!
//! A device has an announce key that nobody but its server knows, and every node of a store has the store's beacon key.
//! What one device and its server say to each other (ANNOUNCE, ACK, CHALLENGE, a device's BYE) is under the first and
//! proves who said it. What is said to everybody (SEEK, BEACON, a server's BYE) is under the second and proves only that
//! the sender has been in the store: whoever steals a till can forge it, so it is a hint. Where the keys come from is not
//! this crate's matter; they are handed in, and may be replaced at any time.
//!
//! # Rotation
//!
//! A [`KeyRing`] holds up to three keys with their numbers. A node signs with the current one (a server answers under the
//! key it was asked with) and accepts all three, so a new key can be given out before it is used, and an old one taken
//! back when nobody uses it any more: first everybody gets it as the next, then it becomes the current one here and there,
//! then the previous one is left out.
//!
//! Without the feature `auth` the types are here and a key cannot be made: clear mode is what remains, and costs nothing.

mod cookie;
mod key;
mod keys;
mod ring;
mod window;

pub use key::Key;
pub use keys::{Clear, Keys, NoKey, NotSorted, SortedKeys};
#[cfg(feature = "tokio")]
pub use keys::{KeyMap, ServerKeys};
pub use ring::{KeyRing, RepeatedKeyId};

pub(crate) use cookie::{Claim, Cookies};
pub(crate) use window::{Sighting, Window};

use wire_format::datagram::{Auth, covered, seal};
use wire_format::error::EmitError;

use crate::event::Dropped;

/// The keys of a device.
#[derive(Clone, Debug)]
pub struct DeviceKeys {
    /// Its own, which nobody but its server has.
    pub announce: KeyRing,
    /// The store's, which every node of it has.
    pub beacon: KeyRing,
}

/// Whether the tag of the whole datagram `bytes`, whose AUTH is `auth`, is right, the key being what `find` says; the
/// number of that key.
pub(crate) fn verify<'k>(
    bytes: &[u8],
    auth: Option<Auth<'_>>,
    find: impl FnOnce(u16) -> Result<&'k Key, NoKey>,
) -> Result<u16, Dropped> {
    let auth = auth.ok_or(Dropped::NoTag)?;
    if auth.algorithm != Auth::HMAC_SHA256_128 {
        return Err(Dropped::UnknownKey);
    }
    let key = find(auth.key_id).map_err(|missing| match missing {
        NoKey::Device => Dropped::UnknownDevice,
        NoKey::KeyId => Dropped::UnknownKey,
    })?;
    match covered(bytes) {
        Some((covered, tag)) if key.verifies(covered, tag) => Ok(auth.key_id),
        _ => Err(Dropped::WrongTag),
    }
}

/// An AUTH whose tag is still to be computed, under the key with this number.
pub(crate) fn open(key_id: u16) -> Auth<'static> {
    Auth::open(key_id, Auth::HMAC_SHA256_128)
}

/// Completes the datagram of `len` bytes at the beginning of `buffer`, which was emitted with an open AUTH.
pub(crate) fn sign(buffer: &mut [u8], len: usize, key: Result<&Key, NoKey>) -> Result<usize, EmitError> {
    let key = key.map_err(|_| EmitError::Invalid { field: "AUTH" })?;
    seal(buffer.get_mut(..len).unwrap_or_default(), |covered| key.tag(covered));
    Ok(len)
}
