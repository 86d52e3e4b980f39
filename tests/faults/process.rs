//! Processes of their own: what can only be stopped, killed or counted as a whole. This test program starts itself, as a
//! device or as a server, and hears of it through its output.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use testkit::history::{Event, OrderId};
use tillwire::{Delivered, FanOut, Lane, Order, OrderKind, Outcome, Standing, Target, Verdict};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::judge::{Judge, device_of, name_of, payload};
use super::{SOON, at, id, listed, once, page, server};

/// Begins every line that is meant for the one who started the process: the test harness writes lines as well.
const MARK: char = '@';
/// The kind of orders that end the process that is given one.
pub(crate) const DEADLY: OrderKind = OrderKind(0x8666);
/// How often a server process looks for outcomes.
const LOOK: Duration = Duration::from_millis(10);

/// The body of the processes. Without its variable it is nobody's.
#[test]
#[ignore = "it is what the processes run that other tests start"]
fn child() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match std::env::var("TILLWIRE_ROLE").as_deref() {
        Ok("device") => runtime.block_on(run_device()),
        Ok("server") => runtime.block_on(run_server()),
        _ => {}
    }
}

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

fn tell(line: std::fmt::Arguments<'_>) {
    // One write: a process that is killed tells whole lines or nothing.
    let line = format!("{MARK}{line}\n");
    let _ = std::io::stdout().lock().write_all(line.as_bytes());
}

/// Lines of the one who started this process; without them it has nothing left to do here.
fn commands() -> mpsc::UnboundedReceiver<String> {
    let (to, commands) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let _ = to.send(line);
        }
        std::process::exit(0);
    });
    commands
}

async fn run_device() {
    let (n, address) =
        (variable("TILLWIRE_DEVICE").unwrap(), variable::<SocketAddr>("TILLWIRE_ADDRESS").unwrap());
    let SocketAddr::V4(v4) = address else { panic!("{address}") };
    let mut commands = commands();
    let handler = move |delivered: &Delivered<'_>| {
        let OrderId { log, number } = name_of(delivered.order.payload);
        tell(format_args!("effect {log} {number} {}", u8::from(delivered.redelivered)));
        if delivered.order.kind == DEADLY {
            std::process::exit(1);
        }
        tell(format_args!("answer {log} {number} {}", Outcome::APPLIED.0));
        Verdict::Applied
    };
    let device = at(n, *v4.ip()).port(v4.port()).start(handler).await.unwrap();
    tell(format_args!("ready {}", device.address()));
    while commands.recv().await.is_some() {}
}

async fn run_server() {
    let mut builder =
        server().fence(variable("TILLWIRE_FENCE").unwrap()).server_id(id(variable("TILLWIRE_ID").unwrap()));
    for device in std::env::var("TILLWIRE_DEVICES").unwrap().split_whitespace() {
        let (n, address) = device.split_once('=').unwrap();
        builder = builder.device(listed(n.parse().unwrap(), address.parse().unwrap()));
    }
    let server = builder.capacity(256).live_orders(4_096).start().await.unwrap();
    let mut commands = commands();
    tell(format_args!("ready"));
    let mut live: Vec<(OrderId, FanOut, Vec<u32>)> = Vec::new();
    loop {
        match timeout(LOOK, commands.recv()).await {
            Ok(Some(line)) if line == "stats" => {
                let stats = server.stats().await.unwrap().push;
                let fleet = stats.fleet;
                let numbers =
                    [stats.connected as u64, fleet.sessions, fleet.suspects, fleet.dead, fleet.dials];
                tell(format_args!("stats {}", numbers.map(|number| number.to_string()).join(" ")));
            }
            Ok(Some(line)) => {
                let words: Vec<u64> = line.split(' ').map(|word| word.parse().unwrap()).collect();
                let [log, number, again, lifetime_ms, len, ref targets @ ..] = words[..] else {
                    panic!("{line}")
                };
                let order = OrderId { log, number };
                let payload = payload(order, len as usize);
                let what = Pushed { again: again == 1, lifetime_ms }.order(&payload);
                let targets = Target::ids(targets.iter().map(|n| id(*n as u8)));
                live.push((order, server.push(&what, &targets).await.unwrap(), Vec::new()));
            }
            Ok(None) => return,
            Err(_) => {}
        }
        for (order, fan_out, told) in &mut live {
            for result in fan_out.report().await.devices() {
                if let (Standing::Ended(code), Some(id)) = (result.standing, result.id)
                    && !told.contains(&device_of(id))
                {
                    told.push(device_of(id));
                    tell(format_args!("ended {} {} {} {}", order.log, order.number, device_of(id), code.0));
                }
            }
        }
        live.retain(|(_, fan_out, told)| told.len() < fan_out.targets());
    }
}

