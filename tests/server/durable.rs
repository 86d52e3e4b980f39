//! Orders that survive the server, and disks that fail it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use testkit::disk::SimDisk;
use tillwire::push::driver::server::Event;
use tillwire::push::outbox::log::{Disk, Settings};
use tillwire::{
    Delivered, Order, OrderKind, OutboxFault, Outcome, Pending, PushError, Quorum, ServerEvent, StartError,
    Target, Verdict,
};
use tokio::sync::broadcast;

use super::*;

/// Keys of the orders a device was handed, in the order in which it was.
type Seen = Arc<Mutex<Vec<u64>>>;

fn noting(seen: &Seen) -> impl FnMut(&Delivered<'_>) -> Verdict + Send + 'static {
    let seen = Arc::clone(seen);
    move |delivered| {
        seen.lock().unwrap().push(delivered.order.order_key);
        Verdict::Applied
    }
}

fn order(key: u64) -> Order<'static> {
    Order::new(OrderKind::MESSAGE, 1, b"x").key_number(key)
}

/// A directory of its own, gone at the end.
struct Place(PathBuf);

impl Place {
    fn new(lan: Lan) -> Self {
        let name = format!("tillwire-durable-{}-{}", std::process::id(), lan.test);
        Self(std::env::temp_dir().join(name))
    }

    /// Starts from it, as soon as the server before has let go of it.
    async fn start(&self, builder: ServerBuilder) -> StoreServer {
        let start = async {
            loop {
                match builder.clone().outbox(&self.0).start().await {
                    Err(StartError::OutboxDirectory { .. }) => {
                        tokio::time::sleep(Duration::from_millis(5)).await
                    }
                    started => return started.unwrap(),
                }
            }
        };
        tokio::time::timeout(SOON, start).await.unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A disk whose syncs fail, or hang, as long as a test wants.
#[derive(Clone)]
struct Moody {
    disk: SimDisk,
    fails: Arc<AtomicBool>,
    hangs: Arc<(Mutex<bool>, Condvar)>,
}

impl Moody {
    fn new() -> Self {
        let hangs = Arc::new((Mutex::new(false), Condvar::new()));
        Self { disk: SimDisk::new(7), fails: Arc::default(), hangs }
    }

    fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }

    fn hang(&self, hangs: bool) {
        *self.hangs.0.lock().unwrap() = hangs;
        self.hangs.1.notify_all();
    }

    fn mood(&self) -> std::io::Result<()> {
        let hangs = self.hangs.1.wait_while(self.hangs.0.lock().unwrap(), |hangs| *hangs);
        drop(hangs.unwrap());
        if self.fails.load(Ordering::SeqCst) { Err(std::io::Error::other("broken")) } else { Ok(()) }
    }
}

impl Disk for Moody {
    fn segments(&mut self) -> std::io::Result<Vec<u64>> {
        self.disk.segments()
    }

    fn create(&mut self, segment: u64, bytes: u64, head: &[u8]) -> std::io::Result<()> {
        self.mood()?;
        self.disk.create(segment, bytes, head)
    }

    fn write(&mut self, segment: u64, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        self.disk.write(segment, offset, bytes)
    }

    fn sync(&mut self, segment: u64) -> std::io::Result<()> {
        self.mood()?;
        self.disk.sync(segment)
    }

    fn read(&mut self, segment: u64, into: &mut Vec<u8>) -> std::io::Result<()> {
        self.disk.read(segment, into)
    }

    fn read_head(&mut self, segment: u64, into: &mut Vec<u8>) -> std::io::Result<()> {
        self.disk.read_head(segment, into)
    }

    fn remove(&mut self, segment: u64) -> std::io::Result<()> {
        self.disk.remove(segment)
    }

    fn set_aside(&mut self, segments: &[u64]) -> std::io::Result<()> {
        self.disk.set_aside(segments)
    }
}

async fn until(done: impl Fn() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, wait).await.unwrap();
}

/// The next event that is one of these.
async fn event(events: &mut broadcast::Receiver<ServerEvent>, wanted: impl Fn(&Event) -> bool) -> Event {
    let find = async {
        loop {
            match events.recv().await.unwrap() {
                ServerEvent::Session(event) if wanted(&event) => return event,
                _ => {}
            }
        }
    };
    tokio::time::timeout(SOON, find).await.unwrap()
}

