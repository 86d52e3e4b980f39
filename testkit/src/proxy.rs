//! A TCP proxy that does what networks do: cut, freeze, delay, throttle, flip a bit, swap, dribble; and what no network does
//! but every test wants: lose or hold frames of one kind.
//!
//! ```text
//! client ──▶ Proxy::address() ──▶ target        `Plan::up` is what happens on this way,
//! client ◀── Proxy::address() ◀── target        `Plan::down` on this one
//! ```
//!
//! Faults are placed by byte, counted from 0 on each connection and in each direction, so a test says exactly which
//! field of which frame it breaks and comes out the same every time.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What happens to the bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// After this many bytes both connections are closed.
    pub cut_at: Option<u64>,
    /// After this many bytes nothing passes any more, and nothing says so: the sockets stay open (half-open).
    pub stall_at: Option<u64>,
    /// This byte, and the mask it is xored with.
    pub flip: Option<(u64, u8)>,
    /// At most so many bytes are passed on at a time; 1 for one byte at a time.
    pub chunk: Option<usize>,
    /// How long each chunk is held back.
    pub delay: Duration,
    /// Before this byte there is a pause of [`SPLIT_PAUSE`], so that the receiver sees the stream in two pieces.
    pub split_at: Option<u64>,
    /// Bytes a second that pass, 0 for as many as will; taken in pieces of a twentieth.
    pub rate: u32,
    /// So many bytes from this one on change places with as many after them: pieces that arrive in the wrong order.
    pub swap: Option<(u64, usize)>,
    /// What happens to whole frames of one kind. Beside it only the faults of time are looked at.
    pub on_kind: Option<(u8, OnKind)>,
}

/// How long a stream rests at [`Faults::split_at`]: long enough for a reader to see what is there.
pub const SPLIT_PAUSE: Duration = Duration::from_millis(2);
/// Bytes of a frame's header; the first four are the length of what follows, the fifth is the kind.
const HEADER_LEN: usize = 16;

/// What happens to a frame of the kind that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnKind {
    /// It is lost, and the connection is closed with it.
    Cut,
    /// It alone is lost; what follows passes.
    Drop,
    /// It, and all that follows, passes so much later.
    Hold(Duration),
}

/// What happens on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// From the one who connected to the target.
    pub up: Faults,
    /// From the target to the one who connected.
    pub down: Faults,
    /// A cut is a reset: what was sent and not read is lost with it.
    pub reset: bool,
    /// A cut is told to the one who connected; the target keeps a dead connection, until the proxy is dropped.
    pub half_open: bool,
}

/// A proxy in front of one target. Dropped, it closes everything it holds.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    target: Mutex<SocketAddr>,
    plan: Mutex<Plan>,
    accepted: AtomicUsize,
    /// The most bytes any one connection brought to the target since the last question.
    most_up: AtomicU64,
    connections: Mutex<Vec<JoinHandle<()>>>,
}

impl Proxy {
    /// A proxy on `listen` (port 0 for any) in front of `target`. Runs on the current tokio runtime.
    ///
    /// # Errors
    ///
    /// Whatever binding `listen` says.
    pub async fn start(listen: SocketAddr, target: SocketAddr, plan: Plan) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            plan: Mutex::new(plan),
            accepted: AtomicUsize::new(0),
            most_up: AtomicU64::new(0),
            connections: Mutex::new(Vec::new()),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, accepting })
    }

    /// Where to connect to.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Another plan for the connections that come from now on.
    pub fn set_plan(&self, plan: Plan) {
        *self.shared.plan.lock().unwrap_or_else(PoisonError::into_inner) = plan;
    }

    /// Another target for the connections that come from now on: another device has the address.
    pub fn set_target(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
    }

    /// The most bytes that any one connection brought to the target since this was asked last.
    #[must_use]
    pub fn most_up(&self) -> u64 {
        self.shared.most_up.swap(0, Ordering::Relaxed)
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Closes every connection there is; new ones are still accepted.
    pub fn cut_all(&self) {
        self.shared.abort();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.shared.abort();
    }
}

impl Shared {
    fn abort(&self) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.drain(..).for_each(|connection| connection.abort());
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        shared.accepted.fetch_add(1, Ordering::Relaxed);
        let plan = *shared.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let target = *shared.target.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = tokio::spawn(connection(client, target, plan, Arc::clone(&shared)));
        let mut connections = shared.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|connection| !connection.is_finished());
        connections.push(connection);
    }
}

/// Lives until one direction is cut or broken, or both have ended; its sockets close with it.
async fn connection(client: TcpStream, target: SocketAddr, plan: Plan, shared: Arc<Shared>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    // A test about single bytes is no test if the kernel collects them; failure to say so is not fatal.
    let _ = client.set_nodelay(true).and(server.set_nodelay(true));
    let linger = plan.reset.then_some(Duration::ZERO);
    let _ = socket2::SockRef::from(&client).set_linger(linger);
    let _ = socket2::SockRef::from(&server).set_linger(linger);
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let mut up = Pump::new(client_in, server_out, plan.up, Some(&shared.most_up));
    let mut down = Pump::new(server_in, client_out, plan.down, None);
    both(&mut up, &mut down).await;
    if plan.reset {
        // Dropped, they would say that nothing more comes, ahead of the reset.
        up.to.forget();
        return down.to.forget();
    }
    if plan.half_open {
        let _held = (up.to, down.from);
        drop((up.from, down.to));
        std::future::pending::<()>().await;
    }
}

