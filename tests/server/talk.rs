//! Questions in both directions, and what an operator asks for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use push::driver::server::Event;
use push::fleet::AskError as NotAsked;

use tillwire::wire::frame::status::State;
use tillwire::{
    AnswerBuffer, AnswerCode, AskDeviceError, Delivered, Handler, Order, OrderKind, Outcome, Question,
    ReplyCode, ServerEvent, Snapshot, Target, Verdict,
};

use super::*;

const PAPER: OrderKind = OrderKind(0x8001);

/// Knows how much paper is left.
struct Printer(u8);

impl Handler for Printer {
    fn handle(&mut self, _: &Delivered<'_>) -> Verdict {
        Verdict::Applied
    }

    fn question(&mut self, question: &Question<'_>, answer: &mut AnswerBuffer<'_>) -> AnswerCode {
        if question.kind != PAPER {
            return AnswerCode::UnknownKind;
        }
        answer.bytes.write(&[self.0]).unwrap();
        answer.bytes.write(question.payload).unwrap();
        AnswerCode::Ok
    }
}

#[tokio::test]
async fn a_device_is_asked_and_answers() {
    let lan = lan(60);
    let mut devices = Vec::new();
    for n in 1..=3 {
        devices.push(lan.device(n).start(Printer(n)).await.unwrap());
    }
    let server = lan.server(1..=4).shards(2).start().await.unwrap();
    connected(&server, 3).await;
    for n in 1..=3 {
        let answer = server.ask(id(n), PAPER, 1, b"left?", SOON).await.unwrap();
        assert_eq!((answer.code, &answer.payload[..]), (ReplyCode::OK, &[&[n], &b"left?"[..]].concat()[..]));
    }
    let other = server.ask(id(1), OrderKind(0x8002), 1, b"", SOON).await.unwrap();
    assert_eq!(other.code, ReplyCode::UNKNOWN_KIND);
    let away = server.ask(id(4), PAPER, 1, b"", SOON).await;
    assert_eq!(away, Err(AskDeviceError::NotAsked(NotAsked::NotConnected)));
    assert_eq!(server.ask(id(9), PAPER, 1, b"", SOON).await, Err(AskDeviceError::UnknownDevice));
    let long = server.ask(id(1), PAPER, 1, &[0; 4_097], SOON).await;
    assert_eq!(long, Err(AskDeviceError::TooLong { len: 4_097, limit: 4_096 }));
    server.shutdown().await;
    drop(devices);
}

#[tokio::test]
async fn devices_that_ask_the_same_share_one_question() {
    let lan = lan(61);
    let devices = lan.devices(1..=4).await;
    let server = lan.server(1..=4).shards(2).start().await.unwrap();
    connected(&server, 4).await;
    let nobody = devices[0].handle().ask(PAPER, 1, b"stock of 4711", SOON).await.unwrap();
    assert_eq!(nobody.code, ReplyCode::UNKNOWN_KIND, "nobody reads them yet");

    let mut questions = server.questions();
    let looked_up = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&looked_up);
    let application = tokio::spawn(async move {
        while let Some(asked) = questions.next().await {
            // All four ask meanwhile.
            tokio::time::sleep(Duration::from_millis(300)).await;
            counted.fetch_add(1, Ordering::Relaxed);
            assert_eq!((asked.kind(), asked.schema()), (PAPER, 1));
            if asked.payload() == b"drop" {
                continue;
            }
            let answer = [asked.payload(), b": 12"].concat();
            assert!(asked.reply(ReplyCode::OK, 2, Duration::from_secs(5), &answer));
        }
    });
    let ask = |n: usize| devices[n].handle().ask(PAPER, 1, b"stock of 4711", SOON);
    let (a, b, c, d) = tokio::join!(ask(0), ask(1), ask(2), ask(3));
    for answer in [a, b, c, d] {
        let answer = answer.unwrap();
        assert_eq!(
            (answer.code, answer.schema, &answer.payload[..]),
            (ReplyCode::OK, 2, &b"stock of 4711: 12"[..])
        );
        assert!(answer.age >= Duration::from_secs(5));
    }
    assert_eq!(looked_up.load(Ordering::Relaxed), 1);
    let dropped = devices[1].handle().ask(PAPER, 1, b"drop", SOON).await.unwrap();
    assert_eq!(dropped.code, ReplyCode::FAILED);
    server.shutdown().await;
    application.abort();
}

#[tokio::test]
async fn a_device_says_what_became_of_orders_and_the_server_how_it_stands() {
    let lan = lan(62);
    let devices = lan.devices([1]).await;
    let server = lan.server([1, 2]).shards(2).start().await.unwrap();
    connected(&server, 1).await;
    let order = Order::new(OrderKind::MESSAGE, 1, b"x");
    let fan_out = server.push(&order, &Target::id(id(1))).await.unwrap();
    assert_eq!(fan_out.settled(SOON).await.unsettled(), 0);
    let states = server.status(id(1), &[fan_out.number()]).await.unwrap();
    assert_eq!(states[0].number, fan_out.number());
    assert!(matches!(states[0].state, State::Ended(Outcome::APPLIED) | State::Forgotten), "{states:?}");
    let many = server.status(id(1), &[1; 17]).await;
    assert_eq!(many, Err(AskDeviceError::TooLong { len: 17, limit: 16 }));

    let view = server.view(id(1)).await.unwrap();
    assert_eq!((view.link, view.sessions, view.owed), (push::fleet::Link::Open, 1, 0));
    server.push(&order, &Target::id(id(2))).await.unwrap();
    assert_eq!(server.view(id(2)).await.unwrap().owed, 1);
    assert!(server.view(id(9)).await.is_none());
    let mut snapshot = Snapshot::default();
    for _ in 0..3 {
        assert!(server.stats_into(&mut snapshot).await);
        assert_eq!((snapshot.devices, snapshot.connected, snapshot.live_orders), (2, 1, 1));
        assert_eq!((snapshot.fleet.orders, snapshot.latency.count()), (2, 1));
    }
    server.shutdown().await;
    drop(devices);
}

