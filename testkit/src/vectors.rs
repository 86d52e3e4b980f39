//! The byte vectors of `docs/PROTOCOL.md`.

use wire_format::frame::Raw;

/// A fenced block of the specification: ```` ```SORT NAME ````, then bytes in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vector {
    /// `vector` (datagrams, frames, parts of them) or `payload`.
    pub sort: String,
    /// Its name, unique within the sort.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Vector {
    /// Whether this is a datagram of discovery.
    #[must_use]
    pub fn is_datagram(&self) -> bool {
        self.sort == "vector" && self.bytes.starts_with(b"TWLD")
    }

    /// Whether this is a whole frame of order push.
    #[must_use]
    pub fn is_frame(&self) -> bool {
        self.sort == "vector" && Raw::parse(&self.bytes).is_ok()
    }

    /// Whether this is neither a datagram nor a frame but a part of one: the options of an ORDER.
    #[must_use]
    pub fn is_options(&self) -> bool {
        self.sort == "vector" && !self.is_datagram() && !self.is_frame()
    }

    /// The name as part of a file's: lower case, one dash for whatever is neither letter nor digit.
    #[must_use]
    pub fn file_name(&self) -> String {
        let words = self.name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
    }
}

/// All vectors, in the order of the document.
///
/// # Panics
///
/// If a block holds anything but pairs of hexadecimal digits.
#[must_use]
pub fn all() -> Vec<Vector> {
    let mut vectors = Vec::new();
    let mut rest = include_str!("../../docs/PROTOCOL.md");
    while let Some((head, block)) = next_block(rest) {
        let (body, after) = block.split_once("\n```").expect("the block ends");
        if let Some((sort @ ("vector" | "payload"), name)) = head.split_once(' ') {
            vectors.push(Vector {
                sort: sort.to_owned(),
                name: name.trim().to_owned(),
                bytes: hex(name, body),
            });
        }
        rest = after;
    }
    vectors
}

/// The info string of the next fenced block, and what follows it.
fn next_block(text: &str) -> Option<(&str, &str)> {
    let (_, block) = text.split_once("\n```")?;
    let head = block.lines().next()?;
    Some((head, &block[head.len()..]))
}

fn hex(name: &str, text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| u8::try_from(c.to_digit(16).unwrap_or_else(|| panic!("{name}: {c:?} is no digit"))).unwrap())
        .collect();
    assert!(digits.len().is_multiple_of(2), "{name}: an odd number of digits");
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specification_has_vectors_of_every_sort() {
        let all = all();
        let order = all.iter().find(|vector| vector.name == "ORDER").expect("ORDER");
        assert!(order.is_frame() && order.bytes.len() == 72);
        let payload = all.iter().find(|vector| vector.name == "STOCK-ANSWER").expect("STOCK-ANSWER");
        assert!(!payload.is_frame() && !payload.is_datagram() && payload.file_name() == "stock-answer");
        let mut names: Vec<_> = all.iter().map(|vector| (&vector.sort, vector.file_name())).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len(), "two vectors of one name");
    }
}
