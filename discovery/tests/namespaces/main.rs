//! Both drivers in network namespaces of their own: several hosts on one machine, wired by `veth` and bridges, with plain
//! addresses, no default route and no options, unless a test is about them. Linux, root and `ip` are needed, and `nft` for
//! firewalls; elsewhere each test says so and passes (or fails: `TILLWIRE_SKIP=never`).
//!
//! | file | what goes wrong there |
//! | --- | --- |
//! | `hosts` | nothing: hosts of one LAN, several nodes on one of them |
//! | `routes` | no default route, the wrong one, masks that differ |
//! | `changes` | interfaces that go, come back, come late, change their address |
//! | `copies` | the same LAN on two interfaces, switches in a loop |
//! | `virtuals` | containers and tunnels |
//! | `routers` | another subnet behind a router |
//! | `firewalls` | UDP stopped on the way |
//! | `sleep` | processes that are stopped for a while |
#![cfg(target_os = "linux")]

mod changes;
mod copies;
mod firewalls;
mod hosts;
mod node;
mod routers;
mod routes;
mod sleep;
mod virtuals;
