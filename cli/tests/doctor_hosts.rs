//! `tillwire doctor` on hosts of its own: network namespaces with packet filters, several interfaces, and devices that
//! answer, refuse, or stay silent. Linux, root, `ip` and (for the rules) `nft` or `iptables` are needed; elsewhere a test says so and
//! passes (or fails: `TILLWIRE_SKIP=never`).
#![cfg(target_os = "linux")]

mod support;

use std::process::Stdio;

use serde_json::Value;
use support::{Running, Scratch, code, json_lines, scratch, stderr};
use testkit::netns::{Lan, skip};

const DEVICE: &str = "11111111111111111111111111111111";
const PAIR: &str = "server  eth0  shop  10.79.1.1/24
                    till    eth0  shop  10.79.1.2/24";

/// For what is there: longer than anything takes on a loaded machine.
const PATIENT: &str = "15000";
/// For what has to be waited for in vain.
const SHORT: &str = "2000";

/// Runs it on a host of the LAN; its findings and its exit code.
fn doctor(lan: &Lan, host: &str, dir: &Scratch, timeout: &str, words: &[&str]) -> (i32, Vec<Value>) {
    let mut command = lan.command(host, env!("CARGO_BIN_EXE_tillwire"));
    // The default control socket is a file, and files are seen from every host.
    command.env("XDG_RUNTIME_DIR", dir.path("none")).stdin(Stdio::null());
    for name in ["HTTPS_PROXY", "https_proxy"] {
        command.env_remove(name);
    }
    let output =
        command.args(["doctor", "--json", "--timeout", timeout]).args(words).output().expect("it starts");
    let mut lines = json_lines(&output);
    assert_eq!(
        lines.pop().map(|summary| summary["event"].clone()),
        Some("summary".into()),
        "{}",
        stderr(&output)
    );
    (code(&output), lines)
}

/// The finding of a check about something, which must be so and say so.
fn finds(lines: &[Value], check: &str, subject: &str, result: &str, says: &str) {
    let found = lines.iter().find(|line| line["check"] == check && line["subject"] == subject);
    let found = found.unwrap_or_else(|| panic!("no {check} about {subject}: {lines:#?}"));
    let detail = found["detail"].as_str().unwrap_or_default();
    assert!(found["result"] == result && detail.contains(says), "not {result} {says:?}: {found:#}");
    assert_eq!(found["remedy"] == "", result == "pass", "{found:#}");
}

#[test]
fn a_healthy_host_hears_itself_on_each_wire_and_names_what_it_leaves_out() {
    let Some(lan) = Lan::new(PAIR) else { return };
    lan.add(
        "server  eth1     back  192.168.7.1/24
             server  docker0  none  172.17.0.1/16
             server  eth2     gone  10.79.3.1/24",
    );
    lan.cable("server", "eth2", "down");
    let dir = scratch("doctor-healthy");
    let (code, lines) =
        doctor(&lan, "server", &dir, PATIENT, &["--only", "port,broadcast", "--not-interface", "eth1"]);
    assert_eq!(code, 0, "{lines:#?}");
    // No default route, and nobody said which address: as in a shop that is cut off.
    finds(&lines, "port", "57854/udp", "pass", "free");
    finds(&lines, "broadcast", "eth0", "pass", "a broadcast from 10.79.1.1 is heard here");
    finds(&lines, "broadcast", "eth1", "pass", "left out: it was said so");
    finds(&lines, "broadcast", "docker0", "pass", "left out: its name is one of docker*");
    finds(&lines, "broadcast", "eth2", "pass", "no carrier");
    let (_, lines) =
        doctor(&lan, "server", &dir, PATIENT, &["--only", "broadcast", "--interface", "docker0"]);
    finds(&lines, "broadcast", "eth1", "pass", "192.168.7.1 is heard");
    finds(&lines, "broadcast", "docker0", "pass", "172.17.0.1 is heard");
}

#[test]
fn a_host_without_a_usable_interface_is_told_so() {
    let Some(lan) = Lan::new("server  docker0  none  172.17.0.1/16") else { return };
    let dir = scratch("doctor-none");
    let (code, lines) = doctor(&lan, "server", &dir, PATIENT, &["--only", "broadcast"]);
    assert_eq!(code, 1);
    finds(&lines, "broadcast", "", "fail", "no interface of this host is usable");
}

