//! The store server: discovery and order push, joined by one line each way.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use discovery::auth::ServerKeys;
use discovery::driver as finding;
use discovery::{Restored, SnapshotError};
use push::driver::server as pushing;
use push::fleet::DeviceView;
use pushing::Questions;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use wire_format::frame::status::StateEntry;
use wire_format::ids::{NodeId, OrderKind, Store};

use crate::builder::{ServerBuilder, StaticDevice};
use crate::{
    AddError, Answer, FanOut, Order, PushError, Recovered, Rolling, Rollout, RolloutReport, RolloutView,
    TakeoverError, Target,
};

/// Events a subscriber may lag behind before it is told how many it missed.
pub(crate) const EVENTS_MAX: usize = 1_024;

/// A store server: finds the devices of its store and pushes orders to them.
///
/// Dropping it ends it at once; [`StoreServer::shutdown`] says goodbye to the devices first.
#[derive(Debug)]
pub struct StoreServer {
    pub(crate) id: NodeId,
    pub(crate) pusher: Arc<pushing::Server>,
    pub(crate) finder: Option<finding::server::ServerHandle>,
    pub(crate) restored: Option<Result<Restored, SnapshotError>>,
    pub(crate) recovered: Option<Recovered>,
    pub(crate) first_events: Mutex<Option<broadcast::Receiver<ServerEvent>>>,
    pub(crate) events: broadcast::Sender<ServerEvent>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) task: JoinHandle<()>,
    #[cfg(feature = "metrics")]
    pub(crate) _metrics: Option<crate::metrics::Forwarding>,
}

/// Something happened to a device.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "events are rare, and copied rather than allocated")]
pub enum ServerEvent {
    /// Discovery saw something; the device as it is now, where it is in the roster.
    Roster(finding::server::ServerEvent),
    /// A session for orders opened or ended.
    Session(pushing::Event),
}

/// A device as the server knows it: from the list, from discovery and from its sessions.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// What order push knows of it.
    pub push: pushing::Entry,
    /// What discovery knows of it; `None` if it was never discovered.
    pub roster: Option<finding::server::Device>,
}

/// Counters of both halves.
#[derive(Clone, Debug)]
pub struct ServerStats {
    /// Order push.
    pub push: Box<pushing::Snapshot>,
    /// Discovery; `None` without it.
    pub discovery: Option<finding::server::ServerStats>,
}

impl StoreServer {
    /// A server for this store; see the builder for what can be said about it.
    #[must_use]
    pub fn builder(store: Store) -> ServerBuilder {
        ServerBuilder::new(store)
    }

    /// Who this server is.
    #[must_use]
    pub const fn id(&self) -> NodeId {
        self.id
    }

    /// Everything discovery knows of the devices, for [`ServerBuilder::restore_roster`] of the next run: 232 bytes per
    /// device. Kept now and then, a restart after a crash serves at once whom it served before. `None` without discovery,
    /// and once the server has stopped.
    pub async fn roster_snapshot(&self) -> Option<Vec<u8>> {
        self.finder.as_ref()?.snapshot().await
    }

    /// What came of the snapshot this server was started with; `None` without one.
    #[must_use]
    pub const fn roster_restored(&self) -> Option<Result<Restored, SnapshotError>> {
        self.restored
    }

    /// What was found in the outbox at the start; `None` without one.
    #[must_use]
    pub const fn recovered(&self) -> Option<&Recovered> {
        self.recovered.as_ref()
    }

    /// The fan-out of an order that lives, by its number: of this run, or of an earlier one ([`Recovered::orders`]). `None` if
    /// none such lives; of one that is over its key knows, for seven days: push it again under the same key.
    pub async fn fan_out(&self, number: u64) -> Option<FanOut> {
        self.pusher.fan_out(number).await
    }

    /// Other discovery keys from now on, for the store and all its devices: see
    /// [`set_keys`](finding::server::ServerHandle::set_keys). Does nothing without discovery, and in clear mode.
    pub async fn set_discovery_keys(&self, keys: ServerKeys) {
        if let Some(finder) = &self.finder {
            finder.set_keys(keys).await;
        }
    }

