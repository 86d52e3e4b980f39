//! Whole stores on several hosts: servers and devices as applications start them, in network namespaces. Discovery alone
//! is tested like this in `discovery/tests/namespaces`; here it is about orders that get there whatever the network does.
//!
//! Linux, root and `ip` are needed, and `nft` for firewalls; elsewhere each test says so and passes (or fails:
//! `TILLWIRE_SKIP=never`).
#![cfg(target_os = "linux")]

mod host;
mod moves;
mod paths;
