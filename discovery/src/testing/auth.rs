//! A store under keys: everybody registers, and what it costs.

use super::*;
use crate::event::Dropped;

/// The key with this number of whoever this is.
pub(crate) fn key(owner: u32, number: u16) -> Key {
    let mut bytes = [0x5A; 32];
    bytes[..4].copy_from_slice(&owner.to_le_bytes());
    bytes[4..6].copy_from_slice(&number.to_le_bytes());
    Key::new(bytes)
}

/// Whom the beacon keys belong to.
pub(crate) const STORE: u32 = u32::MAX;

pub(crate) fn ring(owner: u32, number: u16) -> KeyRing {
    KeyRing::new(number, key(owner, number))
}

/// Keys for the devices with these numbers, all of them number 1.
pub(crate) fn keys(devices: impl IntoIterator<Item = u32>) -> StoreKeys {
    let announce = devices.into_iter().map(|number| (id(number), ring(number, 1))).collect();
    StoreKeys { announce, beacon: ring(STORE, 1) }
}

/// A store under keys with this many devices, all registered.
pub(crate) fn registered(devices: u32, seed: u64) -> (World, usize) {
    let mut world = World::new(seed);
    (world.keys, world.check) = (Some(keys(1..=devices)), true);
    let server = world.server(server_config(), 64, address(99), Duration::ZERO);
    world.devices(devices, secs(1));
    let all = devices as usize;
    world.run_until(secs(30), |world| world.present(server) == all).expect("all register");
    world.run(secs(1));
    (world, server)
}

/// What a server knows and has told: everything that an attack might change.
pub(crate) fn memory(world: &World, server: usize) -> String {
    let roster = world.roster(server);
    let mut devices: Vec<String> = roster.iter().map(|device| format!("{device:?}")).collect();
    devices.sort();
    format!("{devices:#?} {} {} events", roster.generation(), world.nodes[server].events.len())
}

/// What a device knows and has told.
pub(crate) fn belief(world: &World, device: usize) -> String {
    format!("{:?} {:?}", world.seeker(device).server(), world.nodes[device].told)
}

/// Datagrams a node has sent so far.
pub(crate) fn spoken(world: &World, node: usize) -> usize {
    world.nodes[node].sent.len()
}

/// What a server makes of a datagram.
pub(crate) fn judged(
    world: &mut World,
    server: usize,
    source: SocketAddrV4,
    broadcast: bool,
    bytes: &[u8],
) -> Result<(), Dropped> {
    let arrival = Arrival { link: LINK, source, broadcast };
    world.with_roster(server, |roster, now| roster.handle_datagram(now, &arrival, bytes))
}

/// Changes a datagram and signs it anew.
pub(crate) fn resigned(bytes: &[u8], key: &Key, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    change(&mut bytes);
    wire_format::datagram::seal(&mut bytes, |covered| key.tag(covered));
    bytes
}

/// The newest datagram of this kind on the tape, of the node at this address.
pub(crate) fn taped(world: &World, kind: u8, source: SocketAddrV4) -> Vec<u8> {
    let tape = world.tape.as_ref().expect("a tape");
    let of_node = |taped: &&Taped| taped.bytes[5] == kind && taped.source == source;
    tape.iter().rev().find(of_node).expect("such a datagram").bytes.clone()
}

#[test]
fn a_store_under_keys_comes_up_refreshes_changes_and_leaves() {
    let (mut world, server) = registered(20, 1);
    let stats = *world.roster(server).stats();
    assert_eq!((stats.dropped_unproven, stats.sent_challenge, stats.sent_ack), (20, 20, 20), "a cold start");
    assert_eq!(stats.dropped(), 20);
    world.run(secs(300));
    let stats = *world.roster(server).stats();
    assert_eq!((stats.dropped(), stats.sent_challenge), (20, 20), "known boots are asked nothing more");
    assert!(stats.sent_ack > 20 * 8 && stats.received_authentic > 20 * 8);
    assert_eq!(world.present(server), 20);
    let config = DeviceConfig { zone: Some(7), ..device_config(3) };
    world.with_seeker(3, |seeker, now| seeker.reconfigure(now, config));
    world.run(secs(1));
    assert_eq!(world.roster(server).find(id(3)).unwrap().zone, Some(7));
    world.with_seeker(3, Seeker::stop);
    world.run(ms(2));
    assert_eq!(
        world.state(server, 3),
        Some(State::Left),
        "a goodbye under the device's key needs no question"
    );
    world.run(secs(1));
    assert_eq!(world.roster(server).stats().sent_challenge, 20);
}

#[test]
fn ten_thousand_devices_register_under_keys_within_the_window() {
    let mut world = World::new(1);
    world.keys = Some(keys(1..=10_000));
    world.devices(10_000, ms(1));
    world.run(ms(10));
    let config = ServerConfig { expected_devices: 10_000, ..server_config() };
    let server = world.server(config, 10_000, address(0xF0_0000), Duration::ZERO);
    let took = world.run_until(secs(60), |world| world.present(server) == 10_000).expect("all register");
    println!("10,000 devices, cold, under keys: {took:?}");
    assert!(took <= ms(11_000 + 20), "{took:?}");
    world.run(secs(5));
    let stats = *world.roster(server).stats();
    assert_eq!((stats.sent_challenge, stats.sent_ack), (10_000, 10_000));
    assert_eq!(world.sent(ANNOUNCE), 20_000, "one announce each, and once more with the cookie");
    let joined = world.nodes[server].events.iter().map(|(_, event)| event.generation);
    assert!(joined.eq(1..=10_000), "generations have gaps");
}

#[test]
fn a_lossy_lan_costs_a_few_seconds_more() {
    let mut world = World::new(2);
    (world.keys, world.loss, world.duplicates) = (Some(keys(1..=1_000)), 50, 50);
    world.devices(1_000, ms(1));
    world.run(ms(10));
    let config = ServerConfig { expected_devices: 1_000, ..server_config() };
    let server = world.server(config, 1_000, address(0xF0_0000), Duration::ZERO);
    let took = world.run_until(secs(60), |world| world.present(server) == 1_000).expect("all register");
    assert!(took <= secs(20), "{took:?}");
    assert_eq!(world.roster(server).stats().dropped_wrong_tag, 0);
}

#[test]
fn a_lone_device_registers_as_soon_as_in_clear_mode() {
    let mut took: Vec<Duration> = (0..100)
        .map(|seed| {
            let mut world = World::new(seed);
            world.keys = Some(keys([1]));
            let server = world.server(server_config(), 8, address(99), Duration::ZERO);
            world.run(secs(20) + ms(seed * 37));
            world.device(device_config(1), address(1), Duration::ZERO);
            world.run_until(secs(5), |world| world.present(server) == 1).expect("registers")
        })
        .collect();
    took.sort();
    assert!(took[50] <= ms(900), "median {:?}", took[50]);
}

#[test]
fn a_device_with_a_seed_registers_under_keys() {
    let mut world = World::new(3);
    world.keys = Some(keys([1]));
    let server = world.server(server_config(), 8, address(99), Duration::ZERO);
    let mut config = device_config(1);
    config.seeds[0] = Some(address(99));
    let device = world.device(config, address(1), Duration::ZERO);
    world.run_until(secs(5), |world| world.present(server) == 1).expect("registers");
    world.run(ms(10));
    assert!(world.seeker(device).server().unwrap().registered);
    assert_eq!(world.sent(SEEK), 0);
}
