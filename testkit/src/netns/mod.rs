//! Hosts, switches and routers on one machine: network namespaces, wired by `veth` and bridges.
//!
//! A network is described in a few lines, one per cable, and gone again with its [`Lan`]:
//!
//! ```no_run
//! # use testkit::netns::Lan;
//! // host, interface, switch, addresses; an interface without an address stays down.
//! let Some(lan) = Lan::new(
//!     "server  eth0  shop  10.57.1.1/24
//!      till    eth0  shop  10.57.1.2/24
//!      router  eth0  shop  10.57.1.254/24
//!      router  eth1  back  10.57.2.254/24",
//! ) else {
//!     return; // and it has said why
//! };
//! lan.forward("router");
//! let tap = lan.tap("till");
//! lan.enter("server", || std::net::UdpSocket::bind("0.0.0.0:57854"));
//! ```
//!
//! Linux, root and the program `ip` are needed. Where they are missing the test is skipped and says so on the real
//! stderr; with `TILLWIRE_SKIP=never` in the environment it fails instead. What a killed test left behind is removed by
//! the next one: names carry the process id.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread::{JoinHandle, scope, spawn};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

mod tap;

pub use tap::{Packet, Protocol, Tap};

/// Says what a skipped test is to do: `never` makes it fail.
pub const SKIP: &str = "TILLWIRE_SKIP";
/// The host that holds every switch.
const SWITCHES: &str = "sw";
/// How often an interface is looked at, 10 ms apart, until it is up.
const CARRIER_LOOKS: u32 = 2_000;
/// Where `ip` keeps the names of namespaces.
const NAMES: &str = "/run/netns";

/// Some hosts, and one switch per wire. Gone, with everything in it, when dropped.
#[derive(Debug)]
pub struct Lan {
    prefix: String,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    hosts: BTreeSet<String>,
    switches: BTreeSet<String>,
    /// (host, interface) and the switch's port at the other end.
    ports: BTreeMap<(String, String), String>,
    cables: u32,
}

/// One line of a plan.
struct Cable<'p> {
    host: &'p str,
    interface: &'p str,
    switch: &'p str,
    addresses: Vec<&'p str>,
}

fn cables(plan: &str) -> Vec<Cable<'_>> {
    let lines = plan.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let [host, interface, switch, addresses @ ..] = &words[..] else {
                panic!("host, interface, switch, addresses; not {line:?}")
            };
            Cable { host, interface, switch, addresses: addresses.to_vec() }
        })
        .collect()
}

/// Says on the real stderr, past the harness, that a test is skipped, and why; or fails, if [`SKIP`] says so.
pub fn skip(why: &str) {
    assert!(std::env::var_os(SKIP).is_none_or(|skip| skip != "never"), "skipped: {why}");
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // Nobody may be listening.
    let _ = writeln!(std::io::stderr(), "{test}: skipped: {why}");
}

