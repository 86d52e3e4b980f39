//! Server, devices and pushes as processes of their own, over loopback.
//!
//! Each test has a port of discovery of its own, so that they may run side by side; devices have addresses of their
//! own.

mod support;

use std::io::Write;
use std::net::{TcpStream, UdpSocket};

use serde_json::Value;
use support::{KIOSK, Running, Store, TILL, both_connected, code, connected, json_lines, run, stderr};

#[test]
fn discovered_devices_get_what_is_pushed_and_say_so() {
    let store = Store::new("discovery", 61);
    let server = store.serve(&[]);
    let about = "--kind kiosk --zone 3 --tag bakery --name Kiosk-2 --firmware 12.4711 --http 8082";
    let kiosk = store.device(KIOSK, 2, &about.split(' ').collect::<Vec<_>>());
    let arrived = server.wait_for(|line| line["event"] == "joined" && line["device"]["id"] == KIOSK);
    assert_eq!(arrived["device"]["firmware"], "12.4711", "{arrived}");
    assert_eq!(arrived["device"]["services"][0]["port"], 8_082, "{arrived}");
    server.wait_for(connected(KIOSK));
    let _till = store.device(TILL, 3, &["--reject", "0x8001"]);
    server.wait_for(connected(TILL));

    let (code, summary) = store.push(&["message", "Lane 3 please", "--to", "all", "--key", "k-1"]);
    assert_eq!((code, &summary["ok"], &summary["targets"]), (0, &true.into(), &2.into()), "{summary}");
    assert_eq!(summary["outcomes"]["applied"], 2);
    assert!(summary["latency_us"]["max"].as_u64().expect("a number") > 0);
    let (code, again) = store.push(&["message", "Lane 3 please", "--to", "all", "--key", "k-1"]);
    assert_eq!((code, &again["order"]), (0, &summary["order"]), "one deed, one order: {again}");

    let (code, summary) = store.push(&["custom", "0x8001", "--hex", "0102", "--to", "all", "--each"]);
    assert_eq!((code, &summary["ok"]), (1, &false.into()), "the till refuses it: {summary}");
    assert_eq!(
        (&summary["outcomes"]["applied"], &summary["outcomes"]["rejected-kind"]),
        (&1.into(), &1.into())
    );

    for to in ["kind=kiosk", "zone=3", "tag=bakery", "kind=kiosk,zone=3,tag=bakery", "id=11111111"] {
        let (code, summary) = store.push(&["show-page", "/promo", "--to", to]);
        assert_eq!((code, &summary["targets"]), (0, &1.into()), "{to}: {summary}");
    }
    let order = kiosk.wait_for(|line| line["event"] == "order" && line["kind"] == "show-page");
    assert_eq!((&order["outcome"], &order["redelivered"]), (&"applied".into(), &false.into()));
    assert_eq!((store.ledger(KIOSK).len(), store.ledger(TILL).len()), (7, 2));
    let line = &store.ledger(KIOSK)[1];
    assert_eq!(line["kind"], "0x8001");
    assert_eq!(line["payload_sha256"], "a12871fee210fb8619291eaea194581cbd2531e4b23759d225f6806923f63222");
    assert_ne!(store.ledger(KIOSK)[0]["order_key"], 0, "the key travels with the order");
}

#[test]
fn a_quorum_ends_the_wait_and_status_counts() {
    let store = Store::new("quorum", 68);
    let gone = format!("{}:8081", store.host(9));
    let there = format!("{}:8081", store.host(2));
    let server = store.serve(&["--no-discovery", "--shards", "2", "--device", &there, "--device", &gone]);
    let _till = store.device(TILL, 2, &["--no-discovery"]);
    server.wait_for(connected(TILL));
    let (status, summary) = store.push(&["message", "hi", "--to", "all", "--quorum", "50%", "--wait", "20"]);
    assert_eq!((status, &summary["ok"], &summary["reached"]), (0, &true.into(), &true.into()), "{summary}");
    assert_eq!((&summary["outcomes"]["applied"], &summary["unsettled"]), (&1.into(), &1.into()));
    let (status, summary) = store.push(&["message", "hi", "--to", "all", "--quorum", "2", "--wait", "0.2"]);
    assert_eq!((status, &summary["reached"]), (1, &false.into()), "one of two is gone: {summary}");
    let version = |version| {
        [
            "message",
            "v",
            "--to",
            "all",
            "--wait",
            "0.2",
            "--supersede-key",
            "m",
            "--supersede-version",
            version,
        ]
    };
    store.push(&version("1"));
    let (_, summary) = store.push(&version("2"));
    assert_eq!(summary["outcomes"]["applied"], 1, "{summary}");

    let control = store.path("control.sock");
    let output = run(&["status", "--control", &control, "--json"]);
    let stats = json_lines(&output).pop().expect("a line");
    assert_eq!((code(&output), &stats["connected"], &stats["shards"]), (0, &1.into(), &2.into()), "{stats}");
    assert_eq!(stats["push"]["orders_sent"], 4);
    // The first version never left for the device that is gone.
    assert_eq!((&stats["push"]["superseded"], &stats["live_orders"]), (&1.into(), &3.into()), "{stats}");
    assert_eq!(
        code(&run(&["push", "message", "v", "--to", "all", "--supersede-key", "m", "--control", &control])),
        2
    );
}

