//! A store whose server has an outbox.

use std::time::Duration;

use serde_json::Value;

use crate::support::{Running, Store, code, json_lines, run, stderr};

/// The kind of the orders pushed here: it is not idempotent.
const KIND: &str = "0x8001";

/// A store with devices at addresses, and no discovery.
pub(crate) struct Shop {
    pub(crate) store: Store,
    addresses: Vec<String>,
}

/// A server, and what it said at its start.
pub(crate) struct Served {
    pub(crate) running: Running,
    pub(crate) outbox: Value,
}

/// The id of the device at this host.
pub(crate) fn id(host: u8) -> String {
    format!("{host:x}").repeat(32)
}

impl Shop {
    /// With devices at these hosts.
    pub(crate) fn new(name: &str, net: u8, hosts: &[u8]) -> Self {
        let store = Store::new(name, net);
        let addresses = hosts.iter().map(|&host| format!("{}:8081", store.host(host))).collect();
        Self { store, addresses }
    }

    /// The words that start its server.
    pub(crate) fn words(&self, more: &[&str]) -> Vec<String> {
        let (control, bind) = (self.store.path("control.sock"), self.store.host(1));
        let mut words = vec!["serve", "--store", "TEST", "--staging", "--open-network", "--no-discovery"];
        words.extend(["--bind", &bind]);
        if !more.contains(&"--control") {
            words.extend(["--control", &control]);
        }
        if !more.iter().any(|word| ["--state", "--outbox", "--volatile"].contains(word)) {
            words.push("--outbox");
        }
        let outbox = self.outbox();
        if words.last() == Some(&"--outbox") {
            words.push(&outbox);
        }
        self.addresses.iter().for_each(|address| words.extend(["--device", address]));
        words.extend(more);
        words.into_iter().map(str::to_owned).collect()
    }

    /// The directory of its outbox.
    pub(crate) fn outbox(&self) -> String {
        self.store.path("outbox")
    }

    /// Starts its server.
    pub(crate) fn serve(&self, more: &[&str]) -> Served {
        let words = self.words(more);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let running = Running::start(&words);
        let serving = running.wait_for_event("serving");
        assert_eq!(serving["durable"], serving["outbox"].is_object(), "{serving}");
        Served { running, outbox: serving["outbox"].clone() }
    }

    /// Starts the device at this host.
    pub(crate) fn device(&self, host: u8, more: &[&str]) -> Running {
        let (id, bind) = (id(host), self.store.host(host));
        let ledger = self.store.path(&format!("{id}.jsonl"));
        let words = [
            &["device", "--store", "TEST", "--staging", "--open-network", "--no-discovery", "--id", &id][..],
            &["--bind", &bind, "--ledger", &ledger],
            more,
        ];
        let device = Running::start(&words.concat());
        device.wait_for_event("listening");
        device
    }

    /// Keys (as the devices see them) and outcomes in the ledger of this device, in their order.
    pub(crate) fn ledger(&self, host: u8) -> Vec<(u64, String)> {
        let text =
            std::fs::read_to_string(self.store.path(&format!("{}.jsonl", id(host)))).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        lines
            .map(|line| {
                let outcome = line["outcome"].as_str().expect("text").to_owned();
                (line["order"].as_u64().expect("a number"), outcome)
            })
            .collect()
    }

    /// Asks something through the control socket: exit code and lines.
    pub(crate) fn ask(&self, words: &[&str]) -> (i32, Vec<Value>) {
        let control = self.store.path("control.sock");
        let output = run(&[words, &["--control", &control, "--json"]].concat());
        let lines = json_lines(&output);
        assert!(!lines.is_empty(), "{words:?}: {}", stderr(&output));
        (code(&output), lines)
    }

    /// Pushes under a key to everybody and waits that long: exit code and lines.
    pub(crate) fn push(&self, key: &str, wait: &str, more: &[&str]) -> (i32, Vec<Value>) {
        let hex: String = key.bytes().map(|byte| format!("{byte:02x}")).collect();
        let words =
            ["push", "custom", KIND, "--hex", &hex, "--to", "all", "--key", key, "--wait", wait, "--each"];
        self.ask(&[&words, more].concat())
    }

    /// Has a durable order accepted, and waits for nothing: its number.
    pub(crate) fn accept(&self, key: &str, more: &[&str]) -> u64 {
        let (_, lines) = self.push(key, "0", more);
        let accepted = &lines[0];
        assert_eq!(
            (&accepted["event"], &accepted["durable"]),
            (&"accepted".into(), &true.into()),
            "{lines:?}"
        );
        accepted["order"].as_u64().expect("a number")
    }

    /// What became of the order under this key: number and outcomes, once all devices have theirs.
    pub(crate) fn report(&self, key: &str) -> (u64, Value) {
        let (_, lines) = self.push(key, "25", &[]);
        let summary = lines.last().expect("a summary");
        assert_eq!(summary["unsettled"], 0, "{summary}");
        (summary["order"].as_u64().expect("a number"), summary["outcomes"].clone())
    }

    /// What the server counts of its outbox.
    pub(crate) fn status(&self) -> Value {
        self.ask(&["status"]).1[0]["outbox"].clone()
    }

    /// Waits until the outbox has written more records than these.
    pub(crate) fn written_beyond(&self, appends: &Value) {
        until(|| self.status()["appends"].as_u64() > appends.as_u64());
    }
}

/// The session of the device at this host opens.
pub(crate) fn connected(server: &Running, host: u8) {
    let id = id(host);
    server.wait_for(|line| line["event"] == "connected" && line["device"]["id"] == *id);
}

/// Lets time go by.
#[expect(clippy::disallowed_methods, reason = "a test that waits serves no sockets")]
pub(crate) fn pass(time: Duration) {
    std::thread::sleep(time);
}

/// Waits for something that comes without a line.
pub(crate) fn until(wanted: impl Fn() -> bool) {
    let deadline = crate::support::now() + crate::support::PATIENCE;
    while !wanted() {
        assert!(crate::support::now() < deadline, "waited in vain");
        pass(Duration::from_millis(20));
    }
}
