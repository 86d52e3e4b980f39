//! A server and a device on two hosts of one LAN, with no option about the network at all. Each host is a network
//! namespace; Linux, root and `ip` are needed, and elsewhere the test says so and passes.
#![cfg(target_os = "linux")]

mod support;

use std::process::Command;

use support::{Running, code, json_lines, run, scratch};

const DEVICE: &str = "11111111111111111111111111111111";

/// Two hosts on one switch; gone when dropped.
struct Lan {
    prefix: String,
}

impl Lan {
    /// `None`, and a line that says why, where namespaces cannot be made.
    fn new() -> Option<Self> {
        let lan = Self { prefix: format!("twcli{}", std::process::id()) };
        if let Err(why) = lan.make() {
            println!("skipped: {why}");
            return None;
        }
        Some(lan)
    }

    fn host(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    fn make(&self) -> Result<(), String> {
        for host in ["switch", "server", "device"] {
            ip(&format!("netns add {}", self.host(host)))?;
        }
        let switch = self.host("switch");
        ip(&format!("-n {switch} link add br0 type bridge forward_delay 0 stp_state 0"))?;
        ip(&format!("-n {switch} link set br0 up"))?;
        for (host, number) in [("server", 1), ("device", 2)] {
            let host = self.host(host);
            ip(&format!("link add name eth0 netns {host} type veth peer name port{number} netns {switch}"))?;
            ip(&format!("-n {switch} link set port{number} master br0 up"))?;
            ip(&format!("-n {host} address add 10.78.0.{number}/24 brd + dev eth0"))?;
            ip(&format!("-n {host} link set lo up"))?;
            ip(&format!("-n {host} link set eth0 up"))?;
        }
        Ok(())
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for host in ["switch", "server", "device"] {
            let _ = ip(&format!("netns del {}", self.host(host)));
        }
    }
}

fn ip(words: &str) -> Result<(), String> {
    let output =
        Command::new("ip").args(words.split(' ')).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {words}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

#[test]
fn a_server_and_a_device_on_two_hosts_need_no_options() {
    let Some(lan) = Lan::new() else { return };
    let dir = scratch("two-hosts");
    let control = dir.path("control.sock");
    let words = ["serve", "--store", "TEST", "--open-network", "--control", &control];
    let server = Running::start_in(&lan.host("server"), &words);
    server.wait_for_event("serving");
    let words = ["device", "--store", "TEST", "--open-network", "--id", DEVICE];
    let device = Running::start_in(&lan.host("device"), &words);
    server.wait_for_event("connected");
    // The control socket is a file, and files are seen from every host.
    let pushed = run(&["push", "message", "hello", "--to", "all", "--control", &control, "--json"]);
    assert_eq!(code(&pushed), 0);
    let summary = json_lines(&pushed).pop().expect("a summary");
    assert_eq!((&summary["ok"], &summary["outcomes"]["applied"]), (&true.into(), &1.into()), "{summary}");
    // Killed and started again, it is found and gets its next order.
    device.kill();
    let device = Running::start_in(&lan.host("device"), &words);
    server.wait_for_event("connected");
    let pushed = run(&["push", "message", "again", "--to", "all", "--control", &control, "--json"]);
    assert_eq!(code(&pushed), 0);
    assert_eq!((device.end(), server.end()), (0, 0));
}