/// What a server process is told to push.
#[derive(Clone, Copy)]
struct Pushed {
    again: bool,
    lifetime_ms: u64,
}

impl Pushed {
    fn order(self, payload: &[u8]) -> Order<'_> {
        let order = if self.again { page(payload) } else { once(payload) };
        order.lane(Lane::Normal).lifetime(Duration::from_millis(self.lifetime_ms))
    }
}

/// Counters of a server process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    pub(crate) connected: u64,
    pub(crate) sessions: u64,
    pub(crate) suspects: u64,
    pub(crate) dead: u64,
}

/// A process that was started. Dropped, it is killed.
pub(crate) struct Process {
    child: Child,
    judge: Arc<Judge>,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Process {
    fn start(
        judge: &Arc<Judge>,
        role: &str,
        inside: &[&str],
        device: Option<u8>,
        variables: &[(&str, String)],
    ) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut words = inside.iter().map(std::ffi::OsStr::new).chain([program.as_os_str()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args([
            "process::child",
            "--exact",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ]);
        command.env("TILLWIRE_ROLE", role).envs(variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (to, lines) = mpsc::unbounded_channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        let boot = judge.name(0).number;
        let history = Arc::clone(judge);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let Some((_, line)) = line.split_once(MARK) else { continue };
                if let Some(event) = device.and_then(|device| heard(line, device.into(), boot)) {
                    history.record(event);
                } else if to.send(line.to_owned()).is_err() {
                    return;
                }
            }
        });
        Self { child, judge: Arc::clone(judge), lines }
    }

    /// A device that applies everything, listening here (port 0 for any), perhaps started by another program
    /// (`inside`); and where it listens.
    pub(crate) async fn device(
        judge: &Arc<Judge>,
        n: u8,
        address: SocketAddr,
        inside: &[&str],
    ) -> (Self, SocketAddr) {
        let variables = [("TILLWIRE_DEVICE", n.to_string()), ("TILLWIRE_ADDRESS", address.to_string())];
        let mut it = Self::start(judge, "device", inside, Some(n), &variables);
        let address = it.line("ready ").await;
        (it, address.parse().unwrap())
    }

    /// A server of these devices.
    pub(crate) async fn server(
        judge: &Arc<Judge>,
        server: u8,
        fence: u64,
        devices: &[(u8, SocketAddr)],
    ) -> Self {
        let devices: Vec<_> = devices.iter().map(|(n, address)| format!("{n}={address}")).collect();
        let variables = [
            ("TILLWIRE_ID", server.to_string()),
            ("TILLWIRE_FENCE", fence.to_string()),
            ("TILLWIRE_DEVICES", devices.join(" ")),
        ];
        let mut it = Self::start(judge, "server", &[], None, &variables);
        it.line("ready").await;
        it
    }

    /// The rest of the next line that begins so; others are passed over.
    async fn line(&mut self, begins: &str) -> String {
        let next = async {
            loop {
                let line = self.lines.recv().await.expect("the process lives");
                if let Some(rest) = line.strip_prefix(begins) {
                    return rest.to_owned();
                }
            }
        };
        timeout(SOON, next).await.unwrap_or_else(|_| panic!("no line begins with {begins:?}"))
    }

