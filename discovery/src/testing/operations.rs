//! Any list of operations: every queue, index and count agrees afterwards, and whoever follows the events knows what the
//! roster knows.

use std::collections::HashMap;

use proptest::prelude::*;
use wire_format::datagram::{Challenge, Datagram, Nonce};

use super::datagrams::{self, SERVER};
use super::*;
use crate::event::Event;

#[derive(Clone, Debug)]
enum Operation {
    Announce { number: u32, at: u32, epoch: u32, newer: bool },
    Bye { number: u32, at: u32, epoch: u32 },
    Answer { at: u32, epoch: u32 },
    Guess { number: u32, at: u32 },
    Linked { number: u32, linked: bool },
    Seek,
    OtherServer,
    Wait(u64),
    Sleep(u64),
    LinkUp(u8),
    LinkDown(u8),
    Stop,
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::{
        Announce, Answer, Bye, Guess, LinkDown, LinkUp, Linked, OtherServer, Seek, Sleep, Stop, Wait,
    };
    let (number, at, epoch) = (1..7_u32, 1..5_u32, 0..3_u32);
    prop_oneof![
        30 => (number.clone(), at.clone(), epoch.clone(), any::<bool>())
            .prop_map(|(number, at, epoch, newer)| Announce { number, at, epoch, newer }),
        8 => (number.clone(), at.clone(), epoch.clone()).prop_map(|(number, at, epoch)| Bye { number, at, epoch }),
        12 => (at.clone(), epoch).prop_map(|(at, epoch)| Answer { at, epoch }),
        2 => (number.clone(), at).prop_map(|(number, at)| Guess { number, at }),
        8 => (number, any::<bool>()).prop_map(|(number, linked)| Linked { number, linked }),
        2 => Just(Seek),
        2 => Just(OtherServer),
        24 => (0..40_000_u64).prop_map(Wait),
        8 => (0..900_u64).prop_map(Wait),
        2 => (0..400_000_u64).prop_map(Sleep),
        2 => (0..18_u8).prop_map(LinkUp),
        2 => (0..18_u8).prop_map(LinkDown),
        1 => Just(Stop),
    ]
}

struct Bench {
    roster: Roster<Vec<Slot>>,
    now: Instant,
    sequence: u32,
    /// The last question sent: to whom, about whom, with which cookie.
    asked: Option<(u32, Nonce)>,
    generation: u64,
    /// What the events say: who is here, and where.
    mirror: HashMap<NodeId, SocketAddrV4>,
}

impl Bench {
    fn new() -> Self {
        let config = ServerConfig { forget_s: 100, devices_per_address: 3, ..server_config() };
        let mut roster = Roster::new(config, vec![Slot::EMPTY; 4], Instant::ZERO, 1);
        roster.link_up(Instant::ZERO, LINK);
        Self { roster, now: Instant::ZERO, sequence: 0, asked: None, generation: 0, mirror: HashMap::new() }
    }

    fn datagram(&mut self, at: u32, broadcast: bool, bytes: &[u8]) {
        let arrival = Arrival { link: LINK, source: address(at), broadcast };
        let _reason = self.roster.handle_datagram(self.now, &arrival, bytes);
    }

