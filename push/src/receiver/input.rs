//! Bytes in: HELLO from strangers, frames from the server served.

use wire_format::error::{Fault, ParseError};
use wire_format::frame::{
    Drain, Flags, Header, Hello, Kind, Ping, Pong, Raw, Reject, bye, header, hello, reject,
};
use wire_format::splitter::{Split, split};
use wire_format::time::Instant;

use super::config::JOURNAL_RETRY;
use super::fence::{self, Own};
use super::session::{Conn, Leaving, Live, State, Words, goodbye};
use super::stats::count;
use super::{Delivered, Input, Item, Receiver, Storage};
use crate::ended::Ended;

/// What a frame of the server led to.
pub(super) enum Step<'a> {
    /// It was used.
    Used,
    /// It was an order to apply now.
    Order(Delivered<'a>),
    /// It brought something else for the application.
    Item(Item<'a>),
    /// It has to wait until something was written.
    Wait,
    /// It ended the session, with these last words.
    End(Ended, Option<bye::Code>),
}

impl From<ParseError> for Step<'_> {
    fn from(error: ParseError) -> Self {
        Self::End(Ended::Broken(error), Some(bye::Code::PROTOCOL_ERROR))
    }
}

impl<S: Storage, const CONNS: usize> Receiver<S, CONNS> {
    /// Offers the unread bytes of a connection, from the first. At most one frame is used.
    ///
    /// An error says that nothing more is read from this connection: throw its bytes away, keep draining, and close it
    /// when [`Receiver::poll_close`] names it. The same error comes again until then.
    pub fn handle_bytes<'a>(
        &mut self,
        now: Instant,
        conn: super::ConnId,
        bytes: &'a [u8],
    ) -> Result<Input<'a>, Ended> {
        self.touch(now);
        let Some(slot) = self.slot(conn) else { return Err(Ended::Stopped) };
        let result = match self.conns.get(slot).map(|conn| conn.state) {
            Some(State::Greeting) => self.handle_greeting(now, slot, bytes),
            Some(State::Serving(_)) => self.handle_frame(now, slot, bytes),
            Some(State::Parting(_, why) | State::Closed(why)) => Err(why),
            Some(State::Free) | None => Err(Ended::Stopped),
        };
        if let (Ok(input), Some(live)) = (&result, self.live(slot)) {
            live.note_unread(now, bytes.len(), input.consumed);
        }
        result
    }

    /// A stranger: a HELLO, or nothing.
    fn handle_greeting<'a>(
        &mut self,
        now: Instant,
        slot: usize,
        bytes: &'a [u8],
    ) -> Result<Input<'a>, Ended> {
        if self.at_hand.is_some() {
            return Ok(Input::NOTHING);
        }
        match parse_hello(bytes) {
            Ok(None) => Ok(Input::NOTHING),
            Ok(Some(hello)) => {
                let own = Own {
                    id: self.config.id,
                    store: &self.config.store,
                    staging: self.config.staging,
                    known: self.known(),
                };
                if let Err(reject) = self.fence.judge(now, own, &hello) {
                    return Err(self.refuse(now, slot, reject));
                }
                if self.is_leaving() {
                    return Err(self.refuse(now, slot, fence::reject(reject::Code::DRAINING)));
                }
                if self.keep.is_failing() {
                    let retry_after_ms = u32::try_from(JOURNAL_RETRY.as_millis()).unwrap_or(u32::MAX);
                    let busy = Reject { retry_after_ms, ..fence::reject(reject::Code::BUSY) };
                    return Err(self.refuse(now, slot, busy));
                }
                self.open(now, slot, &hello);
                Ok(Input::used(hello::FRAME_LEN))
            }
            Err(error) if fence::is_other_version(&error) => {
                Err(self.refuse(now, slot, fence::reject_version()))
            }
            Err(error) => {
                let why = Ended::Broken(error);
                count(&mut self.stats.strangers);
                self.close(slot, why);
                Err(why)
            }
        }
    }

    fn refuse(&mut self, now: Instant, slot: usize, reject: Reject) -> Ended {
        let why = Ended::Refused { code: reject.code };
        count(&mut self.stats.refused);
        self.part(now, slot, why, Words::Reject(reject));
        why
    }

    /// The server served.
    fn handle_frame<'a>(&mut self, now: Instant, slot: usize, bytes: &'a [u8]) -> Result<Input<'a>, Ended> {
        if self.at_hand.is_some()
            || self.is_stopping()
            || self.conns.get(slot).is_some_and(Conn::is_welcoming)
        {
            return Ok(Input::NOTHING);
        }
        let (len, step) = match split(bytes, self.config.max_body) {
            Ok(Split::Need(_)) => return Ok(Input::NOTHING),
            Ok(Split::Frame(raw)) => {
                let frame = bytes.get(..raw.len()).unwrap_or_default();
                self.note_reader(raw.header.kind);
                (raw.len(), self.step(now, slot, &raw, frame))
            }
            Err(error) if error.fault == Fault::Range => {
                (0, Step::End(Ended::Broken(error), Some(bye::Code::TOO_LARGE)))
            }
            Err(error) => (0, error.into()),
        };
        match step {
            Step::Wait => return Ok(Input::NOTHING),
            Step::End(why, words) => {
                match words {
                    Some(code) => self.part(now, slot, why, goodbye(code)),
                    None => self.close(slot, why),
                }
                return Err(why);
            }
            Step::Used | Step::Order(_) | Step::Item(_) => {}
        }
        self.fence.heard(now);
        if let Some(conn) = self.conns.get_mut(slot) {
            conn.since = now;
        }
        let item = match step {
            Step::Order(order) => Some(Item::Order(order)),
            Step::Item(item) => Some(item),
            Step::Used | Step::Wait | Step::End(..) => None,
        };
        Ok(Input { consumed: len, item })
    }

    fn step<'a>(&mut self, now: Instant, slot: usize, raw: &Raw<'a>, frame: &'a [u8]) -> Step<'a> {
        let used = |result: Result<(), ParseError>| result.map_or_else(Step::from, |()| Step::Used);
        match raw.header.kind {
            Kind::ORDER => self.step_order(now, slot, raw, frame).unwrap_or_else(Step::from),
            Kind::SETTLED => used(self.settle(raw)),
            Kind::CANCEL => used(self.cancel(now, raw)),
            Kind::PART if self.takes_parts() => self.step_part(now, raw).unwrap_or_else(Step::from),
            Kind::ASK => self.step_ask(raw).unwrap_or_else(Step::from),
            Kind::REPLY => self.step_reply(raw).unwrap_or_else(Step::from),
            Kind::STATUS => used(self.step_status(now, raw)),
            Kind::PING => used(Ping::parse(raw).map(|ping| {
                count(&mut self.stats.pings);
                if let Some(live) = self.live(slot) {
                    live.pong = Some(ping.token);
                }
            })),
            // This side pings nobody; a server may answer nevertheless.
            Kind::PONG => used(Pong::parse(raw).map(|_| ())),
            Kind::DRAIN => used(Drain::parse(raw).map(|drain| {
                self.session.leaving = Leaving::said(drain);
            })),
            Kind::BYE => wire_format::frame::Bye::parse(raw).map_or_else(Step::from, |bye| {
                self.fence.release();
                let why = Ended::Bye { code: bye.code, retry_after_ms: bye.retry_after_ms };
                Step::End(why, None)
            }),
            Kind::REJECT => Reject::parse(raw).map_or_else(Step::from, |reject| {
                let Reject { code, retry_after_ms, detail } = reject;
                Step::End(Ended::Rejected { code, retry_after_ms, detail }, None)
            }),
            kind => self.step_other(kind, raw.header.flags),
        }
    }

    /// Who says something in a session, other than that it is over, has read its WELCOME.
    fn note_reader(&mut self, kind: Kind) {
        if matches!(kind, Kind::BYE | Kind::REJECT) {
            return;
        }
        self.hear_first();
        if self.is_journalled() {
            self.session.logs.both().into_iter().flatten().for_each(|log| self.floors.name(log));
        }
    }

    pub(super) fn live(&mut self, slot: usize) -> Option<&mut Live> {
        self.conns.get_mut(slot)?.live_mut()
    }

    /// A kind this device does not serve.
    fn step_other<'a>(&mut self, kind: Kind, flags: Flags) -> Step<'a> {
        let code = match kind {
            Kind::PART => bye::Code::UNKNOWN_KIND,
            _ if Kind::NAMES.iter().any(|(known, _)| *known == kind) => bye::Code::PROTOCOL_ERROR,
            _ if flags.contains(Flags::IGNORABLE) => {
                count(&mut self.stats.ignored);
                return Step::Used;
            }
            _ => bye::Code::UNKNOWN_KIND,
        };
        Step::End(Ended::Unexpected(kind), Some(code))
    }
}

