//! The roster for a caller: as it is, and as it changes.

use serde_json::json;
use tillwire::StoreServer;
use tokio::io::AsyncWriteExt;
use tokio::sync::broadcast::error::RecvError;

use super::request::Request;
use super::session::{Reader, Writer};
use super::{LineError, read_line, write_line};
use crate::error::Failure;
use crate::json;
use crate::json::Known;
use crate::serve::error_line;

/// Bytes of a listing that are written at once.
const WRITE_BYTES: usize = 32 * 1024;

/// The devices as they are.
pub(super) async fn roster(writer: &mut Writer, server: &StoreServer) -> std::io::Result<Known> {
    let mut known = Known::default();
    if let Some(discovery) = server.stats().await.and_then(|stats| stats.discovery) {
        known.generation = discovery.generation;
    }
    let infos = server.devices().await;
    let mut lines = String::new();
    for info in &infos {
        let device = json::device(info, &mut known.ways);
        let line =
            json!({"event": "present", "generation": known.generation, "device": device, "changed": []});
        lines.push_str(&format!("{line}\n"));
        if lines.len() >= WRITE_BYTES {
            writer.write_all(lines.as_bytes()).await?;
            lines.clear();
        }
    }
    writer.write_all(lines.as_bytes()).await?;
    let line = json!({"event": "listed", "generation": known.generation, "devices": infos.len()});
    write_line(writer, &line).await?;
    known.learn(&infos);
    Ok(known)
}

/// The devices as they are, then every event, until the caller leaves. Meanwhile it may ask for the roster again.
pub(super) async fn watch(
    reader: &mut Reader,
    writer: &mut Writer,
    server: &StoreServer,
) -> std::io::Result<()> {
    let mut events = server.subscribe();
    let mut known = roster(writer, server).await?;
    let mut partial = Vec::new();
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            request = read_line(reader, &mut partial) => {
                match request {
                    Ok(None) => return Ok(()),
                    Err(LineError::Io(error)) => return Err(error),
                    Ok(Some(object)) if Request::read(&object) == Ok(Request::Roster) => {
                        known = roster(writer, server).await?;
                    }
                    Ok(Some(_)) | Err(_) => {
                        let failure = Failure::start(
                            "a caller that watches can ask for the roster and nothing else",
                            "open another connection: see docs/CONTROL.md",
                        );
                        return write_line(writer, &error_line(&failure)).await;
                    }
                }
                continue;
            }
        };
        let line = match event {
            Ok(event) => known.tell(server, &event).await,
            Err(RecvError::Lagged(missed)) => {
                json!({"event": "missed", "generation": known.generation, "events": missed})
            }
            Err(RecvError::Closed) => return Ok(()),
        };
        write_line(writer, &line).await?;
    }
}
