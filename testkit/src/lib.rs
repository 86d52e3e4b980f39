//! What our tests share.
//!
//! - [`alloc`]: an allocator that counts, for "this does not allocate";
//! - [`disk`]: a disk that loses, tears and reorders what was not synced, for outboxes;
//! - [`farm`]: thousands of devices behind two sockets, for discovery (feature `farm`, Linux);
//! - [`history`]: what happened to orders, and the one judge of it;
//! - [`kill`]: a server and devices as processes, killed while orders flow (Unix);
//! - [`netns`]: hosts, switches and routers out of network namespaces (feature `netns`, Linux);
//! - [`pipe`]: one direction of a connection, for simulated networks;
//! - [`proxy`]: a TCP proxy that cuts, freezes, delays, flips bits and dribbles;
//! - [`script`]: what applications push and answer in simulated stores;
//! - [`sim`]: whole stores in virtual time, with every fault, judged by [`history`];
//! - [`vectors`]: the byte vectors of `docs/PROTOCOL.md`;
//! - [`fuzz`]: the bodies of the fuzz targets, so that every build compiles them and every test run replays their corpora.

pub mod alloc;
pub mod disk;
#[cfg(all(feature = "farm", target_os = "linux"))]
pub mod farm;
pub mod fuzz;
pub mod history;
#[cfg(unix)]
pub mod kill;
#[cfg(all(feature = "netns", target_os = "linux"))]
pub mod netns;
pub mod pipe;
pub mod proxy;
pub mod script;
pub mod sim;
pub mod vectors;
