//! How a fleet behaves, and the limits of both halves with their reasons.

use core::time::Duration;

use wire_format::ids::{Lineage, NodeId, Store};

pub use crate::runs::{LogId, Runs};

/// TCP port a device listens on.
pub const PORT: u16 = 8081;
/// A device with this many live orders that have no outcome gets OVERFLOW for each further one: it must not fill the table for others.
pub const OWED_MAX: u16 = 4_096;
/// The longest lifetime of an order: 30 days.
pub const LIFETIME_MAX: Duration = Duration::from_secs(30 * 86_400);
/// Largest body the server accepts by default: ASK and REPLY with 4,096 bytes of payload; drivers keep a tail of this.
pub const BODY_MAX: u32 = 4_120;
/// Bytes of scratch a driver gives to `poll_transmit` at least: a HELLO and every other control frame fit.
pub const SCRATCH_MIN: usize = 1_024;
/// Frames in one write at most: enough to make the system call's cost small.
pub const PLAN_MAX: usize = 64;

/// Questions of both sides and their answers under way at a time, with all devices together: a table of 16 KiB.
pub const POSTS_MAX: usize = 256;
/// Questions open at a time with one device, each way: who has more to ask asks later.
pub const QUESTIONS_MAX: u8 = 4;
/// Of [`POSTS_MAX`], questions of devices that wait for their answer; the next ones are answered "busy".
pub const ANSWERS_MAX: u16 = 128;
/// Of [`POSTS_MAX`], answers "busy" that wait to be written; further questions are not heard. The server's own questions
/// always have the rest.
pub const REFUSALS_MAX: u16 = 64;
/// The longest a question is kept open, whatever it says itself: somebody waits for the answer.
pub const ASK_WITHIN_MAX: Duration = Duration::from_secs(60);
/// A device answers STATUS at once, or not at all.
pub const STATUS_WITHIN: Duration = Duration::from_secs(5);

/// WELCOME must come within this time of the connection.
pub const WELCOME_WITHIN: Duration = Duration::from_secs(3);
/// A dial that was not reported in this time is given up by the core itself; the driver's own limit is 1.5 s.
pub const DIAL_GUARD: Duration = Duration::from_secs(5);
/// A farewell that cannot be written in this time is not written.
pub const FAREWELL_WITHIN: Duration = Duration::from_secs(1);
/// Connect timeout of a driver: a dead host takes 3 s of address resolution, a living one milliseconds.
pub const CONNECT_WITHIN: Duration = Duration::from_millis(1_500);
/// Dials started per second at most: 10,000 devices are back in 5 s, and no SYN burst fills a switch.
pub const DIALS_PER_S: u32 = 2_000;
/// Of these, to addresses that were only announced: whoever forges announces makes a server no port scanner. A device from
/// the list, or at the address of its last session, is not held up by them.
pub const ANNOUNCED_DIALS_PER_S: u32 = 200;
/// Dials and handshakes under way at most.
pub const HALF_OPEN_MAX: u32 = 512;
/// Of these, to devices that never answered, or not at this address: dead addresses must not slow living devices.
pub const STRANGERS_MAX: u32 = 128;
/// First step of the backoff between dials; it doubles with each failure, with full jitter.
pub const BACKOFF_STEP: Duration = Duration::from_millis(200);
/// Longest backoff when nobody answers.
pub const BACKOFF_MAX: Duration = Duration::from_secs(15);
/// Longest backoff when the host refused: it is up, and its application restarts.
pub const BACKOFF_REFUSED_MAX: Duration = Duration::from_secs(2);
/// Longest backoff after a REJECT or a wrong device: only a person changes that.
pub const BACKOFF_REJECTED_MAX: Duration = Duration::from_secs(60);
/// An announce makes the server dial at once, but not more often than this per device.
pub const REDIAL_MIN: Duration = Duration::from_secs(1);
/// A session this old proves the device stable: the backoff starts anew. (Reset at connect makes endless loops.)
pub const STABLE_AFTER: Duration = Duration::from_secs(30);
/// A timer that comes later than this means that this side stood still: deadlines of peers move by the gap.
pub const PAUSE_MIN: Duration = Duration::from_millis(500);
/// A header is sent as it was encoded for at most this long after submit: the lifetime it states is that much too long.
pub const FRESH_MAX: Duration = Duration::from_millis(100);
/// A device that announced its end and does not leave gets orders again after what it said, and after this at most.
pub const DRAIN_MAX: Duration = Duration::from_secs(600);
/// A server that leaves waits this long at most for the outcomes of what is out there: a restart must not take longer.
pub const DRAIN_WITHIN_MAX: Duration = Duration::from_secs(5);
/// A device that is in another boot so soon after its session opened may have been brought down by an order.
pub const POISON_WITHIN: Duration = Duration::from_secs(60);
/// Sessions in a row that end so with the same order first unfinished: it ends as POISON. One is bad luck, two are worth a
/// window of one order, three are proof enough.
pub const POISON_SESSIONS: u8 = 3;
/// Runs of the durable log a device's floor is checked against: a server opened daily is known for a month, in half a KiB.
pub const RUNS_KEPT: usize = 32;
/// An outcome the device owes from an earlier session comes within this time of the WELCOME, or its order is sent again.
pub const REPEAT_WITHIN: Duration = Duration::from_secs(2);

