//! Connections from the first byte to the last, the session among them, and how the device leaves.

use core::net::SocketAddr;
use core::time::Duration;

use wire_format::frame::hello::feature;
use wire_format::frame::{Bye, Drain, Hello, bye};
use wire_format::ids::Lane;
use wire_format::time::Instant;

use super::config::{DEAD_AFTER, FAREWELL_WITHIN, FROZEN_AFTER, HEARTBEAT, HELLO_WITHIN, SILENT_MAX};
use super::floors::Log;
use super::item::{Event, TooManyPeers};
use super::session::{Answers, Conn, ConnId, Leaving, Live, Phase, Session, State, Words, goodbye};
use super::stats::{add, count};
use super::{Farewell, Receiver, Storage};
use crate::ended::{Closed, Ended};

impl<S: Storage, const CONNS: usize> Receiver<S, CONNS> {
    /// Somebody connected. If this fails, close it: nobody is told why.
    pub fn handle_connected(&mut self, now: Instant, peer: SocketAddr) -> Result<ConnId, TooManyPeers> {
        self.touch(now);
        let free = self.conns.iter().position(Conn::is_free);
        let Some(slot) = free.filter(|_| !self.is_stopping()) else {
            self.evict(now);
            count(&mut self.stats.too_many_peers);
            return Err(TooManyPeers);
        };
        count(&mut self.stats.connections);
        if let Some(conn) = self.conns.get_mut(slot) {
            conn.open(now, peer.ip());
        }
        Ok(self.id(slot))
    }

    /// The connection is gone; it will not be named again. An order handed over from it may still be completed.
    pub fn handle_closed(&mut self, now: Instant, conn: ConnId) {
        self.touch(now);
        let Some(slot) = self.slot(conn) else { return };
        self.close(slot, Ended::Closed(Closed::Eof));
        if let Some(conn) = self.conns.get_mut(slot) {
            conn.free();
        }
    }

    /// The connection takes bytes again.
    pub fn handle_writable(&mut self, now: Instant, conn: ConnId) {
        self.touch(now);
        if let Some(conn) = self.slot(conn).and_then(|slot| self.conns.get_mut(slot)) {
            conn.blocked = false;
        }
    }

