//! `tillwire servers`: what is on this LAN, said to a person and to a program.

mod support;

use support::{Running, code, json_lines, run, stderr};

/// A network of this test alone: a port and addresses.
fn lan() -> (String, impl Fn(u8) -> String) {
    let process = std::process::id() % 250;
    ((41_301 + process * 2).to_string(), move |host| format!("127.93.{process}.{host}"))
}

const BROADCAST: [&str; 2] = ["--broadcast", "127.255.255.255"];

#[test]
fn servers_of_two_stores_and_a_test_server_are_listed_side_by_side() {
    let (port, host) = lan();
    let dir = support::scratch("servers");
    let serve = |at: u8, store: &str, more: &[&str]| {
        let (bind, control) = (host(at), dir.path(&format!("{at}.sock")));
        let mut words = vec!["serve", "--entity", "7", "--open-network", "--store", store, "--bind", &bind];
        words.extend(["--control", &control, "--discovery-port", &port]);
        words.extend(BROADCAST);
        words.extend(more);
        let server = Running::start(&words);
        server.wait_for_event("serving");
        server
    };
    let name = ["--name", "Back office"];
    let paris = serve(1, "PARIS-12", &name);
    let _test = serve(2, "PARIS-12", &["--staging"]);
    let _lyon = serve(3, "LYON-3", &[]);

    let here = host(9);
    let words = [&["servers", "--bind", &here, "--discovery-port", &port], &BROADCAST[..]].concat();
    let output = run(&[&words[..], &["--seconds", "4", "--json"]].concat());
    let lines = json_lines(&output);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let (summary, servers) = lines.split_last().expect("a summary");
    assert_eq!((&summary["event"], &summary["servers"]), (&"summary".into(), &3.into()), "{summary}");
    let said: Vec<_> = servers.iter().map(|one| (one["store"].clone(), one["staging"] == true)).collect();
    assert_eq!(said, [("LYON-3".into(), false), ("PARIS-12".into(), false), ("PARIS-12".into(), true)]);
    let found = &servers[1];
    assert_eq!(found["address"], format!("{}:80", host(1)));
    assert_eq!((&found["entity"], &found["name"]), (&7.into(), &"Back office".into()), "{found}");

    let output = run(&[&words[..], &["--seconds", "4"]].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!((code(&output), text.lines().count()), (0, 4), "{text}");
    assert!(
        text.contains("staging") && text.contains("production") && text.contains("Back office"),
        "{text}"
    );

    // Beside a server on one address: the error says what is free, or that the host needs another.
    let (taken, seconds) = (host(1), ["--seconds", "1"]);
    let words = ["servers", "--bind", &taken, "--discovery-port", &port];
    let output = run(&[&words[..], &BROADCAST, &seconds].concat());
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("--bind"), "{}", stderr(&output));
    assert_eq!(paris.end(), 0);
}

#[test]
fn nobody_is_an_answer_too_and_a_port_taken_everywhere_is_explained() {
    let (_, host) = lan();
    let taken = std::net::UdpSocket::bind(("0.0.0.0", 0)).expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let here = host(9);
    let words = ["servers", "--bind", &here, "--discovery-port", &port, "--seconds", "1", "--json"];
    let words = [&words[..], &BROADCAST].concat();
    let output = run(&words);
    let error = stderr(&output);
    assert_eq!(code(&output), 2);
    assert!(error.contains("every address") && error.contains("tillwire status"), "{error}");
    drop(taken);
    let output = run(&words);
    let lines = json_lines(&output);
    assert_eq!((code(&output), lines.len()), (1, 1));
    assert_eq!((&lines[0]["ok"], &lines[0]["servers"]), (&false.into(), &0.into()));
}
