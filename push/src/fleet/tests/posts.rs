//! Questions of both sides, their answers and their ends.

use wire_format::frame::status::{State as OrderState, StateEntry, States, StatusRows};
use wire_format::frame::{Ask, Reply, Status};

use super::*;
use crate::config::{ANSWERS_MAX, POSTS_MAX, QUESTIONS_MAX, REFUSALS_MAX};

const KIND: OrderKind = OrderKind::STOCK_QUESTION;

fn frame(emit: impl FnOnce(&mut [u8]) -> Result<usize, wire_format::error::EmitError>) -> Vec<u8> {
    let mut buffer = vec![0; 8_192];
    let len = emit(&mut buffer).unwrap();
    buffer.truncate(len);
    buffer
}

fn ask_frame(id: AskId, deadline_ms: u32, payload: &[u8]) -> Vec<u8> {
    let AskId { correlation, generation } = id;
    frame(|room| Ask { correlation, generation, kind: KIND, schema: 1, deadline_ms, payload }.emit(room))
}

impl World {
    fn unanswered(&self) -> Vec<(AskId, Unanswered)> {
        let told = |event: &TestEvent| match event {
            Event::Unanswered { ask, why, .. } => Some((*ask, *why)),
            _ => None,
        };
        self.events.iter().filter_map(told).collect()
    }

    fn ask(&mut self, device: usize, deadline_ms: u32) -> Result<AskId, AskError> {
        let asked = self
            .fleet
            .ask(self.now, DeviceIndex(device as u32), |id| ask_frame(id, deadline_ms, b"how many?"));
        self.drain();
        asked
    }

    fn ask_status(&mut self, numbers: &[u64]) -> Result<AskId, AskError> {
        let rows = StatusRows::Question(numbers.into());
        let frame = frame(|room| Status { durable: false, rows }.emit(room));
        let asked = self.fleet.ask_status(self.now, DeviceIndex(0), frame);
        self.drain();
        asked
    }

    /// The device answers under these numbers; what the fleet hands on.
    fn answered(&mut self, device: usize, id: AskId, kind: OrderKind) -> Vec<String> {
        let AskId { correlation, generation } = id;
        let code = reply::Code::OK;
        let reply = Reply { correlation, generation, kind, schema: 2, code, age_ms: 40, payload: b"12" };
        self.devices[device].send(&Frame::Reply(reply));
        self.drain();
        core::mem::take(&mut self.items)
    }

    /// The device asks.
    fn asks(&mut self, device: usize, correlation: u32, deadline_ms: u32) {
        let ask = Ask { correlation, generation: 9, kind: KIND, schema: 1, deadline_ms, payload: b"who?" };
        self.devices[device].send(&Frame::Ask(ask));
        self.drain();
    }

    /// The application answers.
    fn replies(&mut self, question: &Question) -> Result<(), ReplyError> {
        let frame = frame(|room| question.reply(reply::Code::OK, 1, 0, b"you").emit(room));
        let done = self.fleet.reply(self.now, question, frame);
        self.drain();
        done
    }
}

fn answering(devices: usize) -> World {
    let mut world = World::with(devices, 8, |config| config.answers_questions = true);
    world.advance(1_000 + devices as u64);
    world.events.clear();
    world
}

#[test]
fn a_question_and_its_answer() {
    let mut world = World::connected(2, 1);
    let id = world.ask(0, 800).unwrap();
    assert_eq!(world.devices[0].asked, [(id.correlation, id.generation, b"how many?".to_vec())]);
    assert_eq!(world.devices[0].writes.last(), Some(&(0, 52)), "the frame is not copied");
    assert!(world.answered(1, id, KIND).is_empty(), "another device knows nothing of it");
    assert!(world.answered(0, AskId { generation: id.generation + 1, ..id }, KIND).is_empty());
    assert!(world.answered(0, AskId { correlation: 256, ..id }, KIND).is_empty());
    assert!(world.answered(0, id, OrderKind::PRINT).is_empty());
    let code = reply::Code::OK;
    let item = Item::Reply { ask: id, code, schema: 2, age_ms: 40, payload: b"12" };
    assert_eq!(world.answered(0, id, KIND), [format!("{item:?}")]);
    assert!(world.answered(0, id, KIND).is_empty(), "one answer");
    world.advance(2_000);
    assert_eq!(world.unanswered(), []);
    let stats = world.fleet.stats();
    assert_eq!((stats.asks, stats.replies, stats.replies_dropped, stats.unanswered), (1, 1, 5, 0));
}

