//! News about nobody in the roster: another server, a device turned away. At most one a minute each.

use core::net::SocketAddrV4;
use core::time::Duration;

use wire_format::ids::NodeId;
use wire_format::time::Instant;

use crate::event::What;

const APART: Duration = Duration::from_secs(60);

/// What an event will say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Notice {
    pub(super) id: NodeId,
    pub(super) address: SocketAddrV4,
    pub(super) what: What,
}

/// Room for one notice, and when the next may follow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Board {
    notice: Option<Notice>,
    next: Instant,
}

impl Board {
    pub(super) const fn new() -> Self {
        Self { notice: None, next: Instant::ZERO }
    }

    /// Puts it up, unless the last one is younger than a minute.
    pub(super) fn raise(&mut self, now: Instant, notice: Notice) {
        if now >= self.next {
            self.next = now + APART;
            self.notice = Some(notice);
        }
    }

    pub(super) const fn take(&mut self) -> Option<Notice> {
        self.notice.take()
    }
}
