//! Durable orders: what must survive a crash of the server, on its disk.
//!
//! - [`log`]: records that are on disk when a commit returns, and are found again after any crash.

pub mod log;