#[test]
fn a_question_ends_with_its_time_and_a_late_answer_is_dropped() {
    let mut world = World::connected(1, 1);
    let id = world.ask(0, 800).unwrap();
    world.advance(790);
    assert_eq!(world.unanswered(), []);
    world.advance(20);
    assert_eq!(world.unanswered(), [(id, Unanswered::Late)]);
    assert!(world.answered(0, id, KIND).is_empty());
    let again = world.ask(0, 800).unwrap();
    assert_eq!((again.correlation, again.generation), (id.correlation, id.generation + 1));
    assert!(
        world.answered(0, id, KIND).is_empty(),
        "the place is used again, the answer is not taken for the new one"
    );
    assert_eq!(world.answered(0, again, KIND).len(), 1);
    assert_eq!(world.fleet.stats().replies_dropped, 2);
}

#[test]
fn questions_end_with_their_session_and_are_not_repeated() {
    let mut world = World::connected(1, 1);
    let ids = [world.ask(0, 60_000).unwrap(), world.ask_status(&[1]).unwrap()];
    world.cut(0);
    world.drain();
    assert_eq!(world.unanswered(), ids.map(|id| (id, Unanswered::SessionEnded)));
    assert_eq!(world.ask(0, 800), Err(AskError::NotConnected));
    world.advance(2_000);
    assert_eq!(world.devices[0].asked.len(), 1);
    assert!(world.answered(0, ids[0], KIND).is_empty(), "from the session before");
    world.ask(0, 800).unwrap();
}

#[test]
fn questions_at_their_limit_and_one_past_it() {
    let mut world = World::connected(POSTS_MAX / usize::from(QUESTIONS_MAX) + 1, 1);
    for _ in 0..QUESTIONS_MAX {
        world.ask(0, 60_000).unwrap();
    }
    assert_eq!(world.ask(0, 60_000), Err(AskError::TooMany { limit: QUESTIONS_MAX }));
    let full = POSTS_MAX / usize::from(QUESTIONS_MAX);
    for device in (1..full).flat_map(|device| [device; QUESTIONS_MAX as usize]) {
        world.ask(device, 60_000).unwrap();
    }
    assert_eq!(world.ask(full, 60_000), Err(AskError::Full { limit: POSTS_MAX }));
    let (correlation, generation, _) = world.devices[7].asked[2];
    assert_eq!(world.answered(7, AskId { correlation, generation }, KIND).len(), 1);
    world.ask(full, 60_000).unwrap();
    world.advance(60_100);
    assert_eq!(world.unanswered().len(), POSTS_MAX);
}

#[test]
fn no_question_to_who_does_not_take_it() {
    let mut world = World::new(2, 1);
    world.devices[0].features = 0;
    world.advance(1_100);
    assert_eq!(world.ask(0, 800), Err(AskError::Unsupported));
    assert_eq!(world.ask_status(&[1]), Err(AskError::Unsupported));
    assert_eq!(world.ask(9, 800), Err(AskError::NotConnected));
    world.devices[1].send(&Frame::Drain(wire_format::frame::Drain {
        reason: wire_format::frame::drain::Reason::LEAVING,
        after_ms: 5_000,
    }));
    world.drain();
    assert_eq!(world.ask(1, 800), Err(AskError::NotConnected), "it is about to leave");
}

