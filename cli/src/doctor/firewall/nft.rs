//! What `nft -j list ruleset` says, read for one packet. The format is libnftables-json(5).

use core::net::Ipv4Addr;
use std::collections::BTreeMap;

use serde_json::Value;
use tillwire::discovery::driver::Subnet;

use super::rules::{Base, Packet, Rule, Ruleset, Then, Truth};

/// Sets of the ruleset by table and name.
type Sets<'v> = BTreeMap<String, &'v Value>;

/// Reads a listing; `None` if it is none. Tables written by iptables (`xt` in their rules) are left out if `iptables`
/// says that they are read in their own words.
pub(super) fn read(text: &str, packet: &Packet, iptables: bool) -> Option<Ruleset> {
    let listing: Value = serde_json::from_str(text).ok()?;
    let objects = listing["nftables"].as_array()?;
    let of = |kind: &'static str| {
        objects.iter().filter_map(move |object| object.get(kind)).filter(|one| ours(one))
    };
    let foreign: Vec<String> = of("rule").filter(|rule| iptables && is_xt(rule)).map(table).collect();
    let sets: Sets<'_> = of("set").chain(of("map")).map(|set| (named(set, &set["name"]), set)).collect();
    let mut rules = Ruleset::default();
    for chain in of("chain").filter(|chain| !foreign.contains(&table(chain))) {
        rules.chains.entry(named(chain, &chain["name"])).or_default().base = base(chain);
    }
    for rule in of("rule").filter(|rule| !foreign.contains(&table(rule))) {
        let chain = rules.chains.entry(named(rule, &rule["chain"])).or_default();
        chain.rules.extend(self::rules(rule, packet, &sets));
    }
    Some(rules)
}

/// IPv4 passes these families; not `ip6`, `arp`, `bridge`, `netdev`.
fn ours(object: &Value) -> bool {
    matches!(object["family"].as_str(), Some("ip" | "inet"))
}

fn is_xt(rule: &Value) -> bool {
    rule["expr"].as_array().into_iter().flatten().any(|one| one.get("xt").is_some())
}

fn table(object: &Value) -> String {
    let word = |name: &str| object[name].as_str().unwrap_or_default();
    format!("{} {}", word("family"), word("table"))
}

fn named(object: &Value, name: &Value) -> String {
    format!("{} {}", table(object), name.as_str().unwrap_or_default())
}

fn base(chain: &Value) -> Option<Base> {
    let inbound = match chain["hook"].as_str()? {
        "prerouting" | "input" => true,
        "output" | "postrouting" => false,
        _ => return None,
    };
    // What an address is translated to is not what decides whether it passes.
    if chain["type"] == "nat" {
        return None;
    }
    let early = matches!(chain["hook"].as_str(), Some("prerouting" | "output"));
    // The first hook comes before the second, whatever their priorities are.
    let priority = chain["prio"].as_i64().unwrap_or(0) + if early { -(1 << 32) } else { 0 };
    Some(Base { inbound, priority, drops: chain["policy"] == "drop" })
}

/// A rule as ours: one, or one per entry of a verdict map.
fn rules(rule: &Value, packet: &Packet, sets: &Sets<'_>) -> Vec<Rule> {
    let mut holds = Truth::Yes;
    let mut found = Vec::new();
    let reader = Reader { packet, sets, table: table(rule) };
    let words = words(rule);
    let mut add = |holds, then| found.push(Rule { holds, then, words: words.clone() });
    for statement in rule["expr"].as_array().into_iter().flatten() {
        let Some((kind, value)) = statement.as_object().and_then(|statement| statement.iter().next()) else {
            continue;
        };
        match kind.as_str() {
            "match" => holds = holds.and(reader.matches(value)),
            "vmap" => {
                for (key, then) in reader.verdicts(value) {
                    add(holds.and(key), then);
                }
            }
            "counter" | "log" | "mangle" | "notrack" | "set" | "comment" | "ct helper" => {}
            // Another program decides.
            "queue" => add(holds.and(Truth::Maybe), Then::Drop),
            other => match verdict(other, value, &reader.table) {
                Some(then) => add(holds, then),
                // A rate, a count of connections, a match of another program.
                None => holds = holds.and(Truth::Maybe),
            },
        }
    }
    found
}