#[tokio::test]
async fn an_order_is_delivered_once_over_a_restart_and_its_report_goes_on() {
    for (test, shards) in [(70, 1), (71, 2)] {
        let lan = lan(test);
        let place = Place::new(lan);
        let seen: Vec<Seen> = (0..4).map(|_| Seen::default()).collect();
        let mut devices = Vec::new();
        for n in 1..=2 {
            devices.push(lan.device(n).start(noting(&seen[usize::from(n) - 1])).await.unwrap());
        }
        let server = place.start(lan.server(1..=4).shards(shards)).await;
        connected(&server, 2).await;
        let first = server.push(&order(7), &Target::all()).await.unwrap();
        assert!(first.durable());
        let half = first.wait(Quorum::count(2), |code| code == Outcome::APPLIED, SOON).await;
        assert!(half.reached);
        let volatile = server.push(&order(8).volatile(), &Target::all()).await.unwrap();
        assert!(!volatile.durable());
        let (number, later) =
            (first.number(), server.push(&order(9), &Target::all()).await.unwrap().number());
        drop((first, volatile, server));

        // The list of devices is in the outbox.
        let server = place.start(lan.server([]).shards(shards)).await;
        assert_eq!(server.recovered().unwrap().orders, [number, later]);
        let found = server.fan_out(later).await.unwrap();
        for n in 3..=4 {
            devices.push(lan.device(n).start(noting(&seen[usize::from(n) - 1])).await.unwrap());
        }
        let again = server.push(&order(7), &Target::all()).await.unwrap();
        assert_eq!(again.number(), number, "the key is known");
        let report = again.settled(SOON).await;
        assert_eq!((report.count(Outcome::APPLIED), report.targets()), (4, 4), "{report:?}");
        let ids: Vec<_> = report.devices().iter().map(|device| device.id.unwrap()).collect();
        assert_eq!(ids, [id(1), id(2), id(3), id(4)]);
        assert_eq!(found.settled(SOON).await.count(Outcome::APPLIED), 4);
        let new = server.push(&order(10), &Target::all()).await.unwrap();
        assert!(new.number() > later);
        assert_eq!(new.settled(SOON).await.count(Outcome::APPLIED), 4);
        for (at, seen) in seen.iter().enumerate() {
            let mut seen = seen.lock().unwrap().clone();
            seen.retain(|key| *key != 8);
            assert_eq!(seen, [7, 9, 10], "device {}, {shards} shards", at + 1);
        }
        drop((again, server));

        // What is over everywhere is known by its key, device by device.
        let server = place.start(lan.server([]).shards(3)).await;
        let fan_out = server.push(&order(7), &Target::all()).await.unwrap();
        let (mut outcomes, mut told) = (fan_out.outcomes(), Vec::new());
        while let Some(outcome) = outcomes.next().await {
            assert_eq!(outcome.code, Outcome::APPLIED);
            told.push(outcome.id.unwrap());
        }
        told.sort_unstable();
        assert_eq!(told, [id(1), id(2), id(3), id(4)]);
        let over = fan_out.report().await;
        assert_eq!((over.number(), over.count(Outcome::APPLIED), over.unsettled()), (number, 4, 0));
        let ids: Vec<_> = over.devices().iter().map(|device| device.id.unwrap()).collect();
        assert_eq!(ids, [id(1), id(2), id(3), id(4)]);
        server.shutdown().await;
    }
}

#[tokio::test]
async fn what_was_cancelled_stays_so_and_what_expires_meanwhile_expires() {
    let lan = lan(72);
    let (place, seen) = (Place::new(lan), Seen::default());
    let server = place.start(lan.server([1])).await;
    let cancelled = server.push(&order(1), &Target::all()).await.unwrap();
    assert!(cancelled.cancel());
    assert_eq!(cancelled.settled(SOON).await.outcomes(), [(Outcome::CANCELLED, 1)]);
    let brief = order(2).lifetime(Duration::from_millis(300));
    server.push(&brief, &Target::all()).await.unwrap();
    let pages = order(3).superseding("page", 5);
    server.push(&pages, &Target::all()).await.unwrap();
    drop((cancelled, server));
    tokio::time::sleep(Duration::from_millis(400)).await;

    let server = place.start(lan.server([1])).await;
    let old = server.push(&order(4).superseding("page", 5), &Target::all()).await.unwrap_err();
    assert!(matches!(old, PushError::Superseding(_)), "{old}");
    let device = lan.device(1).start(noting(&seen)).await.unwrap();
    let reports = [(1, Outcome::CANCELLED), (2, Outcome::EXPIRED), (3, Outcome::APPLIED)];
    for (key, outcome) in reports {
        let report = server.push(&order(key), &Target::all()).await.unwrap().settled(SOON).await;
        assert_eq!(report.outcomes(), [(outcome, 1)], "{key}");
    }
    assert_eq!(*seen.lock().unwrap(), [3]);
    assert_eq!(server.devices().await.len(), 1);
    server.shutdown().await;
    device.shutdown().await;
}

