//! Each thing a device says about itself: a change of it is told as exactly that, kept, and told once.

use wire_format::datagram::{Announce, CodeRef, Datagram, Firmware, Service, ServiceList, TagsRef, TextRef};
use wire_format::ids::{DeviceKind, Store, Tags};
use wire_format::time::Instant;

use super::arrival;
use crate::event::{Fields, What};
use crate::roster::{DeviceView, Roster, Slot};
use crate::testing::datagrams::{announce_of, bytes, node};
use crate::testing::{id, server_config, store};

const NOW: Instant = Instant::from_millis(10_000);

/// The device of all these tests, saying something for the `sequence`th time.
fn said<'a>(sequence: u32, store: &'a Store) -> Announce<'a> {
    announce_of(node(1, 1, sequence), store)
}

/// What is told when the device says `change` after it had said nothing; and when it takes it back. The view in
/// between is given to `check`.
#[track_caller]
fn changes<'a>(
    fields: Fields,
    store: &'a Store,
    change: impl Fn(&mut Announce<'a>),
    check: impl FnOnce(&DeviceView<'_>) -> bool,
) {
    let mut roster = Roster::new(server_config(), [Slot::EMPTY; 4], Instant::ZERO, 1);
    let mut sequence = 0;
    let mut say = |roster: &mut Roster<_>, changed: bool| {
        sequence += 1;
        let mut announce = said(sequence, store);
        if changed {
            change(&mut announce);
        }
        roster.handle_datagram(NOW, &arrival(1), &bytes(Datagram::Announce(announce))).unwrap();
        std::iter::from_fn(|| roster.poll_event()).map(|event| event.what).collect::<Vec<_>>()
    };
    assert_eq!(say(&mut roster, false), [What::Joined]);
    assert_eq!(say(&mut roster, true), [What::Changed { fields }]);
    assert!(check(&roster.find(id(1)).unwrap()), "{:?}", roster.find(id(1)));
    assert_eq!(say(&mut roster, true), [], "the same again is no change");
    assert_eq!(say(&mut roster, false), [What::Changed { fields }], "what is absent does not hold any more");
    assert_eq!(say(&mut roster, false), []);
}

#[test]
fn kind() {
    let kind = DeviceKind::SIGNAGE;
    changes(Fields::KIND, &store(), |announce| announce.from.role = kind, |view| view.kind == kind);
}

#[test]
fn name() {
    let name = TextRef::new("Kiosk 3");
    changes(Fields::NAME, &store(), |announce| announce.name = name, |view| view.name == "Kiosk 3");
}

#[test]
fn code() {
    let code = CodeRef::new("KIO-0003");
    changes(Fields::CODE, &store(), |announce| announce.code = code, |view| view.code == "KIO-0003");
}

#[test]
fn port() {
    changes(
        Fields::PORT,
        &store(),
        |announce| announce.from.port = 9_000,
        |view| view.address.port() == 9_000,
    );
}

#[test]
fn zone() {
    changes(Fields::ZONE, &store(), |announce| announce.zone = Some(0), |view| view.zone == Some(0));
}

#[test]
fn tags() {
    let (tags, store) = (Tags::new(["bakery"]).unwrap(), store());
    changes(Fields::TAGS, &store, |announce| announce.tags = TagsRef::new(&tags), |view| *view.tags == tags);
}

#[test]
fn services() {
    let (mut list, store) = (ServiceList::<1>::EMPTY, store());
    let service = Service { id: Service::HTTP, port: 80, protocol: Service::TCP, flags: 0, version: 1 };
    assert!(list.push(service));
    changes(
        Fields::SERVICES,
        &store,
        |announce| announce.services = list.as_services(),
        |view| view.services.iter().eq([service]),
    );
}

#[test]
fn firmware() {
    let firmware = Some(Firmware { version: 2, build: 9 });
    changes(
        Fields::FIRMWARE,
        &store(),
        |announce| announce.firmware = firmware,
        |view| view.firmware == firmware,
    );
}

#[test]
fn caps() {
    changes(Fields::CAPS, &store(), |announce| announce.caps = Some(1), |view| view.caps == Some(1));
}