fn verdict(kind: &str, value: &Value, table: &str) -> Option<Then> {
    let target = || value["target"].as_str().map(|chain| format!("{table} {chain}"));
    match kind {
        "accept" => Some(Then::Accept),
        "drop" | "reject" => Some(Then::Drop),
        "return" => Some(Then::Return),
        "continue" => Some(Then::Nothing),
        "jump" => target().map(Then::Jump),
        "goto" => target().map(Then::Goto),
        _ => None,
    }
}

/// Reads one rule's conditions.
struct Reader<'p, 's> {
    packet: &'p Packet,
    sets: &'s Sets<'s>,
    table: String,
}

impl Reader<'_, '_> {
    fn matches(&self, value: &Value) -> Truth {
        let negated = match value["op"].as_str() {
            Some("==" | "in") => false,
            Some("!=") => true,
            // Greater, less: only of ports, and seldom; not worth being wrong about.
            _ => return Truth::Maybe,
        };
        self.compare(&value["left"], &value["right"]).negated(negated)
    }

    /// Whether the packet's `left` is `right`, or one of it.
    fn compare(&self, left: &Value, right: &Value) -> Truth {
        if let Some(name) = right.as_str().and_then(|name| name.strip_prefix('@')) {
            let set = self.sets.get(&format!("{} {name}", self.table));
            return set.map_or(Truth::Maybe, |set| match set.get("elem") {
                Some(elements) => self.any(left, elements),
                // A set that other rules fill may have been empty when it was listed.
                None => Truth::Maybe,
            });
        }
        match right {
            Value::Array(_) => self.any(left, right),
            Value::Object(object) => match object.iter().next().map(|(kind, value)| (kind.as_str(), value)) {
                Some(("set", elements)) => self.any(left, elements),
                Some(("elem", element)) => self.compare(left, &element["val"]),
                _ => self.equals(left, right),
            },
            _ => self.equals(left, right),
        }
    }

    fn any(&self, left: &Value, elements: &Value) -> Truth {
        let one = |element: &Value| self.compare(left, element);
        match elements {
            Value::Array(list) => list.iter().map(one).fold(Truth::No, Truth::or),
            single => one(single),
        }
    }

    fn equals(&self, left: &Value, right: &Value) -> Truth {
        if let Some(key) = left["meta"]["key"].as_str() {
            return self.meta(key, right);
        }
        if left["ct"]["key"] == "state" {
            return right.as_str().map_or(Truth::Maybe, |state| Truth::of(state == "new"));
        }
        let payload = &left["payload"];
        match (payload["protocol"].as_str(), payload["field"].as_str()) {
            (Some(protocol @ ("tcp" | "udp")), _) if protocol != self.packet.transport() => Truth::No,
            (Some("tcp" | "udp" | "th"), Some("dport")) => number(right, self.packet.port),
            (Some("tcp" | "udp" | "th"), Some("sport")) => {
                self.packet.source_port.map_or(Truth::Maybe, |port| number(right, port))
            }
            (Some("ip"), Some("protocol")) => self.protocol(right),
            (Some("ip"), Some(end @ ("saddr" | "daddr"))) => self.address(end, right),
            (Some("ip6" | "icmp" | "icmpv6" | "arp" | "sctp" | "dccp" | "udplite" | "esp" | "ah"), _) => {
                Truth::No
            }
            _ => Truth::Maybe,
        }
    }

    fn meta(&self, key: &str, right: &Value) -> Truth {
        let text = right.as_str();
        match key {
            "l4proto" => self.protocol(right),
            "nfproto" | "protocol" => {
                text.map_or(Truth::Maybe, |family| Truth::of(matches!(family, "ipv4" | "ip")))
            }
            "iifname" | "iif" if self.packet.inbound => {
                text.map_or(Truth::Maybe, |name| self.packet.by_interface(name))
            }
            "oifname" | "oif" if !self.packet.inbound => {
                text.map_or(Truth::Maybe, |name| self.packet.by_interface(name))
            }
            _ => Truth::Maybe,
        }
    }