    /// Time has come, or bytes are about to be read.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.touch(now);
        self.lapse(now);
        if self.farewell.by <= now {
            self.begin_stop(now);
        }
        for slot in 0..CONNS {
            if self.conns.get(slot).is_some_and(|conn| self.deadline_of(conn) <= now) {
                self.expire(slot);
            }
        }
    }

    /// When [`Receiver::handle_timeout`] is due at the latest, and behind it [`Receiver::record`]; `None` if no connection is
    /// open and no failed write is to be repeated.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let retry = self.keep.retry_at(self.polled);
        let due = self.conns.iter().map(|conn| self.deadline_of(conn)).min().unwrap_or(Instant::NEVER);
        if due == Instant::NEVER {
            return retry;
        }
        let due = due.min(retry.unwrap_or(Instant::NEVER));
        let due = self
            .desk
            .as_ref()
            .first()
            .and_then(|desk| desk.asks.due())
            .map_or(due, |lapses| due.min(lapses.max(self.polled)));
        let leaves = if self.is_stopping() { Instant::NEVER } else { self.farewell.by };
        Some(due.min(leaves).min(self.polled + HEARTBEAT))
    }

    /// A connection to close now, and why it ended.
    pub fn poll_close(&mut self) -> Option<(ConnId, Ended)> {
        let slot = self.conns.iter().position(|conn| matches!(conn.state, State::Closed(_)))?;
        let id = self.id(slot);
        let conn = self.conns.get_mut(slot)?;
        let why = conn.why()?;
        conn.free();
        Some((id, why))
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        if self.reported != self.session.conn {
            if self.reported.take().is_some() {
                return Some(Event::Unserved { why: self.session.why });
            }
            let conn = self.session.conn?;
            let peer = self.slot(conn).and_then(|slot| self.conns.get(slot)).map(|conn| conn.peer)?;
            let known = self.known()?;
            self.reported = Some(conn);
            return Some(Event::Served { conn, peer, known });
        }
        if let Some(ask) = self.desk.as_mut().first_mut().and_then(|desk| desk.asks.take_lapsed()) {
            return Some(Event::Unanswered { ask });
        }
        if self.keep.take_failure() {
            return Some(Event::JournalFailed);
        }
        self.session.leaving.take().map(Event::Leaving)
    }

    /// The device leaves for good: strangers are dropped, the server gets the outcomes that are ready and a BYE.
    pub fn stop(&mut self, now: Instant) {
        self.stop_with(now, Bye { code: bye::Code::NORMAL, retry_after_ms: 0 });
    }

    /// The same with a BYE of the caller's: RESTARTING raises no alarm at the server, `retry_after_ms` keeps it away.
    pub fn stop_with(&mut self, now: Instant, bye: Bye) {
        self.touch(now);
        self.farewell.bye = bye;
        self.begin_stop(now);
    }

    /// The device will leave, after a planned stop or an update: it says DRAIN, refuses new sessions, ends what it has
    /// received, says BYE DRAINING when nothing is at work any more, and in any case after `drain.after_ms`.
    /// [`Receiver::is_stopped`] tells when it may be switched off.
    pub fn drain(&mut self, now: Instant, drain: Drain) {
        self.touch(now);
        if self.is_stopping() || self.is_leaving() {
            return;
        }
        self.farewell = Farewell {
            bye: Bye { code: bye::Code::DRAINING, retry_after_ms: 0 },
            drain,
            by: now + Duration::from_millis(drain.after_ms.into()),
        };
        if self.session.conn.is_none() {
            self.begin_stop(now);
        } else {
            self.session.drain_due = true;
        }
    }

    /// [`Receiver::drain`] was called.
    pub(super) fn is_leaving(&self) -> bool {
        self.farewell.by != Instant::NEVER
    }

    pub(super) fn begin_stop(&mut self, now: Instant) {
        self.stopping = self.stopping.min(now);
        for slot in 0..CONNS {
            if self.conns.get(slot).is_some_and(|conn| matches!(conn.state, State::Greeting)) {
                self.close(slot, Ended::Stopped);
            }
        }
    }

    /// After [`Receiver::stop`]: every connection is gone.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.is_stopping() && self.conns.iter().all(Conn::is_free)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping != Instant::NEVER
    }

    /// Every input comes through here: a gap in time too long for anything unread to be fresh ends all sessions.
    #[inline]
    pub(super) fn touch(&mut self, now: Instant) {
        let frozen = now > self.polled + FROZEN_AFTER;
        self.polled = self.polled.max(now);
        if frozen {
            self.thaw();
        }
    }

    #[cold]
    fn thaw(&mut self) {
        for slot in 0..CONNS {
            self.close(slot, Ended::Frozen);
        }
    }

    /// Makes room for the next newcomer if a stranger only holds its slot.
    fn evict(&mut self, now: Instant) {
        let strangers =
            self.conns.iter().enumerate().filter(|(_, conn)| matches!(conn.state, State::Greeting));
        let oldest = strangers.min_by_key(|(_, conn)| conn.since).map(|(slot, conn)| (slot, conn.since));
        if let Some((slot, since)) = oldest
            && now.since(since) >= SILENT_MAX
        {
            count(&mut self.stats.evicted);
            self.close(slot, Ended::HandshakeTimeout);
        }
    }

    /// When a connection is over in any case; NEVER if it is, or there is none.
    fn deadline_of(&self, conn: &Conn) -> Instant {
        match conn.state {
            State::Greeting => conn.since + HELLO_WITHIN,
            State::Serving(_) => (conn.since + DEAD_AFTER).min(self.stopping + FAREWELL_WITHIN),
            State::Parting(..) => conn.since.min(self.stopping) + FAREWELL_WITHIN,
            State::Free | State::Closed(_) => Instant::NEVER,
        }
    }

    fn expire(&mut self, slot: usize) {
        let Some(state) = self.conns.get(slot).map(|conn| conn.state) else { return };
        match state {
            State::Greeting => {
                count(&mut self.stats.hello_timeouts);
                self.close(slot, Ended::HandshakeTimeout);
            }
            State::Serving(_) if self.is_stopping() => self.close(slot, Ended::Stopped),
            State::Serving(_) => self.close(slot, Ended::Dead),
            State::Parting(_, why) => self.close(slot, why),
            State::Free | State::Closed(_) => {}
        }
    }

    /// Ends a connection without another byte, unless it has ended before.
    pub(super) fn close(&mut self, slot: usize, why: Ended) {
        self.leave(slot, why);
        if let Some(conn) = self.conns.get_mut(slot) {
            match conn.state {
                State::Greeting | State::Serving(_) => conn.close(why),
                State::Parting(_, why) => conn.close(why),
                State::Free | State::Closed(_) => {}
            }
        }
    }

    /// If this connection is served, it is so no longer.
    fn leave(&mut self, slot: usize, why: Ended) {
        if self.session.conn != Some(self.id(slot)) {
            return;
        }
        self.session.conn = None;
        self.session.why = why;
        self.session.leaving = Leaving::No;
        self.queue.clear();
        self.lapse(Instant::NEVER);
        self.drop_waiting(self.polled);
        if self.is_leaving() {
            // Nobody is left to wait for.
            self.begin_stop(self.polled);
        }
        let stats = &mut self.stats;
        match why {
            Ended::Broken(_) => count(&mut stats.broken),
            Ended::Unexpected(_) => count(&mut stats.unexpected),
            Ended::WindowExceeded => count(&mut stats.window_exceeded),
            Ended::Replaced => count(&mut stats.replaced),
            Ended::Dead => count(&mut stats.dead),
            Ended::Frozen => count(&mut stats.frozen),
            Ended::Bye { .. } => count(&mut stats.byes),
            _ => count(&mut stats.closed),
        }
    }

    /// A HELLO that passed opens its session in the place of any other.
    pub(super) fn open(&mut self, now: Instant, slot: usize, hello: &Hello) {
        if let Some(old) = self.session.conn.and_then(|conn| self.slot(conn)) {
            self.part(now, old, Ended::Replaced, goodbye(bye::Code::REPLACED));
        }
        let known = Some(self.fence.accept(now, hello));
        if known != self.config.known {
            self.config.known = known;
            self.keep.note_fence();
        }
        let hello = &self.not_behind(hello);
        let (mut gone, phase) = (None, self.phase_of(hello));
        let logs = self.floors.open(hello, &mut |log| gone = Some(log));
        gone.into_iter().for_each(|log| self.forget_log(log));
        self.note_session();
        // What is to be replaced is gone before anything new comes.
        let stays = match phase {
            Phase::Replacing { .. } => self.ring.live().saturating_sub(self.ring.live_in(Log::VOLATILE)),
            Phase::Speaking(_) => self.ring.live(),
        };
        let room = self.ring.capacity().saturating_sub(stays);
        let number = self.session.number.wrapping_add(1);
        self.session = Session {
            conn: Some(self.id(slot)),
            logs,
            number,
            window: room.min(self.config.window_orders).max(1),
            phase,
            max_body: hello.max_body,
            answers: hello.features & feature::ASK != 0,
            why: self.session.why,
            ..Session::NONE
        };
        if let Some(conn) = self.conns.get_mut(slot) {
            conn.state = State::Serving(Live::new(now));
            conn.since = now;
        }
        count(&mut self.stats.sessions);
    }

    fn phase_of(&self, hello: &Hello) -> Phase {
        if !self.floors.would_replace(hello) {
            return Phase::Speaking(Answers::NONE);
        }
        Phase::Replacing { lineage: hello.volatile.lineage, run: hello.volatile.run.to_le_bytes() }
    }

    /// The HELLO, in the run that is known if it comes late: it names a head of the durable log below what came of that
    /// already. What ends from now on did not end in that run.
    fn not_behind(&self, hello: &Hello) -> Hello {
        let mut hello = *hello;
        let Some(log) = self.floors.durable(hello.durable.lineage) else { return hello };
        let newest = |lane| self.ring.last(log, lane).unwrap_or(0).max(self.floors.floor(log, lane));
        if Lane::ALL.into_iter().any(|lane| newest(lane) > hello.durable.head) {
            hello.durable.run = self.floors.run(log);
        }
        hello
    }

    /// The server has said something behind its HELLO: it is the one that runs now. The journal hears of its lineage with the
    /// first thing that happens in it.
    pub(super) fn hear_first(&mut self) {
        let Phase::Replacing { lineage, run } = self.session.phase else { return };
        self.session.phase = Phase::Speaking(Answers::NONE);
        let mut gone = None;
        let log = self.floors.replace(lineage, u64::from_le_bytes(run), &mut |log| gone = Some(log));
        gone.into_iter().for_each(|log| self.forget_log(log));
        self.session.logs.volatile = Some(log);
    }

    /// The lineage of a log had to go, and with it whoever waited for its outcomes.
    fn forget_log(&mut self, log: Log) {
        add(&mut self.stats.forgotten, self.ring.forget(log).into());
        if let Some(blob) = self.blob_mut() {
            blob.disown(log);
        }
        self.disown(log);
    }

    /// Ends a connection with last words.
    pub(super) fn part(&mut self, now: Instant, slot: usize, why: Ended, words: Words) {
        self.leave(slot, why);
        if let Some(conn) = self.conns.get_mut(slot) {
            conn.part(now, why, words);
        }
    }
}
