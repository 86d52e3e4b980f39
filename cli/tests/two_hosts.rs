//! A server and a device on two hosts of one LAN, with no option about the network at all. Each host is a network
//! namespace; Linux, root and `ip` are needed, and elsewhere the test says so and passes.
#![cfg(target_os = "linux")]

mod support;

use std::time::Duration;

use support::{Running, Scratch, code, json_lines, run, scratch};
use testkit::netns::Lan;

const DEVICE: &str = "11111111111111111111111111111111";

/// The two hosts, with a server and a device that have found each other.
struct Shop {
    server: Running,
    device: Running,
    control: String,
    _dir: Scratch,
    lan: Lan,
}

const DEVICE_WORDS: [&str; 6] = ["device", "--store", "TEST", "--open-network", "--id", DEVICE];

impl Shop {
    fn open(name: &str) -> Option<Self> {
        let lan = Lan::new(
            "server  eth0  shop  10.78.0.1/24
             device  eth0  shop  10.78.0.2/24",
        )?;
        let dir = scratch(name);
        // The control socket is a file, and files are seen from every host.
        let control = dir.path("control.sock");
        let words = ["serve", "--store", "TEST", "--open-network", "--control", &control];
        let server = Running::start_in(&lan.space("server"), &words);
        server.wait_for_event("serving");
        let device = Running::start_in(&lan.space("device"), &DEVICE_WORDS);
        server.wait_for_event("connected");
        Some(Self { server, device, control, _dir: dir, lan })
    }

    /// Pushes an order to every device; it has to be applied by this one.
    fn push(&self, text: &str) {
        let pushed = run(&["push", "message", text, "--to", "all", "--control", &self.control, "--json"]);
        assert_eq!(code(&pushed), 0);
        let summary = json_lines(&pushed).pop().expect("a summary");
        assert_eq!((&summary["ok"], &summary["outcomes"]["applied"]), (&true.into(), &1.into()), "{summary}");
    }
}

#[test]
fn a_server_and_a_device_on_two_hosts_need_no_options() {
    let Some(mut shop) = Shop::open("two-hosts") else { return };
    shop.push("hello");
    // Killed and started again, it is found and gets its next order.
    shop.device.signal("KILL");
    shop.device = Running::start_in(&shop.lan.space("device"), &DEVICE_WORDS);
    shop.server.wait_for_event("connected");
    shop.push("again");
    assert_eq!((shop.device.end(), shop.server.end()), (0, 0));
}

/// Longer than a session lives without an answer.
const ASLEEP: Duration = Duration::from_secs(10);

#[test]
fn processes_that_were_stopped_for_a_while_find_each_other_again() {
    let Some(shop) = Shop::open("stopped") else { return };
    let nobody_is_lost = |line: &serde_json::Value| {
        assert!(!["lost", "left", "joined"].contains(&line["event"].as_str().expect("a name")), "{line}");
        line["event"] == "connected"
    };
    shop.server.signal("STOP");
    sleep(ASLEEP);
    shop.server.signal("CONT");
    shop.push("to whoever waited");
    shop.device.signal("STOP");
    // It is known dead in six seconds, and the next dials find nobody who answers.
    shop.server.wait_for_event("disconnected");
    sleep(ASLEEP);
    shop.device.signal("CONT");
    shop.server.wait_for(nobody_is_lost);
    shop.push("to whoever slept");
    assert_eq!((shop.device.end(), shop.server.end()), (0, 0));
}

#[expect(clippy::disallowed_methods, reason = "the processes of the test sleep in real time")]
fn sleep(span: Duration) {
    std::thread::sleep(span);
}
