//! Questions of both sides: each is answered as it was asked, or told to be unanswered, once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use push::DeviceIndex;
use push::fleet::{self, Question as Asked, ReplyError};
use push::receiver::{AnswerBuffer, AnswerCode, AskId, Item, QuestionId};
use wire_format::error::EmitError;
use wire_format::frame::{Ask, reply};
use wire_format::ids::OrderKind;
use wire_format::rng::{Rng, mix};
use wire_format::time::Instant;

use super::fault::{Fault, FaultSpec};
use super::names::Probe;
use super::network::LinkId;
use super::pieces::Came;
use super::plan::{MS, Plan, Scene};
use super::world::{Act, World};

const KIND: OrderKind = OrderKind::STOCK_QUESTION;
/// Questions to and from each device, in a run that has some.
const PER_DEVICE: usize = 8;
/// Bytes of a question or an answer beside the word it is about.
const PADDING: u64 = 600;

/// Questions that are open. Each is about a word of its own, and so is its answer.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// By server, its start, and the question's two numbers.
    of_servers: BTreeMap<(usize, u64, u32, u32), u64>,
    /// By device, its boot, and the question's number; and until when it is waited for.
    of_devices: BTreeMap<(usize, u64, u32), (u64, Instant)>,
    /// Every word that was ever asked.
    asked: BTreeSet<u64>,
}

impl Questions {
    pub(super) fn is_empty(&self) -> bool {
        self.of_servers.is_empty() && self.of_devices.is_empty()
    }

    /// With the process its questions are gone.
    pub(super) fn forget_server(&mut self, at: usize) {
        self.of_servers.retain(|(server, ..), _| *server != at);
    }

    pub(super) fn forget_device(&mut self, at: usize) {
        self.of_devices.retain(|(device, ..), _| *device != at);
    }
}

/// What reaches a device beside orders.
#[derive(Debug)]
pub(super) enum Beside {
    Piece(Came),
    Question(QuestionId, Vec<u8>),
    Answer(AskId, Vec<u8>),
}

impl Beside {
    pub(super) fn of(item: Item<'_>) -> Option<Self> {
        match item {
            Item::Piece(piece) => Some(Self::Piece(Came::from(piece))),
            Item::Question(question) => Some(Self::Question(question.id, question.payload.to_vec())),
            Item::Answer(answer) => Some(Self::Answer(answer.ask, answer.payload.to_vec())),
            _ => None,
        }
    }
}

/// What reaches a server beside what becomes of orders.
#[derive(Debug)]
pub(super) enum Heard {
    Question(Asked, Vec<u8>),
    Answer(fleet::AskId, Vec<u8>),
}

impl Heard {
    pub(super) fn of(item: fleet::Item<'_>) -> Option<Self> {
        match item {
            fleet::Item::Ask { question, payload, .. } => Some(Self::Question(question, payload.to_vec())),
            fleet::Item::Reply { ask, payload, .. } => Some(Self::Answer(ask, payload.to_vec())),
            _ => None,
        }
    }
}

/// The bytes of a question about this word.
fn question_of(word: u64) -> Vec<u8> {
    let mut bytes = word.to_le_bytes().to_vec();
    bytes.resize(8 + (mix(word) % PADDING) as usize, word as u8);
    bytes
}

/// The bytes of its answer.
fn answer_of(word: u64) -> Vec<u8> {
    question_of(mix(word ^ 0xA5))
}

fn frame_of(emit: impl FnOnce(&mut [u8]) -> Result<usize, EmitError>) -> Vec<u8> {
    let mut frame = vec![0; PADDING as usize + 200];
    let len = emit(&mut frame).expect("there is room");
    frame.truncate(len);
    frame
}

/// Every sixth run has questions, from a generator of its own.
pub(super) fn draw_questions(plan: &mut Plan) {
    let mut rng = Rng::new(mix(plan.seed ^ 0xA5C));
    if !matches!(plan.scene, Scene::Small | Scene::Large) || rng.below(6) != 0 {
        return;
    }
    plan.questions = true;
    for _ in 0..PER_DEVICE * plan.devices.len() {
        let device = rng.below(plan.devices.len() as u64) as usize;
        let within = rng.between(MS * 20, MS * 8_000);
        let fault = Fault::Question { device, by_device: rng.below(2) == 0, within };
        plan.faults.push(FaultSpec { at: rng.between(MS * 500, plan.storm), fault });
    }
}

impl World {
    /// Somebody asks, if there is a session.
    pub(super) fn ask(&mut self, device: usize, by_device: bool, within: Duration) {
        let word = self.rng.next_u64();
        if by_device {
            self.device_asks(device, word, within)
        } else {
            self.server_asks(device, word, within)
        }
    }

    fn server_asks(&mut self, device: usize, word: u64, within: Duration) {
        let (now, at) = (self.now, self.active);
        let server = &mut self.servers[at];
        let (Some(index), Some(fleet)) = (server.index[device], &mut server.fleet) else { return };
        if server.paused_until > now {
            return;
        }
        let payload = question_of(word);
        let deadline_ms = within.as_millis() as u32;
        let frame = |id: fleet::AskId| {
            let fleet::AskId { correlation, generation } = id;
            frame_of(|room| {
                Ask { correlation, generation, kind: KIND, schema: 1, deadline_ms, payload: &payload }
                    .emit(room)
            })
        };
        match fleet.ask(now, index, frame) {
            Ok(id) => {
                let key = (at, server.boot, id.correlation, id.generation);
                self.questions.asked.insert(word);
                if self.questions.of_servers.insert(key, word).is_some() {
                    self.ledger.fail(now, "SameQuestion", Some(device), &[], "its numbers are in use");
                }
            }
            Err(fleet::AskError::Frame) => {
                self.ledger.fail(now, "NotAsked", Some(device), &[], "its frame is not the one announced");
            }
            Err(_) => {}
        }
        self.serve_server(at);
    }

