//! One order on its way to many devices, as the application holds it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use wire_format::frame::outcome::Code;
use wire_format::ids::NodeId;

use super::Shared;
use super::directory::Entry;
use crate::fleet::DeviceIndex;
use crate::histogram::Histogram;
use crate::mark::Mark;

/// What the shard keeps with a live order: the marks the core works on, and whom to tell.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) marks: Vec<u8>,
    pub(super) latency: Box<Histogram>,
    pub(super) state: Arc<State>,
}

impl AsRef<[u8]> for Ledger {
    fn as_ref(&self) -> &[u8] {
        &self.marks
    }
}

impl AsMut<[u8]> for Ledger {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.marks
    }
}

/// What handle and shard share about one fan-out.
#[derive(Debug)]
pub(super) struct State {
    pub(super) number: u64,
    pub(super) first: DeviceIndex,
    pub(super) targets: usize,
    settled: Mutex<Option<Settled>>,
    changed: Notify,
}

/// The end: no mark changes any more.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) marks: Vec<u8>,
    pub(super) latency: Box<Histogram>,
}

impl State {
    pub(super) fn new(number: u64, first: DeviceIndex, targets: usize) -> Self {
        Self { number, first, targets, settled: Mutex::new(None), changed: Notify::new() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Settled>> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every device has its outcome.
    pub(super) fn settle(&self, marks: Vec<u8>, latency: Box<Histogram>) {
        *self.lock() = Some(Settled { marks, latency });
        self.changed.notify_waiters();
    }
}

/// One order, pushed to some devices. Dropping it does not stop the order.
#[derive(Debug)]
pub struct FanOut {
    pub(super) state: Arc<State>,
    pub(super) shared: Arc<Shared>,
}

impl FanOut {
    /// The order's number in its log, the same on every device.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.state.number
    }

    /// Whether the order survives a restart of this server. The log in memory never does.
    #[must_use]
    pub const fn durable(&self) -> bool {
        false
    }

    /// How many devices it goes to.
    #[must_use]
    pub fn targets(&self) -> usize {
        self.state.targets
    }

    /// Waits until every device has its one final outcome, `within` is over or the server stops, and says how things stand.
    ///
    /// Cancel safe: it can be called again, and the report can be asked for as often as wanted.
    pub async fn settled(&self, within: Duration) -> Report {
        let settle = async {
            let (changed, stopped) = (self.state.changed.notified(), self.shared.ended.notified());
            if self.state.lock().is_none() && !self.shared.is_stopped() {
                // One notification for each, ever: the order settles once, and the server stops once.
                tokio::select! {
                    () = changed => {}
                    () = stopped => {}
                }
            }
        };
        if tokio::time::timeout(within, settle).await.is_err() {
            return self.report().await;
        }
        self.report().await
    }

    /// How things stand now.
    pub async fn report(&self) -> Report {
        if let Some(report) = self.final_report() {
            return report;
        }
        match self.shared.snapshot(self.state.number).await {
            Some((marks, latency)) => self.report_of(&marks, &latency),
            // It settled in between, or the server stopped and took what was pending with it.
            None => self.final_report().unwrap_or_else(|| self.report_of(&[], &Histogram::new())),
        }
    }

    fn final_report(&self) -> Option<Report> {
        let settled = self.state.lock();
        let settled = settled.as_ref()?;
        Some(self.report_of(&settled.marks, &settled.latency))
    }

    fn report_of(&self, marks: &[u8], latency: &Histogram) -> Report {
        let directory = self.shared.directory();
        let first = self.state.first.0 as usize;
        let entries = directory.entries().get(first..).unwrap_or(&[]);
        let devices = marks.iter().zip(entries);
        let devices = devices.filter(|&(&mark, _)| Mark(mark) != Mark::NOT_TARGETED);
        // One allocation: a filter does not know how many it lets through, the fan-out does.
        let mut results = Vec::with_capacity(self.state.targets);
        results.extend(devices.map(|(&mark, entry)| DeviceResult::new(Mark(mark), entry)));
        Report {
            number: self.state.number,
            targets: self.state.targets,
            devices: results,
            latency: Latency::of(latency),
        }
    }
}

impl Drop for FanOut {
    fn drop(&mut self) {
        if let Some(settled) = self.state.lock().take() {
            self.shared.pools.recycle(settled.marks, settled.latency);
        }
    }
}

/// How an order stands on every device it was for.
#[derive(Clone, Debug)]
pub struct Report {
    number: u64,
    targets: usize,
    devices: Vec<DeviceResult>,
    latency: Latency,
}

/// How an order stands on one device.
#[derive(Clone, Copy, Debug)]
pub struct DeviceResult {
    /// The device; `None` if it was given by address alone and never reached.
    pub id: Option<NodeId>,
    /// Where it is dialled.
    pub address: Option<SocketAddr>,
    /// Its final outcome, or what it waits for.
    pub standing: Standing,
}

/// An outcome, or the reason there is none yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The one final outcome. A repeated delivery shows the outcome of the first.
    Ended(Code),
    /// None yet.
    Pending(Pending),
}

