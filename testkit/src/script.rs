//! What applications do in simulated stores: the orders they push, and what their handlers answer.

use std::time::Duration;

use push::blob::Blob;
use push::receiver::Verdict;
use wire_format::frame::order::{Delivery, KindFlags, Order, OrderOption};
use wire_format::ids::{Lane, OrderKind};
use wire_format::rng::Rng;

/// An order before it has a number.
#[derive(Clone, Copy, Debug, Default)]
pub struct Draft<'a> {
    /// Its lane.
    pub lane: Lane,
    /// It may run again.
    pub idempotent: bool,
    /// It belongs to the durable log.
    pub durable: bool,
    /// The application's key, 0 for none.
    pub key: u64,
    /// What it is a version of, and which one.
    pub supersede: Option<(u64, u64)>,
    /// The number of the first attempt, and which repetition of it this is.
    pub repeats: Option<(u64, u16)>,
    /// Its payload.
    pub payload: &'a [u8],
    /// The payload is sent in pieces, under this name and with this digest.
    pub in_pieces: Option<(u64, [u8; 32])>,
}

impl Draft<'_> {
    /// The order as a frame, as a server hands it to its fleet.
    ///
    /// # Panics
    ///
    /// If the numbers cannot be said in a frame (number 0, repetition 0): a test that asks for it is wrong.
    #[must_use]
    pub fn frame(&self, number: u64, lifetime: Option<Duration>) -> Vec<u8> {
        let (supersede_key, supersede_version) = self.supersede.unwrap_or_default();
        let mut options = [0; 64];
        let retry = self.repeats.map(|(first, attempt)| OrderOption::Retry { first, attempt });
        let mut used =
            retry.map_or(0, |retry| retry.emit(&mut options).expect("a first number and a repetition"));
        let blob = self.in_pieces.map(|(id, sha256)| Blob::new(id, self.payload, sha256));
        if let Some(blob) = &blob {
            let option = blob.option().expect("no more bytes than a payload may have");
            options[used..used + option.len()].copy_from_slice(&option);
            used += option.len();
        }
        let behind = blob.map_or(0, |blob| blob.frames_len());
        let order = Order {
            number,
            order_key: self.key,
            supersede_key,
            supersede_version,
            kind: OrderKind::SHOW_PAGE,
            lane: self.lane,
            kind_flags: kind_flags(self.idempotent),
            schema: 1,
            options: &options[..used],
            payload: if blob.is_some() { &[] } else { self.payload },
        };
        let remaining_ms = lifetime.map(Delivery::millis);
        let delivery = Delivery { durable: self.durable, replay: false, needs_result: false, remaining_ms };
        let mut frame = vec![0; order.payload.len() + 192 + behind];
        let len = order.emit(&delivery, &mut frame).expect("the numbers are right and there is room");
        let pieces = blob.map_or(Ok(0), |blob| blob.emit_frames(&mut frame[len..]));
        frame.truncate(len + pieces.expect("there is room"));
        frame
    }
}

/// The kind's flags of an order that may run again, or of one that may not.
#[must_use]
pub const fn kind_flags(idempotent: bool) -> KindFlags {
    if idempotent { KindFlags::IDEMPOTENT } else { KindFlags::NONE }
}

/// What a handler answers; of a hundred answers `attempts` end an attempt and not the order.
pub fn draw_verdict(rng: &mut Rng, attempts: u64) -> Verdict {
    let retry_after = Duration::from_millis(rng.below(1_000));
    let attempt = rng.below(100) < attempts;
    match rng.below(8) {
        0..=2 if attempt => Verdict::Busy { retry_after },
        3..=5 if attempt => Verdict::NoSpace { retry_after },
        _ if attempt => Verdict::FailedRetryable { detail: 9, retry_after },
        0 => Verdict::Failed { detail: 7 },
        1 => Verdict::RejectedKind,
        2 => Verdict::RejectedPayload,
        _ => Verdict::Applied,
    }
}
