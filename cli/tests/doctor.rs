//! `tillwire doctor` as its users run it, against real sockets of this host. Nothing leaves loopback: every profile here
//! names addresses of 127.0.0.0/8.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::{Running, Scratch, Store, TILL, code, json_lines, scratch, stderr};

/// Runs `tillwire doctor` apart from servers and proxies of whoever runs the tests.
fn doctor(dir: &Scratch, environment: &[(&str, &str)], words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tillwire"));
    command.arg("doctor").args(words).stdin(Stdio::null()).env("XDG_RUNTIME_DIR", dir.path(""));
    for name in ["HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"] {
        command.env_remove(name);
    }
    command.envs(environment.iter().copied()).output().expect("the program starts")
}

/// The findings, and the exit code.
fn found(dir: &Scratch, environment: &[(&str, &str)], words: &[&str]) -> (i32, Vec<Value>) {
    let output = doctor(dir, environment, &[words, &["--json"]].concat());
    let mut lines = json_lines(&output);
    let summary = lines.pop().unwrap_or_else(|| panic!("{}", stderr(&output)));
    assert_eq!(summary["event"], "summary", "{}", stderr(&output));
    let worst = ["fail", "warn"].iter().find(|grade| lines.iter().any(|line| line["result"] == **grade));
    assert_eq!(summary["worst"], *worst.unwrap_or(&"pass"), "{lines:#?}");
    for line in &lines {
        let needs_none = line["result"] == "pass";
        assert_eq!(line["remedy"] == "", needs_none, "what is not as it should be has a remedy: {line}");
        assert!(line["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{line}");
    }
    (code(&output), lines)
}

fn line<'l>(lines: &'l [Value], subject: &str) -> &'l Value {
    let found = lines.iter().find(|line| line["subject"] == subject);
    found.unwrap_or_else(|| panic!("nothing about {subject}: {lines:#?}"))
}

fn is(line: &Value, result: &str, says: &str) {
    let detail = line["detail"].as_str().unwrap_or_default();
    assert!(line["result"] == result && detail.contains(says), "not {result} {says:?}: {line:#}");
}

fn remedy(line: &Value, says: &str) {
    assert!(line["remedy"].as_str().is_some_and(|remedy| remedy.contains(says)), "no {says:?}: {line:#}");
}

/// Answers each caller on `address` with these bytes, and then reads until the caller leaves.
fn listen(address: &str, answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind(address).expect("a port");
    let at = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut stream = stream;
                // Whoever asks speaks first, and may be gone again.
                let _ = stream.read(&mut [0; 1_024]);
                let _ = stream.write_all(answer);
                let _ = stream.flush();
                if !answer.is_empty() {
                    let _ = stream.shutdown(std::net::Shutdown::Write);
                }
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
            });
        }
    });
    at
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nServer: test\r\n\r\n";
const GARBAGE: &[u8] = b"220 mail ready\r\n";
const SILENT: &[u8] = b"";

/// A port of that address on which nothing ever listened: one that was just closed may be held open a little longer, by
/// a program another test is starting.
fn closed(address: &str) -> SocketAddr {
    format!("{address}:9").parse().expect("an address")
}

/// A profile in a file of its own.
fn profile(dir: &Scratch, text: &str) -> String {
    let path = dir.path("profile.toml");
    std::fs::write(&path, format!("name = \"test\"\n{text}")).expect("a file");
    path
}

