//! Whom an order is for.

use wire_format::ids::{DeviceKind, NodeId};

use super::directory::Entry;

/// A set of devices, resolved once, when the order is pushed, against every device known then. Each further word
/// narrows it.
///
/// ```
/// use push::driver::server::Target;
/// use wire_format::ids::DeviceKind;
/// let kiosks_of_zone_3 = Target::kind(DeviceKind::KIOSK).and_zone(3);
/// assert_eq!(kiosks_of_zone_3.to_string(), "kind=kiosk,zone=3");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    kind: Option<DeviceKind>,
    zone: Option<u32>,
    tags: Vec<String>,
    ids: Option<Vec<NodeId>>,
}

impl Target {
    /// Every device.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// The devices of this kind.
    #[must_use]
    pub fn kind(kind: DeviceKind) -> Self {
        Self::all().and_kind(kind)
    }

    /// The devices of this zone.
    #[must_use]
    pub fn zone(zone: u32) -> Self {
        Self::all().and_zone(zone)
    }

    /// The devices that carry this tag.
    #[must_use]
    pub fn tag(tag: impl Into<String>) -> Self {
        Self::all().and_tag(tag)
    }

    /// This device.
    #[must_use]
    pub fn id(id: NodeId) -> Self {
        Self::ids([id])
    }

    /// These devices.
    #[must_use]
    pub fn ids(ids: impl IntoIterator<Item = NodeId>) -> Self {
        let mut ids: Vec<_> = ids.into_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        Self { ids: Some(ids), ..Self::default() }
    }

    /// Of these, those of this kind.
    #[must_use]
    pub fn and_kind(self, kind: DeviceKind) -> Self {
        Self { kind: Some(kind), ..self }
    }

    /// Of these, those of this zone.
    #[must_use]
    pub fn and_zone(self, zone: u32) -> Self {
        Self { zone: Some(zone), ..self }
    }

    /// Of these, those that carry this tag (as well).
    #[must_use]
    pub fn and_tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Of these, those among `ids`.
    #[must_use]
    pub fn and_ids(self, ids: impl IntoIterator<Item = NodeId>) -> Self {
        Self { ids: Self::ids(ids).ids, ..self }
    }

    /// Whether a device belongs to it.
    pub(super) fn matches(&self, device: &Entry) -> bool {
        self.kind.is_none_or(|kind| device.kind == kind)
            && self.zone.is_none_or(|zone| device.zone == zone)
            && self.tags.iter().all(|tag| device.tags.contains(tag))
            && self.ids.as_ref().is_none_or(|ids| device.id.is_some_and(|id| ids.binary_search(&id).is_ok()))
    }

    /// The ids it names, if it names any: a short list is looked up instead of walking every device.
    pub(super) fn named(&self) -> Option<&[NodeId]> {
        self.ids.as_deref()
    }
}

impl core::fmt::Display for Target {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut first = true;
        let mut word = |f: &mut core::fmt::Formatter<'_>, name: &str, value: &dyn core::fmt::Display| {
            let comma = if core::mem::take(&mut first) { "" } else { "," };
            write!(f, "{comma}{name}={value}")
        };
        if let Some(kind) = self.kind {
            word(f, "kind", &kind)?;
        }
        if let Some(zone) = self.zone {
            word(f, "zone", &zone)?;
        }
        for tag in &self.tags {
            word(f, "tag", tag)?;
        }
        for id in self.ids.iter().flatten() {
            word(f, "id", id)?;
        }
        if first { f.write_str("all") } else { Ok(()) }
    }
}
