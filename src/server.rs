//! The store server: discovery and order push, joined by one line each way.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use discovery::auth::ServerKeys;
use discovery::driver as finding;
use discovery::{Restored, SnapshotError};
use push::config::FleetConfig;
use push::driver::server as pushing;
use push::fleet::DeviceView;
use pushing::Questions;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use wire_format::frame::status::StateEntry;
use wire_format::ids::{DeviceKind, Lineage, NodeId, OrderKind, Store, Tags};

use crate::chance;
use crate::join::{Join, dial_again};
use crate::{
    AddError, Answer, FanOut, Order, PushError, Rollout, RolloutReport, Security, StartError, Target,
};

/// Events a subscriber may lag behind before it is told how many it missed.
const EVENTS_MAX: usize = 1_024;

/// A device given by address instead of, or beside, being discovered.
#[derive(Clone, Copy, Debug)]
pub struct StaticDevice {
    /// Where it listens for orders.
    pub address: SocketAddr,
    /// Its id; `None` to learn it at the first session. With an id, another device at the address gets nothing.
    pub id: Option<NodeId>,
    /// Its kind, until it says so itself.
    pub kind: DeviceKind,
    /// Its zone, until it says so itself; 0 for none.
    pub zone: u32,
    /// Its tags, until it says so itself.
    pub tags: Tags,
}

impl StaticDevice {
    /// A till at `address` whose id is not known.
    #[must_use]
    pub const fn at(address: SocketAddr) -> Self {
        Self { address, id: None, kind: DeviceKind::TILL, zone: 0, tags: Tags::EMPTY }
    }
}

impl From<StaticDevice> for pushing::Device {
    fn from(device: StaticDevice) -> Self {
        let StaticDevice { address, id, kind, zone, tags } = device;
        Self { id, address, kind, zone, tags }
    }
}

/// How a store server is to run; made by [`StoreServer::builder`].
#[derive(Clone, Debug)]
pub struct ServerBuilder {
    security: Option<Security>,
    discovery: Option<finding::Net>,
    find: discovery::ServerConfig,
    keys: Option<ServerKeys>,
    server_id: Option<NodeId>,
    bind: Option<Ipv4Addr>,
    capacity: usize,
    live_orders: usize,
    live_bytes: usize,
    shards: Option<usize>,
    devices: Vec<StaticDevice>,
    push_ports: Vec<u16>,
    announced_dials_per_s: u32,
    fence: u64,
    snapshot: Option<Vec<u8>>,
    #[cfg(feature = "metrics")]
    metrics_every: Option<Duration>,
}

impl ServerBuilder {
    fn new(store: Store) -> Self {
        Self {
            security: None,
            discovery: Some(finding::Net::default()),
            // The id is settled at the start; until then it is a placeholder that never leaves this struct.
            find: discovery::ServerConfig::new(NodeId([0xFF; 16]), store),
            keys: None,
            server_id: None,
            bind: None,
            capacity: pushing::DEVICES_DEFAULT,
            live_orders: pushing::ORDERS_DEFAULT,
            live_bytes: pushing::BODIES_MAX,
            shards: None,
            devices: Vec::new(),
            push_ports: vec![push::config::PORT],
            announced_dials_per_s: push::config::ANNOUNCED_DIALS_PER_S,
            fence: 1,
            snapshot: None,
            #[cfg(feature = "metrics")]
            metrics_every: None,
        }
    }

    crate::options::shared!(ServerBuilder, "a test server: it sees test devices only, and no other sees it");

    /// A device given by address. May be called for each.
    #[must_use]
    pub fn device(mut self, device: StaticDevice) -> Self {
        self.devices.push(device);
        self
    }

    /// How many devices the store is expected to have: paces their registration. Default 0: not known.
    #[must_use]
    pub fn expected_devices(mut self, devices: u32) -> Self {
        self.find.expected_devices = devices;
        self
    }

    /// The most devices there is room for. Default 10,000. Memory for all is taken at the start.
    #[must_use]
    pub fn capacity(mut self, devices: usize) -> Self {
        self.capacity = devices;
        self
    }

