//! The sockets and the links together: datagrams in with their link, datagrams out by their link.

use core::net::{Ipv4Addr, SocketAddrV4};
use core::task::{Context, Poll};
use core::time::Duration;
use std::io;

use wire_format::time::Instant;

use super::batch::{Batch, Received};
use super::drops::DropWatch;
use super::hints::Hints;
use super::lookout::{Hint, Lookout};
use super::net::{Change, Foreign, Interface, Link, Links, usable};
use super::outbox::Outbox;
use super::socket::Sockets;
use super::{Net, OpenError, Opening, trace};
use crate::{Arrival, Destination, LinkId};

/// How long a full send queue is waited for before the datagram counts as lost: the protocol repeats what matters.
const SEND_WAIT: Duration = Duration::from_millis(20);

/// After a datagram was lost to a full send queue, the next ones are not waited for: a dead interface must not hold up
/// the others.
const SEND_NO_WAIT: Duration = Duration::from_secs(1);

/// Errors of peers taken off the sockets in one turn: as many as datagrams.
const ERRORS_MAX: usize = Batch::SLOTS;

/// The rest after a failed receive, so that a broken socket does not spin.
pub(crate) const RECEIVE_PAUSE: Duration = Duration::from_millis(5);

/// What happened on the sockets and interfaces. Counts since the start, unless a line says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NetStats {
    /// Datagrams received, whatever came of them.
    pub received: u64,
    /// Dropped: the source is neither on-link nor allowed.
    pub off_link: u64,
    /// Dropped: addressed to another interface's address.
    pub misaddressed: u64,
    /// Datagrams handed to the system.
    pub sent: u64,
    /// Datagrams the system refused; each but a full queue causes a look at the interfaces.
    pub send_errors: u64,
    /// Datagrams for a link that had gone.
    pub no_link: u64,
    /// Failed receives; the loop goes on.
    pub receive_errors: u64,
    /// Datagrams the system dropped because the receive queue was full, as far as it tells (Linux; on a host with more than
    /// 2,048 UDP sockets perhaps not). Looked at ten times a second at most: by a server while datagrams arrive, by both when
    /// this is asked for.
    pub receive_drops: u64,
    /// Looks at the interfaces.
    pub scans: u64,
    /// Looks that failed: what was known stays.
    pub scan_errors: u64,
    /// Hints of the system that interfaces changed; each brings the next look forward.
    pub interface_hints: u64,
    /// 1: the system gives no hints (any more), and changes are found by the look every 3 s only.
    pub interface_hint_errors: u64,
    /// Links in use now.
    pub links: usize,
    /// Usable links beyond the core's limit, left out now.
    pub links_over: usize,
    /// Bytes of receive queue the system granted; on Linux it reports the double of what it means. A server whose queue
    /// holds less than 100 ms of the announces it asks for says so once, with feature `tracing`.
    pub receive_buffer_bytes: usize,
}

/// The network side of a driver.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(super) sockets: Sockets,
    outbox: Outbox,
    links: Links,
    net: Net,
    /// Addresses to listen to although they are not neighbours.
    seeds: Vec<Ipv4Addr>,
    /// With `bind`, the only link.
    bound: Option<Link>,
    /// An interface lists the address of `bound`, so that its absence from the list means something.
    listed: bool,
    lookout: Lookout,
    drops: DropWatch,
    no_wait_until: Instant,
    pub(crate) stats: NetStats,
}

impl Wire {
    /// Opens the sockets. No link is up yet: the first [`Wire::scan`] finds them.
    pub(crate) fn open(net: Net, seeds: impl IntoIterator<Item = Ipv4Addr>) -> Result<Self, OpenError> {
        if net.port == 0 {
            let at = SocketAddrV4::new(net.bind.unwrap_or(Ipv4Addr::UNSPECIFIED), 0);
            return Err(OpenError::new(Opening::Unicast, at, io::ErrorKind::InvalidInput.into()));
        }
        let (sockets, bound, listed) = match net.bind {
            None => (Sockets::wildcard(net.port)?, None, false),
            Some(address) => {
                let at = SocketAddrV4::new(address, net.port);
                let failed = |source| OpenError::new(Opening::Interfaces, at, source);
                let found = Interface::scan().map_err(failed)?;
                let link = Link::bound(address, net.broadcast, &found)
                    .ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
                let listed = found.iter().any(|one| one.address == address);
                (Sockets::bound(address, link.broadcast, net.port)?, Some(link), listed)
            }
        };
        sockets.ask_receive_buffer(net.receive_buffer_bytes);
        let mut stats =
            NetStats { receive_buffer_bytes: sockets.receive_buffer_bytes(), ..NetStats::default() };
        let changeable = bound.is_none_or(|link| may_change(&link, listed));
        let hints = changeable
            .then(Hints::open)
            .and_then(|hints| hints.inspect_err(|_| stats.interface_hint_errors = 1).ok());
        Ok(Self {
            lookout: Lookout::new(hints),
            drops: DropWatch::new(sockets.inodes()),
            sockets,
            outbox: Outbox::new(),
            links: Links::default(),
            net,
            seeds: seeds.into_iter().collect(),
            bound,
            listed,
            no_wait_until: Instant::ZERO,
            stats,
        })
    }

