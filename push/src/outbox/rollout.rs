//! A rollout, as notes: what must be known to go on with it in another run of the server.
//!
//! Note `rollout << 16` is its plan; the notes behind it, counted from 1, are its order in pieces of [`NOTE_MAX`]. They are
//! written with the plan, in one commit, and go when the rollout is over. What its steps came to is not in here: each step is
//! an order under a key of its own, made from the rollout's.
//!
//! The plan:
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 1 | form | 1 |
//! | 1 | 1 | state | 0 it goes on; 1 every step was taken; 2 it was stopped, because too many devices failed |
//! | 2 | 1 | flags | 1 NAMED: the key is the application's; the rest zero |
//! | 3 | 1 | steps | 1 to 32 |
//! | 4 | 1 | abort above | so many of a hundred devices of a step may fail |
//! | 5 | 1 | step | in state 2: the one that was stopped at, from 0; else 0 |
//! | 6 | 2 | restarts | of the server since it began |
//! | 8 | 8 | key | not 0 |
//! | 16 | 4 | step within | how long a step waits, milliseconds |
//! | 20 | 4 | order length | bytes of the order; 0 in states 1 and 2 |
//! | 24 | 4 | failed | in state 2: devices of that step that failed; else 0 |
//! | 28 | 4 | of | in state 2: devices of that step; else 0 |
//! | 32 | 32 | percents | as many as there are steps, rising, the last one 100; then zeros |
//! | 64 | – | targets | the devices it began with |
//! | – | – | gone | targets: those of them that were removed since; not there if none was |
//!
//! The order:
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 2 | order kind | not 0 |
//! | 2 | 2 | schema | of its payload |
//! | 4 | 1 | lane | 0 to 3 |
//! | 5 | 1 | kind flags | as on the wire |
//! | 6 | 1 | flags | 1 NEEDS_RESULT; the rest zero |
//! | 7 | 1 | – | zero |
//! | 8 | 4 | lifetime | milliseconds, not 0 |
//! | 12 | 2 | options length | at most 256 |
//! | 14 | 2 | – | zero |
//! | 16 | – | options | as on the wire |
//! | – | – | payload | all the rest, at most 8,388,608 bytes |

use core::time::Duration;

use wire_format::bytes::Reader;
use wire_format::error::{Fault, ParseError};
use wire_format::frame::order::{KindFlags, OPTIONS_MAX};
use wire_format::frame::part::BLOB_MAX;
use wire_format::ids::{Lane, OrderKind};

use super::{NOTE_MAX, Targets};
use crate::order::Order;

/// Steps of one rollout.
pub const STEPS_MAX: usize = 32;

const FORM: u8 = 1;
const NAMED: u8 = 1;
const NEEDS_RESULT: u8 = 1;
/// Pieces of an order are counted in so many bits of a note's id.
const PIECE_BITS: u32 = 16;
const ORDER_HEAD: usize = 16;
/// Bytes of the longest order there is.
const ORDER_MAX: usize = ORDER_HEAD + OPTIONS_MAX + BLOB_MAX as usize;

const _: () = assert!(ORDER_MAX.div_ceil(NOTE_MAX) < 1 << PIECE_BITS);

/// How far a rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It goes on.
    Running,
    /// Every step was taken.
    Done,
    /// Too many devices of a step failed.
    Aborted {
        /// The step, from 0.
        step: u8,
        /// Devices of it that failed.
        failed: u32,
        /// Devices of it.
        devices: u32,
    },
}

/// A rollout's plan, as its note has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How far it is.
    pub phase: Phase,
    /// From which the keys of its steps are made; not 0.
    pub key: u64,
    /// The key is the application's: a second rollout under it is this one.
    pub named: bool,
    /// How often the server was started again since it began.
    pub restarts: u16,
    /// The steps, in percent of all devices: rising, the last one 100; at most [`STEPS_MAX`].
    pub percents: Vec<u8>,
    /// So many of a hundred devices of a step may fail.
    pub abort_above: u8,
    /// How long a step waits for its outcomes, in milliseconds.
    pub step_within_ms: u32,
    /// Bytes of its order; 0 once it is over.
    pub order_len: u32,
    /// The devices it began with.
    pub targets: Targets,
    /// Those of them that were removed since.
    pub gone: Option<Targets>,
}