#[test]
fn what_is_listed_printed_and_refused() {
    let dir = scratch("doctor-usage");
    let listed = doctor(&dir, &[], &["--list"]);
    let names: Vec<_> = String::from_utf8_lossy(&listed.stdout)
        .lines()
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .collect();
    assert_eq!((code(&listed), names.len()), (0, 13), "{names:?}");
    let document = include_str!("../../docs/DOCTOR.md");
    for name in &names {
        assert!(document.contains(&format!("| `{name}` |")), "docs/DOCTOR.md does not describe {name}");
    }

    for (name, text) in [
        ("store-server", include_str!("../profiles/store-server.toml")),
        ("backup-appliance", include_str!("../profiles/backup-appliance.toml")),
    ] {
        let printed = doctor(&dir, &[], &["--profile", name, "--print-profile"]);
        assert_eq!((code(&printed), String::from_utf8_lossy(&printed.stdout).as_ref()), (0, text));
    }
    let example = document.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("one");
    std::fs::write(dir.path("example.toml"), example).expect("a file");
    let printed = doctor(&dir, &[], &["--profile", &dir.path("example.toml"), "--print-profile"]);
    assert_eq!(code(&printed), 0, "the example of docs/DOCTOR.md is a profile: {}", stderr(&printed));

    let wrong = profile(&dir, "\n[devices]\nports = 8081\n");
    for (words, cause) in [
        (&["--profile", wrong.as_str()][..], "profile.toml:4: unknown field `ports`"),
        (&["--profile", "/no/such/profile"], "cannot read the profile"),
        (&["--only", "everything"], "everything"),
        (&["--only", "clock", "--skip", "clock"], "no check is left"),
        (&["--timeout", "0"], "0"),
        (&["--proxy", "https://proxy"], "http://"),
        (&["--device", "--device", "10.0.0.1"], "this host is a device"),
        (&["--control", "127.0.0.1:9"], "127.0.0.1:9"),
    ] {
        let output = doctor(&dir, &[], words);
        assert_eq!(code(&output), 2, "{words:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(cause), "{words:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty(), "{words:?}");
    }
}

#[test]
fn services_that_answer_and_those_that_do_not() {
    let dir = scratch("doctor-services");
    let good = listen("127.41.7.20:41720", OK);
    listen("127.41.7.20:41721", GARBAGE);
    listen("127.41.7.20:41722", SILENT);
    listen("127.41.7.20:41723", b"HTTP/1.1 503 Busy\r\n\r\n");
    listen("127.0.0.1:41724", OK);
    let text = "[[service]]\nports = [41720, 41721, 41722, 41723, 41724, 41725]\nprotocol = \"http\"\n\
                [[service]]\nports = [41722, 41726]\nprotocol = \"tcp\"\nrequired = false\npurpose = \"printing\"\n";
    let profile = profile(&dir, text);
    let common = ["--profile", &profile, "--only", "services", "--timeout", "3000"];
    let (code, lines) = found(&dir, &[], &[&common[..], &["--bind", "127.41.7.20"]].concat());
    assert_eq!((code, lines.len()), (1, 8), "{lines:#?}");
    is(line(&lines, "41720/tcp"), "pass", "HTTP at 127.41.7.20");
    is(line(&lines, "41721/tcp"), "warn", "does not speak HTTP");
    is(line(&lines, "41722/tcp"), "warn", "does not speak HTTP");
    is(line(&lines, "41723/tcp"), "warn", "503");
    is(line(&lines, "41724/tcp"), "fail", "127.0.0.1 only");
    is(line(&lines, "41725/tcp"), "fail", "127.41.7.20, 127.0.0.1: refused");
    is(&lines[6], "pass", "TCP at 127.41.7.20 (printing)");
    is(line(&lines, "41726/tcp"), "warn", "printing");
    // The same from a device, which sees what the LAN sees.
    let server = good.ip().to_string();
    let (_, lines) = found(&dir, &[], &[&common[..], &["--device", "--server", &server]].concat());
    is(line(&lines, "41720/tcp"), "pass", "127.41.7.20");
    is(line(&lines, "41724/tcp"), "fail", "refused");
    remedy(line(&lines, "41724/tcp"), "on the server");
}

#[test]
fn the_way_out_directly() {
    let dir = scratch("doctor-direct");
    let (open, shut) = (listen("127.41.7.31:0", SILENT).port(), closed("127.41.7.32").port());
    let text = format!(
        "[[outgoing]]\nhosts = [\"127.41.7.31\"]\nports = [{shut}, {open}]\npurpose = \"any port\"\n\
         [[outgoing]]\nhosts = [\"127.41.7.32\", \"127.41.7.31\"]\nports = [{open}]\n\
         [[outgoing]]\nhosts = [\"127.41.7.32\"]\nports = [{shut}]\n\
         [[outgoing]]\nhosts = [\"127.41.7.33\"]\nports = [{shut}]\nrequired = false\n"
    );
    let profile = profile(&dir, &text);
    let words = ["--profile", &profile, "--only", "cloud"];
    let (code, lines) = found(&dir, &[], &words);
    assert_eq!((code, lines.len()), (1, 4));
    is(&lines[0], "pass", &format!("127.41.7.31:{open} is reached directly"));
    is(&lines[0], "pass", "(any port)");
    is(&lines[1], "pass", &format!("; 127.41.7.32:{open}: refused"));
    is(&lines[2], "fail", &format!("127.41.7.32:{shut}: refused"));
    remedy(&lines[2], "--proxy");
    is(&lines[3], "warn", "refused");
}

/// A proxy that has seen `CONNECT` with this login, if it wants one.
fn proxy(answer: &'static [u8], login: Option<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind("127.41.7.40:0").expect("a port");
    let at = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = stream;
            let mut request = Vec::new();
            let mut piece = [0; 512];
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut piece) {
                    Ok(0) | Err(_) => break,
                    Ok(len) => request.extend_from_slice(&piece[..len]),
                }
            }
            let request = String::from_utf8_lossy(&request).into_owned();
            let asks =
                request.starts_with("CONNECT cloud.invalid:443 HTTP/1.1\r\nHost: cloud.invalid:443\r\n");
            let knows = login.is_none_or(|login| request.contains(login));
            let refusal: &[u8] = if asks {
                b"HTTP/1.1 407 Who?\r\nProxy-Authenticate: Basic\r\n\r\n"
            } else {
                b"HTTP/1.1 400 What?\r\n\r\n"
            };
            let _ = stream.write_all(if asks && knows { answer } else { refusal });
            if answer.is_empty() {
                // A slow one: it holds the caller until that has had enough.
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
            }
        }
    });
    at
}

