//! What a simulated device does with orders and questions.

use std::time::Duration;

use serde_json::{Value, json};
use tillwire::push::receiver::AskError as NotAsked;
use tillwire::{
    AnswerBuffer, AnswerCode, AskError, Delivered, DeviceHandle, Handler, OrderKind, Question, ResultBuffer,
    Ticket, Verdict,
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use wire_format::payload::{Level, Payload, StockAnswer, StockQuestion};

use crate::ledger::{Entry, Ledger};
use crate::{out, stock};

/// Lines that wait to be printed; what comes faster than the terminal takes is counted instead.
pub(super) const LINES_MAX: usize = 4_096;
/// Orders that may be under way at a time: a device works on one per lane and log.
const LATER_MAX: usize = 16;
/// The detail of a failure whose order could not be entered into the ledger.
const DETAIL_LEDGER: u8 = 1;
/// How long the answer of the server is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// When an order may come again that it was too busy for.
const BUSY_FOR: Duration = Duration::from_millis(300);
/// How soon it asks again whether a server is there.
const SERVED_SOON: Duration = Duration::from_millis(100);

/// The simulated application.
pub(super) struct Application {
    pub(super) ledger: Option<Ledger>,
    pub(super) rejected: Vec<OrderKind>,
    /// To so many further orders it says that it is busy.
    pub(super) busy: u32,
    /// What it says when it is asked for stock.
    pub(super) stock: Option<Level>,
    /// How long it works on an order, and who completes it.
    pub(super) later: Option<(Duration, mpsc::Sender<Work>)>,
    pub(super) lines: mpsc::Sender<Value>,
    /// Lines that were not printed because the terminal was too slow.
    pub(super) skipped: u64,
}

/// An order that is worked on.
pub(super) struct Work {
    ticket: Ticket,
    begun: Instant,
    verdict: Verdict,
    result: Vec<u8>,
}

impl Handler for Application {
    fn handle(&mut self, delivered: &Delivered<'_>) -> Verdict {
        self.apply(delivered, Vec::new())
    }

    fn handle_with_result(&mut self, delivered: &Delivered<'_>, result: &mut ResultBuffer<'_>) -> Verdict {
        let answer = self.result(delivered);
        let verdict = self.apply(delivered, answer.clone());
        if verdict != Verdict::Later {
            // It has room for every answer about stock.
            let _ = result.write(&answer);
        }
        verdict
    }

    fn question(&mut self, question: &Question<'_>, answer: &mut AnswerBuffer<'_>) -> AnswerCode {
        let code = self.answer_about_stock(question, answer);
        self.tell(json!({
            "event": "question", "kind": question.kind.to_string(), "schema": question.schema,
            "bytes": question.payload.len(), "answer": answer_name(code),
        }));
        code
    }
}

impl Application {
    /// Enters the order into the ledger, then answers: an outcome that was reported stands in the ledger.
    fn apply(&mut self, delivered: &Delivered<'_>, result: Vec<u8>) -> Verdict {
        let order = &delivered.order;
        let mut verdict = self.verdict(order.kind);
        let entry = Entry {
            lineage: &delivered.lineage,
            order: order.number,
            order_key: order.order_key,
            kind: order.kind,
            payload: order.payload,
            redelivered: delivered.redelivered,
            outcome: verdict.code().0.name(),
        };
        if let Some(ledger) = &mut self.ledger
            && let Err(error) = ledger.append(&entry)
        {
            out::warn(&format!("order {} could not be entered into the ledger: {error}", order.number));
            verdict = Verdict::Failed { detail: DETAIL_LEDGER };
        }
        let mut line = entry.json();
        line["event"] = "order".into();
        line["outcome"] = verdict.code().0.name().into();
        line["bytes"] = order.payload.len().into();
        line["lane"] = order.lane.index().into();
        self.tell(line);
        match &self.later {
            Some((_, works)) if verdict == Verdict::Applied => {
                let work = Work { ticket: delivered.ticket, begun: Instant::now(), verdict, result };
                // Whoever completes it has gone, or has too much to do: it is done now.
                works.try_send(work).map_or(verdict, |()| Verdict::Later)
            }
            _ => verdict,
        }
    }

    fn verdict(&mut self, kind: OrderKind) -> Verdict {
        if self.rejected.contains(&kind) {
            return Verdict::RejectedKind;
        }
        let busy = self.busy > 0;
        self.busy = self.busy.saturating_sub(1);
        if busy { Verdict::Busy { retry_after: BUSY_FOR } } else { Verdict::Applied }
    }

    /// What a question about stock that came as an order is answered with.
    fn result(&self, delivered: &Delivered<'_>) -> Vec<u8> {
        let mut buffer = vec![0; stock::ANSWER_LEN_MAX];
        let len = match self.stock {
            Some(level) if delivered.order.kind == OrderKind::STOCK_QUESTION => {
                stock::answer(delivered.order.payload, level, &mut buffer)
            }
            _ => None,
        };
        buffer.truncate(len.unwrap_or(0));
        buffer
    }

    fn answer_about_stock(&self, question: &Question<'_>, answer: &mut AnswerBuffer<'_>) -> AnswerCode {
        let Some(level) = self.stock.filter(|_| question.kind == OrderKind::STOCK_QUESTION) else {
            return AnswerCode::UnknownKind;
        };
        let Some(len) = stock::answer(question.payload, level, answer.bytes.spare()) else {
            return AnswerCode::Failed;
        };
        answer.bytes.advance(len);
        answer.schema = StockAnswer::SCHEMA;
        AnswerCode::Ok
    }

    fn tell(&mut self, mut line: Value) {
        line["skipped"] = self.skipped.into();
        match self.lines.try_send(line) {
            Ok(()) => self.skipped = 0,
            Err(_) => self.skipped += 1,
        }
    }
}

const fn answer_name(code: AnswerCode) -> &'static str {
    match code {
        AnswerCode::Ok => "ok",
        AnswerCode::Busy => "busy",
        AnswerCode::UnknownKind => "unknown-kind",
        AnswerCode::Later => "later",
        _ => "failed",
    }
}

