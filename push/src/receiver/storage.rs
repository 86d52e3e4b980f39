//! The memory a receiver works in, given by the caller.
//!
//! | what | holds | bytes | without it |
//! | --- | --- | --- | --- |
//! | ring | every order received that SETTLED has not covered | 16 each | nothing is served |
//! | logs | the floors of each lineage kept: one volatile, then the durable ones, 7 in all at most | 96 each | with one, nothing durable is served |
//! | keys | order keys that had an effect, or may have had one | 16 each | a key repeated by another server is applied again |
//! | versions | the newest version begun per supersede key | 24 each | an older one is applied after a newer one |
//! | park | copies of orders that wait for their lane | 40 each, and the order's body | such an order ends its attempt as BUSY |
//! | desk | questions of this device, and the large payload being fetched | 200 for one | neither is to be had |
//! | queue | results, progress, questions and answers on their way out | their frames | none of these is sent |
//!
//! Firmware takes a [`Fixed`] of arrays, a device with an operating system a `Boxed`; any mixture is a [`Memory`].

use super::asks::Asks;
use super::config::LOGS_FIRMWARE;
use super::floors::LogSlot;
use super::keys::{KeySlot, VersionSlot};
use super::parts::Blob;
use super::ring::OutcomeSlot;
use super::stats::DeskCounts;

/// The kinds of memory of a [`super::Receiver`]. [`Memory`] implements it for anything that lends slices.
pub trait Storage {
    /// Orders and their outcomes, [`super::ReceiverConfig::ring_len`] of them.
    type Ring: AsRef<[OutcomeSlot]> + AsMut<[OutcomeSlot]>;
    /// Lineages: the volatile one, then durable ones.
    type Logs: AsRef<[LogSlot]> + AsMut<[LogSlot]>;
    /// Order keys.
    type Keys: AsRef<[KeySlot]> + AsMut<[KeySlot]>;
    /// Supersede keys.
    type Versions: AsRef<[VersionSlot]> + AsMut<[VersionSlot]>;
    /// Waiting orders.
    type Park: AsRef<[u8]> + AsMut<[u8]>;
    /// Frames on their way out.
    type Queue: AsRef<[u8]> + AsMut<[u8]>;
    /// Questions and the large payload: one, or none.
    type Desk: AsRef<[DeskSlot]> + AsMut<[DeskSlot]>;

    /// The pieces, to be overwritten.
    #[expect(clippy::type_complexity, reason = "it names each of the seven kinds above once")]
    fn into_memory(
        self,
    ) -> Memory<Self::Ring, Self::Logs, Self::Keys, Self::Versions, Self::Park, Self::Queue, Self::Desk>;
}

/// What a device needs that asks questions, or takes large payloads.
#[derive(Clone, Debug)]
pub struct DeskSlot {
    pub(super) asks: Asks,
    pub(super) blob: Blob,
    pub(super) counts: DeskCounts,
}

impl DeskSlot {
    /// A free one.
    pub const EMPTY: Self = Self { asks: Asks::new(), blob: Blob::NONE, counts: DeskCounts::NONE };
}

const _: () = assert!(size_of::<DeskSlot>() <= 200);

/// The memory of a receiver, piece by piece. What stands in it is overwritten.
#[derive(Clone, Debug)]
pub struct Memory<R, L, K, V, P, Q, D> {
    /// Orders received that SETTLED has not covered; bounds the window to half its slots.
    pub ring: R,
    /// Lineages: one volatile, then 1 to 6 durable ones. Who comes back after as many others have come is a stranger.
    pub logs: L,
    /// Order keys; may be empty.
    pub keys: K,
    /// Supersede keys; may be empty.
    pub versions: V,
    /// Bytes for waiting orders; may be empty.
    pub park: P,
    /// Bytes for frames on their way out; may be empty.
    pub queue: Q,
    /// One, or none: then this device asks nothing and takes no large payloads.
    pub desk: D,
}