#[test]
fn the_way_out_by_a_proxy() {
    let dir = scratch("doctor-proxy");
    let text = "[[outgoing]]\nhosts = [\"cloud.invalid\"]\nports = [443]\n";
    let profile = profile(&dir, text);
    let words = ["--profile", &profile, "--only", "cloud", "--timeout", "2000"];
    let granted = b"HTTP/1.1 200 Connection established\r\n\r\n";
    for (answer, login, result, says, helps) in [
        (&granted[..], None, "pass", "cloud.invalid:443 is reached by the proxy", ""),
        (granted, Some("Proxy-Authorization: Basic dGlsbDpzQGNyZXQ="), "pass", "by the proxy", ""),
        (granted, Some("nobody knows"), "fail", "user name and a password (407)", "USER:PASSWORD"),
        (b"HTTP/1.0 403 Forbidden\r\n\r\n", None, "fail", "refuses with status 403", "allow CONNECT"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", None, "fail", "does not speak HTTP", "--no-proxy"),
        (b"", None, "fail", "does not answer", "--no-proxy"),
    ] {
        let at = proxy(answer, login);
        let given = format!("http://till:s%40cret@{at}");
        let (code, lines) = found(&dir, &[], &[&words[..], &["--proxy", &given]].concat());
        assert_eq!(code, i32::from(result == "fail"), "{lines:#?}");
        is(&lines[0], result, says);
        assert!(
            helps.is_empty() || lines[0]["remedy"].as_str().is_some_and(|text| text.contains(helps)),
            "{lines:#?}"
        );
        assert!(!lines[0].to_string().contains("cret"), "a password is never shown: {lines:#?}");
    }
    let nobody = format!("http://{}", closed("127.41.7.40"));
    let (_, lines) = found(&dir, &[], &[&words[..], &["--proxy", &nobody]].concat());
    is(&lines[0], "fail", "is not reached: refused");
}

#[test]
fn the_proxy_of_the_environment_and_whom_it_is_not_for() {
    let dir = scratch("doctor-environment");
    let open = listen("127.41.7.31:0", SILENT).port();
    let text = format!("[[outgoing]]\nhosts = [\"127.41.7.31\"]\nports = [{open}]\n");
    let profile = profile(&dir, &text);
    let words = ["--profile", &profile, "--only", "cloud"];
    let nobody = format!("http://{}", closed("127.41.7.41"));
    let environment = [("HTTPS_PROXY", nobody.as_str())];
    is(&found(&dir, &environment, &words).1[0], "fail", "is not reached");
    is(&found(&dir, &environment, &[&words[..], &["--no-proxy"]].concat()).1[0], "pass", "directly");
    let besides = [environment[0], ("NO_PROXY", "localhost,127.41.7.31")];
    is(&found(&dir, &besides, &words).1[0], "pass", "directly");
    let output = doctor(&dir, &[("https_proxy", "ftp://x")], &words);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("HTTPS_PROXY"), "{}", stderr(&output));
}

