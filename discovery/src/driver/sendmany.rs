//! Many datagrams to many peers in one system call.

use core::array;
use core::net::{Ipv4Addr, SocketAddrV4};
use std::io::{self, IoSlice};

use rustix::net::addr::SocketAddrArg;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags};
use tokio::net::UdpSocket;

use super::outbox::Outgoing;

/// Datagrams of one call. Their headers live on the stack, 3 KiB; more of them save nothing that can be measured.
const MANY: usize = 16;

/// Sends the first of `posts`, as many as fit one call, and gives how many the system took: one at least, or else an
/// error about the first. They leave from the address `socket` is bound to, whatever they ask for.
pub(crate) fn send<'o>(
    socket: &UdpSocket,
    posts: impl ExactSizeIterator<Item = Outgoing<'o>>,
) -> io::Result<usize> {
    let count = posts.len().min(MANY);
    let mut posts = posts.take(MANY).map(|post| (post.bytes, post.to));
    let posts: [(&[u8], SocketAddrV4); MANY] = array::from_fn(|_| posts.next().unwrap_or((&[], NOWHERE)));
    let addresses = posts.map(|(_, to)| to.as_any());
    let bytes = posts.map(|(bytes, _)| [IoSlice::new(bytes)]);
    let mut controls: [_; MANY] = array::from_fn(|_| SendAncillaryBuffer::default());
    let mut parts = addresses.iter().zip(&bytes);
    let mut headers = controls.each_mut().map(|control| match parts.next() {
        Some((to, bytes)) => MMsgHdr::new_with_addr(to, bytes, control),
        None => MMsgHdr::new(&[], control),
    });
    let headers = headers.get_mut(..count).unwrap_or_default();
    Ok(rustix::net::sendmmsg(socket, headers, SendFlags::empty())?)
}

const NOWHERE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