#[test]
fn a_stock_question_shows_what_each_device_answers() {
    let store = Store::new("stock", 69);
    let devices = [store.host(2), store.host(3)].map(|host| format!("{host}:8081"));
    let server = store.serve(&["--no-discovery", "--device", &devices[0], "--device", &devices[1]]);
    let _kiosk = store.device(KIOSK, 2, &["--no-discovery", "--answer-stock", "3.5"]);
    let _till = store.device(TILL, 3, &["--no-discovery", "--answer-stock", "none", "--later-ms", "50"]);
    both_connected(&server);
    let control = store.path("control.sock");
    let ask = |how: &[&str]| {
        let words = [&["push", "stock-question", "4006381333931", "--to", "all", "--control", &control], how];
        json_lines(&run(&words.concat()))
    };
    for (how, event) in [(&["--json"][..], "device"), (&["--json", "--stream"], "outcome")] {
        let lines = ask(how);
        let summary = lines.last().expect("a summary");
        assert_eq!((&summary["ok"], &summary["results"]), (&true.into(), &2.into()), "{lines:#?}");
        let answers: Vec<_> = lines.iter().filter(|line| line["event"] == event).collect();
        assert_eq!(answers.len(), 2, "{lines:#?}");
        for answer in answers {
            let stock = &answer["stock"];
            assert_eq!(stock["article"], 4_006_381_333_931_u64);
            let expected = if answer["device"] == KIOSK { "counted" } else { "none" };
            assert_eq!(stock["level"], expected, "{answer}");
        }
    }
}

#[test]
fn devices_are_asked_and_answer_or_not() {
    let store = Store::new("ask", 71);
    let devices = [2, 3, 9].map(|host| format!("{}:8081", store.host(host)));
    let listed: Vec<&str> = devices.iter().flat_map(|device| ["--device", device]).collect();
    let server = store.serve(&[&["--no-discovery", "--answer-stock", "12"], &listed[..]].concat());
    let _kiosk = store.device(KIOSK, 2, &["--no-discovery", "--kind", "kiosk", "--answer-stock", "3.5"]);
    let till = store.device(TILL, 3, &["--no-discovery", "--ask-stock", "7"]);
    both_connected(&server);
    let answer = till.wait_for_event("answer");
    assert_eq!(
        (&answer["code"], &answer["stock"]["quantity_milli"]),
        (&"ok".into(), &12_000.into()),
        "{answer}"
    );
    let control = store.path("control.sock");
    let ask =
        |whom: &str| run(&["ask", "stock", "4006381333931", "--to", whom, "--control", &control, "--json"]);
    let output = ask("kind=kiosk");
    let lines = json_lines(&output);
    assert_eq!((code(&output), &lines[0]["code"], &lines[0]["device"]), (0, &"ok".into(), &KIOSK.into()));
    assert_eq!(lines[0]["stock"]["quantity_milli"], 3_500, "{lines:#?}");
    let output = ask("all");
    let lines = json_lines(&output);
    assert_eq!((code(&output), lines.len()), (1, 3), "the till cannot answer: {lines:#?}");
    assert_eq!((&lines[2]["asked"], &lines[2]["answered"]), (&2.into(), &1.into()));
    assert!(lines.iter().any(|line| line["device"] == TILL && line["code"] == "unknown-kind"));
    assert_eq!(till.wait_for_event("question")["answer"], "unknown-kind");
    assert_eq!(code(&ask("zone=77")), 2, "nobody is there");
    drop(till);
    server.wait_for(|line| line["event"] == "disconnected" && line["device"]["id"] == TILL);
    let output = ask(&format!("id={TILL}"));
    let lines = json_lines(&output);
    assert_eq!((code(&output), &lines[0]["code"]), (1, &Value::Null), "nothing waits for it: {lines:#?}");
}

