//! `tillwire watch` as its users run it: filters, lines, a table on a terminal, a server that goes and comes back.

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};
use serde_json::Value;
use support::{KIOSK, PATIENCE, Running, Store, TILL, both_connected, code, json_lines, now, run, stderr};

/// What a terminal is told when it is taken over, and when it is given back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

fn serve_two(store: &Store) -> (Running, [Running; 2]) {
    let server = store.serve(&["--name", "Back office"]);
    let kiosk = ["--kind", "kiosk", "--zone", "3", "--tag", "bakery", "--name", "Kiosk 2", "--code", "K-02"];
    let devices = [store.device(KIOSK, 2, &kiosk), store.device(TILL, 3, &["--name", "Till 3"])];
    both_connected(&server);
    (server, devices)
}

#[test]
fn filters_narrow_tables_lines_and_json_alike() {
    let store = Store::new("watch-filters", 180);
    let (_server, _devices) = serve_two(&store);
    let control = store.path("control.sock");
    let once = |words: &[&str]| run(&[&["watch", "--once", "--control", &control], words].concat());
    let ids = |words: &[&str]| -> Vec<String> {
        let output = once(&[words, &["--json"]].concat());
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let lines = json_lines(&output);
        assert_eq!(lines.last().expect("a line")["event"], "listed");
        let present = lines.iter().filter(|line| line["event"] == "present");
        present.map(|line| line["device"]["id"].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!(ids(&[]).len(), 2);
    for words in [
        &["--where", "kind=kiosk zone=3"][..],
        &["--where", "id=11111111"],
        &["--kind", "kiosk"],
        &["--tag", "bakery"],
        &["--text", "k-02"],
        &["--not-kind", "till"],
        &["--zone", "3", "--state", "linked,fresh"],
        &["--not-text", "till 3"],
    ] {
        assert_eq!(ids(words), [KIOSK], "{words:?}");
    }
    assert_eq!(ids(&["--state", "lost"]).len(), 0);

    let output = once(&["--sort=-name", "--columns", "name,code,state,via,id"]);
    let table = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 5, "{table}");
    assert!(lines[0].starts_with("store TEST, entity 7 STAGING  server Back office"), "{table}");
    assert!(
        lines[1].starts_with("2 devices") && lines[1].contains("1 till") && lines[1].contains("1 kiosk"),
        "{table}"
    );
    let words = |line: &str| line.split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>();
    assert_eq!(words(lines[2]), ["name", "code", "state", "via", "id"]);
    assert_eq!(words(lines[3]), ["Till", "3", "linked", "lo", "22222222"], "{table}");
    assert_eq!(words(lines[4]), ["Kiosk", "2", "K-02", "linked", "lo", "11111111"], "{table}");
    assert_eq!(code(&once(&["--sort", "colour"])), 2);
    assert_eq!(code(&once(&["--where", "colour=red"])), 2);
}

#[test]
fn a_filtered_watch_tells_what_enters_and_what_leaves_the_filter() {
    let store = Store::new("watch-events", 181);
    let (_server, [kiosk, till]) = serve_two(&store);
    let control = store.path("control.sock");
    let watch = Running::start(&["watch", "--control", &control, "--kind", "kiosk", "--state", "linked"]);
    watch.wait_for_event("listed");
    assert_eq!(till.end(), 0);
    assert_eq!(kiosk.end(), 0);
    let event = watch.wait_for(|line| line["device"]["id"].is_string());
    assert_eq!(event["device"]["id"], KIOSK, "nothing is told of the till: {event}");
    assert_ne!(event["device"]["state"], "linked", "it has just left what is looked at: {event}");
}

#[test]
fn the_roster_is_asked_for_again_while_watching() {
    let store = Store::new("watch-again", 182);
    let (_server, _devices) = serve_two(&store);
    let mut socket = UnixStream::connect(store.path("control.sock")).expect("it listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut lines = BufReader::new(socket.try_clone().expect("a handle")).lines();
    let mut next = |event: &str| -> Value {
        loop {
            let line = lines.next().expect("a line").expect("in time");
            let line: Value = serde_json::from_str(&line).expect("JSON");
            if line["event"] == event {
                return line;
            }
        }
    };
    let hello = next("hello");
    assert_eq!((&hello["name"], &hello["staging"]), (&"Back office".into(), &true.into()));
    socket.write_all(b"{\"do\":\"watch\"}\n").expect("sent");
    assert_eq!(next("listed")["devices"], 2);
    // In two pieces: what was read of a line is kept while events come in between.
    socket.write_all(b"{\"do\":\"ro").expect("sent");
    socket.write_all(b"ster\"}\n").expect("sent");
    let present = next("present");
    assert!(present["device"]["silent_ms"].is_u64() && present["device"]["via"] == "lo", "{present}");
    assert_eq!(next("listed")["devices"], 2);
    socket.write_all(b"{\"do\":\"stats\"}\n").expect("sent");
    assert!(next("error")["error"].as_str().is_some_and(|error| error.contains("roster")));
}

#[test]
fn a_watch_waits_for_its_server() {
    let store = Store::new("watch-reconnect", 183);
    let (server, _devices) = serve_two(&store);
    let control = store.path("control.sock");
    let waiting = Running::start(&["watch", "--control", &control, "--reconnect"]);
    let mut other = Running::start(&["watch", "--control", &control]);
    for watch in [&waiting, &other] {
        watch.wait_for_event("listed");
    }
    server.kill();
    waiting.wait_for_event("server-away");
    assert!(other.wait_for_event("error")["error"].as_str().is_some_and(|error| error.contains("ended")));
    let deadline = now() + PATIENCE;
    while other.is_running() && now() < deadline {
        std::thread::yield_now();
    }
    assert!(!other.is_running(), "lines end with their server unless told otherwise");
    let _server = store.serve(&[]);
    waiting.wait_for_event("server-back");
    waiting.wait_for_event("listed");
    waiting.wait_for(|line| line["event"] == "connected");
    assert_eq!(waiting.end(), 0);
}

/// A `tillwire watch` on a terminal of its own.
struct OnTerminal {
    child: Child,
    terminal: File,
    /// A handle of the other side: while it is open the terminal has not hung up.
    inside: File,
    before: Termios,
    pieces: Receiver<Vec<u8>>,
    seen: String,
}

impl OnTerminal {
    fn start(words: &[&str]) -> Self {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&terminal).expect("granted");
        unlockpt(&terminal).expect("unlocked");
        let name = ptsname(&terminal, Vec::new()).expect("a name").into_string().expect("text");
        let inside = File::options().read(true).write(true).open(name).expect("its other side");
        resize(&inside, 30, 150);
        let before = tcgetattr(&inside).expect("settings");
        let side = || Stdio::from(inside.try_clone().expect("a handle"));
        let child = Command::new(env!("CARGO_BIN_EXE_tillwire"))
            .args(words)
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            // Ctrl-Z stops a group that has somebody to wake it up.
            .process_group(0)
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .expect("the program starts");
        let terminal = File::from(terminal);
        let mut reader = terminal.try_clone().expect("a handle");
        let (sender, pieces) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4_096];
            while let Ok(len @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..len].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, terminal, inside, before, pieces, seen: String::new() }
    }

    /// Until all of this was shown since the last call.
    fn shows(&mut self, wanted: &[&str]) {
        let deadline = now() + PATIENCE;
        while !wanted.iter().all(|wanted| self.seen.contains(wanted)) {
            let left = deadline.saturating_duration_since(now());
            match self.pieces.recv_timeout(left) {
                Ok(piece) => self.seen.push_str(&String::from_utf8_lossy(&piece)),
                Err(_) => panic!("waited in vain for {wanted:?} in {:?}", self.seen),
            }
        }
        self.seen.clear();
    }

    fn signal(&self, signal: &str) {
        let status =
            Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    fn modes(&self) -> LocalModes {
        tcgetattr(&self.inside).expect("settings").local_modes
    }

    /// It ends with this code, and the terminal is as it was.
    fn ends(mut self, code: i32) {
        self.shows(&[LEAVE]);
        assert_eq!(self.child.wait().expect("it ends").code(), Some(code));
        assert_eq!(self.modes(), self.before.local_modes, "the terminal's settings are back");
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(terminal: &File, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).expect("a size");
}

#[test]
fn a_table_is_drawn_resized_searched_and_the_terminal_given_back() {
    let store = Store::new("watch-table", 184);
    let (server, _devices) = serve_two(&store);
    let control = store.path("control.sock");
    let mut table = OnTerminal::start(&["watch", "--control", &control]);
    table.shows(&[ENTER, "server Back office", "2 devices", "Kiosk 2", "Till 3", "last events", "2 shown"]);
    assert!(!table.modes().contains(LocalModes::ECHO), "keys are not echoed");
    resize(&table.inside, 6, 60);
    table.signal("WINCH");
    table.shows(&["\x1b[2J", "2 devices", "\x1b[6;1H"]);
    table.terminal.write_all(b"/kiosk\r").expect("typed");
    table.shows(&["1 shown with \"kiosk\""]);
    table.terminal.write_all(b"\x1b").expect("typed");
    table.shows(&["Till 3"]);
    server.kill();
    table.shows(&["server away since"]);
    let _server = store.serve(&[]);
    table.shows(&["2 devices, 2 with a session"]);
    table.terminal.write_all(b"q").expect("typed");
    table.ends(0);
}

#[test]
fn the_terminal_is_given_back_however_it_ends() {
    let store = Store::new("watch-ends", 185);
    let server = store.serve(&["--no-discovery"]);
    let control = store.path("control.sock");
    let start = || {
        let mut table = OnTerminal::start(&["watch", "--control", &control, "--no-reconnect"]);
        table.shows(&[ENTER, "0 devices"]);
        table
    };
    for signal in ["TERM", "INT", "HUP"] {
        let table = start();
        table.signal(signal);
        table.ends(0);
    }
    let mut table = start();
    table.terminal.write_all(b"\x03").expect("Ctrl-C");
    table.ends(0);
    let mut table = start();
    table.terminal.write_all(b"\x1a").expect("Ctrl-Z");
    table.shows(&[LEAVE]);
    let deadline = now() + PATIENCE;
    while table.modes() != table.before.local_modes && now() < deadline {
        std::thread::yield_now();
    }
    assert_eq!(table.modes(), table.before.local_modes, "while it is stopped the terminal is its user's");
    table.signal("CONT");
    table.shows(&[ENTER, "0 devices"]);
    server.kill();
    table.ends(1);
}
