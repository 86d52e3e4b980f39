//! The ledger of a simulated device: what its application was handed, one JSON object a line.
//!
//! Opened for append, one write per order, made before the outcome is reported: a reader that knows the orders that
//! were pushed can tell loss (no line), repetition (two lines without `redelivered`) and damage (another digest).

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::error::Failure;

/// One order as the application saw it.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    /// The identity of the log the order stands in.
    pub(crate) lineage: &'a dyn core::fmt::Display,
    /// The order's number in it.
    pub(crate) order: u64,
    /// The application's key, 0 for none.
    pub(crate) order_key: u64,
    /// What it asked for.
    pub(crate) kind: wire_format::ids::OrderKind,
    /// What it carried.
    pub(crate) payload: &'a [u8],
    /// It may have been handed over before.
    pub(crate) redelivered: bool,
    /// What the application made of it.
    pub(crate) outcome: &'a str,
}

impl Entry<'_> {
    /// The line, without its end.
    pub(crate) fn json(&self) -> serde_json::Value {
        json!({
            "lineage": self.lineage.to_string(),
            "order": self.order,
            "order_key": self.order_key,
            "kind": self.kind.to_string(),
            "payload_sha256": hex(&Sha256::digest(self.payload)),
            "redelivered": self.redelivered,
            "outcome": self.outcome,
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The open file.
#[derive(Debug)]
pub(crate) struct Ledger(File);

impl Ledger {
    /// Opens `path` for append; made if it is not there.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        OpenOptions::new().append(true).create(true).open(path).map(Self).map_err(|error| {
            Failure::start(
                format!("cannot open the ledger {}: {error}", path.display()),
                "give --ledger a file this user may append to",
            )
        })
    }

    /// Appends one line with one write.
    pub(crate) fn append(&mut self, entry: &Entry<'_>) -> std::io::Result<()> {
        let line = format!("{}\n", entry.json());
        self.0.write_all(line.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire_format::ids::OrderKind;

    #[test]
    fn lines_are_appended_and_carry_the_digest() {
        let path = std::env::temp_dir().join(format!("tillwire-ledger-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let entry = Entry {
            lineage: &"00ff",
            order: 7,
            order_key: 0,
            kind: OrderKind::MESSAGE,
            payload: b"abc",
            redelivered: false,
            outcome: "applied",
        };
        Ledger::open(&path).unwrap().append(&entry).unwrap();
        Ledger::open(&path).unwrap().append(&Entry { order: 8, redelivered: true, ..entry }).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(
            lines[0]["payload_sha256"], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "the digest of abc in FIPS 180-4"
        );
        assert_eq!((&lines[0]["order"], &lines[1]["redelivered"]), (&json!(7), &json!(true)));
        std::fs::remove_file(path).unwrap();
    }
}