#[test]
fn frames_that_are_not_the_question_are_refused() {
    let mut world = World::new(1, 1);
    world.devices[0].max_body = 432;
    world.advance(1_100);
    let ask = |world: &mut World, change: fn(AskId) -> Vec<u8>| {
        world.fleet.ask(world.now, DeviceIndex(0), change).unwrap_err()
    };
    assert_eq!(ask(&mut world, |_| Vec::new()), AskError::Frame);
    assert_eq!(ask(&mut world, |id| ask_frame(AskId { generation: 77, ..id }, 1, b"")), AskError::Frame);
    assert_eq!(ask(&mut world, |id| ask_frame(AskId { correlation: 3, ..id }, 1, b"")), AskError::Frame);
    let ping = |_| frame(|room| wire_format::frame::Ping { token: 1 }.emit(room));
    assert_eq!(ask(&mut world, ping), AskError::Frame);
    assert_eq!(ask(&mut world, |id| ask_frame(id, 1, &[7; 409])), AskError::TooLarge { limit: 432 });
    world.fleet.ask(world.now, DeviceIndex(0), |id| ask_frame(id, 1, &[7; 408])).unwrap();
    let states = [StateEntry { number: 1, state: OrderState::Unknown, elapsed_ms: 0 }];
    let answer =
        frame(|room| Status { durable: false, rows: StatusRows::Answer(States::from(&states)) }.emit(room));
    assert_eq!(world.fleet.ask_status(world.now, DeviceIndex(0), answer), Err(AskError::Frame));
}

#[test]
fn a_status_is_answered_for_the_same_orders_only() {
    let mut world = World::connected(1, 1);
    let id = world.ask_status(&[7, 9]).unwrap();
    assert_eq!(world.ask_status(&[7]), Err(AskError::TooMany { limit: QUESTIONS_MAX }));
    assert_eq!(world.devices[0].statuses, ["Question([7, 9])"]);
    let state = |number| StateEntry { number, state: OrderState::Started, elapsed_ms: 20 };
    let mut answer = |numbers: &[u64]| {
        let states: Vec<_> = numbers.iter().map(|&number| state(number)).collect();
        let rows = StatusRows::Answer(States::from(&states[..]));
        world.devices[0].send(&Frame::Status(Status { durable: false, rows }));
        world.drain();
        core::mem::take(&mut world.items)
    };
    assert!(answer(&[7]).is_empty());
    assert!(answer(&[9, 7]).is_empty());
    let states = [state(7), state(9)];
    let item = Item::Status { ask: id, states: States::from(&states) };
    assert_eq!(answer(&[7, 9]), [format!("{item:?}")]);
    assert!(answer(&[7, 9]).is_empty());
    let late = world.ask_status(&[1]).unwrap();
    world.advance(5_010);
    assert_eq!(world.unanswered(), [(late, Unanswered::Late)]);
}

#[test]
fn a_device_asks_and_the_application_answers_once() {
    let mut world = answering(1);
    assert_eq!(world.devices[0].hellos[0].features, hello::feature::ASK);
    world.asks(0, 5, 800);
    let question = world.questions[0];
    let item = Item::Ask { question, schema: 1, deadline_ms: 800, payload: b"who?" };
    assert_eq!(world.items, [format!("{item:?}")]);
    assert_eq!((question.device(), question.kind()), (DeviceIndex(0), KIND));
    assert_eq!(world.fleet.reply(world.now, &question, b"nonsense".to_vec()), Err(ReplyError::Frame));
    let foreign = Question { correlation: 6, ..question };
    let wrong = frame(|room| foreign.reply(reply::Code::OK, 1, 0, b"").emit(room));
    assert_eq!(world.fleet.reply(world.now, &question, wrong), Err(ReplyError::Frame));
    assert_eq!(world.replies(&question), Ok(()));
    assert_eq!(world.devices[0].replied, [(5, 9, reply::Code::OK)]);
    assert_eq!(world.replies(&question), Err(ReplyError::Over));
    assert_eq!((world.fleet.stats().answers, world.fleet.stats().answers_dropped), (1, 1));
}

#[test]
fn an_answer_for_a_session_or_a_time_that_is_over_is_dropped() {
    let mut world = answering(1);
    world.asks(0, 5, 800);
    world.cut(0);
    world.advance(2_000);
    let question = world.questions[0];
    assert_eq!(world.replies(&question), Err(ReplyError::Over));
    world.asks(0, 6, 800);
    world.advance(801);
    let question = world.questions[1];
    assert_eq!(world.replies(&question), Err(ReplyError::Over));
    assert_eq!(world.devices[0].replied, []);
    assert_eq!((world.fleet.stats().answers_dropped, world.fleet.stats().answers_late), (2, 1));
}

