//! The thread with a disk that does what a test wants.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use tokio::sync::broadcast;
use wire_format::ids::{DeviceKind, Lineage, NodeId, OrderKind, Store, Tags};

use super::super::directory::Reserved;
use super::super::error::{PushError, Resource};
use super::super::frame::Frame as Kept;
use super::super::shared::{Message, Word, lock};
use super::super::{ConnConfig, Device, Event, FanOut, Server, ServerConfig, Target};
use super::*;
use crate::config::FleetConfig;
use crate::fleet::{DeviceIndex, Trace};
use crate::order::Order;
use crate::outbox::log::Doing;
use crate::outbox::{AppendError, Batch, Frame, Outcome, Stats};

const SOON: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
struct Paper {
    /// In words, a commit a line.
    commits: Vec<Vec<String>>,
    pending: Vec<String>,
    /// What compaction leaves for the next commit.
    left: Option<String>,
    /// Commits wait while it is held.
    held: bool,
    /// Commits that are under way or over.
    begun: usize,
    fails: bool,
    full: bool,
    /// What the next commit finds out.
    lost: Vec<outbox::Lost>,
    undescribed: Vec<u32>,
    /// The order whose record it finds rotten.
    rotten: Option<u64>,
}

/// What is kept, as words.
#[derive(Clone, Debug, Default)]
struct Notes(Arc<(Mutex<Paper>, Condvar)>);

impl Notes {
    fn with<T>(&self, change: impl FnOnce(&mut Paper) -> T) -> T {
        let value = change(&mut lock(&self.0.0));
        self.0.1.notify_all();
        value
    }

    fn committed(&self) -> Vec<Vec<String>> {
        self.with(|paper| paper.commits.clone())
    }

    fn note(&self, words: impl IntoIterator<Item = String>) -> Result<(), OutboxFault> {
        self.with(|paper| {
            if paper.full {
                return Err(FULL);
            }
            paper.pending.extend(words);
            Ok(())
        })
    }

    /// Until this many commits have begun.
    async fn begun(&self, commits: usize) {
        until(|| self.with(|paper| paper.begun >= commits)).await;
    }
}

async fn until(done: impl Fn() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(SOON, wait).await.unwrap();
}

const BROKEN: OutboxFault = OutboxFault::Disk { doing: Doing::Sync, kind: std::io::ErrorKind::Other };
const FULL: OutboxFault = OutboxFault::Refused(AppendError::Full { bytes: 2, limit: 1 });

impl Keeper for Notes {
    fn check_room(&self) -> Result<(), OutboxFault> {
        Ok(())
    }

    fn take_lost(&mut self) -> Vec<outbox::Lost> {
        self.with(|paper| core::mem::take(&mut paper.lost))
    }

    fn take_undescribed(&mut self) -> Vec<u32> {
        self.with(|paper| core::mem::take(&mut paper.undescribed))
    }

    fn append(&mut self, record: &Record<'_>) -> Result<(), OutboxFault> {
        let words = match *record {
            Record::Order { targets, frame } => {
                let frame = Frame::new(frame).unwrap();
                let targets: Vec<_> = targets.iter().collect();
                format!("order {} key {} to {targets:?}", frame.number(), frame.key())
            }
            Record::Retry { number, root, attempt, .. } => format!("retry {number} of {root}: {attempt}"),
            Record::Cancel { number } => format!("cancel {number}"),
            Record::Device { position, entry } => format!("device {position} zone {}", entry.zone),
            Record::Removed { position } => format!("removed {position}"),
            Record::Fence { fence } => format!("fence {fence}"),
            Record::Note { id, bytes } => format!("note {id} of {} bytes", bytes.len()),
        };
        self.note([words])
    }

    fn commit(&mut self, frames: &mut dyn FnMut(u64) -> Option<Kept>) -> Result<(), OutboxFault> {
        self.with(|paper| paper.begun += 1);
        if let Some(number) = self.with(|paper| paper.rotten.take()) {
            let bytes = frames(number).map(|frame| frame.as_ref().to_vec());
            let again = bytes.as_deref().map(|bytes| Frame::new(bytes).unwrap().number());
            self.note([format!("{number} again: {again:?}")])?;
        }
        let mut paper = self.0.1.wait_while(lock(&self.0.0), |paper| paper.held).unwrap();
        let pending = core::mem::take(&mut paper.pending);
        if paper.fails {
            return Err(BROKEN);
        }
        if !pending.is_empty() {
            paper.commits.push(pending);
            let left = paper.left.take();
            paper.pending.extend(left);
        }
        Ok(())
    }

