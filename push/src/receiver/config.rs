//! What a receiver is, and its limits with their reasons.

use core::time::Duration;

use wire_format::frame::hello::MAX_BODY_MIN;
use wire_format::frame::welcome::{self, WINDOW_BYTES_MIN};
use wire_format::frame::{header, hello};
use wire_format::ids::{DeviceKind, NodeId, Store, Tags};

use super::fence::Known;

/// A stranger has this long to send a complete HELLO. (HSMS calls it T7 and says 5 to 10 s; a LAN needs less.)
pub const HELLO_WITHIN: Duration = Duration::from_secs(3);
/// When every slot is taken, a newcomer takes the one of the stranger that has been silent longest, if at least this long:
/// a HELLO follows its connection at once, so who waits longer only holds the slot.
pub const SILENT_MAX: Duration = Duration::from_secs(1);
/// Nothing heard of the server for this long ends the session: three of its PINGs are missing, and its lease is over.
pub const DEAD_AFTER: Duration = Duration::from_secs(10);
/// A device that stood still for longer than this (frozen, asleep, a handler that blocked) ends its sessions: what waits
/// unread may be stale, and the server has given the session up.
pub const FROZEN_AFTER: Duration = Duration::from_secs(5);
/// With a connection open the receiver wants to be called this often, so that a gap can be told from a freeze. Its server
/// says something every 3 s: a device that is served is not woken for this.
pub const HEARTBEAT: Duration = Duration::from_millis(3_500);
/// A farewell that cannot be written in this time is not written.
pub const FAREWELL_WITHIN: Duration = Duration::from_secs(1);
/// Bytes a driver buffers of a connection before its HELLO is complete: exactly that HELLO.
pub const HELLO_BYTES: usize = hello::FRAME_LEN;
/// Bytes of scratch that [`super::Receiver::poll_transmit`] needs at least: a WELCOME with an order at work in each lane.
/// With more, more outcomes leave in one write.
pub const SCRATCH_MIN: usize =
    header::LEN + welcome::FIXED_LEN + 4 * welcome::STARTED_LEN + wire_format::frame::CHECKSUM_LEN;
/// Orders in the window by default, for devices with an operating system; firmware takes 2 to 4.
pub const WINDOW_ORDERS: u16 = 16;
/// Bytes in the window by default: one order of the largest size, or hundreds of usual ones; firmware takes 512. A frozen
/// device holds no more of the server's memory.
pub const WINDOW_BYTES: u32 = header::LEN as u32 + MAX_BODY;
/// Largest body by default: an order with a full payload of 64 KiB and options.
pub const MAX_BODY: u32 = wire_format::frame::order::BODY_MAX as u32;
/// Order keys, and supersede keys, that a device with an operating system remembers: 10 KiB for both.
pub const KEYS: usize = 256;
/// Lineages a device with an operating system keeps: the volatile one and four durable ones, so that two servers that take
/// turns, each restored from a backup once, find everything as they left it.
pub const LOGS: usize = 5;
/// Lineages firmware keeps: the volatile one and two durable ones, of the store's server and its predecessor.
pub const LOGS_FIRMWARE: usize = 3;
/// After a write into the journal failed, the next one is tried after this long, and HELLOs are refused until one succeeds.
pub const JOURNAL_RETRY: Duration = Duration::from_secs(2);
/// Bytes of the park of a device with an operating system: an order of the largest size and some hundred usual ones.
pub const PARK_BYTES: usize = 128 << 10;
/// Bytes of the queue of a device with an operating system: a result and an answer of the largest size, and more.
pub const QUEUE_BYTES: usize = 32 << 10;
/// Questions of this device that may be open at a time.
pub const ASKS_MAX: usize = 4;
/// PROGRESS of one order is told this often at most: it says that the order is not stuck, no more.
pub const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// An order that finds the park full may be tried again after this long: an order ahead of it may have ended.
pub const PARK_RETRY: Duration = Duration::from_secs(1);
/// An order whose key is at work in another lineage may be tried again after this long.
pub const AT_WORK_RETRY: Duration = Duration::from_secs(1);
/// Pieces of a large payload asked for at a time: 64 KiB on their way, so that a 100 Mb/s link is never idle.
pub const PIECES: u16 = 16;

const _: () = assert!(SCRATCH_MIN < HELLO_BYTES, "an answer is never larger than what caused it");
const _: () = assert!(HEARTBEAT.as_micros() < FROZEN_AFTER.as_micros());

/// What a device says of itself and allows. All values are fixed for the life of a receiver.
#[derive(Clone, Debug)]
pub struct ReceiverConfig {
    /// The device's id, not [`NodeId::NONE`].
    pub id: NodeId,
    /// What it is; not [`DeviceKind::SERVER`].
    pub kind: DeviceKind,
    /// The shop it belongs to: servers of another one are refused.
    pub store: Store,
    /// A test device: serves staging servers only. Production serves none of those.
    pub staging: bool,
    /// Where in the store it stands; 0 not set.
    pub zone: u32,
    /// Its tags.
    pub tags: Tags,
    /// Random, drawn at each boot; 0 is taken as 1. From it the server knows that the device's memory is a new one.
    pub boot: u64,
    /// The fence accepted before this boot, if the driver keeps it; `None` lets the first server in, whatever its fence.
    pub known: Option<Known>,
    /// Orders that may be unsettled at a time: 1 to half of the ring's slots, clamped to that.
    pub window_orders: u16,
    /// Bytes of ORDER frames the server may have unanswered, at least 64. It bounds what the kernel holds for the device.
    pub window_bytes: u32,
    /// The application answers questions of the server, if the queue has room for an answer.
    pub questions: bool,
    /// The application takes orders whose payload comes in pieces, and the driver compares their digests; needs a park
    /// and a queue.
    pub parts: bool,
    /// Largest frame body, in bytes, at least 432: the driver's receive buffer less 16. A larger order ends as TOO_LARGE
    /// at the server and is never sent.
    pub max_body: u32,
}

impl ReceiverConfig {
    /// A production device of no particular kind, zone or tag, with the windows of a device that has an operating system.
    #[must_use]
    pub const fn new(id: NodeId, store: Store, boot: u64) -> Self {
        Self {
            id,
            kind: DeviceKind::TILL,
            store,
            staging: false,
            zone: 0,
            tags: Tags::EMPTY,
            boot,
            known: None,
            window_orders: WINDOW_ORDERS,
            window_bytes: WINDOW_BYTES,
            questions: true,
            parts: false,
            max_body: MAX_BODY,
        }
    }

    /// Slots the outcome ring needs for this window: twice the window, one half for what an earlier session left behind.
    #[must_use]
    pub const fn ring_len(&self) -> usize {
        let window = if self.window_orders == 0 { 1 } else { self.window_orders };
        (window as usize).saturating_mul(2)
    }

    /// The same with every value in its range, for a ring of `slots`.
    pub(super) fn clamped(mut self, slots: u16) -> Self {
        self.window_orders = self.window_orders.min(slots / 2).max(1);
        self.window_bytes = self.window_bytes.max(WINDOW_BYTES_MIN);
        self.max_body = self.max_body.max(MAX_BODY_MIN);
        self.boot = self.boot.max(1);
        self
    }
}