#[test]
fn rules_that_drop_discovery_are_felt_and_found() {
    let dir = scratch("doctor-rules");
    for (rules, felt, found) in [
        (
            "hook input priority 0; udp dport 57854 drop;",
            "none was heard here",
            ("in udp 57854", "udp dport 57854 drop"),
        ),
        (
            "hook input priority 0; policy drop; iif lo accept; ct state established,related accept;",
            "none was heard here",
            ("in udp 57854", "policy of inet wall rules is drop"),
        ),
        (
            "hook output priority 0; udp dport { 53, 57000-58000 } drop;",
            "is refused",
            ("out udp 57854", "drop"),
        ),
        (
            "hook prerouting priority -300; meta l4proto udp iifname \"eth*\" drop;",
            "none was heard here",
            ("in udp 57854", "iifname eth*"),
        ),
    ] {
        let Some(lan) = Lan::new(PAIR) else { return };
        if !lan.firewall("server", &format!("table inet wall {{ chain rules {{ type filter {rules} }}; }}")) {
            return;
        }
        let (code, lines) = doctor(&lan, "server", &dir, SHORT, &["--only", "broadcast,firewall"]);
        assert_eq!(code, 1, "{rules}");
        finds(&lines, "broadcast", "eth0", "fail", felt);
        finds(&lines, "firewall", found.0, "fail", found.1);
        follow(&lan, "server", &lines, found.0);
        let (code, lines) = doctor(&lan, "server", &dir, PATIENT, &["--only", "broadcast"]);
        assert_eq!(code, 0, "{rules}: what the doctor said to do did not help: {lines:#?}");
        let (_, lines) = doctor(&lan, "server", &dir, PATIENT, &["--only", "firewall"]);
        assert!(lines.iter().all(|line| line["subject"] != found.0), "{lines:#?}");
    }
}

/// Does what the first line of a remedy says.
fn follow(lan: &Lan, host: &str, lines: &[Value], subject: &str) {
    let line = lines.iter().find(|line| line["subject"] == subject).expect("a line");
    let remedy = line["remedy"].as_str().and_then(|remedy| remedy.split(", and save").next()).expect("one");
    let mut words = remedy.split(' ');
    let output =
        lan.command(host, words.next().expect("a program")).args(words).output().expect("`ip` ran before");
    assert!(output.status.success(), "{remedy}: {}", stderr(&output));
}

#[test]
fn rules_that_let_discovery_in_are_no_matter() {
    let Some(lan) = Lan::new(PAIR) else { return };
    // What a careful administrator writes, with sets, maps, chains and rates.
    let rules = "table inet wall {
        set services { type inet_service; flags interval; elements = { 80, 8000-8005 } }
        chain tills { udp dport 57854 accept; tcp dport @services accept; }
        chain arriving { type filter hook input priority 0; policy drop;
            ct state vmap { established : accept, related : accept, invalid : drop };
            iifname vmap { \"lo\" : accept, \"eth0\" : jump tills };
            icmp type echo-request limit rate 5/second accept; }
        chain leaving { type filter hook output priority 0; policy accept; ip daddr 192.0.2.0/24 drop; }
        }\n";
    if !lan.firewall("server", rules) {
        return;
    }
    let dir = scratch("doctor-open");
    let (code, lines) = doctor(&lan, "server", &dir, PATIENT, &["--only", "broadcast,firewall"]);
    assert_eq!((code, lines.iter().filter(|line| line["check"] == "firewall").count()), (0, 1), "{lines:#?}");
    finds(&lines, "firewall", "rules", "pass", "in udp 57854, out udp 57854, out tcp 8081, in tcp 80");
    finds(&lines, "broadcast", "eth0", "pass", "is heard here");
}

#[test]
fn rules_of_iptables_are_read_in_their_own_words() {
    let Some(lan) = Lan::new(PAIR) else { return };
    let iptables = |words: &str| {
        let output =
            lan.command("server", "iptables").args(words.split(' ')).output().expect("`ip` ran before");
        let said = stderr(&output);
        if !output.status.success() {
            skip(&format!("no usable iptables: {said}"));
        }
        output.status.success()
    };
    if !(iptables("-A OUTPUT -p tcp -m multiport --dports 8081,9100 -m comment --comment orders -j REJECT")
        && iptables("-A INPUT -m state --state ESTABLISHED -j ACCEPT")
        && iptables("-P INPUT DROP")
        && iptables("-A INPUT -p udp --dport 57854 -m limit --limit 100/sec -j ACCEPT"))
    {
        return;
    }
    let dir = scratch("doctor-iptables");
    let (code, lines) = doctor(&lan, "server", &dir, PATIENT, &["--only", "firewall"]);
    assert_eq!(code, 1);
    finds(
        &lines,
        "firewall",
        "out tcp 8081",
        "fail",
        "filter OUTPUT: -p tcp -m multiport --dports 8081,9100",
    );
    finds(&lines, "firewall", "in udp 57854", "warn", "-m limit");
    finds(&lines, "firewall", "in tcp 80", "fail", "policy of filter INPUT is drop");
    follow(&lan, "server", &lines, "in tcp 80");
    follow(&lan, "server", &lines, "out tcp 8081");
    let (_, lines) = doctor(&lan, "server", &dir, PATIENT, &["--only", "firewall"]);
    finds(&lines, "firewall", "rules", "pass", "out tcp 8081, in tcp 80");
}

