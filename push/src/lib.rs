//! Order push over TCP 8081: one store server dials up to 10,000 devices, sends each the orders meant for it, and gives
//! every (order, device) pair exactly one outcome.
//!
//! - [`fleet`]: the server's half, a [`Fleet`];
//! - [`receiver`]: the device's half, a [`receiver::Receiver`];
//! - `outbox` (feature `outbox`): durable orders on the server's disk;
//! - `driver` (feature `tokio`): sockets, clock and tasks for both.
//!
//! The two halves are state machines: no socket, no clock, no thread, no allocation. Time is an argument, state lives in
//! storage the caller hands in.
//!
//! # The life of an order
//!
//! ```text
//!  application       Fleet                                  Receiver            Handler
//!      │── submit ────▶│ mark PENDING                          │                   │
//!      │               │── ORDER ─────────────────────────────▶│                   │
//!      │               │ mark SENT: one order credit, its bytes│── Delivered ─────▶│
//!      │               │◀───────────────────────────────── ACK │                   │
//!      │               │ mark RECEIVED: the bytes come back    │                   │
//!      │               │                                       │◀── Verdict ───────│
//!      │               │◀───────────────────────────── OUTCOME │ floor rises; kept until settled
//!      │◀─ Outcome ────│ mark is final                         │                   │
//!      │               │── SETTLED ───────────────────────────▶│ forgotten         │
//!      │◀─ Settled ────│ when every mark is final              │                   │
//! ```
//!
//! The frame is encoded once, by the application; its body is the same for every device and is never copied on the way to
//! an idle one. ACK is left out by a device that answers at once.
//!
//! # Calling contract
//!
//! **One input, then drain.** Inputs are `submit`, `set_address`, the `handle_` functions and their like. After each, call
//! the `poll_` functions until all of them return nothing, in any order: what they return is read off the state, so
//! nothing is lost, and nothing queues up without bound, if a driver is slow. Two rules go with it:
//!
//! - what `poll_transmit` returns is reported with `handle_written` before anything else is called. Not reported is not
//!   sent;
//! - after `poll_close` a connection is not reported closed; after `handle_closed` it is not asked to be closed.
//!
//! A driver needs little more than this:
//!
//! ```
//! use push::fleet::{Closed, DeviceIndex, DeviceSlot, DeviceTables, Dial, Event, Fleet, Item, TrackSlot, OrderSlot, Transmit};
//! use wire_format::time::Instant;
//!
//! type Devices = DeviceTables<Box<[DeviceSlot]>, Box<[TrackSlot]>>;
//! type Server = Fleet<Devices, Box<[OrderSlot<Vec<u8>, Vec<u8>>]>, Vec<u8>, Vec<u8>>;
//!
//! /// What the platform has: non-blocking connections, one per device.
//! trait Sockets {
//!     fn dial(&mut self, dial: Dial);
//!     fn write(&mut self, device: DeviceIndex, head: &[u8], body: &[u8]) -> Result<usize, Closed>;
//!     fn close(&mut self, device: DeviceIndex);
//! }
//!
//! /// After any input: everything the fleet wants, until it wants nothing. Then sleep until `poll_timeout`.
//! fn drain(fleet: &mut Server, now: Instant, scratch: &mut [u8], sockets: &mut impl Sockets) {
//!     let mut again = true;
//!     while core::mem::take(&mut again) {
//!         while let Some(dial) = fleet.poll_dial(now) {
//!             sockets.dial(dial);
//!         }
//!         while let Some(Transmit { device, head, body }) = fleet.poll_transmit(now, scratch) {
//!             match sockets.write(device, head, body) {
//!                 Ok(written) => fleet.handle_written(now, device, written),
//!                 Err(how) => fleet.handle_closed(now, device, how),
//!             }
//!         }
//!         while let Some((device, _why)) = fleet.poll_close() {
//!             sockets.close(device);
//!         }
//!         while let Some(event) = fleet.poll_event() {
//!             again = true;
//!             if let Event::Settled { number, marks, .. } = event {
//!                 println!("order {number}: {} devices", marks.len());
//!             }
//!         }
//!     }
//! }
//!
//! /// Bytes arrived: frame by frame, events in between. What is left waits for more.
//! fn read<'b>(fleet: &mut Server, now: Instant, device: DeviceIndex, mut bytes: &'b [u8]) -> &'b [u8] {
//!     while let Ok(input) = fleet.handle_bytes(now, device, bytes)
//!         && input.consumed != 0
//!     {
//!         if let Some(Item::Result { number, payload }) = input.item {
//!             println!("order {number}: {payload:?}");
//!         }
//!         bytes = &bytes[input.consumed..];
//!         while let Some(_event) = fleet.poll_event() {}
//!     }
//!     bytes
//! }
//! ```
//!
//! # Limits
//!
//! Each has a name in [`config`], a reason, and a test at it and one past it. Devices and live orders are as many as the
//! slots handed in; everything else is fixed.
#![cfg_attr(not(any(test, feature = "outbox")), no_std)]

pub mod blob;
pub mod config;
#[cfg(feature = "tokio")]
pub mod driver;
pub mod ended;
#[cfg(feature = "outbox")]
pub mod file_journal;
pub mod fleet;
pub mod histogram;
pub mod mark;
pub mod order;
#[cfg(feature = "outbox")]
pub mod outbox;
pub mod receiver;
mod runs;

pub use config::FleetConfig;
pub use ended::{Closed, DialError, Ended};
pub use fleet::{DeviceIndex, Fleet};
pub use mark::Mark;
