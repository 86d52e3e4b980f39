//! Rollouts that go on or are remembered, and the notes the outbox has of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use wire_format::rng::mix;

use super::super::Event;
use super::super::directory::Entry;
use super::super::error::{PushError, Resource};
use super::super::report::DeviceResult;
use super::super::room::RETRY_AFTER;
use super::super::shared::{Shared, lock};
use super::super::writer::{Job, Notes};
use super::{Aborted, Rollout, RolloutReport, RolloutView, steps};
use crate::mark::Mark;
use crate::order::Order;
use crate::outbox::{NOTE_MAX, Phase, Plan, Restored, Targets, emit_order, note_of, parse_order, rollout_of};

/// Rollouts that go on, and durable ones that are remembered: so many together.
pub const ROLLOUTS_MAX: usize = 16;

/// A rollout.
#[derive(Debug)]
pub(in super::super) struct Live {
    pub(in super::super) id: u64,
    pub(super) durable: bool,
    /// Of the order; of a durable one without it, made up. Keys of steps are made from it.
    pub(super) key: u64,
    named: bool,
    pub(super) plan: Rollout,
    /// Its devices at their positions, in the order in which steps take them.
    pub(super) drawn: Vec<(u32, DeviceResult)>,
    pub(super) progress: Mutex<Progress>,
    /// It was stopped, or is over.
    changed: Notify,
}

#[derive(Debug)]
pub(super) struct Progress {
    phase: Phase,
    stopped: bool,
    restarts: u16,
    /// Positions whose device was removed since.
    pub(super) gone: BTreeSet<u32>,
    /// Numbers of the steps' orders.
    orders: Vec<u64>,
    /// As a plan's note has it; empty once it is over.
    order: Arc<[u8]>,
    outcome: Option<Result<RolloutReport, PushError>>,
}

/// The devices at these positions in an order that has nothing to do with where they are.
pub(super) fn drawn<'e>(devices: impl Iterator<Item = (u32, Option<&'e Entry>)>) -> Vec<(u32, DeviceResult)> {
    let mut drawn: Vec<_> =
        devices.map(|(at, entry)| (at, DeviceResult::new(Mark::PENDING, entry))).collect();
    drawn.sort_by_cached_key(|(position, _)| mix(u64::from(*position)));
    drawn
}

impl Live {
    /// The steps that have devices, with those.
    pub(super) fn steps(&self) -> impl Iterator<Item = (usize, &[(u32, DeviceResult)])> {
        let mut done = 0;
        self.plan.percents.iter().enumerate().filter_map(move |(step, &percent)| {
            let upto = (self.drawn.len() * usize::from(percent)).div_ceil(100);
            let next = self.drawn.get(done..upto).filter(|next| !next.is_empty())?;
            done = upto;
            Some((step, next))
        })
    }

    pub(super) fn order(&self) -> Arc<[u8]> {
        Arc::clone(&lock(&self.progress).order)
    }

    pub(super) fn restarts(&self) -> u16 {
        lock(&self.progress).restarts
    }

    pub(super) fn is_stopped(&self) -> bool {
        lock(&self.progress).stopped
    }

    pub(super) fn is_running(&self) -> bool {
        let progress = lock(&self.progress);
        progress.phase == Phase::Running && progress.outcome.is_none()
    }

    pub(super) fn note_step(&self, number: u64) {
        lock(&self.progress).orders.push(number);
    }

    pub(super) fn aborted(&self) -> Option<Aborted> {
        match lock(&self.progress).phase {
            Phase::Aborted { step, failed, devices } => {
                Some(Aborted { step: step.into(), failed: failed as usize, devices: devices as usize })
            }
            Phase::Running | Phase::Done => None,
        }
    }

    pub(super) fn stop(&self) {
        lock(&self.progress).stopped = true;
        self.changed.notify_waiters();
    }

