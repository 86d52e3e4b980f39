//! The judge judged: every promise is broken once, and is seen to be; what is allowed passes.

use std::collections::BTreeSet;
use std::time::Duration;

use testkit::history::{Event, Facts, History, Limits, OrderId, Rule};
use wire_format::frame::outcome::Code;
use wire_format::ids::Lane;

const DEVICE: u32 = 3;
const KEY: u64 = 0x77;

fn order(number: u64) -> OrderId {
    OrderId { log: 1, number }
}

fn accepted(order: OrderId, change: impl FnOnce(&mut Facts)) -> Event {
    let mut facts = Facts { targets: BTreeSet::from([DEVICE]), ..Facts::default() };
    change(&mut facts);
    Event::Accepted { order, facts: Box::new(facts) }
}

fn plain(number: u64) -> Event {
    accepted(order(number), |_| ())
}

fn again(number: u64) -> Event {
    accepted(order(number), |facts| facts.idempotent = true)
}

fn version(number: u64, version: u64) -> Event {
    accepted(order(number), |facts| facts.supersede = Some((KEY, version)))
}

fn attempt(number: u64, of: u64) -> Event {
    accepted(order(number), |facts| facts.attempt_of = Some(order(of)))
}

fn in_log(log: u64) -> OrderId {
    OrderId { log, number: 1 }
}

fn keyed(log: u64) -> Event {
    accepted(in_log(log), |facts| facts.key = KEY)
}

fn effect_in(boot: u64, order: OrderId, redelivered: bool) -> Event {
    Event::Effect { order, device: DEVICE, boot, redelivered }
}

fn effect(number: u64) -> Event {
    effect_in(1, order(number), false)
}

fn answer_in(boot: u64, order: OrderId, code: Code) -> Event {
    Event::Answer { order, device: DEVICE, boot, code }
}

fn answer(number: u64, code: Code) -> Event {
    answer_in(1, order(number), code)
}

fn outcome(number: u64, code: Code) -> Event {
    Event::Outcome { order: order(number), device: DEVICE, code }
}

/// Handed over, answered, told: all that happens to an order whose device is well.
fn whole(number: u64, code: Code) -> [Event; 3] {
    [effect(number), answer(number, code), outcome(number, code)]
}

const fn boot(boot: u64) -> Event {
    Event::Boot { device: DEVICE, boot }
}

const fn sample(memory: u64, descriptors: u64) -> Event {
    Event::Sample { memory, descriptors }
}

fn limits() -> Limits {
    let late = Some(Duration::from_millis(500));
    Limits { late, memory: Some(1_000), descriptors: Some(4), settled: true, journal: false }
}

/// A history, a millisecond from line to line.
fn history(events: impl IntoIterator<Item = Event>) -> History {
    let history = History::new(limits());
    for (at, event) in (0..).zip(events) {
        history.record(Duration::from_millis(at), event);
    }
    history
}

fn rules(events: impl IntoIterator<Item = Event>) -> Vec<Rule> {
    history(events).finish().iter().map(|violation| violation.rule).collect()
}

