//! The kill campaign: `tillwire serve` and devices as processes, killed (SIGKILL) while orders flow, and everything that was
//! promised compared with what the devices' ledgers show.
//!
//! ```text
//! pushers ──control socket──▶ tillwire serve ──TCP──▶ tillwire device ──▶ ledger
//!    │                          ▲ killed, restarted      ▲ killed, restarted
//!    └── what was answered ─────┴──── judge ◀────────────┘ what ran
//! ```
//!
//! - [`plan`](self): orders of all sorts, by seed: lanes, flags, keys, versions, lifetimes, targets, both logs.
//! - Pushers write down every answer and every outcome the moment it is read, with how long the device's ledger was: a
//!   line of the ledger behind that point came later, whatever the clocks say.
//! - Kills come at random and at chosen moments ([`Moment`]): when a push was sent, when it was accepted, when an outcome was
//!   told, while a handler is at work, while a process starts.
//! - A push whose answer was lost is repeated under its key. At the end every order with a key is asked for again under it,
//!   until each device has its outcome.
//! - The judge makes one [`History`](crate::history::History) of it, and adds what only the campaign can know: a payload
//!   arrives as it was pushed, an order has one number, doubt is only where a device was killed, nothing accepted is missing.
//!
//! The program is a path, so that tests of the command line and the command of this package run the same campaign.

mod args;
mod control;
pub mod disk;
mod judge;
mod killer;
mod ledger;
mod plan;
mod process;
mod pusher;
mod report;
mod settle;
mod world;

use std::path::PathBuf;
use std::time::Duration;

pub use args::main;
pub use killer::Moment;
pub use report::Report;

use world::World;

/// How the outbox's disk behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disk {
    /// As the directory's.
    #[default]
    Plain,
    /// Its own, small, and full now and then.
    Full,
    /// Every sync takes so long, in milliseconds.
    Slow(u32),
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program `tillwire`.
    pub program: PathBuf,
    /// Everything the campaign writes; made, and kept if anything is wrong.
    pub dir: PathBuf,
    /// Kills in all.
    pub times: u32,
    /// Devices, 1 to 16.
    pub devices: u8,
    /// Pushers at a time, 1 to 32.
    pub pushers: u8,
    /// Everything that is drawn comes from it; processes and threads make no two runs the same even so.
    pub seed: u64,
    /// The addresses are 127.NET.x.y.
    pub net: u8,
    /// The server keeps no outbox: what it held is gone with it.
    pub volatile: bool,
    /// What the outbox writes to.
    pub disk: Disk,
    /// How long what is left at the end may take.
    pub patience: Duration,
}

impl Default for Options {
    /// Five devices, eight pushers and a hundred kills on a plain disk; program and directory have to be named.
    fn default() -> Self {
        Self {
            program: PathBuf::new(),
            dir: PathBuf::new(),
            times: 100,
            devices: 5,
            pushers: 8,
            seed: 0,
            net: 177,
            volatile: false,
            disk: Disk::Plain,
            patience: Duration::from_secs(120),
        }
    }
}

/// Why there is no verdict, or a bad one.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The machine does not allow this mode.
    #[error("skipped: {0}")]
    Skipped(String),
    /// The directory is not empty.
    #[error("{} is not empty; a campaign wants a directory of its own", .0.display())]
    InUse(PathBuf),
    /// A file or a process could not be had.
    #[error("cannot {what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// A process ended that nobody had killed.
    #[error("{who} ended by itself ({status}); it said last:\n{said}")]
    Ended {
        /// Which process.
        who: String,
        /// As the system says it.
        status: String,
        /// The end of its output.
        said: String,
    },
    /// Promises were broken.
    #[error("{} wrong:\n{}", .problems.len(), shown(.problems))]
    Broken {
        /// Each as a reader needs it, the history of its order included.
        problems: Vec<String>,
        /// What was run.
        report: Box<Report>,
    },
}

/// A thousand more say nothing new.
fn shown(problems: &[String]) -> String {
    const SHOWN: usize = 20;
    problems.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("\n")
}

impl Failure {
    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        |error| Self::Io { what: what.into(), error }
    }
}

/// Runs a campaign to its end.
///
/// # Errors
///
/// Whatever is wrong; the directory is kept then.
pub fn run(mut options: Options) -> Result<Report, Failure> {
    std::fs::create_dir_all(&options.dir)
        .map_err(Failure::io(format!("make the directory {}", options.dir.display())))?;
    // Who enters another namespace begins in another directory.
    options.dir = options.dir.canonicalize().map_err(Failure::io("name the directory"))?;
    let program = format!("find the program {}", options.program.display());
    options.program = options.program.canonicalize().map_err(Failure::io(program))?;
    let dir = options.dir.clone();
    // Ledgers of another campaign would be judged with this one's.
    let mut files = std::fs::read_dir(&dir).map_err(Failure::io("read the directory"))?;
    if files.next().is_some() {
        return Err(Failure::InUse(dir));
    }
    let world = World::new(options)?;
    let ran = std::thread::scope(|scope| {
        for at in 0..world.options.pushers {
            let world = &world;
            scope.spawn(move || pusher::run(world, at));
        }
        let ran = killer::run(&world);
        world.stop();
        ran
    });
    ran?;
    settle::run(&world)?;
    let report = judge::judge(world)?;
    // What went well needs no looking at.
    let _ = std::fs::remove_dir_all(dir);
    Ok(report)
}
