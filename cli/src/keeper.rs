//! Keeps what a server knows of its devices over a restart: read at the start, written now and then and at the end.

use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::json;
use tillwire::StoreServer;
use tillwire::discovery::Restored;
use tokio::task::JoinHandle;
use wire_format::crc::crc32c;

use crate::out;
use crate::state::State;

/// A task that writes the roster down while the server runs.
#[derive(Debug)]
pub(crate) struct Keeper {
    desk: Arc<Desk>,
    task: JoinHandle<()>,
}

/// The directory, and what lies there.
#[derive(Debug)]
struct Desk {
    state: State,
    /// Length and checksum of what was written last.
    written: std::sync::Mutex<(usize, u32)>,
}

impl Keeper {
    /// Says what came of the roster found at the start, and begins to keep it. The directory stays locked until
    /// [`Keeper::end`].
    pub(crate) fn start(state: State, server: &Arc<StoreServer>, every: Duration, json: bool) -> Self {
        match server.roster_restored() {
            None => {}
            Some(Ok(restored)) => say_restored(&restored, json),
            Some(Err(error)) => match state.set_roster_aside() {
                Ok(aside) => out::warn(&format!(
                    "the roster kept here is not usable: {error}; it is {} now, and the server starts without",
                    aside.display()
                )),
                Err(failure) => out::warn(&format!("{error}; {}", failure.cause)),
            },
        }
        let desk = Arc::new(Desk { state, written: std::sync::Mutex::default() });
        let task = tokio::spawn(keep(Arc::clone(&desk), Arc::downgrade(server), every));
        Self { desk, task }
    }

    /// Writes a last time.
    pub(crate) async fn end(self, server: &StoreServer) {
        self.task.abort();
        // A file that is being written is written to its end: that happens on a thread of its own.
        let _cancelled = self.task.await;
        self.desk.keep(server).await;
    }
}

async fn keep(desk: Arc<Desk>, server: Weak<StoreServer>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(server) = server.upgrade() else { return };
        desk.keep(&server).await;
    }
}

impl Desk {
    /// Writes the roster if it is not what lies there. A disk that refuses is said each time; the server goes on.
    async fn keep(self: &Arc<Self>, server: &StoreServer) {
        let Some(snapshot) = server.roster_snapshot().await else { return };
        let desk = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || {
            let this = (snapshot.len(), crc32c(&snapshot));
            let mut written = desk.written.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if *written == this {
                return Ok(());
            }
            desk.state.keep_roster(&snapshot)?;
            *written = this;
            Ok::<(), crate::error::Failure>(())
        });
        if let Ok(Err(failure)) = written.await {
            out::warn(&format!("the devices known are not kept: {}", failure.cause));
        }
    }
}

fn say_restored(restored: &Restored, json: bool) {
    let Restored { unconfirmed, gone, damaged, missing, full, crowded, .. } = *restored;
    if json {
        out::json(&json!({
            "event": "restored", "devices": unconfirmed, "gone": gone, "damaged": damaged, "missing": missing,
            "left_out": full + crowded,
        }));
    } else if unconfirmed + gone > 0 {
        out::line(&format!("{unconfirmed} devices of the last run are dialled where they were"));
    }
    if damaged + missing + full + crowded > 0 {
        out::warn(&format!(
            "of the roster kept here {damaged} records were damaged and {missing} missing, {} had no room",
            full + crowded
        ));
    }
}
