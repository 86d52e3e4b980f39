//! Why a session ended, and by whose fault. Shared by both halves.

use wire_format::error::ParseError;
use wire_format::frame::{Kind, bye, reject};
use wire_format::ids::NodeId;

/// Why a session, or the attempt at one, is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Ended {
    /// The peer sent bytes that are no frame, or a frame that breaks the layout.
    #[error("the peer sent broken bytes: {0}")]
    Broken(ParseError),
    /// The peer sent a right frame at a wrong time.
    #[error("the peer sent a {0} where none belongs")]
    Unexpected(Kind),
    /// The peer sent more orders than the window this side declared.
    #[error("the peer sent more orders than the window allows")]
    WindowExceeded,
    /// The device has no room for the outcome of an order: outcomes of earlier sessions, owed to this server or to another
    /// one, take it all. It comes again once some are settled.
    #[error("no room for the outcome of an order while those of earlier sessions are not settled")]
    NoRoom,
    /// The peer refused the session with a REJECT.
    #[error("the peer refused the session: {code}")]
    Rejected {
        /// The code of the REJECT.
        code: reject::Code,
        /// Milliseconds the peer asks us to stay away; 0 none.
        retry_after_ms: u32,
        /// What the code defines.
        detail: u64,
    },
    /// This side refused the session with a REJECT of this code.
    #[error("refused: {code}")]
    Refused {
        /// The code of the REJECT.
        code: reject::Code,
    },
    /// Another device answers at this address. No order byte went there.
    #[error("device {found} answers at this address")]
    WrongDevice {
        /// Who answered.
        found: NodeId,
    },
    /// The device that answered is in the fleet already, under another index, which keeps it.
    #[error("the device that answered is in the fleet already, as number {first}")]
    DuplicateDevice {
        /// The index that keeps the id.
        first: u32,
    },
    /// The device's floors lie above everything the log ever held: it belongs to another history.
    #[error("the peer has seen order numbers this log never gave")]
    FloorAhead,
    /// The first frame did not come in time.
    #[error("no handshake in time")]
    HandshakeTimeout,
    /// No connection in time.
    #[error("no connection in time")]
    DialTimeout,
    /// Nothing was heard for the time that makes a peer dead.
    #[error("nothing heard in time")]
    Dead,
    /// This side was not run for so long that what lies unread may be stale (a freeze, a sleep).
    #[error("this side stood still for too long")]
    Frozen,
    /// A newer session of the same peer took its place.
    #[error("a newer session took its place")]
    Replaced,
    /// The transport is gone.
    #[error("the connection closed: {0}")]
    Closed(Closed),
    /// The peer said BYE.
    #[error("the peer said goodbye: {code}")]
    Bye {
        /// The code of the BYE.
        code: bye::Code,
        /// Milliseconds the peer asks us to stay away; 0 none.
        retry_after_ms: u32,
    },
    /// This side stops.
    #[error("this side stops")]
    Stopped,
    /// This side greets anew: it took the shop over, or began another durable log.
    #[error("this side greets anew")]
    Renewed,
    /// The device was removed from the fleet.
    #[error("the device was removed")]
    Removed,
    /// The device cannot write down what it must not forget.
    #[error("the journal did not take a write")]
    JournalFailed,
    /// The driver reported bytes written that were not planned: what left is not known.
    #[error("the driver lost track of what it wrote")]
    LostTrack,
}

/// Whose fault an end is: what to look at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Nobody's: it was meant to end.
    Nobody,
    /// The other side broke a rule or is not who it should be.
    Peer,
    /// The network, or a peer that is switched off.
    Network,
    /// This side.
    Ours,
}

impl Ended {
    /// Whose fault it is.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::Bye { .. } | Self::Stopped | Self::Renewed | Self::Removed | Self::Replaced => {
                Fault::Nobody
            }
            Self::Broken(_)
            | Self::Unexpected(_)
            | Self::WindowExceeded
            | Self::Rejected { .. }
            | Self::Refused { .. }
            | Self::WrongDevice { .. }
            | Self::DuplicateDevice { .. }
            | Self::FloorAhead => Fault::Peer,
            Self::HandshakeTimeout | Self::DialTimeout | Self::Dead | Self::Closed(_) => Fault::Network,
            Self::Frozen | Self::LostTrack | Self::JournalFailed | Self::NoRoom => Fault::Ours,
        }
    }

    /// A stable lower-case word for logs and counters.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Broken(_) => "broken",
            Self::Unexpected(_) => "unexpected",
            Self::WindowExceeded => "window-exceeded",
            Self::Rejected { .. } => "rejected",
            Self::Refused { .. } => "refused",
            Self::WrongDevice { .. } => "wrong-device",
            Self::DuplicateDevice { .. } => "duplicate-device",
            Self::FloorAhead => "floor-ahead",
            Self::HandshakeTimeout => "handshake-timeout",
            Self::DialTimeout => "dial-timeout",
            Self::Dead => "dead",
            Self::Frozen => "frozen",
            Self::Replaced => "replaced",
            Self::Closed(_) => "closed",
            Self::Bye { .. } => "bye",
            Self::Stopped => "stopped",
            Self::Renewed => "renewed",
            Self::Removed => "removed",
            Self::LostTrack => "lost-track",
            Self::JournalFailed => "journal-failed",
            Self::NoRoom => "no-room",
        }
    }
}

/// What a driver saw of a connection that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Closed {
    /// The peer closed its side.
    #[error("by the peer")]
    Eof,
    /// Reset by the peer or on the way.
    #[error("reset")]
    Reset,
    /// The kernel gave up on unacknowledged bytes.
    #[error("timed out")]
    TimedOut,
    /// Anything else the system reported.
    #[error("failed")]
    Failed,
}

/// Why a dial failed: it decides how soon the next one comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DialError {
    /// The host is there and nobody listens: the application restarts, so try again soon.
    #[error("refused")]
    Refused,
    /// No answer in time.
    #[error("timed out")]
    TimedOut,
    /// No way there.
    #[error("unreachable")]
    Unreachable,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_says_what_and_whose_fault() {
        let ended = Ended::WrongDevice { found: NodeId([7; 16]) };
        assert_eq!(ended.fault(), Fault::Peer);
        assert_eq!(ended.name(), "wrong-device");
        assert_eq!(Ended::Closed(Closed::Reset).to_string(), "the connection closed: reset");
        assert!(size_of::<Ended>() <= 32, "it is kept in every device's slot");
    }
}
