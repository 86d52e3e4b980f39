//! How a server finds the key of a device.

use wire_format::ids::NodeId;

use super::{Key, KeyRing};

/// Why there is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoKey {
    /// The device has none: it was never enrolled, or it was revoked.
    #[error("the device has no key")]
    Device,
    /// The device has keys, and none with this number.
    #[error("no key has this number")]
    KeyId,
}

/// The announce keys of a store's devices. Asked once for each datagram of a device and for each answer to it, so it must
/// be quick: O(log n) or better, no lock that others hold for long.
pub trait Keys {
    /// Whether datagrams need a tag. `false` is clear mode, in which nothing else is asked.
    fn required(&self) -> bool {
        true
    }

    /// The key of `device` with the number `key_id`, if it is valid now. A key that is gone revokes what it signed from
    /// then on.
    fn announce_key(&self, device: NodeId, key_id: u16) -> Result<&Key, NoKey>;

    /// The number of the key under which this device is asked something, if it is not known which one it uses.
    fn current_key_id(&self, device: NodeId) -> Result<u16, NoKey>;
}

/// Clear mode: no keys, no tags. Everything that keys would cost is left out by the compiler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clear;

impl Keys for Clear {
    #[inline]
    fn required(&self) -> bool {
        false
    }

    #[inline]
    fn announce_key(&self, _: NodeId, _: u16) -> Result<&Key, NoKey> {
        Err(NoKey::Device)
    }

    #[inline]
    fn current_key_id(&self, _: NodeId) -> Result<u16, NoKey> {
        Err(NoKey::Device)
    }
}

/// `None` is clear mode: for whoever learns at run time whether there are keys.
impl<K: Keys> Keys for Option<K> {
    #[inline]
    fn required(&self) -> bool {
        self.as_ref().is_some_and(K::required)
    }

    #[inline]
    fn announce_key(&self, device: NodeId, key_id: u16) -> Result<&Key, NoKey> {
        self.as_ref().ok_or(NoKey::Device)?.announce_key(device, key_id)
    }

    #[inline]
    fn current_key_id(&self, device: NodeId) -> Result<u16, NoKey> {
        self.as_ref().ok_or(NoKey::Device)?.current_key_id(device)
    }
}

/// The keys of devices in storage of the caller's, sorted by id: for servers without an allocator.
#[derive(Clone, Debug)]
pub struct SortedKeys<S>(S);

/// The ids do not rise, or one stands twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the device {device} does not come after the one before it")]
pub struct NotSorted {
    /// The first that does not come after the one before it.
    pub device: NodeId,
}

impl<S: AsRef<[(NodeId, KeyRing)]>> SortedKeys<S> {
    /// Keys sorted by id, each id once.
    pub fn new(keys: S) -> Result<Self, NotSorted> {
        let mut last = None;
        for (device, _) in keys.as_ref() {
            if last.is_some_and(|last| last >= *device) {
                return Err(NotSorted { device: *device });
            }
            last = Some(*device);
        }
        Ok(Self(keys))
    }

    fn ring(&self, device: NodeId) -> Result<&KeyRing, NoKey> {
        let keys = self.0.as_ref();
        let at = keys.binary_search_by_key(&device, |(id, _)| *id).map_err(|_| NoKey::Device)?;
        keys.get(at).map(|(_, ring)| ring).ok_or(NoKey::Device)
    }
}

impl<S: AsRef<[(NodeId, KeyRing)]>> Keys for SortedKeys<S> {
    fn announce_key(&self, device: NodeId, key_id: u16) -> Result<&Key, NoKey> {
        self.ring(device)?.find(key_id)
    }

    fn current_key_id(&self, device: NodeId) -> Result<u16, NoKey> {
        self.ring(device).map(KeyRing::current_id)
    }
}

/// The keys of a server.
#[cfg(feature = "tokio")]
#[derive(Clone, Debug)]
pub struct ServerKeys {
    /// Of each device its own.
    pub announce: KeyMap,
    /// The store's, which every node of it has.
    pub beacon: KeyRing,
}

/// The keys of devices in a map: for servers whose devices come and go.
#[cfg(feature = "tokio")]
#[derive(Clone, Debug, Default)]
pub struct KeyMap(std::collections::HashMap<NodeId, KeyRing>);

#[cfg(feature = "tokio")]
impl KeyMap {
    /// No keys: every device is refused.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives a device its keys, or other ones; those it had.
    pub fn insert(&mut self, device: NodeId, keys: KeyRing) -> Option<KeyRing> {
        self.0.insert(device, keys)
    }

    /// Takes a device's keys away; those it had.
    pub fn remove(&mut self, device: NodeId) -> Option<KeyRing> {
        self.0.remove(&device)
    }

    /// The keys of a device.
    #[must_use]
    pub fn get(&self, device: NodeId) -> Option<&KeyRing> {
        self.0.get(&device)
    }

    /// Devices that have keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no device has keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(feature = "tokio")]
impl FromIterator<(NodeId, KeyRing)> for KeyMap {
    fn from_iter<I: IntoIterator<Item = (NodeId, KeyRing)>>(keys: I) -> Self {
        Self(keys.into_iter().collect())
    }
}

#[cfg(feature = "tokio")]
impl Keys for KeyMap {
    fn announce_key(&self, device: NodeId, key_id: u16) -> Result<&Key, NoKey> {
        self.0.get(&device).ok_or(NoKey::Device)?.find(key_id)
    }

    fn current_key_id(&self, device: NodeId) -> Result<u16, NoKey> {
        self.0.get(&device).map(KeyRing::current_id).ok_or(NoKey::Device)
    }
}

#[cfg(test)]
#[cfg(feature = "tokio")]
mod tests {
    use super::*;

    fn entry(byte: u8) -> (NodeId, KeyRing) {
        (NodeId([byte; 16]), KeyRing::new(u16::from(byte), Key::new([byte; 32])))
    }

    #[test]
    fn a_slice_a_map_and_no_keys_answer_alike() {
        let sorted = SortedKeys::new([entry(1), entry(3), entry(5)]).unwrap();
        let map: KeyMap = [entry(5), entry(1), entry(3)].into_iter().collect();
        for byte in 0..8_u8 {
            for key_id in 0..8 {
                let device = NodeId([byte; 16]);
                let found = |keys: &dyn Keys| keys.announce_key(device, key_id).map(|key| key.tag(b"x"));
                assert_eq!(found(&sorted), found(&map));
                assert_eq!(found(&Some(map.clone())), found(&map));
                assert_eq!(sorted.current_key_id(device), map.current_key_id(device));
                let known = matches!(byte, 1 | 3 | 5);
                match found(&sorted) {
                    Ok(tag) => assert_eq!(tag, Key::new([byte; 32]).tag(b"x")),
                    Err(NoKey::KeyId) => assert!(known && u16::from(byte) != key_id),
                    Err(NoKey::Device) => assert!(!known),
                }
                assert_eq!(found(&Clear).err(), Some(NoKey::Device));
            }
        }
        assert!(sorted.required() && map.required() && Some(map).required());
        assert!(!Clear.required() && !None::<KeyMap>.required());
    }

    #[test]
    fn a_slice_must_be_sorted() {
        let refused = |keys: &[(NodeId, KeyRing)]| SortedKeys::new(keys).err().map(|error| error.device);
        assert_eq!(refused(&[]), None);
        assert_eq!(refused(&[entry(1), entry(1)]), Some(NodeId([1; 16])));
        assert_eq!(refused(&[entry(1), entry(4), entry(3)]), Some(NodeId([3; 16])));
    }
}
