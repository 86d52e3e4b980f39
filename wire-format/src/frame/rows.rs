//! Lists of equal rows inside a body: judged once when parsed, decoded again row by row, never copied.

use core::fmt;

use crate::bytes::{Reader, Writer};
use crate::error::{EmitError, Fault, ParseError};

/// One row of `N` bytes.
pub trait Row<const N: usize>: Copy + fmt::Debug + PartialEq {
    /// Reads a row. Offsets of errors count from the row's first byte.
    fn parse(bytes: &[u8; N]) -> Result<Self, ParseError>;

    /// The row's bytes.
    fn emit(&self) -> [u8; N];

    /// Whether `parse` would take what `emit` gives.
    fn check(&self) -> Result<(), EmitError> {
        Self::parse(&self.emit()).map(|_| ()).map_err(|error| EmitError::Invalid { field: error.field })
    }
}

/// A list of rows: borrowed from a body that was judged whole, or from the caller's values for `emit`.
#[derive(Clone, Copy)]
pub struct Rows<'a, T, const N: usize>(Source<'a, T, N>);

#[derive(Clone, Copy)]
enum Source<'a, T, const N: usize> {
    Bytes(&'a [[u8; N]]),
    Values(&'a [T]),
}

impl<'a, T: Row<N>, const N: usize> Rows<'a, T, N> {
    /// No rows.
    pub const EMPTY: Self = Self(Source::Values(&[]));

    /// Reads every row of `bytes`, which start at `offset` of the frame and must be whole rows.
    pub(crate) fn parse(bytes: &'a [u8], offset: usize) -> Result<Self, ParseError> {
        let (rows, []) = bytes.as_chunks::<N>() else {
            return Err(ParseError::new("length", 0, Fault::Length));
        };
        let mut at = offset;
        for row in rows {
            T::parse(row).map_err(|error| error.shifted(at))?;
            at = at.wrapping_add(N);
        }
        Ok(Self(Source::Bytes(rows)))
    }

    /// Rows in the list.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self.0 {
            Source::Bytes(rows) => rows.len(),
            Source::Values(values) => values.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows in their order.
    #[must_use]
    pub fn iter(&self) -> Iter<'a, T, N> {
        match self.0 {
            Source::Bytes(rows) => Iter(Cursor::Bytes(rows.iter())),
            Source::Values(values) => Iter(Cursor::Values(values.iter())),
        }
    }

    /// Every row can be written.
    pub(crate) fn check(&self) -> Result<(), EmitError> {
        self.iter().try_for_each(|row| row.check())
    }

    /// Writes the rows.
    pub(crate) fn emit(&self, writer: &mut Writer<'_>) {
        self.iter().for_each(|row| writer.bytes(&row.emit()));
    }
}

impl<'a, T, const N: usize> From<&'a [T]> for Rows<'a, T, N> {
    fn from(values: &'a [T]) -> Self {
        Self(Source::Values(values))
    }
}

impl<'a, T, const N: usize, const LEN: usize> From<&'a [T; LEN]> for Rows<'a, T, N> {
    fn from(values: &'a [T; LEN]) -> Self {
        Self(Source::Values(values))
    }
}

impl<T: Row<N>, const N: usize> PartialEq for Rows<'_, T, N> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<T: Row<N> + Eq, const N: usize> Eq for Rows<'_, T, N> {}

impl<T: Row<N>, const N: usize> fmt::Debug for Rows<'_, T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a, T: Row<N>, const N: usize> IntoIterator for Rows<'a, T, N> {
    type Item = T;
    type IntoIter = Iter<'a, T, N>;

    fn into_iter(self) -> Iter<'a, T, N> {
        self.iter()
    }
}

/// Bytes of an order number as a row.
pub const NUMBER_LEN: usize = 8;

/// Order numbers, each never 0.
pub type Numbers<'a> = Rows<'a, u64, NUMBER_LEN>;

impl Row<NUMBER_LEN> for u64 {
    fn parse(bytes: &[u8; NUMBER_LEN]) -> Result<Self, ParseError> {
        super::parse_number(&mut Reader::new(bytes))
    }

    fn emit(&self) -> [u8; NUMBER_LEN] {
        self.to_le_bytes()
    }
}

/// Decodes the rows of a [`Rows`] one by one.
#[derive(Clone, Debug)]
pub struct Iter<'a, T, const N: usize>(Cursor<'a, T, N>);

#[derive(Clone, Debug)]
enum Cursor<'a, T, const N: usize> {
    Bytes(core::slice::Iter<'a, [u8; N]>),
    Values(core::slice::Iter<'a, T>),
}

impl<T: Row<N>, const N: usize> Iterator for Iter<'_, T, N> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        match &mut self.0 {
            Cursor::Bytes(rows) => T::parse(rows.next()?).ok(),
            Cursor::Values(values) => values.next().copied(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.0 {
            Cursor::Bytes(rows) => rows.size_hint(),
            Cursor::Values(values) => values.size_hint(),
        }
    }
}

impl<T: Row<N>, const N: usize> ExactSizeIterator for Iter<'_, T, N> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_from_values_and_from_bytes_are_the_same() {
        let values = Numbers::from(&[7, 0x0102_0304_0506_0708]);
        let mut bytes = [0; 16];
        values.emit(&mut Writer::new(&mut bytes));
        let rows = Numbers::parse(&bytes, 16).unwrap();
        assert_eq!(rows, values);
        assert_eq!((rows.len(), rows.is_empty(), rows.iter().len()), (2, false, 2));
        assert_eq!(format!("{rows:?}"), "[7, 72623859790382856]");
        assert!(Numbers::EMPTY.is_empty());
        assert_ne!(rows, Numbers::EMPTY);
    }

    #[test]
    fn a_wrong_row_is_named_by_its_place_and_half_a_row_by_the_length() {
        let bytes = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(Numbers::parse(&bytes, 16), Err(ParseError::new("number", 24, Fault::Range)));
        assert_eq!(Numbers::parse(&bytes[..12], 16), Err(ParseError::new("length", 0, Fault::Length)));
        assert_eq!(Numbers::from(&[1, 0]).check(), Err(EmitError::Invalid { field: "number" }));
    }
}
