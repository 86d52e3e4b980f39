//! The outbox, on a disk in memory: what the thread that writes does for an order, without the disk itself.
//!
//! Each order goes from its frame to the end of its record: accepted, synced, its outcomes written, synced, forgotten. A
//! segment that is full is followed by the next one; what that costs is spread over the orders it holds.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use push::outbox::log::{Disk, Settings};
use push::outbox::{Batch, Entry, Frame, Now, Outbox, Outcome, Targets};
use wire_format::frame::outcome::Code;
use wire_format::time::Instant;

use super::Scenario;
use super::wire::{delivery, order};

/// Devices of a fan-out.
const DEVICES: u32 = 1_000;
/// Orders of a commit, each for one device: what pushers in a hurry share.
const GROUP: u64 = 64;
const LIFETIME: Duration = Duration::from_secs(86_400);
/// Small ones: the memory of a disk that is used again and again.
const SETTINGS: Settings = Settings { segment_bytes: 1 << 20, bytes_max: 64 << 20 };

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario { name: "outbox_order", build: || orders(1), operations: 1 },
        Scenario { name: "outbox_group_per_order", build: || orders(GROUP), operations: GROUP },
        Scenario { name: "outbox_fan_out_per_device", build: fan_out, operations: DEVICES.into() },
    ]
}

/// Segments in memory. They lose nothing, so a sync has nothing to do.
#[derive(Debug, Default)]
struct Memory(BTreeMap<u64, Vec<u8>>);

impl Memory {
    fn segment(&mut self, segment: u64) -> io::Result<&mut Vec<u8>> {
        self.0.get_mut(&segment).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for Memory {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        Ok(self.0.keys().copied().collect())
    }

    fn create(&mut self, segment: u64, bytes: u64, head: &[u8]) -> io::Result<()> {
        let mut made = vec![0; bytes as usize];
        made[..head.len()].copy_from_slice(head);
        self.0.insert(segment, made);
        Ok(())
    }

    fn write(&mut self, segment: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let at = offset as usize;
        self.segment(segment)?[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self, segment: u64) -> io::Result<()> {
        self.segment(segment).map(drop)
    }

    fn read(&mut self, segment: u64, into: &mut Vec<u8>) -> io::Result<()> {
        into.clone_from(self.segment(segment)?);
        Ok(())
    }

    fn read_head(&mut self, segment: u64, into: &mut Vec<u8>) -> io::Result<()> {
        into.clone_from(self.segment(segment)?);
        into.truncate(128);
        Ok(())
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        self.0.remove(&segment);
        Ok(())
    }

    fn set_aside(&mut self, segments: &[u64]) -> io::Result<()> {
        segments.iter().for_each(|segment| drop(self.0.remove(segment)));
        Ok(())
    }
}

struct Rig {
    outbox: Outbox<Memory>,
    batch: Batch,
    frame: Vec<u8>,
    number: u64,
}

impl Rig {
    fn new() -> Self {
        let (outbox, restored) = Outbox::open(Memory::default(), SETTINGS, Now::default(), 7).expect("opens");
        assert!(restored.orders.is_empty(), "a new one");
        Self { outbox, batch: Batch::new(), frame: vec![0; 512], number: 0 }
    }

    /// Time goes on a little with each order.
    const fn now(&self) -> Now {
        Now { wall_ms: self.number / 1_000, awake_ms: self.number / 1_000 }
    }

    /// Takes an order, not synced yet.
    fn accept(&mut self, targets: &Targets) {
        self.number += 1;
        let delivery = wire_format::frame::order::Delivery { durable: true, ..delivery(LIFETIME) };
        let len = order(self.number, &[0x5A; 200]).emit(&delivery, &mut self.frame).expect("fits");
        let frame = Frame::new(&self.frame[..len]).expect("an order's");
        self.outbox.append(self.now(), &Entry::Order { frame, targets }).expect("there is room");
    }

    /// It was applied there.
    fn end(&mut self, number: u64, device: u32) {
        let outcome = Outcome {
            number,
            device,
            code: Code::APPLIED,
            first_code: Code::APPLIED,
            by_device: true,
            last: false,
        };
        self.batch.push(Instant::from_millis(1), outcome);
    }

    fn sync(&mut self) {
        self.outbox.append_batch(self.now(), &self.batch).expect("there is room");
        self.batch.clear();
        self.outbox.commit(self.now()).expect("memory writes");
    }
}

/// Orders that share their two commits, each for one device.
fn orders(group: u64) -> Box<dyn FnMut()> {
    let mut rig = Rig::new();
    let targets = Targets::one(3).expect("a number");
    Box::new(move || {
        for _ in 0..group {
            rig.accept(&targets);
        }
        rig.sync();
        for number in rig.number - group + 1..=rig.number {
            rig.end(number, 3);
        }
        rig.sync();
        assert_eq!(rig.outbox.stats().orders, 0, "all are over");
    })
}

/// One order for many devices, and their outcomes in one batch. Counted per device.
fn fan_out() -> Box<dyn FnMut()> {
    let mut rig = Rig::new();
    let targets = Targets::from_sorted(0..DEVICES).expect("numbers");
    Box::new(move || {
        rig.accept(&targets);
        rig.sync();
        for device in 0..DEVICES {
            rig.end(rig.number, device);
        }
        rig.sync();
        assert_eq!(rig.outbox.stats().orders, 0, "it is over");
    })
}
