//! The run loop, the same for both halves: wait, take one input, drain, and again.

use core::future::poll_fn;
use core::pin::{Pin, pin};
use core::task::Poll;
use core::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Sleep;
use wire_format::time::Instant;

use super::batch::Batch;
use super::net::Change;
use super::wire::{RECEIVE_PAUSE, Wire};
use super::{Clock, NetStats, OpenError, Opening, trace};
use crate::{Arrival, LinkId, Transmit};

/// Events that wait for the application. The state machine keeps what is beyond, and merges it.
pub const EVENTS_MAX: usize = 256;

/// How long a shutdown may take: two goodbyes and the way to them. After that the task is ended by force.
pub const STOP_MAX: Duration = Duration::from_secs(2);

/// Commands that wait for the task; whoever has one more waits.
const COMMANDS_MAX: usize = 64;

/// Sends and events in a row before inputs get their turn.
const DRAIN_MAX: usize = 256;

/// The shortest sleep: what is due again at once is due after this, so that a loop cannot spin.
const SLEEP_MIN: Duration = Duration::from_millis(1);

/// What the loop needs of a state machine: the calling contract of the cores, and the driver's commands.
pub(crate) trait Core: Send + 'static {
    /// An event with what the application will want to know beside it.
    type Event: Send + 'static;
    /// A request of a handle.
    type Command: Send + 'static;
    /// What the sockets had no room for changes what the core does: it is told while something arrives. Otherwise it is
    /// only looked at for whoever wants to see the counters: a look reads a line for every socket of the host.
    const FOLLOWS_DROPS: bool = false;

    fn link_up(&mut self, now: Instant, link: LinkId);
    fn link_down(&mut self, now: Instant, link: LinkId);
    fn handle_datagram(&mut self, now: Instant, arrival: &Arrival, bytes: &[u8]);
    fn handle_timeout(&mut self, now: Instant);
    /// The system has dropped so many datagrams at our sockets; told when it has become more.
    fn handle_receive_drops(&mut self, _now: Instant, _total: u64) {}
    fn handle_command(&mut self, now: Instant, command: Self::Command, net: &NetStats);
    /// Whether the answer to a command tells the counters of the sockets.
    fn tells_counters(command: &Self::Command) -> bool;
    fn poll_transmit(&mut self, now: Instant, buffer: &mut [u8]) -> Option<Transmit>;
    fn poll_event(&mut self, now: Instant) -> Option<Self::Event>;
    fn poll_timeout(&self) -> Option<Instant>;
    fn is_stopped(&self) -> bool;
}

/// The application's end of a running loop. The task ends with it.
#[derive(Debug)]
pub(crate) struct Task<C: Core> {
    commands: mpsc::Sender<C::Command>,
    events: mpsc::Receiver<C::Event>,
    task: JoinHandle<()>,
}

