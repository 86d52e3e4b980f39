//! What can be wrong with bytes, and with a buffer: what, where, and whose fault.

/// The bytes are wrong: their sender is at fault, our state is unchanged.
///
/// `field` names the part of the layout as the specification does, `offset` is where it starts, counted in bytes
/// from the first byte handed to `parse`.
///
/// ```
/// use wire_format::error::{Fault, ParseError};
/// let error = ParseError::new("magic", 0, Fault::Mismatch);
/// assert_eq!(error.to_string(), "magic at byte 0: not the value the protocol fixes here");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} at byte {offset}: {fault}")]
pub struct ParseError {
    /// The field's name in the specification.
    pub field: &'static str,
    /// Bytes from the start of what was parsed.
    pub offset: u32,
    /// What is wrong with it.
    pub fault: Fault,
}

impl ParseError {
    /// An error at `offset` (saturated to 32 bits) in `field`.
    #[must_use]
    pub const fn new(field: &'static str, offset: usize, fault: Fault) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "saturated on the line itself")]
        let offset = if offset > u32::MAX as usize { u32::MAX } else { offset as u32 };
        Self { field, offset, fault }
    }

    /// The same error seen from an enclosing layout that starts `by` bytes earlier.
    #[must_use]
    pub const fn shifted(self, by: usize) -> Self {
        Self::new(self.field, (self.offset as usize).saturating_add(by), self.fault)
    }
}

/// The kinds of fault. One word each, so that a counter per kind is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The bytes end before the field does.
    #[error("the bytes end before it does")]
    Truncated,
    /// A length disagrees with the bytes that are there, or with the kind.
    #[error("a length that does not fit the bytes or the kind")]
    Length,
    /// A fixed value (magic) is another.
    #[error("not the value the protocol fixes here")]
    Mismatch,
    /// A major version this code does not speak.
    #[error("a version this side does not speak")]
    Version,
    /// A checksum disagrees.
    #[error("the checksum does not match")]
    Checksum,
    /// Bits or bytes that must be zero are not.
    #[error("must be zero")]
    NotZero,
    /// A number outside its range.
    #[error("out of range")]
    Range,
    /// A kind of frame, datagram or entry that is not known.
    #[error("an unknown kind")]
    UnknownKind,
    /// An unknown TLV whose critical bit is set.
    #[error("an unknown entry that is marked critical")]
    UnknownCritical,
    /// An entry that may stand once stands twice.
    #[error("repeated")]
    Repeated,
    /// More entries than the limit.
    #[error("more entries than the limit")]
    TooMany,
    /// A text that is not UTF-8, or holds a control character.
    #[error("not clean UTF-8 text")]
    Text,
    /// A required entry is absent.
    #[error("missing")]
    Missing,
    /// An entry in a place the protocol does not allow.
    #[error("not allowed here")]
    Misplaced,
}

impl Fault {
    /// A stable lower-case word for logs and counters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Length => "length",
            Self::Mismatch => "mismatch",
            Self::Version => "version",
            Self::Checksum => "checksum",
            Self::NotZero => "not-zero",
            Self::Range => "range",
            Self::UnknownKind => "unknown-kind",
            Self::UnknownCritical => "unknown-critical",
            Self::Repeated => "repeated",
            Self::TooMany => "too-many",
            Self::Text => "text",
            Self::Missing => "missing",
            Self::Misplaced => "misplaced",
        }
    }
}

/// The value cannot be written: our own caller is at fault. The buffer's content is unspecified afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmitError {
    /// The buffer is shorter than the value needs.
    #[error("the buffer holds fewer than the {need} bytes needed")]
    NoRoom {
        /// Bytes the whole value needs.
        need: usize,
    },
    /// A field is longer or larger than the protocol allows.
    #[error("{field} is over the protocol's limit of {limit}")]
    TooLarge {
        /// The field's name in the specification.
        field: &'static str,
        /// The limit, in the unit of the field.
        limit: usize,
    },
    /// A field holds a value `parse` would refuse.
    #[error("{field} holds a value the protocol does not allow")]
    Invalid {
        /// The field's name in the specification.
        field: &'static str,
    },
}
