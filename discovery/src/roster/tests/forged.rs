//! A million forged ids: a roster is as large as it was made, whoever announces what.

use super::*;
use crate::stats::Stats;
use crate::testing::ms;

/// Forged announces.
const FORGED: u32 = 1_000_000;
/// Real devices, and the rest of the 10,000 places.
const REAL: u32 = 9_000;

#[test]
fn a_million_forged_ids_from_many_sources_take_no_more_than_the_free_places() {
    let mut desk = Desk::new(10_000);
    for number in 1..=REAL {
        desk.now = desk.now + ms(2);
        desk.say(number, number, 1).unwrap();
        desk.roster.set_linked(desk.now, id(number), true);
        desk.questions();
    }
    desk.told();
    let slots = desk.roster.capacity() * size_of::<Slot>();
    // 100 a millisecond, from 100,000 addresses, each id a new one; nobody fetches events.
    let mut bytes = datagrams::announce(0, 1, 1);
    let mut buffer = [0; 1_200];
    let before = *desk.roster.stats();
    for number in 0..FORGED {
        if number % 100 == 0 {
            desk.now = desk.now + ms(1);
            desk.roster.handle_timeout(desk.now);
        }
        bytes[16..20].copy_from_slice(&(2_000_000 + number).to_le_bytes());
        let _refused = desk.roster.handle_datagram(desk.now, &arrival(20_000 + number % 100_000), &bytes);
        while desk.roster.poll_transmit(desk.now, &mut buffer).is_some() {}
        if number % 100_000 == 0 {
            desk.roster.check();
        }
    }
    desk.roster.check();
    let Stats { sent_bytes, received_bytes, dropped_full, dropped_busy, dropped_rate, .. } =
        *desk.roster.stats();
    assert!(sent_bytes - before.sent_bytes <= received_bytes - before.received_bytes, "no more out than in");
    let (all, here) = (desk.roster.iter().count(), desk.roster.len());
    assert_eq!((all, here), (10_000, 10_000), "the free places are taken");
    assert!(dropped_full + dropped_busy + dropped_rate >= u64::from(FORGED) - 1_000, "and no more");
    assert_eq!(slots, 10_000 * size_of::<Slot>(), "what it holds is what it was given");
    for number in 1..=REAL {
        assert_eq!(desk.state(number), Some(State::Linked), "no real device had to give way");
    }
    // The forged ones are lost, and then room again.
    desk.wait(Duration::from_secs(700));
    assert_eq!(desk.told().len(), 1 + 2 * 1_000, "joined and lost, and one was refused");
    desk.wait(Duration::from_secs(700));
    assert_eq!(desk.roster.iter().count(), REAL as usize);
}
