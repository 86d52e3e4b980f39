//! Every vector of the specification is explained to its last byte, and every cut of it is called wrong.

use super::*;

const PROTOCOL: &str = include_str!("../../../docs/PROTOCOL.md");

/// Name, form and bytes of every vector: messages tell by their bytes what they are, payloads by their name.
fn vectors() -> Vec<(String, Form, Vec<u8>)> {
    let mut vectors = Vec::new();
    for (fence, alone) in [("```vector ", false), ("```payload ", true)] {
        for block in PROTOCOL.split(fence).skip(1) {
            let (name, rest) = block.split_once('\n').expect("a name");
            let (hex, _) = rest.split_once("```").expect("the block ends");
            // A payload with several vectors has a word of its own for each: PRINT, PRINT-FETCH.
            let name_of = |cut: usize| name.to_ascii_lowercase().rsplitn(cut, '-').last().map(payload::table);
            let form = match (1..3).find_map(|cut| name_of(cut).flatten()) {
                Some(table) if alone => Form::Payload(table),
                _ if name == "ORDER options" => Form::OrderOptions,
                _ => Form::Auto,
            };
            vectors.push((name.to_owned(), form, crate::control::request::unhex(hex).expect("digits")));
        }
    }
    assert!(!vectors.is_empty());
    vectors
}

fn covered(messages: &[Message]) -> usize {
    let mut at = 0;
    for message in messages {
        for field in &message.fields {
            assert_eq!(
                field.offset, at,
                "{}: {} does not follow the field before it",
                message.title, field.name
            );
            at += field.size;
        }
    }
    at
}

fn fields(messages: &[Message]) -> impl Iterator<Item = &Field> {
    messages.iter().flat_map(|message| &message.fields)
}

#[test]
fn every_vector_is_explained_to_the_last_byte() {
    for (name, form, bytes) in vectors() {
        let messages = explain(&bytes, form);
        assert_eq!(covered(&messages), bytes.len(), "{name}");
        for message in &messages {
            assert!(!message.is_wrong(), "{name}: {:?}", message.fault);
        }
        for field in fields(&messages).filter(|_| messages[0].fault.is_none()) {
            assert!(
                !field.name.contains("explained") && !field.name.contains("its kind"),
                "{name}: {field:?}"
            );
        }
    }
}

#[test]
fn every_cut_of_a_vector_is_an_error_inside_it() {
    for (name, form, bytes) in vectors() {
        // A list of options is whole at the end of each entry.
        let whole = if matches!(form, Form::OrderOptions) { 16 } else { 0 };
        for len in (1..bytes.len()).filter(|&len| len != whole) {
            let messages = explain(&bytes[..len], form);
            assert_eq!(covered(&messages), len, "{name} cut to {len}");
            let fault = messages.iter().filter(|message| message.is_wrong()).find_map(|m| m.fault.as_ref());
            let fault = fault.unwrap_or_else(|| panic!("{name} cut to {len} is not called wrong"));
            assert!(fault.offset <= len, "{name} cut to {len}: {fault:?}");
        }
    }
}

#[test]
fn a_flipped_bit_never_loses_a_byte() {
    for (name, form, bytes) in vectors() {
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(covered(&explain(&flipped, form)), flipped.len(), "{name}, bit {bit}");
        }
    }
}

#[test]
fn junk_is_explained_as_far_as_it_goes() {
    let mut rng = wire_format::rng::Rng::new(1);
    for case in 0..2_000_u64 {
        let len = rng.below(200) + 1;
        let mut bytes: Vec<u8> = (0..len).map(|_| rng.next_u64().to_le_bytes()[0]).collect();
        if case % 2 == 0 && bytes.len() >= 4 {
            bytes[..4].copy_from_slice(b"TWLD");
        }
        for form in [Form::Auto, Form::Datagram, Form::Frames, Form::OrderBody] {
            assert_eq!(covered(&explain(&bytes, form)), bytes.len());
        }
        for table in payload_tables::TABLES {
            assert_eq!(covered(&explain(&bytes, Form::Payload(table))), bytes.len());
        }
    }
}

#[test]
fn a_stream_is_explained_frame_by_frame_up_to_its_fault() {
    let frames: Vec<_> =
        vectors().into_iter().map(|(_, _, bytes)| bytes).filter(|bytes| begins_as_frame(bytes)).collect();
    let mut stream = frames.concat();
    let messages = explain(&stream, Form::Auto);
    assert_eq!(messages.len(), frames.len());
    assert!(!messages.iter().any(Message::is_wrong));
    assert_eq!(covered(&messages), stream.len());
    stream.truncate(stream.len() - 1);
    let messages = explain(&stream, Form::Auto);
    let faults = messages.iter().filter(|message| message.is_wrong()).count();
    assert_eq!((messages.len(), faults), (frames.len(), 1));
}

#[test]
fn an_order_shows_its_typed_payload_and_what_is_wrong_with_it() {
    use wire_format::payload::{Message as Text, Payload, Severity};
    let message = Text {
        id: 7,
        severity: Severity::Alarm,
        title: "",
        text: "Lane 3 please",
        confirm: true,
        duration_s: None,
    };
    let mut buffer = [0; 2_000];
    let len = message.encode(&mut buffer).unwrap();
    let emit = |payload: &[u8]| {
        let mut body = vec![0; 2_000];
        let len = Text::order(1, payload).emit_body(&mut body).unwrap();
        body.truncate(len);
        body
    };
    let messages = explain(&emit(&buffer[..len]), Form::Auto);
    let values: Vec<_> = fields(&messages).map(|field| (field.name.as_ref(), field.value.as_str())).collect();
    assert!(values.contains(&("payload severity", "2 alarm")), "{values:?}");
    assert!(values.contains(&("payload text", "\"Lane 3 please\"")), "{values:?}");
    assert!(messages[0].fault.is_none());
    buffer[8] = 9;
    let messages = explain(&emit(&buffer[..len]), Form::Auto);
    assert_eq!(messages[0].fault.as_ref().unwrap().offset, 48 + 8, "where the severity stands");
    assert_eq!(covered(&messages), messages[0].size);
}

/// The walk's names are those of the specification's tables: whoever renames a field there finds it here. A name may
/// stand after the entry it belongs to ("started 0 number") or before a part of it ("durable floors, lane 0").
#[test]
fn names_are_the_specifications() {
    let names: Vec<String> = PROTOCOL.lines().filter_map(table_field).collect();
    for (name, form, bytes) in vectors() {
        if matches!(form, Form::Payload(_)) {
            continue;
        }
        for field in fields(&explain(&bytes, form)) {
            let own = field.name.as_ref();
            let is = |known: &String| {
                own == known
                    || own.strip_suffix(known.as_str()).is_some_and(|rest| rest.ends_with(' '))
                    || own.strip_prefix(known.as_str()).is_some_and(|rest| rest.starts_with([' ', ',']))
            };
            // Entries are described by their type's row, not field by field.
            let entry = own.starts_with(|c: char| c.is_ascii_uppercase());
            assert!(entry || names.iter().any(is), "{name}: {own:?} is no name of the specification");
        }
    }
}

/// The third cell of a byte table's row.
fn table_field(line: &str) -> Option<String> {
    let mut cells = line.strip_prefix("| ")?.split(" | ");
    cells.next()?.starts_with(|c: char| c.is_ascii_digit() || c == '–').then_some(())?;
    cells.nth(1).map(|cell| cell.trim_matches('`').to_owned())
}
