//! The tables of keys, each rule and each limit.

use wire_format::ids::Lane;

use super::super::floors::Log;
use super::*;

/// The log the orders below came in, and another one.
const HERE: Log = Log(0);
const THERE: Log = Log(1);

type TheKeys = Keys<[KeySlot; 3], [VersionSlot; 3]>;

fn tables() -> TheKeys {
    Keys::new([KeySlot::EMPTY; 3], [VersionSlot::EMPTY; 3])
}

fn place(number: u64) -> Place {
    Place { log: HERE, lane: Lane::Normal, number }
}

fn key(key: u64) -> OrderKeys {
    OrderKeys { key, supersede: 0, version: 0 }
}

fn version(supersede: u64, version: u64) -> OrderKeys {
    OrderKeys { key: 0, supersede, version }
}

#[test]
fn the_same_key_in_another_lineage_is_a_duplicate_if_it_may_have_had_an_effect() {
    for (code, again) in [
        (Code::APPLIED, Judgement::Duplicate(Code::APPLIED)),
        (Code::FAILED, Judgement::Duplicate(Code::FAILED)),
        (Code::IN_DOUBT, Judgement::Duplicate(Code::IN_DOUBT)),
        (Code::REJECTED_KIND, Judgement::Start),
        (Code::BUSY, Judgement::Start),
        (Code::FAILED_RETRYABLE, Judgement::Start),
    ] {
        let mut keys = tables();
        assert_eq!(keys.judge(HERE, key(7)), Judgement::Start);
        keys.start(place(5), key(7), |_, _| false);
        // As long as it is at work nobody knows; within its lineage a key means nothing.
        assert_eq!(
            (keys.judge(THERE, key(7)), keys.judge(HERE, key(7))),
            (Judgement::AtWork, Judgement::Start)
        );
        keys.end(place(5), code, Note::NONE);
        assert_eq!(
            (keys.judge(THERE, key(7)), keys.judge(HERE, key(7))),
            (again, Judgement::Start),
            "{code}"
        );
        assert_eq!(
            (keys.judge(THERE, key(8)), keys.judge(THERE, key(0))),
            (Judgement::Start, Judgement::Start)
        );
    }
}

#[test]
fn what_had_no_effect_drives_out_nothing_that_had_one() {
    let mut keys = tables();
    keys.start(place(1), key(7), |_, _| false);
    keys.end(place(1), Code::APPLIED, Note::NONE);
    for number in 2..=9 {
        keys.start(place(number), key(8), |_, _| false);
        keys.end(place(number), Code::REJECTED_KIND, Note::NONE);
    }
    assert_eq!(keys.judge(THERE, key(7)), Judgement::Duplicate(Code::APPLIED));
}

#[test]
fn of_two_orders_with_one_key_at_work_the_one_with_an_effect_counts() {
    for (first, second) in [(Code::REJECTED_KIND, Code::APPLIED), (Code::APPLIED, Code::BUSY)] {
        let mut keys = tables();
        keys.start(place(1), key(7), |_, _| false);
        keys.start(place(2), key(7), |_, _| false);
        keys.end(place(1), first, Note::NONE);
        keys.end(place(2), second, Note::NONE);
        assert_eq!(keys.judge(THERE, key(7)), Judgement::Duplicate(Code::APPLIED));
    }
}

#[test]
fn a_full_table_of_keys_forgets_the_oldest() {
    let mut keys = tables();
    for number in 1..=4 {
        keys.start(place(number), key(number), |_, _| false);
        keys.end(place(number), Code::APPLIED, Note::NONE);
    }
    assert_eq!(keys.judge(THERE, key(1)), Judgement::Start);
    for number in 2..=4 {
        assert_eq!(keys.judge(THERE, key(number)), Judgement::Duplicate(Code::APPLIED));
    }
}

#[test]
fn an_older_version_is_superseded_and_an_attempt_at_the_same_one_is_not() {
    let mut keys = tables();
    keys.start(place(5), version(9, 3), |_, _| false);
    for (of, judged) in [(2, Judgement::Superseded), (3, Judgement::Superseded), (4, Judgement::Start)] {
        assert_eq!(keys.judge(THERE, version(9, of)), judged);
    }
    assert_eq!(keys.judge(THERE, version(8, 1)), Judgement::Start);
    keys.end(place(5), Code::NO_SPACE, Note::NONE);
    for (of, judged) in [(2, Judgement::Superseded), (3, Judgement::Start), (4, Judgement::Start)] {
        assert_eq!(keys.judge(HERE, version(9, of)), judged);
    }
    keys.start(place(6), version(9, 3), |_, _| false);
    keys.end(place(6), Code::APPLIED, Note::NONE);
    assert_eq!(keys.judge(HERE, version(9, 3)), Judgement::Superseded);
}

#[test]
fn a_full_table_of_versions_forgets_the_one_used_least_lately_that_is_settled() {
    let mut keys = tables();
    for number in 1..=3 {
        keys.start(place(number), version(number, 10), |_, _| false);
        keys.end(place(number), Code::APPLIED, Note::NONE);
    }
    // 1 was used before all others, but its order is not settled.
    keys.start(place(4), version(4, 10), |_, number| number == 1);
    let known: Vec<_> =
        (1..=4).filter(|of| keys.judge(HERE, version(*of, 10)) == Judgement::Superseded).collect();
    assert_eq!(known, [1, 3, 4]);
    // None is: then the oldest goes.
    keys.start(place(5), version(5, 10), |_, _| true);
    let known: Vec<_> =
        (1..=5).filter(|of| keys.judge(HERE, version(*of, 10)) == Judgement::Superseded).collect();
    assert_eq!(known, [3, 4, 5]);
}

#[test]
fn without_tables_nothing_is_remembered() {
    let mut keys = Keys::new([KeySlot::EMPTY; 0], [VersionSlot::EMPTY; 0]);
    let both = OrderKeys { key: 1, supersede: 2, version: 3 };
    keys.start(place(1), both, |_, _| false);
    keys.end(place(1), Code::APPLIED, Note::NONE);
    assert_eq!(keys.judge(THERE, both), Judgement::Start);
}