/// Starts the loop on the current runtime; `make` builds the state machine when the sockets are open.
pub(crate) fn spawn<C: Core>(
    open: impl FnOnce() -> Result<Wire, OpenError>,
    make: impl FnOnce(Instant) -> C,
    at: core::net::SocketAddrV4,
    (side, id): (&'static str, wire_format::ids::NodeId),
) -> Result<Task<C>, OpenError> {
    let runtime = tokio::runtime::Handle::try_current()
        .map_err(|error| OpenError::new(Opening::Runtime, at, std::io::Error::other(error)))?;
    let wire = open()?;
    let clock = Clock::start();
    let core = make(clock.now());
    let (commands, requests) = mpsc::channel(COMMANDS_MAX);
    let (news, events) = mpsc::channel(EVENTS_MAX);
    let task = runtime.spawn(trace::task(side, id, Loop::new(core, wire, clock, requests, news).run()));
    Ok(Task { commands, events, task })
}

impl<C: Core> Task<C> {
    pub(crate) const fn commands(&self) -> &mpsc::Sender<C::Command> {
        &self.commands
    }

    pub(crate) async fn next_event(&mut self) -> Option<C::Event> {
        self.events.recv().await
    }

    /// Sends `stop` and waits for the task's end, [`STOP_MAX`] at most.
    pub(crate) async fn shutdown(mut self, stop: C::Command) {
        let ended = async {
            // A task that ended already takes no command, and need not.
            let _ended = self.commands.send(stop).await;
            (&mut self.task).await
        };
        if tokio::time::timeout(STOP_MAX, ended).await.is_err() {
            self.task.abort();
            // What it was doing is cut at its next wait; its sockets are closed when this returns.
            let _cancelled = (&mut self.task).await;
        }
    }
}

impl<C: Core> Drop for Task<C> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Asks the task something; `None` if it has ended.
pub(crate) async fn ask<K, T>(
    commands: &mpsc::Sender<K>,
    question: impl FnOnce(oneshot::Sender<T>) -> K,
) -> Option<T> {
    let (answer, answered) = oneshot::channel();
    commands.send(question(answer)).await.ok()?;
    answered.await.ok()
}

struct Loop<C: Core> {
    core: C,
    wire: Wire,
    clock: Clock,
    requests: mpsc::Receiver<C::Command>,
    news: mpsc::Sender<C::Event>,
    /// More to receive, send or tell than one turn allows: no waiting.
    more: bool,
    /// The event channel is full.
    crowded: bool,
    /// Nothing is received before this, after a failure.
    rest_until: Instant,
}

impl<C: Core> Loop<C> {
    fn new(
        core: C,
        wire: Wire,
        clock: Clock,
        requests: mpsc::Receiver<C::Command>,
        news: mpsc::Sender<C::Event>,
    ) -> Self {
        let rest_until = Instant::ZERO;
        Self { core, wire, clock, requests, news, more: false, crowded: false, rest_until }
    }

    async fn run(mut self) {
        let mut batch = Batch::new();
        let mut timer = Box::pin(tokio::time::sleep(Duration::ZERO));
        loop {
            self.follow_interfaces().await;
            self.wire.flush(self.clock.now()).await;
            self.tell();
            if self.core.is_stopped() {
                return;
            }
            match self.wait(timer.as_mut()).await {
                Woken::Orphaned => return,
                Woken::Command(command) => {
                    let now = self.clock.now();
                    if C::tells_counters(&command) {
                        self.follow_drops(now).await;
                    }
                    self.core.handle_command(now, command, &self.wire.stats);
                    self.drain(now).await;
                }
                Woken::Ready => {}
            }
            let now = self.clock.now();
            if now >= self.rest_until {
                match self.wire.receive(&mut batch) {
                    Ok(()) => self.more |= batch.is_full(),
                    Err(_) => self.rest_until = now + RECEIVE_PAUSE,
                }
                for one in batch.iter() {
                    if let Some(arrival) = self.wire.arrival(&one) {
                        self.core.handle_datagram(now, &arrival, one.bytes);
                        self.drain(now).await;
                    }
                }
            }
            if C::FOLLOWS_DROPS && !batch.is_empty() {
                self.follow_drops(now).await;
            }
            let now = self.clock.now();
            if self.core.poll_timeout().is_some_and(|at| at <= now) {
                self.core.handle_timeout(now);
            }
            self.drain(now).await;
        }
    }

    async fn follow_interfaces(&mut self) {
        let now = self.clock.now();
        for change in self.wire.scan(now) {
            trace::link(&change);
            match change {
                Change::Up(link) => self.core.link_up(now, link),
                Change::Down(link) => self.core.link_down(now, link),
            }
            self.drain(now).await;
        }
    }

    /// Looks at what the sockets had no room for, and tells the core.
    async fn follow_drops(&mut self, now: Instant) {
        if let Some(total) = self.wire.receive_drops(now) {
            self.core.handle_receive_drops(now, total);
            self.drain(now).await;
        }
    }

    /// Collects what the core wants sent; it leaves at the end of the turn, or when there is no room for more.
    async fn drain(&mut self, now: Instant) {
        for _ in 0..DRAIN_MAX {
            if self.wire.is_full() {
                self.wire.flush(now).await;
            }
            let Some(Transmit { to, len }) = self.core.poll_transmit(now, self.wire.room()) else { return };
            self.wire.post(to, len);
        }
        self.more = true;
    }

    /// Tells the application what the core has to tell, while the channel has room.
    fn tell(&mut self) {
        self.crowded = false;
        let now = self.clock.now();
        for _ in 0..DRAIN_MAX {
            let Ok(room) = self.news.try_reserve() else {
                self.crowded = true;
                return;
            };
            let Some(event) = self.core.poll_event(now) else { return };
            room.send(event);
        }
        self.more = true;
    }

    /// Waits for a command, a datagram, room in the event channel, or the time of the next deadline.
    async fn wait(&mut self, mut timer: Pin<&mut Sleep>) -> Woken<C::Command> {
        let now = self.clock.now();
        let resting = now < self.rest_until;
        let mut at = self.core.poll_timeout().unwrap_or(Instant::NEVER).min(self.wire.scan_at());
        if resting {
            at = at.min(self.rest_until);
        }
        let at = self.clock.deadline(at.max(now + SLEEP_MIN));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        let more = core::mem::take(&mut self.more);
        if more {
            // Others of this thread get their turn between two of ours, whatever floods us.
            give_way().await;
        }
        let (wire, requests, crowded) = (&self.wire, &mut self.requests, self.crowded);
        let mut room = pin!(self.news.reserve());
        let mut hint = None;
        let woken = poll_fn(|cx| {
            if let Poll::Ready(command) = requests.poll_recv(cx) {
                return Poll::Ready(command.map_or(Woken::Orphaned, Woken::Command));
            }
            let readable = !resting && wire.poll_readable(cx).is_ready();
            let has_room = crowded && room.as_mut().poll(cx).is_ready();
            if let Poll::Ready(told) = wire.poll_hint(cx) {
                hint = Some(told);
            }
            if more || readable || has_room || hint.is_some() || timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Woken::Ready);
            }
            Poll::Pending
        })
        .await;
        if let Some(hint) = hint {
            self.wire.hint(self.clock.now(), hint);
        }
        woken
    }
}

