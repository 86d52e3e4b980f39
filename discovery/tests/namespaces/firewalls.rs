//! Firewalls on either side. Every datagram of ours goes from port 57854 to port 57854, so one rule is enough.

use discovery::driver::Net;
use testkit::netns::Lan;

use crate::node::{SOON, device_config, seek, seek_with, serve, until};

const PAIR: &str = "s  eth0  shop  10.57.1.1/24
                    d  eth0  shop  10.57.1.2/24";

/// Everything that arrives for discovery is dropped, and counted nowhere.
const DEAF: &str =
    "table inet wall { chain arriving { type filter hook input priority 0; udp dport 57854 drop; }; }";
/// What a workstation's firewall does: only answers come in; here with the one exception discovery needs.
const STATEFUL: &str = "table inet wall { chain arriving { type filter hook input priority 0; policy drop;
    iif lo accept; ct state established,related accept; ip protocol icmp accept; udp sport 57854 accept; }; }";
/// The same without the exception.
const STRICT: &str = "table inet wall { chain arriving { type filter hook input priority 0; policy drop;
    iif lo accept; ct state established,related accept; ip protocol icmp accept; }; }";

fn open(lan: &Lan, host: &str) {
    assert!(lan.firewall(host, "delete table inet wall"));
}

pub(crate) fn behind_rules_that_let_answers_from_the_fixed_port_in_discovery_works() {
    let Some(lan) = Lan::new(PAIR) else { return };
    if !(lan.firewall("s", STATEFUL) && lan.firewall("d", STATEFUL)) {
        return;
    }
    let mut server = serve(&lan, "s");
    seek(&lan, "d", 1).says("registered 200 10.57.1.1", SOON);
    server.says("1 10.57.1.2:8081 Joined", SOON);
}

pub(crate) fn a_device_that_lets_in_nothing_but_answers_needs_a_seed() {
    let Some(lan) = Lan::new(PAIR) else { return };
    if !lan.firewall("d", STRICT) {
        return;
    }
    let mut server = serve(&lan, "s");
    let plain = seek(&lan, "d", 1);
    until("it asked in vain", || plain.stats().protocol.sent_seek >= 2);
    assert_eq!((plain.server(), plain.stats().net.received), (None, 0));
    drop(plain);
    let mut config = device_config(1);
    config.seeds[0] = Some("10.57.1.1:57854".parse().expect("an address"));
    seek_with(&lan, "d", Net::default(), config).says("registered 200 10.57.1.1", SOON);
    server.says("1 10.57.1.2:8081 Joined", SOON);
}

pub(crate) fn a_rule_that_is_taken_away_is_all_that_was_missing() {
    for deaf in ["s", "d"] {
        let Some(lan) = Lan::new(PAIR) else { return };
        if !lan.firewall(deaf, DEAF) {
            return;
        }
        let mut server = serve(&lan, "s");
        let mut device = seek(&lan, "d", 1);
        // A deaf server is still heard, and announced to.
        until("it asked in vain", || {
            let stats = device.stats().protocol;
            stats.sent_seek + stats.sent_announce >= 3
        });
        assert_eq!(device.server(), None, "{deaf}");
        open(&lan, deaf);
        device.says("registered 200 10.57.1.1", SOON);
        server.says("1 10.57.1.2:8081 Joined", SOON);
        assert_eq!(server.said().len(), 1, "{deaf}: {:?}", server.said());
    }
}
