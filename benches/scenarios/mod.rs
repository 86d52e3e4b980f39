//! What is measured, once for both ways of measuring: wall time for people (`speed.rs`), instructions for CI (`icount.rs`).
//!
//! A scenario is built once and then run many times; one run is one operation of the name it carries.

mod fleet;
mod outbox;
mod receiver;
mod roster;
mod wire;

use wire_format::ids::{NodeId, Store};

/// One operation, ready to run again and again.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    /// A stable name: records refer to it.
    pub(crate) name: &'static str,
    /// Builds what the operation needs.
    pub(crate) build: fn() -> Box<dyn FnMut()>,
    /// How many operations one run stands for.
    pub(crate) operations: u64,
}

/// Every scenario.
pub(crate) fn all() -> Vec<Scenario> {
    [wire::scenarios(), fleet::scenarios(), outbox::scenarios(), receiver::scenarios(), roster::scenarios()]
        .concat()
}

fn store() -> Store {
    Store::new(1, "PARIS-12").expect("a store")
}

fn id(n: usize) -> NodeId {
    NodeId((n as u128 + 1).to_le_bytes())
}
