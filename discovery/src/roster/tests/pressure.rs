//! More devices at once than the server's socket holds: drops widen the window, and everybody registers all the same.

use super::*;
use crate::testing::{ANNOUNCE, BEACON, World, device_config, ms, secs};

/// One run: `count` devices wait when a server starts that expects `expected` of them at `rate` a second, whose socket
/// holds `held` datagrams, and which stands still for 200 ms at each of `stalls` after its first beacon.
struct Run {
    count: u32,
    expected: u32,
    rate: u32,
    held: usize,
    stalls: &'static [u64],
}

/// What came of it.
#[derive(Debug)]
struct Outcome {
    took: Duration,
    announces: usize,
    beacons: usize,
    drops: u64,
    busy: u64,
}

impl Run {
    fn go(&self, seed: u64) -> Outcome {
        let mut world = World::new(seed);
        world.devices(self.count, ms(1));
        world.run(ms(10));
        let config =
            ServerConfig { expected_devices: self.expected, rate_per_s: self.rate, ..server_config() };
        let server = world.server(config, self.count as usize, address(0xF0_0000), Duration::ZERO);
        world.nodes[server].held_max = self.held;
        let start = world.now;
        for &stall in self.stalls {
            world.run((start + ms(stall)).since(world.now));
            world.freeze(server);
            world.run(ms(200));
            world.thaw(server);
        }
        let all = self.count as usize;
        let rest = world.run_until(secs(180), |world| world.present(server) == all);
        let took = world.now.since(start);
        let outcome = Outcome {
            took,
            announces: world.sent(ANNOUNCE),
            beacons: world.sent(BEACON),
            drops: world.nodes[server].drops,
            busy: world.roster(server).stats().dropped_busy,
        };
        assert!(rest.is_some(), "{} of {all} registered: {outcome:?}", world.present(server));
        assert!(outcome.beacons as u64 <= took.as_secs() + 2, "one a second at most: {outcome:?}");
        println!(
            "{} devices, {} expected, {}/s, K {}: {outcome:?}",
            all, self.expected, self.rate, self.held
        );
        outcome
    }
}

#[test]
fn a_stall_at_the_wanted_rate_drops_nothing_in_a_stock_buffer() {
    let run = Run { count: 10_000, expected: 10_000, rate: 1_000, held: 256, stalls: &[5_000] };
    let outcome = run.go(1);
    assert!(outcome.drops == 0 && outcome.took <= ms(11_010), "{outcome:?}");
    assert_eq!((outcome.announces, outcome.busy), (10_000, 0), "{outcome:?}");
}

#[test]
fn a_stall_at_five_thousand_a_second_drops_some_and_everybody_registers() {
    for held in [512, 256] {
        let run = Run { count: 10_000, expected: 10_000, rate: 5_000, held, stalls: &[1_000] };
        let outcome = run.go(2);
        assert!((200..1_000).contains(&outcome.drops), "{outcome:?}");
        assert!(outcome.took <= secs(8), "{outcome:?}");
        assert!(outcome.announces <= 11_500, "{outcome:?}");
    }
}

#[test]
fn a_server_that_expects_far_too_few_and_stalls_learns_from_its_drops() {
    let run = Run { count: 10_000, expected: 1, rate: 1_000, held: 256, stalls: &[5, 1_205, 2_405, 4_605] };
    let outcome = run.go(3);
    assert!(outcome.drops >= 5_000, "the test is no test without drops: {outcome:?}");
    assert!(outcome.took <= secs(60), "{outcome:?}");
    assert!(outcome.announces <= 45_000, "{outcome:?}");
}

#[test]
fn a_long_rush_sends_unknown_devices_away_and_has_them_all_in_the_end() {
    let mut desk = Desk::with(ServerConfig { rate_per_s: 100, ..server_config() }, 8_192);
    // 1,000 a second from hosts that never stop.
    let mut busy = 0;
    for number in 1..=3_000_u32 {
        desk.now = desk.now + ms(1);
        match desk.say(number, number, 1) {
            Err(Dropped::Busy) => busy += 1,
            other => assert_eq!(other, Ok(()), "{number}"),
        }
        desk.questions();
    }
    assert!((1_500..=1_900).contains(&busy), "a second in full, then 100 of 1,000: {busy} sent away");
    // A device that is known is never sent away.
    assert_eq!(desk.say(1, 1, 1), Ok(()));
    // Calm again: whoever comes is let in at once.
    desk.now = desk.now + ms(300);
    assert_eq!(desk.say(3_001, 3_001, 1), Ok(()));
}

#[test]
fn drops_of_a_quiet_hour_call_nobody() {
    let mut world = World::new(4);
    let server = world.server(server_config(), 8, address(99), Duration::ZERO);
    world.device(device_config(1), address(1), Duration::ZERO);
    world.run(secs(60));
    let before = world.sent(BEACON);
    for total in 1..=100 {
        world.with_roster(server, |roster, now| roster.handle_receive_drops(now, total));
        world.run(ms(100));
    }
    let beacons = world.sent(BEACON) - before;
    assert!((1..=2).contains(&beacons), "{beacons} beacons in ten seconds");
    assert_eq!(world.sent(ANNOUNCE), 1 + 2, "one registration, two refreshes");
}
