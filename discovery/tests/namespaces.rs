//! Both drivers in network namespaces of their own: several hosts on one machine, wired by `veth` and bridges, with plain
//! addresses, no default route and no options. Linux, root and `ip` are needed; elsewhere each test says so and passes.
//!
//! A node runs inside a namespace as this very program, started again through `ip netns exec` with [`ROLE`] set.
#![cfg(target_os = "linux")]

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use discovery::driver::{Net, device, server};
use discovery::{DeviceConfig, SeekerEvent, ServerConfig};
use wire_format::ids::{NodeId, Store};

/// What the child process is: `server`, `device` or `listen`, and after a space what it is told: `directed`, or an
/// address to bind to. Its name is [`NAME`].
const ROLE: &str = "TILLWIRE_TEST_ROLE";
/// The number of the node, 1 to 255.
const NAME: &str = "TILLWIRE_TEST_NODE";
/// What the lines meant for the parent begin with: the test harness prints its own between them.
const MARK: &str = "node:";

/// What the driver promises after a change of the network.
const RECOVERY: Duration = Duration::from_secs(6);
/// A healthy network: the first SEEK within a second, and then at once.
const FIRST: Duration = Duration::from_secs(4);
/// For a busy machine, on top of every promise.
const SLACK: Duration = Duration::from_secs(1);

// --- The child -------------------------------------------------------------------------------------------------------

/// Not a test by itself: the body of the nodes the tests below start.
#[test]
fn node() {
    let (Ok(role), Ok(number)) = (std::env::var(ROLE), std::env::var(NAME)) else { return };
    let number: u8 = number.parse().expect("a number");
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // The parent's end of the pipe closes with the parent, however it ends.
        let _closed = std::io::stdin().read_to_end(&mut Vec::new());
        let _gone = ended.send(());
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (role, told) = role.split_once(' ').unwrap_or((&role, ""));
    let net = Net { directed: told == "directed", bind: told.parse().ok(), ..Net::default() };
    runtime.block_on(async {
        match role {
            "server" => serve(number, net, end).await,
            "device" => seek(number, net, end).await,
            _ => listen(end).await,
        }
    });
}

fn id(number: u8) -> NodeId {
    NodeId([number; 16])
}

fn store() -> Store {
    Store::new(7, "LYON-01").expect("a store")
}

async fn serve(number: u8, net: Net, mut end: tokio::sync::oneshot::Receiver<()>) {
    let seed = u64::from(number);
    let mut driver = server::spawn(net, ServerConfig::new(id(number), store()), 100, seed).expect("opens");
    println!("{MARK} up");
    loop {
        tokio::select! {
            told = driver.next_event() => {
                let event = told.expect("runs").event;
                println!("{MARK} {} {} {:?}", event.id.0[0], event.address, event.what);
            }
            _ = &mut end => break,
        }
    }
    driver.shutdown().await;
}

async fn seek(number: u8, net: Net, mut end: tokio::sync::oneshot::Receiver<()>) {
    let config = DeviceConfig::new(id(number), store());
    let mut driver = device::spawn(net, config, u64::from(number)).expect("opens");
    println!("{MARK} up");
    loop {
        tokio::select! {
            told = driver.next_event() => {
                if let SeekerEvent::Registered { id, address } = told.expect("runs").event {
                    println!("{MARK} registered {} {}", id.0[0], address.ip());
                }
            }
            _ = &mut end => break,
        }
    }
    driver.shutdown().await;
}

/// Reports every datagram that reaches the port, whatever its destination.
async fn listen(mut end: tokio::sync::oneshot::Receiver<()>) {
    let socket = tokio::net::UdpSocket::bind("0.0.0.0:57854").await.expect("opens");
    println!("{MARK} up");
    let mut buffer = [0; 2_048];
    loop {
        tokio::select! {
            got = socket.recv_from(&mut buffer) => {
                let (len, source) = got.expect("receives");
                println!("{MARK} {len} bytes from {source}");
            }
            _ = &mut end => return,
        }
    }
}

// --- The parent ------------------------------------------------------------------------------------------------------

/// A command that must succeed.
fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("ip runs");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Some hosts, and one switch per wire. Gone, with everything in it, when dropped.
struct Lan {
    name: String,
    namespaces: Vec<String>,
    wires: u32,
}

impl Lan {
    /// An empty one, or `None` where namespaces cannot be had, and then it is said.
    fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tw{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut lan = Self { name, namespaces: Vec::new(), wires: 0 };
        let probe = format!("{}-sw", lan.name);
        match Command::new("ip").args(["netns", "add", &probe]).output() {
            Ok(output) if output.status.success() => {
                lan.namespaces.push(probe);
                Some(lan)
            }
            Ok(output) => {
                println!(
                    "skipped: no network namespaces: {}",
                    String::from_utf8_lossy(&output.stderr).trim()
                );
                None
            }
            Err(error) => {
                println!("skipped: no `ip` program: {error}");
                None
            }
        }
    }

