//! What the fleet keeps per device: one slot of storage, and one more ([`super::TrackSlot`]) for each log it has got something of.

use wire_format::frame::{bye, header, hello, part, reject};
use wire_format::ids::NodeId;
use wire_format::time::Instant;

use super::address::Address;
use super::list::{Link, NONE};
use super::log::PerLog;
use super::parts::Transfer;
use super::resume::Suspicion;
use super::track::{Track, Tracks};
use super::view::Tally;
use crate::ended::Ended;
use crate::mark::Mark;

/// Which list a link of a device belongs to.
pub(crate) mod link {
    /// Something can be written.
    pub(crate) const READY: usize = 0;
    /// The timer wheel.
    pub(crate) const TIMER: usize = 1;
    /// Waiting for a dial; or free.
    pub(crate) const QUEUE: usize = 2;
    /// An outcome waits for its SETTLED: of open sessions, which wait for no dial.
    pub(crate) const SETTLE: usize = QUEUE;
    /// The driver has a connection to close: it is settled with no more, and not dialled yet.
    pub(crate) const CLOSE: usize = QUEUE;
    /// Events to tell: the end of a session, outcomes in doubt, the outcomes of a removal.
    pub(crate) const TELL: usize = 3;
    pub(crate) const COUNT: usize = 4;
}

/// Where a device stands.
///
/// ```text
/// Free ─add─▶ Idle ─due─▶ Queued ─poll_dial─▶ Dialling ─handle_connected─▶ Greeting ─WELCOME─▶ Open
///              ▲                                 │                            │                 │
///              └───────── backoff ── Closing ◀───┴──────────── Ending ◀───────┴─────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// No device.
    Free,
    /// No connection; the timer says when to dial.
    Idle,
    /// Waiting for its turn to be dialled.
    Queued,
    /// The driver dials.
    Dialling,
    /// Connected; HELLO goes out, WELCOME must come.
    Greeting,
    /// The session is open.
    Open,
    /// Over; a last frame goes out first.
    Ending,
    /// Over; the driver must close the connection.
    Closing,
    /// Removed; its orders come to their end, then the slot is free.
    Leaving,
}

/// Bits of [`DeviceSlot::flags`].
pub(crate) mod flag {
    /// The last write was cut: nothing more until `handle_writable`.
    pub(crate) const BLOCKED: u32 = 1 << 0;
    /// Silent for too long: no new orders.
    pub(crate) const SUSPECT: u32 = 1 << 1;
    /// The device asked for no new orders.
    pub(crate) const DRAINING: u32 = 1 << 2;
    /// Orders of an earlier boot have to end as in doubt before anything new is sent.
    pub(crate) const DOUBT: u32 = 1 << 3;
    /// Orders at or below a floor wait for the outcome the device repeats.
    pub(crate) const REPEATS: u32 = 1 << 4;
    /// It answered once: it is dialled before those that never did.
    pub(crate) const KNOWN: u32 = 1 << 5;
    /// It has an address.
    pub(crate) const ADDRESSED: u32 = 1 << 6;
    /// The address changed while another one was dialled.
    pub(crate) const REDIAL: u32 = 1 << 7;
    /// A PING is unanswered.
    pub(crate) const PINGED: u32 = 1 << 8;
    /// The end of a session has to be told.
    pub(crate) const ENDED: u32 = 1 << 9;
    /// Removed from the fleet.
    pub(crate) const REMOVED: u32 = 1 << 10;
    /// A session is open or was, this connection.
    pub(crate) const OPENED: u32 = 1 << 11;
    /// Its address was only announced: nobody listed it, and no session was there.
    pub(crate) const ANNOUNCED: u32 = 1 << 12;
    /// This side is about to leave: no new orders, BYE when nothing is out there any more.
    pub(crate) const LEAVING: u32 = 1 << 13;
    /// Of `DOUBT`: nobody knows what became of these orders. Else they were cancelled before their start.
    pub(crate) const FORGOT: u32 = 1 << 14;
    /// It obeys another server: what it is owed ends, and the event has to be told.
    pub(crate) const FENCED: u32 = 1 << 16;
    /// Its last session ended soon after it opened.
    pub(crate) const SHORT: u32 = 1 << 17;
    /// An order seems to bring it down: one at a time until one has ended.
    pub(crate) const NARROW: u32 = 1 << 18;
    /// The dial under way counts among those to strangers.
    pub(crate) const STRANGER: u32 = 1 << 19;
    /// An order that is owed again was begun in an earlier boot: it cannot be withdrawn.
    pub(crate) const BEGUN: u32 = 1 << 15;
    /// As `FORGOT`, of the durable log.
    pub(crate) const FORGOT_DURABLE: u32 = 1 << 20;
    /// The beginning of its session has to be told, for the durable log.
    pub(crate) const TRACE: u32 = 1 << 21;
    /// It was, and so will be its end.
    pub(crate) const TRACED: u32 = 1 << 22;
    /// It has seen what the durable log never gave; that has to be told.
    pub(crate) const FORKED: u32 = 1 << 23;
    /// It named the volatile log in its WELCOME, in this boot.
    pub(crate) const NAMED: u32 = 1 << 25;
    /// The same of the durable log, or it was sent some of that in an earlier run of this server.
    pub(crate) const NAMED_DURABLE: u32 = 1 << 26;
    /// The fence was raised since its last session: it may have served another server, and forgotten the volatile log.
    pub(crate) const RAISED: u32 = 1 << 27;
    /// A PING is to be answered before anything is taken for forgotten: what the device has to repeat is in writing then.
    pub(crate) const ECHO: u32 = 1 << 28;
    /// The one after it: then it has come.
    pub(crate) const ECHO_AGAIN: u32 = 1 << 29;
    /// Both were answered in this session.
    pub(crate) const ECHOED: u32 = 1 << 30;
    /// It does not know any more what it told of the durable log; that has to be told.
    pub(crate) const JOURNAL_LOST: u32 = 1 << 24;
}

