//! The outbox: any records in a sound log, and any bytes as its files.
//!
//! Both are opened and used. Then: what is found the second time is what was found the first time, nothing that has ended
//! is found as an order, and no number is given that was given before.

use push::order::Order;
use push::outbox::log::{Life, Log, Settings};
use push::outbox::{Entry, Frame, Now, Outbox, Restored, Targets};
use wire_format::frame::header::{Flags, Header};
use wire_format::ids::{Lineage, OrderKind};

use super::{Seed, Source};
use crate::disk::SimDisk;

const SMALL: Settings = Settings { segment_bytes: 1_024, bytes_max: 64 << 10 };
const NOW: Now = Now { wall_ms: 1_800_000_000_000, awake_ms: 0 };
/// Bytes of the segments an input is made from.
const SEGMENT: usize = 1_024;

/// Records of any kind with any body: a byte says the kind, two say the length; a zero kind ends a commit.
///
/// # Panics
///
/// If an invariant is broken.
pub fn outbox_records(data: &[u8]) {
    let disk = SimDisk::new(1);
    let opened = Log::open(disk.clone(), SMALL, Lineage([1; 16]), 1, |_, _, _| Life::Live);
    let (mut log, _) = opened.expect("an empty disk");
    let mut source = Source(data);
    while !source.is_empty() {
        let kind = source.u8() & 0x0F;
        if kind == 0 {
            log.commit().expect("a disk that works");
            continue;
        }
        let len = usize::from(source.u16()).min(4_096);
        let body = source.bytes(len);
        if log.append(kind, Life::Live, &[body]).is_err() {
            break;
        }
    }
    log.commit().expect("a disk that works");
    drop(log);
    use_twice(&disk, true);
}

/// Any bytes as segments 1, 2 and so on, 1,024 bytes each.
///
/// # Panics
///
/// If an invariant is broken.
pub fn outbox_files(data: &[u8]) {
    let disk = SimDisk::new(1);
    for (number, bytes) in (1..).zip(data.chunks(SEGMENT)) {
        disk.put(number, bytes.to_vec());
    }
    use_twice(&disk, false);
}

/// Opens what is there, and once more; then uses it.
fn use_twice(disk: &SimDisk, sound: bool) {
    let first = match Outbox::open(disk.clone(), SMALL, NOW, 2) {
        Ok((outbox, restored)) => {
            drop(outbox);
            restored
        }
        Err(error) => return assert!(!sound || !matches!(error, push::outbox::OpenError::Log(_)), "{error}"),
    };
    check(&first);
    disk.crash();
    let Ok((mut outbox, second)) = Outbox::open(disk.clone(), SMALL, NOW, 3) else { return };
    check(&second);
    assert!(second.head >= first.head && second.fence == first.fence && second.lineage == first.lineage);
    let orders = |restored: &Restored| -> Vec<_> {
        restored.orders.iter().map(|order| (order.number, order.frame.clone(), order.marks.clone())).collect()
    };
    assert_eq!(orders(&second), orders(&first));
    assert_eq!((second.keys.len(), &second.notes), (first.keys.len(), &first.notes));
    let devices = |restored: &Restored| restored.devices.iter().map(|known| known.device).collect::<Vec<_>>();
    assert_eq!(devices(&second), devices(&first));
    let Some(number) = second.head.checked_add(1) else { return };
    let bytes = frame(number);
    let targets = &Targets::one(3).expect("a device number");
    let entry = Entry::Order { frame: Frame::new(&bytes).expect("our own frame"), targets };
    if outbox.append(NOW, &entry).is_ok() && outbox.commit(NOW).is_ok() {
        drop(outbox);
        disk.crash();
        let (_, third) = Outbox::open(disk.clone(), SMALL, NOW, 4).expect("it was opened before");
        assert!(third.head >= number && third.orders.iter().any(|order| order.frame == bytes));
    }
}

fn check(restored: &Restored) {
    for order in &restored.orders {
        assert!(order.number <= restored.head);
        let open = order.marks.count(|mark| !mark.is_final());
        assert!(open > 0, "it has ended: {}", order.number);
        match order.attempt {
            Some(attempt) => assert!(restored.orders.iter().any(|root| root.number == attempt.root)),
            None => assert_eq!(Frame::new(&order.frame).and_then(|frame| frame.check()), Ok(())),
        }
    }
    assert!(restored.runs.last().is_some_and(|run| run.run != 0) && restored.runs.len() <= 32);
}

fn frame(number: u64) -> Vec<u8> {
    let order = Order::new(OrderKind::PRINT, 1, b"fuzz").key("fuzz");
    let mut bytes = vec![0; order.encoded_len()];
    order.emit(number, &mut bytes).expect("there is room");
    if let Some(head) = bytes.first_chunk_mut() {
        let header = Header::parse(head).expect("our own header");
        *head = Header { flags: header.flags.with_if(Flags::DURABLE, true), ..header }.emit();
    }
    bytes
}

/// The blocks of `docs/OUTBOX.md`, each by itself and all together; and files with them in it.
pub(super) fn seeds(seeds: &mut Vec<Seed>) {
    let document = include_str!("../../../docs/OUTBOX.md");
    let mut all = Vec::new();
    let mut seed = |target, name: String, bytes| seeds.push(Seed { target, name, bytes });
    let names = [
        "ORDER", "RETRY", "CANCEL", "OUTCOMES", "DEVICE", "REMOVED", "SESSION", "FENCE", "RUN", "KEY",
        "MARK", "NOTE",
    ];
    for (kind, name) in (1_u8..).zip(names) {
        let fence = format!("```record {name}\n");
        let (_, rest) = document.split_once(&fence).expect("the document has a block of each kind");
        let hex = rest.split("```").next().unwrap_or_default();
        let body: Vec<u8> =
            hex.split_whitespace().filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&(body.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&body);
        all.extend_from_slice(&bytes);
        seed("outbox_records", format!("record-{}", name.to_lowercase()), bytes);
    }
    seed("outbox_records", "record-all".to_owned(), all);
    let disk = SimDisk::new(1);
    let (mut outbox, _) = Outbox::open(disk.clone(), SMALL, NOW, 5).expect("an empty disk");
    let targets = &Targets::one(3).expect("a device number");
    for number in 1..=12 {
        let bytes = frame(number);
        let entry = Entry::Order { frame: Frame::new(&bytes).expect("our own frame"), targets };
        outbox
            .append(NOW, &entry)
            .and_then(|()| outbox.append(NOW, &Entry::Cancel { number }))
            .expect("there is room");
        outbox.commit(NOW).expect("a disk that works");
    }
    let files: Vec<u8> = disk.files().into_iter().flat_map(|(_, bytes)| bytes).collect();
    seed("outbox_files", "two-segments".to_owned(), files);
}