/// Where orders go that take a while.
pub(super) fn works() -> (mpsc::Sender<Work>, mpsc::Receiver<Work>) {
    mpsc::channel(LATER_MAX)
}

/// Completes orders `after` a while, each half done in between. All take as long, so the first is done first.
pub(super) async fn work(after: Duration, mut works: mpsc::Receiver<Work>, device: DeviceHandle) {
    while let Some(Work { ticket, begun, verdict, result }) = works.recv().await {
        tokio::time::sleep_until(begun + after / 2).await;
        // A device that stopped needs neither.
        let _ = device.progress(ticket, 500, 0);
        tokio::time::sleep_until(begun + after).await;
        let _ = device.complete(
            ticket,
            verdict,
            Some(&result).filter(|result| !result.is_empty()).map(|v| &v[..]),
        );
    }
}

/// Asks the server for its stock as soon as it serves this device, and has the answer printed.
pub(super) async fn ask_stock(device: DeviceHandle, article: u64, lines: mpsc::Sender<Value>) {
    let mut buffer = [0; StockQuestion::LEN_MAX];
    let len = StockQuestion { article, place: "" }.encode(&mut buffer).unwrap_or(0);
    let question = buffer.get(..len).unwrap_or_default();
    let answer = loop {
        match device.ask(StockQuestion::KIND, StockQuestion::SCHEMA, question, ANSWER_WITHIN).await {
            Err(AskError::NotAsked(NotAsked::NotServed)) => tokio::time::sleep(SERVED_SOON).await,
            answer => break answer,
        }
    };
    let line = match answer {
        Ok(answer) => json!({
            "event": "answer", "code": answer.code.to_string(), "stock": stock::json(&answer.payload),
        }),
        Err(error) => json!({"event": "answer", "code": null, "detail": error.to_string()}),
    };
    // Nobody prints any more.
    let _ = lines.send(line).await;
}
