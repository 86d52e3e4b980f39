//! What a terminal sends for a key.

/// A key that means something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Escape,
    Backspace,
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-Z.
    Suspend,
    Char(char),
}

const SEQUENCES: [(&[u8], Key); 12] = [
    (b"\x1b[A", Key::Up),
    (b"\x1bOA", Key::Up),
    (b"\x1b[B", Key::Down),
    (b"\x1bOB", Key::Down),
    (b"\x1b[5~", Key::PageUp),
    (b"\x1b[6~", Key::PageDown),
    (b"\x1b[H", Key::Home),
    (b"\x1bOH", Key::Home),
    (b"\x1b[1~", Key::Home),
    (b"\x1b[F", Key::End),
    (b"\x1bOF", Key::End),
    (b"\x1b[4~", Key::End),
];

/// The keys in what was read at once. Sequences that mean nothing here are passed over.
pub(super) fn decode(mut bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    while let Some(&first) = bytes.first() {
        let (key, len) = match first {
            b'\r' | b'\n' => (Some(Key::Enter), 1),
            0x03 => (Some(Key::Interrupt), 1),
            0x1A => (Some(Key::Suspend), 1),
            0x08 | 0x7F => (Some(Key::Backspace), 1),
            0x1B => escape(bytes),
            0x20.. => char(bytes),
            _ => (None, 1),
        };
        keys.extend(key);
        bytes = bytes.get(len..).unwrap_or_default();
    }
    keys
}

fn escape(bytes: &[u8]) -> (Option<Key>, usize) {
    if let Some((sequence, key)) = SEQUENCES.iter().find(|(sequence, _)| bytes.starts_with(sequence)) {
        return (Some(*key), sequence.len());
    }
    if !matches!(bytes.get(1), Some(b'[' | b'O')) {
        return (Some(Key::Escape), 1);
    }
    // One we do not know: it ends with the first letter or tilde.
    let end = bytes.iter().skip(2).position(|byte| matches!(byte, b'@'..=b'~'));
    (None, end.map_or(bytes.len(), |end| end + 3))
}

fn char(bytes: &[u8]) -> (Option<Key>, usize) {
    let text = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    text.chars().next().map_or((None, 1), |c| (Some(Key::Char(c)), c.len_utf8()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_apart() {
        assert_eq!(decode(b"q"), [Key::Char('q')]);
        assert_eq!(decode("ü/".as_bytes()), [Key::Char('ü'), Key::Char('/')]);
        assert_eq!(decode(b"\x1b[A\x1bOB\x1b[6~"), [Key::Up, Key::Down, Key::PageDown]);
        assert_eq!(decode(b"\x1b"), [Key::Escape]);
        assert_eq!(decode(b"\x1b\x1b[H"), [Key::Escape, Key::Home]);
        assert_eq!(decode(b"\x1b[1;5Cx"), [Key::Char('x')], "Ctrl-Right means nothing");
        assert_eq!(decode(b"\x03\x1a\x7f\r\x01"), [Key::Interrupt, Key::Suspend, Key::Backspace, Key::Enter]);
        assert_eq!(decode(b"\xff\xfe"), []);
        assert_eq!(decode(b"\x1b["), []);
    }
}
