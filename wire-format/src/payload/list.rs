//! Lists inside payloads: entries to write, or the bytes of entries that were read.
//!
//! On the wire a list is an 8-byte length in bytes and the entries one after another. The length is in bytes, not in
//! entries, so that a reader without an allocator keeps the list as a slice and walks it when it wants to.

use core::fmt;

use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::codec;
use super::{EntryFault, PayloadError, ValueError};

/// An entry of a list.
pub trait Entry<'a>: Copy + Serialize + Deserialize<'a> {
    /// Every limit of the entry's table.
    fn check(&self) -> Result<(), ValueError>;
}

/// A list of entries. Made from a slice of them, or from a payload's bytes when that is read.
///
/// Two lists are equal when their entries are, however they were made.
#[derive(Clone, Copy)]
pub struct List<'a, T>(Entries<'a, T>);

#[derive(Clone, Copy)]
enum Entries<'a, T> {
    Values(&'a [T]),
    Encoded(&'a [u8]),
}

impl<'a, T: Entry<'a>> List<'a, T> {
    /// The list of `entries`.
    #[must_use]
    pub const fn new(entries: &'a [T]) -> Self {
        Self(Entries::Values(entries))
    }

    /// The entries in their order. Of a list that was read they are read again here, one by one.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = T> + use<'a, T> {
        let mut rest = self.0;
        core::iter::from_fn(move || match &mut rest {
            Entries::Values(values) => {
                let (first, tail) = values.split_first()?;
                *values = tail;
                Some(*first)
            }
            Entries::Encoded(bytes) => {
                let (entry, used) = codec::decode_prefix(bytes).ok()?;
                *bytes = bytes.get(used..).filter(|_| used > 0)?;
                Some(entry)
            }
        })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self.0 {
            Entries::Values(values) => values.len(),
            Entries::Encoded(_) => self.iter().count(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        match self.0 {
            Entries::Values(values) => values.is_empty(),
            Entries::Encoded(bytes) => bytes.is_empty(),
        }
    }

    /// Every entry is well-formed and within its limits, and there are at most `limit`.
    pub(super) fn check(&self, field: &'static str, limit: usize) -> Result<(), PayloadError> {
        match self.0 {
            Entries::Values(values) => {
                super::value::size(field, values.len(), limit)?;
                let mut entries = values.iter().enumerate();
                entries.try_for_each(|(index, entry)| {
                    entry.check().map_err(|error| entry_error(field, index, error.into()))
                })
            }
            Entries::Encoded(bytes) => check_encoded::<T>(field, bytes, limit),
        }
    }
}

const fn entry_error(field: &'static str, index: usize, fault: EntryFault) -> PayloadError {
    PayloadError::Entry { field, index, fault }
}

fn check_encoded<'a, T: Entry<'a>>(
    field: &'static str,
    bytes: &'a [u8],
    limit: usize,
) -> Result<(), PayloadError> {
    let (mut rest, mut index) = (bytes, 0_usize);
    while !rest.is_empty() {
        if index >= limit {
            return Err(ValueError::TooLarge { field, limit }.into());
        }
        let start = bytes.len().saturating_sub(rest.len());
        let fault = |error| entry_error(field, index, entry_fault(error, start));
        let (entry, used) = codec::decode_prefix::<T>(rest).map_err(fault)?;
        entry.check().map_err(|error| fault(error.into()))?;
        // An entry takes bytes, or this would not end; what takes none is no entry.
        let Some(tail) = rest.get(used..).filter(|_| used > 0) else {
            return Err(fault(PayloadError::Truncated { at: 0 }));
        };
        rest = tail;
        index = index.saturating_add(1);
    }
    Ok(())
}

const fn entry_fault(error: PayloadError, start: usize) -> EntryFault {
    match error {
        PayloadError::Value(error) => EntryFault::Value(error),
        PayloadError::Text { at } | PayloadError::Bool { at, .. } | PayloadError::Variant { at } => {
            EntryFault::Malformed { at: start.saturating_add(at) }
        }
        PayloadError::Truncated { at } => EntryFault::Truncated { at: start.saturating_add(at) },
        _ => EntryFault::Truncated { at: start },
    }
}

impl<T> Default for List<'_, T> {
    fn default() -> Self {
        Self(Entries::Values(&[]))
    }
}

impl<'a, T: Entry<'a> + PartialEq> PartialEq for List<'a, T> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<'a, T: Entry<'a> + Eq> Eq for List<'a, T> {}

impl<'a, T: Entry<'a> + fmt::Debug> fmt::Debug for List<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<T: Serialize> Serialize for List<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Entries::Encoded(bytes) => serializer.serialize_bytes(bytes),
            // A tuple has nothing around its parts, so this is the length and then the entries.
            Entries::Values(values) => {
                let len: usize = values.iter().map(codec::encoded_len).sum();
                let mut tuple = serializer.serialize_tuple(values.len().saturating_add(1))?;
                tuple.serialize_element(&(len as u64))?;
                values.iter().try_for_each(|value| tuple.serialize_element(value))?;
                tuple.end()
            }
        }
    }
}

impl<'de: 'a, 'a, T> Deserialize<'de> for List<'a, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&'a [u8]>::deserialize(deserializer).map(|bytes| Self(Entries::Encoded(bytes)))
    }
}
