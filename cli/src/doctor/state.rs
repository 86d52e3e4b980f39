//! Whether the state directory can be written, and holds what belongs there.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use wire_format::ids::NodeId;

use super::host::Host;
use super::report::{Check, Line};

const CHECK: Check = Check::State;

/// One line, and one more per file that is damaged.
pub(crate) async fn check(host: &Host) -> Vec<Line> {
    let Some(dir) = &host.state else {
        return vec![Line::pass(
            CHECK,
            "",
            "none was named: the boot epoch is drawn by lot, and a restarted node is taken for a new one once (--state DIR)",
        )];
    };
    let mut lines = vec![writable(dir)];
    lines.extend(damaged(dir, "epoch", "a number that can still be raised", |text| {
        text.parse::<u32>().is_ok_and(|epoch| epoch < u32::MAX)
    }));
    lines.extend(damaged(dir, "id", "an id", |text| text.parse::<NodeId>().is_ok()));
    lines
}

/// Writes, syncs and removes a file there; in the directory above if it does not exist yet. Nothing else is made.
fn writable(dir: &Path) -> Line {
    let subject = dir.display().to_string();
    let there = dir.ancestors().find(|above| above.is_dir()).unwrap_or_else(|| Path::new("."));
    let probe: PathBuf = there.join(format!(".tillwire-doctor-{}", std::process::id()));
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&probe)?;
        file.write_all(b"tillwire doctor\n")?;
        file.sync_all()
    };
    let written = write();
    let removed = fs::remove_file(&probe);
    let error = match written {
        Ok(()) if there == dir => return Line::pass(CHECK, subject, "can be written and synced"),
        Ok(()) => {
            let detail =
                format!("does not exist yet; {} can be written, so the node will make it", there.display());
            return Line::pass(CHECK, subject, detail);
        }
        Err(error) => error,
    };
    drop(removed);
    let why = match error.kind() {
        ErrorKind::StorageFull => "the disk is full",
        ErrorKind::ReadOnlyFilesystem => "the file system is read-only",
        _ => "this user may not write there, or it is no directory",
    };
    Line::fail(
        CHECK,
        subject,
        format!("{why} ({error})"),
        "run this as the server's user; chown the directory to it, or name another one with --state",
    )
}

fn damaged(dir: &Path, name: &str, wanted: &str, good: impl Fn(&str) -> bool) -> Option<Line> {
    let path = dir.join(name);
    let subject = path.display().to_string();
    match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            let remedy = "run this as the server's user, or give that user the right to read it";
            Some(Line::warn(CHECK, subject, format!("cannot be read: {error}"), remedy))
        }
        Ok(bytes) if core::str::from_utf8(&bytes).is_ok_and(|text| good(text.trim())) => None,
        Ok(_) => Some(Line::fail(
            CHECK,
            subject,
            format!("does not hold {wanted}"),
            "restore it from a backup; with the directory removed the node begins anew, as one that nobody knows",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::host::tests::host;
    use crate::doctor::report::Grade;

    #[tokio::test]
    async fn directories_that_can_be_used_and_those_that_cannot() {
        let dir = std::env::temp_dir().join(format!("tillwire-doctor-state-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let mut host = host();
        assert_eq!(check(&host).await[0].grade, Grade::Pass);
        host.state = Some(dir.join("a/b"));
        let lines = check(&host).await;
        assert!(lines[0].grade == Grade::Pass && lines[0].detail.contains("will make it"), "{lines:?}");
        host.state = Some(dir.clone());
        assert_eq!(check(&host).await.len(), 1);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "nothing stays behind");
        fs::write(dir.join("epoch"), "7\n").unwrap();
        fs::write(dir.join("id"), "00112233445566778899aabbccddeeff\n").unwrap();
        assert_eq!(check(&host).await.len(), 1);
        fs::write(dir.join("epoch"), "4294967295\n").unwrap();
        fs::write(dir.join("id"), [0xff, 0]).unwrap();
        let lines = check(&host).await;
        assert!(lines.len() == 3 && lines[1..].iter().all(|line| line.grade == Grade::Fail), "{lines:?}");
        host.state = Some(PathBuf::from("/proc/tillwire"));
        let lines = check(&host).await;
        assert_eq!(lines[0].grade, Grade::Fail, "{lines:?}");
        fs::remove_dir_all(dir).unwrap();
    }
}