    /// How many tasks serve the devices.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.pusher.shards()
    }

    /// Pushes an order to every known device of the target. Accepted means: on disk, where there is an outbox
    /// ([`ServerBuilder::outbox`]) and the order is not [`Order::volatile`]; numbered; and on its way to whoever is
    /// connected. [`FanOut::durable`] says whether it survives a restart.
    ///
    /// A device that is not connected gets it when it comes back within the order's lifetime. Devices that become known
    /// later do not get it.
    pub async fn push(&self, order: &Order<'_>, target: &Target) -> Result<FanOut, PushError> {
        self.pusher.push(order, target).await
    }

    /// Pushes an order, and waits at most `within` for room if there is none ([`PushError::Full`]). Any other error comes
    /// at once.
    pub async fn push_wait(
        &self,
        order: &Order<'_>,
        target: &Target,
        within: Duration,
    ) -> Result<FanOut, PushError> {
        self.pusher.push_wait(order, target, within).await
    }

    /// Pushes an order to some devices first and to all later, if nothing speaks against it: see
    /// [`push::driver::server::Server::rollout`]. With an outbox it goes on over a restart of this server, and when this future is
    /// dropped; without, dropping it stops it after the step that is under way. Nothing is cancelled.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use tillwire::{Order, Rollout, StoreServer, Target};
    /// # async fn example(server: StoreServer, update: Order<'_>) -> Result<(), tillwire::PushError> {
    /// let careful = Rollout::steps([1, 10, 50]).abort_above(2).step_within(Duration::from_secs(600));
    /// let report = server.rollout(&update, &Target::all(), &careful).await?;
    /// if let Some(aborted) = report.aborted() {
    ///     println!("{} of {} failed; {} never got it", aborted.failed, aborted.devices, report.not_reached().len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn rollout(
        &self,
        order: &Order<'_>,
        target: &Target,
        plan: &Rollout,
    ) -> Result<RolloutReport, PushError> {
        self.pusher.rollout(order, target, plan).await
    }

    /// The same without waiting for its end: see [`push::driver::server::Server::begin_rollout`].
    pub async fn begin_rollout(
        &self,
        order: &Order<'_>,
        target: &Target,
        plan: &Rollout,
    ) -> Result<Rolling, PushError> {
        self.pusher.begin_rollout(order, target, plan).await
    }

    /// The rollouts that go on, and the durable ones that are over and remembered; oldest first.
    #[must_use]
    pub fn rollouts(&self) -> Vec<RolloutView> {
        self.pusher.rollouts()
    }

    /// A rollout by its number: of this run, or of an earlier one ([`Recovered::rollouts`]).
    #[must_use]
    pub fn rolling_out(&self, rollout: u64) -> Option<Rolling> {
        self.pusher.rolling_out(rollout)
    }

    /// Lists a device, or gives a listed one (found by its id) its new address, which dials at once. What discovery finds
    /// is listed by itself.
    ///
    /// A device stays listed until [`StoreServer::remove`], connected or not; targets are resolved against what was last
    /// heard of it.
    pub async fn set_device(&self, device: StaticDevice) -> Result<(), AddError> {
        self.pusher.set_device(device.into()).await.map(drop)
    }

    /// Takes a device off the list: its session ends with a BYE, what it was owed ends as NOT_TARGETED, what it was sent
    /// and has not answered as UNKNOWN. False if no device with this id is listed. A device that is there is discovered
    /// again, and then listed anew.
    pub fn remove(&self, id: NodeId) -> bool {
        self.pusher.remove(id)
    }

    /// Every device known.
    pub async fn devices(&self) -> Vec<DeviceInfo> {
        let mut found = match &self.finder {
            Some(finder) => finder.devices().await,
            None => Vec::new(),
        };
        found.sort_unstable_by_key(|device| device.id);
        let look_up =
            |id: NodeId| found.binary_search_by_key(&id, |device| device.id).ok().map(|at| found[at]);
        let devices = self.pusher.devices().into_iter();
        devices.map(|push| DeviceInfo { roster: push.id.and_then(look_up), push }).collect()
    }

    /// What happens, from the very start: devices that are known already may be connected before
    /// [`ServerBuilder::start`] has returned. `None` for whoever asks second.
    #[must_use]
    pub fn events_from_start(&self) -> Option<broadcast::Receiver<ServerEvent>> {
        self.first_events.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What happens from now on. A receiver that lags more than 1,024 events behind is told how many it missed.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<ServerEvent> {
        self.events.subscribe()
    }

    /// Counters; `None` once the server has stopped.
    pub async fn stats(&self) -> Option<ServerStats> {
        let push = self.pusher.stats().await?;
        let discovery = match &self.finder {
            Some(finder) => finder.stats().await,
            None => None,
        };
        Some(ServerStats { push, discovery })
    }

    /// Asks a device what only it knows (what is on the screen, how much paper is left), and waits for its answer, `within`
    /// at most. Nothing is repeated: whoever needs the answer asks again.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use tillwire::{NodeId, OrderKind, StoreServer};
    /// # async fn example(server: StoreServer, kiosk: NodeId) -> Result<(), tillwire::AskDeviceError> {
    /// let answer = server.ask(kiosk, OrderKind(0x8001), 1, b"paper?", Duration::from_secs(2)).await?;
    /// println!("{}: {:?}", answer.code, answer.payload);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn ask(
        &self,
        device: NodeId,
        kind: OrderKind,
        schema: u16,
        payload: &[u8],
        within: Duration,
    ) -> Result<Answer, pushing::AskError> {
        self.pusher.ask(device, kind, schema, payload, within).await
    }

    /// Asks a device what it knows of these orders, 1 to 16. For an operator: nothing depends on the answer.
    pub async fn status(
        &self,
        device: NodeId,
        numbers: &[u64],
    ) -> Result<Vec<StateEntry>, pushing::AskError> {
        self.pusher.status(device, numbers).await
    }

    /// The questions of devices, from now on; whoever calls this again takes them over. Without a reader each is answered
    /// "unknown kind". Devices that ask the same while it waits share one question and get the same answer.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use tillwire::{ReplyCode, StoreServer};
    /// # fn look_up(article: &[u8]) -> Vec<u8> { article.to_vec() }
    /// # async fn example(server: StoreServer) {
    /// let mut questions = server.questions();
    /// while let Some(asked) = questions.next().await {
    ///     let stock = look_up(asked.payload());
    ///     asked.reply(ReplyCode::OK, 1, Duration::ZERO, &stock);
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn questions(&self) -> Questions {
        self.pusher.questions()
    }

    /// How one device stands now: its session, what it is owed, its window, its counters. `None` if it is not listed, or
    /// the server has stopped.
    pub async fn view(&self, device: NodeId) -> Option<DeviceView> {
        self.pusher.view(device).await
    }

    /// The counters of order push, into memory the caller keeps: nothing is allocated per call. False once the server has
    /// stopped.
    pub async fn stats_into(&self, snapshot: &mut pushing::Snapshot) -> bool {
        self.pusher.stats_into(snapshot).await
    }

    /// Takes the store over from another server: from now on every session names a fence above the highest any device has
    /// named to this server, and devices obey it once the other server's lease is over (9 s, or at once after its goodbye).
    /// The answer is that fence: keep it, and start with it next time ([`ServerBuilder::fence`]). `None` once the server
    /// has stopped.
    ///
    /// An explicit step, taken by an operator: two servers that take each other's devices over in turn serve nobody.
    pub async fn takeover(&self) -> Result<Option<u64>, TakeoverError<Infallible>> {
        self.pusher.takeover().await
    }

    /// [`StoreServer::takeover`] for a server that keeps its fence: `keep` writes it down, and syncs it, before any device
    /// is told. If that fails, nothing is taken over.
    ///
    /// ```no_run
    /// # async fn example(server: tillwire::StoreServer) -> Result<(), tillwire::TakeoverError<std::io::Error>> {
    /// let fence = server.takeover_with(|fence| std::fs::write("fence", fence.to_string())).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn takeover_with<E>(
        &self,
        keep: impl FnOnce(u64) -> Result<(), E>,
    ) -> Result<Option<u64>, TakeoverError<E>> {
        self.pusher.takeover_with(keep).await
    }

    /// Leaves in peace: accepts and sends no order any more, tells devices so, waits until what is out has its outcome or
    /// `within` (5 s at most) is over, and shuts down.
    pub async fn drain(self, within: Duration) {
        self.leave(within).await;
        self.shutdown().await;
    }

    /// [`StoreServer::drain`] without the end, for a server that others still hold: they can read their reports. What is
    /// left to do is [`StoreServer::shutdown`].
    pub async fn leave(&self, within: Duration) {
        self.pusher.drain(within).await;
    }

    /// Says goodbye on every session and on the LAN, closes the sockets and ends the tasks.
    pub async fn shutdown(mut self) {
        let _ = self.stop.send(true);
        let _ = (&mut self.task).await;
    }
}

impl Drop for StoreServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
