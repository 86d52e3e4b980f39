//! Orders that replace each other.

use super::*;

const KEY: u64 = 0xFEED;

impl World {
    fn submit_version(
        &mut self,
        version: u64,
        lane: Lane,
        lifetime: Option<Duration>,
        to: &[usize],
    ) -> Result<u64, SubmitFault> {
        self.submit_keyed((KEY, version), lane, None, lifetime, to)
    }

    fn submit_keyed(
        &mut self,
        key: (u64, u64),
        lane: Lane,
        retry: Option<u64>,
        lifetime: Option<Duration>,
        to: &[usize],
    ) -> Result<u64, SubmitFault> {
        let mut marks = vec![0; self.devices.len()];
        to.iter().for_each(|&number| marks[number] = Mark::PENDING.0);
        let (number, sort) = (self.number + 1, (lane, KindFlags::IDEMPOTENT));
        let order = keyed_order(number, sort, key, retry, lifetime, 50, marks);
        self.fleet.submit(self.now, order).map_err(|error| error.why)?;
        self.number = number;
        Ok(number)
    }
}

#[test]
fn the_newer_one_takes_the_place_of_what_was_not_sent() {
    let mut world = World::connected(4, 16);
    world.devices[0].habit = Habit::Ack;
    world.cut(2);
    world.cut(3);
    world.answer_dials = false;
    world.drain();
    let first = world.submit_version(1, Lane::Normal, Some(HOUR), &[0, 2, 3]).unwrap();
    world.drain();
    let second = world.submit_version(2, Lane::Normal, Some(HOUR), &[0, 1, 2]).unwrap();
    assert_eq!(world.fleet.view(DeviceIndex(2)).map(|view| view.owed), Some(1), "at once, before events");
    world.drain();
    assert_eq!(world.outcomes(), [(2, first, Code::SUPERSEDED), (1, second, Code::APPLIED)]);
    assert_eq!(world.mark(first, 3), Mark::PENDING, "the newer one is not for it");
    assert_eq!(world.mark(first, 0), Mark::RECEIVED, "what was sent runs its course");
    world.advance(5_000);
    world.connect(2);
    world.drain();
    assert_eq!(world.devices[2].numbers(), [second]);
}

#[test]
fn many_versions_of_a_key_cost_a_device_one_order() {
    let mut world = World::new(1, 600);
    world.answer_dials = false;
    world.drain();
    for version in 1..=250 {
        for key in [1, 2] {
            world.submit_keyed((key, version), Lane::Bulk, None, Some(HOUR), &[0]).unwrap();
        }
        assert!(world.fleet.view(DeviceIndex(0)).unwrap().owed <= 2);
        world.drain();
        assert!(world.fleet.live_orders() <= 2);
    }
    assert_eq!(world.outcomes().len(), 498);
    assert!(world.outcomes().iter().all(|(_, _, code)| *code == Code::SUPERSEDED));
}

#[test]
fn a_key_has_one_lane_rising_versions_and_successors_that_live_as_long() {
    let mut world = World::new(2, 16);
    world.answer_dials = false;
    let hour = Some(HOUR);
    world.submit_version(5, Lane::Normal, hour, &[0]).unwrap();
    assert_eq!(
        world.submit_version(6, Lane::Bulk, hour, &[0]),
        Err(SubmitFault::KeyLane { lane: Lane::Normal })
    );
    for version in [4, 5] {
        let refused = Err(SubmitFault::VersionNotRising { last: 5 });
        assert_eq!(world.submit_version(version, Lane::Normal, hour, &[0]), refused);
    }
    let shorter = Some(HOUR - Duration::from_millis(1));
    assert_eq!(world.submit_version(6, Lane::Normal, shorter, &[1]), Err(SubmitFault::ShorterLife));
    assert_eq!(world.submit_keyed((KEY + 1, 1), Lane::Bulk, None, shorter, &[0]), Ok(2), "another key");
    assert_eq!(world.submit_version(6, Lane::Normal, None, &[0]), Ok(3));
    assert_eq!(
        world.submit_version(7, Lane::Normal, hour, &[0]),
        Err(SubmitFault::ShorterLife),
        "not for ever"
    );
    // Once no order with the key lives, the key is free.
    world.drain();
    for number in [1, 3] {
        world.fleet.cancel(world.now, number);
    }
    world.drain();
    assert_eq!(world.submit_version(1, Lane::Urgent, shorter, &[0]), Ok(4));
}

#[test]
fn a_write_that_was_cut_is_not_taken_up_once_a_newer_one_waits() {
    let mut world = World::connected(1, 8);
    world.devices[0].room = 40;
    let first = world.submit_version(1, Lane::Normal, Some(HOUR), &[0]).unwrap();
    world.drain();
    let second = world.submit_version(2, Lane::Normal, Some(HOUR), &[0]).unwrap();
    world.drain();
    assert_eq!((world.mark(first, 0), world.mark(second, 0)), (Mark::SENT, Mark::PENDING));
    world.cut(0);
    world.advance(20_000);
    assert_eq!(world.outcomes(), [(0, first, Code::SUPERSEDED), (0, second, Code::APPLIED)]);
}

#[test]
fn an_attempt_is_not_repeated_when_a_newer_one_is_on_its_way() {
    let mut world = World::connected(3, 8);
    world.devices[0].habit = Habit::Ack;
    world.devices[1].habit = Habit::Ack;
    let first = world.submit_version(1, Lane::Normal, Some(HOUR), &[0, 1]).unwrap();
    world.drain();
    world.devices[0].finish(Code::BUSY);
    world.drain();
    assert_eq!(world.mark(first, 0), Mark::RETRY_BUSY);
    // What waits for its next attempt is replaced; what comes back busy later is, too.
    let second = world.submit_version(2, Lane::Normal, Some(HOUR), &[0, 1]).unwrap();
    world.drain();
    assert_eq!(world.outcomes(), [(0, first, Code::SUPERSEDED)]);
    let late = Entry { number: first, code: Code::BUSY, detail: 0, lane: Lane::Normal, ms: 1 };
    world.devices[1].send_outcomes(&[late]);
    world.drain();
    assert_eq!(world.outcomes().last(), Some(&(1, first, Code::SUPERSEDED)));
    // An attempt that comes too late is not sent either, and makes nobody wait.
    let mut marks = vec![0; 3];
    marks[1] = Mark::PENDING.0;
    marks[2] = Mark::PENDING.0;
    let sort = (Lane::Normal, KindFlags::IDEMPOTENT);
    let again = keyed_order(3, sort, (KEY, 1), Some(first), Some(HOUR / 2), 50, marks);
    world.number = 3;
    let submitted = world.fleet.submit(world.now, again);
    assert_eq!(submitted, Ok(Submitted { targets: 1, refused: 1 }));
    assert_eq!(world.mark(3, 1), Mark::ended(Code::SUPERSEDED));
    world.drain();
    assert_eq!(world.outcomes().last(), Some(&(2, 3, Code::APPLIED)), "nothing newer is meant for it");
    assert_eq!(world.mark(second, 0), Mark::RECEIVED);
}
