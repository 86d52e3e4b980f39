//! Where a server keeps orders over a restart: which directory, what was found there, and what to do if it cannot be used.

use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tillwire::push::outbox::log::{OpenError as LogError, Settings};
use tillwire::push::outbox::{AppendError, OpenError, Stats};
use tillwire::{OutboxFault, Recovered, StartError};

use crate::error::Failure;
use crate::{out, start};

/// The outbox inside a state directory.
const INSIDE: &str = "outbox";
const MIB: u64 = 1 << 20;
/// The least an outbox may be given, in MiB: sixteen files of 1 MiB.
const MIB_MIN: u64 = 16;
/// The most, in MiB: a tebibyte.
const MIB_MAX: u64 = 1 << 20;
/// Files an outbox of its full size has.
const SEGMENTS: u64 = 16;

/// Whether orders survive the server, and where.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct OutboxArgs {
    /// Keep orders in this directory: they survive the server's end, a crash and a power cut. It belongs to one server.
    /// Default: `outbox` inside --state; without either, orders are kept in memory.
    #[arg(long, value_name = "DIR", conflicts_with = "volatile")]
    outbox: Option<PathBuf>,
    /// Keep orders in memory although there is a state directory: they end with this process.
    #[arg(long)]
    volatile: bool,
    /// MiB the outbox may take on its disk; its files have a sixteenth of it, 1 to 64 MiB. One that is full takes no
    /// order until others have ended. Default: 4096 in files of 16.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(MIB_MIN..=MIB_MAX), conflicts_with = "volatile")]
    outbox_mib: Option<u64>,
}

impl OutboxArgs {
    /// The outbox that was chosen; `None` for orders in memory.
    pub(crate) fn choose(&self, state: Option<&Path>) -> Option<Chosen> {
        let inside = || state.map(|state| state.join(INSIDE));
        let directory = if self.volatile { None } else { self.outbox.clone().or_else(inside) };
        directory.map(|directory| Chosen { directory, settings: settings(self.outbox_mib) })
    }

    /// Says once, on stderr, that orders end with the process, unless that was asked for.
    pub(crate) fn say_volatile(&self) {
        if !self.volatile {
            out::warn(
                "orders are kept in memory and do not survive this process: give --outbox or --state a directory, or say --volatile",
            );
        }
    }
}

fn settings(mib: Option<u64>) -> Settings {
    let with_size =
        |mib: u64| Settings { segment_bytes: (mib / SEGMENTS).clamp(1, 64) * MIB, bytes_max: mib * MIB };
    mib.map_or_else(Settings::default, with_size)
}

/// An outbox on a disk.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    /// Its directory.
    pub(crate) directory: PathBuf,
    /// How large it may be.
    pub(crate) settings: Settings,
}

impl Chosen {
    /// Why a server with this outbox did not start, and what to do about it.
    pub(crate) fn failure(&self, error: &StartError) -> Failure {
        let at = self.directory.display();
        match error {
            StartError::OutboxDirectory { source, .. } if source.kind() == ErrorKind::WouldBlock => {
                Failure::start(
                    format!("the outbox {at} is in use by another process"),
                    "one outbox, one server: stop the other one (fuser -v shows it at the file lock in there), or give this one another --outbox",
                )
            }
            StartError::OutboxDirectory { source, .. } => self.cannot("open", source),
            StartError::Outbox(OpenError::Log(LogError::Read(source))) => self.cannot("read", source),
            StartError::Outbox(OpenError::Log(error @ LogError::Foreign { .. })) => Failure::start(
                format!("the outbox {at} holds files of two histories: {error}"),
                "a backup was copied over it: move the files of the one or of the other to another place, then start again; nothing was changed",
            ),
            StartError::Outbox(OpenError::Log(error @ LogError::Format { .. })) => Failure::start(
                format!("the outbox {at} is of a newer version of this program: {error}"),
                "start that version, or give this one another --outbox; nothing was changed",
            ),
            StartError::Outbox(OpenError::Commit(error)) => {
                self.cannot(&error.doing.to_string(), &error.source)
            }
            StartError::Outbox(OpenError::Append(error)) => Failure::start(
                format!("the outbox {at} cannot note that it was opened: {error}"),
                "give it more room with --outbox-mib; nothing in it was lost",
            ),
            error => start::failure(error),
        }
    }

