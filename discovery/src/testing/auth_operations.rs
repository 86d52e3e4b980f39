//! Under keys: any list of operations, of those who have keys and of those who have not. Whatever has no right tag
//! changes nothing; whatever has one and is not of now changes nothing either.

use proptest::prelude::*;
use wire_format::datagram::{Announce, Auth, Challenge, Datagram, Nonce};

use super::auth::{key, keys, resigned};
use super::datagrams;
use super::*;

#[derive(Clone, Debug)]
enum Operation {
    /// A device says it is there; with the cookie it was asked for, if it was.
    Announce {
        number: u32,
        at: u32,
        epoch: u32,
        key: u32,
    },
    /// Something that was taken before, from the same address or another one.
    Replay {
        which: usize,
        at: Option<u32>,
    },
    /// The same, with one byte changed.
    Damage {
        which: usize,
        at: usize,
    },
    Bye {
        number: u32,
        at: u32,
        epoch: u32,
        key: u32,
    },
    Unsigned {
        number: u32,
        at: u32,
    },
    Revoke {
        number: u32,
    },
    Linked {
        number: u32,
        linked: bool,
    },
    Wait(u64),
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::{Announce, Bye, Damage, Linked, Replay, Revoke, Unsigned, Wait};
    let (number, at, epoch, key) = (1..5_u32, 1..5_u32, 1..4_u32, 1..6_u32);
    prop_oneof![
        30 => (number.clone(), at.clone(), epoch.clone(), any::<bool>(), key.clone()).prop_map(
            |(number, at, epoch, own, other)| Announce { number, at, epoch, key: if own { number } else { other } }
        ),
        20 => (any::<usize>(), proptest::option::of(at.clone())).prop_map(|(which, at)| Replay { which, at }),
        8 => (any::<usize>(), any::<usize>()).prop_map(|(which, at)| Damage { which, at }),
        6 => (number.clone(), at.clone(), epoch, key).prop_map(|(number, at, epoch, key)| Bye { number, at, epoch, key }),
        6 => (number.clone(), at).prop_map(|(number, at)| Unsigned { number, at }),
        2 => number.clone().prop_map(|number| Revoke { number }),
        4 => (number, any::<bool>()).prop_map(|(number, linked)| Linked { number, linked }),
        20 => (0..2_000_u64).prop_map(Wait),
        6 => (0..60_000_u64).prop_map(Wait),
    ]
}

struct Bench {
    roster: StoreRoster,
    now: Instant,
    sequence: u32,
    /// The last cookie each address was asked for.
    cookies: HashMap<SocketAddrV4, [u8; 8]>,
    /// Everything that was taken, with where it came from.
    taken: Vec<(SocketAddrV4, Vec<u8>)>,
    bytes_in: usize,
    bytes_out: usize,
    /// Bytes that may go out although nothing came in: two questions for each time a device can fall silent.
    asked: usize,
}

impl Bench {
    fn new() -> Self {
        let keys = keys(1..=3);
        let (slots, beacon) = (vec![Slot::EMPTY; 4], keys.beacon.clone());
        let config = ServerConfig { forget_s: 100, ..server_config() };
        let roster = Roster::with_keys(config, slots, Instant::ZERO, 1, Some(keys), beacon);
        let (now, cookies) = (Instant::ZERO, HashMap::new());
        Self { roster, now, sequence: 0, cookies, taken: vec![], bytes_in: 0, bytes_out: 0, asked: 0 }
    }

    /// What an attack might change.
    fn memory(&self) -> String {
        let mut devices: Vec<_> = self.roster.iter().map(|device| format!("{device:?}")).collect();
        devices.sort();
        format!("{devices:?} {}", self.roster.generation())
    }

    fn hear(&mut self, source: SocketAddrV4, bytes: &[u8]) -> bool {
        let arrival = Arrival { link: LINK, source, broadcast: false };
        self.bytes_in += bytes.len();
        let taken = self.roster.handle_datagram(self.now, &arrival, bytes).is_ok();
        self.drain();
        taken
    }