/// Bits of [`DeviceSlot::due`]: control frames to write, in the order of their bits.
pub(crate) mod due {
    pub(crate) const HELLO: u16 = 1 << 0;
    pub(crate) const PONG: u16 = 1 << 1;
    /// Every SETTLED that is not written yet, now.
    pub(crate) const SETTLED: u16 = 1 << 2;
    pub(crate) const PING: u16 = 1 << 3;
    pub(crate) const FAREWELL: u16 = 1 << 4;
    /// Orders out there were cancelled and the device was not told: see [`DeviceSlot::cancel_told`].
    pub(crate) const CANCEL: u16 = 1 << 5;
    /// This side leaves, at [`super::Fleet::drain`]'s time at the latest.
    pub(crate) const DRAIN: u16 = 1 << 6;
    /// A question or an answer.
    pub(crate) const POST: u16 = 1 << 7;
}

/// The last frame of a session that this side ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Farewell {
    Reject(reject::Code),
    Bye(bye::Code),
}

/// Bytes of the largest control frame that is carried over a cut write: SETTLED and REJECT. (HELLO is made again.)
pub(crate) const CARRY: usize = 28;

/// A frame of which the first bytes left and the rest did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Partial {
    None,
    /// Made again from the configuration and the heads of the logs it stated.
    Hello {
        offset: u16,
        heads: PerLog,
    },
    Control {
        bytes: [u8; CARRY],
        len: u8,
        offset: u8,
    },
    /// The order is pinned in its slot; `was` is its mark before, for the case that the rest never leaves.
    Order {
        slot: u32,
        offset: u32,
        header: [u8; header::LEN],
        was: Mark,
    },
    /// The order is pinned in its slot.
    Piece {
        slot: u32,
        piece: u16,
        offset: u32,
    },
    /// The entry of the posts stays until the rest has left.
    Post {
        post: u8,
        offset: u32,
    },
}

/// Storage for one device. Hand the fleet as many as there may be devices; fill them with [`DeviceSlot::EMPTY`].
#[derive(Clone, Debug)]
pub struct DeviceSlot {
    pub(crate) links: [Link; link::COUNT],
    pub(crate) partial: Partial,
    /// First device of this hash bucket, and the next one in the chain this device is in.
    pub(crate) bucket: u32,
    pub(crate) chain: u32,
    /// Its [`super::TrackSlot`]s, or NONE: of the volatile log, and of the durable one.
    pub(crate) logs_at: [u32; 2],
    pub(crate) state: State,
    /// The set of tracks that may not be [`TrackState::is_quiet`]: the others are not looked at.
    pub(crate) busy: u8,
    /// The set of tracks in which orders are owed.
    pub(crate) owing: u8,
    /// Of the durable log, the set of tracks in which an order was logged before one ahead of it.
    pub(crate) skewed: u8,
    /// Orders that ended in this session and are not logged.
    pub(crate) waiting: u16,
    /// Orders of the durable log that ended before they were written ([`Mark::is_unsaid`]): until the log has that, nothing
    /// that may stand behind one of them is written. After a crash such an order would be sent, behind its time.
    pub(crate) unsaid: u16,
    /// Beginnings of sessions that were told and are not in the log yet: until then nothing of the durable log is written.
    pub(crate) untraced: u32,
    pub(crate) due: u16,
    pub(crate) flags: u32,
    /// What its WELCOME declared: bits of [`wire_format::frame::hello::feature`].
    pub(crate) features: u8,
    /// The large payload under way to it.
    pub(crate) transfer: Transfer,
    /// Failed or short-lived connections in a row.
    pub(crate) attempts: u8,
    pub(crate) window_orders: u16,
    pub(crate) window_bytes: u32,
    pub(crate) max_body: u32,
    /// Bytes of orders written and not acknowledged.
    pub(crate) bytes: u32,
    /// Of orders that are out there, those cancelled up to this one ([`super::OrderSlot`]'s `cancel_seq`) were named in a
    /// CANCEL of this session, or before it began.
    pub(crate) cancel_told: u32,
    /// Orders whose last attempt ended and which are tried again.
    pub(crate) retried: u16,
    pub(crate) tally: Tally,
    pub(crate) suspicion: Suspicion,
    /// Token of the PING to answer, and of ours.
    pub(crate) pong_token: u32,
    pub(crate) ping_token: u32,
    pub(crate) tick: u64,
    /// Since when any frame of the peer is due (a PONG, or room for the rest of a cut write), in time this side was awake;
    /// `NEVER` if none is.
    pub(crate) await_since: Instant,
    /// Since when orders are written and no receipt of one came, in time this side was awake; `NEVER` if none is out.
    pub(crate) receipt_since: Instant,
    /// When this side wrote last.
    pub(crate) wrote_at: Instant,
    /// When the state was entered, in time this side was awake.
    pub(crate) since: Instant,
    /// When the SETTLED of the first waiting outcome has to leave.
    pub(crate) settle_at: Instant,
    /// When it was dialled last (`NEVER`: not yet), and, idle, when it may be dialled again. With an open session: when it
    /// gets orders again if it announced its end and is still there.
    pub(crate) dialled_at: Instant,
    pub(crate) dial_at: Instant,
    /// Its boot. Of a freed slot: it may be used again when every order up to this number is over.
    pub(crate) boot: u64,
    pub(crate) id: NodeId,
    pub(crate) address: Address,
    pub(crate) farewell: Farewell,
    pub(crate) why: Ended,
}

