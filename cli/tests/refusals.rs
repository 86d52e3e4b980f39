//! What is not started is said in one line with its cause and a way out, and exit code 2.

mod support;

use std::net::{TcpListener, UdpSocket};

use support::{Running, code, json_lines, run, scratch, stderr};

const ID: &str = "0123456789abcdef0123456789abcdef";

/// Runs into exit code 2 with two lines on stderr, of which the first says `cause` and the second `help`.
fn refused(words: &[&str], cause: &str, help: &str) {
    let output = run(words);
    let text = stderr(&output);
    assert_eq!(code(&output), 2, "{words:?}: {text}");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{words:?}: {text}");
    assert!(lines[0].starts_with("error: ") && lines[0].contains(cause), "{words:?}: {text}");
    assert!(lines[1].starts_with("  help: ") && lines[1].contains(help), "{words:?}: {text}");
    assert!(output.stdout.is_empty(), "{words:?}");
}

#[test]
fn usage_is_explained() {
    refused(&["serv"], "serv", "serve");
    refused(&["serve"], "--store", "usage");
    refused(&["device", "--store", "X", "--id", "12", "--open-network"], "32 hexadecimal digits", "help");
    refused(&["device", "--store", "X", "--open-network"], "--id", "usage");
    refused(&["serve", "--store", "", "--open-network"], "store code", "--store");
    refused(&["serve", "--store", "X", "--open-network", "--device", "here"], "here", "help");
    refused(&["serve", "--store", "X", "--open-network", "--control", "10.0.0.1:5"], "loopback", "help");
    refused(&["serve", "--store", "X", "--open-network", "--from", "shop"], "10.57.0.0/16", "help");
    refused(&["push", "message", "hi"], "--to", "usage");
    refused(&["push", "message", "hi", "--to", "everyone"], "everyone", "help");
    refused(&["push", "custom", "0x8001", "--hex", "0", "--to", "all"], "pairs", "--hex");
    refused(&["demo", "--devices", "0"], "0", "help");
}

#[test]
fn clear_mode_is_never_a_default() {
    refused(&["serve", "--store", "X"], "no security was chosen", "--open-network");
    refused(&["device", "--store", "X", "--id", ID], "no security was chosen", "--open-network");
}

#[test]
fn ports_in_use_are_named() {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = tcp.local_addr().expect("its address").port().to_string();
    let device = ["device", "--store", "X", "--id", ID, "--open-network", "--bind", "127.0.0.1"];
    let words = [&device[..], &["--no-discovery", "--port", &port]].concat();
    refused(&words, &format!("127.0.0.1:{port}"), "--port");

    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = udp.local_addr().expect("its address").port().to_string();
    let dir = scratch("ports");
    let control = dir.path("control.sock");
    let control = control.as_str();
    let serve = ["serve", "--store", "X", "--open-network", "--control", control];
    let net = ["--bind", "127.0.0.1", "--broadcast", "127.255.255.255", "--discovery-port", &port];
    refused(&[&serve[..], &net].concat(), &port, "--bind");
    assert!(!std::path::Path::new(control).exists(), "nothing is left half-started");

    let address = tcp.local_addr().expect("its address").to_string();
    let words = ["serve", "--store", "X", "--open-network", "--no-discovery", "--control", &address];
    refused(&words, "in use", "--control");
}

#[test]
fn a_control_socket_in_use_and_one_without_a_server() {
    let dir = scratch("control");
    let control = dir.path("control.sock");
    let control = control.as_str();
    refused(&["watch", "--control", control], "no server answers", "tillwire serve");
    let words = ["serve", "--store", "X", "--open-network", "--no-discovery", "--control", control];
    let first = Running::start(&words);
    first.wait_for_event("serving");
    refused(&words, "in use", "--control");
    first.kill();
    assert!(std::path::Path::new(control).exists(), "a killed server leaves its name");
    let second = Running::start(&words);
    second.wait_for_event("serving");
    assert_eq!(second.end(), 0, "asked politely, it ends well");
    assert!(!std::path::Path::new(control).exists(), "and takes its name along");
}

#[test]
fn a_state_directory_serves_one_process() {
    let dir = scratch("state");
    let state = dir.path("state");
    let state = state.as_str();
    let device = ["device", "--store", "X", "--id", ID, "--open-network", "--no-discovery", "--state", state];
    let words = [&device[..], &["--bind", "127.0.0.1", "--port", "0"]].concat();
    let running = Running::start(&words);
    running.wait_for_event("listening");
    refused(&words, "in use by another process", "--state");
}

#[test]
fn an_error_is_a_json_line_too() {
    let output = run(&["serve", "--store", "X", "--json"]);
    let lines = json_lines(&output);
    assert_eq!((code(&output), lines.len()), (2, 1));
    assert_eq!(lines[0]["event"], "error");
    assert!(lines[0]["help"].as_str().expect("a help").contains("--open-network"));
}

#[test]
fn help_and_version_are_not_errors() {
    for words in [&["--help"][..], &["serve", "--help"], &["push", "print", "--help"], &["--version"]] {
        let output = run(words);
        assert_eq!(code(&output), 0, "{words:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{words:?}");
    }
    for command in ["doctor", "demo", "serve", "device", "push", "watch", "explain"] {
        let output = run(&[command, "--help"]);
        assert!(String::from_utf8_lossy(&output.stdout).contains("Examples:"), "{command}");
    }
}
