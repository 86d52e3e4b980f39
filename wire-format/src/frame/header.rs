//! The 16 bytes every frame on TCP 8081 begins with.
//!
//! Sent by both sides. The header has a checksum of its own, so a length is believed only after it matched, and a
//! stranger (HTTP on 8081) is recognised by its first 16 bytes.
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 4 | length | bytes of the body that follows; at most the receiver's declared limit |
//! | 4 | 1 | kind | see Kinds |
//! | 5 | 1 | flags | see Flags; unknown bits must be zero and are checked |
//! | 6 | 2 | aux16 | meaning by kind; zero and checked where a kind gives it none |
//! | 8 | 4 | aux32 | meaning by kind; zero and checked where a kind gives it none |
//! | 12 | 4 | checksum | CRC-32C of bytes 0 to 12 |

use core::fmt;

use crate::bytes::{put_u8, put_u16, put_u32, u8_at, u16_at, u32_at};
use crate::crc;
use crate::error::{Fault, ParseError};

mod field {
    pub(super) const LENGTH: usize = 0;
    pub(super) const KIND: usize = 4;
    pub(super) const FLAGS: usize = 5;
    pub(super) const AUX16: usize = 6;
    pub(super) const AUX32: usize = 8;
    pub(super) const CHECKSUM: usize = 12;
}

/// Bytes of a frame header.
pub const LEN: usize = 16;
const _: () = assert!(field::CHECKSUM + 4 == LEN);

/// A frame's kind. Unknown numbers are kept: a frame flagged [`Flags::IGNORABLE`] is skipped, others end the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kind(pub u8);

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        impl Kind {
            $($(#[$doc])* pub const $name: Self = Self($number);)*
            /// Every kind of this version and its name in the specification.
            pub const NAMES: &'static [(Self, &'static str)] = &[$((Self::$name, $text)),*];
        }
    };
}

kinds! {
    /// Server to device, the first frame.
    HELLO = 0x01, "HELLO";
    /// Device to server, the answer that opens a session.
    WELCOME = 0x02, "WELCOME";
    /// Either side, instead of opening a session.
    REJECT = 0x03, "REJECT";
    /// Server to device: do this.
    ORDER = 0x10, "ORDER";
    /// Server to device: a piece of a large payload.
    PART = 0x11, "PART";
    /// Server to device: do not do this any more.
    CANCEL = 0x12, "CANCEL";
    /// Device to server: received up to here.
    ACK = 0x20, "ACK";
    /// Device to server: the final results of orders.
    OUTCOME = 0x21, "OUTCOME";
    /// Device to server: the payload of a result.
    RESULT = 0x22, "RESULT";
    /// Device to server: an order is on its way.
    PROGRESS = 0x23, "PROGRESS";
    /// Device to server: new limits of the window.
    WINDOW = 0x24, "WINDOW";
    /// Server to device: outcomes up to here are safe, forget them.
    SETTLED = 0x25, "SETTLED";
    /// Device to server: more of a large payload, from here.
    WANT = 0x26, "WANT";
    /// Either side: a question.
    ASK = 0x28, "ASK";
    /// Either side: its answer.
    REPLY = 0x29, "REPLY";
    /// Server asks what became of orders, device answers.
    STATUS = 0x2A, "STATUS";
    /// Either side: are you there?
    PING = 0x30, "PING";
    /// Either side: I am.
    PONG = 0x31, "PONG";
    /// Either side: I shall leave, send nothing new.
    DRAIN = 0x32, "DRAIN";
    /// Either side: the last frame.
    BYE = 0x33, "BYE";
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(kind, _)| kind == self) {
            Some((_, name)) => f.pad(name),
            None => write!(f, "0x{:02x}", self.0),
        }
    }
}

/// The flag bits of a frame header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u8);

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// A receiver that does not know the kind skips the frame.
    pub const IGNORABLE: Self = Self(0x01);
    /// More frames of this message follow.
    pub const MORE: Self = Self(0x02);
    /// On ORDER: this delivery may be a repetition ("redelivered").
    pub const REPLAY: Self = Self(0x04);
    /// On ORDER, ACK, CANCEL, OUTCOME, SETTLED, STATUS: the durable log is meant, otherwise the volatile one.
    pub const DURABLE: Self = Self(0x08);
    /// On ORDER: the sender waits for a RESULT.
    pub const NEEDS_RESULT: Self = Self(0x10);
    const KNOWN: u8 = 0x1F;

    /// Both sets.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// `self`, with `other` if `on`.
    #[must_use]
    pub const fn with_if(self, other: Self, on: bool) -> Self {
        if on { self.with(other) } else { self }
    }

    /// Whether every flag of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits as on the wire.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }
}

