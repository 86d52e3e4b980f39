//! Reading and writing little-endian values on slices, without a panic in reach.
//!
//! [`Reader`] and [`Writer`] are the only code of this package that turns positions into bytes. Fixed layouts are read
//! from an array reference with [`u16_at`] and friends: offset and length are compile-time constants there.

use crate::error::{EmitError, Fault, ParseError};

macro_rules! fixed {
    ($($name:ident, $put:ident, $type:ty, $size:literal;)*) => {$(
        #[doc = concat!("The little-endian `", stringify!($type), "` that starts at byte `AT`; out of the array is a compile error.")]
        #[inline]
        #[must_use]
        pub fn $name<const AT: usize, const N: usize>(bytes: &[u8; N]) -> $type {
            const { assert!(usize::saturating_add(AT, $size) <= N, "field lies outside the layout") };
            let mut field = [0; $size];
            let mut i = 0;
            while i < $size {
                field[i] = bytes[AT + i];
                i += 1;
            }
            <$type>::from_le_bytes(field)
        }

        #[doc = concat!("Writes a little-endian `", stringify!($type), "` at byte `AT`; out of the array is a compile error.")]
        #[inline]
        pub fn $put<const AT: usize, const N: usize>(bytes: &mut [u8; N], value: $type) {
            const { assert!(usize::saturating_add(AT, $size) <= N, "field lies outside the layout") };
            let field = value.to_le_bytes();
            let mut i = 0;
            while i < $size {
                bytes[AT + i] = field[i];
                i += 1;
            }
        }
    )*};
}

fixed! {
    u8_at, put_u8, u8, 1;
    u16_at, put_u16, u16, 2;
    u32_at, put_u32, u32, 4;
    u64_at, put_u64, u64, 8;
    id_at, put_id, u128, 16;
}

/// The 16 bytes that start at `AT`, as they stand.
#[inline]
#[must_use]
pub fn bytes16_at<const AT: usize, const N: usize>(bytes: &[u8; N]) -> [u8; 16] {
    id_at::<AT, N>(bytes).to_le_bytes()
}

/// Writes 16 bytes at `AT`, as they stand.
#[inline]
pub fn put_bytes16<const AT: usize, const N: usize>(bytes: &mut [u8; N], value: [u8; 16]) {
    put_id::<AT, N>(bytes, u128::from_le_bytes(value));
}

/// A cursor over bytes that came from outside. Every step says what it wanted and where when it cannot have it.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// A cursor at the first byte.
    #[inline]
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, offset: 0 }
    }

    /// A cursor over a part of a larger layout: errors count from `offset`.
    #[inline]
    #[must_use]
    pub const fn at(bytes: &'a [u8], offset: usize) -> Self {
        Self { rest: bytes, offset }
    }

    /// Bytes read so far, plus the starting offset.
    #[inline]
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// What is left.
    #[inline]
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// An error about the field that starts here.
    #[inline]
    #[must_use]
    pub const fn error(&self, field: &'static str, fault: Fault) -> ParseError {
        ParseError::new(field, self.offset, fault)
    }

    /// The next `len` bytes.
    #[inline]
    pub fn bytes(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], ParseError> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            return Err(self.error(field, Fault::Truncated));
        };
        self.rest = rest;
        self.offset = self.offset.wrapping_add(len);
        Ok(taken)
    }

    /// The next `N` bytes as an array reference.
    #[inline]
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<&'a [u8; N], ParseError> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.error(field, Fault::Truncated));
        };
        self.rest = rest;
        self.offset = self.offset.wrapping_add(N);
        Ok(taken)
    }

    /// The next byte.
    #[inline]
    pub fn u8(&mut self, field: &'static str) -> Result<u8, ParseError> {
        self.array::<1>(field).map(|&[byte]| byte)
    }

    /// The next two bytes.
    #[inline]
    pub fn u16(&mut self, field: &'static str) -> Result<u16, ParseError> {
        self.array(field).map(|bytes| u16::from_le_bytes(*bytes))
    }

    /// The next four bytes.
    #[inline]
    pub fn u32(&mut self, field: &'static str) -> Result<u32, ParseError> {
        self.array(field).map(|bytes| u32::from_le_bytes(*bytes))
    }

    /// The next eight bytes.
    #[inline]
    pub fn u64(&mut self, field: &'static str) -> Result<u64, ParseError> {
        self.array(field).map(|bytes| u64::from_le_bytes(*bytes))
    }

    /// The next `len` bytes, each of which must be zero.
    #[inline]
    pub fn zeros(&mut self, field: &'static str, len: usize) -> Result<(), ParseError> {
        let at = *self;
        if self.bytes(field, len)?.iter().any(|&byte| byte != 0) {
            return Err(at.error(field, Fault::NotZero));
        }
        Ok(())
    }

    /// Nothing may be left.
    #[inline]
    pub const fn end(&self, field: &'static str) -> Result<(), ParseError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.error(field, Fault::Length)) }
    }
}

