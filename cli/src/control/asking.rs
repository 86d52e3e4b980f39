//! Questions of a caller to devices: a few at a time, each answer a line as it comes.

use std::sync::Arc;

use serde_json::{Value, json};
use tillwire::{Answer, NodeId, StoreServer};
use tokio::io::AsyncWrite;
use tokio::task::JoinSet;

use super::request::{Ask, hex};
use super::write_line;
use crate::error::Failure;
use crate::serve::error_line;
use crate::{names, stock};

/// Questions open at a time.
const AT_ONCE: usize = 64;

/// Asks every device that is meant.
pub(super) async fn ask(
    writer: &mut (impl AsyncWrite + Unpin),
    server: &Arc<StoreServer>,
    question: &Ask,
) -> std::io::Result<()> {
    let ids = match meant(server, question).await {
        Ok(ids) => ids,
        Err(failure) => return write_line(writer, &error_line(&failure)).await,
    };
    let asked = ids.len();
    let (mut ids, mut answered, mut open) = (ids.into_iter(), 0_usize, JoinSet::new());
    loop {
        while open.len() < AT_ONCE
            && let Some(id) = ids.next()
        {
            open.spawn(one(Arc::clone(server), question.clone(), id));
        }
        let Some(line) = open.join_next().await else { break };
        // A task that was lost is a question without an answer.
        let Ok(line) = line else { continue };
        answered += usize::from(line["code"] == "ok");
        write_line(writer, &line).await?;
    }
    let summary = json!({"event": "summary", "asked": asked, "answered": answered, "ok": asked == answered});
    write_line(writer, &summary).await
}

async fn one(server: Arc<StoreServer>, question: Ask, id: NodeId) -> Value {
    let Ask { kind, schema, payload, within, .. } = question;
    match server.ask(id, kind, schema, &payload, within).await {
        Ok(answer) => line(id, kind, &answer),
        Err(error) => {
            json!({"event": "answer", "device": id.to_string(), "code": null, "error": error.to_string()})
        }
    }
}

fn line(id: NodeId, kind: tillwire::OrderKind, answer: &Answer) -> Value {
    let age_ms = u64::try_from(answer.age.as_millis()).unwrap_or(u64::MAX);
    let mut line = json!({
        "event": "answer", "device": id.to_string(), "code": answer.code.to_string(), "schema": answer.schema,
        "age_ms": age_ms, "payload": hex(&answer.payload),
    });
    if kind == tillwire::OrderKind::STOCK_QUESTION {
        line["stock"] = stock::json(&answer.payload).unwrap_or_default();
    }
    line
}

/// The devices that are meant, connected or not.
async fn meant(server: &StoreServer, question: &Ask) -> Result<Vec<NodeId>, Failure> {
    let to = &question.to;
    let infos = server.devices().await;
    let known: Vec<NodeId> = infos.iter().filter_map(|info| info.push.id).collect();
    let named: Result<Vec<_>, _> = to.ids.iter().map(|prefix| names::resolve(prefix, &known)).collect();
    let named = named?;
    let is_meant = |info: &&tillwire::DeviceInfo| {
        let push = &info.push;
        to.kind.is_none_or(|kind| push.kind == kind)
            && to.zone.is_none_or(|zone| push.zone == zone)
            && to.tags.iter().all(|tag| push.tags.contains(tag))
            && (named.is_empty() || push.id.is_some_and(|id| named.contains(&id)))
    };
    let ids: Vec<_> = infos.iter().filter(is_meant).filter_map(|info| info.push.id).collect();
    if ids.is_empty() {
        return Err(Failure::start(
            format!("no known device matches {to}"),
            "tillwire watch --once shows who is known",
        ));
    }
    Ok(ids)
}
