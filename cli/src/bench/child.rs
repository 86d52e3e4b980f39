//! The processes of a benchmark: each speaks JSON lines on stdout, hears lines on stdin, and ends when that ends.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::machine;
use crate::error::Failure;

/// A running process of the benchmark; killed if it is dropped.
#[derive(Debug)]
pub(super) struct Child {
    child: std::process::Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Child {
    /// Starts this program with these words.
    pub(super) fn start(words: &[String]) -> Result<Self, Failure> {
        let cannot = |error: std::io::Error| {
            Failure::start(format!("cannot start a process of the benchmark: {error}"), "try again")
        };
        let program = std::env::current_exe().map_err(cannot)?;
        let mut child = Command::new(program)
            .args(words)
            .arg("--json")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(cannot)?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or_else(|| lost("it has no output"))?;
        Ok(Self { child, stdin, lines: BufReader::new(stdout).lines() })
    }

    /// Its next line, which has to be this event. An error of its own is passed on.
    pub(super) fn expect(&mut self, event: &str) -> Result<Value, Failure> {
        let line = match self.lines.next() {
            Some(line) => line.map_err(|error| lost(&error.to_string()))?,
            None => return Err(lost("it ended")),
        };
        let line: Value = serde_json::from_str(&line).map_err(|error| lost(&error.to_string()))?;
        match line["event"].as_str() {
            Some(said) if said == event => Ok(line),
            Some("error") => Err(Failure::broken(
                line["error"].as_str().unwrap_or_default(),
                line["help"].as_str().unwrap_or_default(),
            )),
            _ => Err(lost(&format!("it said {line}"))),
        }
    }

    /// Tells it to do the next thing.
    pub(super) fn tell(&mut self, line: &str) -> Result<(), Failure> {
        let stdin = self.stdin.as_mut().ok_or_else(|| lost("it was told to end"))?;
        writeln!(stdin, "{line}").map_err(|error| lost(&error.to_string()))
    }

    /// What its first thread has had of a CPU, kernel included; zero where the system does not tell.
    pub(super) fn cpu(&self) -> Duration {
        machine::cpu_of(self.child.id()).unwrap_or_default()
    }

    /// Stops it where it stands, or lets it go on: SIGSTOP and SIGCONT.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let id = id.ok_or_else(|| lost("it has no process id"))?;
        kill_process(id, signal).map_err(|error| lost(&error.to_string()))
    }

    /// Ends it at once, as a crash would (SIGKILL).
    pub(super) fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Tells it to end and waits.
    pub(super) fn end(mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lost(why: &str) -> Failure {
    Failure::broken(
        format!("a process of the benchmark was lost: {why}"),
        "is memory or the limit on open files short?",
    )
}
