//! Whom this device serves: the checks a HELLO has to pass, in their order, and the fence that decides between servers.
//!
//! ```text
//! version ─▶ staging ─▶ store ─▶ target ─▶ fence ─▶ WELCOME
//!    │          │         │        │         │
//!    └──────────┴─────────┴────────┴─────────┴──▶ REJECT with the first that fails
//! ```
//!
//! A staging server is refused before its fence is looked at, so no number it may hold can matter. The device enforces
//! the fence and no server's opinion about another counts:
//!
//! | fence | from | answer |
//! | --- | --- | --- |
//! | any | anybody, as long as no fence was accepted | served |
//! | same or higher | the server served last | served at once: it is its own session that it replaces |
//! | higher | another server | served once the lease is over; before: LEASE_HELD |
//! | same | another server | LEASE_HELD during the lease, STALE_FENCE after it |
//! | lower | anybody | STALE_FENCE |
//!
//! The **lease** runs for [`LEASE`] after the last frame of the server served last, whether its connection lives or not.
//! Its BYE ends the lease at once.

use core::time::Duration;

use wire_format::error::ParseError;
use wire_format::frame::hello::{Hello, VERSION};
use wire_format::frame::reject::{Code, Reject};
use wire_format::ids::{NodeId, Store};
use wire_format::time::Instant;

/// How long a server keeps a device after its last frame: three lost PINGs of 3 s.
pub const LEASE: Duration = Duration::from_secs(9);

/// The fence a device has accepted, and from whom. Worth persisting: after a reboot it keeps a fenced server out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The server that holds it, never [`NodeId::NONE`].
    pub server: NodeId,
    /// Its number.
    pub fence: u64,
}

/// What the device is, as far as a HELLO has to name it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own<'c> {
    pub(super) id: NodeId,
    pub(super) store: &'c Store,
    pub(super) staging: bool,
    /// The fence accepted, and from whom.
    pub(super) known: Option<Known>,
}

/// The memory behind the decision, beside the fence known: that stands in the configuration.
#[derive(Debug)]
pub(super) struct Fence {
    lease_until: Instant,
}

impl Fence {
    pub(super) const fn new() -> Self {
        Self { lease_until: Instant::ZERO }
    }

    /// Whether `hello` opens a session, or the refusal to send. Changes nothing.
    pub(super) fn judge(&self, now: Instant, own: Own<'_>, hello: &Hello) -> Result<(), Reject> {
        if !(hello.version_min..=hello.version_max).contains(&VERSION) {
            return Err(reject_version());
        }
        if hello.staging != own.staging {
            return Err(reject(Code::STAGING));
        }
        if hello.store != *own.store {
            return Err(reject(Code::WRONG_STORE));
        }
        if !hello.target.is_none() && hello.target != own.id {
            return Err(reject(Code::WRONG_DEVICE));
        }
        self.judge_fence(now, own.known, hello.server, hello.fence)
    }

    fn judge_fence(
        &self,
        now: Instant,
        known: Option<Known>,
        server: NodeId,
        fence: u64,
    ) -> Result<(), Reject> {
        let Some(known) = known else { return Ok(()) };
        let held = self.lease_until.since(now);
        if fence < known.fence {
            Err(Reject { detail: known.fence, ..reject(Code::STALE_FENCE) })
        } else if server == known.server {
            Ok(())
        } else if !held.is_zero() {
            let ms = u32::try_from(held.as_micros().div_ceil(1_000)).unwrap_or(u32::MAX);
            Err(Reject { retry_after_ms: ms, ..reject(Code::LEASE_HELD) })
        } else if fence == known.fence {
            Err(Reject { detail: known.fence, ..reject(Code::STALE_FENCE) })
        } else {
            Ok(())
        }
    }

    /// A HELLO that passed is answered with WELCOME: its server is the one served from now on.
    pub(super) fn accept(&mut self, now: Instant, hello: &Hello) -> Known {
        self.heard(now);
        Known { server: hello.server, fence: hello.fence }
    }

    /// A frame of the server served came.
    pub(super) fn heard(&mut self, now: Instant) {
        self.lease_until = now + LEASE;
    }

    /// The server served said BYE.
    pub(super) const fn release(&mut self) {
        self.lease_until = Instant::ZERO;
    }
}

/// The answer to a HELLO whose version could not be read.
pub(super) const fn reject_version() -> Reject {
    Reject { detail: u64::from_le_bytes([VERSION, VERSION, 0, 0, 0, 0, 0, 0]), ..reject(Code::VERSION) }
}

/// Whether a HELLO that did not parse is one of another version, which deserves an answer; everything else gets none.
pub(super) fn is_other_version(error: &ParseError) -> bool {
    error.fault == wire_format::error::Fault::Version
}

pub(super) const fn reject(code: Code) -> Reject {
    Reject { code, retry_after_ms: 0, detail: 0 }
}

#[cfg(test)]
mod tests {
    use wire_format::frame::hello::LogHead;
    use wire_format::ids::Lineage;