    fn act(&mut self, operation: Operation) {
        self.sequence += 1;
        let sequence = self.sequence;
        match operation {
            Operation::Announce { number, at, epoch, newer } => {
                let sequence = if newer { sequence } else { sequence.saturating_sub(2) };
                self.datagram(at, false, &datagrams::announce(number, epoch, sequence));
            }
            Operation::Bye { number, at, epoch } => {
                self.datagram(at, false, &datagrams::bye(number, epoch, sequence));
            }
            Operation::Answer { at, epoch } => {
                if let Some((number, nonce)) = self.asked {
                    self.datagram(at, false, &datagrams::challenge(number, epoch, sequence, true, nonce));
                }
            }
            Operation::Guess { number, at } => {
                let guess = datagrams::challenge(number, 1, sequence, true, Nonce::Short([0; 8]));
                self.datagram(at, false, &guess);
            }
            Operation::Linked { number, linked } => {
                let known = self.roster.find(id(number)).is_some();
                assert_eq!(self.roster.set_linked(self.now, id(number), linked), known);
            }
            Operation::Seek => self.datagram(1, true, &datagrams::seek(9, sequence, 300)),
            Operation::OtherServer => {
                self.datagram(4, true, &datagrams::beacon(SERVER + 1, 1, sequence, 250, 0));
            }
            Operation::Wait(wait) => self.wait(ms(wait)),
            Operation::Sleep(sleep) => {
                self.now = self.now + ms(sleep);
                self.roster.handle_timeout(self.now);
            }
            Operation::LinkUp(link) => self.roster.link_up(self.now, LinkId(link)),
            Operation::LinkDown(link) => self.roster.link_down(self.now, LinkId(link)),
            Operation::Stop => self.roster.stop(self.now, crate::roster::Reason::LEAVING, 0),
        }
    }

    /// Time passes as a driver lets it: every deadline is kept.
    fn wait(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(due) = self.roster.poll_timeout().filter(|due| *due <= end) {
            assert!(due >= self.now || due == self.now, "a deadline in the past: {due:?} at {:?}", self.now);
            self.now = self.now.max(due);
            self.roster.handle_timeout(self.now);
            assert!(self.roster.poll_timeout().is_none_or(|next| next > self.now), "a deadline that stays");
            self.drain();
        }
        self.now = end;
    }

    fn drain(&mut self) {
        let mut buffer = [0; 1_200];
        while let Some(Transmit { len, .. }) = self.roster.poll_transmit(self.now, &mut buffer) {
            if let Ok(Datagram::Challenge(Challenge { nonce, .. })) = Datagram::parse(&buffer[..len]) {
                let asked = (1..7).find(|number| self.roster.is_cookie(id(*number), nonce));
                self.asked = asked.map(|number| (number, nonce));
            }
        }
        while let Some(Event { generation, id, address, what }) = self.roster.poll_event() {
            self.generation += 1;
            assert_eq!(generation, self.generation);
            match what {
                What::Joined => assert_eq!(self.mirror.insert(id, address), None, "joined twice"),
                What::Lost | What::Left => assert!(self.mirror.remove(&id).is_some(), "gone twice"),
                What::Back | What::Moved { .. } | What::Changed { .. } | What::Rebooted { .. } => {
                    self.mirror.insert(id, address);
                }
                What::Suspect | What::Conflict { .. } => assert!(self.mirror.contains_key(&id)),
                What::DualServer | What::ServerCloned | What::Refused { .. } => {}
            }
        }
    }

    fn check(&self) {
        self.roster.check();
        let here = |view: &crate::roster::DeviceView<'_>| !matches!(view.state, State::Lost | State::Left);
        let known: HashMap<NodeId, SocketAddrV4> =
            self.roster.iter().filter(here).map(|view| (view.id, view.address)).collect();
        assert_eq!(known, self.mirror);
        assert_eq!(known.len(), self.roster.len());
        assert_eq!(self.roster.generation(), self.generation);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn everything_agrees_after_any_operations(operations in proptest::collection::vec(operation(), 1..120)) {
        let mut bench = Bench::new();
        for operation in operations {
            bench.act(operation);
            bench.drain();
            bench.check();
        }
    }

    #[test]
    fn nothing_breaks_when_nobody_drains(operations in proptest::collection::vec(operation(), 1..200)) {
        let mut bench = Bench::new();
        for operation in operations {
            match operation {
                Operation::Wait(wait) => {
                    bench.now = bench.now + ms(wait);
                    bench.roster.handle_timeout(bench.now);
                }
                other => bench.act(other),
            }
            bench.roster.check();
        }
    }
}