/// To the end of the runtime's queue. Unlike tokio's `yield_now` it neither allocates nor asks the system for events at
/// each turn.
async fn give_way() {
    let mut gave = false;
    poll_fn(|cx| {
        if core::mem::replace(&mut gave, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Why the loop goes on.
enum Woken<K> {
    /// A handle asks something.
    Command(K),
    /// Something can be read, told or is due.
    Ready,
    /// Nobody holds a handle any more.
    Orphaned,
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, SocketAddrV4};
    use core::sync::atomic::{AtomicU64, Ordering};

    use alloc::sync::Arc;
    use std::io;

    use super::*;
    use crate::Destination;
    use crate::driver::Net;
    use crate::driver::faults::Faults;

    /// Sends back what it gets, tells numbers, and always has something due.
    #[derive(Default)]
    struct Restless {
        answer: Option<(SocketAddrV4, Vec<u8>)>,
        next: u32,
        stopped: bool,
        deaf: bool,
        /// Sends to this address without end.
        babble: Option<SocketAddrV4>,
        /// Sends every answer to this address first.
        copy: Option<SocketAddrV4>,
        copied: bool,
        timeouts: Arc<AtomicU64>,
        dropped: Arc<AtomicU64>,
    }

    const NODE: (&str, wire_format::ids::NodeId) = ("test", wire_format::ids::NodeId([7; 16]));

    enum Command {
        /// Stop, unless deaf to it.
        Stop,
        /// Say how many datagrams the sockets had no room for.
        Drops(oneshot::Sender<u64>),
    }
    use Command::Stop;

    impl Core for Restless {
        type Event = u32;
        type Command = Command;

        fn link_up(&mut self, _now: Instant, link: LinkId) {
            assert_eq!(link, LinkId(0));
        }

        fn link_down(&mut self, _now: Instant, _link: LinkId) {}

        fn handle_datagram(&mut self, _now: Instant, arrival: &Arrival, bytes: &[u8]) {
            assert!(self.answer.is_none(), "an input before the last one was drained");
            self.answer = Some((arrival.source, bytes.to_vec()));
        }

        fn handle_timeout(&mut self, _now: Instant) {
            self.timeouts.fetch_add(1, Ordering::Relaxed);
        }

        fn handle_receive_drops(&mut self, _now: Instant, total: u64) {
            self.dropped.store(total, Ordering::Relaxed);
        }

        fn handle_command(&mut self, _now: Instant, command: Command, net: &NetStats) {
            assert_eq!(net.links, 1);
            match command {
                Stop => self.stopped = !self.deaf,
                Command::Drops(answer) => answer.send(net.receive_drops).unwrap(),
            }
        }

        fn tells_counters(command: &Command) -> bool {
            matches!(command, Command::Drops(_))
        }

        fn poll_transmit(&mut self, _now: Instant, buffer: &mut [u8]) -> Option<Transmit> {
            if let Some(to) = self.babble {
                return Some(Transmit { to: Destination::Unicast(LinkId(0), to), len: 1 });
            }
            if let (Some(to), true, Some(_)) = (self.copy, !self.copied, &self.answer) {
                self.copied = true;
                return Some(Transmit { to: Destination::Unicast(LinkId(0), to), len: 1 });
            }
            self.copied = false;
            let (to, bytes) = self.answer.take()?;
            buffer[..bytes.len()].copy_from_slice(&bytes);
            Some(Transmit { to: Destination::Unicast(LinkId(0), to), len: bytes.len() })
        }

        fn poll_event(&mut self, _now: Instant) -> Option<u32> {
            self.next += 1;
            (self.next <= 1_000).then_some(self.next)
        }

        fn poll_timeout(&self) -> Option<Instant> {
            Some(Instant::ZERO)
        }

        fn is_stopped(&self) -> bool {
            self.stopped
        }
    }

    fn start(host: u8, core: Restless) -> (SocketAddrV4, Task<Restless>) {
        let (at, _, task) = start_faulty(host, core);
        (at, task)
    }

    /// The same on sockets that fail when told to.
    fn start_faulty(host: u8, core: Restless) -> (SocketAddrV4, Faults, Task<Restless>) {
        start_with(host, core, Net::default().receive_buffer_bytes)
    }

    fn start_with(host: u8, core: Restless, room: usize) -> (SocketAddrV4, Faults, Task<Restless>) {
        let at = SocketAddrV4::new(Ipv4Addr::new(127, 42, 0, host), 41_472);
        let broadcast = Some(Ipv4Addr::new(127, 42, 255, host));
        let net = Net {
            bind: Some(*at.ip()),
            broadcast,
            port: at.port(),
            receive_buffer_bytes: room,
            ..Net::default()
        };
        let faults = Faults::default();
        let open = || {
            let mut wire = Wire::open(net, [])?;
            wire.sockets.faults = faults.clone();
            Ok(wire)
        };
        let task = spawn(open, |_| core, at, NODE).unwrap();
        (at, faults, task)
    }

    #[tokio::test]
    async fn events_wait_for_whoever_is_slow_and_none_is_lost() {
        let (_, mut task) = start(1, Restless::default());
        tokio::time::sleep(Duration::from_millis(20)).await;
        for expected in 1..=1_000 {
            assert_eq!(task.next_event().await, Some(expected));
        }
        task.shutdown(Stop).await;
    }

    #[tokio::test]
    async fn every_datagram_is_drained_before_the_next() {
        let (at, task) = start(2, Restless::default());
        let socket = tokio::net::UdpSocket::bind("127.42.1.2:0").await.unwrap();
        for len in 0..200 {
            socket.send_to(&vec![7; len], at).await.unwrap();
        }
        let mut buffer = [0; 300];
        for len in 0..200 {
            assert_eq!(socket.recv_from(&mut buffer).await.unwrap(), (len, at.into()));
        }
        task.shutdown(Stop).await;
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_found_no_room_is_looked_at_for_whoever_asks_only() {
        // A host with 10,000 devices has 20,000 sockets: each of them reading that list at each broadcast is all it does.
        let dropped = Arc::default();
        let core = Restless { dropped: Arc::clone(&dropped), ..Restless::default() };
        let (at, _, task) = start_with(12, core, 64 << 10);
        let socket = std::net::UdpSocket::bind("127.42.1.12:0").unwrap();
        // The task does not run meanwhile.
        for _ in 0..2_000 {
            socket.send_to(&[7; 100], at).unwrap();
        }
        socket.set_nonblocking(true).unwrap();
        let socket = tokio::net::UdpSocket::from_std(socket).unwrap();
        socket.recv_from(&mut [0; 100]).await.unwrap();
        assert_eq!(dropped.load(Ordering::Relaxed), 0, "it did not ask");
        let told = ask(task.commands(), Command::Drops).await.unwrap();
        assert!((1..2_000).contains(&told), "{told}");
        assert_eq!(dropped.load(Ordering::Relaxed), told);
        task.shutdown(Stop).await;
    }

    #[test]
    fn a_core_that_never_has_done_leaves_the_thread_to_others() {
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let nowhere = SocketAddrV4::new(Ipv4Addr::new(127, 42, 1, 9), 9);
                let (_, task) = start(9, Restless { babble: Some(nowhere), ..Restless::default() });
                tokio::time::sleep(Duration::from_millis(20)).await;
                drop(task);
            });
            done.send(()).unwrap();
        });
        ended.recv_timeout(Duration::from_secs(15)).expect("the other task gets its turn");
    }

    #[tokio::test]
    async fn ten_thousand_failed_receives_and_the_next_datagram_is_taken() {
        let (at, faults, task) = start_faulty(10, Restless::default());
        // What Windows reports when hosts we sent to have closed their port, and something worse in between.
        faults.fail_receives(5_000, io::ErrorKind::ConnectionReset);
        faults.fail_receives(20, io::ErrorKind::Other);
        faults.fail_receives(5_000, io::ErrorKind::HostUnreachable);
        let socket = tokio::net::UdpSocket::bind("127.42.1.10:0").await.unwrap();
        socket.send_to(&[7; 9], at).await.unwrap();
        let mut buffer = [0; 300];
        assert_eq!(socket.recv_from(&mut buffer).await.unwrap(), (9, at.into()));
        assert_eq!(faults.receives_left(), 0);
        task.shutdown(Stop).await;
    }

    #[tokio::test]
    async fn a_peer_that_cannot_be_sent_to_delays_no_other() {
        use io::ErrorKind as Kind;
        let dead = SocketAddrV4::new(Ipv4Addr::new(127, 42, 1, 99), 9);
        let socket = tokio::net::UdpSocket::bind("127.42.1.11:0").await.unwrap();
        let (at, faults, task) = start_faulty(11, Restless { copy: Some(dead), ..Restless::default() });
        let mut buffer = [0; 300];
        for kind in [Kind::PermissionDenied, Kind::NetworkUnreachable, Kind::ConnectionRefused, Kind::Other] {
            faults.fail_sends_to(*dead.ip(), kind);
            for len in 0..100 {
                socket.send_to(&vec![7; len], at).await.unwrap();
            }
            for len in 0..100 {
                assert_eq!(socket.recv_from(&mut buffer).await.unwrap(), (len, at.into()), "{kind}");
            }
        }
        task.shutdown(Stop).await;
    }

    #[tokio::test]
    async fn what_is_always_due_does_not_spin_the_loop() {
        let timeouts = Arc::new(AtomicU64::new(0));
        let (_, task) =
            start(3, Restless { timeouts: Arc::clone(&timeouts), next: 1_000, ..Restless::default() });
        tokio::time::sleep(Duration::from_millis(100)).await;
        let count = timeouts.load(Ordering::Relaxed);
        assert!((5..=200).contains(&count), "{count} in 100 ms");
        task.shutdown(Stop).await;
    }

    #[tokio::test]
    async fn a_shutdown_ends_even_a_core_that_never_stops_and_frees_the_port() {
        let (at, task) = start(4, Restless { deaf: true, ..Restless::default() });
        let asked = tokio::time::Instant::now();
        task.shutdown(Stop).await;
        assert!(asked.elapsed() >= STOP_MAX);
        std::net::UdpSocket::bind(at).unwrap();
    }

    #[tokio::test]
    async fn a_dropped_task_ends() {
        let (at, task) = start(5, Restless::default());
        drop(task);
        let free = async {
            while std::net::UdpSocket::bind(at).is_err() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(1), free).await.unwrap();
    }

    #[test]
    fn without_a_runtime_there_is_an_error_and_no_panic() {
        let at = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 41_472);
        let open = || unreachable!("nothing is opened");
        let error = spawn(open, |_| Restless::default(), at, NODE).map(drop).unwrap_err();
        assert_eq!(error.kind(), crate::driver::OpenErrorKind::NoRuntime);
    }
}