/// The shortest history that breaks this rule and, until its last line, no other.
fn planted(rule: Rule) -> Vec<Event> {
    let settled = |number| Event::Settled { order: order(number) };
    let elsewhere = Event::Outcome { order: order(1), device: DEVICE + 1, code: Code::EXPIRED };
    match rule {
        Rule::Unknown => vec![effect(1)],
        Rule::AcceptedTwice => vec![plain(1), plain(1)],
        Rule::NotTargeted => vec![plain(1), elsewhere],
        Rule::SecondEffect => vec![plain(1), effect(1), boot(2), effect_in(2, order(1), true)],
        Rule::TwiceInOneBoot => vec![again(1), effect(1), effect_in(1, order(1), true)],
        Rule::Unflagged => vec![again(1), effect(1), boot(2), effect_in(2, order(1), false)],
        Rule::OutOfOrder => vec![plain(1), plain(2), effect(2), answer(2, Code::APPLIED), effect(1)],
        Rule::Overlap => vec![plain(1), plain(2), effect(1), effect(2)],
        Rule::AfterItsEnd => vec![plain(1), outcome(1, Code::CANCELLED), effect(1)],
        Rule::Late => {
            let short = accepted(order(1), |facts| facts.deadline = Some(Duration::from_millis(1)));
            let wait = std::iter::repeat_with(|| Event::Note("time passes".to_owned())).take(501);
            [short].into_iter().chain(wait).chain([effect(1)]).collect()
        }
        Rule::OlderVersion => {
            vec![version(1, 8), version(2, 8), effect(1), answer(1, Code::APPLIED), effect(2)]
        }
        Rule::SameKey => {
            vec![keyed(1), keyed(2), effect_in(1, in_log(1), false), effect_in(1, in_log(2), false)]
        }
        Rule::LowerFence => {
            let log = |log, fence| Event::Log { log, fence };
            let old = accepted(in_log(2), |_| ());
            vec![log(1, 5), log(2, 4), plain(1), old, effect(1), effect_in(1, in_log(2), false)]
        }
        Rule::AnswerToNothing => vec![plain(1), answer(1, Code::APPLIED)],
        Rule::SecondOutcome => vec![plain(1), outcome(1, Code::EXPIRED), outcome(1, Code::EXPIRED)],
        Rule::NoEffect => vec![plain(1), outcome(1, Code::APPLIED)],
        Rule::OtherAnswer => {
            vec![plain(1), effect(1), answer(1, Code::FAILED), outcome(1, Code::APPLIED)]
        }
        Rule::EffectDespite => vec![plain(1), effect(1), outcome(1, Code::EXPIRED)],
        Rule::WrongCode => vec![again(1), effect(1), boot(2), outcome(1, Code::IN_DOUBT)],
        Rule::SettledTwice => vec![plain(1), outcome(1, Code::EXPIRED), settled(1), settled(1)],
        Rule::SettledEarly => vec![plain(1), settled(1)],
        Rule::NoOutcome => vec![plain(1)],
        Rule::NotSettled => vec![plain(1), outcome(1, Code::EXPIRED)],
        Rule::Memory => vec![sample(5_000, 9), sample(6_001, 9)],
        Rule::Descriptors => vec![sample(5_000, 9), sample(5_000, 14)],
        _ => panic!("{rule:?} is broken nowhere"),
    }
}

#[test]
fn every_promise_is_seen_to_be_broken() {
    for rule in Rule::ALL {
        let history = history(planted(*rule));
        let found = history.finish();
        let first = found.first().unwrap_or_else(|| panic!("{rule:?} was not seen"));
        assert_eq!(first.rule, *rule, "{found:?}");
        let text = history.about(first);
        assert!(text.contains(rule.text()) && text.lines().count() > 1, "{text}");
        assert!(text.lines().count() < 10 || *rule == Rule::Late, "{text}");
    }
}

#[test]
fn the_line_that_breaks_a_promise_is_the_one_that_says_so() {
    for rule in Rule::ALL.iter().filter(|rule| !matches!(rule, Rule::NoOutcome | Rule::NotSettled)) {
        let history = History::new(limits());
        let events = planted(*rule);
        let last = events.len() - 1;
        for (at, event) in events.into_iter().enumerate() {
            let told = history.record(Duration::from_millis(at as u64), event);
            assert_eq!(told.map(|violation| violation.rule), (at == last).then_some(*rule));
        }
    }
}

