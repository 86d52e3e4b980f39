//! A device over real sockets, against a server written by hand: what takes longer, results, progress, questions both
//! ways, large payloads, leaving, journals.

mod journal;
mod wire;

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tillwire::wire::frame::ask::Ask;
use tillwire::wire::frame::hello::feature;
use tillwire::wire::frame::order::Delivery;
use tillwire::wire::frame::order::OrderOption;
use tillwire::wire::frame::{Part, Reply, reply};
use tillwire::{
    AnswerBuffer, AnswerCode, AskError, Delivered, Device, HandOverError, Handler, Lane, NodeId, OrderKind,
    Outcome, Question, QuestionId, ResultBuffer, Security, Store, Ticket, Verdict,
};
use tokio::sync::mpsc;

use wire::{FRESH, Said, Wire, frame_of, order, sent, settled};

const SOON: Duration = Duration::from_secs(20);
const APPLIED: u8 = Outcome::APPLIED.0;

fn store() -> Store {
    Store::new(1, "PARIS-12").unwrap()
}

/// An order as the application saw it: its number and payload.
type Seen = (u64, Vec<u8>);

/// What the application does and saw.
#[derive(Default)]
struct Application {
    /// Orders of the normal lane are answered later; their tickets come here.
    later: Option<mpsc::UnboundedSender<Ticket>>,
    result: Vec<u8>,
    /// Questions for later come here.
    questions: Option<mpsc::UnboundedSender<QuestionId>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Handler for Application {
    fn handle(&mut self, delivered: &Delivered<'_>) -> Verdict {
        let order = &delivered.order;
        self.seen.lock().unwrap().push((order.number, order.payload.to_vec()));
        match &self.later {
            Some(later) if order.lane == Lane::Normal => {
                later.send(delivered.ticket).unwrap();
                Verdict::Later
            }
            _ => Verdict::Applied,
        }
    }

    fn handle_with_result(&mut self, delivered: &Delivered<'_>, result: &mut ResultBuffer<'_>) -> Verdict {
        assert!(delivered.needs_result);
        result.write(&self.result).unwrap();
        self.handle(delivered)
    }

    fn question(&mut self, question: &Question<'_>, answer: &mut AnswerBuffer<'_>) -> AnswerCode {
        if let Some(questions) = &self.questions {
            questions.send(question.id).unwrap();
            return AnswerCode::Later;
        }
        answer.schema = question.schema + 1;
        answer.age = Duration::from_millis(7);
        answer.bytes.write(question.payload).unwrap();
        AnswerCode::Ok
    }
}

async fn start(application: Application) -> Device {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let at = Ipv4Addr::new(127, 21, 7, NEXT.fetch_add(1, Ordering::Relaxed));
    let builder = Device::builder(store(), NodeId([7; 16])).security(Security::open_network());
    builder.no_discovery().bind(at).port(0).start(application).await.unwrap()
}

#[tokio::test]
async fn an_urgent_order_is_applied_while_a_full_window_waits_for_one_that_takes_long() {
    let (later, mut tickets) = mpsc::unbounded_channel();
    let application = Application { later: Some(later), ..Application::default() };
    let seen = Arc::clone(&application.seen);
    let device = start(application).await;
    let mut server = Wire::connect(device.address(), 17).await;
    // The last place of the window is the urgent lane's.
    let stuck: Vec<_> = (1..=15).map(|n| sent(FRESH, &order(n, Lane::Normal, b"slow"))).collect();
    server.send(&stuck).await;
    let first = tickets.recv().await.unwrap();
    server.send(&[sent(FRESH, &order(16, Lane::Urgent, b"now"))]).await;
    let heard = server.until_ended(16).await;
    assert_eq!(heard.len(), 1, "nothing but the urgent one has ended: {heard:?}");
    assert!(tickets.try_recv().is_err(), "one at a time in a lane");
    // The application goes on, from another task; the lane follows in log order.
    let handle = device.handle().clone();
    let worker = tokio::spawn(async move {
        handle.complete(first, Verdict::Applied, None).unwrap();
        while let Some(ticket) = tickets.recv().await {
            handle.complete(ticket, Verdict::Applied, None).unwrap();
        }
    });
    let heard = server.until(15, |said| matches!(said, Said::Ended { code: APPLIED, .. })).await;
    let ended: Vec<_> = heard
        .iter()
        .map(|said| match said {
            Said::Ended { number, .. } => *number,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ended, (1..=15).collect::<Vec<_>>());
    let order_seen: Vec<_> = seen.lock().unwrap().iter().map(|(number, _)| *number).collect();
    assert_eq!(order_seen, [&[1, 16][..], &(2..=15).collect::<Vec<_>>()].concat());
    assert!(seen.lock().unwrap()[1..].iter().all(|(n, payload)| *n == 16 || payload == b"slow"));
    worker.abort();
    device.shutdown().await;
}

#[tokio::test]
async fn an_order_completed_after_its_session_is_reported_in_the_next() {
    let (later, mut tickets) = mpsc::unbounded_channel();
    let device = start(Application { later: Some(later), ..Application::default() }).await;
    let mut server = Wire::connect(device.address(), 1).await;
    server.send(&[sent(FRESH, &order(1, Lane::Normal, b"slow"))]).await;
    let ticket = tickets.recv().await.unwrap();
    drop(server);
    let mut server = Wire::connect(device.address(), 1).await;
    // The server cannot know better than to send it again.
    server.send(&[sent(Delivery { replay: true, ..FRESH }, &order(1, Lane::Normal, b"slow"))]).await;
    server.quiet(Duration::from_millis(300)).await;
    assert!(tickets.try_recv().is_err(), "it is not handed over twice");
    device.handle().complete(ticket, Verdict::Failed { detail: 3 }, None).unwrap();
    let heard = server.until_ended(1).await;
    assert!(
        matches!(heard[0], Said::Ended { number: 1, code, .. } if code == Outcome::FAILED.0),
        "{heard:?}"
    );
    // A ticket is good once.
    device.handle().complete(ticket, Verdict::Applied, None).unwrap();
    server.quiet(Duration::from_millis(200)).await;
    device.shutdown().await;
}

#[tokio::test]
async fn results_travel_ahead_of_outcomes_up_to_their_limit() {
    for result in [b"stock 5".to_vec(), vec![0x5A; 16_384]] {
        let device = start(Application { result: result.clone(), ..Application::default() }).await;
        let mut server = Wire::connect(device.address(), 2).await;
        let wanted = Delivery { needs_result: true, ..FRESH };
        server
            .send(&[
                sent(wanted, &order(1, Lane::Interactive, b"?")),
                sent(FRESH, &order(2, Lane::Interactive, b"!")),
            ])
            .await;
        let heard = server.until_ended(2).await;
        assert_eq!(heard[0], Said::Result { number: 1, payload: result }, "ahead of its outcome");
        let ended = heard.iter().filter(|said| matches!(said, Said::Ended { code: APPLIED, .. })).count();
        assert_eq!((ended, heard.len()), (2, 3), "one result, for who asked for one");
        device.shutdown().await;
    }
}

#[tokio::test]
async fn progress_and_a_late_result_come_from_another_task() {
    let (later, mut tickets) = mpsc::unbounded_channel();
    let device = start(Application { later: Some(later), ..Application::default() }).await;
    let mut server = Wire::connect(device.address(), 1).await;
    let wanted = Delivery { needs_result: true, ..FRESH };
    server.send(&[sent(wanted, &order(1, Lane::Normal, b"slow"))]).await;
    let ticket = tickets.recv().await.unwrap();
    let handle = device.handle();
    handle.progress(ticket, 250, 2).unwrap();
    let heard = server.until(1, |said| matches!(said, Said::Progress { .. })).await;
    assert_eq!(heard, [Said::Progress { number: 1, per_mille: 250, phase: 2 }]);
    let too_long = handle.complete(ticket, Verdict::Applied, Some(&[0; 16_385]));
    assert_eq!(too_long, Err(HandOverError::TooLong { len: 16_385, limit: 16_384 }));
    handle.complete(ticket, Verdict::Applied, Some(b"done")).unwrap();
    let heard = server.until_ended(1).await;
    assert_eq!(heard[0], Said::Result { number: 1, payload: b"done".to_vec() });
    device.shutdown().await;
}

#[tokio::test]
async fn a_device_asks_the_server_and_is_answered_or_told_why_not() {
    let device = start(Application::default()).await;
    let kind = OrderKind::STOCK_QUESTION;
    let unserved = device.ask(kind, 1, b"7", SOON).await;
    assert!(matches!(unserved, Err(AskError::NotAsked(_))), "{unserved:?}");
    let mut server = Wire::connect(device.address(), 0).await;
    let handle = device.handle().clone();
    let asking = tokio::spawn(async move { handle.ask(kind, 1, b"3760001", SOON).await });
    let heard = server.until(1, |said| matches!(said, Said::Ask { .. })).await;
    let Said::Ask { correlation, generation, schema, payload, .. } = &heard[0] else { panic!("{heard:?}") };
    assert_eq!((*schema, &payload[..]), (1, &b"3760001"[..]));
    let (correlation, generation) = (*correlation, *generation);
    let answer = |generation, payload| Reply {
        correlation,
        generation,
        kind,
        schema: 2,
        code: reply::Code::OK,
        age_ms: 40,
        payload,
    };
    let wrong = frame_of(|buffer| answer(generation.wrapping_add(1), b"wrong").emit(buffer));
    let right = frame_of(|buffer| answer(generation, b"12").emit(buffer));
    server.send(&[wrong, right]).await;
    let answer = asking.await.unwrap().unwrap();
    assert_eq!((answer.code, answer.schema, &answer.payload[..]), (reply::Code::OK, 2, &b"12"[..]));
    assert_eq!(answer.age, Duration::from_millis(40));
    let late = device.ask(kind, 1, b"7", Duration::from_millis(100)).await;
    assert_eq!(late, Err(AskError::Unanswered), "nobody answers within its time");
    let handle = device.handle().clone();
    let asking = tokio::spawn(async move { handle.ask(kind, 1, b"8", SOON).await });
    server.until(1, |said| matches!(said, Said::Ask { payload, .. } if payload == b"8")).await;
    drop(server);
    assert_eq!(asking.await.unwrap(), Err(AskError::Unanswered), "questions end with their session");
    device.shutdown().await;
}

#[tokio::test]
async fn questions_of_the_server_are_answered_at_once_or_later() {
    let kind = OrderKind::STOCK_QUESTION;
    let question = |correlation, payload| Ask {
        correlation,
        generation: 6,
        kind,
        schema: 1,
        deadline_ms: 20_000,
        payload,
    };
    let device = start(Application::default()).await;
    let mut server = Wire::connect(device.address(), 0).await;
    assert_ne!(server.features & feature::ASK, 0, "the device says that it answers");
    server.send(&[frame_of(|buffer| question(5, &[3; 4_096]).emit(buffer))]).await;
    let heard = server.until(1, |said| matches!(said, Said::Reply { .. })).await;
    let echo = Said::Reply { correlation: 5, code: 0, schema: 2, age_ms: 7, payload: vec![3; 4_096] };
    assert_eq!(heard, [echo]);
    device.shutdown().await;

    let (questions, mut asked) = mpsc::unbounded_channel();
    let device = start(Application { questions: Some(questions), ..Application::default() }).await;
    let mut server = Wire::connect(device.address(), 0).await;
    server.send(&[frame_of(|buffer| question(9, b"later").emit(buffer))]).await;
    let id = asked.recv().await.unwrap();
    let handle = device.handle();
    handle.reply(id, AnswerCode::Failed, 4, Duration::from_secs(1), b"no").unwrap();
    let heard = server.until(1, |said| matches!(said, Said::Reply { .. })).await;
    assert_eq!(
        heard,
        [Said::Reply { correlation: 9, code: 3, schema: 4, age_ms: 1_000, payload: b"no".to_vec() }]
    );
    device.shutdown().await;
}

/// A payload that looks like nothing.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

/// What came of serving the pieces a device asked for.
#[derive(Debug)]
struct Fed {
    /// Where its first WANT began.
    first: u32,
    /// How the order ended, if it did.
    ended: Option<u8>,
}

/// Serves WANTs until the order has ended or `stop_at` is reached.
async fn feed(server: &mut Wire, blob: &[u8], stop_at: usize) -> Fed {
    let (mut at, mut most, mut first) = (0, 0, None);
    loop {
        for said in server.heard().await {
            match said {
                Said::Want { offset, pieces } => {
                    let limit = offset as usize + usize::from(pieces) * 4_096;
                    // One that allows no more than the last one starts again.
                    if limit <= most || first.is_none() {
                        at = offset as usize;
                    }
                    most = limit;
                    first.get_or_insert(offset);
                }
                Said::Ended { code, .. } => return Fed { first: first.unwrap(), ended: Some(code) },
                Said::Acked { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        while at < most.min(blob.len()) {
            if at >= stop_at {
                return Fed { first: first.unwrap(), ended: None };
            }
            let bytes = &blob[at..blob.len().min(at + 4_096)];
            let more = at + bytes.len() < blob.len();
            let part = Part { blob: 3, offset: u32::try_from(at).unwrap(), more, bytes };
            server.send(&[frame_of(|buffer| part.emit(buffer))]).await;
            at += bytes.len();
        }
    }
}

fn parts_option(blob: &[u8], sha256: [u8; 32]) -> Vec<u8> {
    let size = u32::try_from(blob.len()).unwrap();
    frame_of(|buffer| OrderOption::Parts { blob: 3, size, sha256 }.emit(buffer))
}

#[tokio::test]
async fn eight_mebibytes_come_in_pieces_and_go_on_after_a_cut() {
    let application = Application::default();
    let seen = Arc::clone(&application.seen);
    let device = start(application).await;
    let blob = noise(8 << 20);
    let options = parts_option(&blob, Sha256::digest(&blob).into());
    let large = tillwire::wire::frame::Order { options: &options, ..order(1, Lane::Bulk, &[]) };
    let mut server = Wire::connect(device.address(), 1).await;
    assert_ne!(server.features & feature::PARTS, 0, "the device says that it takes parts");
    server.send(&[sent(FRESH, &large)]).await;
    assert_eq!(feed(&mut server, &blob, 5 << 20).await.first, 0);
    drop(server);
    let mut server = Wire::connect(device.address(), 1).await;
    server.send(&[sent(Delivery { replay: true, ..FRESH }, &large)]).await;
    let fed = feed(&mut server, &blob, usize::MAX).await;
    assert!(fed.first >= 4 << 20, "it goes on where it stood, not at {}", fed.first);
    assert_eq!(fed.ended, Some(APPLIED));
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 1, "handed over once");
    assert!(seen[0].1 == blob, "and whole");
    device.shutdown().await;
}

#[tokio::test]
async fn a_payload_with_another_digest_is_fetched_once_more_and_then_refused() {
    let application = Application::default();
    let seen = Arc::clone(&application.seen);
    let device = start(application).await;
    let blob = noise(10_000);
    let options = parts_option(&blob, [0xAB; 32]);
    let large = tillwire::wire::frame::Order { options: &options, ..order(1, Lane::Bulk, &[]) };
    let mut server = Wire::connect(device.address(), 2).await;
    server.send(&[sent(FRESH, &large)]).await;
    let fed = feed(&mut server, &blob, usize::MAX).await;
    assert_eq!(fed.ended, Some(Outcome::REJECTED_PAYLOAD.0));
    assert!(seen.lock().unwrap().is_empty(), "never handed over");
    // The lane goes on.
    server.send(&[settled(Lane::Bulk, 1), sent(FRESH, &order(2, Lane::Bulk, b"small"))]).await;
    assert!(matches!(server.until_ended(2).await[0], Said::Ended { code: APPLIED, .. }));
    device.shutdown().await;
}

#[tokio::test]
async fn a_device_that_leaves_says_so_and_ends_what_it_has() {
    let (later, mut tickets) = mpsc::unbounded_channel();
    let device = start(Application { later: Some(later), ..Application::default() }).await;
    let mut server = Wire::connect(device.address(), 1).await;
    server.send(&[sent(FRESH, &order(1, Lane::Normal, b"slow"))]).await;
    let ticket = tickets.recv().await.unwrap();
    let handle = device.handle().clone();
    let leaving = tokio::spawn(device.shutdown());
    assert_eq!(server.until(1, |said| *said == Said::Drain).await, [Said::Drain]);
    handle.complete(ticket, Verdict::Applied, None).unwrap();
    let heard = server.until(1, |said| *said == Said::Bye).await;
    assert!(matches!(heard[0], Said::Ended { number: 1, code: APPLIED, .. }), "{heard:?}");
    assert!(server.heard().await.is_empty(), "BYE is the last");
    leaving.await.unwrap();
    assert_eq!(handle.complete(ticket, Verdict::Applied, None), Err(HandOverError::Stopped));
}
