//! Ends of sessions that two right halves cannot have.

use push::Ended;
use wire_format::frame::reject;

use super::names::Probe;
use super::world::World;

/// Cuts, pauses and other servers end sessions; a protocol error between two halves that are right is a bug.
pub(super) fn check_end(world: &mut World, device: Option<usize>, why: Ended) {
    match why {
        Ended::Refused { code } | Ended::Rejected { code, .. } => check_refusal(world, device, code),
        Ended::WrongDevice { .. } => world.probe(Probe::WrongDevice),
        Ended::Dead => world.probe(Probe::DeadPeer),
        Ended::Frozen => world.probe(Probe::FrozenDevice),
        Ended::Replaced => world.probe(Probe::Replaced),
        Ended::Closed(_)
        | Ended::HandshakeTimeout
        | Ended::DialTimeout
        | Ended::Bye { .. }
        | Ended::Removed
        | Ended::Renewed
        | Ended::JournalFailed
        | Ended::Stopped => {}
        other => world.ledger.fail(world.now, "ProtocolError", device, &[], other),
    }
}

fn check_refusal(world: &mut World, device: Option<usize>, code: reject::Code) {
    match code {
        reject::Code::LEASE_HELD => world.probe(Probe::LeaseHeld),
        reject::Code::STALE_FENCE => world.probe(Probe::StaleFence),
        reject::Code::DRAINING => world.probe(Probe::Draining),
        reject::Code::WRONG_DEVICE => world.probe(Probe::WrongDevice),
        reject::Code::BUSY | reject::Code::TOO_MANY_PEERS => {}
        other => {
            world.ledger.fail(
                world.now,
                "Refused",
                device,
                &[],
                format_args!("a session is refused: {other}"),
            );
        }
    }
}

/// Whether the device obeys another server.
pub(super) const fn is_outdone(why: Ended) -> bool {
    matches!(why, Ended::Rejected { code: reject::Code::STALE_FENCE, .. })
}
