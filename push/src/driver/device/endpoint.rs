//! The device's task: sockets, clock and handler around the receiver.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc};
use tokio::time::Sleep;
use wire_format::time::Instant;

use super::conn::Conn;
use super::{Command, Event};
use crate::driver::{Clock, trace};
use crate::receiver::{Boxed, Handler, Receiver, ReceiverConfig};

/// Connections at once: the server's session, and strangers that have not said HELLO yet.
const CONNS: usize = 4;
/// How long a stopping device waits for its last bytes to leave.
const STOP_WITHIN: Duration = Duration::from_secs(1);
/// Pause after the system refused to hand over a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Endpoint<H> {
    receiver: Receiver<Boxed, CONNS>,
    max_body: u32,
    listener: TcpListener,
    conns: Vec<Conn>,
    handler: H,
    clock: Clock,
    commands: mpsc::Receiver<Command>,
    events: broadcast::Sender<Event>,
    scratch: Box<[u8]>,
    timer: Option<Pin<Box<Sleep>>>,
    accept_after: Option<Instant>,
    stopping: Option<Instant>,
}

impl<H: Handler> Endpoint<H> {
    pub(super) fn new(
        listener: TcpListener,
        config: ReceiverConfig,
        handler: H,
        commands: mpsc::Receiver<Command>,
        events: broadcast::Sender<Event>,
    ) -> Self {
        let clock = Clock::start();
        let storage = Boxed::new(&config);
        let max_body = config.max_body;
        Self {
            receiver: Receiver::new(config, storage, clock.now()),
            max_body,
            listener,
            conns: Vec::with_capacity(CONNS),
            handler,
            clock,
            commands,
            events,
            scratch: vec![0; 4 << 10].into(),
            timer: None,
            accept_after: None,
            stopping: None,
        }
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
            let mut busy = self.take_commands(cx, now);
            busy |= self.accept(cx, now);
            busy |= self.read(cx, now);
            busy |= self.transmit(cx, now);
            self.drain();
            let stopped = |since| self.receiver.is_stopped() || now.since(since) > STOP_WITHIN;
            if self.stopping.is_some_and(stopped) {
                return Poll::Ready(());
            }
            if !busy && self.sleep(cx) {
                return Poll::Pending;
            }
        }
    }

    fn take_commands(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let Poll::Ready(Some(command)) = self.commands.poll_recv(cx) else { return false };
        match command {
            Command::Stats(reply) => drop(reply.send(Box::new(self.receiver.stats().clone()))),
            Command::Stop => {
                self.stopping.get_or_insert(now);
                self.receiver.stop(now);
            }
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

    /// Reads every connection once and hands over what is whole. True if there was anything.
    fn read(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut busy = false;
        for at in (0..self.conns.len()).rev() {
            let conn = &mut self.conns[at];
            if conn.blocked && conn.stream.poll_write_ready(cx).is_ready() {
                conn.blocked = false;
                self.receiver.handle_writable(now, conn.id);
                busy = true;
            }
            match conn.fill(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(len)) if len > 0 => busy = true,
                Poll::Ready(_) => {
                    let conn = self.conns.swap_remove(at);
                    self.receiver.handle_closed(now, conn.id);
                    busy = true;
                    continue;
                }
            }
            // Also without new bytes: what had to wait for the last drain need not wait any more.
            busy |= self.digest(now, at);
        }
        busy
    }

    /// Hands the unread bytes of a connection to the core, frame by frame, and its orders to the handler. True if any
    /// were used.
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
            if let Some(order) = input.order() {
                let verdict = self.handler.handle(&order);
                self.receiver.complete(self.clock.now(), order.ticket, verdict, None);
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
            trace::served(&event);
            self.tell(Event::Session(event));
        }
    }

    fn tell(&self, event: Event) {
        // Nobody listening is not an error.
        let _ = self.events.send(event);
    }

    /// Sets the timer to the next thing that is due. False if that is now.
    fn sleep(&mut self, cx: &mut Context<'_>) -> bool {
        let stop = self.stopping.map(|since| since + STOP_WITHIN);
        let Some(due) = [self.receiver.poll_timeout(), self.accept_after, stop].into_iter().flatten().min()
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
