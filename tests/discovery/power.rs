//! Devices whose power is cut and that come back elsewhere, and images that were cloned.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use testkit::farm::{Farm, FarmConfig};
use tillwire::discovery::What;
use tillwire::discovery::driver::server::ServerDriver;
use tokio::runtime::Runtime;

use super::{WITHIN, at, runtime, serve, store};

/// Lets the devices live until the server has told `done`.
fn until(
    runtime: &Runtime,
    farm: &mut Farm,
    server: &mut ServerDriver,
    mut done: impl FnMut(u32, &What) -> bool,
) {
    let begun = tokio::time::Instant::now();
    loop {
        farm.turn(Duration::from_millis(5)).unwrap();
        let told = runtime
            .block_on(async { tokio::time::timeout(Duration::from_millis(1), server.next_event()).await });
        if let Ok(Some(told)) = told {
            let number = u32::from_be_bytes(told.event.id.0[12..].try_into().unwrap());
            if done(number, &told.event.what) {
                return;
            }
        }
        assert!(begun.elapsed() < WITHIN, "{:?}", farm.crowd);
    }
}

fn shop(host: u8, port: u16, devices: u32) -> (Runtime, Farm, ServerDriver) {
    let (runtime, at) = (runtime(), at(host, port));
    let config = FarmConfig::new(devices, Ipv4Addr::new(127, 65, host, 1), port, store());
    let mut farm = Farm::open(&config).unwrap();
    farm.boot_within(Duration::from_millis(100));
    let mut server = serve(&runtime, at, 100, devices, 1_000);
    let mut joined = 0;
    until(&runtime, &mut farm, &mut server, |_, what| {
        joined += u32::from(matches!(what, What::Joined));
        joined == devices
    });
    (runtime, farm, server)
}

#[test]
fn devices_that_come_back_with_another_address_are_known_to_have_booted_and_found_there() {
    const DEVICES: u32 = 20;
    let (runtime, mut farm, mut server) = shop(20, 41_540, DEVICES);
    for number in 0..DEVICES {
        farm.power_off(number);
        farm.crowd.readdress(number, Ipv4Addr::new(127, 66, 20, number as u8 + 1));
    }
    for number in 0..DEVICES {
        farm.boot(number);
    }
    let (mut rebooted, mut moved) = (HashSet::new(), HashSet::new());
    until(&runtime, &mut farm, &mut server, |number, what| {
        match what {
            What::Rebooted { .. } => drop(rebooted.insert(number)),
            What::Moved { .. } => drop(moved.insert(number)),
            What::Suspect | What::Lost | What::Joined => panic!("{number}: {what:?}"),
            _ => {}
        }
        (rebooted.len(), moved.len()) == (DEVICES as usize, DEVICES as usize)
    });
    for device in runtime.block_on(server.handle().devices()) {
        let number = u32::from_be_bytes(device.id.0[12..].try_into().unwrap());
        assert_eq!(*device.source.ip(), farm.crowd.address(number));
        assert_eq!(device.epoch, 2);
    }
    runtime.block_on(server.shutdown());
}

#[test]
fn of_two_live_devices_with_one_id_the_one_known_first_stays() {
    let (runtime, mut farm, mut server) = shop(21, 41_541, 3);
    let incumbent = farm.crowd.address(0);
    let id = farm.crowd.seeker(0).unwrap().config().id;
    farm.leave(2);
    farm.crowd.configure(2, |config| config.id = id);
    farm.boot(2);
    let mut conflicts = 0;
    until(&runtime, &mut farm, &mut server, |number, what| {
        conflicts += u32::from(number == 0 && matches!(what, What::Conflict { .. }));
        assert!(!matches!(what, What::Moved { .. } | What::Rebooted { .. }), "{number}: {what:?}");
        conflicts > 0
    });
    // The clone is told so, and the other one is where it was.
    assert!(farm.run_until(WITHIN, |crowd| crowd.counts.refused > 0).unwrap());
    let known = runtime.block_on(server.handle().find(id)).unwrap();
    assert_eq!(*known.source.ip(), incumbent);
    assert!(farm.crowd.registered_at(0).is_some() && farm.crowd.registered_at(2).is_none());
    runtime.block_on(server.shutdown());
}
