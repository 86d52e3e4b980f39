//! How a store server is to run, and its start.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
#[cfg(feature = "metrics")]
use std::time::Duration;

use discovery::auth::ServerKeys;
use discovery::driver as finding;
use push::config::FleetConfig;
use push::driver::server as pushing;
use push::outbox::log::{Directory, Disk, Settings};
use tokio::sync::{broadcast, watch};
use wire_format::ids::{DeviceKind, Lineage, NodeId, Store, Tags};

use crate::join::{Join, dial_again};
use crate::server::EVENTS_MAX;
use crate::{Security, StartError, StoreServer, chance};

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
    outbox: Option<PathBuf>,
    outbox_settings: Settings,
    #[cfg(feature = "metrics")]
    metrics_every: Option<Duration>,
}

impl ServerBuilder {
    pub(crate) fn new(store: Store) -> Self {
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
            outbox: None,
            outbox_settings: Settings::default(),
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

    /// Where orders are kept so that they survive a restart of this server, be it a crash or a power cut: a directory of its
    /// own, which is made if it is not there. Every order is then durable, unless it says otherwise ([`crate::Order::volatile`]);
    /// [`StoreServer::push`] returns once it is on disk. Devices, keys, cancellations and the fence are kept there as well.
    ///
    /// Without it orders are kept in memory, and end with the server: [`crate::FanOut::durable`] tells which.
    ///
    /// An outbox belongs to one server. A copy of it, or an old backup, is found out by the first device that knows more:
    /// see [`push::driver::server::Event::Forked`].
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use tillwire::{Order, OrderKind, Security, Store, StoreServer, Target};
    /// # async fn example(store: Store) -> Result<(), Box<dyn std::error::Error>> {
    /// let server = StoreServer::builder(store)
    ///     .security(Security::open_network())
    ///     .outbox("/var/lib/shop/outbox")
    ///     .start()
    ///     .await?;
    /// if let Some(found) = server.recovered() {
    ///     println!("{} orders of the last run go on", found.orders.len());
    /// }
    /// // The key makes it safe to push again when the answer was lost: the second push is the first one.
    /// let order = Order::new(OrderKind::PREPARE_COLLECT, 1, b"basket 4711").key("collect-4711");
    /// let fan_out = server.push(&order, &Target::zone(3)).await?;
    /// assert!(fan_out.durable(), "it is on disk: a power cut loses it no more");
    /// // What nobody needs after a restart waits for no disk.
    /// let hint = Order::new(OrderKind::MESSAGE, 1, b"lane 3 opens").volatile();
    /// server.push(&hint, &Target::all()).await?;
    /// let report = fan_out.settled(Duration::from_secs(60)).await;
    /// # let _ = report;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn outbox(mut self, directory: impl Into<PathBuf>) -> Self {
        self.outbox = Some(directory.into());
        self
    }

    /// How large the outbox may be, and its files. Default 4 GiB and 16 MiB.
    #[must_use]
    pub fn outbox_settings(mut self, settings: Settings) -> Self {
        self.outbox_settings = settings;
        self
    }

    /// Opens the sockets and starts. On an error nothing is left running.
    pub async fn start(mut self) -> Result<StoreServer, StartError> {
        let open = |path: PathBuf| {
            Directory::open(&path).map_err(|source| StartError::OutboxDirectory { path, source })
        };
        let disk = self.outbox.take().map(open).transpose()?;
        self.launch(disk).await
    }

    /// The same with an outbox on this disk, for tests that let one fail.
    #[doc(hidden)]
    pub async fn start_on<D: Disk + Send + 'static>(self, disk: D) -> Result<StoreServer, StartError> {
        self.launch(Some(disk)).await
    }

    async fn launch<D: Disk + Send + 'static>(mut self, disk: Option<D>) -> Result<StoreServer, StartError> {
        self.check()?;
        let id = self.server_id.unwrap_or_else(|| chance::server_id(&self.find.store, self.bind));
        self.find.id = id;
        if self.find.epoch_random {
            #[expect(clippy::cast_possible_truncation, reason = "any 32 random bits")]
            let epoch = chance::random() as u32 | 1;
            self.find.epoch = epoch;
        }
        let config = self.push_config(id);
        // First what takes longest and may fail: the sockets of discovery answer nobody meanwhile.
        let (pusher, recovered) = match disk {
            Some(disk) => {
                let (pusher, recovered) = pushing::Server::open(config, disk, self.outbox_settings).await?;
                (pusher, Some(recovered))
            }
            None => (pushing::Server::spawn(config), None),
        };
        let pusher = Arc::new(pusher);
        let finder = self.discovery.take().map(|mut net| {
            net.bind = self.bind;
            let mut start = finding::server::Start::new(self.find.clone(), self.capacity, chance::random());
            start.snapshot = self.snapshot.take();
            start.keys = self.keys.take();
            finding::server::spawn_with(net, start)
        });
        let finder = finder.transpose()?;
        let restored = finder.as_ref().and_then(finding::server::ServerDriver::restored);
        // Of before the first dial: the first session may open while further devices are still being added.
        let sessions = pusher.events_from_start().unwrap_or_else(|| pusher.subscribe());
        for device in &self.devices {
            // The capacity was checked above, and the tasks have just begun.
            let _ = pusher.set_device((*device).into()).await;
        }
        if let Some(finder) = finder.as_ref().filter(|_| matches!(restored, Some(Ok(_)))) {
            dial_again(finder.handle(), &pusher, &self.push_ports).await;
        }
        let (events, first_events) = broadcast::channel(EVENTS_MAX);
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
            recovered,
            first_events: Mutex::new(Some(first_events)),
            events,
            stop,
            task,
            #[cfg(feature = "metrics")]
            _metrics: metrics,
        })
    }

    fn check(&self) -> Result<(), StartError> {
        if self.security.is_none() {
            return Err(StartError::SecurityNotChosen);
        }
        if self.devices.len() > self.capacity {
            return Err(StartError::TooManyDevices { listed: self.devices.len(), capacity: self.capacity });
        }
        Ok(())
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
