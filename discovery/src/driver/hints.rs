//! Hints that the interfaces changed, from the system: on Linux from netlink, elsewhere none.
//!
//! A hint makes the next look at the interfaces come sooner and says nothing more: what a message tells is not even
//! parsed, and one that is lost, or a system that tells nothing, costs the time to the next regular look.

use core::task::{Context, Poll};

#[cfg(target_os = "linux")]
pub(crate) use netlink::Hints;

#[cfg(target_os = "linux")]
mod netlink {
    use std::io;
    use std::os::fd::OwnedFd;

    use rustix::net::netlink::SocketAddrNetlink;
    use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    use super::{Context, Poll};

    /// The groups that tell of links and of IPv4 addresses: RTMGRP_LINK, RTMGRP_IPV4_IFADDR.
    const GROUPS: u32 = 0x1 | 0x10;

    /// Messages read at a time. What is beyond is read at the next look, or makes the queue overflow, which is a hint too.
    const READS_MAX: usize = 64;

    /// The system's announcements.
    #[derive(Debug)]
    pub(crate) struct Hints(AsyncFd<OwnedFd>);

    impl Hints {
        /// Listens from now on. Refused in some sandboxes.
        pub(crate) fn open() -> io::Result<Self> {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            // No protocol is protocol 0, NETLINK_ROUTE.
            let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
            rustix::net::bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
            #[allow(
                deprecated,
                reason = "its successor, since tokio 1.53.3, wants an unsafe promise that an OwnedFd keeps by itself"
            )]
            let socket = AsyncFd::with_interest(socket, Interest::READABLE)?;
            Ok(Self(socket))
        }

        /// Ready when something changed; what was told of it is taken. An error: nothing will be told any more.
        pub(crate) fn poll_changed(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            let mut told = false;
            for _ in 0..READS_MAX {
                let Poll::Ready(ready) = self.0.poll_read_ready(cx) else { break };
                match ready?.try_io(|socket| take(socket.get_ref())) {
                    Ok(Ok(())) => told = true,
                    Ok(Err(error)) => return Poll::Ready(Err(error)),
                    Err(_nothing_waits) => {}
                }
            }
            if told { Poll::Ready(Ok(())) } else { Poll::Pending }
        }
    }

    /// Reads one message. Some were lost: that is as good as one.
    fn take(socket: &OwnedFd) -> io::Result<()> {
        // The rest of a longer message is dropped by the system.
        match rustix::net::recv(socket, &mut [0; 64], RecvFlags::empty()) {
            Ok(_) | Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Nobody tells.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(crate) struct Hints;

#[cfg(not(target_os = "linux"))]
impl Hints {
    #[expect(clippy::unnecessary_wraps, reason = "the same as where somebody tells")]
    pub(crate) const fn open() -> std::io::Result<Self> {
        Ok(Self)
    }

    #[expect(
        clippy::unused_self,
        clippy::needless_pass_by_ref_mut,
        reason = "the same as where somebody tells"
    )]
    pub(crate) const fn poll_changed(&self, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Pending
    }
}
