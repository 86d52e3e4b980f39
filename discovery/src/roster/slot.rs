//! What is kept of one device: at most 400 bytes, in the caller's storage.

use core::net::SocketAddrV4;

use wire_format::datagram::{Announce, Firmware};
use wire_format::ids::{DeviceCode, DeviceKind, Name, NodeId, Tags};
use wire_format::time::Instant;

use super::table::{Queue, Wiring};
use crate::auth::{Sighting, Window};
use crate::config::Services;
use crate::event::{Fields, What};
use crate::link::LinkId;

/// How sure the server is that a device is here.
///
/// ```text
///             ANNOUNCE, answer                 set_linked(true)
///          ┌───────────────────┐            ┌───────────────────▶ Linked
///          ▼    2/3 lease      │            │                       │
///  ──▶ Fresh ────────────▶ Suspect      (any state)                 │ set_linked(false)
///       ▲  │                   │ lease                              ▼
///       │  │ BYE, silent       ▼                                  Fresh
///       │  └──▶ Left         Lost        ──▶ (forgotten after `forget_s`, or when room is needed)
///       │ heard                ▲
///  ──▶ Unconfirmed ────────────┘ lease
///   (from a snapshot)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Heard within 2/3 of the lease.
    Fresh,
    /// Not heard for 2/3 of the lease; it was asked.
    Suspect,
    /// Its push session is healthy.
    Linked,
    /// It was here when the snapshot was taken, and has not been heard since. The first sign of life, an ANNOUNCE or a
    /// session, tells it as joined.
    Unconfirmed,
    /// Not heard for a whole lease.
    Lost,
    /// It said goodbye.
    Left,
}

/// A device as the roster shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceView<'a> {
    /// Who it is.
    pub id: NodeId,
    /// What it is.
    pub kind: DeviceKind,
    /// Its display name, empty if it has none.
    pub name: &'a str,
    /// The product's code of it, empty if it has none.
    pub code: &'a str,
    /// Where it takes orders: the address its datagrams come from, and the port it announced.
    pub address: SocketAddrV4,
    /// Where its datagrams come from.
    pub source: SocketAddrV4,
    /// The interface they arrive on; [`LinkId::ROUTED`] of a device that was not heard since it was restored.
    pub link: LinkId,
    /// Where it stands.
    pub zone: Option<u32>,
    /// Its tags.
    pub tags: &'a Tags,
    /// What it offers.
    pub services: &'a Services,
    /// What runs on it.
    pub firmware: Option<Firmware>,
    /// What it can do, as bits.
    pub caps: Option<u64>,
    /// Its boot epoch.
    pub epoch: u32,
    /// The last sign of life; of an unconfirmed device, when it was restored.
    pub heard: Instant,
    /// Whether it has had a healthy push session with this server, in this run or before the snapshot it was restored from.
    pub served: bool,
    /// How sure we are that it is here.
    pub state: State,
}

/// Why a device is being asked whether it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// It is not.
    Nothing,
    /// It was silent for 2/3 of its lease.
    Suspect,
    /// Somebody said goodbye in its name.
    Leaving,
    /// Somebody announced its id from elsewhere, or from an earlier boot.
    Contest,
}

/// Where a statement came from: address and boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) source: SocketAddrV4,
    pub(super) link: LinkId,
    pub(super) port: u16,
    pub(super) epoch: u32,
    pub(super) sequence: u32,
}

impl Origin {
    pub(super) const NONE: Self = Self { source: NOWHERE, link: LinkId(0), port: 0, epoch: 0, sequence: 0 };

    pub(super) const fn push_address(&self) -> SocketAddrV4 {
        SocketAddrV4::new(*self.source.ip(), self.port)
    }
}

const NOWHERE: SocketAddrV4 = SocketAddrV4::new(core::net::Ipv4Addr::UNSPECIFIED, 0);