    fn append_batch(&mut self, batch: &Batch) -> Result<(), OutboxFault> {
        let ends = batch.outcomes().iter().map(|&Outcome { number, device, first_code, last, .. }| {
            format!("{number} on {device}: {first_code}{}", if last { " at last" } else { "" })
        });
        let sessions = batch.sessions().iter();
        let sessions = sessions.map(|session| {
            format!("session of {} upto {:?} ended {:?}", session.device, session.upto, session.ended)
        });
        self.note(ends.chain(sessions))
    }

    fn is_pending(&self) -> bool {
        self.with(|paper| !paper.pending.is_empty())
    }

    fn renew(&mut self) -> Result<LogId, OutboxFault> {
        self.with(|paper| {
            if paper.fails {
                return Err(BROKEN);
            }
            paper.commits.push(vec!["renewed".to_owned()]);
            Ok(LogId::new(Lineage([9; 16]), 9, 1))
        })
    }

    fn lowest_live(&self) -> u64 {
        1
    }

    fn stats(&mut self) -> Stats {
        Stats::default()
    }
}

fn device(n: u8) -> Device {
    Device {
        id: Some(NodeId([n + 1; 16])),
        address: ([127, 0, 0, 1], 1).into(),
        kind: DeviceKind(1),
        zone: n.into(),
        tags: Tags::EMPTY,
    }
}

/// A server of two shards that nobody runs, with devices 0 to 3.
fn server(orders: usize) -> (Server, Notes) {
    let fleet = FleetConfig::new(NodeId([1; 16]), Store::new(1, "PARIS-12").unwrap(), Lineage([2; 16]));
    let conn = ConnConfig::default();
    let config = ServerConfig { fleet, conn, devices: 8, orders, bytes: 1 << 30, seed: 0, shards: Some(2) };
    let shared = Arc::new(Shared::new(&config, 2, Some(100)));
    shared.update(|directory| {
        for n in 0..4 {
            let Reserved::New(position, _) = directory.reserve(device(n), Word::Operator, 0) else {
                panic!("new")
            };
            directory.settle_in(position, DeviceIndex(u32::from(n) / 2), 1);
        }
    });
    let notes = Notes::default();
    let (keeper, of_thread) = (notes.clone(), Arc::clone(&shared));
    spawn(move || run(keeper, Positions::default(), of_thread)).unwrap();
    (Server { shared, first_events: Mutex::default(), tasks: Mutex::default() }, notes)
}

fn order() -> Order<'static> {
    Order::new(OrderKind::MESSAGE, 1, b"x")
}

fn zone(n: u32) -> Target {
    Target::zone(n)
}

async fn push(server: &Server, order: Order<'_>, target: Target) -> Result<FanOut, PushError> {
    server.push(&order, &target).await
}

/// What a shard was told, in words.
fn told(server: &Server, shard: usize) -> Vec<String> {
    let messages = lock(&server.shared.mailboxes[shard].messages);
    let words = messages.iter().map(|message| match message {
        Message::Submit(order) => format!("submit {}", order.number),
        Message::Remove(local) => format!("remove {}", local.0),
        Message::Cancel(number) => format!("cancel {number}"),
        _ => "else".to_owned(),
    });
    words.collect()
}

async fn event(events: &mut broadcast::Receiver<Event>) -> Event {
    tokio::time::timeout(SOON, events.recv()).await.unwrap().unwrap()
}

