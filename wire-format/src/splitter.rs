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
        if self.start > 0 {
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
