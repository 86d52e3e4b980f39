//! Questions of both sides. Each ends once, with an answer to itself or with the word that there is none, and none of them
//! outlives its session.

use std::collections::BTreeMap;
use std::time::Duration;

use push::fleet::{AskError as FleetAskError, AskId as FleetAsk, Question as DeviceAsks};
use push::receiver::{AnswerBuffer, AnswerCode, AskError, QuestionId};
use wire_format::frame::Ask;
use wire_format::frame::reply::Code;
use wire_format::ids::OrderKind;

use crate::world::{Act, MS, World, index};

/// Questions under way, and what each asks: a number, to which the answer is the next one.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    next: u64,
    /// The server's, by correlation and generation; with the device that was asked.
    ours: BTreeMap<(u32, u32), (usize, u64)>,
    /// The devices', by device and number.
    theirs: BTreeMap<(usize, u32), u64>,
}

/// Where an answer goes that is given later.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ReplyTo {
    /// A device answers the server.
    Server { device: usize, boot: u64, id: QuestionId },
    /// The server answers a device.
    Device { run: u8, question: DeviceAsks },
}

fn number(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload.try_into().expect("questions and answers are numbers"))
}

impl Questions {
    pub(crate) fn is_empty(&self) -> bool {
        self.ours.is_empty() && self.theirs.is_empty()
    }

    /// Its memory is gone, and what it asked.
    pub(crate) fn forget_device(&mut self, at: usize) {
        self.theirs.retain(|(device, _), _| *device != at);
    }

    pub(crate) fn forget_server(&mut self) {
        self.ours.clear();
    }
}

impl World {
    /// Somebody asks something, now and then.
    pub(crate) fn ask(&mut self) {
        if self.calm {
            return;
        }
        let wait = self.rng.between(MS, MS * 2_000);
        self.later(wait, Act::Ask);
        for _ in 0..=self.rng.below(6) {
            let device = self.rng.below(self.devices.len() as u64) as usize;
            let within = self.rng.between(MS * 20, MS * 3_000);
            self.questions.next += 2;
            if self.rng.below(2) == 0 {
                self.server_asks(device, within)
            } else {
                self.device_asks(device, within)
            }
        }
    }

    fn server_asks(&mut self, device: usize, within: Duration) {
        let token = self.questions.next;
        if self.now < self.paused_until {
            return;
        }
        let asked = self.fleet.ask(self.now, index(device), |id| {
            let ask = Ask {
                correlation: id.correlation,
                generation: id.generation,
                kind: OrderKind::STOCK_QUESTION,
                schema: 1,
                deadline_ms: within.as_millis() as u32,
                payload: &token.to_le_bytes(),
            };
            let mut frame = vec![0; 128];
            let len = ask.emit(&mut frame).expect("emits");
            frame.truncate(len);
            frame
        });
        match asked {
            Ok(FleetAsk { correlation, generation }) => {
                self.note(format_args!("the server asks device {device}: {token}"));
                self.totals.asked += 1;
                let before = self.questions.ours.insert((correlation, generation), (device, token));
                assert_eq!(before, None, "no two questions have one name");
            }
            Err(FleetAskError::NotConnected | FleetAskError::TooMany { .. } | FleetAskError::Full { .. }) => {
            }
            Err(why) => panic!("not asked: {why}"),
        }
        self.serve_fleet();
    }

    fn device_asks(&mut self, device: usize, within: Duration) {
        let (token, mut asked) = (self.questions.next, None);
        let kind = OrderKind::STOCK_QUESTION;
        self.with_receiver(device, |receiver, now| {
            asked = Some(receiver.ask(now, kind, 1, within, &token.to_le_bytes()));
        });
        match asked {
            Some(Ok(id)) => {
                self.note(format_args!("device {device} asks: {token}"));
                self.totals.asked += 1;
                assert_eq!(self.questions.theirs.insert((device, id.0), token), None);
            }
            None | Some(Err(AskError::NotServed | AskError::TooMany | AskError::NoRoom)) => {}
            Some(Err(why)) => panic!("not asked: {why}"),
        }
    }

    /// A device is asked.
    pub(crate) fn device_is_asked(&mut self, device: usize, id: QuestionId, payload: &[u8]) {
        let boot = self.devices[device].boot;
        self.answer_later(ReplyTo::Server { device, boot, id }, number(payload));
    }

    /// The server is asked.
    pub(crate) fn server_is_asked(&mut self, question: DeviceAsks, payload: &[u8]) {
        self.answer_later(ReplyTo::Device { run: self.run, question }, number(payload));
    }

    /// At once, later, or never.
    fn answer_later(&mut self, to: ReplyTo, token: u64) {
        let after = match self.rng.below(8) {
            0 => return,
            1..=4 => Duration::ZERO,
            _ => self.rng.between(MS, MS * 4_000),
        };
        self.later(after, Act::Reply { to, token });
    }

    pub(crate) fn reply(&mut self, to: ReplyTo, token: u64) {
        let answer = (token + 1).to_le_bytes();
        match to {
            ReplyTo::Server { device, boot, id } if self.devices[device].boot == boot => {
                if self.devices[device].frozen {
                    return self.later(MS * 10, Act::Reply { to, token });
                }
                let mut room = [0; 8];
                let mut buffer = AnswerBuffer::new(&mut room);
                buffer.bytes.write(&answer).expect("there is room");
                self.with_receiver(device, |receiver, now| {
                    receiver.reply(now, id, AnswerCode::Ok, &buffer);
                });
            }
            ReplyTo::Device { run, question } if self.run == run => {
                if self.now < self.paused_until {
                    return self.at(self.paused_until, Act::Reply { to, token });
                }
                let mut frame = vec![0; 128];
                let len = question.reply(Code::OK, 1, 0, &answer).emit(&mut frame).expect("emits");
                frame.truncate(len);
                // One whose time or session is over is dropped.
                let _ = self.fleet.reply(self.now, &question, frame);
                self.serve_fleet();
            }
            _ => {}
        }
    }

    /// The server's question has its answer.
    pub(crate) fn server_is_answered(&mut self, device: usize, ask: FleetAsk, payload: &[u8]) {
        let open = self.questions.ours.remove(&(ask.correlation, ask.generation));
        let (asked, token) = open.expect("an answer is to an open question");
        assert_eq!((device, number(payload)), (asked, token + 1), "and to no other");
        self.totals.answered += 1;
    }

    /// The server's question has no answer and will get none.
    pub(crate) fn server_is_unanswered(&mut self, device: usize, ask: FleetAsk) {
        let open = self.questions.ours.remove(&(ask.correlation, ask.generation));
        assert_eq!(open.map(|(asked, _)| asked), Some(device), "a question ends once");
        self.totals.unanswered += 1;
    }

    /// A device's question has its answer.
    pub(crate) fn device_is_answered(&mut self, device: usize, ask: u32, payload: &[u8]) {
        let token = self.questions.theirs.remove(&(device, ask)).expect("an answer is to an open question");
        assert_eq!(number(payload), token + 1, "and to no other");
        self.totals.answered += 1;
    }

    /// A device's question has no answer and will get none.
    pub(crate) fn device_is_unanswered(&mut self, device: usize, ask: u32) {
        assert!(self.questions.theirs.remove(&(device, ask)).is_some(), "a question ends once");
        self.totals.unanswered += 1;
    }
}