impl<R, L, K, V, P, Q, D> Storage for Memory<R, L, K, V, P, Q, D>
where
    R: AsRef<[OutcomeSlot]> + AsMut<[OutcomeSlot]>,
    L: AsRef<[LogSlot]> + AsMut<[LogSlot]>,
    K: AsRef<[KeySlot]> + AsMut<[KeySlot]>,
    V: AsRef<[VersionSlot]> + AsMut<[VersionSlot]>,
    P: AsRef<[u8]> + AsMut<[u8]>,
    Q: AsRef<[u8]> + AsMut<[u8]>,
    D: AsRef<[DeskSlot]> + AsMut<[DeskSlot]>,
{
    type Ring = R;
    type Logs = L;
    type Keys = K;
    type Versions = V;
    type Park = P;
    type Queue = Q;
    type Desk = D;

    fn into_memory(self) -> Self {
        self
    }
}

/// Arrays: `RING` orders, `KEYS` order keys and as many supersede keys, `PARK` and `QUEUE` bytes.
pub type Fixed<const RING: usize, const KEYS: usize, const PARK: usize, const QUEUE: usize> = Memory<
    [OutcomeSlot; RING],
    [LogSlot; LOGS_FIRMWARE],
    [KeySlot; KEYS],
    [VersionSlot; KEYS],
    [u8; PARK],
    [u8; QUEUE],
    [DeskSlot; 1],
>;

/// The smallest that serves a window of 4 orders: no park, no queue, no desk. Orders, "later", CANCEL and DRAIN work; an
/// order behind one at work is busy, results and questions are not sent.
pub type Firmware = Memory<
    [OutcomeSlot; 8],
    [LogSlot; LOGS_FIRMWARE],
    [KeySlot; 2],
    [VersionSlot; 1],
    [u8; 0],
    [u8; 0],
    [DeskSlot; 0],
>;

impl Firmware {
    /// Empty arrays.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            ring: [OutcomeSlot::EMPTY; 8],
            logs: [LogSlot::EMPTY; LOGS_FIRMWARE],
            keys: [KeySlot::EMPTY; 2],
            versions: [VersionSlot::EMPTY],
            park: [],
            queue: [],
            desk: [],
        }
    }
}

impl Default for Firmware {
    fn default() -> Self {
        Self::new()
    }
}

impl<const RING: usize, const KEYS: usize, const PARK: usize, const QUEUE: usize>
    Fixed<RING, KEYS, PARK, QUEUE>
{
    /// Empty arrays.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            ring: [OutcomeSlot::EMPTY; RING],
            logs: [LogSlot::EMPTY; LOGS_FIRMWARE],
            keys: [KeySlot::EMPTY; KEYS],
            versions: [VersionSlot::EMPTY; KEYS],
            park: [0; PARK],
            queue: [0; QUEUE],
            desk: [DeskSlot::EMPTY],
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
pub type Boxed = Memory<
    Box<[OutcomeSlot]>,
    [LogSlot; super::LOGS],
    Box<[KeySlot]>,
    Box<[VersionSlot]>,
    Box<[u8]>,
    Box<[u8]>,
    [DeskSlot; 1],
>;

#[cfg(feature = "tokio")]
impl Boxed {
    /// What a device with an operating system takes: the ring its window asks for, [`super::LOGS`] lineages,
    /// [`super::KEYS`] keys of both sorts, a park of [`super::PARK_BYTES`] and a queue of [`super::QUEUE_BYTES`].
    #[must_use]
    pub fn new(config: &super::ReceiverConfig) -> Self {
        Self {
            ring: vec![OutcomeSlot::EMPTY; config.ring_len()].into(),
            logs: [LogSlot::EMPTY; super::LOGS],
            keys: vec![KeySlot::EMPTY; super::KEYS].into(),
            versions: vec![VersionSlot::EMPTY; super::KEYS].into(),
            park: vec![0; super::PARK_BYTES].into(),
            queue: vec![0; super::QUEUE_BYTES].into(),
            desk: [DeskSlot::EMPTY],
        }
    }
}
