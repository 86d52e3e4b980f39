//! Questions: the server asks a device, a device asks the server. Nothing here is repeated or outlives its session.

use core::time::Duration;

use wire_format::bytes::u32_at;
use wire_format::frame::hello::feature;
use wire_format::frame::status::StatusRows;
use wire_format::frame::{Ask, Header, Kind, Raw, Reply, Status, ask, header};
use wire_format::time::Instant;

use super::device::{State, due, flag};
use super::devices::DeviceStorage;
use super::event::Event;
use super::order::{MarkBytes, OrderStorage};
use super::posts::{AskError, AskId, Post, Question, ReplyError, Sort, Stage, Unanswered};
use super::receive::Item;
use super::{DeviceIndex, Fleet};
use crate::config::{ANSWERS_MAX, ASK_WITHIN_MAX, POSTS_MAX, QUESTIONS_MAX, REFUSALS_MAX, STATUS_WITHIN};

impl<D: DeviceStorage, O: OrderStorage<B, M>, B: AsRef<[u8]>, M: MarkBytes> Fleet<D, O, B, M> {
    /// Asks a device. `encode` is called once, if the question may be asked, and makes its ASK frame under the
    /// correlation and generation given; `aux32` says how long the answer is waited for (at most [`ASK_WITHIN_MAX`]).
    ///
    /// The answer comes as [`Item::Reply`], the end without one as [`Event::Unanswered`]: exactly one of the two.
    pub fn ask(
        &mut self,
        now: Instant,
        device: DeviceIndex,
        encode: impl FnOnce(AskId) -> B,
    ) -> Result<AskId, AskError> {
        self.observe(now);
        let (at, id) = self.may_ask(device.0, Sort::Ask)?;
        let frame = encode(id);
        let (header, body) = self.check_frame_for(device.0, frame.as_ref(), Kind::ASK)?;
        if identity(body) != Some((id.correlation, id.generation)) || header.aux32 == 0 {
            return Err(AskError::Frame);
        }
        let within = Duration::from_millis(header.aux32.into()).min(ASK_WITHIN_MAX);
        self.post(at, id.generation, device.0, Sort::Ask, now + within, frame);
        Ok(id)
    }

    /// Asks a device what became of orders. `frame` is a STATUS question; one may be open per device, for
    /// [`STATUS_WITHIN`]. The answer comes as [`Item::Status`], the end without one as [`Event::Unanswered`].
    pub fn ask_status(&mut self, now: Instant, device: DeviceIndex, frame: B) -> Result<AskId, AskError> {
        self.observe(now);
        let (at, id) = self.may_ask(device.0, Sort::Status)?;
        self.check_frame_for(device.0, frame.as_ref(), Kind::STATUS)?;
        if numbers(frame.as_ref()).is_none() {
            return Err(AskError::Frame);
        }
        self.post(at, id.generation, device.0, Sort::Status, now + STATUS_WITHIN, frame);
        Ok(id)
    }

    /// Answers a question with its REPLY frame (see [`Question::reply`]). An answer that comes too late, or whose session
    /// is over, is dropped and counted.
    pub fn reply(&mut self, now: Instant, question: &Question, frame: B) -> Result<(), ReplyError> {
        self.observe(now);
        let Question { device: DeviceIndex(index), post, ours, correlation, generation, kind } = *question;
        if !self.posts.find(post, ours, index, Stage::Asked { kind }) {
            self.stats.answers_dropped = self.stats.answers_dropped.wrapping_add(1);
            return Err(ReplyError::Over);
        }
        let (_, body) =
            self.check_frame_for(index, frame.as_ref(), Kind::REPLY).map_err(|error| match error {
                AskError::TooLarge { limit } => ReplyError::TooLarge { limit },
                _ => ReplyError::Frame,
            })?;
        if identity(body) != Some((correlation, generation)) {
            return Err(ReplyError::Frame);
        }
        if let Some(entry) = self.posts.at_mut(post) {
            entry.stage = Stage::Waiting(Sort::Reply);
            entry.frame = Some(frame);
        }
        self.stats.answers = self.stats.answers.wrapping_add(1);
        self.post_due(index);
        Ok(())
    }

    /// A place for one question more, if this device takes it.
    fn may_ask(&self, index: u32, sort: Sort) -> Result<(u8, AskId), AskError> {
        let device = self.devices.at(index);
        if index >= self.devices.len()
            || device.state != State::Open
            || device.is(flag::DRAINING | flag::LEAVING)
        {
            return Err(AskError::NotConnected);
        }
        let needs = if sort == Sort::Status { feature::STATUS } else { feature::ASK };
        if u32::from(device.features) & needs == 0 {
            return Err(AskError::Unsupported);
        }
        let counts = self.posts.counts(index);
        if counts.questions >= QUESTIONS_MAX || (sort == Sort::Status && counts.status != 0) {
            return Err(AskError::TooMany { limit: QUESTIONS_MAX });
        }
        let (at, generation) = self.posts.vacant().ok_or(AskError::Full { limit: POSTS_MAX })?;
        Ok((at, AskId { correlation: at.into(), generation }))
    }

