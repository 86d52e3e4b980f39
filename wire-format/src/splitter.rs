//! Cuts the byte stream of TCP 8081 into frames.
//!
//! [`split`] looks at bytes and says: a frame, or how many bytes that takes. [`RxBuffer`] keeps the bytes of a
//! connection between reads in storage the caller chose. Neither believes a length before the header's checksum
//! matched, and neither waits for a body that is over the limit.

use crate::error::{Fault, ParseError};
use crate::frame::{Header, Raw, header};

/// What [`split`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split<'a> {
    /// A whole frame stands at the start of the bytes; it takes [`Raw::len`] of them.
    Frame(Raw<'a>),
    /// Not yet: this many bytes, from the start of these, make a whole header or a whole frame.
    Need(usize),
}

/// Looks for a frame at the start of `bytes`.
///
/// An error ends the connection: the checksum of the header does not match (a stranger, or bytes lost), a flag is not
/// known, or the length is over `max_body`. Nothing can be found behind it.
///
/// ```
/// use wire_format::frame::{Ping, ping};
/// use wire_format::splitter::{Split, split};
/// let mut bytes = [0; 16];
/// Ping { token: 5 }.emit(&mut bytes)?;
/// assert_eq!(split(&bytes[..9], 512), Ok(Split::Need(16)));
/// let Ok(Split::Frame(raw)) = split(&bytes, 512) else { panic!() };
/// assert_eq!(Ping::parse(&raw)?.token, 5);
/// assert!(split(b"GET / HTTP/1.1\r\n", 512).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[inline]
pub fn split(bytes: &[u8], max_body: u32) -> Result<Split<'_>, ParseError> {
    let Some((head, rest)) = bytes.split_first_chunk::<{ header::LEN }>() else {
        return Ok(Split::Need(header::LEN));
    };
    let header = Header::parse(head)?;
    if header.length > max_body {
        return Err(ParseError::new("length", 0, Fault::Range));
    }
    let length = header.length as usize;
    match rest.get(..length) {
        Some(body) => Ok(Split::Frame(Raw { header, body })),
        None => Ok(Split::Need(header::LEN.saturating_add(length))),
    }
}

/// The bytes of one connection that were read and not yet used, in storage of the caller's.
///
/// Read into [`RxBuffer::spare`], say how much with [`RxBuffer::filled`], then take frames with [`RxBuffer::next`] until
/// it has none. Only the beginning of an unfinished frame ever moves, and once at most; a frame that arrives whole is
/// used where it was read.
///
/// ```
/// use wire_format::frame::Ping;
/// use wire_format::splitter::RxBuffer;
/// let mut rx = RxBuffer::new([0; 512]);
/// let len = Ping { token: 5 }.emit(rx.spare())?; // a read from a socket
/// rx.filled(len);
/// while let Some(raw) = rx.next(496)? {
///     assert_eq!(Ping::parse(&raw)?.token, 5);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct RxBuffer<S> {
    storage: S,
    /// First byte not used yet.
    start: usize,
    /// First byte not read yet.
    end: usize,
    /// Bytes moved so far, for the tests.
    #[cfg(test)]
    moved: usize,
}

impl<S: AsRef<[u8]> + AsMut<[u8]>> RxBuffer<S> {
    /// An empty buffer. Frames larger than the storage are refused.
    #[must_use]
    pub const fn new(storage: S) -> Self {
        Self {
            storage,
            start: 0,
            end: 0,
            #[cfg(test)]
            moved: 0,
        }
    }

    /// Where to read to: all the room there is behind the unused bytes, which move to the front for it. Empty only if
    /// the storage is full of unused bytes; take frames first.
    pub fn spare(&mut self) -> &mut [u8] {
        let storage = self.storage.as_mut();
        if self.start > 0 && self.start <= self.end && self.end <= storage.len() {
            storage.copy_within(self.start..self.end, 0);
            #[cfg(test)]
            {
                self.moved += self.end - self.start;
            }
            self.end = self.end.saturating_sub(self.start);
            self.start = 0;
        }
        storage.get_mut(self.end..).unwrap_or_default()
    }

    /// The first `len` bytes of the last [`RxBuffer::spare`] were read. More than that slice had counts as all of it.
    pub fn filled(&mut self, len: usize) {
        self.end = self.end.saturating_add(len).min(self.storage.as_ref().len());
    }

