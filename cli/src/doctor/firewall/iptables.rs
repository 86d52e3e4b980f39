//! What `iptables-save` prints, read for one packet.

use core::net::Ipv4Addr;

use tillwire::discovery::driver::Subnet;

use super::rules::{Base, Packet, Rule, Ruleset, Then, Truth};

/// Modules whose options are read below, or that only carry a comment.
const KNOWN_MODULES: [&str; 8] =
    ["udp", "tcp", "multiport", "conntrack", "state", "comment", "addrtype", "pkttype"];

/// Reads a listing. Lines that are none are left out.
pub(super) fn read(text: &str, packet: &Packet) -> Ruleset {
    let mut rules = Ruleset::default();
    let mut table = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name.trim().to_owned();
        } else if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split_ascii_whitespace();
            let (name, policy) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            rules.chains.entry(format!("{table} {name}")).or_default().base = base(&table, name, policy);
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let (chain, rest) = rule.split_once(' ').unwrap_or((rule, ""));
            let read = rule_of(rest, &table, packet);
            rules.chains.entry(format!("{table} {chain}")).or_default().rules.push(read);
        }
    }
    rules
}

fn base(table: &str, chain: &str, policy: &str) -> Option<Base> {
    let inbound = match chain {
        "PREROUTING" | "INPUT" => true,
        "OUTPUT" | "POSTROUTING" => false,
        _ => return None,
    };
    let early = if matches!(chain, "PREROUTING" | "OUTPUT") { -1_000 } else { 0 };
    let priority = match table {
        "raw" => early - 300,
        "mangle" => early - 150,
        "filter" => early,
        "security" => early + 50,
        _ => return None,
    };
    Some(Base { inbound, priority, drops: policy == "DROP" })
}

/// A word of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Word {
    text: String,
    /// It stood within quotes: never an option, whatever it looks like.
    quoted: bool,
}

impl Word {
    fn is_option(&self) -> bool {
        !self.quoted && self.text.starts_with('-')
    }

    fn is_not(&self) -> bool {
        !self.quoted && self.text == "!"
    }
}

/// The words of a line: separated by spaces, together within double quotes.
fn split(text: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let (mut word, mut inside) = (Word::default(), false);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => (inside, word.quoted) = (!inside, true),
            '\\' if inside => word.text.extend(letters.next()),
            ' ' if !inside => words.push(core::mem::take(&mut word)),
            other => word.text.push(other),
        }
    }
    words.push(word);
    words.retain(|word| word.quoted || !word.text.is_empty());
    words
}

fn rule_of(text: &str, table: &str, packet: &Packet) -> Rule {
    let words = split(text);
    let mut holds = Truth::Yes;
    let mut then = Then::Nothing;
    let mut negated = false;
    let mut rest = words.iter().peekable();
    while let Some(word) = rest.next() {
        if word.is_not() {
            negated = true;
        } else if matches!(word.text.as_str(), "-j" | "-g" | "--jump" | "--goto") && !word.quoted {
            let target = rest.next().map_or("", |target| &target.text);
            then = target_of(target, table, matches!(word.text.as_str(), "-g" | "--goto"));
            if target == "NFQUEUE" {
                holds = holds.and(Truth::Maybe);
            }
            // What follows are the target's own options.
            break;
        } else if word.is_option() {
            let value = rest.next_if(|next| !next.is_option() && !next.is_not());
            let value = value.map_or("", |value| &value.text);
            holds = holds.and(condition(&word.text, value, packet).negated(core::mem::take(&mut negated)));
        }
    }
    Rule { holds, then, words: text.to_owned() }
}

fn target_of(target: &str, table: &str, goto: bool) -> Then {
    match target {
        "ACCEPT" => Then::Accept,
        "DROP" | "REJECT" | "NFQUEUE" | "TARPIT" => Then::Drop,
        "RETURN" => Then::Return,
        // Extensions are written in capitals, and no chain of that name is found then.
        other if goto => Then::Goto(format!("{table} {other}")),
        other => Then::Jump(format!("{table} {other}")),
    }
}

