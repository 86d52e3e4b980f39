//! Other servers: of the same store, and with the same id.

use super::*;
use crate::testing::datagrams::{SERVER, beacon};
use crate::testing::{World, ms, secs};

/// A BEACON from the host with number 9.
fn hear(desk: &mut Desk, number: u32, epoch: u32, sequence: u32) -> Result<(), Dropped> {
    let heard = Arrival { broadcast: true, ..arrival(9) };
    desk.roster.handle_datagram(desk.now, &heard, &beacon(number, epoch, sequence, 250, 0))
}

#[test]
fn another_server_of_the_store_is_told_once_a_minute() {
    let mut desk = Desk::new(4);
    for second in 0..=120 {
        assert_eq!(hear(&mut desk, SERVER + 1, 1, second), Ok(()));
        desk.now = desk.now + secs(1);
    }
    assert_eq!(desk.told(), [What::DualServer], "what is not fetched is not piled up");
    assert_eq!(hear(&mut desk, SERVER + 1, 1, 500), Ok(()));
    desk.now = desk.now + secs(60);
    assert_eq!(hear(&mut desk, SERVER + 1, 1, 501), Ok(()));
    assert_eq!(desk.told(), [What::DualServer]);
}

#[test]
fn a_copy_of_this_server_is_told_and_an_echo_is_not() {
    let mut desk = Desk::new(4);
    desk.roster.link_up(desk.now, LINK);
    let (mut buffer, mut own) = ([0; 1_200], vec![]);
    while let Some(sent) = desk.roster.poll_transmit(desk.now, &mut buffer) {
        own.push(buffer[..sent.len].to_vec());
    }
    let first = desk.roster.first_sequence();
    // Of an earlier run, still under way.
    assert_eq!(hear(&mut desk, SERVER, 77, 1), Err(Dropped::Own));
    desk.now = desk.now + secs(6);
    let heard = Arrival { broadcast: true, ..arrival(9) };
    for echo in own {
        assert_eq!(desk.roster.handle_datagram(desk.now, &heard, &echo), Err(Dropped::Own));
    }
    assert_eq!(desk.told(), [], "our own");
    for (epoch, sequence) in [(2, first), (1, first.wrapping_add(1_000_000)), (1, first)] {
        assert_eq!(hear(&mut desk, SERVER, epoch, sequence), Err(Dropped::Own));
        desk.now = desk.now + secs(61);
        let told: Vec<_> = core::iter::from_fn(|| desk.roster.poll_event()).collect();
        if (epoch, sequence) == (1, first) {
            assert_eq!(told, []);
        } else {
            assert_eq!(told.len(), 1);
            assert_eq!((told[0].what, told[0].id), (What::ServerCloned, id(SERVER)));
            assert_eq!(*told[0].address.ip(), *address(9).ip());
        }
    }
}

#[test]
fn two_copies_of_one_server_tell_of_each_other() {
    let mut world = World::new(3);
    for host in [98, 99] {
        world.server(server_config(), 8, address(host), ms(u64::from(host) * 10));
    }
    world.run(secs(100));
    for server in [0, 1] {
        let cloned = world.nodes[server].events.iter().filter(|(_, event)| event.what == What::ServerCloned);
        assert_eq!(cloned.count(), 2, "once a minute");
        assert_eq!(world.nodes[server].events.len(), 2);
    }
}
