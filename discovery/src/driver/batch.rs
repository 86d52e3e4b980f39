//! What one turn took out of the sockets.

use core::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::io::IoSliceMut;

use quinn_udp::{BATCH_SIZE, RecvMeta};

/// Room for one read. Above the protocol's 1,200 bytes, so that a longer datagram is seen to be longer. Linux may join
/// what one sender sent at once into one read; no node sends more at once than fits, and what does not is cut and counted
/// as malformed.
const SLOT_BYTES: usize = 4_096;

/// The datagrams of one turn. Its memory is 256 KiB, of which only what datagrams were written to is ever touched.
#[derive(Debug)]
pub(crate) struct Batch {
    room: Box<[u8]>,
    filled: Box<[Filled]>,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Filled {
    len: usize,
    /// Bytes of each datagram but the last, where the system joined several.
    stride: usize,
    source: SocketAddr,
    destination: Option<Ipv4Addr>,
    index: Option<u32>,
}

impl Filled {
    const NONE: Self = Self {
        len: 0,
        stride: 0,
        source: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)),
        destination: None,
        index: None,
    };
}

/// A datagram, and what the system tells about its way here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received<'b> {
    pub(crate) bytes: &'b [u8],
    pub(crate) source: SocketAddrV4,
    pub(crate) destination: Option<Ipv4Addr>,
    pub(crate) index: Option<u32>,
}

impl Batch {
    /// Reads held at once: enough that a burst is taken out of the kernel quickly, few enough that timers and sends
    /// come between.
    pub(crate) const SLOTS: usize = 64;

    pub(crate) fn new() -> Self {
        Self {
            room: vec![0; SLOT_BYTES.saturating_mul(Self::SLOTS)].into_boxed_slice(),
            filled: vec![Filled::NONE; Self::SLOTS].into_boxed_slice(),
            len: 0,
        }
    }

    pub(crate) const fn clear(&mut self) {
        self.len = 0;
    }

    /// Slots in use.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it is full, so that more may wait.
    pub(crate) const fn is_full(&self) -> bool {
        self.len >= Self::SLOTS
    }

    /// Slots one read may fill, as `read` wants them: [`BATCH_SIZE`] at most, and none beyond `limit`. What it filled is
    /// kept; `bound` is the destination of all of it, where that is known without asking.
    pub(crate) fn fill<E>(
        &mut self,
        limit: usize,
        bound: Option<Ipv4Addr>,
        read: impl FnOnce(&mut [IoSliceMut<'_>], &mut [RecvMeta]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let free = limit.min(Self::SLOTS).saturating_sub(self.len).min(BATCH_SIZE);
        let mut rooms = self.room.chunks_exact_mut(SLOT_BYTES).skip(self.len);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            core::array::from_fn(|_| IoSliceMut::new(rooms.next().unwrap_or_default()));
        let Some(slices) = slices.get_mut(..free).filter(|slices| !slices.is_empty()) else { return Ok(0) };
        let count = read(slices, &mut metas)?.min(free);
        for (filled, meta) in self.filled.iter_mut().skip(self.len).zip(metas.iter().take(count)) {
            let told = match meta.dst_ip {
                Some(IpAddr::V4(ip)) => Some(ip),
                _ => None,
            };
            let index = if bound.is_some() { None } else { meta.interface_index };
            let (len, stride, source) = (meta.len, meta.stride, meta.addr);
            *filled = Filled { len, stride, source, destination: bound.or(told), index };
        }
        self.len = self.len.saturating_add(count);
        Ok(count)
    }

    /// The datagrams, one by one, also where the system joined several of one sender.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Received<'_>> {
        let slots = self.room.chunks_exact(SLOT_BYTES).zip(&self.filled).take(self.len);
        slots.flat_map(|(room, filled)| {
            let bytes = room.get(..filled.len).unwrap_or(room);
            let single = bytes.is_empty().then_some(bytes);
            single.into_iter().chain(bytes.chunks(filled.stride.max(1))).filter_map(|bytes| {
                let SocketAddr::V4(source) = filled.source else { return None };
                Some(Received { bytes, source, destination: filled.destination, index: filled.index })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A read that brings one datagram, or joined ones, of `len` bytes.
    fn take(batch: &mut Batch, len: usize, stride: usize) -> usize {
        let read = |_: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]| {
            (metas[0].len, metas[0].stride) = (len, stride);
            metas[0].addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 7));
            Ok::<_, ()>(1)
        };
        batch.fill(Batch::SLOTS, None, read).unwrap()
    }

    #[test]
    fn joined_datagrams_come_apart_and_empty_ones_count() {
        let mut batch = Batch::new();
        for (len, stride) in [(50, 20), (0, 0), (64, 64), (SLOT_BYTES + 1, 3_000)] {
            assert_eq!(take(&mut batch, len, stride), 1);
        }
        let lens: Vec<usize> = batch.iter().map(|one| one.bytes.len()).collect();
        assert_eq!(lens, [20, 20, 10, 0, 64, 3_000, 1_096]);
    }

    #[test]
    fn slots_at_the_limit_and_one_past_it() {
        let mut batch = Batch::new();
        for _ in 0..Batch::SLOTS {
            assert!(!batch.is_full());
            assert_eq!(take(&mut batch, 10, 10), 1);
        }
        assert!(batch.is_full());
        assert_eq!(take(&mut batch, 10, 10), 0, "not even asked");
        assert_eq!((batch.len(), batch.iter().count()), (Batch::SLOTS, Batch::SLOTS));
        batch.clear();
        assert_eq!(batch.iter().count(), 0);
    }

    #[test]
    fn a_read_gets_as_many_slots_as_its_share() {
        let mut batch = Batch::new();
        let asked = |batch: &mut Batch, limit| {
            let mut asked = 0;
            let read = |slices: &mut [IoSliceMut<'_>], _: &mut [RecvMeta]| {
                asked = slices.len();
                Ok::<_, ()>(asked)
            };
            batch.fill(limit, Some(Ipv4Addr::LOCALHOST), read).unwrap();
            asked
        };
        assert_eq!(asked(&mut batch, 3), 3);
        assert_eq!(asked(&mut batch, 3), 0);
        assert_eq!(asked(&mut batch, usize::MAX), BATCH_SIZE.min(Batch::SLOTS - 3));
        assert!(batch.iter().all(|one| one.destination == Some(Ipv4Addr::LOCALHOST)));
    }
}
