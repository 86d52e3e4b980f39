//! The bodies of the fuzz targets.
//!
//! They live here and not in `fuzz/` so that every build compiles them and `tests/corpus.rs` replays what was kept. None
//! of them asks only "does it crash": each checks that what was understood means the same when it is said again, or that
//! a state machine keeps its invariants and its bounds.
//!
//! [`seeds`] makes the first inputs from the specification's vectors; `cargo run -p tillwire-testkit --example corpus` writes
//! them to `fuzz/corpus/`.

mod datagram;
mod frame_stream;
mod journal;
mod lister;
mod outbox;
mod payloads;
mod roster_ops;
mod roster_snapshot;
mod session_ops;

pub use datagram::datagram;
pub use frame_stream::frame_stream;
pub use journal::journal;
pub use outbox::{outbox_files, outbox_records};
pub use payloads::payloads;
pub use roster_ops::roster_ops;
pub use roster_snapshot::roster_snapshot;
pub use session_ops::session_ops;

use crate::vectors::{self, Vector};

/// A fuzz target: its name in `fuzz/`, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("datagram", datagram),
    ("frame_stream", frame_stream),
    ("journal", journal),
    ("outbox_files", outbox_files),
    ("outbox_records", outbox_records),
    ("payloads", payloads),
    ("roster_ops", roster_ops),
    ("roster_snapshot", roster_snapshot),
    ("session_ops", session_ops),
];

/// A first input of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// The target's name.
    pub target: &'static str,
    /// The file's name in the target's corpus.
    pub name: String,
    /// The input.
    pub bytes: Vec<u8>,
}

/// The first inputs of every target, from the specification's vectors.
#[must_use]
pub fn seeds() -> Vec<Seed> {
    let vectors = vectors::all();
    let mut seeds = Vec::new();
    seeds.extend(vectors.iter().filter(|vector| vector.is_datagram()).map(datagram_seed));
    frame_stream::seeds(&vectors, &mut seeds);
    journal::seeds(&mut seeds);
    outbox::seeds(&mut seeds);
    payloads::seeds(&vectors, &mut seeds);
    roster_ops::seeds(&mut seeds);
    roster_snapshot::seeds(&mut seeds);
    session_ops::seeds(&mut seeds);
    seeds
}

fn datagram_seed(vector: &Vector) -> Seed {
    Seed { target: "datagram", name: seed_name(vector), bytes: vector.bytes.clone() }
}

/// Seeds are told from what a fuzzer found by their names.
fn seed_name(vector: &Vector) -> String {
    format!("vector-{}", vector.file_name())
}

/// Takes an input apart: numbers as long as there are bytes, zeros after that.
#[derive(Clone, Copy, Debug)]
struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn u8(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    fn bool(&mut self) -> bool {
        self.u8() & 1 != 0
    }

    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(self.0.len().min(len));
        self.0 = rest;
        taken
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let taken = self.bytes(N);
        let mut array = [0; N];
        array[..taken.len()].copy_from_slice(taken);
        array
    }
}