    fn space(&self, host: &str) -> String {
        format!("{}-{host}", self.name)
    }

    /// A switch.
    fn switch(&self, name: &str) {
        let sw = self.space("sw");
        ip(&format!("-n {sw} link add {name} type bridge forward_delay 0 stp_state 0"));
        ip(&format!("-n {sw} link set {name} up"));
    }

    /// A host without a network.
    fn host(&mut self, host: &str) {
        let space = self.space(host);
        ip(&format!("netns add {space}"));
        ip(&format!("-n {space} link set lo up"));
        self.namespaces.push(space);
    }

    /// A cable from a host's interface, which is down yet, to a switch.
    fn plug(&mut self, host: &str, interface: &str, switch: &str) {
        let (space, sw) = (self.space(host), self.space("sw"));
        self.wires += 1;
        let port = format!("p{}", self.wires);
        ip(&format!("link add name {interface} netns {space} type veth peer name {port} netns {sw}"));
        ip(&format!("-n {sw} link set {port} master {switch}"));
        ip(&format!("-n {sw} link set {port} up"));
    }

    /// `ip` inside a host.
    fn on(&self, host: &str, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.space(host)));
    }

    /// Plugs a host in, with an address, and up.
    fn join(&mut self, host: &str, interface: &str, switch: &str, address: &str) {
        self.plug(host, interface, switch);
        self.on(host, &format!("addr add {address} dev {interface}"));
        self.on(host, &format!("link set {interface} up"));
    }

    /// Starts a node on a host, and waits until it runs.
    fn start(&self, host: &str, role: &str, number: u8) -> Node {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.space(host)])
            .arg(std::env::current_exe().expect("a path"))
            .args(["--exact", "node", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(NAME, number.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // The harness prints "test node ... " without a line's end before the first.
                if let Some((_, said)) = line.split_once(MARK)
                    && send.send(said.trim().to_owned()).is_err()
                {
                    return;
                }
            }
        });
        let mut node = Node { child, lines, heard: Vec::new() };
        node.says("up", Duration::from_secs(10));
        node
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for space in &self.namespaces {
            let _removed = Command::new("ip").args(["netns", "del", space]).status();
        }
    }
}

/// A running child. Ended, politely, when dropped.
struct Node {
    child: Child,
    lines: Receiver<String>,
    heard: Vec<String>,
}

impl Node {
    /// Waits for a line that begins with `start`, and gives how long it took.
    fn says(&mut self, start: &str, within: Duration) -> Duration {
        let asked = now();
        loop {
            let left = within.saturating_sub(asked.elapsed());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    let found = line.starts_with(start);
                    self.heard.push(line);
                    if found {
                        return asked.elapsed();
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    panic!("not {start:?} within {within:?}, but {:?}", self.heard)
                }
                Err(RecvTimeoutError::Disconnected) => panic!("the node ended: {:?}", self.heard),
            }
        }
    }

    /// What it says within `span`.
    fn within(&self, span: Duration) -> Vec<String> {
        sleep(span);
        self.unexpected()
    }

    /// What it said and nobody waited for.
    fn unexpected(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ended = self.child.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "the tests of a driver measure real time")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the network of the test needs real time to change")]
fn sleep(span: Duration) {
    std::thread::sleep(span);
}

#[test]
fn two_hosts_with_plain_addresses_and_no_default_route() {
    let Some(mut lan) = Lan::new() else { return };
    lan.switch("br0");
    for (host, address) in [("s", "10.57.1.1/24"), ("d", "10.57.1.2/24")] {
        lan.host(host);
        lan.join(host, "eth0", "br0", address);
    }
    let mut server = lan.start("s", "server", 200);
    let mut device = lan.start("d", "device", 1);
    device.says("registered 200 10.57.1.1", FIRST + SLACK);
    server.says("1 10.57.1.2:8081 Joined", SLACK);
    drop(device);
    server.says("1 10.57.1.2:8081 Left", FIRST + SLACK);
}