/// What a device says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Record {
    pub(super) caps: Option<u64>,
    pub(super) firmware: Option<Firmware>,
    pub(super) zone: Option<u32>,
    pub(super) kind: DeviceKind,
    pub(super) code: DeviceCode,
    pub(super) name: Name,
    pub(super) tags: Tags,
    pub(super) services: Services,
}

impl Record {
    const NONE: Self = Self {
        kind: DeviceKind::TILL,
        name: Name::EMPTY,
        code: DeviceCode::EMPTY,
        zone: None,
        tags: Tags::EMPTY,
        services: Services::EMPTY,
        firmware: None,
        caps: None,
    };

    /// Takes over what `announce` says; what was different before. Compares in place: a refresh that says nothing new
    /// writes nothing.
    fn update(&mut self, announce: &Announce<'_>) -> Fields {
        let mut changed = Fields::default();
        changed.insert_if(Fields::KIND, replace(&mut self.kind, announce.from.role));
        changed.insert_if(Fields::ZONE, replace(&mut self.zone, announce.zone));
        changed.insert_if(Fields::FIRMWARE, replace(&mut self.firmware, announce.firmware));
        changed.insert_if(Fields::CAPS, replace(&mut self.caps, announce.caps));
        let name = announce.name.map_or(&[][..], |name| name.as_bytes());
        if differ(self.name.as_bytes(), name) {
            self.name = announce.name.and_then(|name| Name::new(name.as_str())).unwrap_or_default();
            changed.insert_if(Fields::NAME, true);
        }
        let code = announce.code.map_or(&[][..], |code| code.as_bytes());
        if differ(self.code.as_bytes(), code) {
            self.code = announce.code.and_then(|code| DeviceCode::new(code.as_str())).unwrap_or_default();
            changed.insert_if(Fields::CODE, true);
        }
        let packed = announce.tags.map_or(&[][..], |tags| tags.as_packed());
        if differ(self.tags.as_packed(), packed) {
            self.tags = Tags::from_packed(packed).unwrap_or_default();
            changed.insert_if(Fields::TAGS, true);
        }
        let services = announce.services.map_or(&[][..], |services| services.as_bytes());
        let kept = services.get(..crate::config::SERVICES_MAX * SERVICE_LEN).unwrap_or(services);
        if differ(self.services.as_services().map_or(&[][..], |services| services.as_bytes()), kept) {
            self.services = announce.services.map_or(Services::EMPTY, Services::copy_of);
            changed.insert_if(Fields::SERVICES, true);
        }
        changed
    }
}

const SERVICE_LEN: usize = wire_format::datagram::service::SERVICE_LEN;

/// Without a call for nothing against nothing: the C library's comparison looks at an empty slice's address with a masked
/// read, and where nothing is mapped there some processors need 80 ns for it.
fn differ(kept: &[u8], said: &[u8]) -> bool {
    kept.len() != said.len() || (!said.is_empty() && kept != said)
}

fn replace<T: PartialEq>(field: &mut T, value: T) -> bool {
    let different = *field != value;
    *field = value;
    different
}

/// News not handed out yet: a set of bits, told in the order of their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct News(u16);

impl News {
    pub(super) const JOINED: Self = Self(0x001);
    pub(super) const BACK: Self = Self(0x002);
    pub(super) const REBOOTED: Self = Self(0x004);
    pub(super) const MOVED: Self = Self(0x008);
    pub(super) const CHANGED: Self = Self(0x010);
    pub(super) const SUSPECT: Self = Self(0x020);
    pub(super) const LOST: Self = Self(0x040);
    pub(super) const LEFT: Self = Self(0x080);
    pub(super) const CONFLICT: Self = Self(0x100);

    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Adds `other`. Of doubts and their end only the last counts.
    pub(super) const fn add(&mut self, other: Self) {
        const DOUBT: u16 = News::SUSPECT.0 | News::LOST.0 | News::LEFT.0;
        match other {
            Self::BACK => self.0 = self.0 & !DOUBT | Self::BACK.0,
            Self::SUSPECT | Self::LOST | Self::LEFT => self.0 = self.0 & !DOUBT & !Self::BACK.0 | other.0,
            _ => self.0 |= other.0,
        }
    }