/// The notes of a rollout: the id of its plan's.
#[must_use]
pub const fn note_of(rollout: u64) -> u64 {
    rollout << PIECE_BITS
}

/// Which rollout a note is of, and which piece of its order it is; 0 is the plan.
#[must_use]
pub const fn rollout_of(note: u64) -> (u64, u64) {
    (note >> PIECE_BITS, note & ((1 << PIECE_BITS) - 1))
}

impl Plan {
    /// The bytes of its note.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        let (state, step, failed, of) = match self.phase {
            Phase::Running => (0, 0, 0, 0),
            Phase::Done => (1, 0, 0, 0),
            Phase::Aborted { step, failed, devices } => (2, step, failed, devices),
        };
        let steps = self.percents.len().min(STEPS_MAX);
        let flags = if self.named { NAMED } else { 0 };
        let [restarts_low, restarts_high] = self.restarts.to_le_bytes();
        #[expect(clippy::cast_possible_truncation, reason = "at most STEPS_MAX")]
        let head = [FORM, state, flags, steps as u8, self.abort_above, step, restarts_low, restarts_high];
        let words = [self.step_within_ms, self.order_len, failed, of].map(u32::to_le_bytes).concat();
        let fixed =
            [&head[..], &self.key.to_le_bytes(), &words, self.percents.get(..steps).unwrap_or_default()];
        bytes.iter_mut().zip(fixed.concat()).for_each(|(byte, value)| *byte = value);
        self.targets.emit(&mut bytes);
        if let Some(gone) = &self.gone {
            gone.emit(&mut bytes);
        }
        bytes
    }

    /// Reads a plan's note.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let reader = &mut Reader::new(bytes);
        let value = |reader: &Reader<'_>, field| Err(reader.error(field, Fault::Range));
        if reader.u8("form")? != FORM {
            return value(reader, "form");
        }
        let (state, flags, steps) = (reader.u8("state")?, reader.u8("flags")?, reader.u8("steps")?);
        let (abort_above, step, restarts) =
            (reader.u8("abort above")?, reader.u8("step")?, reader.u16("restarts")?);
        let key = reader.u64("key")?;
        let (step_within_ms, order_len) = (reader.u32("step within")?, reader.u32("order length")?);
        let (failed, of) = (reader.u32("failed")?, reader.u32("of")?);
        let phase = match (state, step, failed, of) {
            (0, 0, 0, 0) => Phase::Running,
            (1, 0, 0, 0) => Phase::Done,
            (2, step, failed, devices) if step < steps && failed <= devices => {
                Phase::Aborted { step, failed, devices }
            }
            _ => return value(reader, "state"),
        };
        if flags & !NAMED != 0 {
            return value(reader, "flags");
        }
        if key == 0 {
            return value(reader, "key");
        }
        let is_over = phase != Phase::Running;
        if is_over != (order_len == 0)
            || (!is_over && (order_len as usize) < ORDER_HEAD)
            || order_len as usize > ORDER_MAX
        {
            return value(reader, "order length");
        }
        let percents = reader.bytes("percents", usize::from(steps).min(STEPS_MAX))?.to_vec();
        let rise = percents.is_sorted_by(|a, b| a < b) && percents.first().is_some_and(|first| *first > 0);
        if usize::from(steps) > STEPS_MAX || !rise || percents.last() != Some(&100) {
            return value(reader, "percents");
        }
        reader.zeros("percents", STEPS_MAX - percents.len())?;
        // In the order in which they stand in the bytes.
        let plan = Self {
            phase,
            key,
            named: flags & NAMED != 0,
            restarts,
            percents,
            abort_above,
            step_within_ms,
            order_len,
            targets: Targets::parse(reader)?,
            gone: if reader.rest().is_empty() { None } else { Some(Targets::parse(reader)?) },
        };
        reader.end("plan")?;
        Ok(plan)
    }

    /// How many pieces its order has.
    #[must_use]
    pub const fn pieces(&self) -> u64 {
        (self.order_len as u64).div_ceil(NOTE_MAX as u64)
    }
}

