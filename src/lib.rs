#![doc = include_str!("../README.md")]
//!
//! # Where things are
//!
//! | for | take |
//! | --- | --- |
//! | a store server | [`StoreServer`] |
//! | a device with an operating system | [`Device`] |
//! | a device that nobody has told its store | [`Unprovisioned`], or [`find_servers`] once |
//! | firmware, other runtimes, simulations | the cores: [`discovery`] and [`push`], both `no_std` |
//! | the bytes alone | [`wire`] |
//!
//! # Features
//!
//! - `tokio` (default): the drivers, [`StoreServer`] and [`Device`]. Without it the package re-exports the floors below.
//! - `tracing`: sessions, devices, orders and drops as `tracing` events, under the targets `tillwire::push` and
//!   `tillwire::discovery`, inside a span with the node's id. Nothing is told per order and device.
//! - `metrics`: counters and latencies, forwarded to the `metrics` recorder at an interval.
//! - `bincode`: typed payloads of the standard order kinds, `wire::payload`.
#![cfg_attr(not(feature = "tokio"), no_std)]

pub use discovery;
pub use push;
/// The bytes: datagrams, frames, payloads, identities.
pub use wire_format as wire;

pub use push::order::Order;
pub use push::receiver::{
    AnswerBuffer, AnswerCode, Delivered, Handler, Question, QuestionId, ResultBuffer, Ticket, Verdict,
};
pub use wire_format::datagram::{Firmware, Service};
pub use wire_format::frame::outcome::Code as Outcome;
pub use wire_format::frame::reply::Code as ReplyCode;
pub use wire_format::ids::{DeviceCode, DeviceKind, IdError, Lane, Lineage, NodeId, OrderKind, Store, Tags};

#[cfg(feature = "tokio")]
mod builder;
#[cfg(feature = "tokio")]
mod chance;
#[cfg(feature = "tokio")]
mod device;
#[cfg(feature = "tokio")]
mod error;
#[cfg(feature = "tokio")]
mod join;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(feature = "tokio")]
mod options;
#[cfg(feature = "tokio")]
mod security;
#[cfg(feature = "tokio")]
mod server;
#[cfg(feature = "tokio")]
mod unprovisioned;

#[cfg(feature = "tokio")]
pub use builder::{ServerBuilder, StaticDevice};
#[cfg(feature = "tokio")]
pub use device::{Device, DeviceBuilder, DeviceEvent};
#[cfg(feature = "tokio")]
pub use discovery::driver::device::Candidate;
#[cfg(feature = "tokio")]
pub use error::StartError;
#[cfg(feature = "tokio")]
pub use push::driver::device::{Answer, AskError, HandOverError, Handle as DeviceHandle};
#[cfg(feature = "tokio")]
pub use push::driver::server::AskError as AskDeviceError;
#[cfg(feature = "tokio")]
pub use push::driver::server::{
    Aborted, AddError, Asked, DeviceOutcome, DeviceResult, FanOut, Latency, OutboxFault, Outcomes, Pending,
    Progress, PushError, Questions, Quorum, Recovered, Report, Resource, Rolling, Rollout, RolloutReport,
    RolloutView, Snapshot, Standing, TakeoverError, Target, TargetError,
};
#[cfg(feature = "tokio")]
pub use security::Security;
#[cfg(feature = "tokio")]
pub use server::{DeviceInfo, ServerEvent, ServerStats, StoreServer};
#[cfg(feature = "tokio")]
pub use unprovisioned::{Unprovisioned, find_servers};
