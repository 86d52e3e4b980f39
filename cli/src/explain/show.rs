//! How an explanation is printed: a table for people, a line per field for programs.

use core::fmt::Write;

use anstyle::AnsiColor;
use serde_json::json;

use super::{Fault, Message};
use crate::out::{self, FAINT, STRONG};

/// Bytes shown of one field; longer ones end in a mark.
const FIELD_BYTES_SHOWN: usize = 8;
/// Characters shown of one value.
const VALUE_CHARS_SHOWN: usize = 72;
/// Bytes in a row of the picture below an error.
const ROW: usize = 16;

/// One object per field, one per error.
pub(super) fn json(messages: &[Message]) {
    for message in messages {
        for field in &message.fields {
            out::json(&json!({
                "event": "field", "message": message.title, "offset": field.offset, "size": field.size,
                "field": field.name, "value": field.value,
            }));
        }
        if let Some(fault) = &message.fault {
            out::json(&json!({
                "event": word(fault), "message": message.title, word(fault): fault.what, "field": fault.field,
                "offset": fault.offset,
            }));
        }
    }
}

/// The line's event, and the name of what it says.
const fn word(fault: &Fault) -> &'static str {
    if fault.wrong { "error" } else { "warning" }
}

/// A table per message and, where one is wrong, a picture of the place.
pub(super) fn people(bytes: &[u8], messages: &[Message]) {
    for message in messages {
        out::text(&table(bytes, message));
        if let Some(fault) = &message.fault {
            out::text(&picture(bytes, message, fault));
        }
    }
}

fn table(bytes: &[u8], message: &Message) -> String {
    let mut text = out::title(&message.title);
    let _ = writeln!(text, ", {} bytes, at byte {}", message.size, message.offset);
    let width = message.fields.iter().map(|field| field.name.len()).max().unwrap_or(0);
    for field in &message.fields {
        let raw = bytes.get(field.offset..field.offset + field.size).unwrap_or(&[]);
        let _ = writeln!(
            text,
            "{FAINT}{:>7}{FAINT:#}  {:<24} {STRONG}{:<width$}{STRONG:#}  {}",
            field.offset,
            shortened_bytes(raw),
            field.name,
            shortened(&field.value),
        );
    }
    text
}

fn shortened_bytes(bytes: &[u8]) -> String {
    let mut text = spaced(bytes.get(..FIELD_BYTES_SHOWN).unwrap_or(bytes));
    if bytes.len() > FIELD_BYTES_SHOWN {
        text.push('…');
    }
    text
}

fn shortened(value: &str) -> String {
    match value.char_indices().nth(VALUE_CHARS_SHOWN) {
        Some((at, _)) => format!("{}…", &value[..at]),
        None => value.to_owned(),
    }
}

fn spaced(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

/// The error, the row of bytes it stands in, and a caret under each byte of the field.
fn picture(bytes: &[u8], message: &Message, fault: &Fault) -> String {
    let row = fault.offset / ROW * ROW;
    // What is missing has its caret behind the last byte there is.
    let row = if row > 0 && row >= bytes.len() { row - ROW } else { row };
    let shown = bytes.get(row..(row + ROW).min(bytes.len())).unwrap_or(&[]);
    let size = message.fields.iter().find(|field| field.offset == fault.offset).map_or(1, |field| field.size);
    let column = fault.offset - row;
    let carets = size.min(ROW.saturating_sub(column)).max(1);
    let color = if fault.wrong { AnsiColor::Red } else { AnsiColor::Yellow }.on_default().bold();
    format!(
        "{color}{}{color:#}: {} at byte {}: {}\n{row:>7} | {}\n{:>7} | {}{color}{}{color:#}\n",
        word(fault),
        fault.field,
        fault.offset,
        fault.what,
        spaced(shown),
        "",
        " ".repeat(3 * column),
        vec!["^^"; carets].join(" "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::{Form, explain};

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn the_caret_stands_under_the_wrong_bytes() {
        let mut bytes = [0, 0, 0, 0, 0x30, 0, 0, 0, 0x78, 0x56, 0x34, 0x12, 0x44, 0x8F, 0x62, 0x58];
        bytes[13] ^= 1;
        let messages = explain(&bytes, Form::Auto);
        let fault = messages[0].fault.as_ref().unwrap();
        let text = plain(&picture(&bytes, &messages[0], fault));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "error: checksum at byte 12: the checksum does not match");
        assert_eq!(lines[1].find("44 8e"), lines[2].find("^^ ^^ ^^ ^^"), "{text}");
    }

    #[test]
    fn what_is_missing_is_pointed_at_behind_the_end() {
        let bytes = [0, 0, 0, 0, 0x30];
        let messages = explain(&bytes, Form::Auto);
        let text = plain(&picture(&bytes, &messages[0], messages[0].fault.as_ref().unwrap()));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[1].len() + 1, lines[2].find('^').unwrap(), "{text}");
    }
}