#[tokio::test]
async fn nothing_leaves_before_it_is_kept_and_what_waits_shares_a_sync() {
    let (server, notes) = server(64);
    notes.with(|paper| paper.held = true);
    let pushes = async {
        tokio::join!(
            push(&server, order().key_number(7), zone(0)),
            async {
                // The first one is being written; these two wait for the next commit.
                notes.begun(1).await;
                tokio::join!(
                    push(&server, order(), Target::all()),
                    push(&server, order().key_number(7), zone(0))
                )
            },
            async {
                notes.begun(1).await;
                until(|| server.shared.head() == 102).await;
                let volatile = server.push(&order().volatile(), &zone(1)).await.unwrap();
                assert_eq!((volatile.number(), volatile.durable()), (103, false));
                assert_eq!(told(&server, 0), [""; 0], "no durable order before its sync");
                assert_eq!(told(&server, 1), ["submit 103"], "a volatile one at once");
                notes.with(|paper| paper.held = false);
            },
        )
    };
    let (first, (second, again), ()) = tokio::time::timeout(SOON, pushes).await.unwrap();
    let (first, second, again) = (first.unwrap(), second.unwrap(), again.unwrap());
    assert_eq!((first.number(), second.number(), again.number()), (101, 102, 101), "one push under one key");
    assert!(first.durable() && second.durable());
    let devices = ["device 1 zone 1", "device 2 zone 2", "device 3 zone 3"];
    let then: Vec<_> = devices.into_iter().chain(["order 102 key 0 to [0, 1, 2, 3]"]).collect();
    assert_eq!(notes.committed(), [vec!["device 0 zone 0", "order 101 key 7 to [0]"], then]);
    assert_eq!(told(&server, 0), ["submit 101", "submit 102"]);
    assert_eq!(told(&server, 1), ["submit 103", "submit 102"], "numbers rise in each log");
}

#[tokio::test]
async fn what_rotted_on_disk_is_told_once_and_its_order_goes_on() {
    use outbox::Lost;
    let (server, notes) = server(4);
    let mut events = server.subscribe();
    let kept = server.push(&order(), &Target::all()).await.unwrap();
    let lost = [Lost::Order(kept.number()), Lost::Key(5)];
    notes.with(|paper| (paper.lost, paper.undescribed) = (lost.to_vec(), vec![2]));
    server.push(&order(), &Target::all()).await.unwrap();
    for what in lost {
        assert!(matches!(event(&mut events).await, Event::OutboxLost { lost } if lost == what));
    }
    assert_eq!((kept.ended(), told(&server, 0).len()), (0, 2), "nobody ended it, and it is on its way");
    server.push(&order(), &Target::all()).await.unwrap();
    assert!(events.try_recv().is_err(), "told once");
    let committed = notes.committed().concat();
    let device =
        |position| committed.iter().filter(|words| words.starts_with(&format!("device {position}"))).count();
    assert_eq!((device(1), device(2)), (1, 2), "what a device is is known here, and written down again");
}

/// What shards do with their messages: of those that ask for an order, nothing but the answer of whoever has it.
fn answer(server: &Server) {
    for shard in 0..2 {
        let mut messages = lock(&server.shared.mailboxes[shard].messages);
        let frame = messages.iter().find_map(|message| match message {
            Message::Submit(order) => Some((order.number, order.frame.clone())),
            _ => None,
        });
        messages.retain(|message| match message {
            Message::Frame(number, reply) => {
                let frame = frame.iter().find(|(of, _)| of == number);
                frame.is_some_and(|(_, frame)| reply.send(frame.clone()).is_err())
            }
            _ => true,
        });
    }
}

#[tokio::test]
async fn a_record_that_rotted_is_written_again_from_the_shard_that_has_the_order() {
    let (server, notes) = server(8);
    let kept = server.push(&order(), &zone(2)).await.unwrap();
    let ask_for = async |number| {
        notes.with(|paper| paper.rotten = Some(number));
        let before = notes.committed().len();
        let (another, zone) = (order(), zone(2));
        let push = server.push(&another, &zone);
        let answers = until(|| {
            answer(&server);
            notes.committed().len() > before
        });
        tokio::join!(push, answers).0.unwrap();
        notes.committed().concat().into_iter().rfind(|words| words.contains("again"))
    };
    let number = kept.number();
    assert_eq!(ask_for(number).await, Some(format!("{number} again: Some({number})")));
    assert_eq!(ask_for(9).await, Some("9 again: None".to_owned()), "of no shard");
}