#[tokio::test]
async fn a_server_that_leaves_waits_for_what_is_out() {
    let lan = lan(63);
    let (tickets, mut begun) = tokio::sync::mpsc::unbounded_channel();
    let later = move |delivered: &Delivered<'_>| {
        tickets.send(delivered.ticket).unwrap();
        Verdict::Later
    };
    let device = lan.device(1).start(later).await.unwrap();
    let server = lan.server([1]).start().await.unwrap();
    connected(&server, 1).await;
    let order = Order::new(OrderKind::MESSAGE, 1, b"x");
    let fan_out = server.push(&order, &Target::all()).await.unwrap();
    let ticket = tokio::time::timeout(SOON, begun.recv()).await.unwrap().unwrap();
    let handle = device.handle().clone();
    let (_, ()) = tokio::join!(server.drain(Duration::from_secs(4)), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        handle.complete(ticket, Verdict::Applied, None).unwrap();
    });
    let report = fan_out.report().await;
    assert_eq!(report.outcomes(), [(Outcome::APPLIED, 1)]);
    device.shutdown().await;
}

#[tokio::test]
async fn a_store_is_taken_over_by_a_higher_fence() {
    let lan = lan(64);
    let devices = lan.devices([1, 2]).await;
    let first = lan.server([1, 2]).server_id(NodeId([0xA1; 16])).fence(5).start().await.unwrap();
    connected(&first, 2).await;
    first.shutdown().await;
    let second = lan.server([1, 2]).server_id(NodeId([0xA2; 16])).shards(2).start().await.unwrap();
    let refused = async {
        while second.stats().await.unwrap().push.fleet.rejected < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, refused).await.expect("its fence is too low");
    let order = Order::new(OrderKind::MESSAGE, 1, b"x");
    assert_eq!(second.takeover().await, Ok(Some(6)));
    connected(&second, 2).await;
    let report = second.push(&order, &Target::all()).await.unwrap().settled(SOON).await;
    assert_eq!(report.outcomes(), [(Outcome::APPLIED, 2)]);

    // The first one comes back and hears it: what it owed ends there, and is told.
    let first = lan.server([1, 2]).server_id(NodeId([0xA1; 16])).fence(5).start().await.unwrap();
    let mut events = first.subscribe();
    let owed = first.push(&order, &Target::all()).await.unwrap();
    let report = owed.settled(SOON).await;
    assert_eq!(report.outcomes(), [(Outcome::FENCED, 2)]);
    let told = async {
        loop {
            if let ServerEvent::Session(Event::Fenced { fence, .. }) = events.recv().await.unwrap() {
                return fence;
            }
        }
    };
    assert_eq!(tokio::time::timeout(SOON, told).await.unwrap(), 6);
    first.shutdown().await;
    second.shutdown().await;
    drop(devices);
}

#[tokio::test]
async fn a_server_that_drains_accepts_nothing() {
    let lan = lan(65);
    let server = lan.server([1]).start().await.unwrap();
    let order = Order::new(OrderKind::MESSAGE, 1, b"x");
    let fan_out = server.push(&order, &Target::all()).await.unwrap();
    let late = fan_out.clone();
    server.drain(Duration::ZERO).await;
    assert_eq!(late.report().await.unsettled(), 1);
    assert!(!late.cancel(), "the server has stopped");
}

#[tokio::test]
async fn different_questions_at_their_limit_and_one_past_it() {
    let lan = lan(66);
    let devices = lan.devices(1..=65).await;
    let server = lan.server(1..=65).shards(4).start().await.unwrap();
    connected(&server, 65).await;
    let mut questions = server.questions();
    let mut asking = tokio::task::JoinSet::new();
    for (n, device) in devices.iter().enumerate() {
        for question in 0..4 {
            let handle = device.handle().clone();
            let subject = [u8::try_from(n).unwrap(), question];
            asking.spawn(async move { handle.ask(PAPER, 1, &subject, SOON).await.unwrap().code });
        }
    }
    for _ in 0..4 {
        let answered = tokio::time::timeout(SOON, asking.join_next()).await.unwrap().unwrap().unwrap();
        assert_eq!(answered, ReplyCode::BUSY, "256 of the 260 wait");
    }
    for _ in 0..256 {
        let asked = tokio::time::timeout(SOON, questions.next()).await.unwrap().unwrap();
        asked.reply(ReplyCode::OK, 1, Duration::ZERO, &[]);
    }
    while let Some(answered) = tokio::time::timeout(SOON, asking.join_next()).await.unwrap() {
        assert_eq!(answered.unwrap(), ReplyCode::OK);
    }
    server.shutdown().await;
}