    /// Sends the process a signal, by its name.
    pub(crate) fn signal(&self, name: &str) {
        self.judge.note(format!("process {} gets {name}", self.child.id()));
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()));
        // A thread on another core goes on until it is interrupted.
        while name == "STOP" && !self.is_stopped() {
            std::thread::yield_now();
        }
    }

    /// Whether the system says of every thread that it is stopped.
    fn is_stopped(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        threads.flatten().all(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
        })
    }

    /// Whether the process has ended.
    pub(crate) fn is_over(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    fn say(&mut self, line: &str) {
        let pipe = self.child.stdin.as_mut().unwrap();
        pipe.write_all(line.as_bytes()).and_then(|()| pipe.write_all(b"\n")).unwrap();
    }

    /// Has the server process push an order to these devices.
    pub(crate) fn push(
        &mut self,
        log: u64,
        again: bool,
        lifetime: Duration,
        len: usize,
        targets: &[u8],
    ) -> OrderId {
        let order = self.judge.name(log);
        let lifetime_ms = lifetime.as_millis() as u64;
        self.judge.accepted(order, &Pushed { again, lifetime_ms }.order(&payload(order, len)), targets);
        let targets: Vec<_> = targets.iter().map(u8::to_string).collect();
        let (number, again) = (order.number, u8::from(again));
        self.say(&format!("{log} {number} {again} {lifetime_ms} {len} {}", targets.join(" ")));
        order
    }

    /// Writes down the next outcome the server process tells.
    pub(crate) async fn next_outcome(&mut self) -> (OrderId, u32, Outcome) {
        let line = self.line("ended ").await;
        let (order, device, code) = outcome_of(&line).unwrap();
        self.judge.outcome(order, device, code).await;
        (order, device, code)
    }

    /// Writes down so many outcomes.
    pub(crate) async fn outcomes(&mut self, count: usize) {
        for _ in 0..count {
            self.next_outcome().await;
        }
    }

    /// Writes down every outcome that was told, until none comes for a while.
    pub(crate) async fn drain(&mut self) {
        while timeout(Duration::from_millis(200), self.next_outcome()).await.is_ok() {}
    }

    pub(crate) async fn counted(&mut self) -> Counted {
        self.say("stats");
        // Outcomes told in between wait for who asks for them.
        let mut kept = Vec::new();
        let line = loop {
            let line = timeout(SOON, self.lines.recv()).await.unwrap().expect("the process lives");
            match line.strip_prefix("stats ") {
                Some(rest) => break rest.to_owned(),
                None => kept.push(line),
            }
        };
        for line in kept {
            if let Some((order, device, code)) = outcome_of(&line) {
                self.judge.outcome(order, device, code).await;
            }
        }
        let words: Vec<u64> = line.split(' ').map(|word| word.parse().unwrap()).collect();
        let [connected, sessions, suspects, dead, _] = words[..] else { panic!("{line}") };
        Counted { connected, sessions, suspects, dead }
    }

    /// Waits until so many devices are connected to the server process.
    pub(crate) async fn connected(&mut self, count: u64) {
        let all = async {
            while self.counted().await.connected < count {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, all).await.expect("every device connects");
    }

    /// Writes down what the process holds.
    pub(crate) fn sample(&self) {
        let of = |name| format!("/proc/{}/{name}", self.child.id());
        let pages = std::fs::read_to_string(of("statm")).unwrap();
        let pages: u64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
        let descriptors = std::fs::read_dir(of("fd")).unwrap().count() as u64;
        self.judge.record(Event::Sample { memory: pages * 4_096, descriptors });
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn outcome_of(line: &str) -> Option<(OrderId, u32, Outcome)> {
    let line = line.strip_prefix("ended ").unwrap_or(line);
    let words: Vec<u64> = line.split(' ').map_while(|word| word.parse().ok()).collect();
    let [log, number, device, code] = words[..] else { return None };
    Some((OrderId { log, number }, device as u32, Outcome(code as u8)))
}

/// What a device process did.
fn heard(line: &str, device: u32, boot: u64) -> Option<Event> {
    let (what, rest) = line.split_once(' ')?;
    if what == "ready" {
        return None;
    }
    let words: Vec<u64> = rest.split(' ').map_while(|word| word.parse().ok()).collect();
    let [log, number, more] = words[..] else { return None };
    let order = OrderId { log, number };
    match what {
        "effect" => Some(Event::Effect { order, device, boot, redelivered: more == 1 }),
        "answer" => Some(Event::Answer { order, device, boot, code: Outcome(more as u8) }),
        _ => None,
    }
}

/// Any port at an address no other test has.
pub(crate) fn own_address() -> SocketAddr {
    let [high, low] = super::NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    (Ipv4Addr::new(127, 8, high, low), 0).into()
}