/// Until one way is cut, or both have ended.
async fn both(up: &mut Pump<'_>, down: &mut Pump<'_>) {
    let (mut up, mut down) = (pin!(up.run()), pin!(down.run()));
    let (mut up_ended, mut down_ended) = (false, false);
    poll_fn(|context| {
        for (way, ended) in [
            (up.as_mut() as Pin<&mut dyn Future<Output = End>>, &mut up_ended),
            (down.as_mut() as Pin<&mut dyn Future<Output = End>>, &mut down_ended),
        ] {
            if !*ended && let Poll::Ready(end) = way.poll(context) {
                if end == End::Cut {
                    return Poll::Ready(());
                }
                *ended = true;
            }
        }
        if up_ended && down_ended { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The sender has finished; so has, by now, our writing side.
    Finished,
    /// Close everything.
    Cut,
}

/// One direction with its faults.
struct Pump<'a> {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    faults: Faults,
    passed: u64,
    buffer: Vec<u8>,
    most: Option<&'a AtomicU64>,
}

impl<'a> Pump<'a> {
    fn new(from: OwnedReadHalf, to: OwnedWriteHalf, faults: Faults, most: Option<&'a AtomicU64>) -> Self {
        Self { from, to, faults, passed: 0, buffer: vec![0; 16 * 1024], most }
    }

    /// Passes on what comes until the sender has finished, which the receiver is then told, or until something is cut.
    async fn run(&mut self) -> End {
        let end = loop {
            let step = match self.faults.on_kind {
                Some((kind, act)) => self.frame(kind, act).await,
                None => self.chunk().await,
            };
            if let Err(end) = step {
                break end;
            }
        };
        if end == End::Finished {
            let _ = socket2::SockRef::from(self.to.as_ref()).shutdown(std::net::Shutdown::Write);
        }
        end
    }

    /// As many bytes as the next fault leaves.
    async fn chunk(&mut self) -> Result<(), End> {
        let Faults { cut_at, stall_at, split_at, swap, .. } = self.faults;
        let passed = self.passed;
        let until = |at: Option<u64>| at.filter(|at| *at >= passed).map_or(u64::MAX, |at| at - passed);
        if cut_at.is_some_and(|at| at <= passed) {
            return Err(End::Cut);
        }
        if stall_at.is_some_and(|at| at <= passed) {
            std::future::pending::<()>().await;
        }
        if split_at == Some(passed) {
            self.faults.split_at = None;
            tokio::time::sleep(SPLIT_PAUSE).await;
            return Ok(());
        }
        if let Some((at, len)) = swap
            && at == passed
        {
            return self.swapped(len).await;
        }
        let faults = [cut_at, stall_at, split_at, swap.map(|(at, _)| at)].map(until);
        let until_fault = faults.into_iter().min().unwrap_or(u64::MAX);
        let room = self.faults.chunk.unwrap_or(self.buffer.len()).clamp(1, self.buffer.len());
        let room = match self.faults.rate {
            0 => room,
            rate => room.min((rate / 20).max(1) as usize),
        };
        let room = usize::try_from(until_fault).unwrap_or(usize::MAX).min(room);
        let len = self.read(0, room).await?;
        if let Some((at, mask)) = self.faults.flip
            && let Some(byte) = at
                .checked_sub(self.passed)
                .and_then(|at| self.buffer[..len].get_mut(usize::try_from(at).ok()?))
        {
            *byte ^= mask;
        }
        self.pass(len).await
    }

    /// Two pieces of the stream in the wrong order. One that ends before both are there ends in its own order.
    async fn swapped(&mut self, len: usize) -> Result<(), End> {
        self.faults.swap = None;
        let len = len.clamp(1, self.buffer.len() / 2);
        let mut have = 0;
        while have < 2 * len {
            have += self.read(have, 2 * len).await?;
        }
        self.buffer[..2 * len].rotate_left(len);
        self.pass(2 * len).await
    }

    /// One whole frame, or none of it.
    async fn frame(&mut self, kind: u8, act: OnKind) -> Result<(), End> {
        let mut have = 0;
        while have < HEADER_LEN {
            have += self.read(have, HEADER_LEN).await?;
        }
        let body = u32::from_le_bytes([self.buffer[0], self.buffer[1], self.buffer[2], self.buffer[3]]);
        let len = HEADER_LEN + usize::try_from(body).map_err(|_| End::Cut)?;
        if self.buffer.len() < len {
            self.buffer.resize(len, 0);
        }
        while have < len {
            have += self.read(have, len).await?;
        }
        match act {
            OnKind::Cut if self.buffer[4] == kind => Err(End::Cut),
            OnKind::Drop if self.buffer[4] == kind => Ok(()),
            OnKind::Hold(span) if self.buffer[4] == kind => {
                tokio::time::sleep(span).await;
                self.pass(len).await
            }
            _ => self.pass(len).await,
        }
    }

    async fn read(&mut self, from: usize, to: usize) -> Result<usize, End> {
        match read(&self.from, &mut self.buffer[from..to]).await {
            Ok(0) => Err(End::Finished),
            Ok(len) => Ok(len),
            Err(_) => Err(End::Cut),
        }
    }

    async fn pass(&mut self, len: usize) -> Result<(), End> {
        let mut wait = self.faults.delay;
        if let Some(per_byte) = Duration::from_secs(1).checked_div(self.faults.rate) {
            wait += per_byte.saturating_mul(u32::try_from(len).unwrap_or(u32::MAX));
        }
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        write_all(&self.to, &self.buffer[..len]).await.map_err(|_| End::Cut)?;
        self.passed += len as u64;
        if let Some(most) = self.most {
            most.fetch_max(self.passed, Ordering::Relaxed);
        }
        Ok(())
    }
}

async fn read(from: &OwnedReadHalf, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        from.readable().await?;
        match from.try_read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

async fn write_all(to: &OwnedWriteHalf, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
            Ok(len) => bytes = &bytes[len..],
        }
    }
    Ok(())
}
