//! What a device writes down, and when: before a handler that must not run twice, before an outcome leaves.

use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use push::driver::device::{Event, Listener, SpawnError};
use push::receiver::ReceiverConfig;
use push::receiver::journal::{Found, Journal, RECORD_MAX};
use tillwire::wire::frame::Order;
use tillwire::wire::frame::order::KindFlags;
use tillwire::{Delivered, Lane, NodeId, Verdict};
use tokio::time::{sleep, timeout};

use super::wire::{FRESH, Said, Wire, order, sent};
use super::{APPLIED, SOON, store};

/// What happened, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Did {
    Append,
    Sync,
    Replace,
    Handle(u64),
}

/// A journal in memory that says what it was asked.
#[derive(Clone, Default)]
struct Spy {
    did: Arc<Mutex<Vec<Did>>>,
    records: Arc<Mutex<Vec<Vec<u8>>>>,
    failing: Arc<AtomicBool>,
}

impl Spy {
    fn note(&self, did: Did) -> io::Result<()> {
        if self.failing.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.did.lock().unwrap().push(did);
        Ok(())
    }

    fn take(&self) -> Vec<Did> {
        std::mem::take(&mut self.did.lock().unwrap())
    }

    /// A device that applies everything and notes it.
    fn device(&self, at: u8) -> Listener {
        let address = (Ipv4Addr::new(127, 21, 8, at), 0).into();
        let config = ReceiverConfig::new(NodeId([7; 16]), store(), u64::from(at));
        let noting = self.clone();
        let handler = move |delivered: &Delivered<'_>| {
            noting.did.lock().unwrap().push(Did::Handle(delivered.order.number));
            Verdict::Applied
        };
        Listener::spawn_with(address, config, handler, self.clone()).unwrap()
    }
}

impl Journal for Spy {
    type Error = io::Error;

    fn replay(&mut self, tell: &mut dyn FnMut(&[u8])) -> io::Result<Found> {
        self.note(Did::Sync)?;
        let records = self.records.lock().unwrap();
        records.iter().for_each(|record| tell(record));
        Ok(if records.is_empty() { Found::New } else { Found::Whole })
    }

    fn append(&mut self, record: &[u8]) -> io::Result<()> {
        self.note(Did::Append)?;
        self.records.lock().unwrap().push(record.to_vec());
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.note(Did::Sync)
    }

    fn wants_snapshot(&self) -> bool {
        false
    }

    fn replace(&mut self, records: &mut dyn FnMut(&mut [u8; RECORD_MAX]) -> Option<usize>) -> io::Result<()> {
        self.note(Did::Replace)?;
        let mut all = self.records.lock().unwrap();
        all.clear();
        let mut record = [0; RECORD_MAX];
        while let Some(len) = records(&mut record) {
            all.push(record[..len].to_vec());
        }
        Ok(())
    }
}

fn flagged(number: u64, kind_flags: KindFlags) -> Vec<u8> {
    sent(FRESH, &Order { kind_flags, ..order(number, Lane::Normal, b"order") })
}

fn places(did: &[Did], what: Did) -> Vec<usize> {
    did.iter().enumerate().filter(|(_, did)| **did == what).map(|(at, _)| at).collect()
}

#[tokio::test]
async fn what_may_not_run_twice_is_written_down_before_its_handler_and_before_its_outcome() {
    let spy = Spy::default();
    let device = spy.device(1);
    assert_eq!(device.found(), Found::New);
    let mut server = Wire::connect(device.address(), 3).await;
    spy.take();
    let frames: Vec<_> = (1..=3).map(|number| flagged(number, KindFlags::NONE)).collect();
    server.send(&frames).await;
    let heard = server.until_ended(3).await;
    assert_eq!(heard.len(), 3, "{heard:?}");
    let did = spy.take();
    for number in 1..=3 {
        let [handled] = places(&did, Did::Handle(number))[..] else { panic!("{number} once: {did:?}") };
        assert_eq!(did[handled - 2..handled], [Did::Append, Did::Sync], "its beginning: {did:?}");
        assert!(did[handled..].contains(&Did::Sync), "its end: {did:?}");
    }
    assert_eq!(did.last(), Some(&Did::Sync), "before anything was said: {did:?}");
    let syncs = places(&did, Did::Sync).len();
    assert!(syncs <= 6, "two each at most: {did:?}");
    device.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn what_may_run_twice_is_written_down_once_and_together() {
    let spy = Spy::default();
    let device = spy.device(2);
    let mut server = Wire::connect(device.address(), 15).await;
    spy.take();
    let frames: Vec<_> = (1..=15).map(|number| flagged(number, KindFlags::IDEMPOTENT)).collect();
    server.send(&frames).await;
    let ended = |said: &Said| matches!(said, Said::Ended { code: APPLIED, .. });
    server.until(15, ended).await;
    let did = spy.take();
    let [syncs, appends] = [Did::Sync, Did::Append].map(|what| places(&did, what).len());
    // The first of a lineage is written with its name.
    assert!((15..=16).contains(&appends), "{did:?}");
    // As many as the reads they came in: one, unless the machine is busy.
    assert!(syncs < 8, "{syncs} syncs for 15 orders that came together");
    device.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_journal_that_fails_ends_the_session_and_nobody_is_served_until_it_works() {
    let spy = Spy::default();
    let device = spy.device(3);
    let mut events = device.subscribe();
    let mut told = async |wanted: Event| {
        let all = async { while events.recv().await.unwrap() != wanted {} };
        timeout(SOON, all).await.unwrap_or_else(|_| panic!("{wanted:?} is told"));
    };
    let mut server = Wire::connect(device.address(), 2).await;
    server.send(&[flagged(1, KindFlags::NONE)]).await;
    server.until_ended(1).await;
    spy.failing.store(true, Ordering::SeqCst);
    server.send(&[flagged(2, KindFlags::NONE)]).await;
    let heard = server.until(1, |said| *said == Said::Bye).await;
    assert_eq!(heard, [Said::Bye], "nothing is said of the second order");
    told(Event::JournalFailed { why: io::ErrorKind::StorageFull }).await;
    assert!(Wire::greet(device.address(), 2).await.is_none(), "nobody is served");
    assert!(!spy.take().contains(&Did::Handle(2)), "its handler was not called");
    spy.failing.store(false, Ordering::SeqCst);
    told(Event::JournalBack).await;
    let again = async {
        loop {
            match Wire::greet(device.address(), 2).await {
                Some(server) => return server,
                None => sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let mut server = timeout(SOON, again).await.expect("it serves again");
    server.send(&[flagged(2, KindFlags::NONE)]).await;
    server.until_ended(2).await;
    assert_eq!(places(&spy.take(), Did::Handle(2)).len(), 1);
    device.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_journal_that_cannot_be_read_lets_no_device_begin() {
    let spy = Spy::default();
    spy.failing.store(true, Ordering::SeqCst);
    let config = ReceiverConfig::new(NodeId([7; 16]), store(), 1);
    let address = (Ipv4Addr::new(127, 21, 8, 4), 0).into();
    let handler = |_: &Delivered<'_>| Verdict::Applied;
    let refused = Listener::spawn_with(address, config, handler, spy);
    assert!(matches!(refused, Err(SpawnError::Journal(_))), "{refused:?}");
}
