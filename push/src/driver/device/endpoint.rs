//! The device's task: sockets, clock and handler around the receiver.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::time::Sleep;
use wire_format::frame::drain::{Drain, Reason};
use wire_format::time::Instant;

use super::Event;
use super::conn::Conn;
use super::desk::{Desk, Served};
use super::keeper::Keeper;
use super::mailbox::{Mailbox, Posts};
use crate::driver::{Clock, trace};
use crate::receiver::journal::{Found, Journal};
use crate::receiver::{Boxed, Event as SessionEvent, Handler, ReceiverConfig};

/// Reads from one connection before what they led to is written: outcomes of all of them leave together.
const READS_PER_TURN: usize = 4;
/// How long a leaving device waits for its last bytes to leave, once nothing is at work any more.
const STOP_WITHIN: Duration = Duration::from_secs(1);
/// Pause after the system refused to hand over a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Endpoint<H, J> {
    receiver: Served,
    journal: Keeper<J>,
    max_body: u32,
    listener: TcpListener,
    conns: Vec<Conn>,
    desk: Desk<H>,
    clock: Clock,
    mailbox: Arc<Mailbox>,
    posts: Posts,
    events: broadcast::Sender<Event>,
    scratch: Box<[u8]>,
    timer: Option<Pin<Box<Sleep>>>,
    accept_after: Option<Instant>,
    /// Leaving, and over by then.
    stopping: Option<Instant>,
}