/// An order as a rollout keeps it: without keys, which each step has of its own.
#[must_use]
pub fn emit_order(order: &Order<'_>) -> Vec<u8> {
    let lifetime_ms = u32::try_from(order.lifetime.as_millis()).unwrap_or(u32::MAX);
    let options_len = u16::try_from(order.options.len()).unwrap_or(u16::MAX);
    let known = [KindFlags::IDEMPOTENT, KindFlags::PERISHABLE, KindFlags::CANCELLABLE];
    let kind_flags =
        (0..).zip(known).fold(0, |bits, (at, flag)| bits | u8::from(order.kind_flags.contains(flag)) << at);
    let needs_result = if order.needs_result { NEEDS_RESULT } else { 0 };
    let mut bytes = Vec::with_capacity(ORDER_HEAD + order.options.len() + order.payload.len());
    bytes.extend_from_slice(&order.kind.0.to_le_bytes());
    bytes.extend_from_slice(&order.schema.to_le_bytes());
    bytes.extend_from_slice(&[order.lane as u8, kind_flags, needs_result, 0]);
    bytes.extend_from_slice(&lifetime_ms.to_le_bytes());
    bytes.extend_from_slice(&options_len.to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(order.options);
    bytes.extend_from_slice(order.payload);
    bytes
}

/// Reads such an order.
pub fn parse_order(bytes: &[u8]) -> Result<Order<'_>, ParseError> {
    let reader = &mut Reader::new(bytes);
    let (kind, schema) = (reader.u16("order kind")?, reader.u16("schema")?);
    let (lane, kind_bits, flags) = (reader.u8("lane")?, reader.u8("kind flags")?, reader.u8("flags")?);
    reader.zeros("zero", 1)?;
    let (lifetime_ms, options_len) = (reader.u32("lifetime")?, reader.u16("options length")?);
    reader.zeros("zero", 2)?;
    let value = |field| Err(reader.error(field, Fault::Range));
    let Some(lane) = Lane::new(lane) else { return value("lane") };
    if kind == 0 || lifetime_ms == 0 {
        return value("order kind");
    }
    if kind_bits > 7 || flags & !NEEDS_RESULT != 0 {
        return value("flags");
    }
    if usize::from(options_len) > OPTIONS_MAX {
        return value("options length");
    }
    let options = reader.bytes("options", options_len.into())?;
    let payload = reader.bytes("payload", reader.rest().len())?;
    if payload.len() > BLOB_MAX as usize {
        return Err(reader.error("payload", Fault::Length));
    }
    let known = [KindFlags::IDEMPOTENT, KindFlags::PERISHABLE, KindFlags::CANCELLABLE];
    let has = |&(at, _): &(u8, KindFlags)| kind_bits >> at & 1 == 1;
    let kind_flags = (0..).zip(known).filter(has).fold(KindFlags::NONE, |flags, (_, flag)| flags.with(flag));
    let order =
        Order::new(OrderKind(kind), schema, payload).options(options).lane(lane).with_flags(kind_flags);
    let order = order.lifetime(Duration::from_millis(lifetime_ms.into()));
    Ok(Order { needs_result: flags & NEEDS_RESULT != 0, ..order })
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::super::DEVICES_MAX;
    use super::*;

    fn targets() -> impl Strategy<Value = Targets> {
        btree_set(0..DEVICES_MAX, 1..50).prop_map(|devices| Targets::from_sorted(devices).unwrap())
    }

    fn plans() -> impl Strategy<Value = Plan> {
        let phase = prop_oneof![
            Just(Phase::Running),
            Just(Phase::Done),
            (any::<u32>(), any::<u32>())
                .prop_map(|(a, b)| { Phase::Aborted { step: 0, failed: a.min(b), devices: a.max(b) } }),
        ];
        let steps = btree_set(1_u8..100, 0..STEPS_MAX);
        let numbers =
            (1_u64.., any::<bool>(), any::<u16>(), any::<u8>(), any::<u32>(), 16..=ORDER_MAX as u32);
        (phase, steps, numbers, targets(), proptest::option::of(targets())).prop_map(
            |(phase, steps, (key, named, restarts, abort_above, step_within_ms, len), targets, gone)| {
                let percents = steps.into_iter().chain([100]).collect();
                let order_len = if phase == Phase::Running { len } else { 0 };
                Plan {
                    phase,
                    key,
                    named,
                    restarts,
                    percents,
                    abort_above,
                    step_within_ms,
                    order_len,
                    targets,
                    gone,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn plans_come_back_and_cut_ones_do_not(plan in plans(), cut: prop::sample::Index) {
            let bytes = plan.emit();
            prop_assert!(bytes.len() <= NOTE_MAX);
            prop_assert_eq!(Plan::parse(&bytes), Ok(plan.clone()));
            let cut = Plan::parse(&bytes[..cut.index(bytes.len())]);
            // A plan without those that are gone is one.
            let rest = Plan { gone: None, ..plan };
            prop_assert!(cut.is_err() || cut == Ok(rest));
        }

        #[test]
        fn orders_come_back(
            payload in vec(any::<u8>(), 0..300),
            options in vec(any::<u8>(), 0..=OPTIONS_MAX),
            (kind, schema, lane, bits, needs_result) in (1_u16.., any::<u16>(), 0..4_u8, 0..8_u8, any::<bool>()),
            lifetime_ms in 1_u32..,
            cut in 0..ORDER_HEAD,
        ) {
            let all = [KindFlags::IDEMPOTENT, KindFlags::PERISHABLE, KindFlags::CANCELLABLE];
            let flags = (0..).zip(all).filter(|(at, _)| bits >> at & 1 == 1);
            let flags = flags.fold(KindFlags::NONE, |flags, (_, flag)| flags.with(flag));
            let order = Order::new(OrderKind(kind), schema, &payload).options(&options).with_flags(flags);
            let order = order.lane(Lane::new(lane).unwrap()).lifetime(Duration::from_millis(lifetime_ms.into()));
            let order = if needs_result { order.wants_result() } else { order };
            let bytes = emit_order(&order);
            prop_assert_eq!(parse_order(&bytes), Ok(order));
            prop_assert!(parse_order(&bytes[..cut]).is_err());
        }

        #[test]
        fn any_bytes_are_a_plan_that_comes_back_or_an_error(
            plan in plans(),
            change: prop::sample::Index,
            byte: u8,
            junk in vec(any::<u8>(), 0..200),
        ) {
            let mut bytes = plan.emit();
            let at = change.index(bytes.len());
            bytes[at] = byte;
            for bytes in [&bytes, &junk] {
                if let Ok(plan) = Plan::parse(bytes) {
                    prop_assert_eq!(Plan::parse(&plan.emit()), Ok(plan));
                }
                if let Ok(order) = parse_order(bytes) {
                    let again = emit_order(&order);
                    prop_assert_eq!(parse_order(&again), Ok(order));
                }
            }
        }
    }

    #[test]
    fn the_largest_plan_is_one_note_and_the_largest_order_has_pieces_for_each() {
        let spread = |first: u32| Targets::from_sorted((first..DEVICES_MAX).step_by(2)).unwrap();
        let plan = Plan {
            phase: Phase::Running,
            key: 1,
            named: false,
            restarts: u16::MAX,
            percents: (69..=100).collect(),
            abort_above: 255,
            step_within_ms: u32::MAX,
            order_len: ORDER_MAX as u32,
            targets: spread(0),
            gone: Some(spread(1)),
        };
        let bytes = plan.emit();
        assert!(bytes.len() <= NOTE_MAX, "{}", bytes.len());
        assert_eq!(Plan::parse(&bytes).as_ref(), Ok(&plan));
        assert_eq!(plan.pieces(), 129);
        let longer = Plan { order_len: plan.order_len + 1, ..plan.clone() };
        assert_eq!(Plan::parse(&longer.emit()).unwrap_err().field, "order length");
        assert_eq!(rollout_of(note_of(7) | 129), (7, 129));
    }

    fn block(name: &str) -> Vec<u8> {
        let document = include_str!("../../../docs/OUTBOX.md");
        let (_, rest) = document.split_once(&format!("```{name}\n")).unwrap();
        let (hex, _) = rest.split_once("```").unwrap();
        hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
    }

    #[test]
    fn the_blocks_of_the_document_are_what_is_written_and_read() {
        let plan = Plan::parse(&block("plan")).unwrap();
        assert_eq!(plan.emit(), block("plan"));
        assert_eq!((plan.percents.as_slice(), plan.step_within_ms), (&[10, 50, 100][..], 60_000));
        let bytes = block("order");
        let order = parse_order(&bytes).unwrap();
        assert_eq!((emit_order(&order), order.payload), (bytes.clone(), &b"hello"[..]));
    }
}
