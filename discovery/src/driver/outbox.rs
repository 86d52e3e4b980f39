//! Datagrams on their way out: written by the state machine one after the other, sent together.

use core::net::{Ipv4Addr, SocketAddrV4};
use core::ops::Range;

use wire_format::datagram::header::DATAGRAM_MAX;

/// Sends collected before they leave: one for each datagram a turn may have received, and the second copy of a broadcast.
pub(crate) const POSTS_MAX: usize = 65;

/// A broadcast may leave for two addresses.
const POSTS_PER_DATAGRAM: usize = 2;

/// Bytes of all of them: 64 answers of 76 bytes, and room for one of the largest.
const BYTES_MAX: usize = 8 << 10;

/// Datagrams, each with where it goes.
#[derive(Debug)]
pub(crate) struct Outbox {
    room: Box<[u8]>,
    used: usize,
    posts: Box<[Post]>,
    len: usize,
}

/// Where a datagram goes.
#[derive(Clone, Copy, Debug)]
struct Post {
    start: usize,
    len: usize,
    to: SocketAddrV4,
    source: Option<Ipv4Addr>,
    on_link: bool,
}

/// A datagram to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing<'o> {
    pub(crate) bytes: &'o [u8],
    pub(crate) to: SocketAddrV4,
    /// The address it must leave from; `None`: as the routes have it.
    pub(crate) source: Option<Ipv4Addr>,
    /// No router may take it, not even if the interface it is for has just gone.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "elsewhere the source address decides, or the system has no such option")
    )]
    pub(crate) on_link: bool,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        let nowhere = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        let nothing = Post { start: 0, len: 0, to: nowhere, source: None, on_link: false };
        Self {
            room: vec![0; BYTES_MAX].into_boxed_slice(),
            used: 0,
            posts: vec![nothing; POSTS_MAX].into_boxed_slice(),
            len: 0,
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn clear(&mut self) {
        self.used = 0;
        self.len = 0;
    }

    /// Whether there may be no room for another datagram.
    pub(crate) const fn is_full(&self) -> bool {
        self.len.saturating_add(POSTS_PER_DATAGRAM) > POSTS_MAX
            || self.used.saturating_add(DATAGRAM_MAX) > BYTES_MAX
    }

    /// Where the next datagram is written: 1,200 bytes, fewer if [`Outbox::is_full`].
    pub(crate) fn room(&mut self) -> &mut [u8] {
        let end = self.used.saturating_add(DATAGRAM_MAX).min(self.room.len());
        self.room.get_mut(self.used..end).unwrap_or_default()
    }

    /// Keeps the first `len` bytes of [`Outbox::room`].
    pub(crate) fn keep(&mut self, len: usize) -> Range<usize> {
        let end = self.used.saturating_add(len.min(DATAGRAM_MAX)).min(self.room.len());
        let start = core::mem::replace(&mut self.used, end);
        start..end
    }

    /// Sends bytes that were kept to `to`. `false` if there is no room.
    pub(crate) fn post(&mut self, kept: Range<usize>, to: SocketAddrV4, source: Option<Ipv4Addr>) -> bool {
        self.put(Post { start: kept.start, len: kept.len(), to, source, on_link: false })
    }

    /// [`Outbox::post`] for the broadcast address of a subnet: past every router.
    pub(crate) fn post_on_link(&mut self, kept: Range<usize>, to: SocketAddrV4, source: Ipv4Addr) -> bool {
        self.put(Post { start: kept.start, len: kept.len(), to, source: Some(source), on_link: true })
    }

    fn put(&mut self, post: Post) -> bool {
        let Some(place) = self.posts.get_mut(self.len) else { return false };
        *place = post;
        self.len = self.len.saturating_add(1);
        true
    }

    /// What is to be sent, from the `from`th on.
    pub(crate) fn iter_from(&self, from: usize) -> impl ExactSizeIterator<Item = Outgoing<'_>> {
        let posts = self.posts.get(from..self.len).unwrap_or_default();
        posts.iter().map(|post| Outgoing {
            bytes: self.room.get(post.start..).and_then(|rest| rest.get(..post.len)).unwrap_or_default(),
            to: post.to,
            source: post.source,
            on_link: post.on_link,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7);

    #[test]
    fn posts_at_the_limit_and_one_past_it() {
        let mut outbox = Outbox::new();
        let mut count = 0;
        while !outbox.is_full() {
            outbox.room()[0] = count;
            let kept = outbox.keep(76);
            assert!(outbox.post(kept, TO, None));
            count += 1;
        }
        assert_eq!(usize::from(count), POSTS_MAX - 1, "a broadcast could still have needed two");
        let kept = outbox.keep(0);
        assert!(outbox.post(kept.clone(), TO, None) && !outbox.post(kept, TO, None));
        assert!(outbox.iter_from(0).zip(0..count).all(|(one, n)| (one.bytes[0], one.bytes.len()) == (n, 76)));
        assert_eq!(outbox.iter_from(60).len(), 5);
        assert_eq!(outbox.iter_from(66).len(), 0);
        outbox.clear();
        assert_eq!((outbox.len(), outbox.iter_from(0).len(), outbox.is_full()), (0, 0, false));
    }

    #[test]
    fn datagrams_of_every_length_fit_until_it_says_otherwise() {
        let mut outbox = Outbox::new();
        let mut kept = 0;
        while !outbox.is_full() {
            assert_eq!(outbox.room().len(), DATAGRAM_MAX);
            let range = outbox.keep(DATAGRAM_MAX);
            assert_eq!(range.len(), DATAGRAM_MAX);
            assert!(
                outbox.post(range.clone(), TO, None) && outbox.post(range, TO, Some(Ipv4Addr::LOCALHOST))
            );
            kept += DATAGRAM_MAX;
        }
        assert!(kept + DATAGRAM_MAX > BYTES_MAX && kept <= BYTES_MAX);
        assert!(outbox.room().len() < DATAGRAM_MAX);
        assert_eq!(outbox.keep(DATAGRAM_MAX).end, BYTES_MAX, "and no further");
    }
}
