//! The walk over TLV entries, in datagrams and in the options of an ORDER.

use super::walk::{Row, Short, Walk, bits, hex, named, number, number_of, seconds, text, word, zero};

/// Names one entry of a datagram.
pub(crate) fn entry(walk: &mut Walk<'_>) -> Result<(), Short> {
    let kind = number_at(walk) & 0x7FFF;
    let name = match NAMES.iter().find(|(number, _)| *number == kind) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("TLV {kind}"),
    };
    named_entry(walk, &name, |walk, length| datagram_value(walk, kind, length))
}

/// Names one entry of an ORDER's options.
pub(crate) fn option(walk: &mut Walk<'_>) -> Result<(), Short> {
    let kind = number_at(walk) & 0x7FFF;
    let (name, rows): (_, &[Row]) = match kind {
        1 => ("RETRY option".to_owned(), RETRY),
        2 => ("PARTS option".to_owned(), PARTS),
        _ => (format!("option {kind}"), &[]),
    };
    let size = rows.iter().map(|row| row.1).sum::<usize>();
    named_entry(walk, &name, |walk, length| if size <= length { walk.rows("", rows) } else { Ok(()) })
}

fn number_at(walk: &Walk<'_>) -> u16 {
    u16::try_from(walk.number(walk.at(), 2)).unwrap_or(0)
}

/// Type, length, what `value` names of the value, the rest of it, padding.
fn named_entry(
    walk: &mut Walk<'_>,
    name: &str,
    value: impl FnOnce(&mut Walk<'_>, usize) -> Result<(), Short>,
) -> Result<(), Short> {
    walk.field(format!("{name} type"), 2, |b| type_of(number_of(b)))?;
    let length = usize::from(number_at(walk));
    walk.field(format!("{name} length"), 2, |b| format!("{} bytes", number_of(b)))?;
    let end = walk.at() + length;
    if length > walk.left() {
        return Err(Short);
    }
    value(walk, length)?;
    walk.optional(format!("{name} value"), end.saturating_sub(walk.at()), hex)?;
    walk.optional(format!("{name} padding"), length.next_multiple_of(4) - length, zero)
}

fn type_of(value: u64) -> String {
    let critical = if value & 0x8000 == 0 { "" } else { ", critical" };
    format!("{}{critical}", value & 0x7FFF)
}

const NAMES: [(u16, &str); 15] = [
    (1, "STORE"),
    (2, "NAME"),
    (3, "SERVICES"),
    (4, "ADDR"),
    (5, "FIRMWARE"),
    (6, "CAPS"),
    (7, "ZONE"),
    (8, "NONCE"),
    (9, "STATUS"),
    (10, "PAD"),
    (11, "APP"),
    (12, "PRIORITY"),
    (13, "TAGS"),
    (14, "CODE"),
    (0xFF, "AUTH"),
];

/// What is named of the value of a datagram's entry; it never passes `length` bytes.
fn datagram_value(walk: &mut Walk<'_>, kind: u16, length: usize) -> Result<(), Short> {
    let end = walk.at() + length;
    let rows: &[Row] = match kind {
        1 => STORE,
        3 => return walk.repeat("SERVICES", SERVICE, end),
        4 => return addresses(walk, end),
        5 => FIRMWARE,
        6 => &[("CAPS bits", 8, word)],
        7 => &[("ZONE zone", 4, number)],
        9 => STATUS,
        12 => &[("PRIORITY priority", 2, number)],
        13 => return tags(walk, end),
        0xFF => AUTH,
        _ => &[],
    };
    if rows.iter().map(|row| row.1).sum::<usize>() <= length {
        walk.rows("", rows)?;
    }
    let rest = end.saturating_sub(walk.at());
    match kind {
        1 => walk.optional("STORE store code", rest, text),
        2 => walk.optional("NAME text", rest, text),
        8 => walk.optional("NONCE bytes", rest, hex),
        10 => walk.optional("PAD zeros", rest, zero),
        11 => walk.optional("APP bytes", rest, hex),
        14 => walk.optional("CODE text", rest, text),
        _ => Ok(()),
    }
}

fn addresses(walk: &mut Walk<'_>, end: usize) -> Result<(), Short> {
    let mut n = 0;
    while walk.at() + 4 <= end {
        let bytes = if walk.number(walk.at(), 1) == 6 { 16 } else { 4 };
        if walk.at() + 4 + bytes > end {
            break;
        }
        walk.rows(&format!("ADDR {n} "), &[("family", 1, family), ("prefix", 1, prefix)])?;
        walk.rows(&format!("ADDR {n} "), &[("metric", 2, number), ("address", bytes, address)])?;
        n += 1;
    }
    Ok(())
}

fn tags(walk: &mut Walk<'_>, end: usize) -> Result<(), Short> {
    let mut n = 0;
    while walk.at() < end {
        let length = usize::try_from(walk.number(walk.at(), 1)).unwrap_or(0);
        if length == 0 || walk.at() + 1 + length > end {
            break;
        }
        walk.read(format!("TAGS {n} length"), 1, number)?;
        walk.field(format!("TAGS {n} text"), length, text)?;
        n += 1;
    }
    Ok(())
}

const STORE: &[Row] = &[("STORE legal entity", 4, number)];

const SERVICE: &[Row] = &[
    ("service id", 2, number),
    ("port", 2, number),
    ("protocol", 1, number),
    ("flags", 1, word),
    ("version", 2, number),
];

const FIRMWARE: &[Row] = &[("FIRMWARE version", 4, number), ("FIRMWARE build", 4, number)];

const STATUS: &[Row] =
    &[("STATUS code", 1, status), ("STATUS retry after", 1, seconds), ("STATUS detail", 2, number)];

const RETRY: &[Row] = &[("first number", 8, number), ("attempt", 2, number), ("zero", 2, zero)];

const PARTS: &[Row] = &[("blob", 8, word), ("blob size", 4, number), ("sha-256", 32, hex)];

const AUTH: &[Row] = &[
    ("AUTH key id", 2, number),
    ("AUTH algorithm", 1, number),
    ("AUTH tag length", 1, number),
    ("AUTH tag", 16, hex),
];

/// ACK's status codes.
pub(crate) fn status(bytes: &[u8]) -> String {
    let names = [
        (0, "ok"),
        (1, "wrong-store"),
        (2, "staging-mismatch"),
        (3, "duplicate-id"),
        (4, "busy"),
        (5, "auth-required"),
        (6, "version"),
        (7, "roster-full"),
        (8, "unknown-key"),
    ];
    named(number_of(bytes), &names)
}

fn family(bytes: &[u8]) -> String {
    named(number_of(bytes), &[(4, "IPv4"), (6, "IPv6")])
}

fn prefix(bytes: &[u8]) -> String {
    format!("/{}", number_of(bytes))
}

fn address(bytes: &[u8]) -> String {
    match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
        (Ok(v4), _) => std::net::Ipv4Addr::from(v4).to_string(),
        (_, Ok(v6)) => std::net::Ipv6Addr::from(v6).to_string(),
        _ => hex(bytes),
    }
}

/// The flag byte of a datagram's header.
pub(crate) fn datagram_flags(bytes: &[u8]) -> String {
    let names = [
        (0x01, "STAGING"),
        (0x02, "AUTH"),
        (0x04, "EPOCH_RANDOM"),
        (0x08, "BROADCAST_COPY"),
        (0x10, "RETRANSMIT"),
        (0x20, "WANT_ACK"),
    ];
    bits(number_of(bytes), &names)
}
