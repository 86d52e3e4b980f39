//! Outcomes one by one, as they come.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use wire_format::frame::outcome::Code;
use wire_format::ids::NodeId;

use super::directory::Place;
use super::fan_out::{FanOut, Part};
use super::shared::Message;
use crate::fleet::DeviceIndex;
use crate::mark::Mark;

/// How an order ended on one device.
#[derive(Clone, Debug)]
pub struct DeviceOutcome {
    /// The device; `None` if it was given by address alone and never reached.
    pub id: Option<NodeId>,
    /// Where it is dialled.
    pub address: Option<SocketAddr>,
    /// How the order ended.
    pub code: Code,
    /// From the push to the outcome; `None` if it had ended before the stream began.
    pub latency: Option<Duration>,
    /// The device's result, of an order that asked for one, if it came and was kept.
    pub result: Option<Arc<[u8]>>,
}

/// An outcome on its way from a shard.
#[derive(Debug)]
pub(super) struct Told {
    place: Place,
    code: Code,
    latency: Option<Duration>,
}

/// One end of a stream, kept with the order.
pub(super) type Listener = mpsc::Sender<Told>;

/// The outcomes of one fan-out: first those there are, then the others as they come; each device once. At most one entry
/// per device waits, so a reader that takes its time loses none and costs 48 bytes per device.
#[derive(Debug)]
pub struct Outcomes {
    told: mpsc::Receiver<Told>,
    /// A handle of its own: what a shard has handed over stays until it was told.
    fan_out: FanOut,
}

impl Outcomes {
    /// The next outcome; `None` after the last one, or when the server has stopped. Cancel safe.
    pub async fn next(&mut self) -> Option<DeviceOutcome> {
        let Told { place, code, latency } = self.told.recv().await?;
        let FanOut { state, shared } = &self.fan_out;
        let directory = shared.directory();
        let (_, entry) = directory.holder(place, state.number);
        let (id, address) = entry.map(|entry| (entry.id, entry.address)).unwrap_or_default();
        Some(DeviceOutcome { id, address, code, latency, result: state.result(place) })
    }
}

impl FanOut {
    /// The outcomes as they come, beginning with those there are.
    ///
    /// ```no_run
    /// # use push::driver::server::FanOut;
    /// # async fn example(fan_out: FanOut) {
    /// let mut outcomes = fan_out.outcomes();
    /// while let Some(outcome) = outcomes.next().await {
    ///     println!("{:?}: {}", outcome.id, outcome.code);
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn outcomes(&self) -> Outcomes {
        let (listener, told) = mpsc::channel(self.targets().max(1));
        for shard in (0..self.shared.mailboxes.len()).filter(|&shard| self.state.goes_to(shard)) {
            let message = Message::Listen(Arc::clone(&self.state), listener.clone());
            if !self.shared.send(shard, message) {
                self.state.with_part(shard, |part| tell_all(shard, part, &listener));
            }
        }
        // Devices that are gone, of an order that was over when the server was started.
        let nowhere = self.shared.mailboxes.len();
        self.state.with_part(nowhere, |part| tell_all(nowhere, part, &listener));
        Outcomes { told, fan_out: self.clone() }
    }
}

/// Tells every outcome there is.
pub(super) fn tell_all(shard: usize, part: &Part, listener: &Listener) {
    tell_marks(shard, part.first, &part.marks, listener);
}

/// The same, of a live order.
pub(super) fn tell_marks(shard: usize, first: DeviceIndex, marks: &[u8], listener: &Listener) {
    for (local, &mark) in (first.0..).zip(marks) {
        if let Some(code) = Mark(mark).code() {
            tell(shard, DeviceIndex(local), code, None, listener);
        }
    }
}

/// Tells one outcome. There is a place for each device, so only a reader that is gone gets nothing.
pub(super) fn tell(
    shard: usize,
    local: DeviceIndex,
    code: Code,
    latency: Option<Duration>,
    listener: &Listener,
) {
    let _ = listener.try_send(Told { place: Place { shard, local }, code, latency });
}
