//! A packet filter's rules, whatever wrote them, and what they do with one packet.
//!
//! A rule may look at things we do not know (marks, rates, sets of another program), so whether it applies is yes, no or
//! maybe; and so is what becomes of the packet.

use core::net::Ipv4Addr;
use std::collections::BTreeMap;

use tillwire::discovery::driver::{Interface, Subnet};

/// Chains that call chains: deeper than any real set of rules.
pub(crate) const DEPTH_MAX: usize = 32;
/// Rules looked at for one packet: sets with jumps may be walked many times.
pub(crate) const STEPS_MAX: usize = 100_000;

/// Whether something holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Truth {
    No,
    Maybe,
    Yes,
}

impl Truth {
    /// Both hold.
    pub(super) fn and(self, other: Self) -> Self {
        self.min(other)
    }

    /// At least one holds.
    pub(super) fn or(self, other: Self) -> Self {
        self.max(other)
    }

    /// The contrary, if `negated`.
    pub(super) const fn negated(self, negated: bool) -> Self {
        match self {
            Self::No if negated => Self::Yes,
            Self::Yes if negated => Self::No,
            same => same,
        }
    }

    /// Yes or no.
    pub(super) const fn of(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

/// The first packet of a flow: no rule has let it in as an answer.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    /// It comes in; else it leaves.
    pub(super) inbound: bool,
    /// UDP; else TCP.
    pub(super) udp: bool,
    /// Where it goes to.
    pub(super) port: u16,
    /// Where it comes from, if that is known.
    pub(super) source_port: Option<u16>,
    /// The interfaces it may come and go by.
    pub(super) interfaces: Vec<Interface>,
}

impl Packet {
    /// `in udp 57854`.
    pub(super) fn words(&self) -> String {
        let way = if self.inbound { "in" } else { "out" };
        format!("{way} {} {}", self.transport(), self.port)
    }

    /// `udp` or `tcp`.
    pub(super) const fn transport(&self) -> &'static str {
        if self.udp { "udp" } else { "tcp" }
    }

    /// Whether it comes or goes by an interface of that name, which may end in `*`.
    pub(super) fn by_interface(&self, pattern: &str) -> Truth {
        self.all(|one| match pattern.strip_suffix('*') {
            Some(start) => Truth::of(one.name.starts_with(start)),
            None => Truth::of(one.name == pattern),
        })
    }

    /// Whether the other end, a neighbour, has an address in `range`.
    pub(super) fn with_neighbour(&self, range: Subnet) -> Truth {
        self.all(|one| {
            let lan = Subnet::new(one.address, one.prefix);
            if range.prefix() <= lan.prefix() {
                Truth::of(range.contains(one.address))
            } else if lan.contains(range.broadcast()) {
                Truth::Maybe
            } else {
                Truth::No
            }
        })
    }

    /// Whether our end has an address in `range`. What comes in may also be addressed to everybody.
    pub(super) fn with_us(&self, range: Subnet) -> Truth {
        if range.prefix() == 0 {
            return Truth::Yes;
        }
        let ours = self.all(|one| Truth::of(range.contains(one.address)));
        if !self.inbound || !self.udp {
            return ours;
        }
        let everybody = range.contains(Ipv4Addr::BROADCAST)
            || self
                .interfaces
                .iter()
                .any(|one| range.contains(Subnet::new(one.address, one.prefix).broadcast()));
        match ours {
            Truth::No if !everybody => Truth::No,
            _ => Truth::Maybe,
        }
    }

    /// What all interfaces agree on.
    fn all(&self, holds: impl Fn(&Interface) -> Truth) -> Truth {
        let mut each = self.interfaces.iter().map(holds);
        let Some(first) = each.next() else { return Truth::Maybe };
        if each.all(|other| other == first) { first } else { Truth::Maybe }
    }
}

/// What a rule does with what it applies to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Accept,
    Drop,
    Jump(String),
    Goto(String),
    Return,
    /// It counts, logs or marks.
    Nothing,
}

/// One rule.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) holds: Truth,
    pub(super) then: Then,
    /// How it is shown.
    pub(super) words: String,
}

/// Rules one after another.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    pub(super) rules: Vec<Rule>,
    /// Set if packets enter here.
    pub(super) base: Option<Base>,
}

/// Where packets enter a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Base {
    /// For packets that come in; else for those that leave.
    pub(super) inbound: bool,
    /// Lower ones first.
    pub(super) priority: i64,
    /// What no rule decides about is dropped.
    pub(super) drops: bool,
}

/// All chains of a packet filter by name, for one packet.
#[derive(Clone, Debug, Default)]
pub(super) struct Ruleset {
    pub(super) chains: BTreeMap<String, Chain>,
}

/// What becomes of a packet, and by which rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    Passes,
    MayBeDropped(Why),
    Dropped(Why),
}

