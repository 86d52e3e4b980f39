//! Orders of the durable log: what ended counts once it is on disk.

use super::*;

/// A world whose log has stopped taking anything.
fn stalled(devices: usize, orders: usize) -> World {
    let mut world = World::durable(devices, orders);
    world.logs = false;
    world
}

fn logged(world: &World) -> Vec<(u64, u32, Code, By)> {
    let entries = world.events.iter().filter_map(|event| match event {
        Event::Log(entry) => Some((entry.number, entry.device.0, entry.first_code, entry.by)),
        _ => None,
    });
    entries.collect()
}

#[test]
fn an_outcome_counts_once_it_is_logged() {
    let mut world = stalled(2, 8);
    let number = world.submit(Lane::Normal);
    assert!(world.devices.iter().all(|device| device.orders[0].0.durable));
    let applied = |device| (number, device, Code::APPLIED, By::Device);
    assert_eq!(logged(&world), [applied(0), applied(1)]);
    assert_eq!((world.outcomes(), world.settled()), (vec![], vec![]));
    assert_eq!(world.mark(number, 0).unlogged_code(), Some(Code::APPLIED));
    assert_eq!(world.fleet.view(DeviceIndex(0)).map(|view| (view.out, view.unlogged)), Some((0, 1)));
    world.advance(10_000);
    assert_eq!(world.devices[0].durable.settled, [0; 4], "nobody may forget what is not on disk");
    let entry = world.unlogged.pop_front().unwrap();
    world.confirm(entry);
    assert_eq!(world.outcomes(), [(0, number, Code::APPLIED)]);
    world.log();
    assert_eq!(world.settled(), [number]);
    world.advance(5_000);
    assert_eq!(world.devices[0].durable.settled[2], number);
    assert!(world.devices.iter().all(|device| device.ring.is_empty()));
    assert_eq!(world.fleet.stats().outcomes.of(Code::APPLIED), 2);
}

#[test]
fn a_hello_names_both_logs_and_their_heads() {
    let mut world = World::durable(1, 8);
    world.submit(Lane::Normal);
    world.durable = false;
    world.submit(Lane::Normal);
    world.cut(0);
    world.advance(20_000);
    let hello = world.devices[0].hellos[1];
    assert_eq!((hello.durable.lineage, hello.durable.run, hello.durable.head), (DURABLE, RUN, 1));
    assert_eq!((hello.volatile.lineage, hello.volatile.head), (LINEAGE, 2));
}
