//! Finding the devices of a store on its LAN: state machines for UDP 57854 without I/O, clock or allocator.
//!
//! A store is a star. The server must know every device ([`Roster`]); a device must know only its server ([`Seeker`]).
//! Discovery is a convenience and proves nothing: whoever takes orders over it checks identity again in its own
//! handshake.
//!
//! ```text
//!   device                                  LAN                                   server
//!     │── SEEK (broadcast, paced, suppressed) ─────────────────────────────────────▶│
//!     │◀──────────────────────────── BEACON (broadcast: who, services, reply window)│  also every 10 s
//!     │   … a random moment of the window …                                         │
//!     │── ANNOUNCE (unicast: who, kind, port, zone, tags, firmware) ───────────────▶│  Joined
//!     │◀──────────────────────────────────────────────────────── ACK (ok, or why not)│
//!     │── ANNOUNCE every lease/3, none while the push session is healthy ──────────▶│
//!     │◀─────────────────────────────────────────────── CHALLENGE (are you there?) │  after 2/3 of the lease,
//!     │── CHALLENGE (yes) ─────────────────────────────────────────────────────────▶│  a BYE, a second address
//!     │── BYE ─────────────────────────────────────────────────────────────────────▶│  Left, once it is silent
//! ```
//!
//! # The calling contract
//!
//! **One input, then drain.** An input is a datagram, a passed deadline or a command (`handle_datagram`, `handle_timeout`,
//! `link_up`, `link_down`, `set_linked`, `stop`); draining means `poll_transmit`, `poll_event` and `poll_timeout` until
//! they return nothing. What is sent and told is derived from state and never queued without bound: who drains late gets
//! less, not more. Time is an argument and must not run backwards; it should count suspended time. A deadline that is
//! found to have passed more than 2 s ago means that this process slept: its timers fire once, and nobody's lease is
//! charged for it.
//!
//! ```
//! use core::net::SocketAddrV4;
//! use discovery::{Arrival, Destination, Event, LinkId, Roster, ServerConfig, Slot, Transmit};
//! use wire_format::ids::{NodeId, Store};
//! use wire_format::time::Instant;
//! # struct Socket; struct Clock(u64);
//! # impl Socket {
//! #     fn receive(&mut self, _until: Option<Instant>) -> Option<(Arrival, &[u8])> { None }
//! #     fn send(&mut self, _to: Destination, _datagram: &[u8]) {}
//! # }
//! # impl Clock { fn now(&mut self) -> Instant { self.0 += 1_000_000; Instant::from_micros(self.0) } }
//! # let (mut socket, mut clock) = (Socket, Clock(0));
//! # let mut rounds = 5; let mut beacons = 0;
//! # let mut running = || { rounds -= 1; rounds > 0 };
//! # let seed = 42;
//! let config = ServerConfig::new(NodeId([7; 16]), Store::new(1, "PARIS-12")?);
//! let mut roster = Roster::new(config, [Slot::EMPTY; 16], clock.now(), seed);
//! roster.link_up(clock.now(), LinkId(0));
//! let mut buffer = [0; 1_200];
//! while running() {
//!     // Drain.
//!     while let Some(Transmit { to, len }) = roster.poll_transmit(clock.now(), &mut buffer) {
//!         socket.send(to, &buffer[..len]);
//! #       beacons += 1;
//!     }
//!     while let Some(Event { id, address, what, .. }) = roster.poll_event() {
//!         println!("{id} at {address}: {what:?}");
//!     }
//!     // One input: a datagram, or the deadline.
//!     match socket.receive(roster.poll_timeout()) {
//!         Some((arrival, datagram)) => {
//!             let _counted = roster.handle_datagram(clock.now(), &arrival, datagram);
//!         }
//!         None => roster.handle_timeout(clock.now()),
//!     }
//! }
//! # assert!(beacons >= 2);
//! # Ok::<(), wire_format::ids::IdError>(())
//! ```
//!
//! The driver decides what the core cannot see: that a source is on-link at the interface it arrived on (or a seed's), and
//! that a broadcast leaves pinned to its interface.
//!
//! # What holds
//!
//! - Legal entity, store code and side of staging must match in both directions; a mismatch is counted, nothing else. A device
//!   that belongs to no store yet announces itself to nobody and lists the servers it hears, for a person to choose from.
//! - A datagram never causes more bytes than it has: an ANNOUNCE is at least 96 bytes, an ACK or CHALLENGE at most 76; a
//!   SEEK is answered by a broadcast, once a second and interface, and only if it is as long as the BEACON. (A BEACON makes
//!   devices announce: four times at once, then once in 30 s, whatever is forged.)
//! - Nothing is answered to ports below 1024 or to addresses that are not one host; kinds meant for one node are ignored as
//!   broadcasts; one source gets 16 datagrams a second.
//! - A BYE, an ANNOUNCE from another address or from an earlier boot change nothing before the known address was asked
//!   and stayed silent.
//! - Every table has a size chosen at start. A device costs its [`Slot`] (at most 400 bytes), a datagram O(1).
//!
//! # What does not, without keys
//!
//! In clear mode AUTH entries are parsed and counted (`received_auth_unverified`), their tags are not verified: whoever can
//! forge source addresses on the LAN can make a device look present that is not, or keep one busy with questions. It
//! cannot make one disappear that answers.
//!
//! With keys (see [`auth`]) that ends: what has no right tag changes nothing and is not answered, and what was recorded is
//! told from what is said now. Who relays a device's datagrams in the very moment is not found out, and cannot change
//! them; who has stolen a till can forge hints.
#![cfg_attr(not(any(test, feature = "tokio")), no_std)]

#[cfg(feature = "tokio")]
extern crate alloc;

pub mod auth;
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
#[cfg(test)]
mod testing;

pub use config::{DeviceConfig, ServerConfig};
pub use event::{Dropped, Event, Fields, SeekerEvent, What};
pub use link::{Arrival, Destination, LinkId, Transmit};
pub use roster::{DeviceView, Restored, Roster, Slot, SnapshotError, State};
pub use seeker::{Candidate, Seeker, ServerView};
pub use stats::Stats;

/// Where a node begins to count its datagrams: anywhere, so that one that forgot its epoch is not taken for an echo of
/// its former self.
#[expect(clippy::cast_possible_truncation, reason = "any 32 of the random bits")]
pub(crate) const fn first_sequence(rng: &mut wire_format::rng::Rng) -> u32 {
    rng.next_u64() as u32
}