    /// Until `done`; asked after every change.
    async fn until<T>(&self, shared: &Shared, done: impl Fn(&Progress) -> Option<T>) -> Option<T> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            let mut ended = std::pin::pin!(shared.ended.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            ended.as_mut().enable();
            if let Some(done) = done(&lock(&self.progress)) {
                return Some(done);
            }
            if shared.has_ended() {
                return None;
            }
            tokio::select! {
                () = changed => {}
                () = ended => {}
            }
        }
    }

    /// Until somebody stops it.
    pub(super) async fn stopped(&self) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.is_stopped() {
                return;
            }
            changed.await;
        }
    }

    /// Its end; the end of the server comes before that of a rollout that goes on.
    pub(super) async fn outcome(&self, shared: &Arc<Shared>) -> Result<RolloutReport, PushError> {
        let _known = self.knows_its_end(shared).await;
        let outcome = self.until(shared, |progress| progress.outcome.clone()).await;
        outcome.unwrap_or(Err(PushError::Stopped))
    }

    /// Looks up how one ended that was over before this run; false if nobody knows any more, or it goes on.
    pub(super) async fn knows_its_end(&self, shared: &Arc<Shared>) -> bool {
        let is_over = {
            let progress = lock(&self.progress);
            progress.outcome.is_none() && progress.phase != Phase::Running
        };
        if is_over && let Some(report) = steps::recall(shared, self).await {
            lock(&self.progress).outcome.get_or_insert(Ok(report));
        }
        lock(&self.progress).outcome.is_some()
    }

    pub(super) fn view(&self) -> RolloutView {
        let (aborted, running) = (self.aborted(), self.is_running());
        let progress = lock(&self.progress);
        RolloutView {
            rollout: self.id,
            key: if self.named || !self.durable { self.key } else { 0 },
            durable: self.durable,
            running,
            aborted,
            percents: self.plan.percents.clone(),
            orders: progress.orders.clone(),
            targets: self.drawn.len(),
            restarts: progress.restarts,
        }
    }

    /// Its plan, as it stands.
    fn plan_note(&self, progress: &Progress) -> (u64, Vec<u8>) {
        let set = |positions: BTreeSet<u32>| Targets::from_sorted(positions);
        // A rollout has devices, and the outbox has numbers for as many as are listed.
        let targets = set(self.drawn.iter().map(|(at, _)| *at).collect());
        let bytes = targets.map(|targets| {
            let within = u32::try_from(self.plan.step_within.as_millis());
            let plan = Plan {
                phase: progress.phase,
                key: self.key,
                named: self.named,
                restarts: progress.restarts,
                percents: self.plan.percents.clone(),
                abort_above: self.plan.abort_above,
                step_within_ms: within.unwrap_or(u32::MAX),
                order_len: u32::try_from(progress.order.len()).unwrap_or(u32::MAX),
                targets,
                gone: set(progress.gone.clone()),
            };
            plan.emit()
        });
        (note_of(self.id), bytes.unwrap_or_default())
    }
}

/// The notes that take an order's pieces away.
fn without_pieces(id: u64, order: &[u8]) -> impl Iterator<Item = (u64, Vec<u8>)> {
    (1..).zip(order.chunks(NOTE_MAX)).map(move |(piece, _)| (note_of(id) | piece, Vec::new()))
}

