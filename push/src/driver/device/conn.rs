//! One connection of the device: its socket, and what was read of it and not used.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use wire_format::splitter::{self, Split};

use crate::receiver::{ConnId, HELLO_BYTES};

/// Bytes read into at once in an open session; grows to a whole frame when a larger one is announced.
const BUFFER: usize = 4 << 10;
/// After how long the kernel gives up on bytes the server's host does not acknowledge: the session ends here too then.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) peer: SocketAddr,
    pub(super) stream: TcpStream,
    pub(super) buffer: Vec<u8>,
    /// Unread bytes stand in `buffer[start..end]`.
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) blocked: bool,
}

impl Conn {
    /// A stranger's connection: room for a HELLO and no more.
    pub(super) fn new(id: ConnId, peer: SocketAddr, stream: TcpStream) -> Self {
        // Small frames leave at once; what these refuse, the session does without.
        let _ = stream.set_nodelay(true);
        #[cfg(target_os = "linux")]
        let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(USER_TIMEOUT));
        Self { id, peer, stream, buffer: vec![0; HELLO_BYTES], start: 0, end: 0, blocked: false }
    }

    /// Reads what fits. Pending also while there is no room.
    pub(super) fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(room @ [_, ..]) = self.buffer.get_mut(self.end..) else { return Poll::Pending };
        let mut room = ReadBuf::new(room);
        core::task::ready!(Pin::new(&mut self.stream).poll_read(cx, &mut room))?;
        let len = room.filled().len();
        self.end += len;
        Poll::Ready(Ok(len))
    }

    /// Moves the unread tail to the front once the buffer is full, and grows it if the frame that has begun is larger.
    pub(super) fn make_room(&mut self, max_body: u32) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.end < self.buffer.len() {
            return;
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if let Ok(Split::Need(need)) = splitter::split(&self.buffer[..self.end], max_body)
            && need > self.buffer.len()
        {
            self.buffer.resize(need.max(BUFFER), 0);
        }
    }

    /// Writes what the kernel takes; the task is woken when it takes more.
    pub(super) fn write(&mut self, cx: &mut Context<'_>, head: &[u8], body: &[u8]) -> io::Result<usize> {
        let result = self.stream.try_write_vectored(&[IoSlice::new(head), IoSlice::new(body)]);
        let written = match result {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => 0,
            other => other?,
        };
        if written < head.len() + body.len() && self.stream.poll_write_ready(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Ok(written)
    }
}
