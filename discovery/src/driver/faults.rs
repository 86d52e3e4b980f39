//! Failing sockets for tests: what the system would answer once in a while, as often and when a test wants it.

use core::net::Ipv4Addr;
use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::outbox::Outgoing;

/// The failures to come. Shared between a test and the sockets it drives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults(alloc::sync::Arc<Mutex<Plan>>);

#[derive(Debug, Default)]
struct Plan {
    receives: VecDeque<io::ErrorKind>,
    dead: Option<(Ipv4Addr, io::ErrorKind)>,
}

impl Faults {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next `count` receives fail like this.
    pub(crate) fn fail_receives(&self, count: usize, kind: io::ErrorKind) {
        self.plan().receives.extend(core::iter::repeat_n(kind, count));
    }

    /// Every send to this address fails like this.
    pub(crate) fn fail_sends_to(&self, address: Ipv4Addr, kind: io::ErrorKind) {
        self.plan().dead = Some((address, kind));
    }

    /// Failures of receives still to come.
    pub(crate) fn receives_left(&self) -> usize {
        self.plan().receives.len()
    }

    pub(super) fn receive_waits(&self) -> bool {
        self.receives_left() > 0
    }

    pub(super) fn receive(&self) -> io::Result<()> {
        self.plan().receives.pop_front().map_or(Ok(()), |kind| Err(kind.into()))
    }

    pub(super) fn send(&self, one: Option<Outgoing<'_>>) -> io::Result<()> {
        match (self.plan().dead, one) {
            (Some((address, kind)), Some(one)) if *one.to.ip() == address => Err(kind.into()),
            _ => Ok(()),
        }
    }

    /// Those before the first that fails: what `sendmmsg` takes.
    pub(super) fn fine<'o>(
        &self,
        posts: impl Iterator<Item = Outgoing<'o>>,
    ) -> impl ExactSizeIterator<Item = Outgoing<'o>> {
        let fine: Vec<_> = posts.take_while(|one| self.send(Some(*one)).is_ok()).collect();
        fine.into_iter()
    }
}
