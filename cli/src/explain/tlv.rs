//! The walk over TLV entries, in datagrams and in the options of an ORDER.

use super::walk::{Row, Short, Walk, bits, hex, named, number_of, word, zero};

/// Names one entry: type, length, what `value` makes of it, padding. `value` gets the type without its critical bit
/// and the length, and says whether it named the bytes itself.
pub(crate) fn entry(
    walk: &mut Walk<'_>,
    prefix: &str,
    value: impl FnOnce(&mut Walk<'_>, (u16, usize)) -> bool,
) -> Result<(), Short> {
    let (kind, length) = (walk.number(walk.at(), 2), walk.number(walk.at() + 2, 2));
    let (kind, length) = (u16::try_from(kind).unwrap_or(0), usize::try_from(length).unwrap_or(0));
    let name = format!("{prefix}{}", name(kind));
    walk.field(format!("{name} type"), 2, |b| type_of(number_of(b)))?;
    walk.field(format!("{name} length"), 2, |b| format!("{} bytes", number_of(b)))?;
    let end = walk.at() + length;
    if length > walk.left() {
        return Err(Short);
    }
    if !value(walk, (kind & 0x7FFF, length)) || walk.at() < end {
        let rest = end.saturating_sub(walk.at());
        walk.optional(format!("{name} value"), rest, hex)?;
    }
    walk.optional(format!("{name} padding"), length.next_multiple_of(4) - length, zero)
}

/// The specification's name of an entry.
pub(crate) fn name(kind: u16) -> String {
    match NAMES.iter().find(|(number, _)| *number == kind & 0x7FFF) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("TLV {}", kind & 0x7FFF),
    }
}

fn type_of(value: u64) -> String {
    let critical = if value & 0x8000 == 0 { "" } else { ", critical" };
    format!("{}{critical}", value & 0x7FFF)
}

const NAMES: [(u16, &str); 14] = [
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
    (0xFF, "AUTH"),
];

/// The value of a datagram's entry. Says whether it named the bytes; what is left of them is named by the caller.
pub(crate) fn datagram_value(walk: &mut Walk<'_>, (kind, length): (u16, usize)) -> bool {
    let end = walk.at() + length;
    let rows: &[Row] = match kind {
        1 => STORE,
        3 => return walk.repeat("SERVICES", SERVICE, end).is_ok(),
        4 => return addresses(walk, end).is_ok(),
        5 => FIRMWARE,
        6 => &[("CAPS bits", 8, word)],
        7 => &[("ZONE zone", 4, super::walk::number)],
        9 => STATUS,
        12 => &[("PRIORITY priority", 2, super::walk::number)],
        13 => return tags(walk, end).is_ok(),
        0xFF => AUTH,
        _ => &[],
    };
    if rows.iter().map(|row| row.1).sum::<usize>() <= length && walk.rows("", rows).is_err() {
        return false;
    }
    match kind {
        1 if walk.at() < end => walk.field("STORE store code", end - walk.at(), super::walk::text).is_ok(),
        2 if walk.at() < end => walk.field("NAME text", end - walk.at(), super::walk::text).is_ok(),
        10 if walk.at() < end => walk.field("PAD zeros", end - walk.at(), zero).is_ok(),
        _ => true,
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
        walk.rows(&format!("ADDR {n} "), &[("metric", 2, super::walk::number), ("address", bytes, address)])?;
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
        walk.read(format!("TAGS {n} length"), 1, super::walk::number)?;
        walk.field(format!("TAGS {n} text"), length, super::walk::text)?;
        n += 1;
    }
    Ok(())
}

const STORE: &[Row] = &[("STORE legal entity", 4, super::walk::number)];

const SERVICE: &[Row] = &[
    ("service id", 2, super::walk::number),
    ("port", 2, super::walk::number),
    ("protocol", 1, super::walk::number),
    ("flags", 1, word),
    ("version", 2, super::walk::number),
];

const FIRMWARE: &[Row] = &[("FIRMWARE version", 4, super::walk::number), ("FIRMWARE build", 4, super::walk::number)];

const STATUS: &[Row] = &[
    ("STATUS code", 1, status),
    ("STATUS retry after", 1, super::walk::seconds),
    ("STATUS detail", 2, super::walk::number),
];

const AUTH: &[Row] = &[
    ("AUTH key id", 2, super::walk::number),
    ("AUTH algorithm", 1, super::walk::number),
    ("AUTH tag length", 1, super::walk::number),
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
