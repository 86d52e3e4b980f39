//! Whether orders can be kept on disk: written, synced, with room, and how long a sync takes.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::host::Host;
use super::report::{Check, Line};
use crate::outbox::Chosen;

const CHECK: Check = Check::Outbox;
/// Syncs that are timed; the middle one is told.
const SYNCS: usize = 9;
/// Bytes written for each: a commit of a few orders.
const WRITE_BYTES: usize = 4_096;
/// A push waits for a sync: with longer ones people wait at the counter.
const SYNC_SLOW: Duration = Duration::from_millis(50);
/// Files of an outbox that must fit at least: it writes the next one before it removes the oldest.
const FILES_MIN: u64 = 2;

/// One line about writing and syncing, one about room.
pub(crate) async fn check(host: &Host) -> Vec<Line> {
    let Some(chosen) = host.outbox.clone() else {
        return vec![Line::pass(
            CHECK,
            "",
            "none was named: orders are kept in memory and end with the server (--state DIR or --outbox DIR)",
        )];
    };
    let looked = tokio::task::spawn_blocking(move || look(&chosen));
    looked
        .await
        .unwrap_or_else(|error| vec![Line::warn(CHECK, "", error.to_string(), "run it alone with --only")])
}

fn look(chosen: &Chosen) -> Vec<Line> {
    let subject = chosen.directory.display().to_string();
    let there = chosen.directory.ancestors().find(|above| above.is_dir()).unwrap_or_else(|| Path::new("."));
    match syncs(there) {
        Ok(took) => vec![pace(&subject, took), room(&subject, there, chosen)],
        Err(error) => vec![Line::fail(
            CHECK,
            subject,
            match error.kind() {
                ErrorKind::StorageFull => format!("the disk is full ({error})"),
                ErrorKind::ReadOnlyFilesystem => format!("the file system is read-only ({error})"),
                _ => format!("it cannot be written and synced ({error})"),
            },
            "run this as the server's user; make room, chown the directory to it, or name another one with --outbox",
        )],
    }
}

/// The middle one of a few syncs of a file there, each behind a write. The file is removed.
fn syncs(there: &Path) -> std::io::Result<Duration> {
    let probe = there.join(format!(".tillwire-doctor-outbox-{}", std::process::id()));
    let file = OpenOptions::new().write(true).create_new(true).open(&probe)?;
    let took = time(file);
    let removed = fs::remove_file(&probe);
    took.and_then(|took| removed.map(|()| took))
}

#[expect(clippy::disallowed_methods, reason = "how long the disk takes is what is looked at")]
fn time(mut file: File) -> std::io::Result<Duration> {
    let mut took = [Duration::ZERO; SYNCS];
    // As the outbox does it: the length is there, a commit changes none.
    file.set_len((SYNCS * WRITE_BYTES) as u64)?;
    file.sync_all()?;
    for took in &mut took {
        let begun = Instant::now();
        file.write_all(&[0x55; WRITE_BYTES])?;
        file.sync_data()?;
        *took = begun.elapsed();
    }
    took.sort_unstable();
    Ok(took[SYNCS / 2])
}

fn pace(subject: &str, took: Duration) -> Line {
    let ms = took.as_secs_f64() * 1_000.0;
    let detail = format!("can be written; a sync takes {ms:.1} ms");
    if took <= SYNC_SLOW {
        return Line::pass(CHECK, subject, detail);
    }
    Line::warn(
        CHECK,
        subject,
        format!("{detail}, and so long every push of a durable order waits"),
        "put the outbox on a disk of its own, or one with a faster cache: an SSD takes 1 to 5 ms; volatile orders do not wait",
    )
}

/// What is free there, and what the outbox has already.
fn room(subject: &str, there: &Path, chosen: &Chosen) -> Line {
    let Ok(stat) = rustix::fs::statvfs(there) else {
        return Line::warn(CHECK, subject, "how much room there is cannot be read", "see df -h");
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    judge_room(subject, free, held(&chosen.directory), chosen)
}

/// Bytes of the files that are there.
fn held(directory: &Path) -> u64 {
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).filter(|file| file.is_file()).map(|file| file.len()).sum()
}

fn judge_room(subject: &str, free: u64, held: u64, chosen: &Chosen) -> Line {
    let mib = |bytes: u64| bytes >> 20;
    let (cap, least) = (chosen.settings.bytes_max, FILES_MIN * chosen.settings.segment_bytes);
    let detail = format!("{} MiB are free, it has {} MiB and may take {}", mib(free), mib(held), mib(cap));
    if free < least {
        let remedy = "make room, or name another directory with --outbox: a server that cannot begin a file refuses orders";
        return Line::fail(CHECK, subject, detail, remedy);
    }
    if free.saturating_add(held) < cap {
        let remedy = "make room, or give it less with --outbox-mib: then it says itself when it is full, before the disk is";
        return Line::warn(CHECK, subject, detail, remedy);
    }
    Line::pass(CHECK, subject, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::host::tests::host;
    use crate::doctor::report::Grade;

    fn chosen(directory: &Path) -> Chosen {
        Chosen { directory: directory.to_owned(), settings: Default::default() }
    }

    #[tokio::test]
    async fn an_outbox_that_can_be_kept_and_one_that_cannot() {
        let dir = std::env::temp_dir().join(format!("tillwire-doctor-outbox-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let mut host = host();
        assert_eq!(check(&host).await[0].grade, Grade::Pass);
        host.outbox = Some(chosen(&dir.join("not/yet")));
        let lines = check(&host).await;
        assert!(lines.len() == 2 && lines[0].detail.contains("a sync takes"), "{lines:?}");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "nothing stays behind");
        host.outbox = Some(chosen(Path::new("/proc/tillwire")));
        let lines = check(&host).await;
        assert!(lines.len() == 1 && lines[0].grade == Grade::Fail, "{lines:?}");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn syncs_at_their_limit_and_one_past_it() {
        assert_eq!(pace("x", SYNC_SLOW).grade, Grade::Pass);
        assert_eq!(pace("x", SYNC_SLOW + Duration::from_nanos(1)).grade, Grade::Warn);
    }

    #[test]
    fn room_at_its_limits_and_one_past_each() {
        let chosen = chosen(Path::new("/o"));
        let (cap, segment) = (chosen.settings.bytes_max, chosen.settings.segment_bytes);
        let grade = |free, held| judge_room("/o", free, held, &chosen).grade;
        assert_eq!(grade(cap, 0), Grade::Pass);
        assert_eq!(grade(cap - 1, 0), Grade::Warn);
        assert_eq!(grade(cap - segment, segment), Grade::Pass, "what it has is its own");
        assert_eq!(grade(2 * segment, 0), Grade::Warn);
        assert_eq!(grade(2 * segment - 1, cap), Grade::Fail);
    }
}
