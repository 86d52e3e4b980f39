//! The walk over frames of order push (specification, section 4).

use wire_format::frame::Kind;
use wire_format::ids::{DeviceKind, OrderKind, Tags};

use super::payload;
use super::walk::{Row, Short, Walk};
use super::walk::{bits, hex, id, millis, named, number, number_of, or_none, text, word, zero};

/// Bytes of a frame header.
pub(crate) const HEADER_LEN: usize = 16;
const CHECKSUM_LEN: usize = 4;
const ORDER_FIXED_LEN: usize = 48;

/// The name of the frame that begins here, for titles.
pub(crate) fn title(bytes: &[u8]) -> String {
    bytes.get(4).map_or_else(|| "frame".to_owned(), |&kind| format!("{} frame", Kind(kind)))
}

/// Names every field of one frame; stops where the bytes do.
pub(crate) fn walk(walk: &mut Walk<'_>) -> Result<(), Short> {
    let kind = Kind(u8::try_from(walk.number(4, 1)).unwrap_or(0));
    walk.rows("", &[("length", 4, |b| format!("{} bytes of body", number_of(b)))])?;
    walk.rows("", &[("kind", 1, |b| Kind(b[0]).to_string()), ("flags", 1, flags)])?;
    let (aux16, aux32) = aux_rows(kind, walk.number(8, 4));
    walk.rows("", &[aux16, aux32, ("checksum", 4, word)])?;
    match usize::try_from(walk.number(0, 4)).unwrap_or(usize::MAX) {
        0 => Ok(()),
        length => body(walk, kind, length.saturating_add(HEADER_LEN)),
    }
}

/// Names every field of an ORDER's body, as an outbox stores it.
pub(crate) fn order_body(walk: &mut Walk<'_>) -> Result<(), Short> {
    let start = walk.at();
    walk.rows("", ORDER)?;
    let kind = OrderKind(u16::try_from(walk.number(start + 32, 2)).unwrap_or(0));
    let schema = u16::try_from(walk.number(start + 36, 2)).unwrap_or(0);
    let options = usize::try_from(walk.number(start + 38, 2)).unwrap_or(0);
    let payload = usize::try_from(walk.number(start + 40, 4)).unwrap_or(0);
    let options_end = walk.at() + options;
    order_options(walk, options_end)?;
    if payload > walk.left() {
        return Err(Short);
    }
    payload::walk(walk, kind, schema, payload)?;
    let padding =
        (ORDER_FIXED_LEN + options + payload).next_multiple_of(8) - (ORDER_FIXED_LEN + options + payload);
    walk.optional("padding", padding, zero)
}

/// Names the entries of an ORDER's options up to `end`; what is left of them is no entry.
pub(crate) fn order_options(walk: &mut Walk<'_>, end: usize) -> Result<(), Short> {
    while walk.at() + 4 <= end {
        super::tlv::option(walk)?;
    }
    let rest = end.saturating_sub(walk.at());
    walk.optional("options, cut", rest, hex)
}

fn body(walk: &mut Walk<'_>, kind: Kind, end: usize) -> Result<(), Short> {
    let body_end = end.saturating_sub(CHECKSUM_LEN);
    match kind {
        Kind::ORDER => return order_body(walk),
        Kind::HELLO => walk.rows("", HELLO)?,
        Kind::WELCOME => {
            walk.rows("", WELCOME)?;
            walk.rows("", &[("durable lineage", 16, id)])?;
            walk.rows("durable floors, ", FLOORS)?;
            walk.rows("", &[("volatile lineage", 16, id)])?;
            walk.rows("volatile floors, ", FLOORS)?;
            walk.rows("", &[("tags", Tags::BYTES_MAX, tags)])?;
            walk.repeat("started", STARTED, body_end)?;
        }
        Kind::REJECT => walk.rows("", &[("detail", 8, number)])?,
        Kind::PART => {
            walk.rows("", &[("blob", 8, word), ("blob offset", 4, number), ("length", 4, number)])?;
            sized(walk, "bytes", 28, 4)?;
        }
        Kind::CANCEL => walk.repeat("order", &[("number", 8, number)], body_end)?,
        Kind::OUTCOME => walk.repeat("outcome", OUTCOME, body_end)?,
        Kind::RESULT => {
            let rows: &[Row] = &[("number", 8, number), ("payload length", 4, number), ("zero", 4, zero)];
            walk.rows("", rows)?;
            sized(walk, "payload", 24, 4)?;
        }
        Kind::PROGRESS => walk.rows("", PROGRESS)?,
        Kind::SETTLED => walk.rows("", &[("number", 8, number)])?,
        Kind::WANT => walk.rows("", &[("blob", 8, word)])?,
        Kind::ASK | Kind::REPLY => {
            walk.rows("", QUESTION)?;
            sized(walk, "payload", 32, 4)?;
        }
        Kind::STATUS if walk.number(8, 4) == 0 => {
            walk.repeat("order", &[("number", 8, number)], body_end)?;
        }
        Kind::STATUS => walk.repeat("order", STATUS, body_end)?,
        _ => return walk.optional("body of an unknown kind", end.saturating_sub(walk.at()), hex),
    }
    walk.field("checksum", CHECKSUM_LEN, word).map(|_| ())
}