    fn protocol(&self, right: &Value) -> Truth {
        match (right.as_str(), right.as_u64()) {
            (Some(name), _) => Truth::of(name == self.packet.transport()),
            (_, Some(number)) => Truth::of(number == if self.packet.udp { 17 } else { 6 }),
            _ => Truth::Maybe,
        }
    }

    fn address(&self, end: &str, right: &Value) -> Truth {
        let prefix = &right["prefix"];
        let (address, len) = match right.as_str() {
            Some(address) => (address, Some(32)),
            None => (prefix["addr"].as_str().unwrap_or_default(), prefix["len"].as_u64()),
        };
        let len = len.and_then(|len| u8::try_from(len).ok());
        let (Ok(address), Some(len)) = (address.parse::<Ipv4Addr>(), len) else { return Truth::Maybe };
        let range = Subnet::new(address, len);
        let ours = (end == "daddr") == self.packet.inbound;
        if ours { self.packet.with_us(range) } else { self.packet.with_neighbour(range) }
    }

    /// The entries of a verdict map: whether each is the packet's, and what it says.
    fn verdicts(&self, value: &Value) -> Vec<(Truth, Then)> {
        let data = &value["data"];
        let named = data.as_str().and_then(|name| name.strip_prefix('@'));
        let entries = match named {
            Some(name) => self.sets.get(&format!("{} {name}", self.table)).map(|map| &map["elem"]),
            None => Some(&data["set"]),
        };
        let entries = entries.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let entry = |entry: &Value| {
            let (kind, target) = entry[1].as_object()?.iter().next()?;
            Some((self.compare(&value["key"], &entry[0]), verdict(kind, target, &self.table)?))
        };
        entries.iter().filter_map(entry).collect()
    }
}

/// Whether a port is this number, or in this range.
fn number(right: &Value, port: u16) -> Truth {
    let at = |value: &Value| value.as_u64();
    if let Some(number) = at(right) {
        return Truth::of(number == u64::from(port));
    }
    match right["range"].as_array().map(Vec::as_slice) {
        Some([first, last]) => match (at(first), at(last)) {
            (Some(first), Some(last)) => Truth::of((first..=last).contains(&u64::from(port))),
            _ => Truth::Maybe,
        },
        _ => Truth::Maybe,
    }
}

/// A rule as its comment, or as short as it can be told from others.
fn words(rule: &Value) -> String {
    if let Some(comment) = rule["comment"].as_str() {
        return format!("{comment:?} (handle {})", rule["handle"]);
    }
    let mut words = Vec::new();
    for statement in rule["expr"].as_array().into_iter().flatten() {
        let Some((kind, value)) = statement.as_object().and_then(|statement| statement.iter().next()) else {
            continue;
        };
        words.push(match kind.as_str() {
            "match" => condition(value),
            "counter" | "log" => continue,
            "jump" | "goto" => format!("{kind} {}", value["target"].as_str().unwrap_or("?")),
            "xt" => "a match of iptables".to_owned(),
            other => other.to_owned(),
        });
    }
    format!("{} (handle {})", words.join(" "), rule["handle"])
}

fn condition(value: &Value) -> String {
    let left = &value["left"];
    let word = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let what = if left.get("payload").is_some() {
        format!("{} {}", word(&left["payload"]["protocol"]), word(&left["payload"]["field"]))
    } else if left.get("meta").is_some() {
        word(&left["meta"]["key"])
    } else if left.get("ct").is_some() {
        format!("ct {}", word(&left["ct"]["key"]))
    } else {
        "?".to_owned()
    };
    let op = if value["op"] == "!=" { "!= " } else { "" };
    let right = match &value["right"] {
        Value::String(text) => text.clone(),
        other => other.to_string().replace('"', ""),
    };
    format!("{what} {op}{right}")
}

#[cfg(test)]
mod tests {
    use super::super::rules::Fate;
    use super::super::rules::tests::packet;
    use super::*;