/// A frame header whose checksum and flags were right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the body.
    pub length: u32,
    /// The frame's kind.
    pub kind: Kind,
    /// The flags.
    pub flags: Flags,
    /// Meaning by kind.
    pub aux16: u16,
    /// Meaning by kind.
    pub aux32: u32,
}

impl Header {
    /// A header without flags and with zero aux fields.
    #[must_use]
    pub const fn new(kind: Kind, length: u32) -> Self {
        Self { length, kind, flags: Flags::NONE, aux16: 0, aux32: 0 }
    }

    /// Reads a header: checksum first, then unknown flags. The kind is not judged here.
    #[inline]
    pub fn parse(bytes: &[u8; LEN]) -> Result<Self, ParseError> {
        let [covered @ .., _, _, _, _] = bytes;
        if crc::crc32c_of_12(covered) != u32_at::<{ field::CHECKSUM }, LEN>(bytes) {
            return Err(ParseError::new("checksum", field::CHECKSUM, Fault::Checksum));
        }
        let flags = u8_at::<{ field::FLAGS }, LEN>(bytes);
        if flags & !Flags::KNOWN != 0 {
            return Err(ParseError::new("flags", field::FLAGS, Fault::NotZero));
        }
        Ok(Self {
            length: u32_at::<{ field::LENGTH }, LEN>(bytes),
            kind: Kind(u8_at::<{ field::KIND }, LEN>(bytes)),
            flags: Flags(flags),
            aux16: u16_at::<{ field::AUX16 }, LEN>(bytes),
            aux32: u32_at::<{ field::AUX32 }, LEN>(bytes),
        })
    }

    /// The 16 bytes.
    #[inline]
    #[must_use]
    pub fn emit(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        put_u32::<{ field::LENGTH }, LEN>(&mut bytes, self.length);
        put_u8::<{ field::KIND }, LEN>(&mut bytes, self.kind.0);
        put_u8::<{ field::FLAGS }, LEN>(&mut bytes, self.flags.0);
        put_u16::<{ field::AUX16 }, LEN>(&mut bytes, self.aux16);
        put_u32::<{ field::AUX32 }, LEN>(&mut bytes, self.aux32);
        let [covered @ .., _, _, _, _] = &bytes;
        let checksum = crc::crc32c_of_12(covered);
        put_u32::<{ field::CHECKSUM }, LEN>(&mut bytes, checksum);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VECTOR: [u8; LEN] = [0, 0, 0, 0, 0x30, 0, 0, 0, 0x78, 0x56, 0x34, 0x12, 0x44, 0x8F, 0x62, 0x58];

    fn ping() -> Header {
        Header { aux32: 0x1234_5678, ..Header::new(Kind::PING, 0) }
    }

    #[test]
    fn golden_vector() {
        assert_eq!(ping().emit(), VECTOR);
        assert_eq!(Header::parse(&VECTOR), Ok(ping()));
    }

    #[test]
    fn every_flipped_bit_is_found() {
        for bit in 0..LEN * 8 {
            let mut bytes = VECTOR;
            bytes[bit / 8] ^= 1 << (bit % 8);
            let error = Header::parse(&bytes).unwrap_err();
            assert_eq!(error, ParseError::new("checksum", 12, Fault::Checksum));
        }
    }

    #[test]
    fn unknown_flags_are_refused() {
        let mut header = ping();
        header.flags = Flags(0x20);
        assert_eq!(Header::parse(&header.emit()), Err(ParseError::new("flags", 5, Fault::NotZero)));
    }

    proptest::proptest! {
        #[test]
        fn round_trip(length: u32, kind: u8, flags in 0_u8..0x20, aux16: u16, aux32: u32) {
            let header = Header { length, kind: Kind(kind), flags: Flags(flags), aux16, aux32 };
            proptest::prop_assert_eq!(Header::parse(&header.emit()), Ok(header));
        }
    }
}
