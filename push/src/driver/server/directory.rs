//! Every device the server knows: what targets are resolved against and what an operator is shown.

use std::collections::HashMap;
use std::net::SocketAddr;

use wire_format::ids::{DeviceKind, NodeId, Tags};

use super::Target;
use crate::fleet::DeviceIndex;
use crate::mark::Mark;

/// A device as the server knows it, connected or not.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its id; `None` for a device given by address alone that has not been reached yet.
    pub id: Option<NodeId>,
    /// Where it is dialled.
    pub address: Option<SocketAddr>,
    /// Its kind, last heard or configured.
    pub kind: DeviceKind,
    /// Its zone, 0 for none.
    pub zone: u32,
    /// Its tags.
    pub tags: Tags,
    /// Whether a session is open.
    pub connected: bool,
}

/// The devices by their index in the fleet.
#[derive(Debug, Default)]
pub(super) struct Directory {
    entries: Vec<Entry>,
    by_id: HashMap<NodeId, DeviceIndex>,
}

/// The devices an order goes to: one mark each, from the lowest index to the highest.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) first: DeviceIndex,
    pub(super) targets: usize,
}

impl Directory {
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn find(&self, id: NodeId) -> Option<DeviceIndex> {
        self.by_id.get(&id).copied()
    }

    /// Puts a device at `index`, which is the next free one or one in use.
    pub(super) fn set(&mut self, index: DeviceIndex, entry: Entry) {
        if let Some(id) = entry.id {
            self.by_id.entry(id).or_insert(index);
        }
        let at = index.0 as usize;
        match self.entries.get_mut(at) {
            Some(place) => *place = entry,
            None => {
                debug_assert_eq!(at, self.entries.len(), "the fleet numbers devices densely");
                self.entries.push(entry);
            }
        }
    }

    pub(super) fn update(&mut self, index: DeviceIndex, change: impl FnOnce(&mut Entry)) {
        let Some(entry) = self.entries.get_mut(index.0 as usize) else { return };
        change(entry);
        if let Some(id) = entry.id {
            self.by_id.entry(id).or_insert(index);
        }
    }

    /// Writes a mark per device of `target` into `marks` (cleared first); `None` if there is no such device.
    pub(super) fn resolve(&self, target: &Target, marks: &mut Vec<u8>) -> Option<Resolved> {
        marks.clear();
        match target.named() {
            Some(ids) if ids.len() < self.entries.len() / 8 => self.resolve_named(target, ids, marks),
            _ => self.resolve_all(target, marks),
        }
    }

    fn resolve_named(&self, target: &Target, ids: &[NodeId], marks: &mut Vec<u8>) -> Option<Resolved> {
        let found = || {
            let indexes = ids.iter().filter_map(|&id| self.find(id));
            indexes
                .filter(|index| self.entries.get(index.0 as usize).is_some_and(|entry| target.matches(entry)))
        };
        let first = found().min()?;
        let last = found().max()?;
        marks.resize((last.0 - first.0) as usize + 1, Mark::NOT_TARGETED.0);
        found().for_each(|index| marks[(index.0 - first.0) as usize] = Mark::PENDING.0);
        Some(Resolved { first, targets: found().count() })
    }

    fn resolve_all(&self, target: &Target, marks: &mut Vec<u8>) -> Option<Resolved> {
        let first = self.entries.iter().position(|entry| target.matches(entry))?;
        let mut targets = 0;
        let mut len = 0;
        for (at, entry) in self.entries[first..].iter().enumerate() {
            let matches = target.matches(entry);
            if matches {
                targets += 1;
                len = at + 1;
            }
            marks.push(if matches { Mark::PENDING.0 } else { Mark::NOT_TARGETED.0 });
        }
        marks.truncate(len);
        Some(Resolved { first: DeviceIndex(u32::try_from(first).unwrap_or(u32::MAX)), targets })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> Directory {
        let mut directory = Directory::default();
        for n in 0..40_u8 {
            let entry = Entry {
                id: (n != 7).then_some(NodeId([n + 1; 16])),
                address: None,
                kind: DeviceKind(u16::from(n % 4)),
                zone: u32::from(n / 10),
                tags: Tags::new((n % 5 == 0).then_some("fifth")).unwrap(),
                connected: false,
            };
            directory.set(DeviceIndex(n.into()), entry);
        }
        directory
    }

    fn resolve(target: &Target) -> Vec<u32> {
        let mut marks = vec![0xEE; 3];
        let Some(resolved) = directory().resolve(target, &mut marks) else { return vec![] };
        let hit = |(at, &mark): (usize, &u8)| (mark == Mark::PENDING.0).then(|| resolved.first.0 + at as u32);
        let hits: Vec<_> = marks.iter().enumerate().filter_map(hit).collect();
        assert_eq!(hits.len(), resolved.targets);
        assert_eq!(
            (hits.first(), hits.last()),
            (Some(&resolved.first.0), Some(&(resolved.first.0 + marks.len() as u32 - 1)))
        );
        hits
    }

    #[test]
    fn words_narrow_each_other() {
        assert_eq!(resolve(&Target::all()).len(), 40);
        assert_eq!(resolve(&Target::zone(3).and_tag("fifth")), [30, 35]);
        assert_eq!(resolve(&Target::kind(DeviceKind(1)).and_zone(0)), [1, 5, 9]);
        assert_eq!(resolve(&Target::tag("sixth")), []);
    }

    #[test]
    fn ids_are_looked_up_or_walked_alike() {
        let id = |n: u8| NodeId([n; 16]);
        assert_eq!(resolve(&Target::ids([id(20), id(4), id(20)])), [3, 19]);
        assert_eq!(resolve(&Target::ids([id(4), id(20)]).and_zone(1)), [19]);
        assert_eq!(resolve(&Target::ids((1..30).map(id))).len(), 28, "index 7 has no id yet");
        assert_eq!(resolve(&Target::id(id(8))), [], "index 7 has no id yet");
        assert_eq!(resolve(&Target::id(id(99))), []);
    }
}