#[tokio::test]
async fn a_lifetime_goes_on_while_a_slow_disk_is_opened() {
    let lan = lan(84);
    let (disk, seen) = (Moody::new(), Seen::default());
    let server = lan.server([1]).start_on(disk.clone()).await.unwrap();
    let lifetime = Duration::from_millis(1_500);
    server.push(&order(1).lifetime(lifetime), &Target::all()).await.unwrap();
    server.push(&order(2), &Target::all()).await.unwrap();
    server.shutdown().await;
    let device = lan.device(1).start(noting(&seen)).await.unwrap();
    disk.hang(true);
    let opening = tokio::spawn(lan.server([1]).start_on(disk.clone()));
    tokio::time::sleep(lifetime).await;
    assert!(!opening.is_finished());
    disk.hang(false);
    let server = opening.await.unwrap().unwrap();
    for (key, outcome) in [(1, Outcome::EXPIRED), (2, Outcome::APPLIED)] {
        let report = server.push(&order(key), &Target::all()).await.unwrap().settled(SOON).await;
        assert_eq!(report.outcomes(), [(outcome, 1)], "{key}");
    }
    assert_eq!(*seen.lock().unwrap(), [2]);
    server.shutdown().await;
    device.shutdown().await;
}

#[tokio::test]
async fn further_attempts_go_on_after_a_restart() {
    let lan = lan(73);
    let (place, ready) = (Place::new(lan), Arc::new(AtomicBool::new(false)));
    let numbers: Seen = Seen::default();
    let (noted, is_ready) = (Arc::clone(&numbers), Arc::clone(&ready));
    let handler = move |delivered: &Delivered<'_>| {
        noted.lock().unwrap().push(delivered.order.number);
        let retry_after = Duration::from_millis(50);
        if is_ready.load(Ordering::SeqCst) { Verdict::Applied } else { Verdict::Busy { retry_after } }
    };
    let device = lan.device(1).start(handler).await.unwrap();
    let mut tried = 0;
    for restart in 0..3 {
        let server = place.start(lan.server([1])).await;
        let fan_out = server.push(&order(5), &Target::all()).await.unwrap();
        until(|| numbers.lock().unwrap().len() >= tried + 2).await;
        assert_eq!(fan_out.ended(), 0, "{restart}");
        drop((fan_out, server));
        tried = numbers.lock().unwrap().len();
    }
    ready.store(true, Ordering::SeqCst);
    let server = place.start(lan.server([1])).await;
    let fan_out = server.push(&order(5), &Target::all()).await.unwrap();
    assert_eq!(fan_out.settled(SOON).await.outcomes(), [(Outcome::APPLIED, 1)]);
    let numbers = numbers.lock().unwrap().clone();
    assert_eq!(numbers[0], fan_out.number());
    assert!(numbers.is_sorted() && numbers.len() >= 7, "{numbers:?}");
    server.shutdown().await;
    device.shutdown().await;
}

#[tokio::test]
async fn a_disk_that_fails_costs_durable_orders_an_error_and_volatile_ones_nothing() {
    let lan = lan(74);
    let (disk, seen) = (Moody::new(), Seen::default());
    let device = lan.device(1).start(noting(&seen)).await.unwrap();
    let server = lan.server([1]).start_on(disk.clone()).await.unwrap();
    let mut events = server.subscribe();
    connected(&server, 1).await;
    let before = server.push(&order(1), &Target::all()).await.unwrap();
    assert_eq!(before.settled(SOON).await.count(Outcome::APPLIED), 1);
    let (second, all) = (order(2), Target::all());
    let unlogged = server.push(&second, &all);
    disk.hang(true);
    let hold = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        disk.hang(false);
    };
    let (unlogged, ()) = tokio::join!(unlogged, hold);
    let unlogged = unlogged.unwrap();
    disk.fail(true);
    let failed = server.push(&order(3), &Target::all()).await.unwrap_err();
    assert!(matches!(failed, PushError::Outbox { fault: OutboxFault::Disk { .. } }), "{failed}");
    event(&mut events, |event| matches!(event, Event::OutboxFailed { .. })).await;
    for key in 100..200 {
        let volatile = server.push(&order(key).volatile(), &Target::all()).await.unwrap();
        assert_eq!(volatile.settled(SOON).await.count(Outcome::APPLIED), 1);
    }
    disk.fail(false);
    event(&mut events, |event| matches!(event, Event::OutboxBack)).await;
    assert_eq!(unlogged.settled(SOON).await.count(Outcome::APPLIED), 1);
    let after = server.push(&order(3), &Target::all()).await.unwrap();
    assert_eq!(after.settled(SOON).await.count(Outcome::APPLIED), 1);
    let mut seen = seen.lock().unwrap().clone();
    seen.retain(|key| *key < 100);
    assert_eq!(seen, [1, 2, 3]);
    server.shutdown().await;
    device.shutdown().await;
}

