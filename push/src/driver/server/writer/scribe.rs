//! The thread that waits for the disk.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use wire_format::time::Instant;

use super::super::Event;
use super::super::directory::Place;
use super::super::error::OutboxFault;
use super::super::positions::Positions;
use super::super::shared::{Message, Shared, lock};
use super::{Batch, JOBS_KEPT, Job, Keeper, Notes, Queue, Record, Traced};
use crate::fleet::{By, LogEntry, Trace};
use crate::outbox::{self, Outcome, Session};

/// The first time after which what failed is tried again; it doubles.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// The longest such time: a disk that was full has room again, and a person looks.
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(5);

/// How long the thread sleeps at most: the log learns how the time goes.
const IDLE_WITHIN: Duration = Duration::from_secs(60);
/// How long what compaction has left waits for company.
const LEFT_WITHIN: Duration = Duration::from_millis(50);
/// How often is looked whether whoever is waited for is there at all.
const LOOK_AFTER: Duration = Duration::from_millis(100);

/// What failed, and when it is tried again.
#[derive(Clone, Copy, Debug)]
struct Failing {
    after: Duration,
    at: Instant,
}

pub(super) struct Scribe<K> {
    keeper: K,
    shared: Arc<Shared>,
    /// What is to be done: what failed before, then what came since.
    jobs: VecDeque<Job>,
    /// What is in this commit.
    pending: VecDeque<Job>,
    /// What is tried again.
    kept: VecDeque<Job>,
    /// Positions whose device is in the log.
    recorded: Positions,
    /// Those of them that are so since this commit.
    fresh: Vec<u32>,
    /// What a shard has to log, by positions; kept for its memory.
    batch: outbox::Batch,
    /// How often the log got another name.
    renewals: u32,
    /// The shards have given the log up, and it has no other name yet.
    abandoned: bool,
    failing: Option<Failing>,
    fault: Option<OutboxFault>,
}

