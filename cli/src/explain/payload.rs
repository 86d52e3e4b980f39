//! The walk over payloads of the standard order kinds (specification, section 5): one table per payload, one
//! interpreter for all of them. Tables and not the typed values, so that a broken payload is named up to its fault.

use wire_format::ids::OrderKind;
use wire_format::payload::{
    Message, Payload, PayloadError, PrepareCollect, PriceList, Print, RefreshContent, RestartApp, ShowPage,
    StockAnswer, StockQuestion, TransferCart, UpdateFirmware,
};

use super::payload_tables::{STOCK_ANSWER, TABLES};
use super::walk::{Short, Walk, hex, id, number, number_of, text, word};

/// What a field is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Type {
    /// 1, 2, 4 or 8 bytes, unsigned.
    Unsigned(usize),
    /// 8 bytes, two's complement.
    Signed,
    /// 1 byte, 0 or 1.
    Bool,
    /// 8 bytes of length and the text.
    Text,
    /// 8 bytes of length and the bytes.
    Bytes,
    /// 16 bytes as they stand.
    Id,
    /// 32 bytes as they stand.
    Digest,
    /// 3 letters.
    Currency,
    /// 1 byte, 0 or 1; after a 1 the value.
    Option(&'static Self),
    /// 4 bytes, then the fields of that variant.
    Enum(&'static [(&'static str, &'static [Item])]),
    /// 8 bytes of length in bytes, then entries.
    List(&'static [Item]),
    /// The fields, nothing around them.
    Struct(&'static [Item]),
}

/// A field of a payload: its name and what it is made of.
pub(crate) type Item = (&'static str, Type);

/// A payload: name, order kind, schema, fields.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    /// The name in the specification, as the command line writes it.
    pub(crate) name: &'static str,
    /// The order kind that carries it.
    pub(crate) kind: OrderKind,
    /// The version of the layout.
    pub(crate) schema: u16,
    /// The fields in their order.
    pub(crate) fields: &'static [Item],
}

/// Names the fields of a payload of `length` bytes; one of an unknown kind, or one that does not fit its table, is
/// named as a whole from where that shows.
pub(crate) fn walk(walk: &mut Walk<'_>, kind: OrderKind, schema: u16, length: usize) -> Result<(), Short> {
    match TABLES.iter().find(|table| (table.kind, table.schema) == (kind, schema)) {
        Some(table) => by_table(walk, "payload ", table, length),
        None => walk.optional("payload", length, blob),
    }
}

/// Names the fields of `length` bytes as `table` has them, and what does not fit it as a whole.
pub(crate) fn by_table(walk: &mut Walk<'_>, prefix: &str, table: &Table, length: usize) -> Result<(), Short> {
    let end = walk.at() + length;
    let _ = fields(walk, prefix, table.fields, end);
    walk.optional(format!("{prefix}rest, not as its kind has it"), end.saturating_sub(walk.at()), blob)
}

/// The payload named `name` on the command line.
pub(crate) fn table(name: &str) -> Option<&'static Table> {
    TABLES.iter().chain([&STOCK_ANSWER]).find(|table| table.name == name)
}

/// What is wrong with the bytes of a payload according to the library; nothing is, of a kind it does not know.
pub(crate) fn judge(table: &Table, bytes: &[u8]) -> Option<PayloadError> {
    match table.name {
        "stock-answer" => StockAnswer::decode(bytes).err(),
        _ => judge_order(table.kind, table.schema, bytes),
    }
}

/// The same for the payload of an order.
pub(crate) fn judge_order(kind: OrderKind, schema: u16, bytes: &[u8]) -> Option<PayloadError> {
    if !TABLES.iter().any(|table| (table.kind, table.schema) == (kind, schema)) {
        return None;
    }
    match kind {
        OrderKind::REFRESH_CONTENT => RefreshContent::decode(bytes).err(),
        OrderKind::SHOW_PAGE => ShowPage::decode(bytes).err(),
        OrderKind::MESSAGE => Message::decode(bytes).err(),
        OrderKind::RESTART_APP => RestartApp::decode(bytes).err(),
        OrderKind::UPDATE_FIRMWARE => UpdateFirmware::decode(bytes).err(),
        OrderKind::PRINT => Print::decode(bytes).err(),
        OrderKind::PRICE_LIST => PriceList::decode(bytes).err(),
        OrderKind::PREPARE_COLLECT => PrepareCollect::decode(bytes).err(),
        OrderKind::TRANSFER_CART => TransferCart::decode(bytes).err(),
        OrderKind::STOCK_QUESTION => StockQuestion::decode(bytes).err(),
        _ => None,
    }
}

/// Names `items` and stays before `end`.
pub(crate) fn fields(walk: &mut Walk<'_>, prefix: &str, items: &[Item], end: usize) -> Result<(), Short> {
    items.iter().try_for_each(|&(name, of)| field(walk, &format!("{prefix}{name}"), of, end))
}

fn field(walk: &mut Walk<'_>, name: &str, of: Type, end: usize) -> Result<(), Short> {
    let name_of = |part: &str| format!("{name} {part}");
    match of {
        Type::Unsigned(size) => fixed(walk, name, size, end, number),
        Type::Signed => fixed(walk, name, 8, end, |b| number_of(b).cast_signed().to_string()),
        Type::Bool => fixed(walk, name, 1, end, |b| if b == [0] { "no".into() } else { "yes".into() }),
        Type::Id => fixed(walk, name, 16, end, id),
        Type::Digest => fixed(walk, name, 32, end, hex),
        Type::Currency => fixed(walk, name, 3, end, text),
        Type::Text | Type::Bytes => {
            let length = length(walk, &name_of("length"), end)?;
            let show = if matches!(of, Type::Text) { quoted } else { blob };
            walk.optional(name.to_owned(), length, show)
        }
        Type::Option(inner) => {
            let there = walk.number(walk.at(), 1) != 0;
            fixed(walk, &name_of("is there"), 1, end, |b| if b == [0] { "no".into() } else { "yes".into() })?;
            if there { field(walk, name, *inner, end) } else { Ok(()) }
        }
        Type::Enum(variants) => {
            let number = walk.number(walk.at(), 4);
            let variant = usize::try_from(number).ok().and_then(|number| variants.get(number));
            let word =
                variant.map_or_else(|| format!("{number} (unknown)"), |(word, _)| format!("{number} {word}"));
            if walk.at() + 4 > end {
                return Err(Short);
            }
            walk.field(name.to_owned(), 4, |_| word)?;
            fields(walk, &format!("{name} "), variant.ok_or(Short)?.1, end)
        }
        Type::List(items) => {
            let length = length(walk, &name_of("length"), end)?;
            let (list_end, mut n) = (walk.at() + length, 0);
            while walk.at() < list_end {
                fields(walk, &format!("{name} {n} "), items, list_end)?;
                n += 1;
            }
            Ok(())
        }
        Type::Struct(items) => fields(walk, &format!("{name} "), items, end),
    }
}

fn fixed(
    walk: &mut Walk<'_>,
    name: &str,
    size: usize,
    end: usize,
    show: super::walk::Show,
) -> Result<(), Short> {
    if walk.at() + size > end {
        return Err(Short);
    }
    walk.field(name.to_owned(), size, show).map(|_| ())
}

/// A length that has to fit before `end`.
fn length(walk: &mut Walk<'_>, name: &str, end: usize) -> Result<usize, Short> {
    let length = usize::try_from(walk.number(walk.at(), 8)).map_err(|_| Short)?;
    if walk.at().saturating_add(8).saturating_add(length) > end {
        return Err(Short);
    }
    walk.field(name.to_owned(), 8, |b| format!("{} bytes", number_of(b)))?;
    Ok(length)
}

fn quoted(bytes: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(bytes))
}

/// Opaque bytes: as text if that is what they are.
fn blob(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(clean) if !clean.contains(|c: char| c.is_control() && c != '\n') => format!("{clean:?}"),
        _ if bytes.len() <= 8 => word(bytes),
        _ => hex(bytes),
    }
}