    use super::*;

    const A: NodeId = NodeId([0xA; 16]);
    const B: NodeId = NodeId([0xB; 16]);
    const DEVICE: NodeId = NodeId([0xD; 16]);
    const SECOND: Duration = Duration::from_secs(1);

    fn store() -> Store {
        Store::new(7, "PARIS-12").unwrap()
    }

    fn hello(server: NodeId, fence: u64) -> Hello {
        Hello {
            version_min: 1,
            version_max: 1,
            staging: false,
            takeover: false,
            store: store(),
            max_body: 512,
            target: DEVICE,
            server,
            fence,
            epoch: 1,
            ping_interval_ms: 3_000,
            features: 0,
            durable: LogHead::default(),
            volatile: LogHead { lineage: Lineage([1; 16]), run: 1, head: 0 },
        }
    }

    struct Held {
        fence: Fence,
        known: Option<Known>,
    }

    fn judge(held: &Held, now: Instant, hello: &Hello) -> Option<Reject> {
        let (store, known) = (store(), held.known);
        held.fence.judge(now, Own { id: DEVICE, store: &store, staging: false, known }, hello).err()
    }

    /// A fence of 5 held by A, whose last frame came at second 100.
    fn held() -> (Held, Instant) {
        let now = Instant::from_millis(100_000);
        let mut fence = Fence::new();
        let known = Some(fence.accept(now, &hello(A, 5)));
        (Held { fence, known }, now)
    }

    #[test]
    fn the_table_of_fences() {
        let stale = Some(Reject { detail: 5, ..reject(Code::STALE_FENCE) });
        let lease = |ms| Some(Reject { retry_after_ms: ms, ..reject(Code::LEASE_HELD) });
        let last_instant = LEASE - Duration::from_micros(1);
        for (server, number, after, answer) in [
            (A, 5, Duration::ZERO, None),
            (A, 6, Duration::ZERO, None),
            (A, 4, Duration::ZERO, stale),
            (A, 4, LEASE, stale),
            (B, 6, Duration::ZERO, lease(9_000)),
            (B, 6, SECOND, lease(8_000)),
            (B, 6, last_instant, lease(1)),
            (B, 6, LEASE, None),
            (B, 5, Duration::ZERO, lease(9_000)),
            (B, 5, LEASE, stale),
            (B, 4, Duration::ZERO, stale),
            (B, 4, LEASE, stale),
            (B, u64::MAX, LEASE, None),
        ] {
            let (fence, now) = held();
            assert_eq!(
                judge(&fence, now + after, &hello(server, number)),
                answer,
                "{server} {number} {after:?}"
            );
        }
    }

    #[test]
    fn a_frame_prolongs_the_lease_and_bye_ends_it() {
        let (mut fence, now) = held();
        fence.fence.heard(now + 5 * SECOND);
        assert_eq!(judge(&fence, now + LEASE, &hello(B, 6)).map(|reject| reject.retry_after_ms), Some(5_000));
        fence.fence.release();
        assert_eq!(judge(&fence, now + LEASE, &hello(B, 6)), None);
        // Even then a server that knows no better than the fence in force stays out.
        assert_eq!(
            judge(&fence, now + LEASE, &hello(B, 5)).map(|reject| reject.code),
            Some(Code::STALE_FENCE)
        );
    }

    #[test]
    fn a_persisted_fence_keeps_a_fenced_server_out_after_a_boot() {
        let fence = Held { fence: Fence::new(), known: Some(Known { server: B, fence: 6 }) };
        assert_eq!(
            judge(&fence, Instant::ZERO, &hello(A, 5)).map(|reject| reject.code),
            Some(Code::STALE_FENCE)
        );
        assert_eq!(judge(&fence, Instant::ZERO, &hello(B, 6)), None);
        assert_eq!(judge(&fence, Instant::ZERO, &hello(A, 7)), None);
    }

    #[test]
    fn the_first_check_that_fails_answers() {
        let (fence, now) = held();
        // Wrong in everything, then made right one by one in the order of the checks.
        let mut wrong = Hello {
            version_min: 2,
            version_max: 3,
            staging: true,
            store: Store::new(7, "PARIS-13").unwrap(),
            target: B,
            ..hello(B, 9)
        };
        let code = |hello: &Hello| judge(&fence, now, hello).map(|reject| reject.code);
        assert_eq!(judge(&fence, now, &wrong), Some(Reject { detail: 0x0101, ..reject(Code::VERSION) }));
        wrong.version_min = 1;
        assert_eq!(code(&wrong), Some(Code::STAGING));
        wrong.staging = false;
        assert_eq!(code(&wrong), Some(Code::WRONG_STORE));
        wrong.store = store();
        assert_eq!(code(&wrong), Some(Code::WRONG_DEVICE));
        wrong.target = NodeId::NONE;
        assert_eq!(code(&wrong), Some(Code::LEASE_HELD));
        wrong.server = A;
        assert_eq!(code(&wrong), None);
    }
}
