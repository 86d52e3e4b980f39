//! Orders that survive their server: processes, real sockets, SIGKILL at chosen moments. Kills at random moments are the
//! campaign in `../kill.rs`.
#![cfg(target_os = "linux")]

mod backup;
mod disk;
mod restart;
mod rollout;
mod shop;
#[path = "../support/mod.rs"]
mod support;
mod takeover;
