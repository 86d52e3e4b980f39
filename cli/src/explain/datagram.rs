//! The walk over datagrams of discovery (specification, section 3).

use wire_format::ids::DeviceKind;

use super::tlv;
use super::walk::{Row, Short, Walk, id, millis, named, number, number_of, or_none, seconds, text, word};

/// What every datagram begins with.
pub(crate) const MAGIC: [u8; 4] = *b"TWLD";
/// Bytes of the header of this version.
pub(crate) const HEADER_LEN: usize = 48;

/// The name of the datagram that begins here, for titles.
pub(crate) fn title(bytes: &[u8]) -> String {
    bytes.get(5).map_or_else(
        || "datagram".to_owned(),
        |&number| match KINDS.get(usize::from(number)) {
            Some(name) if number > 0 => format!("{name} datagram"),
            _ => format!("datagram of the unknown kind {number}"),
        },
    )
}

/// Names every field of one datagram; stops where the bytes do.
pub(crate) fn walk(walk: &mut Walk<'_>) -> Result<(), Short> {
    let kind = walk.number(5, 1);
    walk.rows("", HEADER)?;
    match kind {
        2 => walk.rows("", BEACON_AUX)?,
        5 => walk.rows("", &[("reason", 2, bye), ("retry after", 2, seconds)])?,
        _ => walk.rows("", &[aux(kind)])?,
    }
    let words = usize::try_from(walk.number(7, 1)).unwrap_or(0);
    let extra = (words * 4).saturating_sub(HEADER_LEN);
    walk.optional("header of a newer minor version", extra, super::walk::hex)?;
    while walk.left() > 0 {
        tlv::entry(walk)?;
    }
    Ok(())
}

const KINDS: [&str; 7] = ["", "SEEK", "BEACON", "ANNOUNCE", "ACK", "BYE", "CHALLENGE"];

const HEADER: &[Row] = &[
    ("magic", 4, text),
    ("version", 1, |b| format!("{}.{}", b[0] >> 4, b[0] & 0x0F)),
    ("kind", 1, |b| match KINDS.get(usize::from(b[0])) {
        Some(name) if b[0] > 0 => format!("{} {name}", b[0]),
        _ => format!("{} (unknown)", b[0]),
    }),
    ("flags", 1, tlv::datagram_flags),
    ("header words", 1, |b| format!("{} ({} bytes)", b[0], u32::from(b[0]) * 4)),
    ("total length", 2, |b| format!("{} bytes", number_of(b))),
    ("role", 2, role),
    ("scope", 4, |b| if or_none(b) == "none" { "none: not provisioned".to_owned() } else { word(b) }),
    ("node id", 16, id),
    ("boot epoch", 4, number),
    ("sequence", 4, number),
    ("port", 2, number),
    ("lease", 2, seconds),
];

const BEACON_AUX: &[Row] = &[
    ("window", 2, millis),
    ("select bits", 1, |b| if b == [0] { "0: every device".to_owned() } else { number(b) }),
    ("select salt", 1, word),
];

fn aux(kind: u64) -> Row {
    match kind {
        1 => ("suppressed", 4, |b| format!("{} sends", number_of(b))),
        3 => ("answers", 4, |b| if or_none(b) == "none" { "nobody asked".to_owned() } else { word(b) }),
        4 => ("announce sequence", 4, number),
        6 => ("aux", 4, |b| named(number_of(b), &[(0, "question"), (1, "answer")])),
        _ => ("aux", 4, word),
    }
}

fn role(bytes: &[u8]) -> String {
    match DeviceKind(u16::try_from(number_of(bytes)).unwrap_or(0)) {
        DeviceKind::SERVER => "server".to_owned(),
        kind => kind.to_string(),
    }
}

fn bye(bytes: &[u8]) -> String {
    named(number_of(bytes), &[(0, "leaving"), (1, "restarting"), (2, "replaced")])
}
