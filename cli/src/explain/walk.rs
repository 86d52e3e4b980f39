//! A cursor that names what it passes: every byte belongs to exactly one field.

use std::borrow::Cow;

/// One field: where it stands, how it is called in the specification, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// Bytes from the start of the input.
    pub(crate) offset: usize,
    /// Bytes of the field.
    pub(crate) size: usize,
    /// The specification's name.
    pub(crate) name: Cow<'static, str>,
    /// The value, for people.
    pub(crate) value: String,
}

/// How a field's bytes are shown.
pub(crate) type Show = fn(&[u8]) -> String;

/// One line of a byte table: name, bytes, how to show them.
pub(crate) type Row = (&'static str, usize, Show);

/// The input ended inside a field; the rest of it is what [`Walk::finish`] then names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Short;

/// The cursor.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    base: usize,
    fields: Vec<Field>,
}

impl<'a> Walk<'a> {
    /// A cursor over one message that starts `base` bytes into the input.
    pub(crate) const fn new(bytes: &'a [u8], base: usize) -> Self {
        Self { bytes, at: 0, base, fields: Vec::new() }
    }

    /// Bytes of the message passed so far.
    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    /// Bytes of the message not passed yet.
    pub(crate) const fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Up to `N` bytes at `at` in the message as a number, little-endian; what is not there counts as zero.
    pub(crate) fn number(&self, at: usize, size: usize) -> u64 {
        number_of(self.bytes.get(at..(at + size).min(self.bytes.len())).unwrap_or(&[]))
    }

    /// The next `size` bytes are the field `name`.
    pub(crate) fn field(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        size: usize,
        show: impl FnOnce(&'a [u8]) -> String,
    ) -> Result<&'a [u8], Short> {
        let bytes = self.bytes.get(self.at..).and_then(|rest| rest.get(..size)).ok_or(Short)?;
        self.fields.push(Field { offset: self.base + self.at, size, name: name.into(), value: show(bytes) });
        self.at += size;
        Ok(bytes)
    }

    /// A field that may be absent: nothing is said about no bytes.
    pub(crate) fn optional(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        size: usize,
        show: impl FnOnce(&'a [u8]) -> String,
    ) -> Result<(), Short> {
        if size > 0 {
            self.field(name, size, show)?;
        }
        Ok(())
    }

    /// A number of `size` bytes.
    pub(crate) fn read(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        size: usize,
        show: Show,
    ) -> Result<u64, Short> {
        self.field(name, size, show).map(number_of)
    }

    /// The rows of a table, one after the other; `prefix` goes before their names.
    pub(crate) fn rows(&mut self, prefix: &str, rows: &[Row]) -> Result<(), Short> {
        for &(name, size, show) in rows {
            let name = if prefix.is_empty() { Cow::from(name) } else { Cow::from(format!("{prefix}{name}")) };
            self.field(name, size, show)?;
        }
        Ok(())
    }

    /// Rows until `end` bytes of the message are passed.
    pub(crate) fn repeat(&mut self, what: &str, rows: &[Row], end: usize) -> Result<(), Short> {
        let size: usize = rows.iter().map(|row| row.1).sum();
        let mut n = 0;
        while self.at + size <= end {
            self.rows(&format!("{what} {n} "), rows)?;
            n += 1;
        }
        Ok(())
    }

    /// Ends the walk: bytes nothing was said about become one last field.
    pub(crate) fn finish(mut self) -> Vec<Field> {
        let left = self.left();
        if left > 0 {
            let _ = self.field("not explained", left, hex);
        }
        self.fields
    }
}

/// Little-endian; bytes past the eighth are not looked at.
pub(crate) fn number_of(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |value, &byte| (value << 8) | u64::from(byte))
}

/// An unsigned number.
pub(crate) fn number(bytes: &[u8]) -> String {
    number_of(bytes).to_string()
}

/// A number that means "none" when it is zero.
pub(crate) fn or_none(bytes: &[u8]) -> String {
    if bytes.iter().all(|&byte| byte == 0) { "none".to_owned() } else { number(bytes) }
}

/// A number as hexadecimal: keys, bits, checksums.
pub(crate) fn word(bytes: &[u8]) -> String {
    format!("0x{:0width$x}", number_of(bytes), width = 2 * bytes.len().min(8))
}

/// Bytes as they stand: ids, digests, nonces.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A 16-byte id; all zero is nobody.
pub(crate) fn id(bytes: &[u8]) -> String {
    if bytes.iter().all(|&byte| byte == 0) { "none".to_owned() } else { hex(bytes) }
}

/// Text in quotes, odd characters escaped; zero bytes at its end are padding.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
    format!("{:?}", String::from_utf8_lossy(&bytes[..end]))
}

/// Bytes that must be zero.
pub(crate) fn zero(bytes: &[u8]) -> String {
    if bytes.iter().all(|&byte| byte == 0) { "zero".to_owned() } else { hex(bytes) }
}

/// Milliseconds.
pub(crate) fn millis(bytes: &[u8]) -> String {
    format!("{} ms", number_of(bytes))
}

/// Seconds.
pub(crate) fn seconds(bytes: &[u8]) -> String {
    format!("{} s", number_of(bytes))
}

/// The names of the bits that are set, the rest as a number: `DURABLE | 0x20`.
pub(crate) fn bits(value: u64, names: &[(u64, &str)]) -> String {
    let mut rest = value;
    let mut words = Vec::new();
    for &(bit, name) in names {
        if rest & bit != 0 {
            words.push(name.to_owned());
            rest &= !bit;
        }
    }
    if rest != 0 {
        words.push(format!("0x{rest:02x}"));
    }
    if words.is_empty() { "none".to_owned() } else { words.join(" | ") }
}

/// `number name`, or the number alone if it has none.
pub(crate) fn named(value: u64, names: &[(u64, &str)]) -> String {
    match names.iter().find(|(number, _)| *number == value) {
        Some((_, name)) => format!("{value} {name}"),
        None => format!("{value} (unknown)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_belongs_to_one_field() {
        let mut walk = Walk::new(&[1, 2, 0, 3, 4], 10);
        assert_eq!(walk.read("a", 1, number), Ok(1));
        assert_eq!(walk.read("b", 2, number), Ok(2));
        assert_eq!(walk.field("c", 4, hex), Err(Short));
        let fields = walk.finish();
        let places: Vec<_> = fields.iter().map(|f| (f.offset, f.size, f.name.as_ref())).collect();
        assert_eq!(places, [(10, 1, "a"), (11, 2, "b"), (13, 2, "not explained")]);
    }

    #[test]
    fn values_are_shown_as_people_say_them() {
        assert_eq!(bits(0x29, &[(1, "A"), (8, "B")]), "A | B | 0x20");
        assert_eq!(bits(0, &[(1, "A")]), "none");
        assert_eq!(text(b"ab\n\0\0"), "\"ab\\n\"");
        assert_eq!(word(&[0x34, 0x12]), "0x1234");
        assert_eq!((or_none(&[0, 0]), or_none(&[2, 0])), ("none".to_owned(), "2".to_owned()));
        assert_eq!(named(9, &[(1, "one")]), "9 (unknown)");
    }
}
