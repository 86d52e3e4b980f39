//! Questions both ways.

use wire_format::frame::hello::feature;

use super::*;

fn asking() -> (World, ConnId) {
    let mut world = World::new(4);
    let conn = world.session_with(&Hello { features: feature::ASK, ..hello() });
    (world, conn)
}

const STOCK: OrderKind = OrderKind::STOCK_QUESTION;
const SECOND: Duration = Duration::from_secs(1);

fn reply(correlation: u32, generation: u32, payload: &'static [u8]) -> Vec<u8> {
    let code = wire_format::frame::reply::Code::OK;
    let reply = Reply { correlation, generation, kind: STOCK, schema: 1, code, age_ms: 40, payload };
    frame(|buffer| reply.emit(buffer))
}

#[test]
fn a_question_of_the_device_is_answered_once() {
    let (mut world, conn) = asking();
    let ask = world.receiver.ask(world.now, STOCK, 1, SECOND, b"3760001").unwrap();
    world.drain();
    let question = Said::Ask { correlation: ask.0, generation: 1, payload: b"3760001".to_vec() };
    assert_eq!(world.said(conn), [question]);
    // Another session's, another question's: neither is it.
    world.feed(conn, &[reply(ask.0, 2, b"1"), reply(ask.0 + 1, 1, b"2")].concat()).unwrap();
    assert_eq!((world.answers.len(), world.receiver.stats().late_replies), (0, 2));
    world.feed(conn, &[reply(ask.0, 1, b"12"), reply(ask.0, 1, b"13")].concat()).unwrap();
    assert_eq!(world.answers, [(ask, b"12".to_vec())]);
    assert_eq!(world.receiver.stats().late_replies, 3);
}

#[test]
fn a_question_without_an_answer_lapses_in_time_or_with_its_session() {
    let (mut world, conn) = asking();
    let ask = world.receiver.ask(world.now, STOCK, 1, SECOND, b"").unwrap();
    world.drain();
    world.pass(SECOND - Duration::from_micros(1));
    assert_eq!(world.events.last().filter(|event| matches!(event, Event::Unanswered { .. })), None);
    world.pass(Duration::from_micros(1));
    assert_eq!(world.events.last(), Some(&Event::Unanswered { ask }));
    world.feed(conn, &reply(ask.0, 1, b"late")).unwrap();
    assert_eq!((world.answers.len(), world.receiver.stats().late_replies), (0, 1));
    let next = world.receiver.ask(world.now, STOCK, 1, SECOND, b"").unwrap();
    world.receiver.handle_closed(world.now, conn);
    world.drain();
    assert!(world.events.contains(&Event::Unanswered { ask: next }));
    assert_eq!(world.receiver.ask(world.now, STOCK, 1, SECOND, b""), Err(AskError::NotServed));
}

#[test]
fn four_questions_are_open_and_a_fifth_is_not() {
    let (mut world, conn) = asking();
    let asks: Vec<_> =
        (0..ASKS_MAX).map(|_| world.receiver.ask(world.now, STOCK, 1, SECOND, b"").unwrap()).collect();
    assert_eq!(world.receiver.ask(world.now, STOCK, 1, SECOND, b""), Err(AskError::TooMany));
    world.drain();
    assert_eq!(world.said(conn).len(), ASKS_MAX);
    world.feed(conn, &reply(asks[2].0, 1, b"")).unwrap();
    assert!(world.receiver.ask(world.now, STOCK, 1, SECOND, b"").is_ok());
}

#[test]
fn what_cannot_be_asked() {
    let mut world = World::new(4);
    let conn = world.session();
    assert_eq!(world.receiver.ask(world.now, STOCK, 1, SECOND, b""), Err(AskError::NotAnswered));
    world.receiver.handle_closed(world.now, conn);
    let (mut world, conn) = asking();
    let ask = |world: &mut World, kind, payload| world.receiver.ask(world.now, kind, 1, SECOND, payload);
    assert_eq!(ask(&mut world, OrderKind(0), b""), Err(AskError::Invalid));
    assert_eq!(ask(&mut world, STOCK, &[7; 4_097]), Err(AskError::Invalid));
    // A whole payload is more than this server takes, and two are more than the queue holds.
    assert_eq!(ask(&mut world, STOCK, &[7; 4_096]), Err(AskError::Invalid));
    assert!(ask(&mut world, STOCK, &[7; 4_000]).is_ok() && ask(&mut world, STOCK, &[7; 4_000]).is_ok());
    assert_eq!(ask(&mut world, STOCK, &[7; 4_000]), Err(AskError::NoRoom));
    world.feed(conn, &frame(|buffer| drain_frame().emit(buffer))).unwrap();
    assert_eq!(ask(&mut world, STOCK, b""), Err(AskError::NotServed));
}

#[test]
fn a_question_of_the_server_is_answered_at_once_or_later_and_never_in_another_session() {
    let (mut world, conn) = asking();
    let ask = |correlation| Ask {
        correlation,
        generation: 6,
        kind: STOCK,
        schema: 1,
        deadline_ms: 800,
        payload: b"37",
    };
    let bytes = [frame(|buffer| ask(5).emit(buffer)), frame(|buffer| ask(6).emit(buffer))].concat();
    world.feed(conn, &bytes).unwrap();
    assert_eq!(world.questions[0].1, STOCK);
    let mut room = [0; 16];
    let mut answer = AnswerBuffer::new(&mut room);
    answer.bytes.write(b"12").unwrap();
    let (first, second) = (world.questions[0].0, world.questions[1].0);
    assert!(!world.receiver.reply(world.now, first, AnswerCode::Later, &answer));
    assert!(world.receiver.reply(world.now, first, AnswerCode::Ok, &answer));
    world.drain();
    let told = Said::Reply { correlation: 5, code: 0, payload: b"12".to_vec() };
    assert_eq!(world.said(conn), [told]);
    let (conn, _) = world.reconnect(conn);
    assert!(!world.receiver.reply(world.now, second, AnswerCode::Busy, &answer));
    world.drain();
    assert_eq!((world.said(conn), world.receiver.stats().unanswered), (vec![], 1));
}

#[test]
fn a_device_without_a_queue_declares_nothing_and_drops_questions() {
    let mut world = World::new(4);
    let memory = Memory { queue: Box::from([0_u8; 32]), ..boxes(world.receiver.config()) };
    world.receiver = Receiver::new(world.receiver.config().clone(), memory, world.now);
    let conn = world.connect();
    world.feed(conn, &frame(|buffer| hello().emit(buffer))).unwrap();
    let bytes = core::mem::take(&mut world.out[conn.index()]);
    let Ok(Split::Frame(raw)) = split(&bytes, 4_096) else { panic!("a WELCOME") };
    assert_eq!(Welcome::parse(&raw).unwrap().features, feature::CANCEL);
    let ask = Ask { correlation: 1, generation: 1, kind: STOCK, schema: 1, deadline_ms: 1, payload: b"" };
    world.feed(conn, &frame(|buffer| ask.emit(buffer))).unwrap();
    assert_eq!((world.questions.len(), world.receiver.stats().unanswered), (0, 1));
}
