//! The program as its users run it: processes, their lines, their exit codes.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::Value;

/// Longer than anything here takes on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(25);

#[expect(clippy::disallowed_methods, reason = "a test waits for processes")]
pub(crate) fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// Runs `tillwire` with these words to its end.
pub(crate) fn run(words: &[&str]) -> Output {
    command(words).stdin(Stdio::null()).output().expect("the program starts")
}

/// Runs it with something on stdin.
pub(crate) fn run_with_input(words: &[&str], input: &[u8]) -> Output {
    let mut child = command(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // It may refuse before it has read everything.
    let _ = child.stdin.take().expect("stdin").write_all(input);
    child.wait_with_output().expect("it ends")
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tillwire"));
    command.args(words).env_remove("XDG_RUNTIME_DIR");
    command
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().expect("not killed")
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Every line of stdout as JSON.
pub(crate) fn json_lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect()
}

/// A running `tillwire … --json`; ended when dropped.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<Value>,
    what: String,
}

impl Running {
    pub(crate) fn start(words: &[&str]) -> Self {
        Self::spawn(command(words), words)
    }

    /// The same inside a network namespace, as on a host of its own.
    pub(crate) fn start_in(namespace: &str, words: &[&str]) -> Self {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", namespace, env!("CARGO_BIN_EXE_tillwire")]).args(words);
        Self::spawn(inside, words)
    }

    /// The same started by another program, which becomes it.
    pub(crate) fn start_command(command: Command) -> Self {
        Self::spawn(command, &["started by another program"])
    }

    /// Runs a shell command in the mount namespace of the process.
    pub(crate) fn enter_mounts(&self, script: &str) {
        let target = self.child.id().to_string();
        let status =
            Command::new("nsenter").args(["--target", &target, "--mount", "sh", "-c", script]).status();
        assert!(status.expect("nsenter runs").success(), "{script}");
    }

    fn spawn(mut command: Command, words: &[&str]) -> Self {
        let mut child = command
            .arg("--json")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let stdout = child.stdout.take().expect("stdout");
        Self { child, lines: reader(stdout), what: words.join(" ") }
    }

    /// The next line that `wanted` likes; the others are passed over.
    pub(crate) fn wait_for(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(now());
            match self.lines.recv_timeout(left) {
                Ok(line) if wanted(&line) => return line,
                Ok(line) => seen.push(line),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("{}: waited in vain; it said {seen:#?}", self.what)
                }
            }
        }
    }

    pub(crate) fn wait_for_event(&self, event: &str) -> Value {
        self.wait_for(|line| line["event"] == event)
    }

    /// SIGKILL, as a power cut would.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it ran");
        let _ = self.child.wait();
    }

    /// SIGTERM, and what it ended with.
    pub(crate) fn end(mut self) -> i32 {
        self.signal("TERM");
        self.child.wait().expect("it ends").code().expect("not killed")
    }

    /// What it ends with by itself.
    pub(crate) fn wait(mut self) -> i32 {
        self.child.wait().expect("it ends").code().expect("not killed")
    }

    pub(crate) fn signal(&self, signal: &str) {
        let status =
            Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("its state is known").is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn reader(stdout: ChildStdout) -> Receiver<Value> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let line = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"));
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// A directory of this test alone; gone when this is.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a name").to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn scratch(name: &str) -> Scratch {
    let dir = std::env::temp_dir().join(format!("tillwire-test-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("a directory");
    Scratch(dir)
}

pub(crate) const KIOSK: &str = "11111111111111111111111111111111";
pub(crate) const TILL: &str = "22222222222222222222222222222222";

/// A store of one test: a port of discovery, and addresses, of its own.
pub(crate) struct Store {
    dir: Scratch,
    pub(crate) discovery: u16,
    net: u8,
}

impl Store {
    pub(crate) fn new(name: &str, net: u8) -> Self {
        Self { dir: scratch(name), discovery: 20_000 + u16::from(net), net }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path(name)
    }

    pub(crate) fn host(&self, host: u8) -> String {
        format!("127.{}.0.{host}", self.net)
    }

    /// Starts its server.
    pub(crate) fn serve(&self, more: &[&str]) -> Running {
        self.serve_at(self.discovery, more)
    }

    /// Starts its server with discovery at this port.
    pub(crate) fn serve_at(&self, discovery: u16, more: &[&str]) -> Running {
        let (control, bind, port) = (self.path("control.sock"), self.host(1), discovery.to_string());
        let mut words = vec!["serve", "--store", "TEST", "--entity", "7", "--staging", "--open-network"];
        words.extend(["--control", &control, "--bind", &bind]);
        if !more.contains(&"--no-discovery") {
            words.extend(["--broadcast", "127.255.255.255", "--discovery-port", &port]);
        }
        words.extend(more);
        let server = Running::start(&words);
        server.wait_for_event("serving");
        server
    }

    /// Starts a device with a ledger.
    pub(crate) fn device(&self, id: &str, host: u8, more: &[&str]) -> Running {
        let (bind, port) = (self.host(host), self.discovery.to_string());
        let ledger = self.path(&format!("{id}.jsonl"));
        let mut words =
            vec!["device", "--store", "TEST", "--entity", "7", "--staging", "--open-network", "--id", id];
        words.extend(["--bind", &bind, "--ledger", &ledger]);
        if !more.contains(&"--no-discovery") {
            words.extend(["--broadcast", "127.255.255.255", "--discovery-port", &port]);
        }
        words.extend(more);
        let device = Running::start(&words);
        device.wait_for_event("listening");
        device
    }

    /// Pushes with `--json`; exit code and summary.
    pub(crate) fn push(&self, words: &[&str]) -> (i32, Value) {
        let control = self.path("control.sock");
        let output = run(&[&["push"], words, &["--control", &control, "--json"]].concat());
        let lines = json_lines(&output);
        (code(&output), lines.last().unwrap_or_else(|| panic!("{}", stderr(&output))).clone())
    }

    pub(crate) fn ledger(&self, id: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path(&format!("{id}.jsonl"))).expect("a ledger");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

pub(crate) fn connected(id: &'static str) -> impl Fn(&Value) -> bool {
    move |line| line["event"] == "connected" && line["device"]["id"] == id
}

/// In whichever order they come.
pub(crate) fn both_connected(server: &Running) {
    let mut left = vec![KIOSK, TILL];
    while !left.is_empty() {
        let line = server.wait_for_event("connected");
        left.retain(|id| line["device"]["id"] != *id);
    }
}
