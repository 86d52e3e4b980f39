//! Discovery and order push, joined: the task of a [`StoreServer`](crate::StoreServer).

use std::sync::Arc;
use std::time::Duration;

use discovery::driver as finding;
use discovery::{State, What};
use push::driver::server as pushing;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use crate::{AddError, ServerEvent};

/// How long a shutdown waits for the goodbyes of order push.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(3);

/// How often is looked for devices that can make room while there is none: each look takes milliseconds in a full store.
const CROWDED_EVERY: Duration = Duration::from_secs(5);

/// Lists the devices of an earlier run, which dials them where they were: those that had a session at full pace, the others
/// as if they had announced themselves just now, for a snapshot keeps what was forged as well.
pub(crate) async fn dial_again(
    finder: &finding::server::ServerHandle,
    pusher: &pushing::Server,
    push_ports: &[u16],
) {
    let devices = finder.devices().await.into_iter();
    for device in devices.filter(|device| device.state == State::Unconfirmed) {
        if let Some(target) = target(&device, push_ports) {
            // Full: the list of static devices has taken the room.
            let _ = if device.served {
                pusher.set_device(target).await
            } else {
                pusher.announce_device(target).await
            };
        }
    }
}

/// A device of the roster as order push lists it; `None` if its port may not be dialled.
fn target(device: &finding::server::Device, push_ports: &[u16]) -> Option<pushing::Device> {
    push_ports.contains(&device.address.port()).then(|| pushing::Device {
        id: Some(device.id),
        address: device.address.into(),
        kind: device.kind,
        zone: device.zone.unwrap_or(0),
        tags: device.tags,
    })
}

/// That time, or never.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => core::future::pending().await,
    }
}

/// The only place that knows both halves.
pub(crate) struct Join {
    pub(crate) finder: Option<finding::server::ServerDriver>,
    pub(crate) pusher: Arc<pushing::Server>,
    pub(crate) events: broadcast::Sender<ServerEvent>,
    pub(crate) push_ports: Vec<u16>,
    /// A device found no room on the list: when to make some.
    pub(crate) crowded: Option<Instant>,
}

impl Join {
    pub(crate) async fn run(
        mut self,
        mut sessions: broadcast::Receiver<pushing::Event>,
        mut stopping: watch::Receiver<bool>,
    ) {
        loop {
            let found = async {
                match &mut self.finder {
                    Some(finder) => finder.next_event().await,
                    None => core::future::pending().await,
                }
            };
            tokio::select! {
                event = found => match event {
                    Some(event) => self.roster_changed(event).await,
                    None => self.finder = None,
                },
                event = sessions.recv() => match event {
                    Ok(event) => self.session_changed(event).await,
                    // Told again by the next events; refreshes resume meanwhile, so nothing is lost but quiet.
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                () = until(self.crowded) => self.make_room().await,
                // The sender gone means the server was dropped.
                _ = stopping.changed() => break,
            }
        }
        self.pusher.stop(SHUTDOWN_WITHIN).await;
        if let Some(finder) = self.finder {
            finder.shutdown().await;
        }
    }

    /// A roster change sets a push target.
    async fn roster_changed(&mut self, event: finding::server::ServerEvent) {
        let arrived = matches!(
            event.event.what,
            What::Joined | What::Back | What::Rebooted { .. } | What::Moved { .. } | What::Changed { .. }
        );
        let device = event.device.filter(|_| arrived);
        if let Some(target) = device.and_then(|device| target(&device, &self.push_ports)) {
            let full = matches!(self.pusher.announce_device(target).await, Err(AddError::Full { .. }));
            if full && self.crowded.is_none() {
                self.crowded = Some(Instant::now());
            }
        }
        let _ = self.events.send(ServerEvent::Roster(event));
    }

    /// Devices that once announced themselves, never had a session and are not here any more make room for those that are.
    async fn make_room(&mut self) {
        self.crowded = None;
        let Some(finder) = &self.finder else { return };
        let mut here = finder.handle().devices().await;
        here.retain(|device| !matches!(device.state, State::Lost | State::Left));
        here.sort_unstable_by_key(|device| device.id);
        self.pusher.forget_announced(|id| here.binary_search_by_key(&id, |device| device.id).is_ok());
        let mut listed: Vec<_> = self.pusher.devices().iter().filter_map(|device| device.id).collect();
        listed.sort_unstable();
        let unlisted = here.iter().filter(|device| listed.binary_search(&device.id).is_err());
        for target in unlisted.filter_map(|device| target(device, &self.push_ports)) {
            if self.pusher.announce_device(target).await.is_err() {
                // Full of devices that are here, or had a session: an operator sees both numbers.
                self.crowded = Some(Instant::now() + CROWDED_EVERY);
                return;
            }
        }
    }

    /// A healthy session spares the device its refreshes.
    async fn session_changed(&self, event: pushing::Event) {
        if let Some(finder) = &self.finder {
            match event {
                pushing::Event::Connected { id, .. } => finder.handle().set_linked(id, true).await,
                pushing::Event::Disconnected { id: Some(id), .. } => {
                    finder.handle().set_linked(id, false).await
                }
                _ => {}
            }
        }
        let _ = self.events.send(ServerEvent::Session(event));
    }
}