    /// Takes the first. What happened before a device was told to be here at all is part of its having joined.
    const fn take(&mut self) -> Option<Self> {
        const PART_OF_JOINED: u16 = News::BACK.0 | News::REBOOTED.0 | News::MOVED.0 | News::CHANGED.0;
        if self.0 == 0 {
            return None;
        }
        let first = 1 << self.0.trailing_zeros();
        self.0 &= !first;
        if first == Self::JOINED.0 {
            self.0 &= !PART_OF_JOINED;
        }
        Some(Self(first))
    }
}

/// What happened to a device before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Past(u8);

impl Past {
    /// The last that was told of it is a doubt: Suspect, Lost or Left.
    pub(super) const DOUBT_TOLD: Self = Self(0x01);
    /// It had a healthy push session: whoever forges announces has none.
    pub(super) const SERVED: Self = Self(0x02);

    pub(super) const fn has(self, what: Self) -> bool {
        self.0 & what.0 != 0
    }

    /// Sets or clears; how it was before.
    pub(super) const fn set(&mut self, what: Self, to: bool) -> bool {
        let before = self.has(what);
        self.0 = if to { self.0 | what.0 } else { self.0 & !what.0 };
        before
    }
}

/// Room for one device.
///
/// In this order in memory: what a refresh that says nothing new reads and writes stands together, the rest behind it.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Slot {
    pub(super) id: NodeId,
    pub(super) wiring: Wiring,
    /// Which question is open; part of its cookie.
    pub(super) ask_number: u32,
    pub(super) heard: Instant,
    /// When its place in a lease queue, and in an asking queue, is over. On the lease clock.
    pub(super) lease_due: Instant,
    /// Its last accepted statement.
    pub(super) origin: Origin,
    /// Which datagrams of the boot `origin.epoch` were seen under its key.
    pub(super) seen: Window,
    /// Cookies it came back with; the next one differs.
    pub(super) proofs: u16,
    /// Its key when it last announced itself.
    pub(super) key_id: u16,
    pub(super) news: News,
    pub(super) changed: Fields,
    pub(super) ask: Ask,
    /// A gone device said goodbye.
    pub(super) left: bool,
    pub(super) past: Past,
    pub(super) record: Record,
    pub(super) ask_due: Instant,
    /// The rival is turned away unheard until then.
    pub(super) refused_until: Instant,
    /// The next Conflict may be told then.
    pub(super) conflict_from: Instant,
    /// Who contests it, while `ask` is Contest and until `refused_until`.
    pub(super) rival: Origin,
    /// Its epoch and push address as the last event told them.
    pub(super) told_epoch: u32,
    pub(super) told_address: SocketAddrV4,
}

/// What DESIGN allows one device to cost.
const _: () = assert!(size_of::<Slot>() <= 400);

impl Slot {
    /// Nobody.
    pub const EMPTY: Self = Self {
        wiring: Wiring::NONE,
        id: NodeId::NONE,
        record: Record::NONE,
        origin: Origin::NONE,
        seen: Window::NONE,
        proofs: 0,
        key_id: 0,
        rival: Origin::NONE,
        told_epoch: 0,
        told_address: NOWHERE,
        heard: Instant::ZERO,
        lease_due: Instant::ZERO,
        ask_due: Instant::ZERO,
        refused_until: Instant::ZERO,
        conflict_from: Instant::ZERO,
        ask_number: 0,
        ask: Ask::Nothing,
        left: false,
        past: Past(0),
        news: News(0),
        changed: Fields(0),
    };

    /// Takes over what `announce` says about the device; what was different, the push port included.
    pub(super) fn update(&mut self, announce: &Announce<'_>) -> Fields {
        let mut changed = self.record.update(announce);
        changed.insert_if(Fields::PORT, replace(&mut self.origin.port, announce.from.port));
        changed
    }

