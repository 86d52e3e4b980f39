//! discovery
#![cfg_attr(not(test), no_std)]

pub mod config;
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