/// Bytes whose length stands in the 4 bytes at `length_at`, and zero padding to a multiple of 4.
fn sized(walk: &mut Walk<'_>, name: &'static str, length_at: usize, to: usize) -> Result<(), Short> {
    let length = usize::try_from(walk.number(length_at, 4)).unwrap_or(usize::MAX);
    walk.optional(name, length, hex)?;
    walk.optional("padding", length.next_multiple_of(to) - length, zero)
}

fn aux_rows(kind: Kind, aux32: u64) -> (Row, Row) {
    const NO16: Row = ("aux16", 2, zero);
    const NO32: Row = ("aux32", 4, zero);
    match kind {
        Kind::ORDER => (NO16, ("aux32 remaining lifetime", 4, lifetime)),
        Kind::REJECT => (("aux16 code", 2, reject), ("aux32 retry after", 4, millis)),
        Kind::CANCEL | Kind::OUTCOME => (("aux16 count", 2, number), NO32),
        Kind::STATUS => {
            let show: super::walk::Show = if aux32 == 0 { |_| "0 question".into() } else { |b| answer(b) };
            (("aux16 count", 2, number), ("aux32 question or answer", 4, show))
        }
        Kind::ACK => (("aux16 lane", 2, lane), ("aux32 number, low 32 bits", 4, number)),
        Kind::WINDOW => (("aux16 orders", 2, number), ("aux32 bytes", 4, number)),
        Kind::SETTLED => (("aux16 lane", 2, lane), NO32),
        Kind::WANT => (("aux16 pieces", 2, number), ("aux32 blob offset", 4, number)),
        Kind::ASK => (NO16, ("aux32 deadline", 4, millis)),
        Kind::REPLY => (NO16, ("aux32 age", 4, millis)),
        Kind::PING | Kind::PONG => (NO16, ("aux32 token", 4, word)),
        Kind::DRAIN => (("aux16 reason", 2, number), ("aux32 after", 4, millis)),
        Kind::BYE => (("aux16 code", 2, bye), ("aux32 retry after", 4, millis)),
        Kind::HELLO | Kind::WELCOME | Kind::PART | Kind::RESULT | Kind::PROGRESS => (NO16, NO32),
        _ => (("aux16", 2, word), ("aux32", 4, word)),
    }
}

const ORDER: &[Row] = &[
    ("number", 8, number),
    ("order key", 8, key),
    ("supersede key", 8, key),
    ("supersede version", 8, number),
    ("order kind", 2, order_kind),
    ("lane", 1, lane),
    ("kind flags", 1, kind_flags),
    ("schema", 2, number),
    ("options length", 2, number),
    ("payload length", 4, number),
    ("body checksum", 4, word),
];

const HELLO: &[Row] = &[
    ("magic", 4, text),
    ("version min", 1, number),
    ("version max", 1, number),
    ("mode", 1, |b| bits(number_of(b), &[(1, "STAGING"), (2, "TAKEOVER")])),
    ("store code length", 1, number),
    ("legal entity", 4, number),
    ("max body", 4, number),
    ("target", 16, |b| if id(b) == "none" { "not known: tell me who you are".into() } else { id(b) }),
    ("server", 16, id),
    ("fence", 8, number),
    ("epoch", 4, number),
    ("ping interval ms", 2, millis),
    ("zero", 2, zero),
    ("durable lineage", 16, id),
    ("durable run", 8, word),
    ("durable head", 8, number),
    ("volatile lineage", 16, id),
    ("volatile run", 8, word),
    ("volatile head", 8, number),
    ("store code", 32, text),
    ("features", 4, features),
    ("zero", 264, zero),
];

const WELCOME: &[Row] = &[
    ("magic", 4, text),
    ("version", 1, number),
    ("flags", 1, |b| bits(number_of(b), &[(1, "STAGING"), (2, "FLOORS_PERSISTED"), (4, "JOURNAL_LOST")])),
    ("device kind", 2, device_kind),
    ("device", 16, id),
    ("boot", 8, word),
    ("fence", 8, number),
    ("server", 16, id),
    ("zone", 4, number),
    ("window orders", 2, number),
    ("tags length", 1, number),
    ("started count", 1, number),
    ("window bytes", 4, number),
    ("max body", 4, number),
    ("features", 4, features),
    ("zero", 4, zero),
];

const FLOORS: &[Row] = &[
    ("lane 0", 8, number),
    ("lane 0 run", 8, word),
    ("lane 1", 8, number),
    ("lane 1 run", 8, word),
    ("lane 2", 8, number),
    ("lane 2 run", 8, word),
    ("lane 3", 8, number),
    ("lane 3 run", 8, word),
];

