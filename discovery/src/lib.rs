//! discovery
#![cfg_attr(not(any(test, feature = "tokio")), no_std)]

#[cfg(feature = "tokio")]
extern crate alloc;

pub mod config;
#[cfg(feature = "tokio")]
pub mod driver;
pub mod event;
pub mod link;
pub mod roster;
pub mod seeker;
pub mod stats;

pub use config::{DeviceConfig, ServerConfig};
pub use event::{Dropped, Event, Fields, SeekerEvent, What};
pub use link::{Arrival, Destination, LinkId, Transmit};
pub use roster::{DeviceView, Roster, Slot, State};
pub use seeker::{Seeker, ServerView};
pub use stats::Stats;
