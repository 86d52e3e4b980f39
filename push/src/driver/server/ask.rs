//! Questions: the server asks a device, devices ask the server. Nothing is repeated: whoever needs an answer asks again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use wire_format::frame::reply::Code;
use wire_format::frame::status::{StateEntry, Status, StatusRows};
use wire_format::frame::{Ask, ask, header, status};
use wire_format::ids::{NodeId, OrderKind};
use wire_format::time::Instant;

use super::Server;
use super::frame::Frame;
use super::shard::Shard;
use super::shared::{Message, Shared, lock};
use crate::driver::device::Answer;
use crate::fleet::{AskError as NotAsked, AskId, DeviceIndex, Item, Question, Unanswered};

/// Different questions of devices that wait for the application at a time; the next ones are answered "busy".
pub const ASKED_MAX: usize = 256;

/// Why a question to a device has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// No device with this id is listed.
    #[error("no device with this id is listed")]
    UnknownDevice,
    /// It was not asked.
    #[error("the question was not asked: {0}")]
    NotAsked(#[from] NotAsked),
    /// More bytes than a question carries, or more orders than a status.
    #[error("{len} are more than the {limit} that fit")]
    TooLong {
        /// Bytes of the question, or orders of the status.
        len: usize,
        /// As many fit.
        limit: usize,
    },
    /// No answer came in time, or the session ended before.
    #[error("no answer came: {0:?}")]
    Unanswered(Unanswered),
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Stopped,
}

/// Whom to tell the answer.
pub(super) type AnswerTo = oneshot::Sender<Result<Answer, AskError>>;
pub(super) type StatusTo = oneshot::Sender<Result<Vec<StateEntry>, AskError>>;

/// A question to a device, on its way to the shard.
pub(super) struct Inquiry {
    kind: OrderKind,
    schema: u16,
    payload: Vec<u8>,
    within: Duration,
}

/// Who waits for what a device was asked.
pub(super) enum Waiting {
    Answer(AnswerTo),
    Status(StatusTo),
}

impl Waiting {
    fn fail(self, error: AskError) {
        // Whoever asked may have given up.
        match self {
            Self::Answer(to) => drop(to.send(Err(error))),
            Self::Status(to) => drop(to.send(Err(error))),
        }
    }
}

/// An answer for devices.
#[derive(Debug)]
pub(super) struct Reply {
    code: Code,
    schema: u16,
    age_ms: u32,
    payload: Vec<u8>,
}

fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

impl Server {
    /// Asks a device, and waits for its answer, `within` at most (a minute is the longest). Four questions may be open
    /// with a device, 256 with all of a shard.
    ///
    /// Cancel safe: an answer nobody waits for is dropped.
    pub async fn ask(
        &self,
        device: NodeId,
        kind: OrderKind,
        schema: u16,
        payload: &[u8],
        within: Duration,
    ) -> Result<Answer, AskError> {
        let (len, limit) = (payload.len(), ask::PAYLOAD_MAX);
        if len > limit {
            return Err(AskError::TooLong { len, limit });
        }
        let inquiry = Box::new(Inquiry { kind, schema, payload: payload.to_vec(), within });
        self.inquire(device, |position, to| Message::Ask(position, inquiry, to)).await
    }

    /// Asks a device what it knows of these orders, 1 to 16. For an operator: nothing depends on the answer.
    pub async fn status(&self, device: NodeId, numbers: &[u64]) -> Result<Vec<StateEntry>, AskError> {
        let (len, limit) = (numbers.len(), status::ROWS_MAX);
        if len > limit {
            return Err(AskError::TooLong { len, limit });
        }
        self.inquire(device, |position, to| Message::Status(position, numbers.to_vec(), to)).await
    }

    async fn inquire<T>(
        &self,
        device: NodeId,
        message: impl FnOnce(u32, oneshot::Sender<Result<T, AskError>>) -> Message,
    ) -> Result<T, AskError> {
        let place = {
            let directory = self.shared.directory();
            directory.find(device).and_then(|position| Some((position, directory.place(position)?.0)))
        };
        let (position, shard) = place.ok_or(AskError::UnknownDevice)?;
        let (to, answer) = oneshot::channel();
        if !self.shared.send(shard, message(position, to)) {
            return Err(AskError::Stopped);
        }
        answer.await.unwrap_or(Err(AskError::Stopped))
    }

