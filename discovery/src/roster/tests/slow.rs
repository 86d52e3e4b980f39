//! An application that fetches events late: what it gets is less, never wrong.

use super::*;
use crate::testing::secs;

#[test]
fn what_happens_before_joined_was_told_is_part_of_it() {
    let mut desk = Desk::new(4);
    desk.say(1, 1, 1).unwrap();
    desk.say(1, 1, 2).unwrap();
    assert_eq!(desk.say(1, 2, 3), Err(Dropped::Contested));
    desk.wait(secs(1));
    desk.say(1, 2, 3).unwrap();
    assert_eq!(desk.told(), [What::Joined], "no boot and no move from where it never was told to be");
    let view = desk.roster.find(id(1)).unwrap();
    assert_eq!((view.source, view.epoch), (address(2), 3));
    desk.say(1, 2, 4).unwrap();
    assert_eq!(desk.told(), [What::Rebooted { before: 3, epoch: 4 }]);
}

#[test]
fn a_doubt_that_was_told_is_taken_back_even_if_a_worse_one_was_not_fetched() {
    let mut desk = Desk::new(4);
    desk.say(1, 1, 1).unwrap();
    desk.wait(secs(61));
    assert_eq!(desk.told(), [What::Joined, What::Suspect]);
    desk.wait(secs(30));
    assert_eq!(desk.state(1), Some(State::Lost));
    desk.say(1, 1, 1).unwrap();
    assert_eq!(desk.told(), [What::Back], "whoever heard Suspect must hear that it is over");
    // And one that was never told is not taken back.
    desk.wait(secs(61));
    desk.say(1, 1, 1).unwrap();
    assert_eq!(desk.told(), []);
    // Back, not fetched, and in doubt again: the doubt stands as it was told.
    desk.wait(secs(91));
    assert_eq!(desk.told(), [What::Lost]);
    desk.say(1, 1, 1).unwrap();
    desk.wait(secs(61));
    desk.say(1, 1, 1).unwrap();
    assert_eq!(desk.told(), [What::Back]);
}

#[test]
fn a_move_there_and_back_that_nobody_saw_is_no_move() {
    let mut desk = Desk::new(4);
    desk.say(1, 1, 1).unwrap();
    assert_eq!(desk.told(), [What::Joined]);
    for host in [2, 1] {
        assert_eq!(desk.say(1, host, 1), Err(Dropped::Contested));
        desk.wait(secs(1));
        desk.say(1, host, 1).unwrap();
    }
    assert_eq!(desk.told(), []);
    // The same boot again, under the same epoch, is none.
    for epoch in [2, 1] {
        let _contested = desk.say(1, 1, epoch);
        desk.wait(secs(1));
        let _told_again = desk.say(1, 1, epoch);
    }
    assert_eq!(desk.roster.find(id(1)).unwrap().epoch, 1);
    assert_eq!(desk.told(), []);
}

#[test]
fn a_device_is_not_forgotten_before_it_was_told_to_be_gone() {
    let mut desk = Desk::with(ServerConfig { forget_s: 100, ..server_config() }, 4);
    for number in [1, 2] {
        desk.say(number, number, 1).unwrap();
    }
    assert_eq!(desk.told(), [What::Joined; 2]);
    desk.bye(2).unwrap();
    desk.wait(secs(1_000));
    assert_eq!(desk.told().len(), 2, "lost and left are still to be told");
    desk.wait(secs(101));
    assert_eq!((desk.state(1), desk.state(2)), (None, None));
}

#[test]
fn generations_have_no_gap_however_late_they_are_fetched() {
    let mut desk = Desk::new(64);
    let mut next = 1;
    for round in 0..200_u32 {
        for number in 1..=64 {
            let _any = desk.say(number, 1 + (number + round / 7) % 40, round / 11);
        }
        desk.wait(secs(u64::from(round % 40)));
        for _ in 0..round % 23 {
            if let Some(event) = desk.roster.poll_event() {
                assert_eq!(event.generation, next);
                next += 1;
            }
        }
    }
    assert!(next > 1_000, "{next}");
}
