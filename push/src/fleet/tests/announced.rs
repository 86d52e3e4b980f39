//! Addresses that were only announced: how fast they are dialled, and what makes one trusted.

use super::*;

/// Devices known by id alone.
fn nowhere(devices: usize) -> World {
    let mut world = World::empty(devices, 1, |_| {});
    for number in 0..devices {
        let new = NewDevice { id: Some(id(number)), address: None };
        assert_eq!(world.fleet.add_device(world.now, new), Ok(DeviceIndex(number as u32)));
    }
    world
}

fn announce(world: &mut World, numbers: core::ops::Range<usize>) {
    for number in numbers {
        world.fleet.announce_address(world.now, DeviceIndex(number as u32), address(number));
    }
}

fn sessions(world: &World) -> u64 {
    world.fleet.stats().sessions
}

/// Dials that start within `ms` from now and are not answered.
fn dials_within(world: &mut World, ms: u64) -> Vec<SocketAddr> {
    let mut dialled = Vec::new();
    for _ in 0..=ms {
        world.fleet.handle_timeout(world.now);
        while let Some(dial) = world.fleet.poll_dial(world.now) {
            dialled.push(dial.address);
        }
        world.now = world.now + Duration::from_millis(1);
    }
    dialled
}

#[test]
fn announced_addresses_are_dialled_at_200_a_second_at_most() {
    let mut world = nowhere(600);
    announce(&mut world, 0..600);
    world.advance(1_000);
    assert!((199..=203).contains(&sessions(&world)), "{} in the first second", sessions(&world));
    world.advance(2_000);
    assert_eq!(sessions(&world), 600);
}

#[test]
fn listed_devices_are_not_held_up_by_announced_ones() {
    let mut world = nowhere(1_000);
    announce(&mut world, 0..500);
    for number in 500..1_000 {
        world.fleet.set_address(world.now, DeviceIndex(number as u32), address(number));
    }
    world.advance(350);
    let open = |from: u32| (from..from + 500).filter(|&at| world.fleet.is_open(DeviceIndex(at))).count();
    assert_eq!(open(500), 500, "listed ones at 2,000 a second");
    assert!((60..=75).contains(&open(0)), "{} announced ones beside them", open(0));
}

#[test]
fn the_address_of_the_last_session_is_not_a_stranger_whoever_announces_it() {
    let mut world = nowhere(400);
    announce(&mut world, 0..400);
    world.advance(4_000);
    assert_eq!(sessions(&world), 400);
    (0..400).for_each(|index| world.cut(index));
    announce(&mut world, 0..400);
    world.advance(250);
    assert_eq!(sessions(&world), 800, "back at 2,000 a second");
}

#[test]
fn a_known_device_at_a_new_address_is_a_stranger_until_a_session_is_open_there() {
    let mut world = World::connected(300, 1);
    for number in 0..300 {
        world.cut(number);
        let elsewhere = SocketAddr::from(([10, 9, (number >> 8) as u8, number as u8], 8081));
        world.fleet.announce_address(world.now, DeviceIndex(number as u32), elsewhere);
    }
    let dialled = dials_within(&mut world, 500);
    assert!((95..=105).contains(&dialled.len()), "{} in half a second", dialled.len());
    world.fleet.check();
    // The operator's word is enough.
    for number in 0..300 {
        world.fleet.set_address(world.now, DeviceIndex(number as u32), address(number));
    }
    assert_eq!(dials_within(&mut world, 110).len(), 300 - dialled.len());
    world.fleet.check();
}

#[test]
fn announced_strangers_that_never_answer_leave_room_for_those_that_did() {
    let mut world = nowhere(300);
    announce(&mut world, 0..300);
    assert_eq!(dials_within(&mut world, 2_000).len(), 128, "half-open at most");
    world.fleet.check();
}

#[test]
fn dead_addresses_of_the_list_and_announced_ones_take_turns() {
    let mut world = nowhere(600);
    announce(&mut world, 0..300);
    for number in 300..600 {
        world.fleet.set_address(world.now, DeviceIndex(number as u32), address(number));
    }
    let dialled = dials_within(&mut world, 2_000);
    assert_eq!(dialled.len(), 128);
    // At most 200 a second are announced ones: the listed ones have filled the places by then.
    let announced = dialled.iter().filter(|&&to| (0..300).any(|number| address(number) == to)).count();
    assert!((5..=64).contains(&announced), "{announced} announced ones of 128");
}

#[test]
fn a_session_proves_the_address_it_was_dialled_at_and_no_other() {
    let mut world = nowhere(201);
    announce(&mut world, 0..1);
    world.answer_dials = false;
    world.drain();
    for _ in 0..2 {
        world.fleet.announce_address(world.now, DeviceIndex(0), address(7));
    }
    world.connect(0);
    world.advance(100);
    assert_eq!(sessions(&world), 1);
    world.cut(0);
    // All places of strangers are taken, so it waits with the others.
    announce(&mut world, 1..201);
    world.fleet.announce_address(world.now, DeviceIndex(0), address(7));
    let dialled = dials_within(&mut world, 3_000);
    let again = dialled.iter().filter(|&&to| to == address(7)).count();
    assert_eq!((dialled.len(), again), (128, 1), "device 7 itself, and nobody else there");
    world.fleet.check();
}