    /// The frame is whole, of this kind, and this device takes it.
    fn check_frame_for<'f>(
        &self,
        index: u32,
        frame: &'f [u8],
        kind: Kind,
    ) -> Result<(Header, &'f [u8]), AskError> {
        let Raw { header, body } = Raw::parse(frame).map_err(|_| AskError::Frame)?;
        let (least, most) = kind.body_lens().unwrap_or((0, 0));
        if header.kind != kind || body.len() < least || body.len() > most {
            return Err(AskError::Frame);
        }
        let limit = self.devices.at(index).max_body;
        if header.length > limit { Err(AskError::TooLarge { limit }) } else { Ok((header, body)) }
    }

    fn post(&mut self, at: u8, generation: u32, index: u32, sort: Sort, deadline: Instant, frame: B) {
        let stage = Stage::Waiting(sort);
        let entry = Post { stage, untold: None, device: index, generation, deadline, frame: Some(frame) };
        self.posts.take(at, entry);
        self.stats.asks = self.stats.asks.wrapping_add(1);
        self.alarm = self.alarm.min(deadline);
        self.post_due(index);
    }

    fn post_due(&mut self, index: u32) {
        self.devices.at_mut(index).due |= due::POST;
        self.wake(index);
    }

    /// A device asks. Beyond its limit it is not heard; if all devices together ask too much, it is told so.
    pub(super) fn handle_ask<'b>(&mut self, now: Instant, index: u32, asked: &Ask<'b>) -> Option<Item<'b>> {
        let Ask { correlation, generation, kind, schema, deadline_ms, payload } = *asked;
        let counts = self.posts.counts(index);
        let all = counts.all_answers;
        let place = self.posts.vacant();
        let Some((post, ours)) = place
            .filter(|_| self.config.answers_questions && counts.answers < QUESTIONS_MAX)
            .filter(|_| all < ANSWERS_MAX.saturating_add(REFUSALS_MAX))
        else {
            self.stats.questions_dropped = self.stats.questions_dropped.wrapping_add(1);
            return None;
        };
        let busy = all >= ANSWERS_MAX;
        let stage = if busy {
            Stage::Waiting(Sort::Busy { correlation, generation, kind })
        } else {
            Stage::Asked { kind }
        };
        let deadline = now + Duration::from_millis(deadline_ms.into()).min(ASK_WITHIN_MAX);
        let entry = Post { stage, untold: None, device: index, generation: ours, deadline, frame: None };
        self.posts.take(post, entry);
        self.alarm = self.alarm.min(deadline);
        if busy {
            self.stats.questions_refused = self.stats.questions_refused.wrapping_add(1);
            self.post_due(index);
            return None;
        }
        self.stats.questions = self.stats.questions.wrapping_add(1);
        let question = Question { device: DeviceIndex(index), post, ours, correlation, generation, kind };
        Some(Item::Ask { question, schema, deadline_ms, payload })
    }

    /// An answer: to an open question of this side, under its numbers and kind, or it is dropped.
    pub(super) fn handle_reply<'b>(
        &mut self,
        now: Instant,
        index: u32,
        reply: &Reply<'b>,
    ) -> Option<Item<'b>> {
        let Reply { correlation, generation, kind, schema, code, age_ms, payload } = *reply;
        let post = u8::try_from(correlation).ok().filter(|&post| {
            let open = self.posts.find(post, generation, index, Stage::Open(Sort::Ask));
            let asked = self.posts.frame(post).get(KIND_AT..).and_then(<[u8]>::first_chunk);
            let in_time = self.posts.at(post).is_some_and(|entry| now < entry.deadline);
            open && in_time && asked == Some(&kind.0.to_le_bytes())
        });
        let Some(post) = post else {
            self.stats.replies_dropped = self.stats.replies_dropped.wrapping_add(1);
            return None;
        };
        self.posts.free(post);
        self.stats.replies = self.stats.replies.wrapping_add(1);
        Some(Item::Reply { ask: AskId { correlation, generation }, code, schema, age_ms, payload })
    }

    /// The answer to the STATUS that is open with this device, if it names the same orders.
    pub(super) fn handle_status<'b>(
        &mut self,
        now: Instant,
        index: u32,
        status: &Status<'b>,
    ) -> Option<Item<'b>> {
        let StatusRows::Answer(states) = status.rows else {
            self.ignore();
            return None;
        };
        let open = |entry: &Post<B>| entry.device == index && entry.stage == Stage::Open(Sort::Status);
        let found =
            self.posts.iter().find(|(_, entry)| open(entry) && now < entry.deadline).filter(|(_, entry)| {
                let asked = entry.frame.as_ref().map_or(&[][..], AsRef::as_ref);
                let same = |(durable, numbers): (bool, wire_format::frame::rows::Numbers<'_>)| {
                    durable == status.durable && numbers.iter().eq(states.iter().map(|state| state.number))
                };
                numbers(asked).is_some_and(same)
            });
        let Some((post, generation)) = found.map(|(post, entry)| (post, entry.generation)) else {
            self.stats.replies_dropped = self.stats.replies_dropped.wrapping_add(1);
            return None;
        };
        self.posts.free(post);
        self.stats.replies = self.stats.replies.wrapping_add(1);
        Some(Item::Status { ask: AskId { correlation: post.into(), generation }, states })
    }

    /// The frame of an entry has left as a whole.
    pub(super) fn post_written(&mut self, index: u32, post: u8) {
        let Some(entry) = self.posts.at_mut(post) else { return };
        match entry.stage {
            Stage::Waiting(sort @ (Sort::Ask | Sort::Status))
            | Stage::Cut(sort @ (Sort::Ask | Sort::Status)) => {
                entry.stage = Stage::Open(sort);
            }
            Stage::Waiting(_) | Stage::Cut(_) => self.posts.free(post),
            Stage::Free | Stage::Asked { .. } | Stage::Open(_) | Stage::Over => {}
        }
        self.posts_left(index);
    }

    /// A part of the frame of an entry has left.
    pub(super) fn post_cut(&mut self, index: u32, post: u8) {
        if let Some(entry) = self.posts.at_mut(post)
            && let Stage::Waiting(sort) = entry.stage
        {
            entry.stage = Stage::Cut(sort);
        }
        self.posts_left(index);
    }

    fn posts_left(&mut self, index: u32) {
        if self.posts.waiting(index, None).is_none() {
            self.devices.at_mut(index).due &= !due::POST;
        }
    }

    /// Ends everything whose time is over.
    pub(super) fn expire_posts(&mut self, now: Instant) {
        self.posts.next = Instant::NEVER;
        for post in 0..=u8::MAX {
            let Some(entry) = self.posts.at_mut(post) else { return };
            if entry.deadline > now {
                let deadline = entry.deadline;
                self.posts.next = self.posts.next.min(deadline);
                continue;
            }
            entry.deadline = Instant::NEVER;
            let (cut, device) = (matches!(entry.stage, Stage::Cut(_)), entry.device);
            if entry.is_question() {
                self.unanswered(post, Unanswered::Late, cut);
            } else if entry.is_answer() && !cut {
                self.stats.answers_late = self.stats.answers_late.wrapping_add(1);
                self.posts.free(post);
            }
            self.posts_left(device);
        }
    }

    /// The session of a device is over, and with it everything here.
    pub(super) fn end_posts(&mut self, index: u32) {
        if self.posts.used == 0 {
            return;
        }
        for post in 0..=u8::MAX {
            let Some(entry) = self.posts.at(post) else { return };
            if entry.device != index || entry.stage == Stage::Free {
                continue;
            }
            if entry.is_question() {
                self.unanswered(post, Unanswered::SessionEnded, false);
            } else if entry.stage != Stage::Over {
                self.posts.free(post);
            }
        }
    }

    /// A question has no answer: told as an event. `rest`: bytes of its frame have still to leave.
    fn unanswered(&mut self, post: u8, why: Unanswered, rest: bool) {
        let Some(entry) = self.posts.at_mut(post) else { return };
        entry.untold = Some(why);
        if rest {
            entry.stage = Stage::Cut(Sort::Rest);
        } else {
            entry.stage = Stage::Over;
            entry.frame = None;
        }
        self.posts.untold = self.posts.untold.saturating_add(1);
        self.stats.unanswered = self.stats.unanswered.wrapping_add(1);
    }

    /// One question without an answer.
    #[inline(never)]
    pub(super) fn tell_unanswered(&mut self) -> Option<Event<B, M>> {
        let (post, _) = self.posts.iter().find(|(_, entry)| entry.untold.is_some())?;
        let entry = self.posts.at_mut(post)?;
        let why = entry.untold.take()?;
        let ask = AskId { correlation: post.into(), generation: entry.generation };
        let (device, over) = (DeviceIndex(entry.device), entry.stage == Stage::Over);
        self.posts.untold = self.posts.untold.saturating_sub(1);
        if over {
            self.posts.free(post);
        }
        Some(Event::Unanswered { device, ask, why })
    }
}

/// Where an ASK's kind stands in its frame.
const KIND_AT: usize = header::LEN + 8;

/// Correlation and generation of an ASK or REPLY.
fn identity(body: &[u8]) -> Option<(u32, u32)> {
    let fixed = body.first_chunk::<{ ask::FIXED_LEN }>()?;
    Some((u32_at::<0, { ask::FIXED_LEN }>(fixed), u32_at::<4, { ask::FIXED_LEN }>(fixed)))
}

/// The orders a STATUS question names, and whether they are of the durable log.
fn numbers(frame: &[u8]) -> Option<(bool, wire_format::frame::rows::Numbers<'_>)> {
    let Status { durable, rows: StatusRows::Question(numbers) } =
        Status::parse(&Raw::parse(frame).ok()?).ok()?
    else {
        return None;
    };
    Some((durable, numbers))
}