/// What a [`crate::Fleet`] is and how it paces. Times are the protocol's defaults; change them for tests, not for taste.
#[derive(Clone, Debug)]
pub struct FleetConfig {
    /// The server's id, stable over restarts.
    pub server: NodeId,
    /// The shop: devices of another one refuse.
    pub store: Store,
    /// A test server. Devices of production refuse it, it refuses them.
    pub staging: bool,
    /// The operator says that this server takes over: sent to devices that another server holds.
    pub takeover: bool,
    /// Rises with each takeover; devices refuse a lower one than they have seen.
    pub fence: u64,
    /// Rises at each start of the server.
    pub epoch: u32,
    /// Identity of the volatile log whose numbers are submitted: random at each start.
    pub lineage: Lineage,
    /// Identity of this run of the volatile log: random at each start.
    pub run: u64,
    /// The durable log; `None`: there is none, and an order of it is refused (default). It takes storage of its own:
    /// [`crate::fleet::DeviceTables`].
    pub durable: Option<LogId>,
    /// Largest body accepted from a device, in bytes; at least 1,044 (WELCOME and OUTCOME must fit).
    pub body_max: u32,
    /// Dials started per second at most (default [`DIALS_PER_S`]).
    pub dials_per_s: u32,
    /// Of these, to addresses that were only announced (default [`ANNOUNCED_DIALS_PER_S`]).
    pub announced_dials_per_s: u32,
    /// Dials and handshakes under way at most (default [`HALF_OPEN_MAX`]).
    pub half_open_max: u32,
    /// Of these, to devices that never answered, or not at this address (default [`STRANGERS_MAX`]).
    pub strangers_max: u32,
    /// The application answers questions of devices: declared in HELLO. Without it they are not heard (default).
    pub answers_questions: bool,
    /// Silence of ours that makes a PING due, at most (default 3 s; up to a quarter earlier, by device).
    pub ping_after: Duration,
    /// Silence of a device that should answer which makes it suspect: no new orders, one PING (default 2 s).
    pub suspect_after: Duration,
    /// Silence of a device that should answer which ends its session (default 5 s).
    pub dead_after: Duration,
    /// Silence after a PING to an idle device that makes it dead (default 3 s: known 6 s after its last sign at most).
    pub pong_within: Duration,
    /// SETTLED leaves with the next order or PING, or this long after the outcome (default 4 s, so that the PING comes
    /// first: a packet of its own would cost as much as the order did).
    pub settle_within: Duration,
    /// Time after the end of a lifetime at which a written order without an outcome ends as UNKNOWN (default 7 days).
    pub unknown_after: Duration,
}

impl FleetConfig {
    /// The defaults, for the server `server` of `store` whose volatile log is `lineage`.
    #[must_use]
    pub const fn new(server: NodeId, store: Store, lineage: Lineage) -> Self {
        Self {
            server,
            store,
            staging: false,
            takeover: false,
            fence: 1,
            epoch: 1,
            lineage,
            run: 1,
            durable: None,
            body_max: BODY_MAX,
            dials_per_s: DIALS_PER_S,
            announced_dials_per_s: ANNOUNCED_DIALS_PER_S,
            half_open_max: HALF_OPEN_MAX,
            strangers_max: STRANGERS_MAX,
            answers_questions: false,
            ping_after: Duration::from_secs(3),
            suspect_after: Duration::from_secs(2),
            dead_after: Duration::from_secs(5),
            pong_within: Duration::from_secs(3),
            settle_within: Duration::from_secs(4),
            unknown_after: Duration::from_secs(7 * 86_400),
        }
    }
}
