//! Devices a shard takes in, and out again.

use tokio::sync::oneshot;
use wire_format::time::Instant;

use super::shard::Shard;
use super::shared::Word;
use super::{AddError, Device};
use crate::fleet::{AddError as Refused, DeviceIndex, NewDevice};

/// A device to take in, and who waits for it.
#[derive(Debug)]
pub(super) struct Addition {
    pub(super) device: Device,
    pub(super) position: u32,
    pub(super) word: Word,
    pub(super) reply: oneshot::Sender<Result<(), AddError>>,
}

impl Shard {
    /// Takes a device in at its position. One that was taken off the list just now, and is still in the fleet because its
    /// removal waits for the disk, waits as well.
    pub(super) fn take_in(&mut self, now: Instant, addition: Addition) {
        let new = NewDevice { id: addition.device.id, address: None };
        match self.fleet.add_device(now, new) {
            Ok(local) => {
                self.settle_in(now, local, &addition);
                let _gone = addition.reply.send(Ok(()));
            }
            Err(Refused::Known { device }) if self.is_leaving(device) => self.additions.push(addition),
            Err(_) => {
                self.shared.update(|directory| {
                    directory.unlist(addition.position);
                    directory.vacate(addition.position, 0);
                });
                let _gone = addition.reply.send(Err(AddError::Full { capacity: self.shared.devices_max }));
            }
        }
    }

    /// Whether a device is off the list, and its removal on its way.
    fn is_leaving(&self, local: DeviceIndex) -> bool {
        let position = self.positions.get(local.0 as usize);
        position.is_some_and(|&position| self.shared.directory().place(position).is_none())
    }

    /// Takes a device out. Who waited for that is taken in.
    pub(super) fn remove(&mut self, now: Instant, local: DeviceIndex) {
        self.fleet.remove_device(now, local);
        for addition in core::mem::take(&mut self.additions) {
            self.take_in(now, addition);
        }
    }

    fn settle_in(&mut self, now: Instant, local: DeviceIndex, addition: &Addition) {
        let &Addition { ref device, position, word, .. } = addition;
        // Its place may have had another holder, and orders pushed from here on are for this one.
        let since = self.shared.head().saturating_add(1);
        self.shared.update(|directory| directory.settle_in(position, local, since));
        match self.positions.get_mut(local.0 as usize) {
            Some(place) => *place = position,
            None => self.positions.push(position),
        }
        if (local.0 as usize) < self.sockets.len() {
            self.sockets.close(local);
        } else {
            self.sockets.add(local);
        }
        self.address(now, local, device.address, word);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wire_format::ids::{DeviceKind, Lineage, NodeId, Store, Tags};

    use super::super::directory::Reserved;
    use super::super::shared::Shared;
    use super::super::{ConnConfig, ServerConfig};
    use super::*;
    use crate::config::FleetConfig;

    #[tokio::test]
    async fn a_device_listed_again_before_its_removal_is_kept_waits_for_it() {
        let fleet = FleetConfig::new(NodeId([1; 16]), Store::new(1, "PARIS-12").unwrap(), Lineage([2; 16]));
        let conn = ConnConfig::default();
        let config = ServerConfig { fleet, conn, devices: 8, orders: 8, bytes: 1, seed: 0, shards: Some(1) };
        let shared = Arc::new(Shared::new(&config, 1, Some(0)));
        let mut shard = Shard::all(&config, &shared).remove(0);
        let (now, id) = (Instant::ZERO, Some(NodeId([7; 16])));
        let add = |shard: &mut Shard| {
            let (zone, address) = (0, ([127, 0, 0, 1], 1).into());
            let device = Device { id, address, kind: DeviceKind::TILL, zone, tags: Tags::EMPTY };
            let reserved = shared.update(|it| it.reserve(device, Word::Operator, 0));
            let Reserved::New(position, _) = reserved else { panic!("{reserved:?}") };
            let (reply, answer) = oneshot::channel();
            shard.take_in(now, Addition { device, position, word: Word::Operator, reply });
            (position, answer)
        };
        let (first, mut answer) = add(&mut shard);
        assert_eq!(answer.try_recv(), Ok(Ok(())));
        // Nobody writes the removal down.
        assert!(shared.remove(first));
        let (second, mut answer) = add(&mut shard);
        assert!(answer.try_recv().is_err(), "it is neither in nor refused");
        assert!(shared.directory().place(second).is_some(), "and stays listed");
        shard.remove(now, DeviceIndex(0));
        assert_eq!(answer.try_recv(), Ok(Ok(())));
        assert_eq!(shared.directory().place(second), Some((0, Some(DeviceIndex(1)))));
    }
}