    /// Takes the next frame, or `None` if it is not whole yet. Its bytes stay where they are until the next
    /// [`RxBuffer::spare`]. An error ends the connection and repeats; a frame larger than the storage is one.
    pub fn next(&mut self, max_body: u32) -> Result<Option<Raw<'_>>, ParseError> {
        let storage = self.storage.as_ref();
        let unused = storage.get(self.start..self.end).unwrap_or_default();
        match split(unused, max_body)? {
            Split::Frame(raw) => {
                self.start = self.start.saturating_add(raw.len());
                Ok(Some(raw))
            }
            Split::Need(need) if need > storage.len() => Err(ParseError::new("length", 0, Fault::Range)),
            Split::Need(_) => Ok(None),
        }
    }

    /// Bytes read and not used yet.
    #[must_use]
    pub fn unused(&self) -> &[u8] {
        self.storage.as_ref().get(self.start..self.end).unwrap_or_default()
    }

    /// Forgets all bytes: for a new connection on the same storage.
    pub const fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any};

    use super::*;
    use crate::frame::{Kind, Ping};
    use crate::testing;

    /// A right header and any body: the splitter judges no more than that.
    fn frame(kind: u8, aux32: u32, body: &[u8]) -> Vec<u8> {
        let header = Header { aux32, ..Header::new(Kind(kind), body.len() as u32) };
        [&header.emit()[..], body].concat()
    }

    fn frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let body = proptest::collection::vec(0_u8.., 0..200);
        let frame = (0_u8.., 0_u32.., body).prop_map(|(kind, aux32, body)| frame(kind, aux32, &body));
        proptest::collection::vec(frame, 1..8)
    }

    fn whole(raw: &Raw<'_>) -> Vec<u8> {
        [&raw.header.emit()[..], raw.body].concat()
    }

    /// What comes out of an [`RxBuffer`] of `len` bytes when `stream` is read in pieces of at most the given sizes, and
    /// bytes moved on the way.
    fn through(len: usize, stream: &[u8], sizes: impl IntoIterator<Item = usize>) -> (Vec<Vec<u8>>, usize) {
        let mut rx = RxBuffer::new(vec![0; len]);
        let (mut rest, mut sizes, mut frames) = (stream, sizes.into_iter(), Vec::new());
        while !rest.is_empty() {
            let (tail, before, shifted) = (rx.unused().to_vec(), rx.moved, rx.start > 0);
            let spare = rx.spare();
            assert_eq!(spare.len(), len - tail.len(), "all the room there is");
            let read = sizes.next().expect("enough pieces").clamp(1, spare.len()).min(rest.len());
            spare[..read].copy_from_slice(&rest[..read]);
            rest = &rest[read..];
            assert_eq!(rx.unused(), tail, "what was unused still is");
            assert_eq!(rx.moved - before, if shifted { tail.len() } else { 0 }, "the tail and nothing else");
            rx.filled(read);
            while let Some(raw) = rx.next(200).expect("right frames") {
                frames.push(whole(&raw));
            }
        }
        assert_eq!(rx.unused(), [0_u8; 0]);
        (frames, rx.moved)
    }

    #[test]
    fn a_stream_cut_anywhere_gives_the_same_frames() {
        let frames =
            [frame(0x30, 1, b""), frame(0x10, 2, &[7; 64]), frame(0xEE, 3, b"x"), frame(0x21, 4, &[9; 36])];
        let stream = frames.concat();
        for cut in 0..=stream.len() {
            let pieces = [cut, stream.len() - cut].into_iter().filter(|&piece| piece > 0);
            assert_eq!(through(stream.len(), &stream, pieces).0, frames, "cut at {cut}");
        }
    }

    #[test]
    fn split_says_how_many_bytes_it_takes() {
        let bytes = frame(0x10, 5, &[1; 40]);
        for cut in 0..bytes.len() {
            let need = if cut < header::LEN { header::LEN } else { bytes.len() };
            assert_eq!(split(&bytes[..cut], 40), Ok(Split::Need(need)), "{cut}");
        }
        let two = [&bytes[..], b"more"].concat();
        let Ok(Split::Frame(raw)) = split(&two, 40) else { panic!("whole") };
        assert_eq!((whole(&raw), raw.len()), (bytes, 56));
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_refused() {
        let bytes = frame(0x10, 5, &[1; 40]);
        for bit in 0..header::LEN * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(split(&flipped, u32::MAX), Err(ParseError::new("checksum", 12, Fault::Checksum)));
        }
    }

    #[test]
    fn the_largest_body_and_one_byte_more() {
        let header = Header::new(Kind::ORDER, 512).emit();
        assert_eq!(split(&header, 512), Ok(Split::Need(528)));
        assert_eq!(split(&header, 511), Err(ParseError::new("length", 0, Fault::Range)));
    }

    #[test]
    fn a_length_of_4_gib_is_refused_by_its_header_alone() {
        let header = Header::new(Kind::ORDER, u32::MAX).emit();
        let error = ParseError::new("length", 0, Fault::Range);
        assert_eq!(split(&header, 65_840), Err(error));
        let mut rx = RxBuffer::new([0; 64]);
        rx.spare()[..header::LEN].copy_from_slice(&header);
        rx.filled(header::LEN);
        assert_eq!(rx.next(65_840), Err(error));
        assert_eq!(rx.next(u32::MAX), Err(error), "and by the storage, whatever the limit");
    }

    #[test]
    fn strangers_are_known_by_their_first_16_bytes() {
        let tls = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3, 0, 0, 0, 0, 0];
        for stranger in [b"GET / HTTP/1.1\r\n", b"SSH-2.0-OpenSSH_", &tls, &[0; 16], &[0xFF; 16]] {
            assert_eq!(split(&stranger[..15], 65_840), Ok(Split::Need(16)));
            assert!(split(stranger, 65_840).is_err(), "{stranger:?}");
        }
        let error = ParseError::new("flags", 5, Fault::NotZero);
        let mut unknown_flag = Header::new(Kind::PING, 0).emit();
        unknown_flag[5] = 0x20;
        testing::repair(&mut unknown_flag);
        assert_eq!(split(&unknown_flag, 0), Err(error));
    }

    #[test]
    fn a_frame_as_large_as_the_storage_and_one_byte_larger() {
        let fits = frame(0x10, 0, &[3; 48]);
        assert_eq!(through(64, &fits, [64]), (vec![fits.clone()], 0));
        let larger = frame(0x10, 0, &[3; 49]);
        let mut rx = RxBuffer::new([0; 64]);
        rx.spare().copy_from_slice(&larger[..64]);
        rx.filled(64);
        assert_eq!(rx.spare().len(), 0, "full");
        assert_eq!(rx.next(200), Err(ParseError::new("length", 0, Fault::Range)));
        assert_eq!(RxBuffer::new([0; 15]).next(0), Err(ParseError::new("length", 0, Fault::Range)));
    }

    #[test]
    fn more_than_there_was_room_for_is_not_believed() {
        let mut rx = RxBuffer::new([0; 64]);
        rx.filled(usize::MAX);
        assert_eq!(rx.unused().len(), 64);
        rx.clear();
        assert_eq!((rx.unused().len(), rx.spare().len()), (0, 64));
    }

    #[test]
    fn frames_that_arrive_whole_are_never_copied() {
        let frames: Vec<_> = (0..50).map(|n| frame(0x10, n, &vec![0; n as usize])).collect();
        let sizes = frames.iter().map(Vec::len);
        assert_eq!(through(256, &frames.concat(), sizes), (frames.clone(), 0));
        let pairs = frames.chunks(2).map(|pair| pair.concat().len());
        assert_eq!(through(256, &frames.concat(), pairs), (frames.clone(), 0));
    }

    #[test]
    fn a_frame_read_where_it_stands_is_what_was_written() {
        let mut rx = RxBuffer::new([0; 64]);
        let len = Ping { token: 9 }.emit(rx.spare()).unwrap();
        rx.filled(len);
        assert_eq!(Ping::parse(&rx.next(0).unwrap().unwrap()), Ok(Ping { token: 9 }));
        assert_eq!(rx.next(0), Ok(None));
    }

    proptest::proptest! {
        #![proptest_config(testing::config())]
        #[test]
        fn byte_by_byte(frames in frames()) {
            let stream = frames.concat();
            let (got, moved) = through(216, &stream, core::iter::repeat(1));
            proptest::prop_assert_eq!((got, moved), (frames, 0), "a byte alone never waits behind a frame");
        }

        #[test]
        fn in_random_pieces(
            frames in frames(), sizes in proptest::collection::vec(1_usize..300, 1..20), more in 0_usize..600,
        ) {
            let stream = frames.concat();
            let (got, moved) = through(216 + more, &stream, sizes.into_iter().cycle());
            proptest::prop_assert_eq!(got, frames);
            proptest::prop_assert!(moved <= stream.len(), "no byte moves twice");
        }

        #[test]
        fn any_bytes_are_refused_or_wait(bytes: Vec<u8>, max_body in any::<u32>()) {
            match split(&bytes, max_body) {
                Ok(Split::Frame(raw)) => proptest::prop_assert!(raw.len() <= bytes.len()),
                Ok(Split::Need(need)) => proptest::prop_assert!(need > bytes.len()),
                Err(_) => {}
            }
        }
    }
}
