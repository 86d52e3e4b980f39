//! What holds for every frame.

use super::*;
use crate::testing;

const PROTOCOL: &str = include_str!("../../../docs/PROTOCOL.md");

/// Every kind's name in the specification, and the second vector of STATUS.
fn vectors() -> impl Iterator<Item = (Kind, Vec<u8>)> {
    let named = Kind::NAMES.iter().copied();
    named.chain([(Kind::STATUS, "STATUS answer")]).map(|(kind, name)| (kind, testing::vector(name)))
}

fn again(raw: &Raw<'_>, buffer: &mut [u8]) -> Result<Result<usize, EmitError>, ParseError> {
    Ok(Frame::parse(raw)?.emit(buffer))
}

#[test]
fn every_kind_has_a_vector_and_is_dispatched_to_its_own_codec() {
    for (kind, bytes) in vectors() {
        assert_eq!(Raw::parse(&bytes).unwrap().header.kind, kind);
        testing::frame(&bytes, again);
    }
}

#[test]
fn no_codec_takes_a_frame_of_another_kind() {
    for (kind, _) in vectors() {
        for (other, mut bytes) in vectors().filter(|&(other, _)| other != kind) {
            bytes[4] = kind.0;
            testing::repair(&mut bytes);
            let raw = Raw::parse(&bytes).unwrap();
            let Ok(frame) = Frame::parse(&raw) else { continue };
            let mut buffer = vec![0; bytes.len()];
            assert_eq!(frame.emit(&mut buffer), Ok(bytes.len()), "{other} as {kind}");
            assert_eq!(buffer, bytes, "{other} as {kind}");
        }
    }
}

#[test]
fn a_length_the_kind_cannot_have_never_reaches_a_field() {
    for &(kind, _) in Kind::NAMES {
        let (least, most) = kind.body_lens().expect("known");
        let parse = |len: usize| {
            let header = Header::new(kind, u32::try_from(len).unwrap());
            Frame::parse(&Raw { header, body: &vec![0; len] }).unwrap_err()
        };
        let length = ParseError::new("length", 0, Fault::Length);
        assert_eq!(parse(most + 1), length, "{kind}");
        if least > 0 {
            assert_eq!(parse(least - 1), length, "{kind}");
            assert_ne!(parse(least), length, "{kind}");
        }
    }
}

#[test]
fn unknown_kinds_are_skipped_only_if_they_say_so() {
    for number in (0..=u8::MAX).filter(|&number| Kind(number).body_lens().is_none()) {
        let header = Header::new(Kind(number), 3);
        let refused = Frame::parse(&Raw { header, body: b"any" });
        assert_eq!(refused, Err(ParseError::new("kind", 4, Fault::UnknownKind)));
        let header = Header { flags: Flags::IGNORABLE, ..header };
        let frame = Frame::parse(&Raw { header, body: b"any" });
        assert_eq!(frame, Ok(Frame::Ignored(Kind(number))));
    }
    let nothing = EmitError::Invalid { field: "kind" };
    assert_eq!(Frame::Ignored(Kind(0x77)).emit(&mut [0; 64]), Err(nothing));
}

#[test]
fn a_known_kind_is_never_ignorable() {
    for (kind, mut bytes) in vectors() {
        bytes[5] |= Flags::IGNORABLE.bits();
        testing::repair(&mut bytes);
        let frame = Frame::parse(&Raw::parse(&bytes).unwrap());
        assert_eq!(frame, Err(ParseError::new("flags", 5, Fault::NotZero)), "{kind}");
    }
}

/// A number as the document prints it: 65,840.
fn printed(number: usize) -> String {
    let digits = number.to_string();
    match digits.len().checked_sub(3) {
        Some(at @ 1..) => format!("{},{}", &digits[..at], &digits[at..]),
        _ => digits,
    }
}

#[test]
fn the_document_lists_these_kinds_with_these_lengths() {
    let table = PROTOCOL.lines().filter(|line| line.starts_with("| 0x") && line.matches('|').count() == 6);
    let rows: Vec<Vec<&str>> = table.map(|line| line.split('|').map(str::trim).collect()).collect();
    assert_eq!(rows.len(), Kind::NAMES.len(), "one row per kind");
    for (row, (kind, name)) in rows.iter().zip(Kind::NAMES) {
        let lens = match kind.body_lens().expect("known") {
            (least, most) if least == most => printed(least),
            (least, most) => format!("{} to {}", printed(least), printed(most)),
        };
        assert_eq!([row[1], row[2], row[4]], [&format!("0x{:02x}", kind.0), *name, &lens]);
    }
}

#[test]
fn the_document_lists_these_codes() {
    let in_document = |number: u16, name: &str| {
        let row = format!("| {number} | {} | ", name.to_uppercase().replace('-', "_"));
        assert!(PROTOCOL.contains(&row), "{row}");
    };
    reject::Code::NAMES.iter().for_each(|(code, name)| in_document(code.0, name));
    outcome::Code::NAMES.iter().for_each(|(code, name)| in_document(code.0.into(), name));
    reply::Code::NAMES.iter().for_each(|(code, name)| in_document(code.0.into(), name));
    drain::Reason::NAMES.iter().for_each(|(code, name)| in_document(code.0, name));
    bye::Code::NAMES.iter().for_each(|(code, name)| in_document(code.0, name));
}

proptest::proptest! {
    /// Whatever a broken or hostile peer makes of a right frame, with every checksum made right again: it is refused, or
    /// it means exactly the bytes it is.
    #[test]
    fn a_frame_with_bytes_changed_is_refused_or_comes_back(
        which: proptest::sample::Index,
        changes in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), 0_u8..), 1..4),
    ) {
        let vectors: Vec<_> = vectors().collect();
        let mut bytes = which.get(&vectors).1.clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        testing::repair(&mut bytes);
        let mut buffer = vec![0; 70_000];
        if let Ok(raw) = Raw::parse(&bytes)
            && let Ok(frame) = Frame::parse(&raw)
            && !matches!(frame, Frame::Ignored(_))
        {
            let len = frame.emit(&mut buffer);
            proptest::prop_assert_eq!(len, Ok(bytes.len()));
            proptest::prop_assert_eq!(&buffer[..bytes.len()], &bytes[..]);
        }
    }

    #[test]
    fn any_body_of_any_kind_is_refused_or_comes_back(
        kind: proptest::sample::Index, flags in 0_u8..0x20, aux16 in 0_u16..20, aux32 in 0_u32..100,
        body in proptest::collection::vec(0_u8..4, 0..100),
    ) {
        let kind = kind.get(Kind::NAMES).0;
        let mut bytes = [&Header { aux16, aux32, ..Header::new(kind, body.len() as u32) }.emit()[..], &body].concat();
        bytes[5] = flags;
        testing::repair(&mut bytes);
        let mut buffer = vec![0; 1_024];
        if let Ok(frame) = Frame::parse(&Raw::parse(&bytes).unwrap()) {
            let len = frame.emit(&mut buffer).unwrap();
            proptest::prop_assert_eq!(&buffer[..len], &bytes[..]);
        }
    }
}
