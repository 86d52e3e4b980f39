use proptest::prelude::*;

use super::*;

fn place() -> impl Strategy<Value = Place> {
    (0_u8..7, 0_u8..4, 1_u64..).prop_map(|(log, lane, number)| Place {
        log: Log(log),
        lane: Lane::new(lane).unwrap(),
        number,
    })
}

fn keys() -> impl Strategy<Value = OrderKeys> {
    (any::<u64>(), any::<u64>(), any::<u64>(), 0_u8..4).prop_map(|(key, supersede, version, some)| {
        let supersede = if some & 2 == 0 { 0 } else { supersede };
        OrderKeys {
            key: if some & 1 == 0 { 0 } else { key },
            supersede,
            version: if supersede == 0 { 0 } else { version },
        }
    })
}

fn id() -> impl Strategy<Value = [u8; 16]> {
    any::<[u8; 16]>().prop_filter("an id", |id| *id != [0; 16])
}

fn record() -> impl Strategy<Value = Record> {
    let end = (place(), any::<u64>(), 1_u8.., any::<u8>(), any::<u32>(), keys());
    prop_oneof![
        id().prop_map(|id| Record::Head { device: NodeId(id) }),
        (id(), any::<u64>()).prop_map(|(id, fence)| Record::Fence(Known { server: NodeId(id), fence })),
        (0_u8..7, any::<(bool, bool, u64)>(), id()).prop_map(|(log, (named, newest, run), lineage)| {
            Record::Lineage(Kept { log: Log(log), named, newest, run, lineage: Lineage(lineage) })
        }),
        (place(), any::<u64>(), any::<(u64, u64)>()).prop_map(|(place, settled, (floor, run))| {
            Record::Lane { log: place.log, lane: place.lane, settled, floor: LaneFloor { floor, run } }
        }),
        (0_u8..32, 1_u8.., any::<u32>(), 1_u64..).prop_map(|(log_lane, code, number, key)| Record::Key {
            log_lane,
            code: Code(code),
            number,
            key
        }),
        (0_u8..32, any::<(bool, u16, u32, u64)>(), 1_u64..).prop_map(
            |(log_lane, (again, age, number, version), key)| Record::Version {
                log_lane,
                again,
                age,
                number,
                key,
                version
            }
        ),
        (place(), any::<u64>(), keys()).prop_map(|(place, settled, keys)| Record::Start {
            place,
            settled,
            keys
        }),
        end.prop_map(|(place, settled, code, detail, ms, keys)| {
            let ending = Ending { code: Code(code), detail, ms };
            Record::End { place, settled, ending, keys }
        }),
    ]
}

proptest! {
    #[test]
    fn a_record_reads_as_it_was_written(record in record()) {
        let mut into = [0xA5; RECORD_MAX];
        let len = record.emit(&mut into).unwrap();
        prop_assert!(len <= LONGEST);
        prop_assert_eq!(Record::parse(&into[..len]), Ok(record));
        for cut in 0..len {
            prop_assert!(Record::parse(&into[..cut]).is_err());
        }
        let mut longer = into[..len].to_vec();
        longer.push(0);
        prop_assert!(Record::parse(&longer).is_err());
    }

    #[test]
    fn what_reads_as_a_record_is_written_so(kind in 0_u8..10, rest in prop::collection::vec(any::<u8>(), 0..RECORD_MAX)) {
        let mut bytes = vec![kind];
        bytes.extend(rest);
        if let Ok(record) = Record::parse(&bytes) {
            let mut into = [0xA5; RECORD_MAX];
            let len = record.emit(&mut into).unwrap();
            prop_assert_eq!(&into[..len], &bytes[..]);
        }
    }
}

#[test]
fn the_longest_record_has_48_bytes_and_the_buffer_room_for_16_more() {
    let place = Place { log: Log(6), lane: Lane::Bulk, number: u64::MAX };
    let keys = OrderKeys { key: 1, supersede: 2, version: 3 };
    let ending = Ending { code: Code::APPLIED, detail: 0, ms: 0 };
    let record = Record::End { place, settled: 7, ending, keys };
    assert_eq!(record.emit(&mut [0; RECORD_MAX]), Ok(48));
    assert_eq!((LONGEST, RECORD_MAX), (48, 64));
}

/// The tables of bytes among some lines.
fn tables<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut rows = Vec::new();
    let mut open = false;
    for line in lines {
        open = line == "| offset | size | field | rule |" || (open && line.starts_with('|'));
        if open {
            rows.push(line);
        }
    }
    rows
}

#[test]
fn the_tables_of_the_document_are_those_of_the_source() {
    let source = include_str!("../record.rs").lines().map_while(|line| line.strip_prefix("//!"));
    let source = tables(source.map(str::trim));
    assert_eq!(tables(include_str!("../../../../docs/JOURNAL.md").lines()), source);
    assert_eq!(source.iter().filter(|row| row.contains("| 0 | 1 | kind |")).count(), 8);
}

#[test]
fn the_vectors_of_the_document_are_the_records_they_say() {
    let document = include_str!("../../../../docs/JOURNAL.md");
    let lineage = Lineage([0x33; 16]);
    let place = Place { log: Log(1), lane: Lane::Normal, number: 9 };
    let keys = OrderKeys { key: 0x51, supersede: 0x52, version: 3 };
    let ending = Ending { code: Code::FAILED, detail: 7, ms: 250 };
    let floor = LaneFloor { floor: 8, run: 307 };
    let (log_lane, number) = (pack(Log::GONE, Lane::Urgent), 4);
    let records = [
        ("HEAD", Record::Head { device: NodeId([0x11; 16]) }),
        ("FENCE", Record::Fence(Known { server: NodeId([0x22; 16]), fence: 3 })),
        ("LINEAGE", Record::Lineage(Kept { log: Log(1), named: true, newest: true, run: 307, lineage })),
        ("LANE", Record::Lane { log: Log(1), lane: Lane::Normal, settled: 8, floor }),
        ("KEY", Record::Key { log_lane, code: Code::APPLIED, number, key: 0x53 }),
        ("VERSION", Record::Version { log_lane, again: true, age: 2, number, key: 0x54, version: 6 }),
        ("START", Record::Start { place, settled: 8, keys: OrderKeys { supersede: 0, version: 0, ..keys } }),
        ("END", Record::End { place, settled: 8, ending, keys }),
    ];
    for (name, record) in records {
        let mut into = [0; RECORD_MAX];
        let len = record.emit(&mut into).unwrap();
        let block = document.split(&format!("\n```record {name}\n")).nth(1).expect(name);
        let (hex, _) = block.split_once("```").unwrap();
        let bytes: Vec<u8> =
            hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        assert_eq!(into[..len], bytes, "{name}");
    }
}