#[test]
fn a_server_that_answers_nothing_hears_no_question() {
    let mut world = World::connected(1, 1);
    assert_eq!(world.devices[0].hellos[0].features, 0);
    world.asks(0, 5, 800);
    assert!(world.items.is_empty());
    assert_eq!(world.fleet.stats().questions_dropped, 1);
}

#[test]
fn a_device_that_asks_too_much_is_not_heard_and_all_together_are_answered_busy() {
    let each = u32::from(QUESTIONS_MAX);
    let full = u32::from(ANSWERS_MAX) / each;
    let devices = full + u32::from(REFUSALS_MAX) + 1;
    let mut world = answering(devices as usize);
    for number in 0..=each {
        world.asks(0, number, 60_000);
    }
    assert_eq!((world.questions.len() as u32, world.fleet.stats().questions_dropped), (each, 1));
    for device in 1..full {
        (0..each).for_each(|number| world.asks(device as usize, number, 60_000));
    }
    assert_eq!(world.questions.len(), usize::from(ANSWERS_MAX));
    world.asks(full as usize, 5, 60_000);
    assert_eq!(world.devices[full as usize].replied, [(5, 9, reply::Code::BUSY)]);
    // Devices that take nothing hold the answers up.
    for device in full + 1..devices {
        world.devices[device as usize].room = 0;
        world.asks(device as usize, 5, 60_000);
    }
    assert_eq!(world.fleet.stats().questions_refused, 1 + u64::from(REFUSALS_MAX));
    assert_eq!(world.fleet.stats().questions_dropped, 1);
    world.asks(full as usize, 6, 60_000);
    assert_eq!(world.fleet.stats().questions_dropped, 2);
    assert!(
        world.fleet.ask(world.now, DeviceIndex(0), |id| ask_frame(id, 800, b"")).is_ok(),
        "the rest is ours"
    );
}

/// Questions of both sides and an order, in writes that are cut at every byte.
#[test]
fn frames_cut_at_every_byte_arrive_whole() {
    for at in 0..=(52 + 44 + 44 + 168) {
        let mut world = answering(1);
        world.asks(0, 5, 60_000);
        world.items.clear();
        let answer = frame(|room| world.questions[0].reply(reply::Code::OK, 1, 0, b"you").emit(room));
        let now = world.now;
        world.fleet.ask(now, DeviceIndex(0), |id| ask_frame(id, 60_000, b"how many?")).unwrap();
        world.fleet.reply(now, &world.questions[0].clone(), answer).unwrap();
        world.fleet.ask(now, DeviceIndex(0), |id| ask_frame(id, 60_000, b"1")).unwrap();
        world.submit_to(Lane::Urgent, Some(HOUR), 100, &[0]);
        world.devices[0].room = at;
        world.drain();
        world.trickle(3);
        let device = &world.devices[0];
        assert_eq!((device.asked.len(), device.replied.len(), device.orders.len()), (2, 1, 1), "cut at {at}");
        assert_eq!(world.closed, []);
        let (correlation, generation, _) = world.devices[0].asked[0];
        assert_eq!(world.answered(0, AskId { correlation, generation }, KIND).len(), 1);
    }
}

#[test]
fn a_question_whose_time_ends_while_it_is_cut_is_told_at_once_and_its_rest_still_leaves() {
    let mut world = World::connected(1, 1);
    world.devices[0].room = 20;
    let id = world.ask(0, 800).unwrap();
    world.advance(810);
    assert_eq!(world.unanswered(), [(id, Unanswered::Late)]);
    world.unblock(usize::MAX);
    assert_eq!(world.devices[0].asked.len(), 1);
    assert!(world.answered(0, id, KIND).is_empty());
    let next = world.ask(0, 800).unwrap();
    assert_eq!(next.correlation, id.correlation, "its place is free again");
}

#[test]
fn several_questions_an_order_and_what_is_settled_leave_in_one_write() {
    let mut world = World::connected(1, 4);
    world.submit(Lane::Normal);
    world.devices[0].writes.clear();
    for _ in 0..3 {
        world.fleet.ask(world.now, DeviceIndex(0), |id| ask_frame(id, 800, b"?")).unwrap();
    }
    world.submit(Lane::Normal);
    assert_eq!(world.devices[0].writes, [(28 + 3 * 44, 168)]);
    assert_eq!(world.devices[0].settled, [0, 0, 1, 0]);
}