#[test]
fn a_second_process_on_the_port_is_named() {
    if !cfg!(target_os = "linux") {
        println!("skipped: sockets are named through /proc");
        return;
    }
    let dir = scratch("doctor-port");
    let words = ["--only", "port", "--bind", "127.41.7.50", "--discovery-port", "41750"];
    let (_, lines) = found(&dir, &[], &words);
    is(line(&lines, "41750/udp"), "pass", "free");
    let other = UdpSocket::bind("127.41.7.50:41750").expect("a port");
    let (code, lines) = found(&dir, &[], &words);
    assert_eq!(code, 1);
    is(line(&lines, "41750/udp"), "fail", &format!("(pid {}) at 127.41.7.50", std::process::id()));
    remedy(line(&lines, "41750/udp"), "stop the other process");
    drop(other);
    let words = ["--only", "port", "--bind", "127.41.7.50", "--discovery-port", "41751"];
    // Two that share it: whoever came last takes what is for the first.
    let shared = || {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("shared");
        let at: SocketAddr = "127.41.7.50:41751".parse().expect("an address");
        socket.bind(&at.into()).expect("a port");
        socket
    };
    let _both = (shared(), shared());
    let (_, lines) = found(&dir, &[], &words);
    is(line(&lines, "one process"), "fail", "2 sockets share 127.41.7.50:41751");
}

#[test]
fn beside_a_running_server_its_port_is_rightly_taken_and_its_devices_are_known() {
    let store = Store::new("doctor-server", 47);
    let server = store.serve(&["--device", "127.47.0.9:41790"]);
    let device = store.device(TILL, 2, &[]);
    server.wait_for_event("connected");
    let dir = scratch("doctor-beside");
    let (control, bind, port) = (store.path("control.sock"), store.host(1), store.discovery.to_string());
    let words = [
        "--only",
        "port,broadcast,devices,receive-buffer,open-files",
        "--control",
        &control,
        "--bind",
        &bind,
    ];
    let words = [&words[..], &["--broadcast", "127.255.255.255", "--discovery-port", &port]].concat();
    let (code, lines) = found(&dir, &[], &words);
    assert_eq!(code, 1, "the device that was given by address is not there");
    if cfg!(target_os = "linux") {
        is(
            line(&lines, &format!("{port}/udp")),
            "pass",
            "taken by the server that runs here: tillwire (pid ",
        );
        assert!(lines.iter().all(|line| line["subject"] != "one process"), "broadcasts are shared by design");
    }
    is(line(&lines, &bind), "pass", "is heard here");
    is(line(&lines, "127.47.0.9:41790"), "fail", "refused");
    assert!(
        lines.iter().all(|line| line["subject"] != store.host(2) + ":8081"),
        "a session is the proof: {lines:#?}"
    );
    is(
        line(&lines, "queue"),
        line(&lines, "queue")["result"].as_str().expect("a grade"),
        "2 devices are expected (those",
    );
    device.kill();
    assert_eq!(server.end(), 0);
}