    /// Says once if the receive queue cannot hold what `rate_per_s` announces a second bring in [`AWAY_MAX`].
    pub(crate) fn warn_of_small_queue(&self, rate_per_s: u32) {
        let (granted, needed) = (self.stats.receive_buffer_bytes, queue_bytes(rate_per_s));
        if granted < needed {
            trace::small_queue(granted, needed);
        }
    }

    /// When [`Wire::scan`] is due.
    pub(crate) const fn scan_at(&self) -> Instant {
        self.lookout.due()
    }

    /// Ready when the system says that interfaces changed; [`Wire::hint`] must follow.
    pub(crate) fn poll_hint(&self, cx: &mut Context<'_>) -> Poll<Hint> {
        self.lookout.poll_hint(cx)
    }

    /// Looks at the interfaces soon.
    pub(crate) fn hint(&mut self, now: Instant, hint: Hint) {
        let counter = match hint {
            Hint::Changed => &mut self.stats.interface_hints,
            Hint::Failed => &mut self.stats.interface_hint_errors,
        };
        *counter = counter.saturating_add(1);
        self.lookout.hint(now, hint);
    }

    /// How many datagrams the system has dropped at the sockets so far, if it was time to ask and the number rose.
    pub(crate) fn receive_drops(&mut self, now: Instant) -> Option<u64> {
        let total = self.drops.look(now)?;
        let before = core::mem::replace(&mut self.stats.receive_drops, total);
        (total > before).then_some(total)
    }

    /// Looks at the interfaces, if it is time, and tells what came and went.
    pub(crate) fn scan(&mut self, now: Instant) -> Vec<Change> {
        if !self.lookout.look(now) {
            return Vec::new();
        }
        self.stats.scans = self.stats.scans.saturating_add(1);
        let usable = match self.bound {
            Some(link) if !may_change(&link, self.listed) => {
                self.lookout.end();
                Ok(vec![link])
            }
            bound => Interface::scan().map(|found| match bound {
                Some(link) if link.is_up(&found) => vec![link],
                Some(_) => Vec::new(),
                None => usable(&found, &self.net),
            }),
        };
        let Ok(usable) = usable else {
            self.stats.scan_errors = self.stats.scan_errors.saturating_add(1);
            return Vec::new();
        };
        let changes = self.links.update(&usable);
        self.stats.links = self.links.len();
        self.stats.links_over = usable.len().saturating_sub(self.stats.links);
        changes
    }