#[tokio::test]
async fn what_cannot_be_kept_is_not_sent_and_leaves_nothing_behind() {
    let (server, notes) = server(4);
    let mut events = server.subscribe();
    let page = |version| order().superseding("page", version);
    server.push(&page(1), &zone(0)).await.unwrap();
    notes.with(|paper| paper.fails = true);
    for _ in 0..9 {
        let failed = server.push(&page(2).key_number(5), &Target::all()).await;
        assert_eq!(failed.unwrap_err(), PushError::Outbox { fault: BROKEN });
    }
    assert!(matches!(event(&mut events).await, Event::OutboxFailed { fault: BROKEN }));
    server.push(&order().volatile(), &zone(0)).await.unwrap();
    notes.with(|paper| paper.fails = false);
    // Room, key and version are free.
    let kept = server.push(&page(2).key_number(5), &Target::all()).await.unwrap();
    assert_eq!(server.push(&page(2).key_number(5), &Target::all()).await.unwrap().number(), kept.number());
    assert!(matches!(event(&mut events).await, Event::OutboxBack));
    assert_eq!(told(&server, 1), [format!("submit {}", kept.number())]);
    let devices = notes.committed().concat().iter().filter(|words| words.starts_with("device")).count();
    assert_eq!(devices, 4, "each is in the log once, and before what is for it");
    notes.with(|paper| paper.full = true);
    let full = server.push(&order(), &Target::all()).await;
    assert_eq!(full.unwrap_err(), PushError::Outbox { fault: FULL });
}

#[tokio::test]
async fn removals_cancels_and_fences_stand_behind_what_was_before_them() {
    let (server, notes) = server(64);
    let mut events = server.subscribe();
    server.push(&order(), &zone(2)).await.unwrap();
    let kept = server.push(&order(), &zone(0)).await.unwrap();
    notes.with(|paper| (paper.fails, paper.held) = (false, true));
    let both = async {
        tokio::join!(push(&server, order(), zone(2)), async {
            until(|| server.shared.head() == 103).await;
            assert!(kept.cancel() && kept.cancel());
            assert!(server.remove(NodeId([3; 16])) && !server.remove(NodeId([3; 16])));
            assert_eq!(told(&server, 0), ["submit 101", "submit 102"]);
            notes.with(|paper| paper.held = false);
        })
    };
    tokio::time::timeout(SOON, both).await.unwrap().0.unwrap();
    until(|| told(&server, 0).len() == 5).await;
    assert_eq!(told(&server, 0), ["submit 101", "submit 102", "submit 103", "cancel 102", "remove 1"]);
    let kept = notes.committed().concat();
    assert_eq!(kept[kept.len() - 3..], ["order 103 key 0 to [2]", "cancel 102", "removed 2"]);

    // A dead disk keeps no removed device: its record follows when it can.
    notes.with(|paper| paper.fails = true);
    assert!(server.remove(NodeId([1; 16])));
    until(|| told(&server, 0).len() == 6).await;
    assert!(matches!(event(&mut events).await, Event::OutboxFailed { .. }));
    notes.with(|paper| paper.fails = false);
    assert!(matches!(event(&mut events).await, Event::OutboxBack));
    assert_eq!(notes.committed().last().unwrap(), &["removed 0"]);
    assert_eq!(told(&server, 0).len(), 6, "its shard is told once");
}

#[tokio::test]
async fn what_is_heard_of_a_device_is_kept_once() {
    let (server, notes) = server(64);
    server.shared.record_device(3);
    until(|| notes.committed().len() == 1).await;
    server.shared.record_device(3);
    let place = super::super::directory::Place { shard: 1, local: DeviceIndex(1) };
    server.shared.update(|directory| directory.update(place, |entry| entry.connected = true));
    server.shared.record_device(3);
    notes.with(|paper| paper.fails = true);
    for zone in 7..10 {
        server.shared.update(|directory| directory.update(place, |entry| entry.zone = zone));
        server.shared.record_device(3);
    }
    notes.begun(2).await;
    notes.with(|paper| paper.fails = false);
    until(|| notes.committed().len() == 2).await;
    assert_eq!(notes.committed(), [["device 3 zone 3"], ["device 3 zone 9"]]);
}

#[tokio::test]
async fn a_session_is_written_down_with_what_its_device_still_knows() {
    let (server, notes) = server(64);
    let mut batch = Box::<super::Batch>::default();
    let (device, boot, open) = (DeviceIndex(1), 9, true);
    let trace = Trace { device, boot, open, upto: [0, 7, 0, 0], ended: [0, 5, 0, 0] };
    batch.push_trace(server.shared.clock.now(), trace);
    server.shared.outbox.as_ref().unwrap().put(Job::Logs(1, batch)).unwrap();
    until(|| !notes.committed().is_empty()).await;
    let session = "session of 3 upto [0, 7, 0, 0] ended [0, 5, 0, 0]";
    assert_eq!(notes.committed(), [["device 3 zone 3", session]]);
}

