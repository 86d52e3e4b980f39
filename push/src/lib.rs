//! Order push over TCP 8081: one server, up to 10,000 devices.
#![cfg_attr(not(any(test, feature = "tokio")), no_std)]

pub mod config;
#[cfg(feature = "tokio")]
pub mod driver;
pub mod ended;
pub mod fleet;
pub mod histogram;
pub mod mark;
pub mod receiver;

pub use config::FleetConfig;
pub use ended::{Closed, DialError, Ended};
pub use fleet::{DeviceIndex, Fleet};
pub use mark::Mark;
