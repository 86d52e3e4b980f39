//! A whole store in virtual time: servers, devices, the network between them and the disks below them, all of them with
//! faults, one thread, and the same run for the same seed.
//!
//! What will happen is drawn from the seed before anything does: the devices, the orders, the faults with their times
//! ([`Plan`]). [`run`] lets it happen; every line of it goes to the judge in [`crate::history`]. A run that fails is made
//! smaller by taking parts of its plan away ([`shrink`]). `docs/SIMULATION.md` says what is simulated and what is checked.
//!
//! | file | reason to exist |
//! | --- | --- |
//! | `plan`, `fault` | what will happen, as data |
//! | `world`, `queue` | who is there; what comes next; the loop |
//! | `network`, `wires` | connections: bytes that take their time, come in pieces, or not at all |
//! | `server`, `device` | the drivers of both halves |
//! | `durable`, `restart` | a server's outbox: what is written down when, and what a start finds |
//! | `disks` | an outbox that rots, or is restored from a backup |
//! | `memory` | what a device must remember over its boots |
//! | `store` | a device's journal: what it is kept in |
//! | `orders`, `retry`, `work` | the applications on both sides |
//! | `pieces`, `questions` | payloads that come in pieces; what both sides ask each other |
//! | `storm` | faults, as they are done to the world |
//! | `ledger`, `check`, `marks` | what was asked for, what became of it, and what may not be |
//! | `names` | faults and rare paths that are counted |
//! | `campaign`, `shrink`, `command` | many seeds; a failing one made small; the command line |

mod campaign;
mod check;
mod command;
mod device;
mod disks;
mod durable;
mod fault;
mod ledger;
mod marks;
mod memory;
mod names;
mod network;
mod orders;
mod pieces;
mod plan;
mod questions;
mod queue;
mod restart;
mod retry;
mod server;
mod shrink;
mod store;
mod storm;
mod wires;
mod work;
mod world;

pub use campaign::{Campaign, Report};
pub use command::main;
pub use ledger::Failure;
pub use names::{Counts, FaultKind, Probe};
pub use plan::{Plan, Scene};
pub use shrink::shrink;
pub use world::{Outcome, Run};

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs it. With `tell` a failure says what happened to whom it is about.
#[must_use]
pub fn run(plan: &Plan, tell: bool) -> Outcome {
    let outcome = catch_unwind(AssertUnwindSafe(|| world::World::new(plan.clone(), tell).run()));
    outcome.unwrap_or_else(|why| {
        let text = why.downcast_ref::<String>().cloned();
        let text = text.or_else(|| why.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Outcome { failure: Some(Failure::of_nobody("Panic", text.unwrap_or_default())), run: Run::default() }
    })
}
