//! An order to some devices first and to all later, if nothing speaks against it.
//!
//! A rollout is a task of the server. A durable one is in the outbox before its first step: a server that is started again
//! goes on with it. Each of its steps is an order under a key of its own, made from the rollout's: whatever a crash leaves,
//! a step that was pushed is found by its key, with how it stands, and is not pushed again; and it is judged then as it
//! would have been.
//!
//! | file | what for |
//! | --- | --- |
//! | `mod` | what is asked for, and what is told |
//! | `steps` | the task |
//! | `table` | rollouts that go on or are remembered, and their notes |

mod steps;
mod table;

use std::sync::Arc;
use std::time::Duration;

use wire_format::error::EmitError;
use wire_format::frame::order::PAYLOAD_MAX;
use wire_format::frame::outcome::Code;
use wire_format::frame::part::BLOB_MAX;

use super::error::PushError;
use super::report::{DeviceResult, Report};
use super::shared::Shared;
use super::{Server, Target};
use crate::order::Order;

pub use crate::outbox::STEPS_MAX;
use table::Live;
pub use table::ROLLOUTS_MAX;
pub(super) use table::{Rollouts, restore};

/// How an order is rolled out.
///
/// ```
/// use push::driver::server::Rollout;
/// use std::time::Duration;
/// let careful = Rollout::steps([1, 10, 50]).abort_above(5).step_within(Duration::from_secs(300));
/// assert_eq!(careful.percents(), [1, 10, 50, 100]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    pub(super) percents: Vec<u8>,
    pub(super) abort_above: u8,
    pub(super) step_within: Duration,
}

impl Rollout {
    /// First so many of a hundred devices, then so many in all, and so on; all in the end. What does not rise is left out,
    /// and so is what follows the [`STEPS_MAX`]th. It goes on while no more than 5 of a hundred devices of a step fail, and
    /// a step takes a minute at most.
    #[must_use]
    pub fn steps(percents: impl IntoIterator<Item = u8>) -> Self {
        let mut rising = Vec::new();
        for percent in percents {
            if percent < 100 && percent > rising.last().copied().unwrap_or(0) && rising.len() + 1 < STEPS_MAX
            {
                rising.push(percent);
            }
        }
        rising.push(100);
        Self { percents: rising, abort_above: 5, step_within: Duration::from_secs(60) }
    }

    /// Stops when more than so many of a hundred devices of a step fail; 0: when one does.
    #[must_use]
    pub fn abort_above(self, percent: u8) -> Self {
        Self { abort_above: percent, ..self }
    }

    /// How long a step waits for its outcomes; then it is judged by those it has. 49 days at most.
    #[must_use]
    pub fn step_within(self, within: Duration) -> Self {
        Self { step_within: within, ..self }
    }

    /// The steps, in percent of all devices; the last one is 100.
    #[must_use]
    pub fn percents(&self) -> &[u8] {
        &self.percents
    }
}

/// Why a rollout stopped early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted {
    /// The step, from 0.
    pub step: usize,
    /// Devices of it that failed.
    pub failed: usize,
    /// Devices of it.
    pub devices: usize,
}

/// What came of a rollout.
#[derive(Clone, Debug)]
pub struct RolloutReport {
    rollout: u64,
    steps: Vec<Report>,
    not_reached: Vec<DeviceResult>,
    aborted: Option<Aborted>,
    stopped: bool,
    restarts: u16,
}

impl RolloutReport {
    /// The rollout's number: no order has it. See [`Server::rollouts`].
    #[must_use]
    pub const fn rollout(&self) -> u64 {
        self.rollout
    }

    /// How often the server was started again while it went on. Steps of before the last time are told as they stood after
    /// it, without latencies.
    #[must_use]
    pub const fn restarts(&self) -> u16 {
        self.restarts
    }

    /// Somebody stopped it ([`Rolling::stop`]).
    #[must_use]
    pub const fn stopped(&self) -> bool {
        self.stopped
    }

    /// Each step as it stood when it was judged. Devices that were pending then may have ended since.
    #[must_use]
    pub fn steps(&self) -> &[Report] {
        &self.steps
    }

    /// The devices to which the order was not pushed: those of the steps after it was stopped, and those that were taken
    /// off the list meanwhile.
    #[must_use]
    pub fn not_reached(&self) -> &[DeviceResult] {
        &self.not_reached
    }

    /// Why it stopped itself; `None` if every step was taken, or somebody stopped it.
    #[must_use]
    pub const fn aborted(&self) -> Option<Aborted> {
        self.aborted
    }

    /// Devices of all steps that ended with this outcome.
    #[must_use]
    pub fn count(&self, code: Code) -> usize {
        self.steps.iter().map(|step| step.count(code)).sum()
    }

    /// Devices of all steps that had no outcome when their step was judged.
    #[must_use]
    pub fn unsettled(&self) -> usize {
        self.steps.iter().map(Report::unsettled).sum()
    }
}

/// A rollout under way, or one that is over and remembered. Dropping this stops nothing.
#[derive(Clone, Debug)]
pub struct Rolling {
    live: Arc<Live>,
    shared: Arc<Shared>,
}

impl Rolling {
    /// Its number: no order has it.
    #[must_use]
    pub fn rollout(&self) -> u64 {
        self.live.id
    }

    /// Whether it goes on when the server is started again.
    #[must_use]
    pub fn durable(&self) -> bool {
        self.live.durable
    }

    /// Waits for its end. [`PushError::Stopped`] if the server stops before: a durable one goes on with the next start.
    ///
    /// Cancel safe.
    pub async fn report(&self) -> Result<RolloutReport, PushError> {
        self.live.outcome(&self.shared).await
    }

