//! Frames from devices: one per call, believed only in the place where it belongs.

use core::time::Duration;

use wire_format::error::{Fault, ParseError};
use wire_format::frame::status::States;
use wire_format::frame::{
    Ack, Bye, Frame, OrderResult, Outcome, Progress, Raw, Reject, Window, outcome, reply,
};
use wire_format::splitter::{Split, split};
use wire_format::time::Instant;

use super::device::{State, due, flag, link};
use super::devices::DeviceStorage;
use super::list::{List, NONE};
use super::marks::End;
use super::order::{MarkBytes, OrderStorage};
use super::posts::{AskId, Question};
use super::session::protocol_bye;
use super::track::Track;
use super::{DeviceIndex, Fleet};
use crate::config::DRAIN_MAX;
use crate::ended::Ended;
use crate::mark::Mark;
use wire_format::frame::outcome::Code;

/// What one call of [`Fleet::handle_bytes`] used and found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Input<'b> {
    /// Bytes used: one frame, or 0.
    pub consumed: usize,
    /// What the frame says to the application, if it is one of that sort.
    pub item: Option<Item<'b>>,
}

impl Input<'_> {
    const NONE: Self = Self { consumed: 0, item: None };
}

/// What a device says to the application, and what no state of the fleet depends on. Borrowed from the bytes handed in:
/// use it before the next read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Item<'b> {
    /// The result of an order that was submitted with NEEDS_RESULT; its outcome follows. At most one per delivery.
    Result {
        /// The order, live and out on this device.
        number: u64,
        /// As the application on the device wrote it, at most 16,384 bytes (and no more than the fleet's `body_max`).
        payload: &'b [u8],
    },
    /// A live order is being worked on.
    Progress {
        /// The order, live and out on this device.
        number: u64,
        /// How much is done, 0 to 1,000.
        per_mille: u16,
        /// The application's own, 0 for none.
        phase: u16,
    },
    /// The device asks: answer with [`Fleet::reply`], or let the deadline pass.
    Ask {
        /// What to answer to.
        question: Question,
        /// Version of the payload's encoding.
        schema: u16,
        /// Milliseconds the device waits; no longer than [`crate::config::ASK_WITHIN_MAX`] is kept here.
        deadline_ms: u32,
        /// As the application on the device wrote it, at most 4,096 bytes.
        payload: &'b [u8],
    },
    /// The answer to a question of [`Fleet::ask`].
    Reply {
        /// The question.
        ask: AskId,
        /// How it ended.
        code: reply::Code,
        /// Version of the payload's encoding.
        schema: u16,
        /// The answer was true this many milliseconds before it was sent.
        age_ms: u32,
        /// As the application on the device wrote it, at most 4,096 bytes.
        payload: &'b [u8],
    },
    /// The answer to a question of [`Fleet::ask_status`].
    Status {
        /// The question.
        ask: AskId,
        /// What the device knows of each order, in the order of the question.
        states: States<'b>,
    },
}