/// A device that is there, one whose host refuses, one behind rules that swallow, and an address nobody has.
#[test]
fn paths_to_devices_that_answer_refuse_swallow_and_are_not_there() {
    let Some(lan) = Lan::new(PAIR) else { return };
    lan.add(
        "idle   eth0  shop  10.79.1.3/24
             mute   eth0  shop  10.79.1.4/24",
    );
    if !lan.firewall(
        "mute",
        "table inet wall { chain rules { type filter hook input priority 0; tcp dport 8081 drop; }; }",
    ) {
        return;
    }
    let words = ["device", "--store", "TEST", "--open-network", "--id", DEVICE];
    let till = Running::start_in(&lan.space("till"), &words);
    till.wait_for_event("listening");
    let dir = scratch("doctor-paths");
    let devices = ["10.79.1.2", "10.79.1.3", "10.79.1.4", "10.79.1.5", "10.99.0.1"];
    let words: Vec<&str> = devices.iter().flat_map(|device| ["--device", *device]).collect();
    let (code, lines) = doctor(&lan, "server", &dir, SHORT, &[&["--only", "devices"], &words[..]].concat());
    assert_eq!((code, lines.len()), (1, 5));
    finds(&lines, "devices", "10.79.1.2:8081", "pass", "takes a connection");
    finds(&lines, "devices", "10.79.1.3:8081", "fail", "refused");
    finds(&lines, "devices", "10.79.1.4:8081", "fail", "no answer in time");
    finds(&lines, "devices", "10.99.0.1:8081", "fail", "unreachable");
    // Nobody answers for it: told after three questions on the wire, or not within the time given.
    let nobody = lines.iter().find(|line| line["subject"] == "10.79.1.5:8081").expect("a line");
    assert_eq!(nobody["result"], "fail");
    // The way out is closed here as well: the connection hangs, and the rule is found.
    assert!(lan.firewall(
        "server",
        "table inet wall { chain rules { type filter hook output priority 0; tcp dport 8081 drop; }; }"
    ));
    let (_, lines) =
        doctor(&lan, "server", &dir, SHORT, &["--only", "devices,firewall", "--device", "10.79.1.2"]);
    finds(&lines, "devices", "10.79.1.2:8081", "fail", "no answer in time");
    finds(&lines, "firewall", "out tcp 8081", "fail", "tcp dport 8081 drop");
    // Neither of this disturbed the device.
    assert_eq!(till.end(), 0);
}

#[test]
fn a_device_and_the_server_it_is_for() {
    let Some(lan) = Lan::new(PAIR) else { return };
    let dir = scratch("doctor-device");
    let words = ["serve", "--store", "TEST", "--open-network", "--control", &dir.path("control.sock")];
    let server = Running::start_in(&lan.space("server"), &words);
    server.wait_for_event("serving");
    let profile = dir.path("profile.toml");
    let text = "name = \"test\"\n[[service]]\nports = [80]\nprotocol = \"http\"\n";
    std::fs::write(&profile, text).expect("a file");
    let words = ["--device", "--server", "10.79.1.1", "--profile", &profile, "--skip", "clock,firewall"];
    let (code, lines) = doctor(&lan, "till", &dir, PATIENT, &words);
    assert_eq!(code, 1);
    finds(&lines, "port", "57854/udp", "pass", "free");
    finds(&lines, "port", "8081/tcp", "pass", "free");
    finds(&lines, "broadcast", "eth0", "pass", "is heard here");
    finds(&lines, "services", "80/tcp", "fail", "10.79.1.1: refused");
    // Beside the server its port is taken, and the server says what it hears there.
    let control = dir.path("control.sock");
    let (code, lines) =
        doctor(&lan, "server", &dir, PATIENT, &["--only", "port,broadcast", "--control", &control]);
    assert_eq!(code, 0, "{lines:#?}");
    finds(&lines, "port", "57854/udp", "pass", "taken by the server that runs here");
    finds(&lines, "broadcast", "eth0", "pass", "heard by the server that runs here");
    if lan.firewall(
        "server",
        "table inet wall { chain rules { type filter hook input priority 0; udp dport 57854 drop; }; }",
    ) {
        let words = ["--only", "broadcast", "--control", &control];
        let (_, lines) = doctor(&lan, "server", &dir, SHORT, &words);
        finds(&lines, "broadcast", "eth0", "fail", "none was heard by the server");
    }
    assert_eq!(server.end(), 0);
}

#[test]
fn limits_that_cannot_be_seen_in_a_container_are_a_warning() {
    let Some(lan) = Lan::new(PAIR) else { return };
    let dir = scratch("doctor-container");
    let (code, lines) = doctor(&lan, "server", &dir, PATIENT, &["--only", "neighbours", "--expect", "10000"]);
    let limit = lines.iter().find(|line| line["subject"] == "limit").expect("a line");
    if limit["detail"].as_str().is_some_and(|detail| detail.contains("gc_thresh1")) {
        return skip("this kernel shows the limits in every namespace");
    }
    assert_eq!(code, 0);
    finds(&lines, "neighbours", "limit", "warn", "cannot be read here");
    assert!(limit["remedy"].as_str().is_some_and(|remedy| remedy.contains("gc_thresh3=32768")), "{limit}");
}
