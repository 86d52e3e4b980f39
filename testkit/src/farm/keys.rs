//! Keys for a farm in authenticated mode: known to whoever reads this, and different for each device.

use discovery::auth::{DeviceKeys, Key, KeyMap, KeyRing};
use wire_format::ids::Store;
use wire_format::rng::Rng;

use super::device;

/// Number of every key.
const KEY_ID: u16 = 1;
/// What no device has as its number.
const BEACON: u64 = u64::MAX;

fn key(of: u64) -> Key {
    let mut rng = Rng::new(of);
    let mut bytes = [0; Key::LEN];
    bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&rng.next_u64().to_le_bytes()));
    Key::new(bytes)
}

/// The keys of a device of a farm.
#[must_use]
pub fn device_keys(number: u32) -> DeviceKeys {
    DeviceKeys { announce: KeyRing::new(KEY_ID, key(u64::from(number))), beacon: beacon_keys() }
}

/// The keys every node of the store has.
#[must_use]
pub fn beacon_keys() -> KeyRing {
    KeyRing::new(KEY_ID, key(BEACON))
}

/// The announce keys of all devices of a farm, as its server has them.
#[must_use]
pub fn server_keys(devices: u32, store: Store) -> KeyMap {
    let mut keys = KeyMap::new();
    for number in 0..devices {
        keys.insert(device(number, store).id, device_keys(number).announce);
    }
    keys
}
