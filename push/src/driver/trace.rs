//! What the drivers tell `tracing`, in one place. Without the feature every function here is empty, and nothing of it is
//! left in the program.
//!
//! Nothing is told per order and device: an order is told when it is accepted and when it has settled, a session when it
//! opens and ends. A subscriber that listens to none of it costs one load and one comparison each.

#![cfg_attr(
    not(feature = "tracing"),
    allow(
        unused_variables,
        clippy::missing_const_for_fn,
        reason = "without the feature the bodies are empty"
    )
)]

use std::future::Future;
use std::net::SocketAddr;

use wire_format::ids::NodeId;

use crate::ended::{DialError, Ended, Fault};
use crate::order::Order;

/// An event under the target `tillwire::push`.
macro_rules! tell {
    ($level:ident, $($event:tt)*) => {
        #[cfg(feature = "tracing")]
        ::tracing::event!(target: "tillwire::push", ::tracing::Level::$level, $($event)*)
    };
}

/// The task of a node, inside a span with its id: with several nodes in one process, each line says whose it is.
pub(super) fn task<F: Future>(side: &'static str, id: NodeId, task: F) -> impl Future<Output = F::Output> {
    #[cfg(feature = "tracing")]
    {
        let span = tracing::info_span!(target: "tillwire::push", "push", side, node = %id);
        tracing::Instrument::instrument(task, span)
    }
    #[cfg(not(feature = "tracing"))]
    task
}

/// The server's dial failed; the next one comes by itself.
pub(super) fn dial_failed(id: Option<NodeId>, address: Option<SocketAddr>, why: DialError) {
    tell!(DEBUG, device = id.map(tracing::field::display), address = address.map(tracing::field::display), %why, "dial failed");
}

/// The server opened a session.
pub(super) fn session_opened(id: NodeId, address: Option<SocketAddr>, rebooted: bool) {
    tell!(INFO, device = %id, address = address.map(tracing::field::display), rebooted, "session opened");
}

/// A session of the server ended, or (`was_open` false) an attempt at one.
pub(super) fn session_ended(id: Option<NodeId>, address: Option<SocketAddr>, why: Ended, was_open: bool) {
    #[cfg(feature = "tracing")]
    let (device, address) = (id.map(tracing::field::display), address.map(tracing::field::display));
    match (was_open, why.fault()) {
        (false, Fault::Nobody | Fault::Network) => {
            tell!(DEBUG, device, address, why = why.name(), detail = %why, "no session");
        }
        (false, _) => {
            tell!(WARN, device, address, why = why.name(), detail = %why, "no session");
        }
        (true, Fault::Nobody) => {
            tell!(INFO, device, address, why = why.name(), detail = %why, "session ended");
        }
        (true, _) => {
            tell!(WARN, device, address, why = why.name(), detail = %why, "session ended");
        }
    }
}

/// An order has a number and is on its way.
pub(super) fn order_accepted(number: u64, order: &Order<'_>, targets: usize, bytes: usize) {
    tell!(
        DEBUG,
        order = number,
        kind = order.kind.0,
        lane = order.lane.index(),
        targets,
        bytes,
        "order accepted"
    );
}

/// Every device of an order has its outcome.
pub(super) fn order_settled(number: u64) {
    tell!(DEBUG, order = number, "order settled");
}

/// A device serves a server, or does no more.
pub(super) fn served(event: &crate::receiver::Event) {
    tell!(INFO, what = ?event, "session");
}

/// A device closed a connection.
pub(super) fn turned_away(peer: SocketAddr, why: Ended) {
    if why.fault() == Fault::Nobody {
        tell!(DEBUG, %peer, why = why.name(), detail = %why, "connection closed");
    } else {
        tell!(WARN, %peer, why = why.name(), detail = %why, "connection closed");
    }
}

/// A device's journal did not take a write.
pub(super) fn journal_failed(why: &(dyn std::error::Error + 'static)) {
    tell!(ERROR, why, "the journal failed");
}

/// It takes writes again.
pub(super) fn journal_back() {
    tell!(INFO, "the journal works again");
}