#[test]
fn a_server_with_two_networks_finds_the_devices_of_both_and_leaves_docker_alone() {
    let Some(mut lan) = Lan::new() else { return };
    for switch in ["br0", "br1", "br2"] {
        lan.switch(switch);
    }
    for host in ["s", "a", "b", "box"] {
        lan.host(host);
    }
    lan.join("s", "eth0", "br0", "10.57.1.1/24");
    lan.join("s", "eth1", "br1", "10.57.2.1/24");
    lan.join("s", "docker0", "br2", "172.17.0.1/16");
    lan.join("a", "eth0", "br0", "10.57.1.2/24");
    lan.join("b", "eth0", "br1", "10.57.2.2/24");
    lan.join("box", "eth0", "br2", "172.17.0.2/16");
    let container = lan.start("box", "listen", 9);
    let mut server = lan.start("s", "server", 200);
    let (mut a, mut b) = (lan.start("a", "device", 1), lan.start("b", "device", 2));
    a.says("registered 200 10.57.1.1", FIRST + SLACK);
    b.says("registered 200 10.57.2.1", FIRST + SLACK);
    server.says("", FIRST);
    server.says("", FIRST);
    server.heard.sort();
    assert_eq!(server.heard, ["1 10.57.1.2:8081 Joined", "2 10.57.2.2:8081 Joined", "up"]);
    // The server's beacons of the start are all out by now.
    sleep(Duration::from_secs(3));
    drop(server);
    assert_eq!(container.unexpected(), [""; 0]);
}

#[test]
fn a_device_recovers_when_its_network_comes_late_and_when_its_address_changes() {
    let Some(mut lan) = Lan::new() else { return };
    lan.switch("br0");
    lan.host("s");
    lan.join("s", "eth0", "br0", "10.57.1.1/24");
    lan.host("d");
    lan.plug("d", "eth0", "br0");
    let mut server = lan.start("s", "server", 200);
    let mut device = lan.start("d", "device", 1);
    sleep(Duration::from_millis(500));
    lan.on("d", "link set eth0 up");
    lan.on("d", "addr add 10.57.1.2/24 dev eth0");
    device.says("registered 200 10.57.1.1", RECOVERY + SLACK);
    server.says("1 10.57.1.2:8081 Joined", SLACK);
    lan.on("d", "addr del 10.57.1.2/24 dev eth0");
    lan.on("d", "addr add 10.57.1.3/24 dev eth0");
    server.says("1 10.57.1.3:8081 Moved", RECOVERY + SLACK);
}

#[test]
fn a_server_recovers_when_its_network_was_down_and_leaks_nothing_meanwhile() {
    let Some(mut lan) = Lan::new() else { return };
    lan.switch("br0");
    lan.switch("br1");
    for (host, switch, address) in
        [("s", "br0", "10.57.1.1/24"), ("d", "br0", "10.57.1.2/24"), ("g", "br1", "10.57.9.254/24")]
    {
        lan.host(host);
        lan.join(host, "eth0", switch, address);
    }
    lan.join("s", "eth1", "br1", "10.57.9.1/24");
    lan.on("s", "route add default via 10.57.9.254");
    let gateway = lan.start("g", "listen", 9);
    let mut server = lan.start("s", "server", 200);
    lan.on("s", "link set eth0 down");
    let mut device = lan.start("d", "device", 1);
    // Long enough for the server to see it, and for the device to ask less and less often.
    sleep(Duration::from_secs(5));
    let leaked = gateway.unexpected();
    assert!(
        !leaked.is_empty() && leaked.iter().all(|line| line.ends_with("from 10.57.9.1:57854")),
        "{leaked:?}"
    );
    lan.on("s", "link set eth0 up");
    device.says("registered 200 10.57.1.1", RECOVERY + SLACK);
    server.says("1 10.57.1.2:8081 Joined", SLACK);
}

#[test]
fn several_bound_devices_of_one_host_hear_a_server_that_is_not_bound() {
    let Some(mut lan) = Lan::new() else { return };
    lan.switch("br0");
    lan.host("s");
    lan.join("s", "eth0", "br0", "10.57.1.1/24");
    lan.host("d");
    lan.join("d", "eth0", "br0", "10.57.1.2/24");
    lan.on("d", "addr add 10.57.1.3/24 dev eth0");
    let mut devices = [lan.start("d", "device 10.57.1.2", 2), lan.start("d", "device 10.57.1.3", 3)];
    let mut server = lan.start("s", "server", 200);
    for device in &mut devices {
        device.says("registered 200 10.57.1.1", FIRST + SLACK);
    }
    server.says("", SLACK);
    server.says("", SLACK);
    server.heard.sort();
    assert_eq!(server.heard, ["2 10.57.1.2:8081 Joined", "3 10.57.1.3:8081 Joined", "up"]);
}

#[test]
fn a_directed_broadcast_goes_out_besides_the_limited_one() {
    let Some(mut lan) = Lan::new() else { return };
    lan.switch("br0");
    for (host, address) in [("s", "10.57.1.1/24"), ("l", "10.57.1.2/24")] {
        lan.host(host);
        lan.join(host, "eth0", "br0", address);
    }
    // The second beacon comes a second after the first.
    let first = Duration::from_millis(500);
    for (role, copies) in [("server", 1), ("server directed", 2)] {
        let listener = lan.start("l", "listen", 9);
        let server = lan.start("s", role, 200);
        assert_eq!(listener.within(first).len(), copies, "{role}");
        drop(server);
    }
}
