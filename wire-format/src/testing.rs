//! The checks every codec of this package passes: one function per family.

use crate::error::{EmitError, ParseError};
use crate::frame::{Raw, header};

const PROTOCOL: &str = include_str!("../../docs/PROTOCOL.md");

/// Fewer cases than usual: each runs through every truncation and every flipped bit.
pub(crate) fn config() -> proptest::test_runner::Config {
    proptest::test_runner::Config {
        failure_persistence: None,
        ..proptest::test_runner::Config::with_cases(48)
    }
}

/// The vector called `name` in `docs/PROTOCOL.md`: a fenced block that begins with ```` ```vector NAME ````, hexadecimal
/// digits, white space ignored.
pub(crate) fn vector(name: &str) -> Vec<u8> {
    block("vector", name)
}

/// A block of another sort (`payload`), written the same way.
pub(crate) fn block(sort: &str, name: &str) -> Vec<u8> {
    let fence = format!("```{sort} {name}\n");
    let (_, rest) =
        PROTOCOL.split_once(&fence).unwrap_or_else(|| panic!("docs/PROTOCOL.md has no {sort} {name}"));
    let (hex, _) = rest.split_once("```").expect("the block ends");
    let digits: String = hex.chars().filter(|c| !c.is_whitespace()).collect();
    assert!(digits.len().is_multiple_of(2), "{sort} {name} has an odd number of digits");
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal"))
        .collect()
}

/// What `emit` writes: into a junk-filled buffer, into one of exactly that size, and refused in every shorter one.
pub(crate) fn emit(emit: impl Fn(&mut [u8]) -> Result<usize, EmitError>) -> Vec<u8> {
    let mut junk = vec![0xA5; 70_000];
    let len = emit(&mut junk).expect("emits");
    assert!(junk[len..].iter().all(|&byte| byte == 0xA5), "wrote past its length");
    let mut exact = vec![0x5A; len];
    assert_eq!(emit(&mut exact), Ok(len));
    assert_eq!(exact, junk[..len], "a byte was left to chance");
    for short in (0..len).rev().take(512) {
        assert_eq!(emit(&mut junk[..short]), Err(EmitError::NoRoom { need: len }));
    }
    exact
}

/// A codec over whole datagrams: `again` parses and emits what it parsed. `bytes` is in the form this version sends.
///
/// Every truncation is refused, and so is a trailing byte. A flipped bit is refused or means something. On purpose a
/// datagram has more than one form (unknown entries, a longer header, reserved bits), so what is accepted must mean the
/// same once it is sent in this version's form.
pub(crate) fn datagram(
    bytes: &[u8],
    again: impl Fn(&[u8], &mut [u8]) -> Result<Result<usize, EmitError>, ParseError>,
) {
    let mut buffer = vec![0xA5; 70_000];
    flip_bits(bytes, |input| {
        let back = again(input, &mut buffer)?.map(|len| buffer[..len].to_vec()).expect("what parses, emits");
        let len = again(&back, &mut buffer).expect("what was emitted, parses").expect("and emits");
        assert_eq!(buffer[..len], back, "means something else in this version's form");
        Ok(back)
    });
}

/// What `round` makes of `bytes`, of all its truncations, of one byte more (the first gives the same bytes, the others
/// are refused), and of a flip of each bit.
fn flip_bits(bytes: &[u8], mut round: impl FnMut(&[u8]) -> Result<Vec<u8>, ParseError>) {
    assert_eq!(round(bytes).expect("parses"), bytes);
    for len in 0..bytes.len() {
        assert!(round(&bytes[..len]).is_err(), "cut to {len} of {} bytes and still accepted", bytes.len());
    }
    let mut long = bytes.to_vec();
    long.push(0);
    assert!(round(&long).is_err(), "a trailing byte was accepted");
    for bit in 0..bytes.len().min(400) * 8 {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let _accepted = round(&flipped);
    }
}

/// A codec over frames: every truncation, every trailing byte and every flipped bit is refused. The same flips are tried
/// with checksums made right again, so that the checks behind them are reached too: what is accepted then comes back bit
/// by bit (no two byte strings mean the same).
pub(crate) fn frame(
    bytes: &[u8],
    again: impl Fn(&Raw<'_>, &mut [u8]) -> Result<Result<usize, EmitError>, ParseError>,
) {
    let mut buffer = vec![0xA5; 70_000];
    flip_bits(bytes, |input| {
        let len = again(&Raw::parse(input)?, &mut buffer)?.expect("what parses, emits");
        Ok(buffer[..len].to_vec())
    });
    for bit in 0..bytes.len().min(400) * 8 {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let refused = Raw::parse(&flipped).and_then(|raw| again(&raw, &mut buffer)).is_err();
        assert!(refused, "bit {bit} flipped and still accepted");
        repair(&mut flipped);
        if let Ok(Ok(len)) = Raw::parse(&flipped).and_then(|raw| again(&raw, &mut buffer)) {
            assert_eq!(buffer[..len], flipped, "bit {bit} flipped means something that does not come back");
        }
    }
}

/// Makes the checksums of a frame right.
pub(crate) fn repair(bytes: &mut [u8]) {
    let order = bytes[4] == 0x10;
    let (head, body) = bytes.split_at_mut(header::LEN);
    if order && body.len() >= 48 {
        let checksum = crate::crc::append(crate::crc::crc32c(&body[..44]), &body[48..]);
        body[44..48].copy_from_slice(&checksum.to_le_bytes());
    } else if let Some(at) = body.len().checked_sub(4) {
        let checksum = crate::crc::crc32c(&body[..at]);
        body[at..].copy_from_slice(&checksum.to_le_bytes());
    }
    let checksum = crate::crc::crc32c(&head[..12]);
    head[12..].copy_from_slice(&checksum.to_le_bytes());
}
