//! Live questions, over the sessions that carry the orders: the server asks some of the devices what they have in stock, and
//! some of the devices ask the server.

use std::sync::Arc;
use std::time::Duration;

use tillwire::{DeviceHandle, StoreServer};
use tokio::task::{JoinHandle, JoinSet};
use wire_format::frame::reply::Code;
use wire_format::payload::{Payload, StockAnswer, StockQuestion};

use super::payloads;
use super::plan::Plan;

/// Devices that are asked.
const ASKED_MAX: usize = 50;
/// Articles are numbered from here.
const ARTICLE: u64 = 4_006_381_000_000;
/// How long an answer may take on a machine that is busy with everything else.
const WITHIN: Duration = Duration::from_secs(10);

/// How many devices were asked, and how many answered with what they have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) asked: usize,
    pub(super) right: usize,
}

impl Asked {
    /// Both together.
    pub(super) const fn and(self, other: Self) -> Self {
        Self { asked: self.asked + other.asked, right: self.right + other.right }
    }
}

/// Answers what devices ask, until the server ends.
pub(super) fn answer(server: &StoreServer) -> JoinHandle<()> {
    let mut questions = server.questions();
    tokio::spawn(async move {
        while let Some(asked) = questions.next().await {
            let mut buffer = [0; StockAnswer::LEN_MAX];
            let len = payloads::answer_to(asked.payload(), &mut buffer);
            let code = if len == 0 { Code::FAILED } else { Code::OK };
            // Whoever asked may have gone.
            let _ =
                asked.reply(code, StockAnswer::SCHEMA, Duration::ZERO, buffer.get(..len).unwrap_or_default());
        }
    })
}

/// Some of these devices ask the server, all at once.
pub(super) async fn ask_server(devices: impl ExactSizeIterator<Item = DeviceHandle>) -> Asked {
    let step = devices.len().div_ceil(ASKED_MAX).max(1);
    let mut open = JoinSet::new();
    for (number, device) in (0..).zip(devices.step_by(step)) {
        open.spawn(async move {
            let mut buffer = [0; StockQuestion::LEN_MAX];
            let question = question(ARTICLE + number, &mut buffer);
            let answer = device.ask(StockQuestion::KIND, StockQuestion::SCHEMA, question, WITHIN).await;
            answer
                .is_ok_and(|answer| answer.code == Code::OK && payloads::is_answer(question, &answer.payload))
        });
    }
    count(open).await
}

fn question(article: u64, buffer: &mut [u8]) -> &[u8] {
    let len = StockQuestion { article, place: "" }.encode(buffer).unwrap_or(0);
    buffer.get(..len).unwrap_or_default()
}

async fn count(mut open: JoinSet<bool>) -> Asked {
    let mut asked = Asked::default();
    while let Some(right) = open.join_next().await {
        asked.asked += 1;
        asked.right += usize::from(right.is_ok_and(|right| right));
    }
    asked
}

/// The server asks some of the devices, all at once.
pub(super) async fn ask_devices(server: &Arc<StoreServer>, plan: &Plan) -> Asked {
    let step = plan.devices.len().div_ceil(ASKED_MAX).max(1);
    let mut open = JoinSet::new();
    for (number, spec) in (0..).zip(plan.devices.iter().step_by(step)) {
        let (server, id) = (Arc::clone(server), spec.id);
        open.spawn(async move {
            let mut buffer = [0; StockQuestion::LEN_MAX];
            let question = question(ARTICLE + number, &mut buffer);
            let (kind, schema) = (StockQuestion::KIND, StockQuestion::SCHEMA);
            let answer = server.ask(id, kind, schema, question, WITHIN).await;
            answer
                .is_ok_and(|answer| answer.code == Code::OK && payloads::is_answer(question, &answer.payload))
        });
    }
    count(open).await
}