impl<K: Keeper> Scribe<K> {
    pub(super) fn new(keeper: K, recorded: Positions, shared: Arc<Shared>) -> Self {
        Self {
            keeper,
            shared,
            jobs: VecDeque::new(),
            pending: VecDeque::new(),
            kept: VecDeque::new(),
            recorded,
            fresh: Vec::new(),
            batch: outbox::Batch::new(),
            renewals: 0,
            abandoned: false,
            failing: None,
            fault: None,
        }
    }

    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let Some(queue) = shared.outbox.as_ref() else { return };
        self.publish();
        self.tell_lost();
        loop {
            let again = self.failing.map(|failing| failing.at);
            let waits = self.jobs.is_empty() || again.is_some();
            let idle = if self.keeper.is_pending() { LEFT_WITHIN } else { IDLE_WITHIN };
            if waits && !queue.take(&mut self.jobs, &shared.clock, again, idle) {
                break;
            }
            let last = queue.is_closing();
            self.turn(queue);
            if last && (self.jobs.is_empty() || self.failing.is_some()) {
                break;
            }
        }
        queue.abandon();
    }

    /// Writes everything that waits, with one sync, and lets it go on. What stands behind the word that the log is another one
    /// waits until it is.
    fn turn(&mut self, queue: &Queue) {
        self.fault = None;
        let mut wrote = true;
        let done = if self.is_forked() {
            self.pending.append(&mut self.jobs);
            self.renew(queue)
        } else {
            self.append(queue);
            // A disk that is asked for nothing works.
            wrote = self.keeper.is_pending();
            let shared = &self.shared;
            self.keeper
                .commit(&mut |number| ask_all(shared, queue, |reply| Message::Frame(number, reply)).pop())
        };
        if done.is_err() {
            for &position in &self.fresh {
                self.recorded.remove(position);
                self.shared.update(|directory| directory.put_changed(position));
            }
        }
        self.fresh.clear();
        let fault = self.fault.or_else(|| done.err());
        match done {
            Ok(()) => self.let_go(queue),
            Err(fault) => self.give_back(queue, fault),
        }
        // What is tried again comes before what was left.
        self.kept.append(&mut self.jobs);
        core::mem::swap(&mut self.jobs, &mut self.kept);
        for jobs in [&mut self.jobs, &mut self.pending, &mut self.kept] {
            jobs.shrink_to(JOBS_KEPT);
        }
        self.batch.clear();
        self.publish();
        self.tell_lost();
        self.note_failing(fault, wrote);
        // Who waits for room finds some.
        self.shared.room.freed().notify_waiters();
    }

    /// Whether the next thing to do is to give the log up.
    fn is_forked(&self) -> bool {
        matches!(self.jobs.front(), Some(&Job::Forked(renewals)) if renewals == self.renewals)
    }

    /// Gives the log up and begins another one: first every shard ends what it has of it, then the log gets its new name,
    /// then the shards hear it. What stands behind is for the new one.
    fn renew(&mut self, queue: &Queue) -> Result<(), OutboxFault> {
        if !core::mem::replace(&mut self.abandoned, true) {
            ask_all(&self.shared, queue, |done| Message::Abandon(self.renewals + 1, done));
        }
        let log = self.keeper.renew()?;
        self.shared.tell_all(|| Message::Renew(Box::new(log), self.shared.kept_head()));
        // Nobody listening is not an error.
        let _ = self.shared.events.send(Event::Renewed { lineage: log.lineage, run: log.run });
        self.renewals += 1;
        self.abandoned = false;
        self.pending.pop_front();
        core::mem::swap(&mut self.pending, &mut self.jobs);
        Ok(())
    }

    /// Adds each job's record to the commit. An order that finds no room is over; everything else waits for some.
    fn append(&mut self, queue: &Queue) {
        while !self.is_forked()
            && let Some(job) = self.jobs.pop_front()
        {
            match (self.append_one(&job), job) {
                (Ok(()), job) => self.pending.push_back(job),
                (Err(fault), Job::Order(order)) => {
                    order.admitted().into_iter().for_each(|bytes| queue.dismiss(bytes));
                    order.fail(&self.shared, fault);
                }
                (Err(fault), Job::Fence(_, reply) | Job::Notes(Notes { reply: Some(reply), .. })) => {
                    let _gone = reply.send(Err(fault));
                }
                (Err(fault), job) => {
                    self.fault = Some(fault);
                    self.keep_for_later(job);
                }
            }
        }
    }

    fn append_one(&mut self, job: &Job) -> Result<(), OutboxFault> {
        match job {
            Job::Order(order) => {
                // Who an order is for is known before the order is.
                for position in order.targets.missing_in(&self.recorded) {
                    self.record_device(position)?;
                }
                self.keeper.append(&order.record())
            }
            &Job::Device(position) => {
                // From here on a change is another job.
                self.record_device(position)
            }
            &Job::Removed(position, _) if self.recorded.contains(position) => {
                self.keeper.append(&Record::Removed { position })
            }
            Job::Removed(..) => Ok(()),
            Job::Cancel(state) => self.keeper.append(&Record::Cancel { number: state.number }),
            Job::Logs(shard, batch) => self.append_batch(*shard, batch),
            // It is a step of its own: see `turn`.
            Job::Forked(_) => Ok(()),
            &Job::Fence(fence, _) => self.keeper.append(&Record::Fence { fence }),
            Job::Notes(Notes { devices, notes, reply }) => {
                if reply.is_some() {
                    self.keeper.check_room()?;
                }
                for position in devices.missing_in(&self.recorded) {
                    self.record_device(position)?;
                }
                let mut notes = notes.iter().map(|(id, bytes)| Record::Note { id: *id, bytes });
                notes.try_for_each(|note| self.keeper.append(&note))
            }
        }
    }

    /// A shard's ends and sessions, with the positions of its devices.
    fn append_batch(&mut self, shard: usize, batch: &Batch) -> Result<(), OutboxFault> {
        self.batch.clear();
        let directory = self.shared.directory();
        let position = |local| directory.position(Place { shard, local });
        for entry in batch.entries() {
            let LogEntry { number, code, first_code, by, .. } = entry;
            let Some(device) = position(entry.device) else { continue };
            let by_device = by == By::Device;
            // How the last attempt ended is how the order ends.
            let last = !by_device && first_code.is_attempt_end();
            self.batch.push(Instant::ZERO, Outcome { number, device, code, first_code, by_device, last });
        }
        for &Traced { trace: Trace { device, boot, open, upto, ended }, .. } in batch.traces() {
            let Some(device) = position(device) else { continue };
            let session = Session { device, boot, open, upto, ended };
            self.batch.push_session(Instant::ZERO, session);
        }
        drop(directory);
        let named: Positions = self.batch.sessions().iter().map(|session| session.device).collect();
        for position in named.missing_in(&self.recorded) {
            self.record_device(position)?;
        }
        self.keeper.append_batch(&self.batch)
    }

    /// Writes down what is known of a device. One that was taken off the list in between is left out.
    fn record_device(&mut self, position: u32) -> Result<(), OutboxFault> {
        let entry = self.shared.update(|directory| directory.take_changed(position));
        let Some(entry) = entry else { return Ok(()) };
        self.keeper.append(&Record::Device { position, entry: &entry })?;
        if self.recorded.insert(position) {
            self.fresh.push(position);
        }
        Ok(())
    }

    /// It is on disk: everything goes on, in the order in which it came.
    fn let_go(&mut self, queue: &Queue) {
        let mut bells = 0_u64;
        while let Some(job) = self.pending.pop_front() {
            match job {
                Job::Order(order) => {
                    order.admitted().into_iter().for_each(|bytes| queue.dismiss(bytes));
                    self.shared.note_kept(order.number);
                    bells |= order.hand_over(&self.shared);
                }
                Job::Device(_) => {}
                Job::Removed(position, place) => {
                    self.recorded.remove(position);
                    self.tell_removed(place);
                    // Behind its record: whoever comes next to this position is written down after it.
                    self.shared.update(|directory| directory.vacate(position, self.shared.head()));
                }
                Job::Cancel(state) => drop(self.shared.cancel(&state)),
                Job::Logs(shard, batch) => {
                    self.shared.put(shard, Message::Logged(batch));
                    bells |= 1 << shard;
                }
                Job::Forked(_) => {}
                Job::Fence(_, reply) | Job::Notes(Notes { reply: Some(reply), .. }) => {
                    let _gone = reply.send(Ok(()));
                }
                Job::Notes(_) => {}
            }
        }
        self.shared.ring_all(bells);
    }

    /// Nothing of it is on disk: orders are over, everything else is tried again.
    fn give_back(&mut self, queue: &Queue, fault: OutboxFault) {
        while let Some(job) = self.pending.pop_front() {
            match job {
                Job::Order(order) => {
                    order.admitted().into_iter().for_each(|bytes| queue.dismiss(bytes));
                    order.fail(&self.shared, fault);
                }
                Job::Fence(_, reply) | Job::Notes(Notes { reply: Some(reply), .. }) => {
                    let _gone = reply.send(Err(fault));
                }
                job => self.keep_for_later(job),
            }
        }
    }

    fn keep_for_later(&mut self, job: Job) {
        match job {
            // Another one waits behind it.
            Job::Device(position) if !self.is_to_be_recorded(position) => {}
            // It is gone, whatever the disk says: only the record waits.
            Job::Removed(position, place) => {
                self.tell_removed(place);
                self.kept.push_back(Job::Removed(position, None));
            }
            job => self.kept.push_back(job),
        }
    }

    /// A device is not in the log as it is: whether a job that says so is still wanted.
    fn is_to_be_recorded(&self, position: u32) -> bool {
        self.shared.update(|directory| {
            directory.put_changed(position);
            directory.note_changed(position)
        })
    }

    fn tell_removed(&self, place: Option<Place>) {
        if let Some(place) = place {
            self.shared.put(place.shard, Message::Remove(place.local));
            self.shared.ring(place.shard);
        }
    }

    /// Says what rotted. Devices are written down again: what they are is known here.
    fn tell_lost(&mut self) {
        for position in self.keeper.take_undescribed() {
            if self.is_to_be_recorded(position) {
                self.jobs.push_back(Job::Device(position));
            }
        }
        for lost in self.keeper.take_lost() {
            // Nobody listening is not an error.
            let _ = self.shared.events.send(Event::OutboxLost { lost });
        }
    }

    /// Positions that only dead orders name may be given again; and what an operator reads.
    fn publish(&mut self) {
        self.shared.lowest_kept.store(self.keeper.lowest_live(), Ordering::Release);
        *lock(&self.shared.outbox_stats) = self.keeper.stats();
    }

    /// Says so when it begins to fail, and when it works again.
    fn note_failing(&mut self, fault: Option<OutboxFault>, wrote: bool) {
        let now = self.shared.clock.now();
        let event = match (fault, self.failing) {
            (None, None) => return,
            (None, Some(_)) if wrote => {
                self.failing = None;
                Event::OutboxBack
            }
            (_, Some(Failing { after, at })) => {
                // An order that came in between is no reason to lose patience.
                if at <= now {
                    let after = (after * 2).min(AGAIN_AFTER_MAX);
                    self.failing = Some(Failing { after, at: now + after });
                }
                return;
            }
            (Some(fault), None) => {
                self.failing = Some(Failing { after: AGAIN_AFTER, at: now + AGAIN_AFTER });
                Event::OutboxFailed { fault }
            }
        };
        // Nobody listening is not an error.
        let _ = self.shared.events.send(event);
    }
}

/// Asks every shard, and waits until all that are there have answered or have nothing to say.
fn ask_all<T>(shared: &Shared, queue: &Queue, message: impl Fn(mpsc::Sender<T>) -> Message) -> Vec<T> {
    let (reply, answers) = mpsc::channel();
    shared.tell_all(|| message(reply.clone()));
    drop(reply);
    let mut given = Vec::new();
    loop {
        match answers.recv_timeout(LOOK_AFTER) {
            Ok(answer) => given.push(answer),
            // A shard that has ended drops what it was told. One that was ended from outside does not.
            Err(mpsc::RecvTimeoutError::Timeout) if !queue.is_over() => {}
            Err(_) => return given,
        }
    }
}