    /// The next thing to tell; `None` if there is nothing, or nothing but what was told before.
    pub(super) fn take_news(&mut self) -> Option<What> {
        while let Some(news) = self.news.take() {
            let what = self.what(news);
            if what.is_some() {
                return what;
            }
        }
        None
    }

    /// What `news` says, given what was told before; `None` if it comes to nothing.
    fn what(&mut self, news: News) -> Option<What> {
        let (address, epoch) = (self.origin.push_address(), self.origin.epoch);
        Some(match news {
            News::JOINED => {
                (self.told_epoch, self.told_address) = (epoch, address);
                self.past.set(Past::DOUBT_TOLD, false);
                self.changed = Fields::default();
                What::Joined
            }
            News::REBOOTED => match core::mem::replace(&mut self.told_epoch, epoch) {
                before if before == epoch => return None,
                before => What::Rebooted { before, epoch },
            },
            News::MOVED => match core::mem::replace(&mut self.told_address, address) {
                from if from == address => return None,
                from => What::Moved { from },
            },
            News::CHANGED => {
                self.told_address = address;
                What::Changed { fields: core::mem::take(&mut self.changed) }
            }
            News::BACK if !self.past.set(Past::DOUBT_TOLD, false) => return None,
            News::BACK => What::Back,
            News::CONFLICT => What::Conflict { rival: self.rival.source },
            doubt => {
                self.past.set(Past::DOUBT_TOLD, true);
                match doubt {
                    News::SUSPECT => What::Suspect,
                    News::LOST => What::Lost,
                    _ => What::Left,
                }
            }
        })
    }

    /// The numbers seen so far are those of this boot, or of another one.
    pub(super) fn see(&mut self, before: u32, origin: &Origin) {
        if before != origin.epoch || self.seen.look(origin.sequence) == Sighting::Forgotten {
            self.seen = Window::after(origin.sequence);
        } else {
            self.seen.mark(origin.sequence);
        }
    }

    /// How sure we are; `None` for nobody.
    pub(super) fn state(&self) -> Option<State> {
        match self.wiring.lease_queue() {
            Some(Queue::Fresh) => Some(State::Fresh),
            Some(Queue::Suspect) => Some(State::Suspect),
            Some(Queue::Linked) => Some(State::Linked),
            Some(Queue::Unconfirmed) => Some(State::Unconfirmed),
            Some(Queue::Gone) if self.left => Some(State::Left),
            Some(Queue::Gone) => Some(State::Lost),
            _ => None,
        }
    }

    /// Lost or left.
    pub(super) fn is_gone(&self) -> bool {
        self.wiring.lease_queue() == Some(Queue::Gone)
    }

    pub(super) fn view(&self) -> Option<DeviceView<'_>> {
        let state = self.state()?;
        Some(DeviceView {
            id: self.id,
            kind: self.record.kind,
            name: self.record.name.as_str(),
            code: self.record.code.as_str(),
            address: self.origin.push_address(),
            source: self.origin.source,
            link: self.origin.link,
            zone: self.record.zone,
            tags: &self.record.tags,
            services: &self.record.services,
            firmware: self.record.firmware,
            caps: self.record.caps,
            epoch: self.origin.epoch,
            heard: self.heard,
            served: self.past.has(Past::SERVED),
            state,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_come_in_order_and_a_doubt_that_passed_unseen_is_not_told() {
        let mut slot = Slot::EMPTY;
        for one in [News::CHANGED, News::JOINED, News::SUSPECT, News::BACK] {
            slot.news.add(one);
        }
        assert_eq!((slot.take_news(), slot.take_news()), (Some(What::Joined), None));
        for one in [News::BACK, News::SUSPECT, News::LOST] {
            slot.news.add(one);
        }
        assert_eq!((slot.take_news(), slot.take_news()), (Some(What::Lost), None));
    }

    #[test]
    fn a_slot_stays_within_its_budget() {
        assert_eq!(size_of::<Slot>(), 400, "what a device costs is written down here: change it knowingly");
    }
}