    /// The questions of devices, from now on; whoever calls this again takes them over. Without a reader every question
    /// is answered "unknown kind".
    ///
    /// Devices that ask the same (kind, schema and payload) while it waits for an answer share one question and get the
    /// same answer. [`ASKED_MAX`] different ones wait at most; further ones are answered "busy".
    #[must_use]
    pub fn questions(&self) -> Questions {
        let (sender, receiver) = mpsc::channel(ASKED_MAX);
        lock(&self.shared.flights.0).listener = Some(sender);
        Questions(receiver)
    }
}

/// The questions of devices, one by one.
#[derive(Debug)]
pub struct Questions(mpsc::Receiver<Asked>);

impl Questions {
    /// The next question; `None` when the server was dropped, or another reader took over. Cancel safe.
    pub async fn next(&mut self) -> Option<Asked> {
        self.0.recv().await
    }
}

/// What was asked: the same for every device that waits for the answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Subject {
    kind: OrderKind,
    schema: u16,
    payload: Arc<[u8]>,
}

/// A question of one or more devices. Answer it with [`Asked::reply`]; dropped without, it is answered "failed".
#[derive(Debug)]
pub struct Asked {
    subject: Subject,
    shared: Arc<Shared>,
    answered: bool,
}

impl Asked {
    /// What is asked.
    #[must_use]
    pub const fn kind(&self) -> OrderKind {
        self.subject.kind
    }

    /// Version of the payload's encoding.
    #[must_use]
    pub const fn schema(&self) -> u16 {
        self.subject.schema
    }

    /// As the application on the device wrote it.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.subject.payload
    }

    /// Answers every device that asked this until now. `age` says how old the answer is (that of a cached stock, say).
    /// A payload is at most 4,096 bytes; a longer one is answered as "failed", which is the answer false.
    pub fn reply(mut self, code: Code, schema: u16, age: Duration, payload: &[u8]) -> bool {
        self.answered = true;
        let fits = payload.len() <= ask::PAYLOAD_MAX;
        let (code, payload) = if fits { (code, payload) } else { (Code::FAILED, &[][..]) };
        self.shared
            .answer(&self.subject, Reply { code, schema, age_ms: millis(age), payload: payload.to_vec() });
        fits
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.answered {
            let failed =
                Reply { code: Code::FAILED, schema: self.subject.schema, age_ms: 0, payload: vec![] };
            self.shared.answer(&self.subject, failed);
        }
    }
}

/// Questions of devices that wait for the application, each with those who asked: their shard and their question.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    waiting: HashMap<Subject, Vec<(usize, Question)>>,
    listener: Option<mpsc::Sender<Asked>>,
}

impl Shared {
    /// A device of a shard asks. The answer is set at once if there will be none: busy, or nobody reads.
    fn asked(
        self: &Arc<Self>,
        shard: usize,
        question: Question,
        schema: u16,
        payload: &[u8],
    ) -> Option<Code> {
        let subject = Subject { kind: question.kind(), schema, payload: payload.into() };
        let mut table = lock(&self.flights.0);
        if let Some(waiting) = table.waiting.get_mut(&subject) {
            waiting.push((shard, question));
            return None;
        }
        let Some(listener) = table.listener.clone() else { return Some(Code::UNKNOWN_KIND) };
        if table.waiting.len() >= ASKED_MAX {
            return Some(Code::BUSY);
        }
        let place = match listener.try_reserve() {
            Ok(place) => place,
            Err(mpsc::error::TrySendError::Full(())) => return Some(Code::BUSY),
            Err(mpsc::error::TrySendError::Closed(())) => {
                table.listener = None;
                return Some(Code::UNKNOWN_KIND);
            }
        };
        table.waiting.insert(subject.clone(), vec![(shard, question)]);
        drop(table);
        place.send(Asked { subject, shared: Arc::clone(self), answered: false });
        None
    }

    /// Sends an answer to everybody who waits for it.
    fn answer(&self, subject: &Subject, reply: Reply) {
        let waiting = lock(&self.flights.0).waiting.remove(subject).unwrap_or_default();
        let reply = Arc::new(reply);
        for (shard, question) in waiting {
            self.send(shard, Message::Reply(question, Arc::clone(&reply)));
        }
    }
}