fn condition(option: &str, value: &str, packet: &Packet) -> Truth {
    match option {
        "-p" | "--protocol" => match value {
            "all" | "0" => Truth::Yes,
            "udp" | "17" => Truth::of(packet.udp),
            "tcp" | "6" => Truth::of(!packet.udp),
            _ => Truth::No,
        },
        "-i" | "--in-interface" if packet.inbound => packet.by_interface(&value.replace('+', "*")),
        "-o" | "--out-interface" if !packet.inbound => packet.by_interface(&value.replace('+', "*")),
        "-s" | "--source" => address(value, packet, packet.inbound),
        "-d" | "--destination" => address(value, packet, !packet.inbound),
        "--dport" | "--dports" | "--destination-port" | "--destination-ports" => ports(value, packet.port),
        "--sport" | "--sports" | "--source-port" | "--source-ports" => {
            packet.source_port.map_or(Truth::Maybe, |port| ports(value, port))
        }
        "--ports" => {
            let source = packet.source_port.map_or(Truth::Maybe, |port| ports(value, port));
            source.or(ports(value, packet.port))
        }
        "--ctstate" | "--state" => Truth::of(value.split(',').any(|state| state == "NEW")),
        "-m" | "--match" => {
            if KNOWN_MODULES.contains(&value) {
                Truth::Yes
            } else {
                Truth::Maybe
            }
        }
        "--comment" => Truth::Yes,
        // Only the first packet of a connection is looked at, and that is what these select.
        "--syn" => Truth::of(!packet.udp),
        "--tcp-flags" => Truth::Maybe,
        _ => Truth::Maybe,
    }
}

/// Whether an address is the neighbour's, if `theirs`, or ours.
fn address(text: &str, packet: &Packet, theirs: bool) -> Truth {
    let (address, len) = text.split_once('/').unwrap_or((text, "32"));
    let len = len.parse().ok().or_else(|| mask(len));
    let (Ok(address), Some(len)) = (address.parse(), len) else { return Truth::Maybe };
    let range = Subnet::new(address, len);
    if theirs { packet.with_neighbour(range) } else { packet.with_us(range) }
}

fn mask(text: &str) -> Option<u8> {
    let bits = text.parse::<Ipv4Addr>().ok()?.to_bits();
    (bits.leading_ones() + bits.trailing_zeros() == 32).then(|| u8::try_from(bits.leading_ones()).ok())?
}

/// `80`, `8000:8005`, `80,8000:8005`.
fn ports(list: &str, port: u16) -> Truth {
    let mut holds = Truth::No;
    for entry in list.split(',') {
        let (first, last) = entry.split_once(':').unwrap_or((entry, entry));
        let end = |text: &str, open: u16| if text.is_empty() { Some(open) } else { text.parse().ok() };
        holds = holds.or(match (end(first, 0), end(last, u16::MAX)) {
            (Some(first), Some(last)) => Truth::of((first..=last).contains(&port)),
            _ => Truth::Maybe,
        });
    }
    holds
}

#[cfg(test)]
mod tests {
    use super::super::rules::Fate;
    use super::super::rules::tests::packet;
    use super::*;

    fn fate(rules: &str, policy: &str, packet: &Packet) -> Fate {
        let text = format!(
            "# Generated by iptables-save\n*filter\n:INPUT {policy} [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n\
             :tills - [0:0]\n-A tills -p udp -m udp --dport 57854 -j ACCEPT\n{rules}\nCOMMIT\n"
        );
        read(&text, packet).fate(packet)
    }

