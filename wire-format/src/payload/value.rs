//! Limits of single values, and how a breach is told.

use super::{EntryFault, PayloadError};
use crate::error::EmitError;

/// Bytes of a URL: what fits a line of a log and every HTTP server.
pub const URL_MAX: usize = 512;

/// A field holds a value outside its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// Longer or larger than the limit.
    #[error("{field} is over its limit of {limit}")]
    TooLarge {
        /// The field's name in the specification.
        field: &'static str,
        /// The limit, in the unit of the field.
        limit: usize,
    },
    /// Empty, zero, or with characters that do not belong there.
    #[error("{field} holds a value that is not allowed")]
    Invalid {
        /// The field's name in the specification.
        field: &'static str,
    },
}

/// A breach found before writing is our caller's.
pub(super) const fn emit_error(error: PayloadError) -> EmitError {
    match error {
        PayloadError::Value(error) | PayloadError::Entry { fault: EntryFault::Value(error), .. } => {
            match error {
                ValueError::TooLarge { field, limit } => EmitError::TooLarge { field, limit },
                ValueError::Invalid { field } => EmitError::Invalid { field },
            }
        }
        PayloadError::Entry { field, .. } => EmitError::Invalid { field },
        _ => EmitError::Invalid { field: "payload" },
    }
}

/// At most `limit` bytes of text; line breaks and tabs are welcome, other control characters are not.
pub(super) fn text(field: &'static str, text: &str, limit: usize) -> Result<(), ValueError> {
    size(field, text.len(), limit)?;
    let control = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(control) { Err(ValueError::Invalid { field }) } else { Ok(()) }
}

/// At most `limit` bytes of text on one line: no control character.
pub(super) fn line(field: &'static str, text: &str, limit: usize) -> Result<(), ValueError> {
    size(field, text.len(), limit)?;
    if text.contains(char::is_control) { Err(ValueError::Invalid { field }) } else { Ok(()) }
}

/// As [`line()`], and not empty.
pub(super) fn name(field: &'static str, text: &str, limit: usize) -> Result<(), ValueError> {
    require(field, !text.is_empty())?;
    line(field, text, limit)
}

/// A URL: 1 to [`URL_MAX`] bytes of printable ASCII without spaces. Who fetches it judges the rest.
pub(super) fn url(field: &'static str, url: &str) -> Result<(), ValueError> {
    size(field, url.len(), URL_MAX)?;
    require(field, !url.is_empty() && url.bytes().all(|byte| byte.is_ascii_graphic()))
}

/// Three capital letters, as ISO 4217 has them.
pub(super) fn currency(field: &'static str, currency: [u8; 3]) -> Result<(), ValueError> {
    require(field, currency.iter().all(u8::is_ascii_uppercase))
}

/// At most `limit` bytes, entries, seconds …
pub(super) const fn size(field: &'static str, size: usize, limit: usize) -> Result<(), ValueError> {
    if size <= limit { Ok(()) } else { Err(ValueError::TooLarge { field, limit }) }
}

/// As [`size`] for a number on the wire.
pub(super) const fn number(field: &'static str, number: u32, limit: u32) -> Result<(), ValueError> {
    if number <= limit { Ok(()) } else { Err(ValueError::TooLarge { field, limit: limit as usize }) }
}

/// `good` must hold for the field.
pub(super) const fn require(field: &'static str, good: bool) -> Result<(), ValueError> {
    if good { Ok(()) } else { Err(ValueError::Invalid { field }) }
}

/// Bytes of a string or of bytes with `max` bytes inside.
pub(super) const fn string(max: usize) -> usize {
    8 + max
}

/// Bytes of an option whose value takes `max`.
pub(super) const fn option(max: usize) -> usize {
    1 + max
}

/// Bytes as bytes: serde alone would write them as a sequence of numbers, one call each.
pub(super) fn bytes<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// An id as its 16 bytes.
pub(super) mod id {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::ids::NodeId;

    pub(in crate::payload) fn serialize<S: Serializer>(
        id: &NodeId,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        id.0.serialize(serializer)
    }

    pub(in crate::payload) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<NodeId, D::Error> {
        Deserialize::deserialize(from).map(NodeId)
    }
}