#[tokio::test]
async fn volatile_orders_go_on_while_a_sync_hangs_and_so_does_the_end_of_the_server() {
    let lan = lan(75);
    let disk = Moody::new();
    let device = lan.device(1).start(apply).await.unwrap();
    let server = Arc::new(lan.server([1]).start_on(disk.clone()).await.unwrap());
    connected(&server, 1).await;
    server.push(&order(1), &Target::all()).await.unwrap().settled(SOON).await;
    disk.hang(true);
    let pushing = Arc::clone(&server);
    let waits = tokio::spawn(async move { pushing.push(&order(2), &Target::all()).await });
    for key in 100..200 {
        let volatile = server.push(&order(key).volatile(), &Target::all()).await.unwrap();
        assert_eq!(volatile.settled(SOON).await.count(Outcome::APPLIED), 1);
    }
    assert!(!waits.is_finished());
    waits.abort();
    let _ = waits.await;
    let server = Arc::into_inner(server).unwrap();
    tokio::time::timeout(SOON, server.shutdown()).await.expect("a dead disk holds nobody up");
    disk.hang(false);
    device.shutdown().await;
}

#[tokio::test]
async fn an_outcome_counts_once_it_is_logged_and_is_told_again_after_a_crash_before_that() {
    let lan = lan(76);
    let (disk, seen) = (Moody::new(), Seen::default());
    let device = lan.device(1).start(noting(&seen)).await.unwrap();
    let server = lan.server([1]).start_on(disk.clone()).await.unwrap();
    connected(&server, 1).await;
    // The session is written down once a first order went through.
    server.push(&order(1), &Target::all()).await.unwrap().settled(SOON).await;
    let fan_out = server.push(&order(2), &Target::all()).await.unwrap();
    disk.fail(true);
    until(|| seen.lock().unwrap().len() == 2).await;
    let logging = async {
        while fan_out.ended() == 0 && fan_out.report().await.pending() != [(Pending::Logging, 1)] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, logging).await.unwrap();
    let was_logged = fan_out.ended() == 1;
    drop((fan_out, server));
    let backup = disk.disk.copy(9);
    let server = lan.server([1]).start_on(backup).await.unwrap();
    let report = server.push(&order(2), &Target::all()).await.unwrap().settled(SOON).await;
    assert_eq!(report.outcomes(), [(Outcome::APPLIED, 1)], "logged before: {was_logged}");
    assert_eq!(*seen.lock().unwrap(), [1, 2], "once");
    server.shutdown().await;
    device.shutdown().await;
}

#[tokio::test]
async fn a_restored_backup_is_found_out_before_an_order_of_it_leaves() {
    let lan = lan(77);
    let (disk, seen) = (SimDisk::new(3), Seen::default());
    let device = lan.device(1).start(noting(&seen)).await.unwrap();
    let server = lan.server([1]).start_on(disk.clone()).await.unwrap();
    connected(&server, 1).await;
    server.push(&order(1), &Target::all()).await.unwrap().settled(SOON).await;
    let lineage = server.recovered().unwrap().lineage;
    // What the device is owed in the backup is what it has done since.
    device.shutdown().await;
    let owed = server.push(&order(2), &Target::all()).await.unwrap();
    let backup = disk.copy(5);
    let device = lan.device(1).start(noting(&seen)).await.unwrap();
    owed.settled(SOON).await;
    server.push(&order(3), &Target::all()).await.unwrap().settled(SOON).await;
    drop(owed);
    server.shutdown().await;
    assert_eq!(*seen.lock().unwrap(), [1, 2, 3]);

    let server = lan.server([]).start_on(backup).await.unwrap();
    let mut events = server.subscribe();
    let in_doubt = server.push(&order(2), &Target::all()).await.unwrap();
    let renewed = event(&mut events, |event| matches!(event, Event::Renewed { .. })).await;
    assert!(matches!(renewed, Event::Renewed { lineage: new, .. } if new != lineage));
    assert_eq!(in_doubt.settled(SOON).await.outcomes(), [(Outcome::IN_DOUBT, 1)]);
    let new = server.push(&order(4), &Target::all()).await.unwrap();
    assert_eq!(new.settled(SOON).await.count(Outcome::APPLIED), 1);
    assert_eq!(*seen.lock().unwrap(), [1, 2, 3, 4]);
    server.shutdown().await;
    device.shutdown().await;
}

