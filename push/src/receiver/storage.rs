//! The memory a receiver works in, given by the caller.
//!
//! | what | holds | bytes | without it |
//! | --- | --- | --- | --- |
//! | ring | every order received that SETTLED has not covered | 16 each | nothing is served |
//! | keys | order keys that had an effect, or may have had one | 16 each | a key repeated by another server is applied again |
//! | versions | the newest version begun per supersede key | 24 each | an older one is applied after a newer one |
//! | park | copies of orders that wait for their lane | 40 each, and the order's body | such an order ends its attempt as BUSY |
//! | queue | results, progress, questions and answers on their way out | their frames | none of these is sent |
//!
//! Firmware takes a [`Fixed`] of arrays, a device with an operating system a `Boxed`; any mixture is a [`Memory`].

use super::keys::{KeySlot, VersionSlot};
use super::ring::OutcomeSlot;

/// The kinds of memory of a [`super::Receiver`]. [`Memory`] implements it for anything that lends slices.
pub trait Storage {
    /// Orders and their outcomes, [`super::ReceiverConfig::ring_len`] of them.
    type Ring: AsRef<[OutcomeSlot]> + AsMut<[OutcomeSlot]>;
    /// Order keys.
    type Keys: AsRef<[KeySlot]> + AsMut<[KeySlot]>;
    /// Supersede keys.
    type Versions: AsRef<[VersionSlot]> + AsMut<[VersionSlot]>;
    /// Waiting orders.
    type Park: AsRef<[u8]> + AsMut<[u8]>;
    /// Frames on their way out.
    type Queue: AsRef<[u8]> + AsMut<[u8]>;

    /// The pieces, to be overwritten.
    #[expect(clippy::type_complexity, reason = "it names each of the five kinds above once")]
    fn into_memory(self) -> Memory<Self::Ring, Self::Keys, Self::Versions, Self::Park, Self::Queue>;
}

/// The memory of a receiver, piece by piece. What stands in it is overwritten.
#[derive(Clone, Debug)]
pub struct Memory<R, K, V, P, Q> {
    /// Orders received that SETTLED has not covered; bounds the window to half its slots.
    pub ring: R,
    /// Order keys; may be empty.
    pub keys: K,
    /// Supersede keys; may be empty.
    pub versions: V,
    /// Bytes for waiting orders; may be empty.
    pub park: P,
    /// Bytes for frames on their way out; may be empty.
    pub queue: Q,
}

impl<R, K, V, P, Q> Storage for Memory<R, K, V, P, Q>
where
    R: AsRef<[OutcomeSlot]> + AsMut<[OutcomeSlot]>,
    K: AsRef<[KeySlot]> + AsMut<[KeySlot]>,
    V: AsRef<[VersionSlot]> + AsMut<[VersionSlot]>,
    P: AsRef<[u8]> + AsMut<[u8]>,
    Q: AsRef<[u8]> + AsMut<[u8]>,
{
    type Ring = R;
    type Keys = K;
    type Versions = V;
    type Park = P;
    type Queue = Q;

    fn into_memory(self) -> Self {
        self
    }
}

/// Arrays: `RING` orders, `KEYS` order keys and as many supersede keys, `PARK` and `QUEUE` bytes.
pub type Fixed<const RING: usize, const KEYS: usize, const PARK: usize, const QUEUE: usize> =
    Memory<[OutcomeSlot; RING], [KeySlot; KEYS], [VersionSlot; KEYS], [u8; PARK], [u8; QUEUE]>;

/// The smallest that serves a window of 4 orders: no park, no queue.
pub type Firmware = Fixed<8, 2, 0, 0>;

impl<const RING: usize, const KEYS: usize, const PARK: usize, const QUEUE: usize>
    Fixed<RING, KEYS, PARK, QUEUE>
{
    /// Empty arrays.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            ring: [OutcomeSlot::EMPTY; RING],
            keys: [KeySlot::EMPTY; KEYS],
            versions: [VersionSlot::EMPTY; KEYS],
            park: [0; PARK],
            queue: [0; QUEUE],
        }
    }
}

impl<const RING: usize, const KEYS: usize, const PARK: usize, const QUEUE: usize> Default
    for Fixed<RING, KEYS, PARK, QUEUE>
{
    fn default() -> Self {
        Self::new()
    }
}

/// Memory from the allocator, taken once.
#[cfg(feature = "tokio")]
pub type Boxed = Memory<Box<[OutcomeSlot]>, Box<[KeySlot]>, Box<[VersionSlot]>, Box<[u8]>, Box<[u8]>>;

#[cfg(feature = "tokio")]
impl Boxed {
    /// What a device with an operating system takes: the ring its window asks for, [`super::KEYS`] keys of both sorts, a
    /// park of [`super::PARK_BYTES`] and a queue of [`super::QUEUE_BYTES`].
    #[must_use]
    pub fn new(config: &super::ReceiverConfig) -> Self {
        Self {
            ring: vec![OutcomeSlot::EMPTY; config.ring_len()].into(),
            keys: vec![KeySlot::EMPTY; super::KEYS].into(),
            versions: vec![VersionSlot::EMPTY; super::KEYS].into(),
            park: vec![0; super::PARK_BYTES].into(),
            queue: vec![0; super::QUEUE_BYTES].into(),
        }
    }
}