impl<D: DeviceStorage, O: OrderStorage<B, M>, B: AsRef<[u8]>, M: MarkBytes> Fleet<D, O, B, M> {
    /// Bytes a device sent, from the first one not used yet. At most one frame is used; the answer says how many bytes it
    /// took and what the frame says to the application. 0 bytes means: more are needed, or (with no effect) events wait
    /// in [`Fleet::poll_event`]: drain them after each call.
    ///
    /// An error says that the session is over: stop reading, drop what is left. [`Fleet::poll_close`] says when to close,
    /// since a last frame may have to leave first.
    pub fn handle_bytes<'b>(
        &mut self,
        now: Instant,
        device: DeviceIndex,
        bytes: &'b [u8],
    ) -> Result<Input<'b>, Ended> {
        self.observe(now);
        let index = device.0;
        let slot = self.devices.at(index);
        if !matches!(slot.state, State::Greeting | State::Open) {
            return Ok(Input { consumed: bytes.len(), item: None });
        }
        if !self.told.is_empty() || slot.is(flag::DOUBT) {
            return Ok(Input::NONE);
        }
        let raw = match split(bytes, self.config.body_max.max(outcome::BODY_MAX as u32)) {
            Ok(Split::Frame(raw)) => raw,
            Ok(Split::Need(_)) => {
                self.heard(now, index);
                return Ok(Input::NONE);
            }
            Err(error) => return Err(self.broken(now, index, error)),
        };
        self.stats.frames_in = self.stats.frames_in.wrapping_add(1);
        self.stats.bytes_in = self.stats.bytes_in.wrapping_add(raw.len() as u64);
        let done = if self.devices.at(index).state == State::Open {
            self.handle_frame(now, index, &raw)
        } else {
            self.handle_answer(now, index, &raw)
        };
        let item = match done {
            Ok(item) => item,
            Err(Wrong::Bytes(error)) => return Err(self.broken(now, index, error)),
            Err(Wrong::Session(why)) => return Err(why),
        };
        self.heard(now, index);
        Ok(Input { consumed: raw.len(), item })
    }

    /// The frame that answers a HELLO.
    fn handle_answer<'b>(
        &mut self,
        now: Instant,
        index: u32,
        raw: &Raw<'b>,
    ) -> Result<Option<Item<'b>>, Wrong> {
        match Frame::parse(raw)? {
            Frame::Welcome(welcome) => self.handle_welcome(now, index, &welcome).map_err(Wrong::Session)?,
            Frame::Reject(Reject { code, retry_after_ms, detail }) => {
                return Err(self.ended(now, index, Ended::Rejected { code, retry_after_ms, detail }));
            }
            Frame::Bye(bye) => return Err(self.handle_bye(now, index, bye)),
            Frame::Ignored(_) => self.ignore(),
            _ => return Err(self.ended(now, index, Ended::Unexpected(raw.header.kind))),
        }
        Ok(None)
    }

    /// A frame of an open session.
    fn handle_frame<'b>(
        &mut self,
        now: Instant,
        index: u32,
        raw: &Raw<'b>,
    ) -> Result<Option<Item<'b>>, Wrong> {
        match Frame::parse(raw)? {
            Frame::Outcome(outcome) => self.handle_outcomes(now, index, &outcome),
            Frame::Ack(ack) => self.handle_ack(index, ack),
            Frame::Result(result) => return Ok(self.handle_result(index, &result)),
            Frame::Progress(progress) => return Ok(self.handle_progress(index, progress)),
            Frame::Want(want) => self.handle_want(index, want),
            Frame::Window(window) => self.handle_window(index, window),
            Frame::Ping(ping) => {
                let device = self.devices.at_mut(index);
                device.pong_token = ping.token;
                device.due |= due::PONG;
                self.wake(index);
            }
            Frame::Pong(pong) => {
                let device = self.devices.at_mut(index);
                if pong.token == device.ping_token {
                    device.set(flag::PINGED, false);
                    self.ping_answered(index);
                    if self.devices.at(index).is(flag::ECHO | flag::ECHO_AGAIN) {
                        self.echoed(index);
                    }
                }
            }
            Frame::Drain(drain) => {
                let device = self.devices.at_mut(index);
                device.set(flag::DRAINING, true);
                device.dial_at = now + Duration::from_millis(drain.after_ms.into()).min(DRAIN_MAX);
            }
            Frame::Bye(bye) => return Err(self.handle_bye(now, index, bye)),
            // An answer nobody waits for, and a question beyond what is answered, are dropped and counted.
            Frame::Ask(asked) => return Ok(self.handle_ask(now, index, &asked)),
            Frame::Reply(reply) => return Ok(self.handle_reply(now, index, &reply)),
            Frame::Status(status) => return Ok(self.handle_status(now, index, &status)),
            Frame::Ignored(_) => self.ignore(),
            _ => {
                let why = Ended::Unexpected(raw.header.kind);
                self.part(now, index, why, protocol_bye(Fault::Misplaced));
                return Err(Wrong::Session(why));
            }
        }
        Ok(None)
    }

    fn handle_outcomes(&mut self, now: Instant, index: u32, outcome: &Outcome<'_>) {
        for entry in outcome.entries {
            let track = Track::new(outcome.durable, entry.lane);
            let slot = self.orders.find(entry.number);
            let Some(slot) = slot.filter(|&slot| self.orders.at(slot).track == track) else {
                self.note_ended(index, track, entry.number);
                self.stats.numbers_unknown = self.stats.numbers_unknown.wrapping_add(1);
                continue;
            };
            let mark = self.orders.at(slot).mark(index);
            if mark.is_out() || mark == Mark::REPEAT {
                // The usual outcome is that of the first order that is not received: its end says so itself.
                let first = self.devices.track(index, track).unreceived;
                if first != slot && first != NONE {
                    self.mark_received_upto(index, track, entry.number);
                }
                let first_code = match (entry.code, entry.detail) {
                    // How it ended the first time nobody knows any more: saying "applied" would be a guess.
                    (Code::DUPLICATE, 0) => Code::DUPLICATE,
                    (Code::DUPLICATE, detail) => Code(detail),
                    (code, _) => code,
                };
                let end = End {
                    code: entry.code,
                    first_code,
                    device_ms: entry.ms,
                    by_device: true,
                    forgotten: false,
                };
                self.mark_ended(now, index, slot, end);
            } else if mark.is_final() || mark.is_retried() || mark.is_unlogged() {
                self.note_ended(index, track, entry.number);
                self.stats.outcomes_repeated = self.stats.outcomes_repeated.wrapping_add(1);
            } else {
                if mark == Mark::NOT_TARGETED {
                    self.note_ended(index, track, entry.number);
                }
                self.stats.numbers_unknown = self.stats.numbers_unknown.wrapping_add(1);
            }
        }
        if !List::<{ link::SETTLE }>::has(&self.devices, index) && self.owes_settled(index) {
            self.settle_soon(now, index);
        }
        self.wake_if_owed(index);
    }

    /// The result of an order that is out here and whose delivery asked for one; a second one is dropped.
    fn handle_result<'b>(&mut self, index: u32, result: &OrderResult<'b>) -> Option<Item<'b>> {
        let OrderResult { number, payload, .. } = *result;
        let slot = self.out_here(index, number, result.durable)?;
        let order = self.orders.at(slot);
        if !order.needs_result || order.mark(index) == Mark::RESULTED {
            self.stats.results_dropped = self.stats.results_dropped.wrapping_add(1);
            return None;
        }
        self.mark_resulted(index, slot);
        self.stats.results = self.stats.results.wrapping_add(1);
        self.wake_if_owed(index);
        Some(Item::Result { number, payload })
    }

    fn handle_progress(&mut self, index: u32, progress: Progress) -> Option<Item<'static>> {
        let Progress { number, per_mille, phase, .. } = progress;
        let slot = self.out_here(index, number, progress.durable)?;
        self.mark_started(index, slot);
        self.wake_if_owed(index);
        Some(Item::Progress { number, per_mille, phase })
    }

    /// The live order with this number, if it is out on this device; counted if not.
    fn out_here(&mut self, index: u32, number: u64, durable: bool) -> Option<u32> {
        let out = |&slot: &u32| {
            let order = self.orders.at(slot);
            order.track.is_durable() == durable && order.mark(index).is_out()
        };
        let slot = self.orders.find(number).filter(out);
        if slot.is_none() {
            self.stats.numbers_unknown = self.stats.numbers_unknown.wrapping_add(1);
        }
        slot
    }

    fn handle_window(&mut self, index: u32, window: Window) {
        let device = self.devices.at_mut(index);
        device.window_orders = window.orders;
        device.window_bytes = window.bytes;
        self.wake_if_owed(index);
    }

    fn handle_ack(&mut self, index: u32, ack: Ack) {
        let track = Track::new(ack.durable, ack.lane);
        let last = self.last.of(ack.durable);
        let number = ack.number(last);
        if number > last {
            self.stats.numbers_unknown = self.stats.numbers_unknown.wrapping_add(1);
            return;
        }
        self.mark_received_upto(index, track, number);
        self.wake_if_owed(index);
    }

    fn handle_bye(&mut self, now: Instant, index: u32, bye: Bye) -> Wrong {
        self.ended(now, index, Ended::Bye { code: bye.code, retry_after_ms: bye.retry_after_ms })
    }

    pub(super) const fn ignore(&mut self) {
        self.stats.frames_ignored = self.stats.frames_ignored.wrapping_add(1);
    }

    /// Credit came back: perhaps there is something it was waited for.
    pub(super) fn wake_if_owed(&mut self, index: u32) {
        let device = self.devices.at(index);
        if device.takes_orders() && device.is_owed() {
            self.wake(index);
        }
    }

    fn ended(&mut self, now: Instant, index: u32, why: Ended) -> Wrong {
        self.end(now, index, why);
        Wrong::Session(why)
    }

    fn broken(&mut self, now: Instant, index: u32, error: ParseError) -> Ended {
        let why = Ended::Broken(error);
        if self.devices.at(index).state == State::Open {
            self.part(now, index, why, protocol_bye(error.fault));
        } else {
            self.end(now, index, why);
        }
        why
    }
}

/// What ends a session while a frame is handled.
enum Wrong {
    /// The frame is broken; the session is still to be ended.
    Bytes(ParseError),
    /// The session has been ended.
    Session(Ended),
}

impl From<ParseError> for Wrong {
    fn from(error: ParseError) -> Self {
        Self::Bytes(error)
    }
}
