//! How one device stands, for a caller.

use std::time::Duration;

use serde_json::{Value, json};
use tillwire::push::fleet::{DeviceView, Link};
use tillwire::{NodeId, StoreServer};
use tokio::io::AsyncWrite;

use super::write_line;
use crate::error::Failure;
use crate::serve::error_line;
use crate::via::Ways;
use crate::{json, names};

/// Answers with one line.
pub(super) async fn view(
    writer: &mut (impl AsyncWrite + Unpin),
    server: &StoreServer,
    prefix: &str,
) -> std::io::Result<()> {
    let line = look(server, prefix).await.unwrap_or_else(|failure| error_line(&failure));
    write_line(writer, &line).await
}

async fn look(server: &StoreServer, prefix: &str) -> Result<Value, Failure> {
    let infos = server.devices().await;
    let known: Vec<NodeId> = infos.iter().filter_map(|info| info.push.id).collect();
    let id = names::resolve(prefix, &known)?;
    let gone = || Failure::start(format!("the device {id} is not listed any more"), "see tillwire watch");
    let info = infos.iter().find(|info| info.push.id == Some(id)).ok_or_else(gone)?;
    let view = server.view(id).await.ok_or_else(gone)?;
    Ok(line(json::device(info, &mut Ways::default()), &view))
}

fn line(device: Value, view: &DeviceView) -> Value {
    let us = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    json!({
        "event": "view",
        "device": device,
        "session": session(view.link),
        "suspect": view.suspect,
        "draining": view.draining,
        "owed": view.owed,
        "out": view.out,
        "retried": view.retried,
        "window": {
            "orders": view.window_orders, "orders_used": view.window_orders_used,
            "bytes": view.window_bytes, "bytes_used": view.window_bytes_used,
        },
        "rtt_us": view.rtt.map(us),
        "counters": {
            "sessions": view.sessions, "replays": view.replays, "suspects": view.suspects, "deads": view.deads,
            "poisons": view.poisons,
        },
    })
}

const fn session(link: Link) -> &'static str {
    match link {
        Link::Down => "down",
        Link::Connecting => "connecting",
        Link::Open => "open",
        Link::Ending => "ending",
    }
}