#[tokio::test]
async fn what_compaction_leaves_is_written_without_waiting_for_more() {
    let (server, notes) = server(64);
    notes.with(|paper| paper.left = Some("carried".to_owned()));
    server.push(&order(), &zone(0)).await.unwrap();
    until(|| notes.committed().concat().contains(&"carried".to_owned())).await;
    notes.with(|paper| paper.left = Some("carried again".to_owned()));
    server.push(&order(), &zone(0)).await.unwrap();
    until(|| notes.committed().concat().contains(&"carried again".to_owned())).await;
}

#[tokio::test]
async fn a_disk_that_is_asked_for_nothing_is_not_back() {
    let (server, notes) = server(64);
    let mut events = server.subscribe();
    server.push(&order(), &zone(0)).await.unwrap();
    notes.with(|paper| paper.fails = true);
    server.push(&order(), &zone(0)).await.unwrap_err();
    assert!(matches!(event(&mut events).await, Event::OutboxFailed { .. }));
    // Nothing is kept of a push that failed: the next commits have nothing to write.
    let begun = notes.with(|paper| {
        paper.fails = false;
        paper.begun
    });
    notes.begun(begun + 2).await;
    assert!(events.try_recv().is_err());
    server.push(&order(), &zone(0)).await.unwrap();
    assert!(matches!(event(&mut events).await, Event::OutboxBack));
}

/// Pushes that wait for the disk.
fn waiting(
    server: &Arc<Server>,
    orders: usize,
    payload: usize,
) -> Vec<tokio::task::JoinHandle<Result<FanOut, PushError>>> {
    let push = |_| {
        let server = Arc::clone(server);
        tokio::spawn(async move {
            server.push(&Order::new(OrderKind::MESSAGE, 1, &vec![0; payload]), &zone(0)).await
        })
    };
    (0..orders).map(push).collect()
}

#[tokio::test]
async fn orders_that_wait_for_the_disk_at_their_limit_and_one_past_it() {
    let (server, notes) = server(4 * WAITING_MAX);
    let server = Arc::new(server);
    notes.with(|paper| paper.held = true);
    let pushed = waiting(&server, WAITING_MAX, 1);
    until(|| server.shared.head() == 100 + WAITING_MAX as u64).await;
    let full = server.push(&order(), &zone(0)).await.unwrap_err();
    assert!(matches!(full, PushError::Full { what: Resource::Unsynced, limit: WAITING_MAX, .. }), "{full}");
    server.push(&order().volatile(), &zone(0)).await.unwrap();
    notes.with(|paper| paper.held = false);
    for pushed in pushed {
        pushed.await.unwrap().unwrap();
    }
    server.push(&order(), &zone(0)).await.unwrap();
    assert!(notes.committed().len() <= 4, "those that wait share a sync");
}

#[tokio::test]
async fn bytes_that_wait_for_the_disk_at_their_limit_and_one_past_it() {
    let (server, notes) = server(4 * WAITING_MAX);
    let server = Arc::new(server);
    notes.with(|paper| paper.held = true);
    let payload = 8 << 20;
    let fit = WAITING_BYTES_MAX / payload - 1;
    let pushed = waiting(&server, fit, payload);
    until(|| server.shared.head() == 100 + fit as u64).await;
    let large = vec![0; payload];
    let full = server.push(&Order::new(OrderKind::MESSAGE, 1, &large), &zone(0)).await.unwrap_err();
    assert!(
        matches!(full, PushError::Full { what: Resource::UnsyncedBytes, limit: WAITING_BYTES_MAX, .. }),
        "{full}"
    );
    notes.with(|paper| paper.held = false);
    for pushed in pushed {
        pushed.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_disk_that_hangs_holds_nobody_who_gives_up() {
    let (server, notes) = server(64);
    let server = Arc::new(server);
    notes.with(|paper| paper.held = true);
    let pushed = waiting(&server, 2, 1);
    notes.begun(1).await;
    until(|| server.shared.head() == 102).await;
    server.shared.outbox.as_ref().unwrap().abandon();
    for pushed in pushed {
        assert_eq!(pushed.await.unwrap().unwrap_err(), PushError::Stopped);
    }
    assert_eq!(server.push(&order(), &zone(0)).await.unwrap_err(), PushError::Stopped);
    notes.with(|paper| paper.held = false);
}