#[test]
fn what_is_promised_passes() {
    let settled = |number| Event::Settled { order: order(number) };
    let mut good = vec![boot(1)];
    // Applied, failed, rejected, and never begun, in a row.
    for (number, code) in (1..).zip([Code::APPLIED, Code::FAILED, Code::REJECTED_KIND]) {
        good.push(plain(number));
        good.extend(whole(number, code));
        good.push(settled(number));
    }
    for (number, code) in (4..).zip([Code::EXPIRED, Code::CANCELLED, Code::OVERFLOW, Code::FENCED]) {
        good.extend([plain(number), outcome(number, code), settled(number)]);
    }
    // In doubt after a boot; and what may run again does, and even expires where nobody heard of its first run.
    good.extend([plain(20), effect(20), boot(2), outcome(20, Code::IN_DOUBT), settled(20)]);
    let rerun = effect_in(3, order(21), true);
    good.extend([again(21), effect_in(2, order(21), false), boot(3), rerun]);
    good.extend([answer_in(3, order(21), Code::APPLIED), outcome(21, Code::APPLIED), settled(21)]);
    good.extend([again(22), effect_in(3, order(22), false), boot(1)]);
    good.extend([outcome(22, Code::EXPIRED), settled(22)]);
    assert_eq!(rules(good), []);
}

#[test]
fn a_device_goes_by_the_fence_it_heard_and_not_by_what_servers_hold() {
    let log = |log, fence| Event::Log { log, fence };
    let heard_in = |boot, log, fence| Event::Heard { device: DEVICE, boot, log, fence };
    let heard = |log, fence| heard_in(1, log, fence);
    let of_log_2 = |number| OrderId { log: 2, number };
    let other = |number| accepted(of_log_2(number), |_| ());
    let begin = |number| effect_in(1, of_log_2(number), false);
    let served = |first: u64, second: u64| {
        vec![log(1, 1), log(2, first), plain(1), other(1), heard(1, 1), log(1, 3), heard(2, second)]
    };
    // Log 1 is raised to 3 while its last order under 1 is on its way: 2 is not below what the device heard.
    let mut taken_over = served(2, 2);
    taken_over.extend([effect(1), answer(1, Code::APPLIED), begin(1)]);
    assert_eq!(rules_of_effects(taken_over), [Rule::LowerFence], "log 1 is out once 2 was heard");
    let mut in_order = vec![log(1, 1), log(2, 2), plain(1), other(1), heard(1, 1), log(1, 3)];
    in_order.extend([effect(1), answer(1, Code::APPLIED), heard(2, 2), begin(1)]);
    assert_eq!(rules_of_effects(in_order), []);
    // What its server holds by now does not help an order of a session that was opened under less.
    let mut stale = vec![log(1, 1), log(2, 2), plain(1), plain(2), other(1), heard(1, 1), effect(1)];
    stale.extend([answer(1, Code::APPLIED), log(1, 3), heard(2, 2), begin(1), effect(2)]);
    assert_eq!(rules_of_effects(stale), [Rule::LowerFence]);
    // A boot forgets sessions, not what its journal has: the fence heard next is that of the next session.
    let mut anew = vec![log(1, 1), log(2, 2), plain(1), other(1), heard(2, 2), begin(1), boot(2)];
    anew.extend([heard_in(2, 1, 3), effect_in(2, order(1), false)]);
    assert_eq!(rules_of_effects(anew), []);
}

/// What the hand-overs of a history break: what is owed at its end is another matter.
fn rules_of_effects(events: impl IntoIterator<Item = Event>) -> Vec<Rule> {
    let missing = |rule: &Rule| !matches!(rule, Rule::NoOutcome | Rule::NotSettled);
    rules(events).into_iter().filter(missing).collect()
}

#[test]
fn lanes_and_logs_do_not_wait_for_each_other() {
    let urgent = accepted(order(2), |facts| facts.lane = Lane::Urgent);
    let other_log = accepted(in_log(2), |_| ());
    let mut events = vec![plain(1), plain(3), urgent, other_log, effect(1)];
    events.extend([effect(2), effect_in(1, in_log(2), false), answer(1, Code::APPLIED), effect(3)]);
    let all: Vec<_> = rules(events).into_iter().filter(|rule| *rule != Rule::NotSettled).collect();
    assert_eq!(all, [Rule::NoOutcome; 4]);
}