/// What decided about a packet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Why {
    /// The chain, with its table.
    pub(super) chain: String,
    /// The rule, or the policy, in words.
    pub(super) words: String,
}

impl Why {
    fn new(chain: &str, words: String) -> Self {
        Self { chain: chain.to_owned(), words }
    }
}

impl Ruleset {
    /// What becomes of the packet: every chain it enters has to let it pass.
    pub(super) fn fate(&self, packet: &Packet) -> Fate {
        let enters = |chain: &Chain| chain.base.filter(|base| base.inbound == packet.inbound);
        let mut bases: Vec<_> =
            self.chains.iter().filter_map(|(name, chain)| Some((enters(chain)?, name))).collect();
        bases.sort_by_key(|(base, name)| (base.priority, (*name).clone()));
        let mut worst = Fate::Passes;
        for (base, name) in bases {
            let fate = Walk::new(self).enter(name, base);
            if fate > worst {
                worst = fate;
            }
            if matches!(worst, Fate::Dropped(_)) {
                break;
            }
        }
        worst
    }
}

/// How a chain ended.
enum End {
    Accepted,
    Dropped(Why),
    /// No rule decided.
    Fell,
}

/// A packet's way through one base chain.
struct Walk<'r> {
    rules: &'r Ruleset,
    steps: usize,
    may_drop: Option<Why>,
    may_accept: Option<String>,
}

impl<'r> Walk<'r> {
    const fn new(rules: &'r Ruleset) -> Self {
        Self { rules, steps: 0, may_drop: None, may_accept: None }
    }

    fn enter(mut self, name: &str, base: Base) -> Fate {
        let end = match self.chain(name, 0) {
            End::Fell if base.drops => End::Dropped(Why::new(name, format!("the policy of {name} is drop"))),
            End::Fell => End::Accepted,
            end => end,
        };
        match (end, self.may_accept, self.may_drop) {
            (End::Dropped(why), None, _) => Fate::Dropped(why),
            (End::Dropped(why), Some(unless), _) => {
                let words = format!("{}, unless this applies: {unless}", why.words);
                Fate::MayBeDropped(Why { words, ..why })
            }
            (_, _, Some(why)) => Fate::MayBeDropped(why),
            _ => Fate::Passes,
        }
    }

