//! What the driver tells `tracing`, in one place. Without the feature every function here is empty, and nothing of it is
//! left in the program.

#![cfg_attr(
    not(feature = "tracing"),
    allow(
        unused_variables,
        clippy::missing_const_for_fn,
        reason = "without the feature the bodies are empty"
    )
)]

use core::net::SocketAddrV4;
use std::future::Future;

use wire_format::ids::NodeId;

use super::net::Change;
use crate::{Dropped, Event, SeekerEvent};

/// An event under the target `tillwire::discovery`.
macro_rules! tell {
    ($level:ident, $($event:tt)*) => {
        #[cfg(feature = "tracing")]
        ::tracing::event!(target: "tillwire::discovery", ::tracing::Level::$level, $($event)*)
    };
}

/// The task of a node, inside a span with its id: with several nodes in one process, each line says whose it is.
pub(super) fn task<F: Future>(side: &'static str, id: NodeId, task: F) -> impl Future<Output = F::Output> {
    #[cfg(feature = "tracing")]
    {
        let span = tracing::info_span!(target: "tillwire::discovery", "discovery", side, node = %id);
        tracing::Instrument::instrument(task, span)
    }
    #[cfg(not(feature = "tracing"))]
    task
}

/// A datagram changed nothing. At TRACE: a stranger decides how many there are.
pub(super) fn dropped(source: SocketAddrV4, why: Dropped) {
    tell!(TRACE, %source, %why, "datagram dropped");
}

/// A datagram came where it does not belong.
pub(super) fn foreign(source: SocketAddrV4) {
    tell!(TRACE, %source, "datagram from outside of the subnet dropped");
}

/// Something changed in a server's roster.
pub(super) fn roster(event: &Event) {
    tell!(INFO, generation = event.generation, device = %event.id, address = %event.address, what = ?event.what, "roster");
}

/// Something changed for a device.
pub(super) fn seeker(event: &SeekerEvent) {
    tell!(INFO, what = ?event, "server");
}

/// An interface came or went.
pub(super) fn link(change: &Change) {
    tell!(INFO, what = ?change, "interface");
}

/// A datagram could not be sent.
pub(super) fn unsent(to: SocketAddrV4, error: &std::io::Error) {
    tell!(DEBUG, %to, %error, "datagram not sent");
}

/// The receive queue is smaller than what may arrive while this process is busy elsewhere.
pub(super) fn small_queue(granted: usize, needed: usize) {
    tell!(WARN, granted, needed, "receive queue smaller than a tenth of a second of announces needs");
}