    fn fate(expressions: &[&str], policy: &str, packet: &Packet) -> Fate {
        let mut objects = vec![
            r#"{"metainfo": {"version": "1.0.6", "json_schema_version": 1}}"#.to_owned(),
            r#"{"table": {"family": "inet", "name": "fw", "handle": 1}}"#.to_owned(),
            format!(
                r#"{{"chain": {{"family": "inet", "table": "fw", "name": "in", "type": "filter", "hook": "input", "prio": 0, "policy": "{policy}"}}}}"#
            ),
            r#"{"chain": {"family": "inet", "table": "fw", "name": "tills"}}"#.to_owned(),
            r#"{"rule": {"family": "inet", "table": "fw", "chain": "tills", "handle": 9, "expr": [{"accept": null}]}}"#
                .to_owned(),
            r#"{"set": {"family": "inet", "table": "fw", "name": "open", "elem": [{"range": [57000, 58000]}, 80]}}"#
                .to_owned(),
        ];
        for expression in expressions {
            objects.push(format!(
                r#"{{"rule": {{"family": "inet", "table": "fw", "chain": "in", "handle": 4, "expr": [{expression}]}}}}"#
            ));
        }
        let text = format!(r#"{{"nftables": [{}]}}"#, objects.join(","));
        read(&text, packet, false).expect("a listing").fate(packet)
    }

    const DPORT: &str = r#"{"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": 57854}}"#;
    const LO: &str =
        r#"{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "lo"}}, {"accept": null}"#;
    const OLD: &str = r#"{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}, {"accept": null}"#;

    #[test]
    fn a_rule_that_drops_the_port_is_found_and_shown() {
        let packet = packet(true, true, 57_854);
        let drop = format!(r#"{DPORT}, {{"counter": {{"packets": 3, "bytes": 9}}}}, {{"drop": null}}"#);
        let Fate::Dropped(why) = fate(&[&drop], "accept", &packet) else { panic!("it passes") };
        assert_eq!(why.words, "inet fw in: udp dport 57854 drop (handle 4)");
        let other = super::super::rules::tests::packet(true, true, 57_855);
        assert_eq!(fate(&[&drop], "accept", &other), Fate::Passes);
        let tcp = super::super::rules::tests::packet(true, false, 57_854);
        assert_eq!(fate(&[&drop], "accept", &tcp), Fate::Passes);
    }

    #[test]
    fn a_policy_of_drop_needs_a_rule_that_lets_it_in() {
        let packet = packet(true, true, 57_854);
        assert!(
            matches!(fate(&[LO, OLD], "drop", &packet), Fate::Dropped(why) if why.words.contains("policy"))
        );
        let accept = format!(r#"{DPORT}, {{"accept": null}}"#);
        assert_eq!(fate(&[LO, OLD, &accept], "drop", &packet), Fate::Passes);
        for (right, passes) in [
            (r#"{"set": [80, 57854]}"#, true),
            (r#"{"set": [80, {"range": [57000, 58000]}]}"#, true),
            (r#"{"range": [1, 57853]}"#, false),
            (r#""@open""#, true),
            (r#"{"set": [{"elem": {"val": 57854, "comment": "x"}}]}"#, true),
        ] {
            let accept = DPORT.replace("57854", right) + r#", {"accept": null}"#;
            assert_eq!(fate(&[&accept], "drop", &packet) == Fate::Passes, passes, "{right}");
        }
    }

    #[test]
    fn conditions_that_are_known_and_those_that_are_not() {
        let packet = packet(true, true, 57_854);
        let meta = |key: &str, right: &str| {
            format!(
                r#"{{"match": {{"op": "==", "left": {{"meta": {{"key": "{key}"}}}}, "right": {right}}}}}, {{"accept": null}}"#
            )
        };
        let address = |field: &str, op: &str, addr: &str, len: u8| {
            format!(
                r#"{{"match": {{"op": "{op}", "left": {{"payload": {{"protocol": "ip", "field": "{field}"}}}}, "right": {{"prefix": {{"addr": "{addr}", "len": {len}}}}}}}}}, {{"accept": null}}"#
            )
        };
        let limited = r#"{"limit": {"rate": 10, "per": "second"}}, {"accept": null}"#.to_owned();
        for (rule, expected) in [
            (meta("iifname", r#""eth0""#), Some(true)),
            (meta("iifname", r#"{"set": ["eth0", "wlan0"]}"#), Some(true)),
            (meta("iifname", r#""wlan0""#), Some(false)),
            (meta("l4proto", r#""udp""#), Some(true)),
            (meta("l4proto", r#"{"set": ["icmp", "ipv6-icmp"]}"#), Some(false)),
            (meta("nfproto", r#""ipv6""#), Some(false)),
            (meta("mark", "7"), None),
            (address("saddr", "==", "10.0.0.0", 8), Some(true)),
            (address("saddr", "!=", "10.0.0.0", 8), Some(false)),
            (address("saddr", "==", "10.0.0.0", 28), None),
            (address("daddr", "==", "224.0.0.0", 4), Some(false)),
            (limited, None),
            (r#"{"xt": {"type": "match", "name": "comment"}}, {"accept": null}"#.to_owned(), None),
        ] {
            let fate = fate(&[&rule], "drop", &packet);
            match expected {
                Some(true) => assert_eq!(fate, Fate::Passes, "{rule}"),
                Some(false) => assert!(matches!(fate, Fate::Dropped(_)), "{rule}"),
                None => assert!(matches!(fate, Fate::MayBeDropped(_)), "{rule}: {fate:?}"),
            }
        }
    }

    #[test]
    fn verdict_maps_and_jumps() {
        let packet = packet(true, true, 57_854);
        let vmap =
            |key: &str, set: &str| format!(r#"{{"vmap": {{"key": {key}, "data": {{"set": {set}}}}}}}"#);
        let state = r#"{"ct": {"key": "state"}}"#;
        let first = vmap(state, r#"[["established", {"accept": null}], ["invalid", {"drop": null}]]"#);
        let name = r#"{"meta": {"key": "iifname"}}"#;
        let jump = vmap(name, r#"[["lo", {"accept": null}], ["eth0", {"jump": {"target": "tills"}}]]"#);
        assert_eq!(fate(&[&first, &jump], "drop", &packet), Fate::Passes);
        assert!(matches!(fate(&[&first], "drop", &packet), Fate::Dropped(_)));
        let goto = format!(r#"{DPORT}, {{"goto": {{"target": "tills"}}}}"#);
        assert_eq!(fate(&[&goto], "drop", &packet), Fate::Passes);
        let reject = r#"{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}"#;
        assert!(matches!(fate(&[&goto.replace("57854", "1"), reject], "accept", &packet), Fate::Dropped(_)));
    }

    #[test]
    fn other_families_hooks_and_texts() {
        let packet = packet(true, true, 57_854);
        for (family, hook, kind) in [
            ("ip6", "input", "filter"),
            ("inet", "forward", "filter"),
            ("ip", "prerouting", "nat"),
            ("ip", "output", "filter"),
        ] {
            let text = format!(
                r#"{{"nftables": [{{"chain": {{"family": "{family}", "table": "t", "name": "c", "type": "{kind}", "hook": "{hook}", "prio": 0, "policy": "drop"}}}}]}}"#
            );
            assert_eq!(read(&text, &packet, false).unwrap().fate(&packet), Fate::Passes, "{text}");
        }
        for text in ["", "{", "[]", "{}", r#"{"nftables": 3}"#] {
            assert!(read(text, &packet, false).is_none(), "{text}");
        }
        let odd = r#"{"nftables": [3, {"rule": {}}, {"rule": {"family": "ip", "expr": [3, {"match": 4}, {"vmap": 5}]}}]}"#;
        assert_eq!(read(odd, &packet, false).unwrap().fate(&packet), Fate::Passes);
    }

    #[test]
    fn tables_of_iptables_are_left_to_its_own_words() {
        let packet = packet(true, true, 57_854);
        let text = r#"{"nftables": [
            {"chain": {"family": "ip", "table": "filter", "name": "INPUT", "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}},
            {"rule": {"family": "ip", "table": "filter", "chain": "INPUT", "handle": 3, "expr": [{"xt": null}, {"accept": null}]}}
        ]}"#;
        assert!(matches!(read(text, &packet, false).unwrap().fate(&packet), Fate::MayBeDropped(_)));
        assert_eq!(read(text, &packet, true).unwrap().fate(&packet), Fate::Passes);
    }
}