pub(super) const NO_SUCH_LOG: ParseError = ParseError::new("flags", 5, Fault::Misplaced);

pub(super) const fn too_much<'a>() -> Step<'a> {
    Step::End(Ended::WindowExceeded, Some(bye::Code::PROTOCOL_ERROR))
}

/// Reads the HELLO at the start of a stranger's bytes; `None` if it is not whole. What cannot become one is refused as
/// soon as it shows: its header with the 16th byte, its magic with the 20th.
fn parse_hello(bytes: &[u8]) -> Result<Option<Hello>, ParseError> {
    let Some((head, body)) = bytes.split_first_chunk::<{ header::LEN }>() else { return Ok(None) };
    let head = Header::parse(head)?;
    head.expect(Kind::HELLO, Flags::NONE)?;
    head.expect_aux16_zero()?;
    head.expect_aux32_zero()?;
    if head.length as usize != hello::BODY_LEN {
        return Err(ParseError::new("length", 0, Fault::Length));
    }
    if body.get(..hello::MAGIC.len()).is_some_and(|magic| magic != hello::MAGIC) {
        return Err(ParseError::new("magic", header::LEN, Fault::Mismatch));
    }
    let Some(body) = body.get(..hello::BODY_LEN) else { return Ok(None) };
    Hello::parse(&Raw { header: head, body }).map(Some)
}
