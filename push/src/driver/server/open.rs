//! A server that starts from an outbox on a disk.

use std::collections::BTreeSet;
use std::sync::{Arc, mpsc};

use tokio::sync::oneshot;
use wire_format::ids::Lineage;
use wire_format::time::Instant;

use super::positions::Positions;
use super::restore::Restorer;
use super::rollout;
use super::shard::Shard;
use super::shared::Shared;
use super::writer::{self, OnDisk};
use super::{FanOut, Server, ServerConfig};
use crate::config::{LogId, Runs};
use crate::driver::Clock;
use crate::outbox::log::{Disk, Recovery, Settings};
use crate::outbox::{OpenError, Outbox, Restored, Unreadable};

/// What a server found in its outbox when it started.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Whose log it is: new when it was made, and after a fork.
    pub lineage: Lineage,
    /// The id of this opening.
    pub run: u64,
    /// Numbers of the orders that go on, rising; further attempts are not among them. See [`Server::fan_out`].
    pub orders: Vec<u64>,
    /// Devices that are listed.
    pub devices: usize,
    /// Keys whose orders have ended, and that are answered.
    pub keys: usize,
    /// The highest number there ever was.
    pub head: u64,
    /// The fence this server held; 0 for none. It is held again.
    pub fence: u64,
    /// Numbers of the durable rollouts that go on: see [`Server::rolling_out`].
    pub rollouts: Vec<u64>,
    /// Numbers of those that do not, because what the outbox had of them cannot be read: what was pushed of them goes on.
    pub rollouts_lost: Vec<u64>,
    /// What was on disk, and what was not any more.
    pub recovery: Recovery,
    /// Records that are not understood: at most 64 of them, and how many there are.
    pub unreadable: (Vec<Unreadable>, u64),
}

impl From<&Restored> for Recovered {
    fn from(restored: &Restored) -> Self {
        let first = restored.orders.iter().filter(|order| order.attempt.is_none());
        Self {
            lineage: restored.lineage,
            run: restored.run,
            orders: first.map(|order| order.number).collect(),
            devices: restored.devices.len(),
            keys: restored.keys.len(),
            head: restored.head,
            fence: restored.fence,
            rollouts: Vec::new(),
            rollouts_lost: Vec::new(),
            recovery: restored.recovery.clone(),
            unreadable: (restored.unreadable.clone(), restored.unreadable_records),
        }
    }
}

/// Where an outbox comes from: the thread has opened it, and waits for the server it is for.
struct Opened {
    restored: Restored,
    /// When the log was asked what is left of each lifetime.
    at: Instant,
    go: mpsc::Sender<(Arc<Shared>, Positions)>,
}

impl Server {
    /// Starts from the outbox on this disk, which is made if there is none: every durable order goes on where it stood. Orders
    /// are durable from now on, unless they say otherwise.
    ///
    /// The disk is read on a thread of its own, which then is the only one that touches it, and ends with the server. The
    /// lineage, run and fence that `config` names are those of the volatile log; a higher fence of the outbox is held.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn open<D: Disk + Send + 'static>(
        config: ServerConfig,
        disk: D,
        settings: Settings,
    ) -> Result<(Self, Recovered), OpenError> {
        let clock = Clock::start();
        let Opened { restored, at, go } = open(disk, settings, clock, config.seed).await?;
        let config = fitting(config, &restored);
        let mut recovered = Recovered::from(&restored);
        let shared = Shared::new(&config, config.shards(), Some(restored.head)).with_clock(clock);
        let shared = Arc::new(shared);
        let mut shards = Shard::all(&config, &shared);
        Restorer::new(&shared, &mut shards, at).restore(&restored);
        let recorded = restored.devices.iter().map(|known| known.device.device).collect();
        // It waits for this, or its queue is closed already.
        let _ = go.send((Arc::clone(&shared), recorded));
        let found = rollout::restore(&shared, &restored);
        recovered.rollouts = found.running.iter().map(|live| live.id).collect();
        recovered.rollouts_lost = found.lost;
        let server = Self::run(shared, shards, config.fleet.server);
        found.running.into_iter().for_each(|live| server.shared.rollouts.run(&server.shared, live));
        Ok((server, recovered))
    }

    /// The fan-out of an order that lives, by its number: of this run, or of an earlier one. `None` if there is none such; of
    /// one that is over only its key knows.
    pub async fn fan_out(&self, number: u64) -> Option<FanOut> {
        let states = self.shared.ask_all(|reply| super::shared::Message::Find(number, reply)).await;
        let state = states.into_iter().flatten().next()?;
        Some(FanOut::new(&state, &self.shared))
    }
}

/// With the log of the outbox, and room for everything that is in it.
fn fitting(mut config: ServerConfig, restored: &Restored) -> ServerConfig {
    let mut runs = Runs::NONE;
    restored.runs.iter().for_each(|run| runs.push(run.run, run.first));
    config.fleet.durable = Some(LogId { lineage: restored.lineage, run: restored.run, runs });
    config.fleet.fence = config.fleet.fence.max(restored.fence);
    let mut named: BTreeSet<u32> = restored.devices.iter().map(|known| known.device.device).collect();
    named.extend(restored.orders.iter().flat_map(|order| order.marks.iter().map(|(position, _)| position)));
    config.devices = config.devices.max(named.len());
    config.orders = config.orders.max(restored.orders.len());
    config
}

/// Opens the outbox on the thread that will write it.
async fn open<D: Disk + Send + 'static>(
    disk: D,
    settings: Settings,
    clock: Clock,
    seed: u64,
) -> Result<Opened, OpenError> {
    let (reply, opened) = oneshot::channel();
    let (go, server) = mpsc::channel::<(Arc<Shared>, Positions)>();
    writer::spawn(move || {
        let (at, now) = (clock.now(), writer::now(&clock));
        match Outbox::open(disk, settings, now, seed) {
            Err(error) => drop(reply.send(Err(error))),
            Ok((outbox, restored)) => {
                let asked = reply.send(Ok((restored, at))).is_ok();
                if let Some((shared, recorded)) = server.recv().ok().filter(|_| asked) {
                    writer::run(OnDisk::new(outbox, clock), recorded, shared);
                }
            }
        }
    })
    .map_err(crate::outbox::log::OpenError::from)?;
    let gone = || crate::outbox::log::OpenError::from(std::io::Error::other("the thread has ended"));
    let (restored, at) = opened.await.map_err(|_| gone())??;
    Ok(Opened { restored, at, go })
}