    #[test]
    fn rules_as_they_are_written() {
        let packet = packet(true, true, 57_854);
        for (rule, expected) in [
            ("-A INPUT -p udp -m udp --dport 57854 -j DROP", Some(false)),
            ("-A INPUT -p udp -m udp --dport 57855 -j DROP", Some(true)),
            ("-A INPUT -p tcp -m tcp --dport 57854 -j DROP", Some(true)),
            ("-A INPUT ! -p tcp -j DROP", Some(false)),
            (
                "-A INPUT -p udp -m multiport --dports 53,57000:58000 -j REJECT --reject-with icmp-port-unreachable",
                Some(false),
            ),
            ("-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j DROP", Some(true)),
            ("-A INPUT -m conntrack --ctstate INVALID -j DROP", Some(true)),
            ("-A INPUT -m state --state NEW -j DROP", Some(false)),
            ("-A INPUT -i lo -j DROP", Some(true)),
            ("-A INPUT -i eth+ -j DROP", Some(false)),
            ("-A INPUT ! -i eth0 -j DROP", Some(true)),
            ("-A INPUT -s 10.0.0.0/255.255.255.0 -j DROP", Some(false)),
            ("-A INPUT ! -s 10.0.0.0/8 -j DROP", Some(true)),
            ("-A INPUT -d 224.0.0.0/4 -j DROP", Some(true)),
            ("-A INPUT -p udp -m udp --sport 57854 -j DROP", Some(false)),
            ("-A INPUT -m comment --comment \"-j ACCEPT of \\\"old\\\" rules\" -j DROP", Some(false)),
            ("-A INPUT -j LOG --log-prefix \"in: \"", Some(true)),
            ("-A INPUT -m limit --limit 5/sec -j DROP", None),
            ("-A INPUT -m addrtype --dst-type BROADCAST -j DROP", None),
            ("-A INPUT -m pkttype --pkt-type broadcast -j DROP", None),
            ("-A INPUT -m set --match-set blocked src -j DROP", None),
            ("-A INPUT -j NFQUEUE --queue-num 0", None),
            ("-A OUTPUT -p udp -j DROP", Some(true)),
        ] {
            match (fate(rule, "ACCEPT", &packet), expected) {
                (Fate::Passes, Some(true))
                | (Fate::Dropped(_), Some(false))
                | (Fate::MayBeDropped(_), None) => {}
                (fate, _) => panic!("{rule}: {fate:?}"),
            }
        }
    }

    #[test]
    fn policies_chains_and_the_rule_that_is_named() {
        let packet = packet(true, true, 57_854);
        assert!(
            matches!(fate("", "DROP", &packet), Fate::Dropped(why) if why.words.contains("policy of filter INPUT"))
        );
        assert_eq!(fate("-A INPUT -i eth0 -j tills", "DROP", &packet), Fate::Passes);
        assert!(matches!(fate("-A INPUT -i eth1 -j tills", "DROP", &packet), Fate::Dropped(_)));
        let Fate::Dropped(why) = fate("-A INPUT -p udp -j DROP\n-A INPUT -j tills", "ACCEPT", &packet) else {
            panic!("it passes");
        };
        assert_eq!(why.words, "filter INPUT: -p udp -j DROP");
        let out = super::super::rules::tests::packet(false, false, 8_081);
        assert!(matches!(fate("-A OUTPUT -p tcp --dport 8081 -j DROP", "ACCEPT", &out), Fate::Dropped(_)));
        assert_eq!(fate("-A OUTPUT -o lo -j DROP", "DROP", &out), Fate::Passes);
    }

    #[test]
    fn raw_drops_before_and_nat_never() {
        let packet = packet(true, true, 57_854);
        let table = |name: &str, chain: &str| {
            let text = format!("*{name}\n:{chain} ACCEPT [0:0]\n-A {chain} -p udp -j DROP\nCOMMIT\n");
            read(&text, &packet).fate(&packet)
        };
        assert!(matches!(table("raw", "PREROUTING"), Fate::Dropped(_)));
        assert_eq!(table("nat", "PREROUTING"), Fate::Passes);
        assert_eq!(table("filter", "FORWARD"), Fate::Passes);
    }

    #[test]
    fn odd_lines_make_no_rule() {
        let packet = packet(true, true, 57_854);
        for text in [
            "",
            "*",
            ":",
            "-A",
            "-A ",
            "-A INPUT",
            "*filter\n:INPUT\n-A INPUT -j",
            "-A INPUT -p",
            "-A X \"open",
        ] {
            assert_eq!(read(text, &packet).fate(&packet), Fate::Passes, "{text:?}");
        }
        let words = split("a \"b c\"  \"\" d");
        assert_eq!(words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>(), ["a", "b c", "", "d"]);
        assert_eq!(mask("255.255.0.0"), Some(16));
        assert_eq!(mask("255.0.255.0"), None);
        assert_eq!(ports("1:x", 7), Truth::Maybe);
        assert_eq!(ports(":100", 7), Truth::Yes);
    }
}