impl Shard {
    /// The device at a position, if it is one of this shard.
    fn local(&self, position: u32) -> Option<DeviceIndex> {
        let (shard, local) = self.shared.directory().place(position)?;
        local.filter(|_| shard == self.index)
    }

    pub(super) fn ask(&mut self, now: Instant, position: u32, inquiry: &Inquiry, to: AnswerTo) {
        let Some(local) = self.local(position) else {
            return drop(to.send(Err(AskError::UnknownDevice)));
        };
        let Inquiry { kind, schema, ref payload, within } = *inquiry;
        let frames = &self.shared.pools.frames;
        let asked = self.fleet.ask(now, local, |AskId { correlation, generation }| {
            let deadline_ms = millis(within).max(1);
            let question = Ask { correlation, generation, kind, schema, deadline_ms, payload };
            let mut frame = frames.take(header::LEN + ask::BODY_MAX);
            encode(&mut frame, |room| question.emit(room));
            frame
        });
        self.wait(asked, Waiting::Answer(to));
    }

    pub(super) fn ask_status(&mut self, now: Instant, position: u32, numbers: &[u64], to: StatusTo) {
        let Some(local) = self.local(position) else {
            return drop(to.send(Err(AskError::UnknownDevice)));
        };
        let question = Status { durable: false, rows: StatusRows::Question(numbers.into()) };
        let mut frame = self.shared.pools.frames.take(header::LEN + status::BODY_MAX);
        encode(&mut frame, |room| question.emit(room));
        let asked = self.fleet.ask_status(now, local, frame);
        self.wait(asked, Waiting::Status(to));
    }

    fn wait(&mut self, asked: Result<AskId, NotAsked>, waiting: Waiting) {
        match asked {
            Ok(id) => drop(self.asked.insert(id, waiting)),
            Err(error) => waiting.fail(error.into()),
        }
    }

    pub(super) fn unanswered(&mut self, id: AskId, why: Unanswered) {
        if let Some(waiting) = self.asked.remove(&id) {
            waiting.fail(AskError::Unanswered(why));
        }
    }

    pub(super) fn reply(&mut self, now: Instant, question: &Question, reply: &Reply) {
        let Reply { code, schema, age_ms, ref payload } = *reply;
        let mut frame = self.shared.pools.frames.take(header::LEN + ask::BODY_MAX);
        encode(&mut frame, |room| question.reply(code, schema, age_ms, payload).emit(room));
        // The device may be gone, or have given up: it is counted.
        let _ = self.fleet.reply(now, question, frame);
    }

    /// What a device says to the application.
    pub(super) fn hear(&mut self, now: Instant, device: DeviceIndex, item: Item<'_>) {
        match item {
            Item::Result { number, payload } => {
                if let Some(ledger) = self.fleet.ledger(number) {
                    // An attempt's result is the order's: both share what the handle looks at.
                    let make_room = || self.shared.keys.forget_results();
                    ledger.state.keep_result(self.place(device), payload, make_room);
                }
            }
            Item::Reply { ask, code, schema, age_ms, payload } => {
                if let Some(Waiting::Answer(to)) = self.asked.remove(&ask) {
                    let age = Duration::from_millis(age_ms.into());
                    drop(to.send(Ok(Answer { code, schema, age, payload: payload.to_vec() })));
                }
            }
            Item::Status { ask, states } => {
                if let Some(Waiting::Status(to)) = self.asked.remove(&ask) {
                    drop(to.send(Ok(states.into_iter().collect())));
                }
            }
            Item::Ask { question, schema, payload, .. } => {
                if let Some(code) = self.shared.asked(self.index, question, schema, payload) {
                    self.reply(now, &question, &Reply { code, schema, age_ms: 0, payload: vec![] });
                }
            }
            _ => {}
        }
    }
}

/// Encodes into a frame and cuts it to what was written; nothing if it cannot be encoded, which the fleet refuses.
fn encode(frame: &mut Frame, emit: impl FnOnce(&mut [u8]) -> Result<usize, wire_format::error::EmitError>) {
    if let Some(bytes) = frame.bytes_mut() {
        let written = emit(bytes).unwrap_or(0);
        bytes.truncate(written);
    }
}
