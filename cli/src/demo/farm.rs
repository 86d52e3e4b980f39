//! The devices of a demo, real ones on loopback addresses, and what their handlers saw.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tillwire::{
    AnswerBuffer, AnswerCode, Delivered, Device, DeviceHandle, Handler, Lane, OrderKind, Question,
    ResultBuffer, Security, Ticket, Verdict,
};
use wire_format::crc::crc32c;

use super::payloads;
use super::plan::{BROADCAST, Spec, store};
use super::scene::{HOLD_KIND, MARKER_KIND};
use crate::error::Failure;
use crate::start;

/// One order as a device's application saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Its number.
    pub(crate) order: u64,
    /// CRC-32C of its payload.
    pub(crate) digest: u32,
    /// What the application answered: an outcome code.
    pub(crate) code: u8,
}

/// What the device with this number saw, in the order it saw it.
pub(crate) type Record = (u32, Vec<Seen>);

/// Which devices to run, and where.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Part {
    /// The first device's number.
    #[arg(long)]
    pub(crate) first: u32,
    /// How many.
    #[arg(long)]
    pub(crate) count: u32,
    /// The demo's seed.
    #[arg(long)]
    pub(crate) seed: u64,
    /// The port of discovery.
    #[arg(long)]
    pub(crate) port_discovery: u16,
    /// The port for orders.
    #[arg(long)]
    pub(crate) port_push: u16,
}

/// Running devices.
#[derive(Debug)]
pub(crate) struct Farm {
    devices: Vec<Running>,
}

#[derive(Debug)]
struct Running {
    index: u32,
    device: Device,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Farm {
    /// Starts all of them, or none.
    pub(crate) async fn start(part: Part) -> Result<Self, Failure> {
        let mut devices = Vec::new();
        for index in part.first..part.first.saturating_add(part.count) {
            let spec = Spec::new(index, part.seed);
            let seen = Arc::new(Mutex::new(Vec::new()));
            let device = start_one(&spec, part, Arc::clone(&seen)).await?;
            devices.push(Running { index, device, seen });
            // The devices that run already shall not wait for those that start.
            tokio::task::yield_now().await;
        }
        Ok(Self { devices })
    }

    /// Ways to every device.
    pub(super) fn handles(&self) -> impl ExactSizeIterator<Item = DeviceHandle> {
        self.devices.iter().map(|running| running.device.handle().clone())
    }

    /// What every device saw so far.
    pub(crate) fn seen(&self) -> Vec<Record> {
        let record = |seen: &Mutex<Vec<Seen>>| seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.devices.iter().map(|running| (running.index, record(&running.seen))).collect()
    }

    /// Says goodbye for all of them.
    pub(crate) async fn shutdown(self) {
        let mut leaving = tokio::task::JoinSet::new();
        for running in self.devices {
            leaving.spawn(running.device.shutdown());
        }
        leaving.join_all().await;
    }
}

async fn start_one(spec: &Spec, part: Part, record: Arc<Mutex<Vec<Seen>>>) -> Result<Device, Failure> {
    let store = store().ok_or_else(|| Failure::start("the demo's store has no name", ""))?;
    let application = Application { record, held: None, device: Arc::default() };
    let known = Arc::clone(&application.device);
    let device = Device::builder(store, spec.id)
        .security(Security::open_network())
        .staging(true)
        .kind(spec.kind)
        .zone(spec.zone)
        .tags(spec.tags)
        .bind(spec.address)
        .broadcast(BROADCAST)
        .discovery_port(part.port_discovery)
        .port(part.port_push)
        .start(application)
        .await
        .map_err(|error| with_ports(start::failure(&error), spec.address))?;
    // Set once: nobody else has it.
    let _ = known.set(device.handle().clone());
    Ok(device)
}

/// The application of a demo's device: it answers, and remembers what it answered.
struct Application {
    record: Arc<Mutex<Vec<Seen>>>,
    /// The order that is held until an urgent one comes.
    held: Option<Ticket>,
    device: Arc<OnceLock<DeviceHandle>>,
}

impl Handler for Application {
    fn handle(&mut self, delivered: &Delivered<'_>) -> Verdict {
        let order = &delivered.order;
        let verdict = payloads::judge(order);
        let seen = Seen { order: order.number, digest: crc32c(order.payload), code: verdict.code().0.0 };
        self.record.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
        if order.kind == HOLD_KIND {
            self.held = Some(delivered.ticket);
            return Verdict::Later;
        }
        if order.lane == Lane::Urgent
            && order.kind != MARKER_KIND
            && let (Some(held), Some(device)) = (self.held.take(), self.device.get())
        {
            // Its own device runs: it is the one that calls.
            let _ = device.complete(held, Verdict::Applied, None);
        }
        verdict
    }

    fn handle_with_result(&mut self, delivered: &Delivered<'_>, result: &mut ResultBuffer<'_>) -> Verdict {
        let len = payloads::answer_to(delivered.order.payload, result.spare());
        result.advance(len);
        self.handle(delivered)
    }

    fn question(&mut self, question: &Question<'_>, answer: &mut AnswerBuffer<'_>) -> AnswerCode {
        if question.kind != OrderKind::STOCK_QUESTION {
            return AnswerCode::UnknownKind;
        }
        match payloads::answer_to(question.payload, answer.bytes.spare()) {
            0 => AnswerCode::Failed,
            len => {
                answer.bytes.advance(len);
                answer.schema = question.schema;
                AnswerCode::Ok
            }
        }
    }
}

/// A demo takes its ports on addresses of its own, so only a program that listens on every address is in the way.
fn with_ports(failure: Failure, address: Ipv4Addr) -> Failure {
    let help = format!(
        "a program that listens on every address keeps {address} from listening: give --port-push or --port-discovery \
         another number"
    );
    Failure::start(failure.cause, help)
}
