//! A process of the campaign: started, killed, started again with the same words.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::Failure;

/// How much of its output is shown of a process that ended by itself.
const SAID_MAX: u64 = 4_096;

/// One process, running or not. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) who: String,
    program: PathBuf,
    words: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// Not started yet. `log` gets what it says, on both outputs, over all its lives.
    pub(super) fn new(who: impl Into<String>, program: &Path, words: Vec<String>, log: PathBuf) -> Self {
        Self { who: who.into(), program: program.to_owned(), words, log, child: None }
    }

    pub(super) fn start(&mut self) -> Result<(), Failure> {
        let who = &self.who;
        let open = |path: &Path| OpenOptions::new().append(true).create(true).open(path);
        let log = open(&self.log).map_err(Failure::io(format!("open {}", self.log.display())))?;
        let both = log.try_clone().map_err(Failure::io("share a file"))?;
        let mut command = Command::new(&self.program);
        command.args(&self.words).stdin(Stdio::null()).stdout(log).stderr(both);
        // Its own default for the control socket must not matter.
        command.env_remove("XDG_RUNTIME_DIR");
        self.child = Some(command.spawn().map_err(Failure::io(format!("start {who}")))?);
        Ok(())
    }

    /// Ends it as a power cut would, and waits until it is gone. False if it was not running.
    pub(super) fn kill(&mut self) -> bool {
        let Some(mut child) = self.child.take() else { return false };
        let killed = child.kill().is_ok();
        let _ = child.wait();
        killed
    }

    pub(super) const fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Nobody killed it, so it has to be there.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        let Some(child) = &mut self.child else { return Ok(()) };
        match child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                let (who, said) = (self.who.clone(), self.said());
                self.child = None;
                Err(Failure::Ended { who, status: status.to_string(), said })
            }
            Err(error) => Err(Failure::Io { what: format!("look after {}", self.who), error }),
        }
    }

    fn said(&self) -> String {
        let mut said = String::new();
        if let Ok(mut log) = File::open(&self.log) {
            let len = log.metadata().map_or(0, |about| about.len());
            let _ = log.seek(SeekFrom::Start(len.saturating_sub(SAID_MAX)));
            let _ = log.read_to_string(&mut said);
        }
        said
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ends_by_itself_is_told_with_what_it_said() {
        let log = std::env::temp_dir().join(format!("tillwire-kill-process-{}", std::process::id()));
        let _ = std::fs::remove_file(&log);
        let words = ["-c", "echo so long; exit 3"].map(str::to_owned).to_vec();
        let mut process = Process::new("sh", Path::new("sh"), words, log.clone());
        process.check().expect("one that was never started is not missed");
        process.start().unwrap();
        let failure = loop {
            if let Err(failure) = process.check() {
                break failure.to_string();
            }
        };
        assert!(failure.contains("sh ended by itself") && failure.contains("so long"), "{failure}");
        assert!(!process.is_running() && !process.kill());
        let mut process = Process::new("sleep", Path::new("sleep"), vec!["60".to_owned()], log.clone());
        process.start().unwrap();
        assert!(process.is_running() && process.kill() && !process.is_running());
        process.check().expect("one that was killed is not missed");
        std::fs::remove_file(log).unwrap();
    }
}
