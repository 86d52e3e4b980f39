//! discovery
#![cfg_attr(not(any(test, feature = "tokio")), no_std)]

#[cfg(feature = "tokio")]
extern crate alloc;

mod bucket;
pub mod config;
#[cfg(feature = "tokio")]
pub mod driver;
pub mod event;
mod farewell;
mod hash;
pub mod link;
mod pause;
pub mod roster;
mod screen;
pub mod seeker;
pub mod stats;

pub use config::{DeviceConfig, ServerConfig};
pub use event::{Dropped, Event, Fields, SeekerEvent, What};
pub use link::{Arrival, Destination, LinkId, Transmit};
pub use roster::{DeviceView, Roster, Slot, State};
pub use seeker::{Seeker, ServerView};
pub use stats::Stats;

/// Where a node begins to count its datagrams: anywhere, so that one that forgot its epoch is not taken for an echo of
/// its former self.
#[expect(clippy::cast_possible_truncation, reason = "any 32 of the random bits")]
pub(crate) const fn first_sequence(rng: &mut wire_format::rng::Rng) -> u32 {
    rng.next_u64() as u32
}
