//! Discovery with a whole store on real sockets: thousands of devices in 127.0.0.0/8, each with an address of its own.
#![cfg(target_os = "linux")]

mod forged;
mod implosion;
mod ports;
mod power;
mod room;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use discovery::ServerConfig;
use discovery::driver::Net;
use discovery::driver::server::{self, ServerDriver};
use tillwire::{NodeId, Store, discovery};
use tokio::runtime::Runtime;

/// Long enough for a busy machine, and never what is measured.
const WITHIN: Duration = Duration::from_secs(90);
/// Asked of the system, it makes 212,992 bytes on Linux: what a socket has for which nobody asked.
const STOCK_BUFFER: usize = 106_496;

/// Servers started so far.
static STARTS: AtomicU64 = AtomicU64::new(1);

fn store() -> Store {
    Store::new(7, "PARIS-12").unwrap()
}

/// The server's thread, beside that of the test, which is the devices'.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn at(host: u8, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(127, 57, 50, host), port)
}

/// A server with a stock receive buffer, whose events are read by nobody: they wait.
fn serve(runtime: &Runtime, at: SocketAddrV4, capacity: usize, expected: u32, rate: u32) -> ServerDriver {
    let config = ServerConfig {
        expected_devices: expected,
        rate_per_s: rate,
        ..ServerConfig::new(NodeId([0xEE; 16]), store())
    };
    let net =
        Net { bind: Some(*at.ip()), port: at.port(), receive_buffer_bytes: STOCK_BUFFER, ..Net::default() };
    let _inside = runtime.enter();
    // Another boot epoch at each start.
    let seed = STARTS.fetch_add(1, Ordering::Relaxed) << 16 | u64::from(at.port());
    server::spawn(net, config, capacity, seed).unwrap()
}
