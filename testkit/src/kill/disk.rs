//! Disks that are full or slow, without a change to the program and without root: a small file system in a mount namespace of
//! its own, and a tracer that holds back every sync.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{Disk, Failure};

/// Bytes of the small file system: several segments of a log.
const SMALL_MIB: u32 = 48;
/// What fills it.
const FILLER: &str = "filler";
/// Bytes of one write into the filler.
const FILLER_STEP: usize = 64 << 10;

/// Where the outbox goes, and what the server is started with.
#[derive(Debug)]
pub struct Prepared {
    /// The directory of the outbox, as the server sees it.
    pub outbox: PathBuf,
    /// Words before the program.
    before: Vec<String>,
    /// The file system, as seen from here, and the process that keeps it.
    small: Option<(PathBuf, Keeper)>,
}

/// Keeps a namespace while nobody else lives in it.
#[derive(Debug)]
struct Keeper(Child);

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Prepared {
    /// Makes the disk in this directory; [`Failure::Skipped`] says why this machine has none like it.
    pub fn new(dir: &Path, disk: Disk) -> Result<Self, Failure> {
        let plain = Self { outbox: dir.join("outbox"), before: Vec::new(), small: None };
        match disk {
            Disk::Plain => Ok(plain),
            Disk::Slow(ms) => slow(plain, ms),
            Disk::Full => small(dir),
        }
    }

    /// The program and its words, as they have to be started.
    pub fn wrap(&self, program: &Path, words: Vec<String>) -> (PathBuf, Vec<String>) {
        let Some((first, more)) = self.before.split_first() else { return (program.to_owned(), words) };
        let all = more.iter().cloned().chain([program.display().to_string()]).chain(words);
        (first.into(), all.collect())
    }

    /// Leaves no byte free.
    pub fn fill(&self) -> Result<(), Failure> {
        let Some((root, _)) = &self.small else { return Ok(()) };
        let cannot = || Failure::io("fill the small disk");
        let mut filler = File::create(root.join(FILLER)).map_err(cannot())?;
        let mut step = FILLER_STEP;
        while step > 0 {
            match filler.write(&vec![0; step]) {
                Ok(1..) => {}
                Ok(0) => step /= 2,
                Err(error) if error.kind() == ErrorKind::StorageFull => step /= 2,
                Err(error) => return Err(cannot()(error)),
            }
        }
        Ok(())
    }

    /// Takes away what [`Prepared::fill`] wrote.
    pub fn free(&self) -> Result<(), Failure> {
        let Some((root, _)) = &self.small else { return Ok(()) };
        match std::fs::remove_file(root.join(FILLER)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Failure::io("free the small disk")(error))
            }
            _ => Ok(()),
        }
    }
}

/// Every sync of the server takes so long, and nothing else does: seccomp lets all other calls pass the tracer.
fn slow(plain: Prepared, ms: u32) -> Result<Prepared, Failure> {
    let us = u64::from(ms) * 1_000;
    let calls = "fsync,fdatasync,sync_file_range";
    let words = format!(
        "strace -D -f --seccomp-bpf -qq -o /dev/null -e trace={calls} -e inject={calls}:delay_exit={us}"
    );
    let before: Vec<_> = words.split_whitespace().map(str::to_owned).collect();
    let tried = Command::new(&before[0]).args(&before[1..]).arg("true").output();
    match tried {
        Ok(output) if output.status.success() => Ok(Prepared { before, ..plain }),
        Ok(output) => {
            Err(Failure::Skipped(format!("strace: {}", String::from_utf8_lossy(&output.stderr).trim())))
        }
        Err(error) => Err(Failure::Skipped(format!("a slow disk wants strace: {error}"))),
    }
}

