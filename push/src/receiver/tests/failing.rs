//! A journal that does not take a write: nothing that needs it happens, and everything goes on when it does again.

use wire_format::frame::reject;

use super::recording::{end, idempotent, served, start};
use super::*;

const APPLIED: Code = Code::APPLIED;

fn is_storage(said: &[Said]) -> bool {
    matches!(said.last(), Some(Said::Bye(bye::Code::STORAGE)))
}

/// The journal works again, and the time for the next try comes.
fn repair(world: &mut World) {
    world.tape().good = None;
    world.pass(JOURNAL_RETRY);
}

#[test]
fn a_start_that_is_not_written_hands_nothing_over() {
    for good in 0..2 {
        let (mut world, conn, mut seen) = served(8);
        world.tape().good = Some(good);
        assert_eq!(world.feed(conn, &order(3)), Ok(0));
        assert!(is_storage(&world.said(conn)) && world.begun().is_empty());
        assert!(world.events.contains(&Event::JournalFailed));
        // Nobody is served meanwhile.
        let conn = world.connect();
        world.feed(conn, &frame(|buffer| hello().emit(buffer))).unwrap_err();
        let busy = Reject { code: reject::Code::BUSY, retry_after_ms: 2_000, detail: 0 };
        assert_eq!(world.said(conn), [Said::Reject(busy)]);
        repair(&mut world);
        seen = seen.min(world.tape().records.len());
        assert!(world.tape().read()[..seen].iter().all(|record| *record != start(3, 2)), "it never began");
        let (conn, _) = world.meet();
        world.feed(conn, &order(3)).unwrap();
        assert_eq!((world.begun(), world.said(conn)), (vec![3], vec![outcomes(&[(3, APPLIED, 0)])]));
    }
}

#[test]
fn an_end_that_is_not_written_is_kept_and_said_when_it_is() {
    let (mut world, conn, _) = served(8);
    world.feed(conn, &order(3)).unwrap();
    world.said(conn);
    world.tape().good = Some(0);
    assert_eq!(world.feed(conn, &idempotent(4)), Ok(72));
    let said = world.said(conn);
    assert!(is_storage(&said) && said.len() <= 2, "{said:?}");
    assert_eq!((world.begun(), world.receiver.owed()), (vec![3, 4], 2));
    // It fails on: one try every two seconds, and nothing but that.
    let mut tries = 0;
    for _ in 0..10 {
        world.pass(Duration::from_secs(1));
        world.tape().good = Some(0);
        tries += usize::from(world.events.contains(&Event::JournalFailed));
        world.events.clear();
    }
    assert!((4..=6).contains(&tries), "{tries}");
    repair(&mut world);
    assert!(world.tape().read().contains(&end(4, 2, APPLIED)));
    let (_, said) = world.meet();
    assert_eq!(said[1..], [outcomes(&[(3, APPLIED, 0), (4, APPLIED, 0)])]);
    assert_eq!(world.begun(), []);
}

#[test]
fn a_session_that_is_not_written_is_not_opened() {
    let mut world = World::journalled(4);
    world.tape().good = Some(2);
    let conn = world.connect();
    world.feed(conn, &frame(|buffer| hello().emit(buffer))).unwrap();
    assert_eq!(world.said(conn), [Said::Bye(bye::Code::STORAGE)]);
    assert_eq!(world.receiver.served(), None);
    repair(&mut world);
    let (_, said) = world.meet();
    assert!(matches!(said[..], [Said::Welcome { .. }]));
    let world = world.reboot(0);
    assert_eq!(world.receiver.known(), Some(Known { server: A, fence: 5 }));
}

#[test]
fn what_is_at_work_when_it_fails_ends_when_it_ends() {
    let (mut world, conn, _) = served(8);
    world.verdict = Verdict::Later;
    world.feed(conn, &order(3)).unwrap();
    world.tape().good = Some(0);
    world.feed(conn, &[urgent(4), ping(1)].concat()).unwrap();
    world.complete(3, Verdict::Applied);
    assert!(world.receiver.wants_snapshot());
    world.begun();
    repair(&mut world);
    let (_, said) = world.meet();
    assert_eq!(said[1..], [outcomes(&[(3, APPLIED, 0)])]);
    // Also over a boot: its end is in the snapshot.
    let mut world = world.reboot(0);
    let (_, said) = world.meet();
    assert_eq!(said[1..], [outcomes(&[(3, APPLIED, 0)])]);
}

#[test]
fn a_device_whose_journal_cannot_be_read_does_not_serve_as_if_it_were_new() {
    struct Gone;
    impl Journal for Gone {
        type Error = u8;
        fn replay(&mut self, _: &mut dyn FnMut(&[u8])) -> Result<Found, u8> {
            Err(7)
        }
        fn append(&mut self, _: &[u8]) -> Result<(), u8> {
            Ok(())
        }
        fn sync(&mut self) -> Result<(), u8> {
            Ok(())
        }
        fn wants_snapshot(&self) -> bool {
            false
        }
        fn replace(&mut self, _: &mut dyn FnMut(&mut [u8; 64]) -> Option<usize>) -> Result<(), u8> {
            Ok(())
        }
    }
    let mut world = World::new(4);
    assert_eq!(world.receiver.replay(world.now, &mut Gone), Err(7));
}