#[test]
fn an_order_that_waits_is_cancelled_and_one_that_was_begun_is_not() {
    let store = Store::new("cancel", 70);
    let address = format!("{}:8081", store.host(2));
    let server = store.serve(&["--no-discovery", "--device", &address]);
    let till = store.device(TILL, 2, &["--no-discovery", "--later-ms", "4000"]);
    server.wait_for(connected(TILL));
    let control = store.path("control.sock");
    let push = |text| {
        let words = ["push", "message", text, "--to", "all", "--wait", "30", "--control", &control];
        let push = Running::start(&words);
        let order = push.wait_for_event("accepted")["order"].as_u64().expect("a number");
        (push, order.to_string())
    };
    let (begun, first) = push("begun");
    till.wait_for_event("order");
    let (waits, second) = push("waits");
    let cancel = |order: &str| run(&["cancel", order, "--control", &control, "--json"]);
    for order in [&first, &second] {
        let output = cancel(order);
        assert_eq!((code(&output), &json_lines(&output)[0]["event"]), (0, &"cancelling".into()));
    }
    assert_eq!(waits.wait_for_event("summary")["outcomes"]["cancelled"], 1);
    assert_eq!(begun.wait_for_event("summary")["outcomes"]["applied"], 1, "it had been begun");
    let output = cancel(&second);
    assert_eq!(code(&output), 2, "it has ended: {}", stderr(&output));
    assert_eq!(store.ledger(TILL).len(), 1);
}