const _: () = assert!(size_of::<DeviceSlot>() <= 304, "10,000 devices are 3 MB");

impl DeviceSlot {
    /// No device.
    pub const EMPTY: Self = Self {
        busy: 0,
        owing: 0,
        skewed: 0,
        waiting: 0,
        unsaid: 0,
        untraced: 0,
        links: [Link::OUT; link::COUNT],
        partial: Partial::None,
        bucket: NONE,
        chain: NONE,
        logs_at: [NONE; 2],
        state: State::Free,
        due: 0,
        features: 0,
        transfer: Transfer::NONE,
        flags: 0,
        attempts: 0,
        window_orders: 1,
        window_bytes: 0,
        max_body: 0,
        bytes: 0,
        cancel_told: 0,
        retried: 0,
        tally: Tally::ZERO,
        suspicion: Suspicion::NONE,
        pong_token: 0,
        ping_token: 0,
        tick: 0,
        await_since: Instant::NEVER,
        receipt_since: Instant::NEVER,
        wrote_at: Instant::ZERO,
        since: Instant::ZERO,
        settle_at: Instant::NEVER,
        dialled_at: Instant::NEVER,
        dial_at: Instant::NEVER,
        boot: 0,
        id: NodeId::NONE,
        address: Address::NONE,
        farewell: Farewell::Bye(bye::Code::NORMAL),
        why: Ended::Stopped,
    };

    #[inline]
    pub(crate) const fn log_at(&self, durable: bool) -> u32 {
        let [volatile, of_durable] = self.logs_at;
        if durable { of_durable } else { volatile }
    }

    pub(crate) const fn log_at_mut(&mut self, durable: bool) -> &mut u32 {
        let [volatile, of_durable] = &mut self.logs_at;
        if durable { of_durable } else { volatile }
    }

    pub(crate) const fn is(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    pub(crate) const fn set(&mut self, flag: u32, on: bool) {
        if on {
            self.flags |= flag;
        } else {
            self.flags &= !flag;
        }
    }

    /// The tracks that may have something in them, most urgent first.
    #[inline]
    pub(crate) const fn busy(&self) -> Tracks {
        Tracks(self.busy)
    }

    /// Whether any order is owed.
    #[inline]
    pub(crate) const fn is_owed(&self) -> bool {
        self.owing != 0
    }

    /// Whether it takes CANCEL.
    pub(crate) const fn takes_cancel(&self) -> bool {
        self.features as u32 & hello::feature::CANCEL != 0
    }

    /// Whether it takes large payloads in pieces.
    pub(crate) const fn takes_parts(&self) -> bool {
        self.features as u32 & hello::feature::PARTS != 0 && self.max_body as usize >= part::BODY_MAX
    }

    /// Whether the orders of a track that ended are settled in log order: in the durable log they are, if they are logged
    /// so, and in the volatile one nobody looked.
    pub(crate) const fn in_turn(&self, track: Track) -> bool {
        track.is_durable() && self.skewed & track.bit() == 0
    }

    /// Whether orders are written and not acknowledged: each has bytes.
    pub(crate) const fn unacknowledged(&self) -> bool {
        self.bytes != 0
    }

    /// Whether orders may be written to it now, its window aside.
    pub(crate) const fn takes_orders(&self) -> bool {
        matches!(self.state, State::Open)
            && self.flags & (flag::SUSPECT | flag::DRAINING | flag::DOUBT | flag::LEAVING) == 0
    }
}
