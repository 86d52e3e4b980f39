//! What the tests have in common: a clock, frames, and an outbox of a small store.

use core::time::Duration;

use push::order::Order;
use push::outbox::log::Settings;
use push::outbox::{AppendError, Device, Entry, Frame, Now, Outbox, Restored, Session, Targets};
use testkit::disk::SimDisk;
use wire_format::frame::header::{Flags, Header};
use wire_format::frame::outcome::Code;
use wire_format::ids::{DeviceKind, Lane, NodeId, OrderKind, Tags};

/// Small segments, so that tests go through many.
pub(crate) const SMALL: Settings = Settings { segment_bytes: 8_192, bytes_max: 1 << 20 };

/// The frame of a durable order.
pub(crate) fn frame(number: u64, key: u64, lane: Lane, lifetime_ms: u64, payload: &[u8]) -> Vec<u8> {
    let order = Order::new(OrderKind::PRINT, 1, payload).lane(lane).key_number(key);
    let order = order.lifetime(Duration::from_millis(lifetime_ms));
    let mut bytes = vec![0; order.encoded_len()];
    order.emit(number, &mut bytes).unwrap();
    let head = bytes.first_chunk_mut().unwrap();
    let header = Header::parse(head).unwrap();
    *head = Header { flags: header.flags.with_if(Flags::DURABLE, true), ..header }.emit();
    bytes
}

pub(crate) fn device(number: u32) -> Device {
    let mut id = [0x5A; 16];
    id[..4].copy_from_slice(&number.to_le_bytes());
    Device {
        device: number,
        id: Some(NodeId(id)),
        kind: DeviceKind::TILL,
        zone: number % 3,
        tags: Tags::new(["front"]).unwrap(),
        address: Some(([127, 0, 0, 1], 8_000).into()),
    }
}

/// An outbox with a clock.
#[derive(Debug)]
pub(crate) struct Shop {
    pub(crate) disk: SimDisk,
    pub(crate) outbox: Outbox<SimDisk>,
    pub(crate) now: Now,
    seed: u64,
}

impl Shop {
    pub(crate) fn open(disk: SimDisk, now: Now, seed: u64) -> (Self, Restored) {
        let (outbox, restored) = Outbox::open(disk.clone(), SMALL, now, seed).unwrap();
        (Self { disk, outbox, now, seed }, restored)
    }

    /// With devices 0 to 9.
    pub(crate) fn new() -> Self {
        Self::seeded(1)
    }

    /// The same on a disk with another fate.
    pub(crate) fn seeded(seed: u64) -> Self {
        let now = Now { wall_ms: 1_800_000_000_000, awake_ms: 5_000 };
        let (mut shop, restored) = Self::open(SimDisk::new(seed), now, 1);
        assert!(restored.recovery.created && restored.orders.is_empty() && restored.head == 0);
        for number in 0..10 {
            shop.append(&Entry::Device(&device(number))).unwrap();
        }
        shop.commit();
        shop
    }

    pub(crate) fn append(&mut self, entry: &Entry<'_>) -> Result<(), AppendError> {
        self.outbox.append(self.now, entry)
    }

    pub(crate) fn commit(&mut self) {
        self.outbox.commit(self.now).unwrap();
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        self.now = Now { wall_ms: self.now.wall_ms + ms, awake_ms: self.now.awake_ms + ms };
    }

    /// An order of an hour, in the normal lane.
    pub(crate) fn order(&mut self, number: u64, key: u64, devices: &[u32]) {
        let bytes = frame(number, key, Lane::Normal, 3_600_000, b"order");
        let targets = &Targets::from_sorted(devices.iter().copied()).unwrap();
        self.append(&Entry::Order { frame: Frame::new(&bytes).unwrap(), targets }).unwrap();
    }

    pub(crate) fn ended(&mut self, number: u64, code: Code, devices: &[u32]) {
        let targets = &Targets::from_sorted(devices.iter().copied()).unwrap();
        let (first_code, by_device, last) = (code, true, false);
        self.append(&Entry::Outcomes { number, code, first_code, by_device, last, targets }).unwrap();
    }

    pub(crate) fn session(&mut self, device: u32, boot: u64, open: bool, upto: [u64; 4], ended: [u64; 4]) {
        self.append(&Entry::Session(&Session { device, boot, open, upto, ended })).unwrap();
    }

    /// The process is killed and started again; the system goes on.
    pub(crate) fn killed(self) -> (Self, Restored) {
        let now = Now { awake_ms: 0, ..self.now };
        Self::open(self.disk, now, self.seed + 1)
    }

    /// The power goes and comes back, and the awake clock begins anew.
    pub(crate) fn restart(self, off_ms: u64) -> (Self, Restored) {
        self.disk.crash();
        let now = Now { wall_ms: self.now.wall_ms + off_ms, awake_ms: 0 };
        Self::open(self.disk, now, self.seed + 1)
    }
}