    fn device_asks(&mut self, at: usize, word: u64, within: Duration) {
        let now = self.now;
        let device = &mut self.devices[at];
        let (false, Some(receiver)) = (device.frozen, &mut device.receiver) else { return };
        if let Ok(ask) = receiver.ask(now, KIND, 1, within, &question_of(word)) {
            self.questions.asked.insert(word);
            self.questions.of_devices.insert((at, device.boot, ask.0), (word, now + within));
        }
        self.with_receiver(at, |_, _| ());
    }

    /// The word of a question that somebody asked.
    fn word_of(&mut self, device: usize, payload: &[u8]) -> Option<u64> {
        let word = payload.first_chunk().map(|word| u64::from_le_bytes(*word));
        let asked = word.filter(|word| self.questions.asked.contains(word) && question_of(*word) == payload);
        if asked.is_none() {
            self.ledger.fail(self.now, "NotWhatWasAsked", Some(device), &[], "nobody asked this");
        }
        asked
    }

    /// A device gets something beside orders.
    pub(super) fn take_beside(&mut self, at: usize, link: LinkId, beside: Beside) {
        match beside {
            Beside::Piece(piece) => self.take_piece(at, link, &piece),
            Beside::Question(id, payload) => {
                let Some(word) = self.word_of(at, &payload) else { return };
                let boot = self.devices[at].boot;
                if self.chance(50) {
                    return self.device_answers(at, boot, id, word);
                }
                let after = self.rng.between(MS, MS * 3_000);
                self.later(after, Act::DeviceAnswers { device: at, boot, id, word });
            }
            Beside::Answer(ask, payload) => {
                let open = self.questions.of_devices.remove(&(at, self.devices[at].boot, ask.0));
                if open.is_some_and(|(_, until)| until + MS < self.now) {
                    self.ledger.fail(self.now, "AnsweredLate", Some(at), &[], "its time was over");
                }
                self.check_answer(at, open.map(|(word, _)| word), &payload);
            }
        }
    }

    /// The application on a device answers. It is not drained.
    pub(super) fn device_answers(&mut self, at: usize, boot: u64, id: QuestionId, word: u64) {
        let now = self.now;
        let device = &mut self.devices[at];
        let (false, Some(receiver)) = (device.frozen || device.boot != boot, &mut device.receiver) else {
            return;
        };
        let bytes = answer_of(word);
        let mut room = vec![0; bytes.len()];
        let mut answer = AnswerBuffer::new(&mut room);
        answer.bytes.spare().copy_from_slice(&bytes);
        answer.bytes.advance(bytes.len());
        // Its session may be over.
        let _ = receiver.reply(now, id, AnswerCode::Ok, &answer);
    }

    /// A server hears something beside what becomes of orders.
    pub(super) fn take_heard(&mut self, at: usize, index: DeviceIndex, heard: Heard) {
        let device = self.servers[at].device_of[index.0 as usize];
        match heard {
            Heard::Question(question, payload) => {
                let Some(word) = self.word_of(device, &payload) else { return };
                let boot = self.servers[at].boot;
                if self.chance(50) {
                    return self.server_answers(at, boot, &question, word);
                }
                let after = self.rng.between(MS, MS * 3_000);
                self.later(after, Act::ServerAnswers { server: at, boot, question, word });
            }
            Heard::Answer(fleet::AskId { correlation, generation }, payload) => {
                let key = (at, self.servers[at].boot, correlation, generation);
                let word = self.questions.of_servers.remove(&key);
                self.check_answer(device, word, &payload);
            }
        }
    }

    /// The application on a server answers. It is not drained.
    pub(super) fn server_answers(&mut self, at: usize, boot: u64, question: &Asked, word: u64) {
        let now = self.now;
        let server = &mut self.servers[at];
        let (true, Some(fleet)) = (server.boot == boot, &mut server.fleet) else { return };
        let bytes = answer_of(word);
        let frame = frame_of(|room| question.reply(reply::Code::OK, 1, 0, &bytes).emit(room));
        if fleet.reply(now, question, frame) == Err(ReplyError::Frame) {
            self.ledger.fail(now, "NotAnswered", None, &[], "its frame is not an answer");
        }
    }

    /// An answer is the one to its question, which is open.
    fn check_answer(&mut self, device: usize, word: Option<u64>, payload: &[u8]) {
        self.probe(Probe::Answered);
        let detail = match word {
            None => "nobody waits for it",
            Some(word) if answer_of(word) != payload => "it is that of another question",
            Some(_) => return,
        };
        self.ledger.fail(self.now, "WrongAnswer", Some(device), &[], detail);
    }

    /// A question of a device is told to have no answer.
    pub(super) fn device_unanswered(&mut self, at: usize, ask: AskId) {
        let open = self.questions.of_devices.remove(&(at, self.devices[at].boot, ask.0));
        self.check_unanswered(at, open.map(|(word, _)| word));
    }

    /// The same of a server.
    pub(super) fn server_unanswered(&mut self, at: usize, index: DeviceIndex, ask: fleet::AskId) {
        let key = (at, self.servers[at].boot, ask.correlation, ask.generation);
        let open = self.questions.of_servers.remove(&key);
        self.check_unanswered(self.servers[at].device_of[index.0 as usize], open);
    }

    fn check_unanswered(&mut self, device: usize, open: Option<u64>) {
        self.probe(Probe::Unanswered);
        if open.is_none() {
            self.ledger.fail(self.now, "EndedTwice", Some(device), &[], "a question that is not open");
        }
    }
}
