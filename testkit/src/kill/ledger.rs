//! What the devices' ledgers show: a line per order handed over, in its order, with where in the file it ends.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::plan::Deed;

/// One order as a device's application saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Bytes of the ledger with this line.
    pub(super) end: u64,
    pub(super) lineage: String,
    pub(super) number: u64,
    pub(super) digest: String,
    pub(super) redelivered: bool,
    pub(super) outcome: String,
}

/// Bytes of a ledger now; 0 if it is not there yet.
pub(super) fn len(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |about| about.len())
}

/// Every line. One that is none is told as text: a ledger is written a line at a time.
pub(super) fn read(path: &Path) -> Result<Vec<Line>, String> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let mut end = 0;
    let line = |text: &str| {
        end += text.len() as u64;
        parse(text, end).ok_or_else(|| format!("{}: no line of a ledger: {text:?}", path.display()))
    };
    text.split_inclusive('\n').map(line).collect()
}

fn parse(text: &str, end: u64) -> Option<Line> {
    let line: Value = serde_json::from_str(text.strip_suffix('\n')?).ok()?;
    Some(Line {
        end,
        lineage: line["lineage"].as_str()?.to_owned(),
        number: line["order"].as_u64()?,
        digest: line["payload_sha256"].as_str()?.to_owned(),
        redelivered: line["redelivered"].as_bool()?,
        outcome: line["outcome"].as_str()?.to_owned(),
    })
}

/// Names by the digest of their payload: no two payloads are the same, for each begins with its name.
pub(super) fn names<'d>(deeds: impl Iterator<Item = &'d Deed>) -> BTreeMap<String, u64> {
    deeds.map(|deed| (digest(&deed.payload), deed.name)).collect()
}

fn digest(payload: &[u8]) -> String {
    Sha256::digest(payload).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_know_where_they_end_and_half_a_line_is_told() {
        let path = std::env::temp_dir().join(format!("tillwire-kill-ledger-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        assert_eq!((len(&path), read(&path)), (0, Ok(Vec::new())));
        let line = |number: u64| {
            format!(
                "{{\"lineage\":\"aa\",\"order\":{number},\"payload_sha256\":\"{}\",\"redelivered\":false,\
                 \"outcome\":\"applied\"}}\n",
                digest(b"abc")
            )
        };
        std::fs::write(&path, line(1) + &line(2)).unwrap();
        let lines = read(&path).unwrap();
        assert_eq!(lines.iter().map(|line| line.number).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((lines[0].end, lines[1].end), (line(1).len() as u64, len(&path)));
        assert!(lines[0].digest.starts_with("ba7816bf"), "the digest of abc in FIPS 180-4");
        std::fs::write(&path, &line(1)[..20]).unwrap();
        assert!(read(&path).unwrap_err().contains("no line of a ledger"));
        std::fs::remove_file(path).unwrap();
    }
}