    /// Whether it must not change anything.
    fn hear_in_vain(&mut self, source: SocketAddrV4, bytes: &[u8]) {
        let before = self.memory();
        assert!(!self.hear(source, bytes));
        assert_eq!(self.memory(), before);
    }

    fn sealed(&mut self, datagram: Datagram<'_>, owner: u32) -> Vec<u8> {
        resigned(&datagrams::bytes(datagram), &key(owner, 1), |_| {})
    }

    fn act(&mut self, operation: Operation) {
        self.sequence += 1;
        let auth = Some(Auth::open(1, Auth::HMAC_SHA256_128));
        match operation {
            Operation::Announce { number, at, epoch, key } => {
                let (store, from) = (store(), datagrams::node(number, epoch, self.sequence));
                let nonce = self.cookies.get(&address(at)).map(|cookie| {
                    let both: Vec<u8> = [7; 8].into_iter().chain(*cookie).collect();
                    Nonce::from_bytes(&both).unwrap()
                });
                let announce = Announce { nonce, auth, ..datagrams::announce_of(from, &store) };
                let bytes = self.sealed(Datagram::Announce(announce), key);
                self.say(address(at), bytes, number, key);
            }
            Operation::Bye { number, at, epoch, key } => {
                let bytes = datagrams::signed_bye(number, epoch, self.sequence);
                let bytes = resigned(&bytes, &self::key(key, 1), |_| {});
                self.say(address(at), bytes, number, key);
            }
            Operation::Replay { which, at } if !self.taken.is_empty() => {
                let (source, bytes) = self.taken[which % self.taken.len()].clone();
                self.hear_in_vain(at.map_or(source, address), &bytes);
            }
            Operation::Damage { which, at } if !self.taken.is_empty() => {
                let (source, mut bytes) = self.taken[which % self.taken.len()].clone();
                let at = at % bytes.len();
                bytes[at] ^= 0x10;
                self.hear_in_vain(source, &bytes);
            }
            Operation::Replay { .. } | Operation::Damage { .. } => {}
            Operation::Unsigned { number, at } => {
                let bytes = datagrams::announce(number, 1, self.sequence);
                self.hear_in_vain(address(at), &bytes);
            }
            Operation::Revoke { number } => {
                self.roster.revoke(self.now, id(number));
            }
            Operation::Linked { number, linked } => {
                self.roster.set_linked(self.now, id(number), linked);
                self.asked += 2 * 84;
            }
            Operation::Wait(wait) => {
                self.asked += 3 * 2 * 84;
                self.now = self.now + ms(wait);
                self.roster.handle_timeout(self.now);
            }
        }
        self.drain();
        self.roster.check();
    }

    /// With the sender's own key it may change something; with another's, or from a device that has none, it must not.
    fn say(&mut self, source: SocketAddrV4, bytes: Vec<u8>, number: u32, key: u32) {
        if key == number && number <= 3 {
            let before = self.memory();
            if self.hear(source, &bytes) {
                self.taken.push((source, bytes));
            } else {
                assert_eq!(self.memory(), before, "what was dropped changed something");
            }
        } else {
            self.hear_in_vain(source, &bytes);
        }
    }

    fn drain(&mut self) {
        let mut buffer = [0; 1_200];
        while let Some(Transmit { to, len }) = self.roster.poll_transmit(self.now, &mut buffer) {
            let Destination::Unicast(_, to) = to else { continue };
            self.bytes_out += len;
            if let Ok(Datagram::Challenge(Challenge { nonce: Nonce::Short(cookie), .. })) =
                Datagram::parse(&buffer[..len])
            {
                self.cookies.insert(to, cookie);
            }
        }
        while self.roster.poll_event().is_some() {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn nothing_changes_without_a_right_tag_of_now(operations in proptest::collection::vec(operation(), 1..120)) {
        let mut bench = Bench::new();
        for operation in operations {
            bench.act(operation);
        }
        // Questions of the server's own, to devices that fell silent, are not answers to anything.
        prop_assert!(bench.bytes_out <= bench.bytes_in + bench.asked);
    }
}