    /// The most orders that may wait for outcomes at a time. Default 4,096; a push beyond it is refused as full.
    #[must_use]
    pub fn live_orders(mut self, orders: usize) -> Self {
        self.live_orders = orders;
        self
    }

    /// The most bytes all orders together may hold that wait for outcomes. Default 256 MiB.
    #[must_use]
    pub fn live_bytes(mut self, bytes: usize) -> Self {
        self.live_bytes = bytes;
        self
    }

    /// How many tasks serve the devices, each with its share of them: 1 to 64. Default: one per core and at most 4 on a
    /// runtime with several threads, where they spread over the cores; one on a runtime with a single thread.
    #[must_use]
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = Some(shards);
        self
    }

    /// How many devices a second are dialled that only announced themselves: that never had a session, or had it at another
    /// address. Default 200, so that forged announces make no port scanner; 1 to 2,000. Listed devices, and restored ones
    /// that had a session, are not held up by it. On a network whose hosts are all trusted, 2,000 connects 10,000 new devices in 5 s instead of 50 s.
    #[must_use]
    pub fn announced_dials_per_s(mut self, dials: u32) -> Self {
        self.announced_dials_per_s = dials.clamp(1, push::config::DIALS_PER_S);
        self
    }

    /// A further TCP port announced devices may be dialled on. Default: 8081 alone.
    #[must_use]
    pub fn push_port(mut self, port: u16) -> Self {
        self.push_ports.push(port);
        self
    }

    /// Discovery in authenticated mode: devices without one of these keys are not heard. Default: clear mode. See
    /// [`discovery::auth`].
    #[must_use]
    pub fn discovery_keys(mut self, keys: ServerKeys) -> Self {
        self.keys = Some(keys);
        self
    }

    /// Base port of the server's HTTP services, told to the devices. Default 80.
    #[must_use]
    pub fn http_port(mut self, port: u16) -> Self {
        self.find.port = port;
        self
    }

    /// Who it is. Default: derived from the store, the host's name and the bound address, so that it stays.
    #[must_use]
    pub fn server_id(mut self, id: NodeId) -> Self {
        self.server_id = Some(id);
        self
    }

    /// The fence of this server: devices refuse a server of the same store with a lower one. Default 1.
    #[must_use]
    pub fn fence(mut self, fence: u64) -> Self {
        self.fence = fence;
        self
    }

    /// What [`StoreServer::roster_snapshot`] gave in an earlier run of this server. The devices in it are listed and dialled
    /// at once where they were last, instead of when they announce themselves again; orders can be for them from the start.
    /// Who answers is checked as always: the right address with the wrong device gets no order.
    ///
    /// A snapshot that is damaged or another store's keeps no server from starting: [`StoreServer::roster_restored`] tells.
    #[must_use]
    pub fn restore_roster(mut self, snapshot: Vec<u8>) -> Self {
        self.snapshot = Some(snapshot);
        self
    }

    /// Opens the sockets and starts. On an error nothing is left running.
    pub async fn start(mut self) -> Result<StoreServer, StartError> {
        if self.security.is_none() {
            return Err(StartError::SecurityNotChosen);
        }
        if self.devices.len() > self.capacity {
            return Err(StartError::TooManyDevices { listed: self.devices.len(), capacity: self.capacity });
        }
        let id = self.server_id.unwrap_or_else(|| chance::server_id(&self.find.store, self.bind));
        self.find.id = id;
        if self.find.epoch_random {
            #[expect(clippy::cast_possible_truncation, reason = "any 32 random bits")]
            let epoch = chance::random() as u32 | 1;
            self.find.epoch = epoch;
        }
        let finder = self.discovery.take().map(|mut net| {
            net.bind = self.bind;
            let mut start = finding::server::Start::new(self.find.clone(), self.capacity, chance::random());
            start.snapshot = self.snapshot.take();
            start.keys = self.keys.take();
            finding::server::spawn_with(net, start)
        });
        let finder = finder.transpose()?;
        let restored = finder.as_ref().and_then(finding::server::ServerDriver::restored);
        let pusher = Arc::new(pushing::Server::spawn(self.push_config(id)));
        // Before the first dial: the first session may open while further devices are still being added.
        let sessions = pusher.subscribe();
        for device in &self.devices {
            // The capacity was checked above, and the tasks have just begun.
            let _ = pusher.set_device((*device).into()).await;
        }
        if let Some(finder) = finder.as_ref().filter(|_| matches!(restored, Some(Ok(_)))) {
            dial_again(finder.handle(), &pusher, &self.push_ports).await;
        }
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let (stop, stopping) = watch::channel(false);
        let handle = finder.as_ref().map(|finder| finder.handle().clone());
        #[cfg(feature = "metrics")]
        let metrics = self
            .metrics_every
            .map(|every| crate::metrics::server(every, id, Arc::downgrade(&pusher), handle.clone()));
        let join = Join {
            finder,
            pusher: Arc::clone(&pusher),
            events: events.clone(),
            push_ports: self.push_ports,
            crowded: None,
        };
        let task = tokio::spawn(join.run(sessions, stopping));
        Ok(StoreServer {
            id,
            pusher,
            finder: handle,
            restored,
            events,
            stop,
            task,
            #[cfg(feature = "metrics")]
            _metrics: metrics,
        })
    }

    fn push_config(&self, id: NodeId) -> pushing::ServerConfig {
        let mut fleet = FleetConfig::new(id, self.find.store, Lineage(chance::random16()));
        fleet.staging = self.find.staging;
        fleet.epoch = self.find.epoch;
        fleet.fence = self.fence;
        // Without a reader of `questions` each is answered "unknown kind".
        fleet.answers_questions = true;
        fleet.announced_dials_per_s = self.announced_dials_per_s;
        fleet.run = chance::random();
        let mut conn = pushing::ConnConfig::default();
        conn.source = self.bind.map(Into::into);
        pushing::ServerConfig {
            fleet,
            conn,
            devices: self.capacity,
            orders: self.live_orders,
            bytes: self.live_bytes,
            shards: self.shards,
            seed: chance::random(),
        }
    }
}

