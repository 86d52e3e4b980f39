//! How an order stands on every device it was for.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use wire_format::frame::outcome::Code;
use wire_format::ids::NodeId;

use super::directory::Entry;
use crate::histogram::Histogram;
use crate::mark::Mark;

/// How an order stands on every device it was for.
#[derive(Clone, Debug)]
pub struct Report {
    number: u64,
    targets: usize,
    devices: Vec<DeviceResult>,
    /// Results, each with the place of its device in `devices`, in the same order.
    results: Vec<(usize, Arc<[u8]>)>,
    latency: Latency,
}

/// How an order stands on one device.
#[derive(Clone, Copy, Debug)]
pub struct DeviceResult {
    /// The device; `None` if it was given by address alone and never reached, or removed and its place given to another.
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
    /// The device could not do it now and is tried again.
    Retried,
    /// It has ended, and that waits for the outbox's disk.
    Logging,
}

impl Pending {
    /// Every reason, in the order an order passes through them.
    pub const ALL: [Self; 7] = [
        Self::Unreachable,
        Self::Queued,
        Self::Sent,
        Self::Received,
        Self::Started,
        Self::Retried,
        Self::Logging,
    ];

    /// A stable lower-case word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Queued => "queued",
            Self::Sent => "sent",
            Self::Received => "received",
            Self::Started => "started",
            Self::Retried => "retried",
            Self::Logging => "logging",
        }
    }
}

impl fmt::Display for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl DeviceResult {
    /// `entry` is `None` if the device was removed since.
    pub(super) fn new(mark: Mark, entry: Option<&Entry>) -> Self {
        let standing = match (mark, mark.code()) {
            (_, Some(code)) => Standing::Ended(code),
            (Mark::SENT, _) => Standing::Pending(Pending::Sent),
            (Mark::RECEIVED, _) => Standing::Pending(Pending::Received),
            (Mark::STARTED | Mark::RESULTED, _) => Standing::Pending(Pending::Started),
            (mark, _) if mark.is_unlogged() => Standing::Pending(Pending::Logging),
            (mark, _) if mark.is_retried() => Standing::Pending(Pending::Retried),
            _ if entry.is_some_and(|entry| entry.connected) => Standing::Pending(Pending::Queued),
            _ => Standing::Pending(Pending::Unreachable),
        };
        let (id, address) = entry.map(|entry| (entry.id, entry.address)).unwrap_or_default();
        Self { id, address, standing }
    }
}

impl Report {
    pub(super) fn new(
        number: u64,
        targets: usize,
        found: impl ExactSizeIterator<Item = (DeviceResult, Option<Arc<[u8]>>)>,
        latency: &Histogram,
    ) -> Self {
        let (mut devices, mut results) = (Vec::with_capacity(found.len()), Vec::new());
        for (at, (device, result)) in found.enumerate() {
            devices.push(device);
            results.extend(result.map(|result| (at, result)));
        }
        Self { number, targets, devices, results, latency: Latency::of(latency) }
    }

    /// The results devices sent, of an order that asked for them ([`crate::order::Order::wants_result`]).
    ///
    /// A result that was cut off with its session, or for which there was no room ([`super::RESULTS_BYTES_MAX`]), is lost:
    /// the order keeps its outcome. When there is no room, results of keyed orders that are remembered without a handle go
    /// first.
    pub fn results(&self) -> impl Iterator<Item = (&DeviceResult, &[u8])> {
        self.results.iter().filter_map(|(at, result)| Some((self.devices.get(*at)?, &**result)))
    }

    /// Devices on which the order took effect and whose result is not here: they sent none, or it was lost.
    #[must_use]
    pub fn without_result(&self) -> usize {
        let with = |at| self.results.binary_search_by_key(&at, |(at, _)| *at).is_ok();
        let applied =
            (0..).zip(&self.devices).filter(|(_, device)| device.standing == Standing::Ended(Code::APPLIED));
        applied.filter(|&(at, _)| !with(at)).count()
    }

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

    /// Devices without an outcome. Nonzero after [`super::FanOut::settled`] ran out of time, or when the server stopped.
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
