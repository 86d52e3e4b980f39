//! Waiting until the server has found every device and is connected to it, with the time each took.

use std::collections::HashMap;
use std::time::Duration;

use tillwire::discovery::What;
use tillwire::push::driver::server::Event as SessionEvent;
use tillwire::{NodeId, ServerEvent, StoreServer};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::plan::Plan;
use super::show;

/// How long a small demo waits; a large one a second more per [`DEVICES_PER_S`].
const WITHIN: Duration = Duration::from_secs(20);
/// Devices that are found in a second even on a slow machine.
const DEVICES_PER_S: usize = 250;
/// Events may be missed; the devices themselves are asked as often as this.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// When each device was found, counted from the demo's begin.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// It registered.
    pub(super) joined: HashMap<NodeId, Duration>,
    /// A session for orders opened.
    pub(super) connected: HashMap<NodeId, Duration>,
}

impl Found {
    fn joined(&mut self, id: NodeId, after: Duration) {
        self.joined.entry(id).or_insert(after);
    }

    fn connected(&mut self, id: NodeId, after: Duration) {
        self.connected.entry(id).or_insert(after);
    }
}

/// Waits until all devices of the plan are found and connected, or too long.
pub(super) async fn all(server: &StoreServer, plan: &Plan, begun: Instant) -> Found {
    let all = plan.devices.len();
    let mut events = server.subscribe();
    let mut found = Found::default();
    let bar = show::bar(all as u64, "devices found");
    let patience = WITHIN + Duration::from_secs((all / DEVICES_PER_S) as u64);
    let late = tokio::time::sleep_until(begun + patience);
    tokio::pin!(late);
    let mut look = tokio::time::interval(LOOK_EVERY);
    while found.joined.len() < all || found.connected.len() < all {
        tokio::select! {
            () = &mut late => break,
            event = events.recv() => match event {
                Ok(event) => take(&mut found, &event, begun.elapsed()),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => break,
            },
            _ = look.tick() => look_around(server, &mut found, begun).await,
        }
        bar.set_position(found.connected.len() as u64);
    }
    bar.finish_and_clear();
    found
}

fn take(found: &mut Found, event: &ServerEvent, after: Duration) {
    match event {
        ServerEvent::Roster(event) if matches!(event.event.what, What::Joined | What::Back) => {
            found.joined(event.event.id, after);
        }
        ServerEvent::Session(SessionEvent::Connected { id, .. }) => found.connected(*id, after),
        _ => {}
    }
}

/// What events did not tell.
async fn look_around(server: &StoreServer, found: &mut Found, begun: Instant) {
    let infos = server.devices().await;
    let after = begun.elapsed();
    for info in infos {
        let Some(id) = info.push.id else { continue };
        if info.roster.is_some() {
            found.joined(id, after);
        }
        if info.push.connected {
            found.connected(id, after);
        }
    }
}
