//! What the threads of a campaign share: the processes, what was asked for, and what was seen, in the order it was seen.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wire_format::frame::outcome::Code;

use super::disk::Prepared;
use super::killer::{Moment, Trap};
use super::plan::Deed;
use super::process::Process;
use super::{Disk, Failure, Options, ledger};

/// Where devices listen, at an address of its own each.
const PORT: u16 = 43_101;
/// Milliseconds some of the devices work on an order: a kill hits it inside its handler.
const WORK_MS: [Option<u64>; 4] = [None, Some(4), None, Some(15)];

/// How a program ends that could not start.
const NOT_STARTED: &str = "exit status: 2";
/// MiB an outbox may have on a small disk.
const OUTBOX_MIB: &str = "16";

/// Something that was seen.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) at: Duration,
    pub(super) what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    /// A device is about to be started; its ledger was so long.
    Boot { device: u8, len: u64 },
    /// The ledger of a device was so long when it was looked at.
    Ledger { device: u8, len: u64 },
    /// The server told an outcome; the device's ledger was so long by then.
    Outcome { name: u64, device: u8, code: Code, len: u64 },
    /// Somebody asked for an order to be taken back.
    Cancel { name: u64 },
    /// A server is about to be started.
    Server { run: u32 },
    /// A kill, a fault.
    Note(String),
}

/// What became of a push.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) deed: Deed,
    /// When it was first sent.
    pub(super) pushed: Duration,
    /// The run of the server it was sent to first.
    pub(super) run: u32,
    pub(super) answer: Option<Answer>,
    pub(super) refused: Option<String>,
    /// It had been accepted, and was refused when it was asked for again.
    pub(super) disowned: Option<String>,
    /// It was sent so often.
    pub(super) pushes: u32,
    /// Told outcomes.
    pub(super) outcomes: BTreeMap<u8, Code>,
    /// Numbers that were answered beside the first one.
    pub(super) others: Vec<u64>,
    /// What a server said of it as a whole when it knew no device any more.
    pub(super) summary: BTreeMap<String, u64>,
}

/// "Accepted".
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) number: u64,
    pub(super) durable: bool,
    pub(super) run: u32,
    pub(super) at: Duration,
}

impl Standing {
    /// Not sent yet.
    pub(super) fn new(deed: Deed, pushed: Duration, run: u32) -> Self {
        Self {
            deed,
            pushed,
            run,
            answer: None,
            refused: None,
            disowned: None,
            pushes: 0,
            outcomes: BTreeMap::new(),
            others: Vec::new(),
            summary: BTreeMap::new(),
        }
    }

    /// A server that knows no devices of it any more still said how all of them ended.
    pub(super) fn is_told(&self) -> bool {
        self.is_over() || self.summary.values().sum::<u64>() == self.deed.targets.len() as u64
    }

    /// Every device has its outcome, or the order was not taken.
    pub(super) fn is_over(&self) -> bool {
        self.refused.is_some() || self.answer.is_some() && self.outcomes.len() == self.deed.targets.len()
    }
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) options: Options,
    pub(super) prepared: Prepared,
    pub(super) server: Mutex<Process>,
    pub(super) devices: Vec<Mutex<Process>>,
    pub(super) ids: Vec<String>,
    pub(super) control: PathBuf,
    /// Runs of the server, the one that is up or coming up included.
    pub(super) run: AtomicU32,
    pub(super) trap: Trap,
    seen: Mutex<Vec<Seen>>,
    deeds: Mutex<BTreeMap<u64, Standing>>,
    stopped: AtomicBool,
    full: AtomicBool,
    /// It was, since this server was started.
    was_full: AtomicBool,
    began: Instant,
}

