//! Everybody answers one server, whose socket holds what a stock socket holds: 256 datagrams, or 512 where the system grants
//! twice as much.

use super::*;

/// When each announce left, from `since` on, in bins of 10 ms.
fn bins(world: &World, since: Instant) -> Vec<u32> {
    let mut bins = vec![];
    for (at, kind) in world.nodes.iter().flat_map(|node| &node.sent) {
        if *kind == ANNOUNCE && *at >= since {
            let bin = usize::try_from(at.since(since).as_millis() / 10).unwrap();
            bins.resize(bins.len().max(bin + 1), 0);
            bins[bin] += 1;
        }
    }
    bins
}

/// Waits for everybody with a server whose process stands still for 200 ms in mid-window; how long it took.
fn gather(world: &mut World, server: usize, count: usize, limit: Duration) -> Duration {
    let start = world.now;
    world.run(secs(4));
    world.freeze(server);
    world.run(ms(200));
    world.thaw(server);
    world.run_until(limit, |world| world.present(server) == count).expect("all register");
    world.now.since(start)
}

#[test]
fn a_restarted_server_has_ten_thousand_devices_again_through_a_stock_socket_without_a_drop() {
    const COUNT: u32 = 10_000;
    let (home, mut world) = (address(0xF0_0000), World::new(1));
    let first = world.server(ServerConfig { rate_per_s: 50_000, ..server_config() }, 10_000, home, secs(1));
    world.devices(COUNT, ms(500));
    world.run_until(secs(20), |world| world.present(first) == COUNT as usize).expect("all register");
    world.off(first);
    world.run(secs(1));

    let restart = world.now;
    let config = ServerConfig { epoch: 2, expected_devices: COUNT, ..server_config() };
    let second = world.server(config, COUNT as usize, home, Duration::ZERO);
    world.socket(second, 256, Duration::from_micros(20));
    let took = gather(&mut world, second, COUNT as usize, secs(20));
    let bins = bins(&world, restart);
    let (peak, mean) = (bins.iter().max().unwrap(), COUNT.div_ceil(1_100));
    println!("10,000 again after {took:?}, at most {peak} in 10 ms, {mean} in the mean");
    assert_eq!(world.nodes[second].drops, 0);
    assert!(took <= ms(11_100), "{took:?}");
    assert!(*peak <= 3 * mean, "{peak} announces in 10 ms, {mean} in the mean");
}

#[test]
fn a_server_that_knows_nobody_gathers_four_thousand_through_a_stock_socket() {
    const COUNT: u32 = 4_000;
    for (seed, room) in [(2, 256), (3, 512)] {
        let mut world = World::new(seed);
        world.devices(COUNT, ms(1));
        world.run(ms(10));
        let start = world.now;
        let server = world.server(server_config(), 10_000, address(0xF0_0000), Duration::ZERO);
        world.socket(server, room, Duration::from_micros(20));
        // Its window is the sample's: 1.1 x 4,000 / 1,000 s, as well as a sample tells.
        let took = gather(&mut world, server, COUNT as usize, secs(15));
        let peak = *bins(&world, start).iter().max().unwrap();
        assert!(took <= ms(4_400) * 3 / 2 + secs(5), "{took:?} with room for {room}");
        assert_eq!(world.nodes[server].drops, 0, "with room for {room}");
        assert!(peak <= 3 * 10, "{peak} announces in 10 ms");
    }
}

#[test]
fn a_socket_that_is_overrun_is_noticed_and_everybody_registers_later() {
    const COUNT: u32 = 2_000;
    let mut world = World::new(4);
    world.devices(COUNT, ms(1));
    world.run(ms(10));
    // It believes that nobody is there, and its process needs 2 ms for a datagram: 500 a second.
    let config = ServerConfig { expected_devices: 1, ..server_config() };
    let server = world.server(config, COUNT as usize, address(0xF0_0000), Duration::ZERO);
    world.socket(server, 256, ms(2));
    let took = world.run_until(secs(60), |world| world.present(server) == COUNT as usize);
    let drops = world.nodes[server].drops;
    println!("2,000 at 500 a second, unexpected: {took:?}, {drops} dropped");
    assert!(drops > 0, "the socket was large enough: the test shows nothing");
    assert!(took.expect("all register") <= secs(30), "{took:?}");
}