    fn cannot(&self, what: &str, error: &Error) -> Failure {
        let help = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                "its disk is full: make room (df -h shows how much there is) or give it less with --outbox-mib; nothing in it was lost"
            }
            ErrorKind::PermissionDenied => {
                "run this as the user it belongs to, or chown the directory and its files to this one"
            }
            ErrorKind::ReadOnlyFilesystem => "its file system is read-only: mount it for writing",
            ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
                "a file is in its place: give --outbox another directory"
            }
            _ => {
                "is its disk failing (dmesg)? copy the directory elsewhere first; --volatile serves without it"
            }
        };
        Failure::start(format!("cannot {what}: the outbox {}: {error}", self.directory.display()), help)
    }

    /// What was found in it, for the line that says that the server runs.
    pub(crate) fn json(&self, found: &Recovered) -> Value {
        let recovery = &found.recovery;
        json!({
            "directory": self.directory.display().to_string(),
            "cap_bytes": self.settings.bytes_max,
            "lineage": found.lineage.to_string(),
            "run": run(found.run),
            "created": recovery.created,
            "orders": found.orders.len(),
            "devices": found.devices,
            "keys": found.keys,
            "rollouts": found.rollouts,
            "rollouts_lost": found.rollouts_lost,
            "head": found.head,
            "fence": found.fence,
            "records": recovery.records,
            "damaged_records": recovery.damaged_records,
            "damaged_segments": recovery.damaged_segments,
            "unreadable_records": found.unreadable.1,
            "torn_records": recovery.torn_records,
            "torn_bytes": recovery.torn_bytes,
        })
    }

    /// The same for people.
    pub(crate) fn line(&self, found: &Recovered) -> String {
        let at = self.directory.display();
        if found.recovery.created {
            return format!("orders are kept in {at}, which is new");
        }
        let rollouts = match found.rollouts.len() {
            0 => String::new(),
            1 => ", and so does a rollout".to_owned(),
            many => format!(", and so do {many} rollouts"),
        };
        format!(
            "orders are kept in {at}: {} go on{rollouts}; {} devices and the keys of {} ended orders are known",
            found.orders.len(),
            found.devices,
            found.keys
        )
    }

    /// What it holds now, for an operator.
    pub(crate) fn stats(&self, stats: &Stats) -> Value {
        json!({
            "directory": self.directory.display().to_string(),
            "cap_bytes": self.settings.bytes_max,
            "bytes": stats.bytes,
            "live_bytes": stats.live_bytes,
            "appends": stats.records,
            "commits": stats.commits,
            "failed": stats.failures,
            "carried": stats.carried,
            "lost": stats.lost,
            "mended": stats.mended,
            "orders": stats.orders,
            "keys": stats.keys,
            "oldest_s": stats.oldest_ms.map(|accepted_ms| wall_ms().saturating_sub(accepted_ms) / 1_000),
            "lineage": stats.lineage.to_string(),
            "run": run(stats.run),
        })
    }

    /// What is missing of it, and what to do; nothing if it is whole.
    pub(crate) fn damage(&self, found: &Recovered) -> Option<String> {
        let (recovery, at) = (&found.recovery, self.directory.display());
        let (damaged, unreadable) = (recovery.damaged_records, found.unreadable.1);
        if damaged + unreadable + recovery.damaged_segments == 0 && found.rollouts_lost.is_empty() {
            return None;
        }
        let mut text = format!("the outbox {at} is damaged: ");
        if damaged + recovery.damaged_segments > 0 {
            text.push_str(&format!(
                "{damaged} records and the heads of {} files cannot be read any more",
                recovery.damaged_segments
            ));
        }
        if let Some(first) = found.unreadable.0.first() {
            let and = if damaged + recovery.damaged_segments > 0 { ", and " } else { "" };
            text.push_str(&format!(
                "{and}{unreadable} are not understood (the first is of kind {})",
                first.kind
            ));
        }
        text.push_str(
            "; orders that stood there are lost, outcomes that did are asked for again. Everything else goes on. \
             Look at the disk (dmesg, smartctl); push again under its key what may be missing: what is not is not done twice",
        );
        Some(text)
    }
}