impl World {
    /// Nothing runs yet.
    pub(super) fn new(options: Options) -> Result<Self, Failure> {
        let prepared = Prepared::new(&options.dir, options.disk)?;
        let ids: Vec<_> = (0..options.devices).map(|at| format!("{:02x}", at + 1).repeat(16)).collect();
        let control = options.dir.join("control.sock");
        let devices = (0..options.devices).map(|at| Mutex::new(device(&options, at, &ids))).collect();
        let world = Self {
            server: Mutex::new(server(&options, &prepared, &ids)),
            devices,
            ids,
            control,
            prepared,
            options,
            run: AtomicU32::new(0),
            trap: Trap::default(),
            seen: Mutex::default(),
            deeds: Mutex::default(),
            stopped: AtomicBool::new(false),
            full: AtomicBool::new(false),
            was_full: AtomicBool::new(false),
            began: now(),
        };
        (0..world.options.devices).try_for_each(|at| world.start_device(at))?;
        world.start_server()?;
        Ok(world)
    }

    pub(super) fn since(&self) -> Duration {
        now().duration_since(self.began)
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// For those who ask what is left.
    pub(super) fn go_on(&self) {
        self.stopped.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    pub(super) fn deeds(&self) -> MutexGuard<'_, BTreeMap<u64, Standing>> {
        lock(&self.deeds)
    }

    /// Everything that was seen, oldest first.
    pub(super) fn seen(&self) -> MutexGuard<'_, Vec<Seen>> {
        lock(&self.seen)
    }

    pub(super) fn note(&self, what: impl Into<String>) {
        self.see(What::Note(what.into()));
    }

    pub(super) fn see(&self, what: What) {
        let mut seen = self.seen();
        seen.push(Seen { at: self.since(), what });
    }

    /// Looks at the length of a ledger.
    pub(super) fn look(&self, device: u8) {
        let mut seen = self.seen();
        let len = ledger::len(&self.ledger(device));
        seen.push(Seen { at: self.since(), what: What::Ledger { device, len } });
    }

    /// Writes down an outcome that was just read. The ledger is looked at under the same lock, so that lines and outcomes have
    /// one order.
    pub(super) fn outcome(&self, name: u64, device: u8, code: Code) {
        let mut deeds = self.deeds();
        let Some(standing) = deeds.get_mut(&name) else { return };
        // Told again by the next one who asks: the same is nothing new.
        if standing.outcomes.get(&device) == Some(&code) {
            return;
        }
        standing.outcomes.insert(device, code);
        let mut seen = self.seen();
        let len = ledger::len(&self.ledger(device));
        seen.push(Seen { at: self.since(), what: What::Outcome { name, device, code, len } });
    }

    pub(super) fn ledger(&self, device: u8) -> PathBuf {
        ledger_path(&self.options, device)
    }

    pub(super) fn device(&self, device: u8) -> MutexGuard<'_, Process> {
        lock(&self.devices[usize::from(device)])
    }

    pub(super) fn server(&self) -> MutexGuard<'_, Process> {
        lock(&self.server)
    }

    pub(super) fn start_device(&self, device: u8) -> Result<(), Failure> {
        let mut process = self.device(device);
        if process.is_running() {
            return Ok(());
        }
        let len = ledger::len(&self.ledger(device));
        self.see(What::Boot { device, len });
        process.start()
    }

    pub(super) fn start_server(&self) -> Result<(), Failure> {
        let mut process = self.server();
        if process.is_running() {
            return Ok(());
        }
        self.was_full.store(self.is_full(), Ordering::Relaxed);
        let run = self.run.fetch_add(1, Ordering::Relaxed) + 1;
        self.see(What::Server { run });
        process.start()
    }

    /// Kills a device, and says at which moment; false if it did not run.
    pub(super) fn kill_device(&self, device: u8, moment: Moment) -> bool {
        let killed = self.device(device).kill();
        if killed {
            self.note(format!("device {} killed, {moment}", device + 1));
            self.trap.count(moment, Some(device));
        }
        killed
    }

    /// As [`World::kill_device`].
    pub(super) fn kill_server(&self, moment: Moment) -> bool {
        let killed = self.server().kill();
        if killed {
            self.note(format!("server killed, {moment}"));
            self.trap.count(moment, None);
        }
        killed
    }

    /// Leaves no byte of the disk free, or gives back what was taken.
    pub(super) fn fill(&self, full: bool) -> Result<(), Failure> {
        self.note(if full { "the disk is full" } else { "the disk has room" });
        self.full.store(full, Ordering::Relaxed);
        self.was_full.fetch_or(full, Ordering::Relaxed);
        if full { self.prepared.fill() } else { self.prepared.free() }
    }

    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Processes that ended by themselves are what is looked for. A server that cannot write down that it started says so
    /// and does not start; it gets room, and another try.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let server = self.server().check();
        match server {
            Err(Failure::Ended { status, .. })
                if self.was_full.load(Ordering::Relaxed) && status == NOT_STARTED =>
            {
                self.note("the server did not start on a full disk");
                self.fill(false)?;
                self.start_server()?;
            }
            other => other?,
        }
        (0..self.options.devices).try_for_each(|at| self.device(at).check())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::disallowed_methods, reason = "the campaign works with real processes in real time")]