/// The rollouts of a server.
#[derive(Debug, Default)]
pub(in super::super) struct Rollouts {
    live: Mutex<Vec<Arc<Live>>>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Rollouts {
    pub(super) fn all(&self) -> Vec<Arc<Live>> {
        lock(&self.live).clone()
    }

    /// A durable one that the application has named so.
    pub(super) fn by_key(&self, key: u64) -> Option<Arc<Live>> {
        let live = lock(&self.live);
        live.iter().find(|live| live.durable && live.named && live.key == key).map(Arc::clone)
    }

    /// Takes one in, unless one of its name is there: the one that is, and one that is remembered for it no more. Full if all
    /// go on.
    fn insert(&self, new: &Arc<Live>) -> Result<(Arc<Live>, Option<Arc<Live>>), PushError> {
        let mut live = lock(&self.live);
        let mut oldest = None;
        let is_same = |live: &&Arc<Live>| live.durable && live.named && live.key == new.key;
        if let Some(same) = live.iter().find(is_same).filter(|_| new.durable && new.named) {
            return Ok((Arc::clone(same), None));
        }
        if live.len() >= ROLLOUTS_MAX {
            let (what, limit) = (Resource::Rollouts, ROLLOUTS_MAX);
            let full = PushError::Full { what, limit, retry_after: RETRY_AFTER };
            let at = live.iter().position(|live| !live.is_running()).ok_or(full)?;
            oldest = Some(live.remove(at));
        }
        live.push(Arc::clone(new));
        Ok((Arc::clone(new), oldest))
    }

    fn remove(&self, id: u64) {
        lock(&self.live).retain(|live| live.id != id);
    }

    /// One that is over is not remembered any more.
    pub(super) fn forget(&self, shared: &Shared, live: &Live) {
        self.remove(live.id);
        let order = live.order();
        let notes = std::iter::once((note_of(live.id), Vec::new())).chain(without_pieces(live.id, &order));
        keep(shared, notes.collect());
    }

    /// The device at this position is not listed any more: whoever comes there next was not drawn. What the outbox has to know,
    /// before it knows of the removal.
    pub(in super::super) fn note_removed(&self, position: u32) -> Vec<(u64, Vec<u8>)> {
        let mut notes = Vec::new();
        for live in lock(&self.live).iter() {
            let mut progress = lock(&live.progress);
            let is_drawn = live.drawn.iter().any(|(at, _)| *at == position);
            if progress.phase == Phase::Running && is_drawn && progress.gone.insert(position) && live.durable
            {
                notes.push(live.plan_note(&progress));
            }
        }
        notes
    }

    /// Starts the task of one.
    pub(in super::super) fn run(&self, shared: &Arc<Shared>, live: Arc<Live>) {
        let shared = Arc::clone(shared);
        let task = tokio::spawn(async move {
            let outcome = steps::take_all(&shared, &live).await;
            over(&shared, &live, outcome);
        });
        let mut tasks = lock(&self.tasks);
        tasks.retain(|task| !task.is_finished());
        tasks.push(task.abort_handle());
    }

    /// Ends every task without a word.
    pub(in super::super) fn abort(&self) {
        lock(&self.tasks).iter().for_each(AbortHandle::abort);
    }
}

/// Hands notes to the outbox, which has them as soon as it can.
fn keep(shared: &Shared, notes: Vec<(u64, Vec<u8>)>) {
    if let Some(queue) = shared.outbox.as_ref().filter(|_| !notes.is_empty()) {
        // A stopped server keeps no more: the next run finds out again.
        let _ = queue.put(Job::Notes(Notes::of_known(notes)));
    }
}

/// Begins one: of a durable one, once the outbox has it.
pub(super) async fn begin(
    shared: &Arc<Shared>,
    order: &Order<'_>,
    durable: bool,
    plan: &Rollout,
    drawn: Vec<(u32, DeviceResult)>,
) -> Result<Arc<Live>, PushError> {
    let id = shared.take_number()?;
    let named = order.order_key != 0;
    let made_up = || mix(shared.seed ^ mix(id)).max(1);
    let key = if durable && !named { made_up() } else { order.order_key };
    let progress = Progress {
        phase: Phase::Running,
        stopped: false,
        restarts: 0,
        gone: BTreeSet::new(),
        orders: Vec::new(),
        order: emit_order(order).into(),
        outcome: None,
    };
    let (plan, progress, changed) = (plan.clone(), Mutex::new(progress), Notify::new());
    let live = Arc::new(Live { id, durable, key, named, plan, drawn, progress, changed });
    let (there, oldest) = shared.rollouts.insert(&live)?;
    if !Arc::ptr_eq(&there, &live) {
        return Ok(there);
    }
    if let Some(oldest) = oldest {
        shared.rollouts.forget(shared, &oldest);
    }
    if durable && let Err(error) = keep_new(shared, &live).await {
        shared.rollouts.remove(id);
        tell(&live, Err(error.clone()));
        return Err(error);
    }
    shared.rollouts.run(shared, Arc::clone(&live));
    Ok(live)
}

/// The outbox gets its devices (no order may have named them yet), its order, and its plan.
async fn keep_new(shared: &Shared, live: &Live) -> Result<(), PushError> {
    let order = live.order();
    let pieces = (1..).zip(order.chunks(NOTE_MAX)).map(|(at, piece)| (note_of(live.id) | at, piece.to_vec()));
    let mut notes: Vec<_> = pieces.collect();
    notes.push(live.plan_note(&lock(&live.progress)));
    let (reply, kept) = oneshot::channel();
    let devices = live.drawn.iter().map(|(position, _)| *position).collect();
    let job = Job::Notes(Notes { devices, notes, reply: Some(reply) });
    let put = shared.outbox.as_ref().map(|queue| queue.put(job));
    if !matches!(put, Some(Ok(()))) {
        return Err(PushError::Stopped);
    }
    match kept.await {
        Ok(kept) => kept.map_err(|fault| PushError::Outbox { fault }),
        Err(_) => Err(PushError::Stopped),
    }
}

/// One has come to its end, or the server to its own.
fn over(shared: &Shared, live: &Live, outcome: Result<RolloutReport, PushError>) {
    if !matches!(outcome, Err(PushError::Stopped)) {
        let remembered = live.durable && matches!(&outcome, Ok(report) if !report.stopped);
        if remembered {
            remember(shared, live, &outcome);
        } else {
            shared.rollouts.forget(shared, live);
        }
        if live.durable
            && let Ok(report) = &outcome
        {
            let RolloutReport { rollout, aborted, stopped, restarts, .. } = *report;
            let event = Event::RolloutEnded { rollout, aborted, stopped, restarts };
            // Nobody listening is not an error.
            let _ = shared.events.send(event);
        }
    }
    tell(live, outcome);
}

fn remember(shared: &Shared, live: &Live, outcome: &Result<RolloutReport, PushError>) {
    let aborted = outcome.as_ref().ok().and_then(RolloutReport::aborted);
    let short = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let mut progress = lock(&live.progress);
    progress.phase = aborted.map_or(Phase::Done, |Aborted { step, failed, devices }| Phase::Aborted {
        step: u8::try_from(step).unwrap_or(0),
        failed: short(failed),
        devices: short(devices),
    });
    let order = core::mem::take(&mut progress.order);
    let plan = live.plan_note(&progress);
    drop(progress);
    keep(shared, std::iter::once(plan).chain(without_pieces(live.id, &order)).collect());
}

fn tell(live: &Live, outcome: Result<RolloutReport, PushError>) {
    lock(&live.progress).outcome = Some(outcome);
    live.changed.notify_waiters();
}

/// What was found of rollouts in the outbox.
#[derive(Debug, Default)]
pub(in super::super) struct Found {
    /// Those that go on.
    pub(in super::super) running: Vec<Arc<Live>>,
    /// Those that went on, and of which a note is missing or cannot be read: no further step is taken.
    pub(in super::super) lost: Vec<u64>,
}

/// Takes in the rollouts of earlier runs, once the directory is as it was.
pub(in super::super) fn restore(shared: &Shared, restored: &Restored) -> Found {
    let mut by_id: BTreeMap<u64, BTreeMap<u64, &[u8]>> = BTreeMap::new();
    for (note, bytes) in &restored.notes {
        let (id, piece) = rollout_of(*note);
        by_id.entry(id).or_default().insert(piece, bytes);
    }
    shared.skip_numbers(by_id.keys().next_back().copied().unwrap_or(0));
    let (mut found, mut notes) = (Found::default(), Vec::new());
    for (id, pieces) in &by_id {
        let plan = pieces.get(&0).map(|bytes| Plan::parse(bytes));
        let live = plan
            .as_ref()
            .and_then(|plan| plan.as_ref().ok())
            .and_then(|plan| live(shared, *id, plan, pieces));
        match live {
            Some(live) => {
                let live = Arc::new(live);
                if live.is_running() {
                    notes.push(live.plan_note(&lock(&live.progress)));
                    found.running.push(Arc::clone(&live));
                }
                lock(&shared.rollouts.live).push(live);
            }
            None => {
                // Pieces alone are of one that nobody was told of.
                found.lost.extend(plan.map(|_| *id));
                notes.extend(pieces.keys().map(|piece| (note_of(*id) | piece, Vec::new())));
            }
        }
    }
    keep(shared, notes);
    found
}

/// One of an earlier run; `None` if its order cannot be read.
fn live(shared: &Shared, id: u64, plan: &Plan, pieces: &BTreeMap<u64, &[u8]>) -> Option<Live> {
    let whole: Vec<u8> =
        (1..=plan.pieces()).filter_map(|piece| pieces.get(&piece)).copied().flatten().copied().collect();
    let running = plan.phase == Phase::Running;
    if running && (whole.len() != plan.order_len as usize || parse_order(&whole).is_err()) {
        return None;
    }
    let gone: BTreeSet<u32> = plan.gone.iter().flat_map(Targets::iter).collect();
    let directory = shared.directory();
    let devices = plan.targets.iter();
    let drawn = drawn(devices.map(|at| (at, directory.entry(at).filter(|_| !gone.contains(&at)))));
    drop(directory);
    let progress = Progress {
        phase: plan.phase,
        stopped: false,
        restarts: plan.restarts.saturating_add(u16::from(running)),
        gone,
        orders: Vec::new(),
        order: whole.into(),
        outcome: None,
    };
    let step_within = Duration::from_millis(plan.step_within_ms.into());
    let rollout = Rollout { percents: plan.percents.clone(), abort_above: plan.abort_above, step_within };
    let (durable, key, named, changed) = (true, plan.key, plan.named, Notify::new());
    Some(Live { id, durable, key, named, plan: rollout, drawn, progress: Mutex::new(progress), changed })
}