/// A cursor over the caller's buffer. It writes what fits and counts what was wanted; [`Writer::finish`] tells.
///
/// Nothing in between has to be checked, so `emit` reads like the byte table.
#[derive(Debug)]
pub struct Writer<'b> {
    buffer: &'b mut [u8],
    at: usize,
}

impl<'b> Writer<'b> {
    /// A cursor at the first byte of `buffer`.
    #[inline]
    #[must_use]
    pub const fn new(buffer: &'b mut [u8]) -> Self {
        Self { buffer, at: 0 }
    }

    /// Bytes wanted so far; may exceed the buffer.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.at
    }

    /// Nothing was written yet.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.at == 0
    }

    /// Writes `bytes` as they stand.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        // In two steps, so that the optimiser sees that the lengths agree.
        if let Some(room) = self.buffer.get_mut(self.at..).and_then(|rest| rest.get_mut(..bytes.len())) {
            room.copy_from_slice(bytes);
        }
        self.at = self.at.saturating_add(bytes.len());
    }

    /// Writes one byte.
    #[inline]
    pub fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    /// Writes two bytes.
    #[inline]
    pub fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    /// Writes four bytes.
    #[inline]
    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    /// Writes eight bytes.
    #[inline]
    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    /// Writes `len` zero bytes.
    #[inline]
    pub fn zeros(&mut self, len: usize) {
        let end = self.at.saturating_add(len);
        if let Some(room) = self.buffer.get_mut(self.at..end) {
            room.fill(0);
        }
        self.at = end;
    }

    /// Zeros up to the next multiple of `to` (a power of two).
    #[inline]
    pub fn pad(&mut self, to: usize) {
        let over = self.at & to.wrapping_sub(1);
        if over != 0 {
            self.zeros(to.wrapping_sub(over));
        }
    }

    /// What was written so far, or `None` if it did not fit: for checksums.
    #[inline]
    #[must_use]
    pub fn written(&self) -> Option<&[u8]> {
        self.buffer.get(..self.at)
    }

    /// Overwrites bytes already written, at `at`; outside of them it does nothing.
    #[inline]
    pub fn patch(&mut self, at: usize, bytes: &[u8]) {
        let end = at.saturating_add(bytes.len());
        if end <= self.at
            && let Some(room) = self.buffer.get_mut(at..).and_then(|rest| rest.get_mut(..bytes.len()))
        {
            room.copy_from_slice(bytes);
        }
    }

    /// Bytes written, or how many would have been needed.
    #[inline]
    pub const fn finish(self) -> Result<usize, EmitError> {
        if self.at <= self.buffer.len() { Ok(self.at) } else { Err(EmitError::NoRoom { need: self.at }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reader_says_what_and_where() {
        let mut reader = Reader::new(&[1, 2, 0, 3]);
        assert_eq!(reader.u8("a"), Ok(1));
        assert_eq!(reader.u16("b"), Ok(2));
        assert_eq!(reader.u32("c"), Err(ParseError::new("c", 3, Fault::Truncated)));
        assert_eq!(reader.end("d"), Err(ParseError::new("d", 3, Fault::Length)));
        assert_eq!(reader.zeros("e", 1), Err(ParseError::new("e", 3, Fault::NotZero)));
        assert_eq!(reader.end("d"), Ok(()));
    }

    #[test]
    fn writer_counts_past_the_end_and_never_writes_there() {
        let mut buffer = [0xAA; 4];
        let mut writer = Writer::new(&mut buffer);
        writer.u16(0x0102);
        writer.pad(4);
        writer.u64(7);
        assert_eq!(writer.finish(), Err(EmitError::NoRoom { need: 12 }));
        assert_eq!(buffer, [2, 1, 0, 0]);
    }

    #[test]
    fn fixed_fields_stand_where_the_table_says() {
        let mut bytes = [0xAA; 8];
        put_u16::<1, 8>(&mut bytes, 0x0203);
        put_u32::<3, 8>(&mut bytes, 0x0405_0607);
        assert_eq!(bytes, [0xAA, 3, 2, 7, 6, 5, 4, 0xAA]);
        assert_eq!(u16_at::<1, 8>(&bytes), 0x0203);
        assert_eq!(u32_at::<3, 8>(&bytes), 0x0405_0607);
        assert_eq!(u8_at::<7, 8>(&bytes), 0xAA);
    }
}