    /// Ready when a datagram, or an error, waits.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.sockets.poll_readable(cx)
    }

    /// Takes what waits out of the sockets, as much as fits in `batch`. After an error the batch holds what came before
    /// it, and the sockets should be left alone for [`RECEIVE_PAUSE`].
    pub(crate) fn receive(&mut self, batch: &mut Batch) -> io::Result<()> {
        batch.clear();
        let mut result = Ok(());
        for _ in 0..ERRORS_MAX {
            result = self.sockets.receive(batch);
            let Err(error) = &result else { break };
            self.stats.receive_errors = self.stats.receive_errors.saturating_add(1);
            if !is_of_a_peer(error) {
                break;
            }
            // Taken off the queue, as a datagram would be; behind it there may be one.
            result = Ok(());
        }
        self.stats.received = self.stats.received.saturating_add(batch.iter().count() as u64);
        result
    }

    /// How a datagram arrived, or `None` if it does not belong where it did.
    pub(crate) fn arrival(&mut self, one: &Received<'_>) -> Option<Arrival> {
        let allowed = |source: Ipv4Addr| {
            self.seeds.contains(&source) || self.net.sources.iter().any(|subnet| subnet.contains(source))
        };
        let counter = match self.links.arrival(one.index, one.destination, *one.source.ip(), allowed) {
            Ok((link, broadcast)) => return Some(Arrival { link, source: one.source, broadcast }),
            Err(Foreign::OffLink) => &mut self.stats.off_link,
            Err(Foreign::Misaddressed) => &mut self.stats.misaddressed,
        };
        *counter = counter.saturating_add(1);
        trace::foreign(one.source);
        None
    }

    /// Whether [`Wire::flush`] is needed before the next datagram is written.
    pub(crate) const fn is_full(&self) -> bool {
        self.outbox.is_full()
    }

    /// Where the next datagram is written, for [`Wire::post`].
    pub(crate) fn room(&mut self) -> &mut [u8] {
        self.outbox.room()
    }

    /// Lets the first `len` bytes of [`Wire::room`] leave by their link with the next [`Wire::flush`].
    pub(crate) fn post(&mut self, to: Destination, len: usize) {
        let (id, unicast) = match to {
            Destination::Broadcast(id) => (id, None),
            Destination::Unicast(id, to) => (id, Some(to)),
        };
        let link = self.links.find(id).copied();
        let kept = self.outbox.keep(len);
        let posted = match (link, unicast) {
            // The neighbour of a link that has gone is not looked for elsewhere: the default route would take it out of
            // the house.
            (None, Some(_)) if id != LinkId::ROUTED => {
                self.stats.no_link = self.stats.no_link.saturating_add(1);
                true
            }
            // A neighbour is answered from the address it wrote to; what lies behind a router is the routing table's.
            (link, Some(to)) => {
                let own = link.filter(|link| link.subnet.contains(*to.ip())).map(|link| link.address);
                self.outbox.post(kept, to, own)
            }
            (Some(link), None) => {
                let limited = self.bound.is_none() && LIMITED_BY_SOURCE;
                let to = |ip| SocketAddrV4::new(ip, self.net.port);
                let (all, subnet) = (to(Ipv4Addr::BROADCAST), to(link.broadcast));
                let first = !limited || self.outbox.post(kept.clone(), all, Some(link.address));
                let directed = !limited || self.net.directed;
                let second = !directed || self.outbox.post_on_link(kept, subnet, link.address);
                first && second
            }
            (None, None) => {
                self.stats.no_link = self.stats.no_link.saturating_add(1);
                true
            }
        };
        if !posted {
            self.stats.send_errors = self.stats.send_errors.saturating_add(1);
        }
    }

    /// Sends what was posted. Nothing is reported: a lost datagram is repeated by the protocol, and an interface that
    /// refuses one is looked at soon. A refused one delays none of the others.
    pub(crate) async fn flush(&mut self, now: Instant) {
        let mut at = 0;
        let mut waited_for = None;
        while at < self.outbox.len() {
            let result = self.sockets.send(&self.outbox, at);
            let error = match result {
                Ok(count) => {
                    at = at.saturating_add(count.max(1));
                    self.stats.sent = self.stats.sent.saturating_add(count as u64);
                    continue;
                }
                Err(error) => error,
            };
            if is_full(&error) && now >= self.no_wait_until {
                if waited_for != Some(at) {
                    waited_for = Some(at);
                    let writable = core::future::poll_fn(|cx| self.sockets.poll_writable(cx));
                    let _late = tokio::time::timeout(SEND_WAIT, writable).await;
                    continue;
                }
                self.no_wait_until = now + SEND_NO_WAIT;
            }
            self.refused(at, &error);
            at = at.saturating_add(1);
        }
        self.outbox.clear();
    }

    /// The system did not take a datagram.
    fn refused(&mut self, at: usize, error: &io::Error) {
        if let Some(one) = self.outbox.iter_from(at).next() {
            trace::unsent(one.to, error);
        }
        self.stats.send_errors = self.stats.send_errors.saturating_add(1);
        if !is_full(error) {
            self.lookout.doubt();
        }
    }
}

/// How long a busy machine may keep this process from reading.
const AWAY_MAX: Duration = Duration::from_millis(100);

/// What Linux charges for an announce of up to 192 bytes.
const ANNOUNCE_CHARGE: usize = 768;

/// Bytes of receive queue for `rate_per_s` announces a second: the 212,992 of a stock system are enough for 2,770.
fn queue_bytes(rate_per_s: u32) -> usize {
    let announces = AWAY_MAX.as_secs_f64() * f64::from(rate_per_s);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a few hundred; it saturates"
    )]
    (announces.ceil() as usize).saturating_mul(ANNOUNCE_CHARGE)
}

/// Loopback, and addresses that only a route makes local, do not come and go.
const fn may_change(link: &Link, listed: bool) -> bool {
    listed && !link.address.is_loopback()
}

fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// Whether a failed receive is somebody else's doing: the answer of a host we sent to, or a datagram too long for its
/// slot. Such an error stands for one datagram, and there is nothing to rest for.
fn is_of_a_peer(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    /// Windows has no kinds for these: WSAEMSGSIZE, WSAENETRESET.
    const WINDOWS: [i32; 2] = [10_040, 10_052];
    let of_a_peer =
        [Kind::ConnectionReset, Kind::ConnectionRefused, Kind::HostUnreachable, Kind::NetworkUnreachable];
    of_a_peer.contains(&error.kind())
        || (cfg!(windows) && error.raw_os_error().is_some_and(|code| WINDOWS.contains(&code)))
}

/// Whether 255.255.255.255 leaves by the interface that owns the source address. The BSDs send it by the default route,
/// so there the subnet's own broadcast address is used.
const LIMITED_BY_SOURCE: bool = cfg!(any(target_os = "linux", target_os = "android", windows));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stock_queue_is_enough_for_a_cold_start_and_not_for_a_warm_one() {
        const STOCK: usize = 212_992;
        assert!(queue_bytes(1_000) < STOCK && queue_bytes(2_770) < STOCK);
        assert!(queue_bytes(2_780) > STOCK && queue_bytes(5_000) == 500 * ANNOUNCE_CHARGE);
        assert_eq!(queue_bytes(u32::MAX), 429_496_730 * ANNOUNCE_CHARGE);
    }
}
