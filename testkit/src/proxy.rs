//! A TCP proxy that does what networks do: cut, freeze, delay, flip a bit, dribble.
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
use std::sync::atomic::{AtomicUsize, Ordering};
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
}

/// What happens on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// From the one who connected to the target.
    pub up: Faults,
    /// From the target to the one who connected.
    pub down: Faults,
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
    target: SocketAddr,
    plan: Mutex<Plan>,
    accepted: AtomicUsize,
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
            target,
            plan: Mutex::new(plan),
            accepted: AtomicUsize::new(0),
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
        let connection = tokio::spawn(connection(client, shared.target, plan));
        let mut connections = shared.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|connection| !connection.is_finished());
        connections.push(connection);
    }
}

/// Lives until one direction is cut or broken, or both have ended; its sockets close with it.
async fn connection(client: TcpStream, target: SocketAddr, plan: Plan) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    // A test about single bytes is no test if the kernel collects them; failure to say so is not fatal.
    let _ = client.set_nodelay(true).and(server.set_nodelay(true));
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let mut up = pin!(pump(client_in, server_out, plan.up));
    let mut down = pin!(pump(server_in, client_out, plan.down));
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

/// Passes one direction on, with its faults. Dropping `to` at the end tells the receiver that nothing more comes.
async fn pump(from: OwnedReadHalf, to: OwnedWriteHalf, faults: Faults) -> End {
    let mut buffer = vec![0; 16 * 1024];
    let mut passed = 0_u64;
    loop {
        let until_fault = match (faults.cut_at, faults.stall_at) {
            (Some(at), _) if at <= passed => return End::Cut,
            (_, Some(at)) if at <= passed => std::future::pending().await,
            (cut, stall) => cut.unwrap_or(u64::MAX).min(stall.unwrap_or(u64::MAX)) - passed,
        };
        let room = faults.chunk.unwrap_or(buffer.len()).clamp(1, buffer.len());
        let room = usize::try_from(until_fault).unwrap_or(usize::MAX).min(room);
        let len = match read(&from, &mut buffer[..room]).await {
            Ok(0) => return End::Finished,
            Ok(len) => len,
            Err(_) => return End::Cut,
        };
        if let Some((at, mask)) = faults.flip
            && let Some(byte) =
                at.checked_sub(passed).and_then(|at| buffer[..len].get_mut(usize::try_from(at).ok()?))
        {
            *byte ^= mask;
        }
        if !faults.delay.is_zero() {
            tokio::time::sleep(faults.delay).await;
        }
        if write_all(&to, &buffer[..len]).await.is_err() {
            return End::Cut;
        }
        passed += len as u64;
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