/// Why there is no outcome yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pending {
    /// No session with the device.
    Unreachable,
    /// Connected; waits for its turn or for the window.
    Queued,
    /// Written to the device, not answered.
    Sent,
    /// The device has it.
    Received,
    /// The device works on it.
    Started,
}

impl Pending {
    /// Every reason, in the order an order passes through them.
    pub const ALL: [Self; 5] = [Self::Unreachable, Self::Queued, Self::Sent, Self::Received, Self::Started];

    /// A stable lower-case word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Queued => "queued",
            Self::Sent => "sent",
            Self::Received => "received",
            Self::Started => "started",
        }
    }
}

impl fmt::Display for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl DeviceResult {
    fn new(mark: Mark, entry: &Entry) -> Self {
        let standing = match (mark, mark.code()) {
            (_, Some(code)) => Standing::Ended(code),
            (Mark::SENT, _) => Standing::Pending(Pending::Sent),
            (Mark::RECEIVED, _) => Standing::Pending(Pending::Received),
            (Mark::STARTED, _) => Standing::Pending(Pending::Started),
            _ if entry.connected => Standing::Pending(Pending::Queued),
            _ => Standing::Pending(Pending::Unreachable),
        };
        Self { id: entry.id, address: entry.address, standing }
    }
}

impl Report {
    /// The order's number.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// How many devices the order was for.
    #[must_use]
    pub const fn targets(&self) -> usize {
        self.targets
    }

    /// Devices that ended with this outcome.
    #[must_use]
    pub fn count(&self, code: Code) -> usize {
        self.devices.iter().filter(|device| device.standing == Standing::Ended(code)).count()
    }

    /// Every outcome that occurred, with its number of devices, lowest code first.
    #[must_use]
    pub fn outcomes(&self) -> Vec<(Code, usize)> {
        let codes = self.devices.iter().filter_map(|device| match device.standing {
            Standing::Ended(code) => Some(code),
            Standing::Pending(_) => None,
        });
        count_each(codes)
    }

    /// Every reason for waiting that occurs, with its number of devices.
    #[must_use]
    pub fn pending(&self) -> Vec<(Pending, usize)> {
        let reasons = self.devices.iter().filter_map(|device| match device.standing {
            Standing::Pending(reason) => Some(reason),
            Standing::Ended(_) => None,
        });
        count_each(reasons)
    }

    /// Devices without an outcome. Nonzero after [`FanOut::settled`] ran out of time, or when the server stopped.
    #[must_use]
    pub fn unsettled(&self) -> usize {
        let ended = self.devices.iter().filter(|device| matches!(device.standing, Standing::Ended(_)));
        self.targets - ended.count().min(self.targets)
    }

    /// Each device.
    #[must_use]
    pub fn devices(&self) -> &[DeviceResult] {
        &self.devices
    }

    /// How long the outcomes took, counted from the push.
    #[must_use]
    pub const fn latency(&self) -> Latency {
        self.latency
    }
}

fn count_each<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Vec<(T, usize)> {
    let mut counts = std::collections::BTreeMap::new();
    values.for_each(|value| *counts.entry(value).or_insert(0) += 1);
    counts.into_iter().collect()
}

/// Quantiles of a set of durations, each at most 6 % too high; `max` is exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Half took no longer.
    pub p50: Duration,
    /// 99 of 100 took no longer.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

impl Latency {
    /// The quantiles of a histogram.
    #[must_use]
    pub fn of(histogram: &Histogram) -> Self {
        Self { p50: histogram.quantile(0.5), p99: histogram.quantile(0.99), max: histogram.max() }
    }
}
