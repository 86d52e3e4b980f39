//! Processes that are stopped for a while, as a laptop that was closed or a host that swaps: no burst afterwards, and
//! nobody is taken for lost by whoever was asleep.
//!
//! The nodes are processes here: this program, started again on a host with [`ROLE`] set.

use core::time::Duration;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use discovery::driver::{Net, device, server};
use discovery::{ServerConfig, What};
use testkit::netns::{Lan, Packet, Tap};
use wire_format::datagram::header::Kind;

use crate::node::{SOON, device_config, kind, now, runtime, seek, serve_with, server_config, sleep, until};

const ROLE: &str = "TILLWIRE_TEST_ROLE";
/// What a line meant for the parent begins with: the test harness prints its own between them.
const MARK: &str = "node:";
/// Longer than a lease and than three refreshes.
const ASLEEP: Duration = Duration::from_secs(11);
/// A woken node asks within 0.6 s, and again not before 1.1 s; what it caught up with would leave at once.
const AWAKE: Duration = Duration::from_millis(900);

fn config() -> ServerConfig {
    ServerConfig { lease_s: 10, beacon_interval_s: 2, ..server_config() }
}

/// Not a test by itself: the body of the processes the tests below start.
#[test]
fn node() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (ended, mut end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // The parent's end of the pipe closes with the parent, however it ends.
        let _closed = std::io::stdin().read_to_end(&mut Vec::new());
        let _gone = ended.send(());
    });
    runtime().block_on(async {
        if role == "server" {
            let mut driver = server::spawn(Net::default(), config(), 100, 200).expect("opens");
            println!("{MARK} up");
            while let Some(told) = tokio::select! { told = driver.next_event() => told, _ = &mut end => None }
            {
                let name = match told.event.what {
                    What::Joined => "Joined",
                    What::Lost => "Lost",
                    _ => "other",
                };
                println!("{MARK} {name}");
            }
        } else {
            let _driver = device::spawn(Net::default(), device_config(1), 1).expect("opens");
            println!("{MARK} up");
            let _gone = end.await;
        }
    });
}

/// A node that is a process, and can be stopped. Killed when dropped.
struct Process {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
}

impl Process {
    fn start(lan: &Lan, host: &str, role: &str) -> Self {
        let mut child = lan
            .command(host, std::env::current_exe().expect("a path"))
            .args(["--exact", "sleep::node", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let (send, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // The harness prints "test sleep::node ... " without a line's end before the first.
                if let Some((_, said)) = line.split_once(MARK)
                    && send.send(said.trim().to_owned()).is_err()
                {
                    return;
                }
            }
        });
        let process = Self { child, lines };
        assert_eq!(process.lines.recv_timeout(SOON).as_deref(), Ok("up"));
        process
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// How often it has said this since the last look.
    fn said(&self, line: &str) -> usize {
        self.lines.try_iter().filter(|said| said == line).count()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A stopped one would not see its stdin close.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Stops a node for a while. In the first moments afterwards it sends one datagram of this kind and no second one.
fn nap(process: &Process, tap: &Tap, of: Kind) {
    process.signal("STOP");
    sleep(ASLEEP);
    let _before = tap.packets();
    process.signal("CONT");
    let woken = now();
    let mut packets: Vec<Packet> = Vec::new();
    while woken.elapsed() < AWAKE {
        sleep(Duration::from_millis(20));
        packets.extend(tap.packets().into_iter().filter(|packet| kind(packet) == Some(of)));
    }
    assert!(packets.len() <= 1, "{packets:?}");
    if packets.is_empty() {
        tap.wait("what it sends when it wakes", |packet| kind(packet) == Some(of));
    }
}

pub(crate) fn a_device_that_slept_through_three_refreshes_sends_one() {
    let Some(lan) = Lan::new(
        "s  eth0  shop  10.57.1.1/24
         d  eth0  shop  10.57.1.2/24",
    ) else {
        return;
    };
    let tap = lan.tap("d");
    let mut server = serve_with(&lan, "s", Net::default(), config());
    let device = Process::start(&lan, "d", "device");
    server.says("1 10.57.1.2:8081 Joined", SOON);
    nap(&device, &tap, Kind::Announce);
    // It was lost to the server, which could not know better, and is back.
    server.says("1 10.57.1.2:8081 Back", SOON);
}

pub(crate) fn a_device_that_slept_while_it_sought_asks_once() {
    let Some(lan) = Lan::new("d eth0 shop 10.57.1.2/24") else { return };
    let tap = lan.tap("d");
    let device = Process::start(&lan, "d", "device");
    tap.wait("a SEEK", |packet| kind(packet) == Some(Kind::Seek));
    nap(&device, &tap, Kind::Seek);
}

pub(crate) fn a_server_that_slept_longer_than_a_lease_loses_nobody_and_beacons_once() {
    let Some(lan) = Lan::new(
        "s  eth0  shop  10.57.1.1/24
         a  eth0  shop  10.57.1.2/24
         b  eth0  shop  10.57.1.3/24
         c  eth0  shop  10.57.1.4/24",
    ) else {
        return;
    };
    let tap = lan.tap("a");
    let server = Process::start(&lan, "s", "server");
    let mut devices = [seek(&lan, "a", 1), seek(&lan, "b", 2), seek(&lan, "c", 3)];
    for device in &mut devices {
        device.says("registered", SOON);
    }
    let mut joined = 0;
    until("all joined", || {
        joined += server.said("Joined");
        joined == 3
    });
    nap(&server, &tap, Kind::Beacon);
    // Until well after the leases it slept through: each device is asked, or refreshes, and is there.
    sleep(Duration::from_secs(4));
    assert_eq!(server.said("Lost"), 0);
    for device in &mut devices {
        assert_eq!(device.said().len(), 2, "its server was never lost: {:?}", device.said());
    }
}