#[test]
fn nobody_meant_is_an_error_that_names_what_matched_nothing() {
    let store = Store::new("nobody", 62);
    let _server = store.serve(&["--no-discovery"]);
    let control = store.path("control.sock");
    for (to, says) in [("kind=signage", "kind=signage"), ("all", "all"), ("id=11111111", "11111111")] {
        let output = run(&["push", "message", "hi", "--to", to, "--control", &control]);
        assert_eq!(code(&output), 2, "{to}");
        assert!(
            stderr(&output).starts_with("error: ") && stderr(&output).contains(says),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn a_device_by_address_needs_no_discovery_and_is_watched() {
    let store = Store::new("static", 63);
    let address = format!("{}:8081,kind=printer,zone=9", store.host(2));
    let server = store.serve(&["--no-discovery", "--device", &address]);
    let control = store.path("control.sock");
    let watch = Running::start(&["watch", "--control", &control]);
    let listed = watch.wait_for_event("listed");
    assert_eq!(listed["devices"], 1);

    let (code, summary) = store.push(&["message", "hi", "--to", "kind=printer", "--wait", "0.3"]);
    assert_eq!(
        (code, &summary["unsettled"], &summary["pending"]["unreachable"]),
        (1, &1.into(), &1.into()),
        "{summary}"
    );

    let device = store.device(KIOSK, 2, &["--no-discovery", "--kind", "kiosk"]);
    let event = watch.wait_for(connected(KIOSK));
    assert_eq!(event["device"]["connected"], true);
    assert_eq!(device.wait_for_event("order")["kind"], "message", "what waited for it arrives");
    drop(device);
    watch.wait_for(|line| line["event"] == "disconnected" && line["device"]["id"] == KIOSK);
    assert_eq!(server.end(), 0);
}

#[test]
fn a_killed_and_restarted_device_gets_its_next_order() {
    let store = Store::new("killed", 64);
    let state = store.path("device");
    let server = store.serve(&[]);
    let device = store.device(KIOSK, 2, &["--state", &state]);
    server.wait_for(connected(KIOSK));
    assert_eq!(store.push(&["message", "one", "--to", "all"]).0, 0);
    device.kill();
    server.wait_for(|line| line["event"] == "disconnected" && line["device"]["id"] == KIOSK);
    let (code, summary) = store.push(&["message", "two", "--to", "all", "--wait", "0.2"]);
    assert_eq!((code, &summary["unsettled"]), (1, &1.into()), "nobody is there: {summary}");
    let _device = store.device(KIOSK, 2, &["--state", &state]);
    let event = server.wait_for(connected(KIOSK));
    assert_eq!(event["rebooted"], true);
    let (code, summary) = store.push(&["message", "three", "--to", "all"]);
    assert_eq!((code, &summary["outcomes"]["applied"]), (0, &1.into()), "{summary}");
    let ledger = store.ledger(KIOSK);
    let orders: Vec<_> = ledger.iter().map(|line| line["order"].as_u64().expect("a number")).collect();
    assert_eq!(orders, [1, 2, 3], "each once and in order: {ledger:?}");
}

#[test]
fn garbage_on_both_ports_leaves_others_served() {
    let store = Store::new("garbage", 65);
    let mut server = store.serve(&[]);
    let mut device = store.device(KIOSK, 2, &[]);
    server.wait_for(connected(KIOSK));
    let junk: Vec<u8> = (0..2_000_u32).map(|n| (n * 97 % 251) as u8).collect();
    let udp = UdpSocket::bind((store.host(9).as_str(), 0)).expect("a port");
    let targets = [store.host(1), store.host(2)];
    for len in [0, 1, 4, 47, 48, 200, 1_400] {
        let mut datagram = junk[..len].to_vec();
        if len >= 8 {
            datagram[..4].copy_from_slice(b"TWLD");
            datagram[4] = 0x10;
        }
        for target in &targets {
            udp.send_to(&datagram, (target.as_str(), store.discovery)).expect("sent");
        }
    }
    for bytes in [&junk[..], b"GET / HTTP/1.1\r\n\r\n", &[0; 64]] {
        let mut tcp = TcpStream::connect((store.host(2).as_str(), 8081)).expect("it listens");
        // It may hang up on us at any byte.
        let _ = tcp.write_all(bytes);
    }
    // A stranger that says nothing holds nobody up.
    let _silent = TcpStream::connect((store.host(2).as_str(), 8081)).expect("it listens");
    let (code, summary) = store.push(&["message", "still here", "--to", "all"]);
    assert_eq!((code, &summary["outcomes"]["applied"]), (0, &1.into()), "{summary}");
    assert!(server.is_running() && device.is_running());
}

#[test]
fn the_control_socket_refuses_what_is_no_request_and_goes_on() {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixStream;
    let store = Store::new("control", 66);
    let _server = store.serve(&["--no-discovery"]);
    let open = || {
        let stream = UnixStream::connect(store.path("control.sock")).expect("it listens");
        let mut lines = BufReader::new(stream.try_clone().expect("a second handle")).lines();
        let hello: Value = serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON");
        assert_eq!((&hello["event"], &hello["control"]), (&"hello".into(), &1.into()));
        (stream, lines)
    };
    let (mut stream, mut lines) = open();
    stream.write_all(b"{\"do\":\"dance\"}\n{\"do\":\"stats\"}\n").expect("written");
    let mut next =
        || -> Value { serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON") };
    assert_eq!(next()["event"], "error");
    assert_eq!((&next()["event"], 0), (&"stats".into(), 0), "the connection goes on");
    let (mut stream, lines) = open();
    stream.write_all(b"POST / HTTP/1.1\r\n{\"do\":\"stats\"}\n").expect("written");
    let rest: Vec<_> = lines.map_while(Result::ok).collect();
    assert_eq!(rest.len(), 1, "one error and the end: {rest:?}");
}

#[test]
fn callers_of_the_control_socket_at_their_limit_and_one_past_it() {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;
    let store = Store::new("callers", 67);
    let server = store.serve(&["--no-discovery"]);
    let open = || {
        let stream = UnixStream::connect(store.path("control.sock")).expect("it listens");
        stream.set_read_timeout(Some(support::PATIENCE)).expect("a timeout");
        stream
    };
    let greeted = |mut stream: &UnixStream| stream.read(&mut [0; 1]).is_ok_and(|len| len == 1);
    let mut callers: Vec<_> = (0..64).map(|_| open()).collect();
    assert!(callers.iter().all(greeted), "64 callers are served");
    let waiting = open();
    waiting.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    assert!(!greeted(&waiting), "the next one waits");
    callers.pop();
    waiting.set_read_timeout(Some(support::PATIENCE)).expect("a timeout");
    assert!(greeted(&waiting), "until one has left");
    assert_eq!(server.end(), 0, "callers do not keep it from ending");
}
