//! Ends of sessions that two right halves cannot have.

use push::{DeviceIndex, Ended};
use wire_format::frame::reject;

use super::names::Probe;
use super::world::World;

impl World {
    /// A session of a server with the device at this place is over.
    pub(super) fn check_server_end(&mut self, at: usize, index: DeviceIndex, why: Ended) {
        // A device met twice was judged when it said who it is.
        if !matches!(why, Ended::DuplicateDevice { .. }) {
            check_end(self, Some(self.servers[at].device_of[index.0 as usize]), why);
        }
    }

    /// What the device at this place said ends its session. A device known by its address alone may be listed again before
    /// its removal is written down: until then its old place has it.
    pub(super) fn check_heard(&mut self, at: usize, index: DeviceIndex, why: Ended) {
        let server = &self.servers[at];
        let device = server.device_of[index.0 as usize];
        let leaves = |first: u32| {
            server.leaving.contains(&first)
                && server.device_of[first as usize] == device
                && server.index[device] == Some(index)
        };
        match why {
            Ended::DuplicateDevice { first } if leaves(first) => self.probe(Probe::ListedTwice),
            why => check_end(self, Some(device), why),
        }
    }
}

/// Cuts, pauses and other servers end sessions; a protocol error between two halves that are right is a bug.
pub(super) fn check_end(world: &mut World, device: Option<usize>, why: Ended) {
    match why {
        Ended::Refused { code } | Ended::Rejected { code, .. } => check_refusal(world, device, code),
        Ended::WrongDevice { .. } => world.probe(Probe::WrongDevice),
        Ended::Dead => world.probe(Probe::DeadPeer),
        Ended::Frozen => world.probe(Probe::FrozenDevice),
        Ended::Replaced => world.probe(Probe::Replaced),
        Ended::FloorAhead if world.forks > 0 => {}
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
        reject::Code::UNAUTHORIZED if world.forks > 0 => {}
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