const STARTED: &[Row] = &[
    ("number", 8, number),
    ("log", 1, |b| named(number_of(b), &[(0, "volatile"), (1, "durable")])),
    ("lane", 1, lane),
    ("started flags", 1, |b| bits(number_of(b), &[(1, "IDEMPOTENT")])),
    ("zero", 5, zero),
];

const OUTCOME: &[Row] = &[
    ("number", 8, number),
    ("code", 1, outcome),
    ("detail", 1, number),
    ("lane", 1, lane),
    ("zero", 1, zero),
    ("ms", 4, millis),
];

const PROGRESS: &[Row] =
    &[("number", 8, number), ("per mille", 2, |b| format!("{} of 1000", number_of(b))), ("phase", 2, number)];

const QUESTION: &[Row] = &[
    ("correlation", 4, number),
    ("generation", 4, number),
    ("ask kind", 2, order_kind),
    ("schema", 2, number),
    ("code", 1, |b| named(number_of(b), &[(0, "ok"), (1, "busy"), (2, "unknown-kind"), (3, "failed")])),
    ("zero", 3, zero),
    ("payload length", 4, number),
];

const STATUS: &[Row] = &[
    ("number", 8, number),
    ("state", 1, |b| {
        named(
            number_of(b),
            &[(0, "unknown"), (1, "received"), (2, "started"), (3, "ended"), (4, "forgotten")],
        )
    }),
    ("code", 1, |b| if b == [0] { "none".into() } else { outcome(b) }),
    ("zero", 2, zero),
    ("elapsed ms", 4, millis),
];

fn flags(bytes: &[u8]) -> String {
    let names =
        [(0x01, "IGNORABLE"), (0x02, "MORE"), (0x04, "REPLAY"), (0x08, "DURABLE"), (0x10, "NEEDS_RESULT")];
    bits(number_of(bytes), &names)
}

fn features(bytes: &[u8]) -> String {
    bits(number_of(bytes), &[(1, "PARTS"), (2, "CANCEL"), (4, "ASK"), (8, "STATUS")])
}

fn kind_flags(bytes: &[u8]) -> String {
    bits(number_of(bytes), &[(1, "IDEMPOTENT"), (2, "PERISHABLE"), (4, "CANCELLABLE")])
}

fn answer(bytes: &[u8]) -> String {
    named(number_of(bytes), &[(1, "answer")])
}

fn lifetime(bytes: &[u8]) -> String {
    if number_of(bytes) == u64::from(u32::MAX) { "no limit".to_owned() } else { millis(bytes) }
}

fn lane(bytes: &[u8]) -> String {
    named(number_of(bytes), &[(0, "urgent"), (1, "interactive"), (2, "normal"), (3, "bulk")])
}

fn key(bytes: &[u8]) -> String {
    if or_none(bytes) == "none" { "none".to_owned() } else { word(bytes) }
}

fn order_kind(bytes: &[u8]) -> String {
    OrderKind(u16::try_from(number_of(bytes)).unwrap_or(0)).to_string()
}

fn device_kind(bytes: &[u8]) -> String {
    DeviceKind(u16::try_from(number_of(bytes)).unwrap_or(0)).to_string()
}

fn tags(bytes: &[u8]) -> String {
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
    match Tags::from_packed(&bytes[..end]) {
        Some(tags) if tags.is_empty() => "none".to_owned(),
        Some(tags) => tags.iter().collect::<Vec<_>>().join(", "),
        None => hex(bytes),
    }
}

fn reject(bytes: &[u8]) -> String {
    let names = [
        (1, "wrong-device"),
        (2, "wrong-store"),
        (3, "staging"),
        (4, "stale-fence"),
        (5, "lease-held"),
        (6, "version"),
        (7, "unauthorized"),
        (8, "busy"),
        (9, "too-many-peers"),
        (10, "draining"),
    ];
    named(number_of(bytes), &names)
}

fn bye(bytes: &[u8]) -> String {
    let names = [
        (0, "normal"),
        (1, "restarting"),
        (2, "protocol-error"),
        (3, "unknown-kind"),
        (4, "replaced"),
        (5, "idle"),
        (6, "draining"),
        (7, "too-large"),
    ];
    named(number_of(bytes), &names)
}

fn outcome(bytes: &[u8]) -> String {
    let names = [
        (1, "applied"),
        (2, "duplicate"),
        (3, "superseded"),
        (4, "expired"),
        (5, "cancelled"),
        (6, "rejected-kind"),
        (7, "rejected-payload"),
        (8, "failed"),
        (9, "in-doubt"),
        (16, "busy"),
        (17, "no-space"),
        (18, "failed-retryable"),
    ];
    named(number_of(bytes), &names)
}