#[test]
fn an_attempt_that_is_over_had_no_effect_and_its_repetition_counts_with_it() {
    let first = |events: &[Event]| {
        let begin = [plain(1), effect(1), answer(1, Code::BUSY), attempt(2, 1), effect(2)];
        let mut all = begin.to_vec();
        all.extend_from_slice(events);
        let settled = [Event::Settled { order: order(1) }, Event::Settled { order: order(2) }];
        rules(all.into_iter().chain(settled))
    };
    let applied = answer(2, Code::APPLIED);
    assert_eq!(first(&[applied.clone(), outcome(2, Code::APPLIED), outcome(1, Code::APPLIED)]), []);
    let doubt = first(&[applied, outcome(2, Code::APPLIED), outcome(1, Code::BUSY)]);
    assert_eq!(doubt, [Rule::EffectDespite]);
    // The repetition of an attempt whose effect counts must not run.
    let twice = [plain(1), effect(1), answer(1, Code::APPLIED), attempt(2, 1), effect(2)];
    assert_eq!(rules(twice)[0], Rule::TwiceInOneBoot);
}

#[test]
fn attempts_under_one_name_come_again_only_if_they_had_no_effect() {
    let named = |number| accepted(order(number), |facts| facts.again = true);
    let settled = [Event::Settled { order: order(1) }, Event::Settled { order: order(2) }];
    let first = [named(1), effect(1), answer(1, Code::BUSY), named(2)];
    let good = first.into_iter().chain(whole(2, Code::APPLIED)).chain(whole(1, Code::APPLIED));
    assert_eq!(rules(good.chain(settled)), []);
    let twice = [named(1), effect(1), answer(1, Code::FAILED), effect(1)];
    assert_eq!(rules(twice)[0], Rule::TwiceInOneBoot);
}

#[test]
fn an_older_version_is_superseded_and_only_by_a_newer_one() {
    let settled = |number| Event::Settled { order: order(number) };
    let newer = [version(1, 8), version(2, 9), outcome(1, Code::SUPERSEDED), settled(1)];
    assert_eq!(rules(newer.into_iter().chain(whole(2, Code::APPLIED)).chain([settled(2)])), []);
    let alone = [version(1, 8), outcome(1, Code::SUPERSEDED), settled(1)];
    assert_eq!(rules(alone), [Rule::WrongCode]);
    // A version that was only tried does not stand in the way of its own repetition.
    let retry = accepted(order(2), |facts| {
        facts.supersede = Some((KEY, 8));
        facts.attempt_of = Some(order(1));
    });
    let end = [outcome(2, Code::APPLIED), outcome(1, Code::APPLIED), settled(1), settled(2)];
    let tried = [version(1, 8), effect(1), answer(1, Code::NO_SPACE), retry, effect(2)];
    let tried = tried.into_iter().chain([answer(2, Code::APPLIED)]).chain(end);
    assert_eq!(rules(tried), []);
}