/// A file system of a few MiB that only the server sees.
fn small(dir: &Path) -> Result<Prepared, Failure> {
    let mount = dir.join("small");
    std::fs::create_dir_all(&mount).map_err(Failure::io("make a directory for the small disk"))?;
    let mut why = String::new();
    // Root needs no user namespace, and is not always given one.
    for (own, enter) in [
        (&["--mount"][..], &["--mount"][..]),
        (&["--user", "--map-root-user", "--mount"], &["--user", "--mount", "--preserve-credentials"]),
    ] {
        match keeper(own, &mount) {
            Ok(keeper) => {
                let id = keeper.0.id();
                let mut before = vec!["nsenter".to_owned(), format!("--target={id}")];
                before.extend(enter.iter().map(|word| (*word).to_owned()));
                before.push("--".into());
                let seen = mount.strip_prefix("/").unwrap_or(&mount);
                let root = Path::new("/proc").join(id.to_string()).join("root").join(seen);
                return Ok(Prepared { outbox: mount.join("outbox"), before, small: Some((root, keeper)) });
            }
            Err(error) => why = error,
        }
    }
    Err(Failure::Skipped(format!("no file system of our own can be mounted: {why}")))
}

/// A process that has mounted the file system and stays.
fn keeper(own: &[&str], mount: &Path) -> Result<Keeper, String> {
    let script =
        format!("mount -t tmpfs -o size={SMALL_MIB}m tmpfs \"$0\" && echo mounted && exec sleep 1000000");
    let child = Command::new("unshare")
        .args(own)
        .args(["sh", "-c", &script])
        .arg(mount)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut keeper = Keeper(child.map_err(|error| error.to_string())?);
    let mut said = String::new();
    if let Some(output) = keeper.0.stdout.take() {
        let _ = BufReader::new(output).read_line(&mut said);
    }
    if said == "mounted\n" {
        return Ok(keeper);
    }
    if let Some(error) = keeper.0.stderr.take() {
        let _ = BufReader::new(error).read_line(&mut said);
    }
    Err(said.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn prepared(name: &str, disk: Disk) -> Option<Prepared> {
        let dir = std::env::temp_dir().join(format!("tillwire-kill-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        match Prepared::new(&dir, disk) {
            Ok(prepared) => Some(prepared),
            Err(Failure::Skipped(why)) => {
                println!("skipped: {why}");
                None
            }
            Err(other) => panic!("{other}"),
        }
    }

    /// Runs a script as the server would be run.
    fn run(prepared: &Prepared, script: &str) -> bool {
        let words = ["-c", script].map(str::to_owned).to_vec();
        let (program, words) = prepared.wrap(Path::new("/bin/sh"), words);
        Command::new(program).args(words).stderr(Stdio::null()).status().unwrap().success()
    }

    #[test]
    fn a_small_disk_can_be_filled_and_freed_and_outlives_who_writes_to_it() {
        let Some(prepared) = prepared("small", Disk::Full) else { return };
        let file = prepared.outbox.with_file_name("file").display().to_string();
        assert!(run(&prepared, &format!("head -c 8192 /dev/zero > {file}")));
        prepared.fill().unwrap();
        assert!(!run(&prepared, &format!("head -c 8192 /dev/zero > {file}-2")), "no byte is free");
        prepared.free().unwrap();
        prepared.free().expect("twice is as good as once");
        assert!(run(&prepared, &format!("head -c 8192 /dev/zero > {file}-2 && test -s {file}")));
        assert!(!Path::new(&file).exists(), "nobody else sees it");
        let dir = prepared.outbox.ancestors().nth(2).unwrap().to_owned();
        drop(prepared);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_slow_disk_holds_back_syncs() {
        let Some(prepared) = prepared("slow", Disk::Slow(300)) else { return };
        let dir = prepared.outbox.parent().unwrap().to_owned();
        std::fs::write(dir.join("file"), "x").unwrap();
        let before = super::super::world::now();
        assert!(run(&prepared, &format!("sync -d {}/file", dir.display())));
        assert!(before.elapsed() >= Duration::from_millis(300));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
