//! Where the bytes to explain come from.

use std::io::Read;
use std::path::Path;

use crate::error::Failure;

/// Bytes of input: far more than any message, little enough to hold.
const INPUT_BYTES_MAX: u64 = 16 << 20;

/// Digits on the command line, a file, or stdin.
pub(super) fn read(input: &[String]) -> Result<Vec<u8>, Failure> {
    let bytes = match input {
        [one] if one == "-" => limited(std::io::stdin().lock(), "stdin")?,
        [one] if Path::new(one).is_file() => {
            let file = std::fs::File::open(one).map_err(|error| unreadable(one, &error))?;
            limited(file, one)?
        }
        words => return digits(words.join(" ").as_bytes()).map_err(|error| not_hex(words, &error)),
    };
    // Digits that were saved to a file are more likely than bytes that all look like digits.
    match digits(&bytes) {
        Ok(decoded) if !decoded.is_empty() => Ok(decoded),
        _ if bytes.is_empty() => {
            Err(Failure::start("there are no bytes to explain", "give hexadecimal digits or a file"))
        }
        _ => Ok(bytes),
    }
}

fn limited(from: impl Read, name: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    from.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| unreadable(name, &error))?;
    if bytes.len() as u64 > INPUT_BYTES_MAX {
        return Err(Failure::start(
            format!("{name} has more than {INPUT_BYTES_MAX} bytes"),
            "cut out the part in question, for instance with dd or tail",
        ));
    }
    Ok(bytes)
}

fn unreadable(name: &str, error: &std::io::Error) -> Failure {
    Failure::start(format!("cannot read {name}: {error}"), "give a file this user may read")
}

fn not_hex(words: &[String], error: &str) -> Failure {
    let help = match words {
        [one] if one.contains(['/', '.']) => "there is no file of this name".to_owned(),
        _ => "bytes are pairs of hexadecimal digits; for a file give its name, for stdin -".to_owned(),
    };
    Failure::start(error, help)
}

/// Pairs of hexadecimal digits; white space, commas, colons and `0x` between them are passed over.
fn digits(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut high = None;
    let mut rest = text;
    while let Some((&c, tail)) = rest.split_first() {
        rest = tail;
        match (char::from(c).to_digit(16), high) {
            (Some(0), None) if tail.first().is_some_and(|x| matches!(x, b'x' | b'X')) => rest = &tail[1..],
            (Some(digit), None) => high = Some(digit),
            (Some(digit), Some(before)) => {
                bytes.push(u8::try_from(before * 16 + digit).unwrap_or(0));
                high = None;
            }
            (None, None) if c.is_ascii_whitespace() || matches!(c, b',' | b':') => {}
            (None, _) => {
                return Err(format!("{:?} is not a hexadecimal digit of a pair", char::from(c)));
            }
        }
    }
    match high {
        None if bytes.is_empty() => Err("there are no bytes to explain".to_owned()),
        None => Ok(bytes),
        Some(_) => Err("an odd number of hexadecimal digits".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_at_its_limit_and_one_past_it() {
        let read = |len: u64| limited(std::io::repeat(7).take(len), "it").map(|bytes| bytes.len() as u64);
        assert_eq!(read(INPUT_BYTES_MAX), Ok(INPUT_BYTES_MAX));
        assert!(read(INPUT_BYTES_MAX + 1).unwrap_err().cause.contains("16777216"));
    }

    #[test]
    fn digits_in_the_forms_people_paste() {
        for text in ["38000010", "38 00 00 10", "0x38, 0x00,0x00 0x10", "38:00:00:10\n", "0X38000010"] {
            assert_eq!(digits(text.as_bytes()).unwrap(), [0x38, 0, 0, 0x10], "{text}");
        }
        for wrong in ["", " ", "3", "3 8", "38 0g", "zz"] {
            assert!(digits(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }
}