pub(super) fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the campaign works with real processes in real time")]
pub(super) fn pause(span: Duration) {
    std::thread::sleep(span);
}

fn ledger_path(options: &Options, device: u8) -> PathBuf {
    options.dir.join(format!("device-{}.jsonl", device + 1))
}

/// Its address: nobody else's in a run, and not that of the run before, whose connections may still be closing.
fn address(options: &Options, device: u8) -> String {
    format!("127.{}.{}.{}", options.net, std::process::id() & 0x7F, device + 2)
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn server(options: &Options, prepared: &Prepared, ids: &[String]) -> Process {
    let path = |name: &str| options.dir.join(name).display().to_string();
    let mut all = words("serve --store KILL --entity 7 --staging --open-network --no-discovery --json");
    all.extend(["--bind".into(), format!("127.{}.0.1", options.net)]);
    all.extend(["--control".into(), path("control.sock"), "--state".into(), path("server")]);
    if options.volatile {
        all.push("--volatile".into());
    } else {
        all.extend(["--outbox".into(), prepared.outbox.display().to_string()]);
        if options.disk == Disk::Full {
            all.extend(["--outbox-mib".into(), OUTBOX_MIB.into()]);
        }
    }
    for (at, id) in (0..).zip(ids) {
        all.extend(["--device".into(), format!("{}:{PORT}={id}", address(options, at))]);
    }
    let (program, all) = prepared.wrap(&options.program, all);
    Process::new("the server", &program, all, options.dir.join("server.log"))
}

fn device(options: &Options, at: u8, ids: &[String]) -> Process {
    let path = |name: String| options.dir.join(name).display().to_string();
    let number = at + 1;
    let mut all = words("device --store KILL --entity 7 --staging --open-network --no-discovery --json");
    all.extend(["--id".into(), ids[usize::from(at)].clone()]);
    all.extend(["--bind".into(), address(options, at), "--port".into(), PORT.to_string()]);
    all.extend(["--ledger".into(), ledger_path(options, at).display().to_string()]);
    all.extend(["--state".into(), path(format!("device-{number}"))]);
    if let Some(work) = WORK_MS[usize::from(at) % WORK_MS.len()] {
        all.extend(["--later-ms".into(), work.to_string()]);
    }
    if number == options.devices {
        all.extend(["--reject".into(), super::plan::REJECTED_KIND.into()]);
    }
    let log = options.dir.join(format!("device-{number}.log"));
    Process::new(format!("device {number}"), &options.program, all, log)
}

/// What a campaign with this disk is called.
pub(super) fn disk_name(disk: Disk) -> String {
    match disk {
        Disk::Plain => "a plain disk".into(),
        Disk::Full => "a disk that is full now and then".into(),
        Disk::Slow(ms) => format!("a disk whose syncs take {ms} ms"),
    }
}