    /// Takes no further step, and does not wait for the one that is under way; cancels nothing: what was pushed goes on. It is
    /// not remembered.
    pub fn stop(&self) {
        self.live.stop();
    }
}

/// How a rollout stands.
#[derive(Clone, Debug)]
pub struct RolloutView {
    /// Its number: no order has it.
    pub rollout: u64,
    /// The order's key; 0 for none.
    pub key: u64,
    /// Whether it goes on when the server is started again.
    pub durable: bool,
    /// Whether it goes on now; else it is over and remembered.
    pub running: bool,
    /// Why it stopped itself.
    pub aborted: Option<Aborted>,
    /// The steps, in percent of all devices.
    pub percents: Vec<u8>,
    /// Numbers of the orders of the steps pushed in this run, or found again in it.
    pub orders: Vec<u64>,
    /// Devices it began with.
    pub targets: usize,
    /// How often the server was started again while it went on.
    pub restarts: u16,
}

/// Stops a rollout that nobody waits for any more.
struct StopOnDrop(Option<Rolling>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(|rolling| rolling.stop());
    }
}

impl Server {
    /// Pushes an order step by step: each to further devices, drawn evenly from the target as it is now and the same at
    /// every call. Each step has an order number of its own. A device without an outcome at the end of a step is no
    /// failure: it is reported as pending, and keeps the order for its lifetime.
    ///
    /// With an outbox a rollout is durable, unless its order says otherwise ([`Order::volatile`]): it goes on when this future is
    /// dropped, and when the server is started again ([`Server::rollouts`] names it then); no step is taken twice, and none without
    /// the one before having been judged. If the order has a key, a second rollout under it is answered with the first one
    /// as long as that goes on or is among the last [`ROLLOUTS_MAX`]. Each step has a key of its own, made from it.
    ///
    /// Dropping the future of a volatile one stops it after the step that is under way, and cancels nothing: what was pushed goes
    /// on. Its order's key is not looked up.
    ///
    /// An order that supersedes another is refused, because its version would have to rise from step to step. An error comes
    /// before the first step, or ends the rollout between two: what was pushed goes on.
    pub async fn rollout(
        &self,
        order: &Order<'_>,
        target: &Target,
        plan: &Rollout,
    ) -> Result<RolloutReport, PushError> {
        let rolling = self.begin_rollout(order, target, plan).await?;
        let mut guard = StopOnDrop((!rolling.durable()).then(|| rolling.clone()));
        let report = rolling.report().await;
        guard.0 = None;
        report
    }

    /// The same without waiting for its end: of a durable one, once the outbox has it. It goes on whatever becomes of the answer.
    pub async fn begin_rollout(
        &self,
        order: &Order<'_>,
        target: &Target,
        plan: &Rollout,
    ) -> Result<Rolling, PushError> {
        check(order)?;
        let durable = self.shared.outbox.is_some() && !order.is_volatile();
        if durable && let Some(live) = self.shared.rollouts.by_key(order.order_key) {
            if live.is_running() || live.knows_its_end(&self.shared).await {
                return Ok(self.rolling(live));
            }
            // Its keys are too old: it is not remembered either.
            self.shared.rollouts.forget(&self.shared, &live);
        }
        let drawn = self.draw(target);
        if drawn.is_empty() {
            return Err(PushError::NoTarget { target: target.clone() });
        }
        let live = table::begin(&self.shared, order, durable, plan, drawn).await?;
        Ok(self.rolling(live))
    }

    /// The rollouts that go on, and the durable ones that are over and remembered; oldest first.
    #[must_use]
    pub fn rollouts(&self) -> Vec<RolloutView> {
        self.shared.rollouts.all().iter().map(|live| live.view()).collect()
    }

    /// A rollout by its number.
    #[must_use]
    pub fn rolling_out(&self, rollout: u64) -> Option<Rolling> {
        let live = self.shared.rollouts.all().into_iter().find(|live| live.id == rollout)?;
        Some(self.rolling(live))
    }

    fn rolling(&self, live: Arc<Live>) -> Rolling {
        Rolling { live, shared: Arc::clone(&self.shared) }
    }

    /// The devices of a target with their positions, in the order in which steps take them.
    fn draw(&self, target: &Target) -> Vec<(u32, DeviceResult)> {
        let directory = self.shared.directory();
        let meant = directory.entries().filter(|(_, entry)| target.matches(entry));
        table::drawn(meant.map(|(at, entry)| (at, Some(entry))))
    }
}

/// Whether this order could be rolled out.
fn check(order: &Order<'_>) -> Result<(), PushError> {
    if order.supersede_key != 0 {
        return Err(PushError::Order(EmitError::Invalid { field: "supersede key" }));
    }
    let in_parts = order.payload.len() > PAYLOAD_MAX && order.payload.len() <= BLOB_MAX as usize;
    let order = if in_parts { Order { payload: &[], ..*order } } else { *order };
    order.check().map_err(PushError::Order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_rise_to_all_and_are_as_many_as_the_limit() {
        assert_eq!(Rollout::steps([]).percents(), [100]);
        assert_eq!(Rollout::steps([0, 10, 5, 10, 100, 50, 200]).percents(), [10, 50, 100]);
        assert_eq!(Rollout::steps(1..32).percents().len(), STEPS_MAX);
        assert_eq!(Rollout::steps(1..33).percents().len(), STEPS_MAX);
        assert_eq!(Rollout::steps(1..33).percents().last(), Some(&100));
    }
}