#[test]
fn devices_by_address() {
    let dir = scratch("doctor-devices");
    let (open, shut) = (listen("127.41.7.60:0", SILENT), closed("127.41.7.61"));
    let (open, shut) = (open.to_string(), shut.to_string());
    let (code, lines) = found(&dir, &[], &["--only", "devices", "--device", &open, "--device", &shut]);
    assert_eq!((code, lines.len()), (1, 2));
    is(line(&lines, &open), "pass", "takes a connection");
    is(line(&lines, &shut), "fail", "refused");
    let (code, _) = found(&dir, &[], &["--only", "devices", "--device", &open]);
    assert_eq!(code, 0);
    let many: Vec<String> = (1..=23).map(|host| format!("127.41.8.{host}:9")).collect();
    let words: Vec<&str> = many.iter().flat_map(|device| ["--device", device.as_str()]).collect();
    let (_, lines) = found(&dir, &[], &[&["--only", "devices"], &words[..]].concat());
    assert_eq!(lines.len(), 11);
    is(line(&lines, "all"), "fail", "0 of 23 take a connection; 23 refused");
}

#[test]
fn a_warning_ends_with_0_and_strictly_with_1() {
    let dir = scratch("doctor-strict");
    // No device is known: that is worth a warning.
    let (code, lines) = found(&dir, &[], &["--only", "devices"]);
    assert_eq!(code, 0);
    is(&lines[0], "warn", "no device is known");
    assert_eq!(found(&dir, &[], &["--only", "devices", "--strict"]).0, 1);
}

#[test]
fn the_clock_is_compared_with_whoever_says_the_time() {
    let dir = scratch("doctor-clock");
    let old = listen("127.41.7.70:0", b"HTTP/1.0 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n");
    let profile = profile(&dir, &format!("[clock]\nhttp = [\"{old}\"]\n"));
    let (code, lines) = found(&dir, &[], &["--profile", &profile, "--only", "clock"]);
    assert_eq!(code, 1);
    is(line(&lines, "others"), "fail", &format!("s ahead of that of {old}"));
    is(line(&lines, "time"), "pass", "discovery and orders need no clock");
}

#[test]
fn rules_are_for_root_and_that_is_said() {
    let dir = scratch("doctor-nobody");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", env!("CARGO_BIN_EXE_tillwire")]);
    command.args(["doctor", "--only", "firewall", "--json"]).env("XDG_RUNTIME_DIR", dir.path("none"));
    let output = match command.output() {
        Ok(output) if output.status.code().is_some_and(|code| code < 2) => output,
        Ok(output) => return println!("skipped: not to be run as another user: {}", stderr(&output)),
        Err(error) => return println!("skipped: no setpriv: {error}"),
    };
    let lines = json_lines(&output);
    is(&lines[0], "warn", "without being root");
    remedy(&lines[0], "sudo");
    assert_eq!(code(&output), 0, "what cannot be read is no failure");
}

#[test]
fn people_get_groups_remedies_and_the_worst() {
    let dir = scratch("doctor-people");
    let shut = closed("127.41.7.80").to_string();
    let output = doctor(&dir, &[], &["--only", "devices,identity,state", "--device", &shut]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(code(&output), 1, "{text}");
    assert!(!text.contains('\u{1b}'), "no colours in a pipe: {text:?}");
    for part in [
        "orders to the devices\n",
        "  fail  devices ",
        "→ start the application",
        "\nthis host\n",
        "worst: fail ",
    ] {
        assert!(text.contains(part), "{part:?} is missing in {text}");
    }
    assert!(stderr(&output).is_empty(), "no progress in a pipe: {}", stderr(&output));
}

#[test]
fn a_frozen_server_does_not_keep_the_report_back() {
    let dir = scratch("doctor-frozen");
    let control = dir.path("tillwire.sock");
    let words = [
        "serve",
        "--store",
        "TEST",
        "--open-network",
        "--no-discovery",
        "--bind",
        "127.41.7.90",
        "--control",
    ];
    let server = Running::start(&[&words[..], &[&control]].concat());
    server.wait_for_event("serving");
    server.signal("STOP");
    let (code, lines) = found(&dir, &[], &["--only", "devices", "--timeout", "300"]);
    assert_eq!((code, lines.len()), (0, 1));
    is(&lines[0], "warn", "no device is known");
    server.signal("CONT");
    assert_eq!(server.end(), 0);
}
