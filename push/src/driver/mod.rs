//! Order push on tokio: sockets, the clock and tasks. All rules are in the cores; this floor moves bytes and time.

mod clock;
pub mod device;
pub mod server;
mod trace;

pub use clock::Clock;
use clock::wall_ms;
