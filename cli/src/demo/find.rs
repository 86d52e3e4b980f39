//! Waiting until the server has found every device and is connected to it, with the time each took.

use std::collections::HashMap;
use std::time::Duration;

use tillwire::discovery::What;
use tillwire::push::driver::server::Event as SessionEvent;
use tillwire::{NodeId, ServerEvent, StoreServer};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::plan::Plan;
use super::progress::Progress;
use crate::error::Failure;

/// So long nothing more is found: something is in the way. A large demo has patience for a second more per
/// [`DEVICES_PER_S`]: servers give more devices more time to answer.
const STALLED: Duration = Duration::from_secs(20);
/// Devices a server asks to answer within a second.
const DEVICES_PER_S: usize = 1_000;
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

    fn counts(&self) -> (usize, usize) {
        (self.joined.len(), self.connected.len())
    }

    /// What is missing, and of whom.
    fn missing(&self, plan: &Plan, patience: Duration) -> Failure {
        let (joined, connected) = self.counts();
        let missing = plan.devices.iter().find(|spec| !self.connected.contains_key(&spec.id));
        let example = missing.map_or_else(String::new, |spec| {
            let how =
                if self.joined.contains_key(&spec.id) { "found, and no session opened" } else { "not found" };
            format!("; the one at {} was {how}", spec.address)
        });
        Failure::broken(
            format!(
                "{joined} of {all} devices were found, {connected} of {all} connected, and no more for {} s{example}",
                patience.as_secs(),
                all = plan.devices.len(),
            ),
            "does another server of the store DEMO run here, or a firewall? If this machine is too busy: fewer --devices",
        )
    }
}

/// Waits until all devices of the plan are found and connected. An error if no further one is for too long.
pub(super) async fn all(server: &StoreServer, plan: &Plan, begun: Instant) -> Result<Found, Failure> {
    let all = plan.devices.len();
    let mut events = server.subscribe();
    let mut found = Found::default();
    let progress = Progress::start(all, "devices connected");
    let patience = STALLED + Duration::from_secs((all / DEVICES_PER_S) as u64);
    let late = tokio::time::sleep(patience);
    tokio::pin!(late);
    let mut look = tokio::time::interval(LOOK_EVERY);
    while found.counts() != (all, all) {
        let before = found.counts();
        tokio::select! {
            () = &mut late => return Err(found.missing(plan, patience)),
            event = events.recv() => match event {
                Ok(event) => take(&mut found, &event, begun.elapsed()),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Err(Failure::broken("the server has stopped", "")),
            },
            _ = look.tick() => look_around(server, &mut found, begun).await,
        }
        if found.counts() != before {
            late.as_mut().reset(Instant::now() + patience);
            progress.set(found.connected.len());
            progress.note(format!("{} found", found.joined.len()));
        }
    }
    Ok(found)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_an_example() {
        let plan = Plan::new(3, 1, 10, 1);
        let mut found = Found::default();
        let told = |found: &Found| found.missing(&plan, STALLED).cause;
        assert!(told(&found).starts_with("0 of 3 devices were found, 0 of 3 connected"), "{}", told(&found));
        assert!(told(&found).ends_with("the one at 127.57.0.1 was not found"), "{}", told(&found));
        for (at, spec) in plan.devices.iter().enumerate() {
            found.joined(spec.id, STALLED);
            if at != 1 {
                found.connected(spec.id, STALLED);
            }
        }
        let cause = told(&found);
        assert!(
            cause.starts_with("3 of 3 devices were found, 2 of 3 connected, and no more for 20 s"),
            "{cause}"
        );
        assert!(cause.ends_with("the one at 127.57.0.2 was found, and no session opened"), "{cause}");
    }
}