#[tokio::test]
async fn devices_keep_their_places_and_those_given_by_address_are_not_listed_twice() {
    let lan = lan(78);
    let place = Place::new(lan);
    let devices = lan.devices([1, 2, 3]).await;
    let by_address = || {
        let builder = StoreServer::builder(store()).security(Security::open_network()).no_discovery();
        (1..=3).map(|n| StaticDevice::at(lan.at(n))).fold(builder, ServerBuilder::device)
    };
    let server = place.start(by_address()).await;
    connected(&server, 3).await;
    server.push(&order(1), &Target::all()).await.unwrap().settled(SOON).await;
    assert!(server.remove(id(2)));
    let fence = server.takeover().await.unwrap().unwrap();
    drop(server);
    let server = place.start(lan.server([])).await;
    let listed: Vec<_> = server.devices().await.iter().map(|device| device.push.id.unwrap()).collect();
    assert_eq!(listed, [id(1), id(3)], "the removed one is gone");
    assert_eq!(server.recovered().unwrap().fence, fence);
    let old = server.push(&order(1), &Target::all()).await.unwrap().report().await;
    assert_eq!((old.count(Outcome::APPLIED), old.unsettled()), (3, 0), "what it did counts");
    let ids: Vec<_> = old.devices().iter().map(|device| device.id).collect();
    assert_eq!(ids, [Some(id(1)), Some(id(3)), None]);
    drop(server);
    let server = place.start(by_address()).await;
    assert_eq!(server.devices().await.len(), 3);
    connected(&server, 3).await;
    let report = server.push(&order(9), &Target::all()).await.unwrap().settled(SOON).await;
    assert_eq!((report.targets(), report.count(Outcome::APPLIED)), (3, 3));
    server.shutdown().await;
    drop(devices);
}

#[tokio::test]
async fn what_rots_on_disk_is_written_again_by_the_server_that_has_it_in_memory() {
    let lan = lan(79);
    let (disk, seen) = (SimDisk::new(25), Seen::default());
    let settings = Settings { segment_bytes: 8 << 10, bytes_max: 1 << 20 };
    let start = |disk: SimDisk| lan.server([1]).outbox_settings(settings).start_on(disk);
    let server = start(disk.clone()).await.unwrap();
    let mut events = server.subscribe();
    let text = b"to be kept";
    let owed =
        server.push(&Order::new(OrderKind::MESSAGE, 1, text).key_number(7), &Target::all()).await.unwrap();
    let rots = |(segment, bytes): (u64, Vec<u8>)| {
        let at = bytes.windows(text.len()).position(|window| window == text)?;
        Some(disk.flip(segment, at * 8))
    };
    assert_eq!(disk.files().into_iter().find_map(rots), Some(true));
    let push = async || server.push(&Order::new(OrderKind::MESSAGE, 1, b"x"), &Target::all()).await.unwrap();
    let wears_on = async {
        while server.stats().await.unwrap().push.outbox.unwrap().mended == 0 {
            assert!(push().await.cancel());
        }
        // What was written again is on disk with the next commit.
        drop(push().await);
    };
    tokio::time::timeout(SOON, wears_on).await.unwrap();
    let number = owed.number();
    drop((owed, server));
    while let Ok(event) = events.try_recv() {
        assert!(!matches!(event, ServerEvent::Session(Event::OutboxLost { .. })), "{event:?}");
    }

    let server = start(disk.copy(26)).await.unwrap();
    let recovered = server.recovered().unwrap();
    assert!(recovered.orders.contains(&number));
    assert_eq!(recovered.recovery.damaged_records, 0, "the rotten record is gone");
    let device = lan.device(1).start(noting(&seen)).await.unwrap();
    let owed = server.fan_out(number).await.unwrap();
    assert_eq!(owed.settled(SOON).await.count(Outcome::APPLIED), 1);
    assert_eq!(seen.lock().unwrap().iter().filter(|&&key| key == 7).count(), 1);
    server.shutdown().await;
    device.shutdown().await;
}
