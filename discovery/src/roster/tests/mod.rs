//! The roster alone, in virtual time: no device answers but by the test's hand.

mod fields;
mod forged;
mod pressure;
mod servers;
mod slow;
mod snapshot;

use core::time::Duration;

use wire_format::datagram::{Challenge, Datagram, Nonce};
use wire_format::time::Instant;

use crate::config::ServerConfig;
use crate::event::{Dropped, What};
use crate::link::{Arrival, Transmit};
use crate::roster::{Roster, Slot, State};
use crate::testing::{LINK, address, datagrams, id, server_config};

/// A unicast from the host with this number.
fn arrival(number: u32) -> Arrival {
    Arrival { link: LINK, source: address(number), broadcast: false }
}

/// A roster, and the devices the test plays.
struct Desk {
    roster: Roster<Vec<Slot>>,
    now: Instant,
    sequence: u32,
}

impl Desk {
    fn new(capacity: usize) -> Self {
        Self::with(server_config(), capacity)
    }

    fn with(config: ServerConfig, capacity: usize) -> Self {
        let now = Instant::from_millis(100_000);
        Self { roster: Roster::new(config, vec![Slot::EMPTY; capacity], now, 1), now, sequence: 0 }
    }

    /// The device with this number announces itself from the host with number `at`.
    fn say(&mut self, number: u32, at: u32, epoch: u32) -> Result<(), Dropped> {
        self.sequence += 1;
        let bytes = datagrams::announce(number, epoch, self.sequence);
        self.roster.handle_datagram(self.now, &arrival(at), &bytes)
    }

    /// The device with this number says goodbye from its own host.
    fn bye(&mut self, number: u32) -> Result<(), Dropped> {
        self.sequence += 1;
        self.roster.handle_datagram(self.now, &arrival(number), &datagrams::bye(number, 1, self.sequence))
    }

    /// Time passes, every deadline kept, nothing drained but what is to be sent.
    fn wait(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(due) = self.roster.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.roster.handle_timeout(self.now);
            self.questions();
        }
        self.now = end;
        self.roster.check();
    }

    /// Takes everything that is to be sent; the cookies of the questions in it.
    fn questions(&mut self) -> Vec<Nonce> {
        let (mut buffer, mut asked) = ([0; 1_200], vec![]);
        while let Some(Transmit { len, .. }) = self.roster.poll_transmit(self.now, &mut buffer) {
            if let Ok(Datagram::Challenge(Challenge { nonce, .. })) = Datagram::parse(&buffer[..len]) {
                asked.push(nonce);
            }
        }
        asked
    }

    /// Everything there is to tell.
    fn told(&mut self) -> Vec<What> {
        self.roster.check();
        core::iter::from_fn(|| self.roster.poll_event()).map(|event| event.what).collect()
    }

    fn state(&self, number: u32) -> Option<State> {
        self.roster.find(id(number)).map(|view| view.state)
    }
}

#[test]
fn a_roster_without_its_slots_stays_within_what_its_documentation_says() {
    assert!(size_of::<Roster<Vec<Slot>>>() <= 93 << 10, "{}", size_of::<Roster<Vec<Slot>>>());
}