#[test]
fn a_key_of_another_log_ends_an_order_as_the_first_one_ended() {
    let settled = |log| Event::Settled { order: in_log(log) };
    let told = |log| Event::Outcome { order: in_log(log), device: DEVICE, code: Code::APPLIED };
    let first = [keyed(1), effect_in(1, in_log(1), false), answer_in(1, in_log(1), Code::APPLIED)];
    let both = first.into_iter().chain([told(1), settled(1), keyed(2), told(2), settled(2)]);
    assert_eq!(rules(both), []);
    // It has to have been answered so, and by another log: one that was handed over and not answered ended otherwise.
    let begun =
        [keyed(1), effect_in(1, in_log(1), false), keyed(2), told(2), settled(2), Event::Gone { log: 1 }];
    assert_eq!(rules(begun), [Rule::NoEffect]);
    // What may run again has forgotten its end after a boot, but not before.
    let other = |log| {
        let facts = move |facts: &mut Facts| (facts.key, facts.idempotent) = (KEY, true);
        let answer = answer_in(log, in_log(2), Code::APPLIED);
        [accepted(in_log(2), facts), effect_in(log, in_log(2), false), answer]
    };
    let own = accepted(in_log(1), |facts| (facts.key, facts.idempotent) = (KEY, true));
    let own = [own, effect_in(1, in_log(1), false), answer_in(1, in_log(1), Code::FAILED)];
    let end = [told(2), settled(2), told(1), settled(1)];
    let forgotten = own.clone().into_iter().chain([boot(2)]).chain(other(2)).chain(end.clone());
    assert_eq!(rules(forgotten), []);
    assert_eq!(rules(own.into_iter().chain(other(1)).chain(end)), [Rule::OtherAnswer]);
    // One of its own log is another request, unless the device forgets the log and keeps the key.
    let second = OrderId { log: 1, number: 2 };
    let keyed_too = accepted(second, |facts| facts.key = KEY);
    let told_too = Event::Outcome { order: second, device: DEVICE, code: Code::APPLIED };
    let first = [keyed(1), effect_in(1, in_log(1), false), answer_in(1, in_log(1), Code::APPLIED), told(1)];
    let then = [settled(1), keyed_too, told_too, Event::Settled { order: second }];
    assert_eq!(rules(first.clone().into_iter().chain(then.clone())), [Rule::NoEffect]);
    let forgot = Event::Forgot { device: DEVICE, log: 1 };
    assert_eq!(rules(first.into_iter().chain([forgot]).chain(then)), []);
    // Nor does it know then that it was given one: what may run again does.
    let own = [again(1), effect(1), answer(1, Code::APPLIED)];
    let twice =
        [effect_in(1, order(1), true), answer(1, Code::APPLIED), outcome(1, Code::APPLIED), settled(1)];
    let forgot = Event::Forgot { device: DEVICE, log: 1 };
    let rest = [forgot].into_iter().chain(twice.clone());
    assert_eq!(rules(own.clone().into_iter().chain(rest.clone())), []);
    assert_eq!(rules(own.clone().into_iter().chain(twice)), [Rule::TwiceInOneBoot]);
    // Asked about after its lifetime it says so, and that nothing happened is true of what it knows.
    let late = [outcome(1, Code::EXPIRED), settled(1)];
    let rest = [Event::Forgot { device: DEVICE, log: 1 }].into_iter().chain(late.clone());
    assert_eq!(rules(own.clone().into_iter().chain(rest.clone())), []);
    assert_eq!(rules(own.into_iter().chain(late)), [Rule::EffectDespite]);
    // Its version stands in its own way.
    let versioned = accepted(order(1), |facts| (facts.idempotent, facts.supersede) = (true, Some((KEY, 1))));
    let ran = [versioned, effect(1), answer(1, Code::APPLIED)];
    let end = [outcome(1, Code::SUPERSEDED), settled(1)];
    let known: Vec<_> = ran.clone().into_iter().chain(end.clone()).collect();
    assert_eq!(rules(known), [Rule::WrongCode]);
    let forgot = Event::Forgot { device: DEVICE, log: 1 };
    assert_eq!(rules(ran.into_iter().chain([forgot]).chain(end)), []);
    let once = [plain(1), effect(1), answer(1, Code::APPLIED)];
    let again = [Event::Forgot { device: DEVICE, log: 1 }, effect_in(1, order(1), true)];
    assert_eq!(rules(once.clone().into_iter().chain(again))[0], Rule::SecondEffect);
    assert_eq!(rules(once.into_iter().chain(rest)), [Rule::EffectDespite]);
    // One that was rejected had no effect; another log may try.
    let run = |log| [keyed(log), effect_in(1, in_log(log), false)];
    let no = answer_in(1, in_log(1), Code::REJECTED_KIND);
    let tried: Vec<_> = run(1).into_iter().chain([no]).chain(run(2)).collect();
    assert!(!rules(tried).contains(&Rule::SameKey));
}

#[test]
fn what_may_run_again_is_in_doubt_only_if_it_was_taken_back() {
    let cancel = Event::Cancel { order: order(1) };
    let end = [outcome(1, Code::IN_DOUBT), Event::Settled { order: order(1) }];
    assert_eq!(rules([again(1), effect(1), cancel, boot(2)].into_iter().chain(end)), []);
}

