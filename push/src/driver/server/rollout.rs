//! An order to some devices first and to all later, if nothing speaks against it.

use std::time::Duration;

use wire_format::error::EmitError;
use wire_format::frame::outcome::Code;
use wire_format::rng::mix;

use super::error::PushError;
use super::push::with_options;
use super::report::{DeviceResult, Report};
use super::{Server, Target};
use crate::mark::Mark;
use crate::order::Order;

/// Steps of one rollout.
pub const STEPS_MAX: usize = 32;

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
    percents: Vec<u8>,
    abort_above: u8,
    step_within: Duration,
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

    /// How long a step waits for its outcomes; then it is judged by those it has.
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
    steps: Vec<Report>,
    not_reached: Vec<DeviceResult>,
    aborted: Option<Aborted>,
}

impl RolloutReport {
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

    /// Why it was stopped; `None` if every step was taken.
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

/// Whether an outcome speaks against going on.
const fn is_failure(code: Code) -> bool {
    !matches!(code, Code::APPLIED | Code::DUPLICATE | Code::SUPERSEDED)
}

fn failures(report: &Report) -> usize {
    report.outcomes().iter().filter(|(code, _)| is_failure(*code)).map(|(_, devices)| devices).sum()
}

impl Server {
    /// Pushes an order step by step: each to further devices, drawn evenly from the target as it is now and the same at
    /// every call. Each step has an order number of its own. A device without an outcome at the end of a step is no
    /// failure: it is reported as pending, and keeps the order for its lifetime.
    ///
    /// Dropping the future stops the rollout after the step that is under way, and cancels nothing: what was pushed goes
    /// on. The order's key is not looked up here: a rollout is not one push. An order that supersedes another is refused,
    /// because its version would have to rise from step to step.
    ///
    /// An error comes before the first step, or ends the rollout between two: what was pushed goes on.
    pub async fn rollout(
        &self,
        order: &Order<'_>,
        target: &Target,
        plan: &Rollout,
    ) -> Result<RolloutReport, PushError> {
        if order.supersede_key != 0 {
            return Err(PushError::Order(EmitError::Invalid { field: "supersede key" }));
        }
        let drawn = self.draw(target);
        if drawn.is_empty() {
            return Err(PushError::NoTarget { target: target.clone() });
        }
        let mut report = RolloutReport { steps: Vec::new(), not_reached: Vec::new(), aborted: None };
        let mut done = 0;
        for (step, &percent) in plan.percents.iter().enumerate() {
            let upto = (drawn.len() * usize::from(percent)).div_ceil(100);
            let Some(next) = drawn.get(done..upto).filter(|next| !next.is_empty()) else { continue };
            done = upto;
            let Some(outcome) = self.step(order, target, next, plan.step_within, &mut report).await? else {
                continue;
            };
            let (failed, devices) = (failures(&outcome), outcome.targets());
            report.steps.push(outcome);
            if failed * 100 > devices * usize::from(plan.abort_above) {
                report.aborted = Some(Aborted { step, failed, devices });
                break;
            }
        }
        report.not_reached.extend(drawn.iter().skip(done).map(|(_, device)| *device));
        Ok(report)
    }

    /// One step; `None` if none of its devices is listed any more.
    async fn step(
        &self,
        order: &Order<'_>,
        target: &Target,
        next: &[(u32, DeviceResult)],
        within: Duration,
        report: &mut RolloutReport,
    ) -> Result<Option<Report>, PushError> {
        let pushed = self.with_room(within, || {
            with_options(order, |order, blob| {
                self.shared.push_new(order, blob, |directory| {
                    let listed = next.iter().filter(|(at, device)| {
                        // The position may be another device's by now.
                        directory.entry(*at).is_some_and(|entry| entry.id == device.id || device.id.is_none())
                    });
                    let (shares, targets) =
                        directory.share(listed.map(|(at, _)| *at), false, || self.shared.pools.take_marks());
                    let none = || PushError::NoTarget { target: target.clone() };
                    if targets == 0 { Err(none()) } else { Ok((shares, targets)) }
                })
            })
        });
        let fan_out = match pushed.await {
            Ok(fan_out) => fan_out,
            Err(PushError::NoTarget { .. }) => {
                report.not_reached.extend(next.iter().map(|(_, device)| *device));
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let outcome = fan_out.settled(within).await;
        if outcome.targets() < next.len() {
            let was_pushed = |device: &DeviceResult| {
                outcome
                    .devices()
                    .iter()
                    .any(|pushed| (pushed.id, pushed.address) == (device.id, device.address))
            };
            let gone = next.iter().map(|(_, device)| *device).filter(|device| !was_pushed(device));
            report.not_reached.extend(gone);
        }
        Ok(Some(outcome))
    }

    /// The devices of a target with their positions, in an order that has nothing to do with where they are.
    fn draw(&self, target: &Target) -> Vec<(u32, DeviceResult)> {
        let directory = self.shared.directory();
        let meant = directory.entries().filter(|(_, entry)| target.matches(entry));
        let mut drawn: Vec<_> =
            meant.map(|(at, entry)| (at, DeviceResult::new(Mark::PENDING, Some(entry)))).collect();
        drawn.sort_by_cached_key(|(position, _)| mix(u64::from(*position)));
        drawn
    }
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
