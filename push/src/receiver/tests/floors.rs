use wire_format::ids::{NodeId, Store};

use super::super::config::{LOGS, LOGS_FIRMWARE};
use super::*;

fn hello(volatile: u8, durable: u8) -> Hello {
    let head = |lineage: u8, run| match lineage {
        0 => LogHead::default(),
        _ => LogHead { lineage: Lineage([lineage; 16]), run, head: 9 },
    };
    Hello {
        version_min: 1,
        version_max: 1,
        staging: false,
        takeover: false,
        store: Store::new(1, "A").unwrap(),
        max_body: 512,
        target: NodeId::NONE,
        server: NodeId([7; 16]),
        fence: 1,
        epoch: 1,
        ping_interval_ms: 3_000,
        features: 0,
        durable: head(durable, 71),
        volatile: head(volatile, 70),
    }
}

#[test]
fn a_new_volatile_lineage_starts_at_zero_and_the_old_one_is_gone() {
    let mut floors = Floors::new([LogSlot::EMPTY; 3]);
    let mut gone = Vec::new();
    let logs = floors.open(&hello(1, 0), &mut |log| gone.push(log));
    let log = logs.of(false).unwrap();
    assert_eq!((logs.of(true), gone.len()), (None, 0));
    floors.raise(log, Lane::Normal, 5);
    floors.raise(log, Lane::Normal, 4);
    assert_eq!(floors.of(Some(log)).lanes[2], LaneFloor { floor: 5, run: 70 });
    assert_eq!((floors.floor(log, Lane::Normal), floors.floor(log, Lane::Urgent)), (5, 0));
    // The same lineage again: nothing is lost.
    floors.open(&hello(1, 0), &mut |log| gone.push(log));
    assert_eq!((floors.floor(log, Lane::Normal), gone.len()), (5, 0));
    // Another one has to show that its server lives.
    assert!(floors.would_replace(&hello(2, 0)) && !floors.would_replace(&hello(1, 0)));
    assert_eq!(floors.open(&hello(2, 0), &mut |log| gone.push(log)).of(false), None);
    assert_eq!((floors.floor(log, Lane::Normal), gone.len()), (5, 0));
    let log = floors.replace(Lineage([2; 16]), 72, &mut |log| gone.push(log));
    assert_eq!((floors.floor(log, Lane::Normal), floors.run(log), gone), (0, 72, vec![Log::VOLATILE]));
}

#[test]
fn two_durable_lineages_are_kept_and_a_third_takes_the_older_ones_place() {
    let mut floors = Floors::new([LogSlot::EMPTY; 3]);
    let mut gone = Vec::new();
    for (lineage, floor) in [(1, 10), (2, 20)] {
        let logs = floors.open(&hello(9, lineage), &mut |log| gone.push(log));
        floors.raise(logs.durable.unwrap(), Lane::Urgent, floor);
    }
    let logs = floors.open(&hello(9, 1), &mut |log| gone.push(log));
    assert_eq!((floors.floor(logs.durable.unwrap(), Lane::Urgent), gone.len()), (10, 0));
    let logs = floors.open(&hello(9, 3), &mut |log| gone.push(log));
    assert_eq!((floors.floor(logs.durable.unwrap(), Lane::Urgent), gone.len()), (0, 1));
    let logs = floors.open(&hello(9, 1), &mut |log| gone.push(log));
    assert_eq!((floors.floor(logs.durable.unwrap(), Lane::Urgent), gone.len()), (10, 1));
    let logs = floors.open(&hello(9, 2), &mut |log| gone.push(log));
    assert_eq!((floors.floor(logs.durable.unwrap(), Lane::Urgent), gone.len()), (0, 2));
}

#[test]
fn as_many_lineages_as_are_kept_and_one_more() {
    for (kept, durable) in [(LOGS_FIRMWARE, 2), (LOGS, 4)] {
        let mut floors = Floors::new(vec![LogSlot::EMPTY; kept]);
        let mut gone = Vec::new();
        let logs: Vec<_> = (1..=durable)
            .map(|lineage| floors.open(&hello(9, lineage), &mut |log| gone.push(log)).durable.unwrap())
            .collect();
        assert_eq!((logs.len(), gone.len()), (kept - 1, 0));
        let oldest_first: Vec<_> = (1..).map_while(|nth| floors.by_use(nth)).collect();
        assert_eq!(oldest_first, logs);
        // The first is used again; then the second is the one not used for longest.
        floors.open(&hello(9, 1), &mut |log| gone.push(log));
        floors.open(&hello(9, 100), &mut |log| gone.push(log));
        assert_eq!(gone, [logs[1]]);
        let order: Vec<_> = (1..).map_while(|nth| floors.by_use(nth)).collect();
        assert_eq!(
            (order.len(), order[order.len() - 1], order[order.len() - 2]),
            (kept - 1, logs[1], logs[0])
        );
    }
}

#[test]
fn what_the_journal_was_told_and_lost_is_told_again() {
    let mut floors = Floors::new([LogSlot::EMPTY; 3]);
    let logs = floors.open(&hello(1, 2), &mut |_| ());
    let (volatile, durable) = (logs.volatile.unwrap(), logs.durable.unwrap());
    floors.tell(volatile);
    assert_eq!(floors.pending(), Some(durable));
    floors.untell();
    assert_eq!(floors.pending(), Some(volatile));
    floors.tell_all();
    floors.recorded();
    floors.untell();
    assert_eq!((floors.pending(), floors.settled_due()), (None, None));
    floors.set_settled(durable, Lane::Bulk, true);
    assert_eq!(floors.settled_due(), Some((durable, Lane::Bulk)));
    floors.tell_all();
    assert_eq!(floors.settled_due(), None);
}