impl<H: Handler, J: Journal<Error: Error + 'static>> Endpoint<H, J> {
    /// Replays the journal. An error is its own: nothing is known then, and nobody must be served.
    pub(super) fn new(
        listener: TcpListener,
        mut config: ReceiverConfig,
        handler: H,
        mut journal: J,
        (mailbox, events): (Arc<Mailbox>, broadcast::Sender<Event>),
    ) -> Result<(Self, Found), J::Error> {
        let clock = Clock::start();
        // The desk puts them together and compares their digest.
        config.parts = true;
        let storage = Boxed::new(&config);
        let max_body = config.max_body;
        let mut receiver = Served::new(config, storage, clock.now());
        let found = receiver.replay(clock.now(), &mut journal)?;
        let endpoint = Self {
            receiver,
            journal: Keeper::new(journal),
            max_body,
            listener,
            conns: Vec::with_capacity(super::desk::CONNS),
            desk: Desk::new(handler),
            clock,
            mailbox,
            posts: Posts::default(),
            events,
            scratch: vec![0; 4 << 10].into(),
            timer: None,
            accept_after: None,
            stopping: None,
        };
        Ok((endpoint, found))
    }

    pub(super) async fn run(mut self) {
        core::future::poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = self.clock.now();
            // First of all: after a long freeze what waits in the sockets is stale, and the core says so.
            self.receiver.handle_timeout(now);
            self.drain();
            let mut busy = self.take_posts(cx, now);
            busy |= self.accept(cx, now);
            busy |= self.read(cx, now);
            busy |= self.desk.serve_parked(&self.clock, &mut self.receiver);
            // Once a turn, for all that was read in it: what waits for it goes on in the next one, or leaves now.
            busy |= self.keep();
            busy |= self.transmit(cx, now);
            self.drain();
            if self.stopping.is_some_and(|by| self.receiver.is_stopped() || now > by) {
                return Poll::Ready(());
            }
            if !busy && self.sleep(cx) {
                return Poll::Pending;
            }
        }
    }

    /// Serves what other tasks handed over. True if there was anything.
    fn take_posts(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        self.mailbox.take(&mut self.posts, cx.waker());
        if self.posts.list.is_empty() {
            return false;
        }
        if let Some(within) = self.desk.serve_posts(&self.clock, &mut self.receiver, &mut self.posts) {
            let after_ms = u32::try_from(within.as_millis()).unwrap_or(u32::MAX);
            self.stopping.get_or_insert(now + within + STOP_WITHIN);
            self.receiver.drain(now, Drain { reason: Reason::LEAVING, after_ms });
        }
        true
    }

    fn accept(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        if self.accept_after.is_some_and(|after| now < after) {
            return false;
        }
        self.accept_after = None;
        let Poll::Ready(accepted) = self.listener.poll_accept(cx) else { return false };
        match accepted {
            Ok((stream, peer)) => {
                if let Ok(id) = self.receiver.handle_connected(now, peer) {
                    self.conns.push(Conn::new(id, peer, stream));
                }
            }
            // It concerns one visitor, or descriptors are short for a while: never the end of the listener.
            Err(_) => self.accept_after = Some(now + ACCEPT_PAUSE),
        }
        true
    }

    /// Reads every connection and hands over what is whole. True if there was anything.
    fn read(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut busy = false;
        for at in (0..self.conns.len()).rev() {
            let conn = &mut self.conns[at];
            if conn.blocked && conn.stream.poll_write_ready(cx).is_ready() {
                conn.blocked = false;
                self.receiver.handle_writable(now, conn.id);
                busy = true;
            }
            busy |= self.read_one(cx, now, at);
        }
        busy
    }

    /// Reads one connection until it is empty or its turn is over.
    fn read_one(&mut self, cx: &mut Context<'_>, now: Instant, at: usize) -> bool {
        let mut busy = false;
        for _ in 0..READS_PER_TURN {
            match self.conns[at].fill(cx) {
                // Also without new bytes: what had to wait for the last drain need not wait any more.
                Poll::Pending => return busy | self.digest(now, at),
                Poll::Ready(Ok(len)) if len > 0 => {
                    busy = true;
                    self.digest(now, at);
                }
                Poll::Ready(_) => {
                    let conn = self.conns.swap_remove(at);
                    self.receiver.handle_closed(now, conn.id);
                    return true;
                }
            }
        }
        busy
    }

    /// Hands the unread bytes of a connection to the core, frame by frame, and what they bring to the application. True
    /// if any were used.
    fn digest(&mut self, now: Instant, at: usize) -> bool {
        let conn = &mut self.conns[at];
        let before = conn.start;
        while let Some(bytes @ [_, ..]) = conn.buffer.get(conn.start..conn.end) {
            let Ok(input) = self.receiver.handle_bytes(now, conn.id, bytes) else {
                // It ends; what it still sent is worth nothing.
                conn.start = conn.end;
                break;
            };
            let consumed = input.consumed;
            if let Some(item) = input.item {
                self.desk.take(&self.clock, &mut self.receiver, item);
            }
            if consumed == 0 {
                break;
            }
            conn.start += consumed;
        }
        let used = conn.start > before;
        conn.make_room(self.max_body);
        used
    }

    /// Has the journal take what it has to know. True if there was anything.
    fn keep(&mut self) -> bool {
        let kept = self.journal.keep(&mut self.receiver, self.clock.now());
        if let Some(event) = self.journal.take_event() {
            self.tell(event);
        }
        kept
    }

    fn transmit(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut busy = false;
        while let Some(transmit) = self.receiver.poll_transmit(now, &mut self.scratch) {
            let id = transmit.conn;
            let Some(at) = self.conns.iter().position(|conn| conn.id == id) else { return busy };
            let total = transmit.head.len() + transmit.body.len();
            let conn = &mut self.conns[at];
            match conn.write(cx, transmit.head, transmit.body) {
                Ok(written) => {
                    conn.blocked = written < total;
                    self.receiver.handle_written(now, id, written);
                }
                Err(_) => {
                    self.conns.swap_remove(at);
                    self.receiver.handle_closed(now, id);
                }
            }
            busy = true;
        }
        busy
    }

    fn drain(&mut self) {
        while let Some((id, why)) = self.receiver.poll_close() {
            if let Some(at) = self.conns.iter().position(|conn| conn.id == id) {
                let conn = self.conns.swap_remove(at);
                trace::turned_away(conn.peer, why);
                self.tell(Event::Closed { peer: conn.peer, why });
            }
        }
        while let Some(event) = self.receiver.poll_event() {
            match event {
                SessionEvent::Unanswered { ask } => self.desk.unanswered(ask),
                // The keeper tells it, and why.
                SessionEvent::JournalFailed => {}
                event => {
                    trace::served(&event);
                    self.tell(Event::Session(event));
                }
            }
        }
    }

    fn tell(&self, event: Event) {
        // Nobody listening is not an error.
        let _ = self.events.send(event);
    }

    /// Sets the timer to the next thing that is due. False if that is now.
    fn sleep(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(due) =
            [self.receiver.poll_timeout(), self.accept_after, self.stopping].into_iter().flatten().min()
        else {
            return true;
        };
        let at = self.clock.tokio(due);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx).is_pending()
    }
}

impl<H, J> Drop for Endpoint<H, J> {
    fn drop(&mut self) {
        self.mailbox.close();
    }
}