impl Lan {
    /// The network of `plan`, or `None` where namespaces cannot be had, and then it is said.
    #[must_use]
    pub fn new(plan: &str) -> Option<Self> {
        static SWEEP: Once = Once::new();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        SWEEP.call_once(sweep);
        let prefix = format!("tw{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let lan = Self { prefix, inner: Mutex::default() };
        if let Err(why) = ip(&["netns", "add", &lan.space(SWITCHES)]) {
            skip(&format!("no network namespaces: {why}"));
            return None;
        }
        lan.inner().hosts.insert(SWITCHES.to_owned());
        lan.sysctl(SWITCHES, "net/ipv6/conf/default/disable_ipv6", "1");
        lan.add(plan);
        Some(lan)
    }

    /// More hosts and cables, as in the plan of [`Lan::new`]. Interfaces with an address are up when it returns.
    ///
    /// # Panics
    ///
    /// If the plan cannot be followed; so does everything below.
    pub fn add(&self, plan: &str) {
        for cable in cables(plan) {
            self.host(cable.host);
            self.switch(cable.switch);
            self.plug(&cable);
        }
        for cable in cables(plan).iter().filter(|cable| !cable.addresses.is_empty()) {
            self.await_carrier(cable);
        }
    }

    /// The kernel looks at carriers when it has time: an interface may be told to be up, and be up a second later.
    fn await_carrier(&self, cable: &Cable<'_>) {
        let space = self.space(cable.host);
        let words = ["-n", &space, "-o", "link", "show", "dev", cable.interface];
        for _ in 0..CARRIER_LOOKS {
            if ip(&words).is_ok_and(|line| line.contains("state UP")) {
                return;
            }
            pause();
        }
        panic!("{} of {} does not come up", cable.interface, cable.host);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Whatever panicked was a test; its network is still taken down.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of a host's namespace.
    #[must_use]
    pub fn space(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    fn host(&self, host: &str) {
        if self.inner().hosts.insert(host.to_owned()) {
            let space = self.space(host);
            must("ip", &["netns", "add", &space]);
            // Nothing here speaks IPv6, and its chatter would stand in every capture.
            self.sysctl(host, "net/ipv6/conf/default/disable_ipv6", "1");
            self.ip(host, "link set lo up");
        }
    }

    fn switch(&self, switch: &str) {
        if self.inner().switches.insert(switch.to_owned()) {
            // Without protocols of its own, so that nothing is heard that no host said.
            let silent = "type bridge forward_delay 0 stp_state 0 mcast_snooping 0";
            self.ip(SWITCHES, &format!("link add {switch} {silent}"));
            self.ip(SWITCHES, &format!("link set {switch} up"));
        }
    }

    fn plug(&self, cable: &Cable<'_>) {
        let Cable { host, interface, switch, addresses } = cable;
        let port = {
            let mut inner = self.inner();
            inner.cables += 1;
            let port = format!("p{}", inner.cables);
            inner.ports.insert(((*host).to_owned(), (*interface).to_owned()), port.clone());
            port
        };
        let (space, switches) = (self.space(host), self.space(SWITCHES));
        let link =
            format!("link add name {interface} netns {space} type veth peer name {port} netns {switches}");
        must("ip", &link.split(' ').collect::<Vec<_>>());
        self.ip(SWITCHES, &format!("link set {port} master {switch} up"));
        for address in addresses {
            self.ip(host, &format!("addr add {address} brd + dev {interface}"));
        }
        if !addresses.is_empty() {
            self.ip(host, &format!("link set {interface} up"));
        }
    }

    /// `ip` on a host.
    pub fn ip(&self, host: &str, words: &str) {
        let space = self.space(host);
        let mut all = vec!["-n", &space];
        all.extend(words.split_whitespace());
        must("ip", &all);
    }

    /// Runs `what` on a thread that sees the network of `host`, and waits for it. Sockets opened there stay there.
    pub fn enter<T: Send>(&self, host: &str, what: impl FnOnce() -> T + Send) -> T {
        let space = self.open(host);
        scope(|threads| {
            let done = threads.spawn(|| {
                move_into(&space);
                what()
            });
            done.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a thread that sees the network of `host`.
    pub fn spawn<T: Send + 'static>(
        &self,
        host: &str,
        what: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let space = self.open(host);
        spawn(move || {
            move_into(&space);
            what()
        })
    }

    fn open(&self, host: &str) -> File {
        File::open(Path::new(NAMES).join(self.space(host))).expect("a host of the plan")
    }

    /// A program on a host, to be started.
    #[must_use]
    pub fn command(&self, host: &str, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        // It becomes the program: the process id stays, and so do signals.
        command.args(["netns", "exec", &self.space(host)]).arg(program);
        command
    }

    /// Sees every IPv4 packet of a host, both ways, from now on.
    #[must_use]
    pub fn tap(&self, host: &str) -> Tap {
        self.enter(host, || Tap::open().expect("a packet socket"))
    }

    /// Writes a kernel setting of a host, named by its path below `/proc/sys`. One that this kernel does not have at all
    /// needs no writing.
    pub fn sysctl(&self, host: &str, path: &str, value: &str) {
        let path = Path::new("/proc/sys").join(path);
        self.enter(host, || {
            if path.exists() {
                std::fs::write(&path, value).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            }
        });
    }

    /// Makes a router of a host.
    pub fn forward(&self, host: &str) {
        self.sysctl(host, "net/ipv4/ip_forward", "1");
    }

    /// Gives a host the rules of `nft`, besides those it has; false, and it is said, where there is no such program.
    #[must_use]
    pub fn firewall(&self, host: &str, rules: &str) -> bool {
        let child =
            self.command(host, "nft").args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("`ip` ran before");
        // A program that is not there closes its stdin before it is written to.
        let _ = child.stdin.take().expect("a pipe").write_all(rules.as_bytes());
        let output = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        if said.contains("No such file") && said.contains("exec of") {
            skip("there is no `nft` program");
            return false;
        }
        assert!(output.status.success(), "nft {rules}: {said}");
        true
    }

    /// The port of a switch at the other end of a cable.
    #[must_use]
    pub fn port(&self, host: &str, interface: &str) -> String {
        self.inner().ports[&(host.to_owned(), interface.to_owned())].clone()
    }

    /// Puts a cable in (`up`) or pulls it out (`down`), at the switch.
    pub fn cable(&self, host: &str, interface: &str, how: &str) {
        self.ip(SWITCHES, &format!("link set {} {how}", self.port(host, interface)));
    }

    /// Every frame a host sends by this cable also reaches another one, once more for each mention in `to`: what a loop of
    /// switches does.
    pub fn mirror(&self, (host, interface): (&str, &str), to: &[(&str, &str)]) {
        let port = self.port(host, interface);
        let tc = |words: &str| {
            let space = self.space(SWITCHES);
            let all: Vec<_> = ["-n", &space].into_iter().chain(words.split_whitespace()).collect();
            must("tc", &all);
        };
        tc(&format!("qdisc add dev {port} ingress"));
        let mirrors: Vec<_> = to
            .iter()
            .map(|(host, interface)| {
                format!("action mirred egress mirror dev {}", self.port(host, interface))
            })
            .collect();
        let mirrors = mirrors.join(" pipe ");
        tc(&format!("filter add dev {port} parent ffff: protocol all u32 match u32 0 0 {mirrors}"));
    }

    /// A power cut: the cables of a host are gone, so that nothing it does afterwards is heard, and it is no more.
    /// Another of the same name may be added.
    pub fn remove(&self, host: &str) {
        let cut: BTreeMap<_, _> = {
            let mut inner = self.inner();
            inner.hosts.remove(host);
            let ports = std::mem::take(&mut inner.ports).into_iter();
            let (cut, left) = ports.partition(|((of, _), _)| of == host);
            inner.ports = left;
            cut
        };
        for port in cut.values() {
            self.ip(SWITCHES, &format!("link del {port}"));
        }
        must("ip", &["netns", "del", &self.space(host)]);
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for host in &self.inner().hosts {
            // What cannot be removed now is swept by the next run.
            let _ = ip(&["netns", "del", &self.space(host)]);
        }
    }
}

/// Removes what tests left behind that were killed: namespaces whose name holds the id of a process that is no more, and
/// whoever still runs in them.
fn sweep() {
    let Ok(names) = std::fs::read_dir(NAMES) else { return };
    for name in names.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let id = name.strip_prefix("tw").and_then(|rest| rest.split('-').next());
        let Some(id) = id.filter(|id| !id.is_empty() && id.bytes().all(|digit| digit.is_ascii_digit()))
        else {
            continue;
        };
        if Path::new("/proc").join(id).exists() {
            continue;
        }
        // Two sweeps at once get in each other's way, and then one of them has done it.
        for process in ip(&["netns", "pids", &name]).unwrap_or_default().split_whitespace() {
            let _ = Command::new("kill").args(["-KILL", process]).stderr(Stdio::null()).status();
        }
        let _ = ip(&["netns", "del", &name]);
    }
}

fn move_into(space: &File) {
    move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may");
}

#[expect(clippy::disallowed_methods, reason = "a test waits for the network")]
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

/// What `ip` says, or why it would not.
fn ip(words: &[&str]) -> Result<String, String> {
    run("ip", words)
}

fn run(program: &str, words: &[&str]) -> Result<String, String> {
    let output =
        Command::new(program).args(words).output().map_err(|error| format!("no `{program}`: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

fn must(program: &str, words: &[&str]) {
    if let Err(why) = run(program, words) {
        panic!("{program} {}: {why}", words.join(" "));
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn exists(space: &str) -> bool {
        Path::new(NAMES).join(space).exists()
    }

    #[test]
    fn a_plan_is_wired_and_gone_with_its_lan() {
        let Some(lan) = Lan::new("a eth0 shop 10.57.1.1/24\nb eth0 shop 10.57.1.2/24 10.57.7.2/24") else {
            return;
        };
        let space = lan.space("b");
        assert!(exists(&space));
        let tap = lan.tap("b");
        let b = lan.enter("b", || UdpSocket::bind("10.57.7.2:41600")).unwrap();
        lan.ip("a", "route add 10.57.7.0/24 dev eth0");
        let a = lan.enter("a", || UdpSocket::bind("10.57.1.1:41600")).unwrap();
        a.send_to(b"hello", "10.57.7.2:41600").unwrap();
        b.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(b.recv_from(&mut buffer).unwrap(), (5, "10.57.1.1:41600".parse().unwrap()));
        let seen = tap.wait("the datagram", |packet| packet.payload == b"hello");
        assert_eq!((seen.source.port(), seen.protocol), (41_600, Protocol::Udp));
        lan.remove("b");
        assert!(!exists(&space));
        lan.add("b eth0 shop 10.57.1.3/24");
        assert!(exists(&space));
        drop(lan);
        assert!(!exists(&space));
    }

    #[test]
    fn what_a_killed_test_left_behind_is_swept() {
        // No process has this id: it is above the most a kernel gives out.
        let stale = format!("tw4999999-{}", std::process::id());
        if let Err(why) = ip(&["netns", "add", &stale]) {
            return skip(&format!("no network namespaces: {why}"));
        }
        let own = format!("tw{}-own", std::process::id());
        ip(&["netns", "add", &own]).unwrap();
        sweep();
        let left = (exists(&stale), exists(&own));
        ip(&["netns", "del", &own]).unwrap();
        assert_eq!(left, (false, true));
    }
}
