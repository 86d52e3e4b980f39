//! What this device remembers of the application's keys.

/// One order key: 16 bytes of the storage given to [`super::Receiver::new`].
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "filled in with the rules that read it")]
pub struct KeySlot {
    key: u64,
    number: u32,
    lineage: u16,
    code: u8,
    log_lane: u8,
}

const _: () = assert!(size_of::<KeySlot>() == 16);

impl KeySlot {
    /// A free slot, to fill the storage with.
    pub const EMPTY: Self = Self { key: 0, number: 0, lineage: 0, code: 0, log_lane: 0 };
}

/// One supersede key: 24 bytes of the storage given to [`super::Receiver::new`].
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "filled in with the rules that read it")]
pub struct VersionSlot {
    key: u64,
    version: u64,
    number: u32,
    used: u16,
    log_lane: u8,
    state: u8,
}

const _: () = assert!(size_of::<VersionSlot>() == 24);

impl VersionSlot {
    /// A free slot, to fill the storage with.
    pub const EMPTY: Self = Self { key: 0, version: 0, number: 0, used: 0, log_lane: 0, state: 0 };
}