/// A store server: finds the devices of its store and pushes orders to them.
///
/// Dropping it ends it at once; [`StoreServer::shutdown`] says goodbye to the devices first.
#[derive(Debug)]
pub struct StoreServer {
    id: NodeId,
    pusher: Arc<pushing::Server>,
    finder: Option<finding::server::ServerHandle>,
    restored: Option<Result<Restored, SnapshotError>>,
    events: broadcast::Sender<ServerEvent>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    #[cfg(feature = "metrics")]
    _metrics: Option<crate::metrics::Forwarding>,
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

    /// Pushes an order to every known device of the target. Accepted means: numbered, and on its way to whoever is
    /// connected. It is kept in memory; [`FanOut::durable`] says so.
    ///
    /// A device that is not connected gets it when it comes back within the order's lifetime. Devices that become known
    /// later do not get it.
    #[expect(
        clippy::unused_async,
        reason = "an outbox on disk will have to be waited for; callers shall not change then"
    )]
    pub async fn push(&self, order: &Order<'_>, target: &Target) -> Result<FanOut, PushError> {
        self.pusher.push(order, target)
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
    /// [`push::driver::server::Server::rollout`]. Dropping the future stops it after the step that is under way and cancels
    /// nothing.
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
    pub async fn takeover(&self) -> Option<u64> {
        self.pusher.takeover().await
    }

    /// [`StoreServer::takeover`] for a server that keeps its fence: `keep` writes it down, and syncs it, before any device
    /// is told. If that fails, nothing is taken over.
    ///
    /// ```no_run
    /// # async fn example(server: tillwire::StoreServer) -> std::io::Result<()> {
    /// let fence = server.takeover_with(|fence| std::fs::write("fence", fence.to_string())).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn takeover_with<E>(&self, keep: impl FnOnce(u64) -> Result<(), E>) -> Result<Option<u64>, E> {
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