/// A run's id as it is shown.
pub(crate) fn run(run: u64) -> String {
    format!("{run:016x}")
}

/// The wall clock, in milliseconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "orders are marked with the wall clock, and an age is shown to people"
)]
fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What to do when the outbox keeps nothing, as whoever pushed is told.
pub(crate) fn help(fault: &OutboxFault) -> &'static str {
    match fault {
        OutboxFault::Refused(AppendError::Full { .. }) => {
            "nothing was sent; try again when orders have ended, or start the server with a larger --outbox-mib; --volatile goes without the outbox"
        }
        OutboxFault::Refused(_) => "nothing was sent; --volatile goes without the outbox",
        _ => {
            "nothing was sent; make room on the server's disk, or see what is wrong with it; --volatile goes without the outbox"
        }
    }
}

/// What an operator has to know at once; nothing if the event is none of these.
pub(crate) fn alarm(event: &Value, chosen: Option<&Chosen>) -> Option<String> {
    let at = chosen.map_or_else(|| "outbox".to_owned(), |chosen| chosen.directory.display().to_string());
    let device = event["device"]["id"].as_str().unwrap_or("a device");
    match event["event"].as_str()? {
        "outbox-failed" => Some(format!(
            "the outbox {at} cannot be written: {}. Durable orders are refused until it can; volatile ones go on. \
             Make room on its disk (df -h), or see what is wrong with it (dmesg)",
            event["error"].as_str().unwrap_or_default()
        )),
        "outbox-lost" => Some(format!(
            "the outbox {at} has lost a record, {} {}: its disk fails (dmesg, smartctl). This server goes on with it from memory; \
             the next start will not find it",
            event["what"].as_str().unwrap_or_default(),
            event["number"]
        )),
        "outbox-back" => Some(format!("the outbox {at} is written again")),
        "forked" => Some(format!(
            "ALARM: {device} has seen orders that are not in the outbox {at}: it was restored from an old backup, or another \
             server runs on a copy of it. It begins anew; the old files are in the directories aside-* in it. What was owed is \
             in doubt, and what the backup does not have is unknown here: see that no other server uses a copy, ask the devices, \
             and push again what is missing"
        )),
        "renewed" => Some(format!(
            "the outbox {at} has begun anew as lineage {}: durable orders are taken again",
            event["lineage"].as_str().unwrap_or_default()
        )),
        "journal-lost" => Some(format!(
            "{device} has lost its journal: orders it was sent and had not answered are in doubt"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tillwire::push::outbox::log::{CommitError, Doing, Recovery};

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: OutboxArgs,
    }

    fn args(words: &[&str]) -> Option<OutboxArgs> {
        Cli::try_parse_from([&["serve"], words].concat()).ok().map(|cli| cli.args)
    }

    fn chosen(words: &[&str], state: Option<&str>) -> Option<Chosen> {
        args(words).expect("a command line").choose(state.map(Path::new))
    }

    #[test]
    fn where_orders_are_kept() {
        let directory =
            |words: &[&str], state| chosen(words, state).map(|chosen| chosen.directory.display().to_string());
        assert_eq!(directory(&[], None), None);
        assert_eq!(directory(&[], Some("/s")), Some("/s/outbox".to_owned()));
        assert_eq!(directory(&["--volatile"], Some("/s")), None);
        assert_eq!(directory(&["--outbox", "/o"], Some("/s")), Some("/o".to_owned()));
        assert_eq!(directory(&["--outbox", "/o"], None), Some("/o".to_owned()));
        assert!(args(&["--outbox", "/o", "--volatile"]).is_none());
        assert!(args(&["--outbox-mib", "64", "--volatile"]).is_none());
    }

    #[test]
    fn sizes_of_an_outbox_at_their_limits_and_one_past_each() {
        let sizes = |mib: &str| {
            let settings = chosen(&["--outbox", "/o", "--outbox-mib", mib], None).expect("one").settings;
            (settings.bytes_max / MIB, settings.segment_bytes / MIB)
        };
        assert_eq!(sizes("16"), (16, 1));
        assert_eq!(sizes("31"), (31, 1));
        assert_eq!(sizes("1024"), (1_024, 64));
        assert_eq!(sizes("1048576"), (1 << 20, 64));
        for wrong in ["15", "1048577", "0", "x"] {
            assert!(args(&["--outbox-mib", wrong]).is_none(), "{wrong}");
        }
        let usual = chosen(&["--outbox", "/o"], None).expect("one").settings;
        assert_eq!((usual.bytes_max / MIB, usual.segment_bytes / MIB), (4_096, 16), "as the help says");
    }

    #[test]
    fn each_way_not_to_open_has_its_way_out() {
        let chosen = chosen(&["--outbox", "/o"], None).expect("one");
        let directory =
            |kind: ErrorKind| StartError::OutboxDirectory { path: "/o".into(), source: kind.into() };
        let commit = |kind: ErrorKind| {
            StartError::Outbox(OpenError::Commit(CommitError { doing: Doing::Create, source: kind.into() }))
        };
        let read = |kind: ErrorKind| StartError::Outbox(OpenError::Log(LogError::Read(kind.into())));
        let foreign = LogError::Foreign {
            segment: 7,
            found: tillwire::Lineage([1; 16]),
            expected: tillwire::Lineage([2; 16]),
        };
        for (error, cause, help) in [
            (directory(ErrorKind::WouldBlock), "in use", "one outbox, one server"),
            (directory(ErrorKind::PermissionDenied), "permission", "chown"),
            (directory(ErrorKind::NotADirectory), "not a directory", "another directory"),
            (commit(ErrorKind::StorageFull), "making a new segment", "its disk is full"),
            (read(ErrorKind::Other), "read", "dmesg"),
            (StartError::Outbox(OpenError::Log(foreign)), "two histories", "backup"),
            (
                StartError::Outbox(OpenError::Log(LogError::Format { segment: 7, format: *b"002" })),
                "newer version of this program: segment 0000000000000007 is in format 002",
                "start that version",
            ),
            (
                StartError::Outbox(OpenError::Append(AppendError::Full { bytes: 9, limit: 8 })),
                "9 of 8 bytes",
                "--outbox-mib",
            ),
        ] {
            let failure = chosen.failure(&error);
            assert!(failure.not_started && failure.cause.contains("/o"), "{failure:?}");
            assert!(failure.cause.contains(cause) && failure.help.contains(help), "{failure:?}");
        }
    }

    #[test]
    fn damage_is_told_with_what_to_do_and_a_torn_end_is_none() {
        let chosen = chosen(&["--outbox", "/o"], None).expect("one");
        let mut found = Recovered {
            lineage: tillwire::Lineage([1; 16]),
            run: 7,
            orders: vec![3, 4],
            devices: 2,
            keys: 1,
            head: 9,
            fence: 0,
            rollouts: vec![5],
            rollouts_lost: Vec::new(),
            recovery: Recovery { records: 12, torn_bytes: 80, torn_records: 1, ..Recovery::default() },
            unreadable: (Vec::new(), 0),
        };
        assert_eq!(chosen.damage(&found), None);
        assert!(chosen.line(&found).contains("2 go on, and so does a rollout; 2 devices"));
        found.recovery.damaged_records = 3;
        let text = chosen.damage(&found).expect("it is damaged");
        assert!(text.contains("3 records") && text.contains("smartctl"), "{text}");
        assert_eq!(chosen.json(&found)["damaged_records"], 3);
    }

    #[test]
    fn an_alarm_is_raised_for_what_cannot_wait() {
        let event = json!({"event": "forked", "device": {"id": "0102"}});
        assert!(alarm(&event, None).is_some_and(|text| text.contains("0102") && text.contains("backup")));
        let event = json!({"event": "outbox-failed", "device": null, "error": "no space"});
        assert!(alarm(&event, None).is_some_and(|text| text.contains("no space")));
        let event = json!({"event": "outbox-lost", "device": null, "what": "order", "number": 7});
        assert!(
            alarm(&event, None).is_some_and(|text| text.contains("order 7") && text.contains("smartctl"))
        );
        assert_eq!(alarm(&json!({"event": "connected"}), None), None);
    }
}