    fn chain(&mut self, name: &str, depth: usize) -> End {
        let Some(chain) = self.rules.chains.get(name) else { return End::Fell };
        if depth >= DEPTH_MAX {
            self.may_drop
                .get_or_insert_with(|| Why::new(name, format!("{name} is called too deeply to be followed")));
            return End::Fell;
        }
        // After a return that may have happened, nothing is certain.
        let mut here = Truth::Yes;
        for rule in &chain.rules {
            self.steps += 1;
            if self.steps > STEPS_MAX {
                self.may_drop.get_or_insert_with(|| {
                    Why::new(name, format!("{name} has too many rules to be followed"))
                });
                return End::Fell;
            }
            let holds = rule.holds.and(here);
            if holds == Truth::No {
                continue;
            }
            let (end, leaves) = match &rule.then {
                Then::Nothing => continue,
                Then::Accept => (End::Accepted, false),
                Then::Drop => (End::Dropped(Why::new(name, format!("{name}: {}", rule.words))), false),
                Then::Return => (End::Fell, true),
                Then::Jump(to) => (self.chain(to, depth + 1), false),
                Then::Goto(to) => (self.chain(to, depth + 1), true),
            };
            match (end, holds) {
                (End::Fell, Truth::Yes) if leaves => return End::Fell,
                (End::Fell, _) if leaves => here = Truth::Maybe,
                (End::Fell, _) => {}
                (end, Truth::Yes) => return end,
                (End::Accepted, _) => {
                    self.may_accept.get_or_insert_with(|| format!("{name}: {}", rule.words));
                }
                (End::Dropped(why), _) => {
                    self.may_drop.get_or_insert(why);
                }
            }
        }
        End::Fell
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::doctor::host::tests::host;

    /// A packet by eth0, 10.0.0.1/24.
    pub(crate) fn packet(inbound: bool, udp: bool, port: u16) -> Packet {
        let interfaces = host().interfaces.unwrap();
        Packet { inbound, udp, port, source_port: udp.then_some(port), interfaces }
    }

    fn rule(holds: Truth, then: Then) -> Rule {
        Rule { holds, words: format!("{then:?}"), then }
    }

    fn fate(drops: bool, rules: Vec<Rule>, called: Vec<Rule>) -> Fate {
        let base = Base { inbound: true, priority: 0, drops };
        let chains = [
            ("input".to_owned(), Chain { rules, base: Some(base) }),
            ("called".to_owned(), Chain { rules: called, base: None }),
        ];
        Ruleset { chains: chains.into() }.fate(&packet(true, true, 1))
    }

    #[test]
    fn a_packet_finds_its_way() {
        use Then::{Accept, Drop, Goto, Jump, Return};
        use Truth::{Maybe, No, Yes};
        let jump = || Jump("called".to_owned());
        assert_eq!(fate(false, vec![], vec![]), Fate::Passes);
        assert!(matches!(fate(true, vec![], vec![]), Fate::Dropped(why) if why.words.contains("policy")));
        assert_eq!(fate(true, vec![rule(Yes, Accept)], vec![]), Fate::Passes);
        assert!(matches!(fate(true, vec![rule(Maybe, Accept)], vec![]), Fate::MayBeDropped(_)));
        assert!(matches!(fate(false, vec![rule(Maybe, Drop)], vec![]), Fate::MayBeDropped(_)));
        assert!(matches!(fate(false, vec![rule(No, Accept), rule(Yes, Drop)], vec![]), Fate::Dropped(_)));
        assert_eq!(fate(true, vec![rule(Yes, jump())], vec![rule(Yes, Accept)]), Fate::Passes);
        let after = vec![rule(Yes, jump()), rule(Yes, Accept)];
        assert_eq!(fate(true, after.clone(), vec![rule(Yes, Return), rule(Yes, Drop)]), Fate::Passes);
        assert!(matches!(
            fate(true, after, vec![rule(Maybe, Return), rule(Yes, Drop)]),
            Fate::MayBeDropped(_)
        ));
        let gone = vec![rule(Yes, Goto("called".to_owned())), rule(Yes, Accept)];
        assert!(matches!(fate(true, gone, vec![]), Fate::Dropped(_)), "what is left does not come back");
    }

    #[test]
    fn chains_at_the_deepest_and_rules_at_the_most_end() {
        // A chain that calls itself twice would take 2^32 steps.
        let round = || rule(Truth::Maybe, Then::Jump("called".to_owned()));
        let fates = fate(false, vec![round()], vec![round(), round()]);
        assert!(matches!(fates, Fate::MayBeDropped(why) if why.words.contains("too deeply")));
        let chain = |at: usize| {
            let then = if at == DEPTH_MAX - 1 { Then::Drop } else { Then::Jump(format!("{}", at + 1)) };
            let base = (at == 0).then_some(Base { inbound: true, priority: 0, drops: false });
            (format!("{at}"), Chain { rules: vec![rule(Truth::Yes, then)], base })
        };
        let mut rules = Ruleset { chains: (0..DEPTH_MAX).map(chain).collect() };
        assert!(matches!(rules.fate(&packet(true, true, 1)), Fate::Dropped(_)), "the deepest is looked at");
        let first = rules.chains.get_mut("0").unwrap();
        first.base = None;
        let before = Chain {
            rules: vec![rule(Truth::Yes, Then::Jump("0".to_owned()))],
            base: Some(Base { inbound: true, priority: 0, drops: false }),
        };
        rules.chains.insert("before".to_owned(), before);
        assert!(
            matches!(rules.fate(&packet(true, true, 1)), Fate::MayBeDropped(_)),
            "one deeper is not, and that is said"
        );
        let many = |count: usize| {
            let mut rules = vec![rule(Truth::Maybe, Then::Nothing); count - 1];
            rules.push(rule(Truth::Yes, Then::Drop));
            fate(false, rules, vec![])
        };
        assert!(matches!(many(STEPS_MAX), Fate::Dropped(_)));
        assert!(matches!(many(STEPS_MAX + 1), Fate::MayBeDropped(why) if why.words.contains("too many")));
    }

    #[test]
    fn interfaces_and_addresses() {
        let mut packet = packet(true, true, 57_854);
        let range = |text: &str| text.parse::<Subnet>().unwrap();
        assert_eq!(packet.by_interface("eth*"), Truth::Yes);
        assert_eq!(packet.by_interface("lo"), Truth::No);
        assert_eq!(packet.with_neighbour(range("10.0.0.0/8")), Truth::Yes);
        assert_eq!(packet.with_neighbour(range("10.0.0.128/25")), Truth::Maybe);
        assert_eq!(packet.with_neighbour(range("192.168.0.0/16")), Truth::No);
        assert_eq!(packet.with_us(range("10.0.0.1/32")), Truth::Maybe, "a broadcast is not for that address");
        assert_eq!(packet.with_us(range("192.168.0.0/16")), Truth::No);
        packet.inbound = false;
        assert_eq!(packet.with_us(range("10.0.0.1/32")), Truth::Yes);
        let mut other = packet.interfaces[0].clone();
        other.name = "wlan0".to_owned();
        packet.interfaces.push(other);
        assert_eq!(packet.by_interface("eth0"), Truth::Maybe);
        packet.interfaces.clear();
        assert_eq!(packet.by_interface("eth0"), Truth::Maybe);
    }
}