#[test]
fn a_server_that_is_gone_owes_nothing_and_one_that_refused_neither() {
    assert_eq!(rules([plain(1), Event::Gone { log: 1 }]), []);
    assert_eq!(rules([plain(1), Event::Refused { order: order(1) }]), []);
    let late = [plain(1), Event::Refused { order: order(1) }, effect(1)];
    assert_eq!(rules(late), [Rule::Unknown]);
}

#[test]
fn a_push_without_an_answer_owes_no_outcome_and_keeps_the_other_promises() {
    let lost = Event::Unanswered { order: order(1) };
    assert_eq!(rules([plain(1), lost.clone()]), []);
    assert_eq!(
        rules([plain(1), lost, effect(1), boot(2), effect_in(2, order(1), true)]),
        [Rule::SecondEffect]
    );
}

#[test]
fn a_journal_keeps_what_ended_behind_the_device_over_its_boots() {
    let found = |journal, events: Vec<Event>| {
        let history = History::new(Limits { journal, ..Limits::default() });
        events.into_iter().for_each(|event| drop(history.record(Duration::ZERO, event)));
        history.finish().iter().map(|violation| violation.rule).collect::<Vec<_>>()
    };
    let both = || vec![again(1), again(2), effect(1), answer(1, Code::APPLIED)];
    let back = |number| effect_in(2, order(number), true);
    // The second one was told as ended, so the first one had ended before.
    let mut events = both();
    events.extend(whole(2, Code::APPLIED));
    events.extend([boot(2), back(1), answer_in(2, order(1), Code::APPLIED), outcome(1, Code::APPLIED)]);
    assert_eq!(found(true, events.clone()), [Rule::OutOfOrder]);
    assert_eq!(found(false, events), [], "a device without a journal forgets");
    // Neither was told: both may come again, in their order.
    let mut events = both();
    events.extend([effect(2), answer(2, Code::APPLIED), boot(2)]);
    for number in [1, 2] {
        let applied = Code::APPLIED;
        events.extend([back(number), answer_in(2, order(number), applied), outcome(number, applied)]);
    }
    assert_eq!(found(true, events), []);
    // What a server ends by itself stands in nobody's way, and an attempt that is over may come again.
    let mut events = vec![again(1), again(2), outcome(2, Code::EXPIRED)];
    events.extend(whole(1, Code::APPLIED));
    assert_eq!(found(true, events), []);
    let tried = |number| accepted(order(number), |facts| facts.again = true);
    let mut events = vec![tried(1), tried(2), effect(1), answer(1, Code::BUSY)];
    events.extend(whole(2, Code::APPLIED));
    events.extend([boot(2), back(1), answer_in(2, order(1), Code::APPLIED), outcome(1, Code::APPLIED)]);
    assert_eq!(found(true, events), []);
}

#[test]
#[should_panic(expected = "order 1/1 must not run twice and did, device 3")]
fn a_broken_promise_fails_the_test() {
    history(planted(Rule::SecondEffect)).assert_kept();
}

#[test]
fn many_threads_write_one_history() {
    let history = History::new(Limits::default());
    std::thread::scope(|scope| {
        for log in 0..4 {
            let history = &history;
            scope.spawn(move || {
                for number in 1..=100 {
                    let order = OrderId { log, number };
                    history.record(Duration::ZERO, accepted(order, |_| ()));
                    history.record(Duration::ZERO, effect_in(1, order, false));
                    history.record(Duration::ZERO, answer_in(1, order, Code::APPLIED));
                    let code = Code::APPLIED;
                    history.record(Duration::ZERO, Event::Outcome { order, device: DEVICE, code });
                }
            });
        }
    });
    history.assert_kept();
    assert_eq!((history.len(), history.effects(order(7))), (1_600, 1));
    assert_eq!(history.text().lines().count(), 1_600);
}
