//! The bytes of tillwire, as `docs/PROTOCOL.md` specifies them: values in, bytes out, and back.
//!
//! - [`datagram`]: discovery, UDP 57854;
//! - [`frame`] and [`splitter`]: order push, TCP 8081;
//! - [`payload`] (feature `bincode`): what the standard order kinds carry.
//!
//! `no_std`, no allocation, no `unsafe`, and no panic in reach of any input: `parse` borrows from the bytes it is given
//! and says what was wrong and where; `emit` writes into the caller's buffer and says how much.
//!
//! One message, one file, always in this order: who sends it and when, the byte table, the field positions,
//! compile-time size checks, the type, `parse`, `emit`, tests.
#![cfg_attr(not(test), no_std)]

pub mod bytes;
pub mod crc;
pub mod datagram;
pub mod error;
pub mod frame;
pub mod ids;
#[cfg(feature = "bincode")]
pub mod payload;
pub mod rng;
pub mod splitter;
pub mod time;

#[cfg(test)]
mod testing;
