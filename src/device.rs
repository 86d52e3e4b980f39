//! A device: announces itself and serves the orders of its store server.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use discovery::auth::DeviceKeys;
use discovery::driver as finding;
use push::driver::device as serving;
use push::file_journal::FileJournal;
use push::receiver::journal::Found;
use push::receiver::{Event as Served, Handler, ReceiverConfig};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use wire_format::ids::{DeviceCode, DeviceKind, NodeId, OrderKind, Store, Tags};

use crate::chance;
use crate::{Security, StartError};

/// Events a subscriber may lag behind before it is told how many it missed.
const EVENTS_MAX: usize = 256;
/// How long a shutdown waits for orders that are at work, if nothing else is said.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(2);

/// How a device is to run; made by [`Device::builder`].
#[derive(Clone, Debug)]
pub struct DeviceBuilder {
    security: Option<Security>,
    discovery: Option<finding::Net>,
    store: Store,
    find: discovery::DeviceConfig,
    keys: Option<DeviceKeys>,
    bind: Option<Ipv4Addr>,
    seeds: usize,
    journal: Option<PathBuf>,
    #[cfg(feature = "metrics")]
    metrics_every: Option<Duration>,
}

impl DeviceBuilder {
    fn new(store: Store, id: NodeId) -> Self {
        Self {
            security: None,
            discovery: Some(finding::Net::default()),
            store,
            find: discovery::DeviceConfig::new(id, store),
            keys: None,
            bind: None,
            seeds: 0,
            journal: None,
            #[cfg(feature = "metrics")]
            metrics_every: None,
        }
    }

    crate::options::shared!(DeviceBuilder, "a test device: it sees test servers only, and no other sees it");

    /// What it is. Default: a till.
    #[must_use]
    pub fn kind(mut self, kind: DeviceKind) -> Self {
        self.find.kind = kind;
        self
    }

    /// Where it stands. Default: not said (0).
    #[must_use]
    pub fn zone(mut self, zone: u32) -> Self {
        self.find.zone = (zone != 0).then_some(zone);
        self
    }

    /// The product's code of it, shown to people at the server. Default: none.
    #[must_use]
    pub fn code(mut self, code: DeviceCode) -> Self {
        self.find.code = code;
        self
    }

    /// Its tags.
    #[must_use]
    pub fn tags(mut self, tags: Tags) -> Self {
        self.find.tags = tags;
        self
    }

    /// What runs on it, told to the server. Default: not said.
    #[must_use]
    pub fn firmware(mut self, firmware: crate::Firmware) -> Self {
        self.find.firmware = Some(firmware);
        self
    }

    /// The TCP port where it listens for orders. Default 8081.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.find.port = port;
        self
    }

    /// Discovery in authenticated mode: only a server that has this device's key is believed. Default: clear mode. See
    /// [`discovery::auth`].
    #[must_use]
    pub fn discovery_keys(mut self, keys: DeviceKeys) -> Self {
        self.keys = Some(keys);
        self
    }

    /// A server to announce itself to by unicast instead of asking the LAN; at most four, further ones are left out.
    #[must_use]
    pub fn seed(mut self, server: SocketAddrV4) -> Self {
        if let Some(place) = self.find.seeds.get_mut(self.seeds) {
            *place = Some(server);
            self.seeds += 1;
        }
        self
    }

    /// A directory where the device keeps what it did: made if it is not there, locked while it is used, 512 KiB for ever.
    /// With it an order that may not run twice does not, whatever happens to the device in the middle of it: it is IN_DOUBT
    /// then. It costs two syncs of the disk per such order, one per order that may run twice, and orders that come
    /// together share them.
    ///
    /// Default: none. The device begins each boot with an empty memory and says so; the server then cannot know what
    /// became of orders it had sent before, and reports those that may not run twice as IN_DOUBT.
    #[must_use]
    pub fn journal(mut self, directory: impl Into<PathBuf>) -> Self {
        self.journal = Some(directory.into());
        self
    }

    /// Opens the sockets and starts; `handler` is called for each order, one at a time, inside the device's task, and
    /// should answer within a second. What takes longer it answers with [`Verdict::Later`](crate::Verdict::Later), to be
    /// completed with [`Device::handle`]. On an error nothing is left running.
    #[expect(clippy::unused_async, reason = "keys will have to be waited for; callers shall not change then")]
    pub async fn start<H: Handler + Send + 'static>(mut self, handler: H) -> Result<Device, StartError> {
        if self.security.is_none() {
            return Err(StartError::SecurityNotChosen);
        }
        let find = &self.find;
        let mut config = ReceiverConfig::new(find.id, self.store, chance::random());
        config.kind = find.kind;
        config.staging = find.staging;
        config.zone = find.zone.unwrap_or(0);
        config.tags = find.tags;
        let address = SocketAddr::from((self.bind.unwrap_or(Ipv4Addr::UNSPECIFIED), find.port));
        let listener = listen(address, config, handler, self.journal.take())?;
        self.find.port = listener.address().port();
        let finder = self.discovery.take().map(|mut net| {
            net.bind = self.bind;
            let mut start = finding::device::Start::new(self.find.clone(), chance::random());
            start.keys = self.keys.take();
            finding::device::spawn_with(net, start)
        });
        let finder = finder.transpose()?;
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let (stop, stopping) = watch::channel(None);
        let address = listener.address();
        #[cfg(feature = "metrics")]
        let metrics = self.metrics_every.map(|every| {
            let finder = finder.as_ref().map(|finder| finder.handle().clone());
            crate::metrics::device(every, self.find.id, listener.handle(), finder)
        });
        let (handle, journal) = (listener.handle(), listener.found());
        let found = finder.as_ref().map(|finder| finder.handle().clone());
        // Before the task runs: its first session may open at once.
        let sessions = listener.subscribe();
        let join = Join { finder, listener, events: events.clone() };
        let task = tokio::spawn(join.run(sessions, stopping));
        Ok(Device {
            id: self.find.id,
            address,
            handle,
            journal,
            finder: found,
            events,
            stop,
            task,
            #[cfg(feature = "metrics")]
            _metrics: metrics,
        })
    }
}

fn listen<H: Handler + Send + 'static>(
    address: SocketAddr,
    config: ReceiverConfig,
    handler: H,
    journal: Option<PathBuf>,
) -> Result<serving::Listener, StartError> {
    let Some(path) = journal else { return Ok(serving::Listener::spawn(address, config, handler)?) };
    let cannot = |source| StartError::Journal { path: path.clone(), source };
    let journal = FileJournal::open(&path).map_err(cannot)?;
    serving::Listener::spawn_with(address, config, handler, journal).map_err(|error| match error {
        serving::SpawnError::Listen(error) => error.into(),
        serving::SpawnError::Journal(error) => cannot(error.into()),
        // No other is known here.
        other => cannot(std::io::Error::other(other)),
    })
}

/// A device of the store.
///
/// Dropping it ends it at once; [`Device::shutdown`] says goodbye to the server first.
///
/// The handler is called inside the device's task and answers within a second. What takes longer it answers with
/// [`Verdict::Later`](crate::Verdict::Later): the order's lane waits, the others go on, and any task or thread completes
/// the order through the [`DeviceHandle`](crate::DeviceHandle) when it is done.
///
/// ```
/// use std::time::Duration;
/// use tillwire::{
///     Delivered, Device, HandOverError, NodeId, Order, OrderKind, Outcome, Security, StaticDevice, Store, StoreServer,
///     Target, Verdict,
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Store::new(1, "PARIS-12")?;
/// let (tickets, mut work) = tokio::sync::mpsc::unbounded_channel();
/// let builder = Device::builder(store, NodeId([7; 16])).security(Security::open_network()).no_discovery();
/// let handler = move |order: &Delivered<'_>| match tickets.send(order.ticket) {
///     Ok(()) => Verdict::Later,
///     Err(_) => Verdict::Failed { detail: 1 },
/// };
/// let device = builder.bind([127, 21, 0, 9].into()).port(0).start(handler).await?;
///
/// // The printer, say: it takes its time, and says how far it is.
/// let handle = device.handle().clone();
/// tokio::spawn(async move {
///     while let Some(ticket) = work.recv().await {
///         handle.progress(ticket, 500, 0)?;
///         tokio::time::sleep(Duration::from_millis(20)).await;
///         handle.complete(ticket, Verdict::Applied, None)?;
///     }
///     Ok::<_, HandOverError>(())
/// });
///
/// let builder = StoreServer::builder(store).security(Security::open_network()).no_discovery();
/// let server = builder.device(StaticDevice::at(device.address())).start().await?;
/// let fan_out = server.push(&Order::new(OrderKind::PRINT, 1, b"receipt"), &Target::all()).await?;
/// assert_eq!(fan_out.settled(Duration::from_secs(10)).await.count(Outcome::APPLIED), 1);
/// device.shutdown().await;
/// # server.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Device {
    id: NodeId,
    address: SocketAddr,
    handle: serving::Handle,
    journal: Found,
    finder: Option<finding::device::DeviceHandle>,
    events: broadcast::Sender<DeviceEvent>,
    stop: watch::Sender<Option<Duration>>,
    task: JoinHandle<()>,
    #[cfg(feature = "metrics")]
    _metrics: Option<crate::metrics::Forwarding>,
}

/// Something happened to a device's link with its server.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum DeviceEvent {
    /// Discovery saw something; the server as it is now, if there is one.
    Discovery(finding::device::DeviceEvent),
    /// A session for orders opened or ended, or a connection was turned away.
    Session(serving::Event),
}

impl Device {
    /// A device of this store with this id; see the builder for what can be said about it. A device that nobody has told its
    /// store begins with [`Unprovisioned`](crate::Unprovisioned).
    #[must_use]
    pub fn builder(store: Store, id: NodeId) -> DeviceBuilder {
        DeviceBuilder::new(store, id)
    }

    /// Who it is.
    #[must_use]
    pub const fn id(&self) -> NodeId {
        self.id
    }

    /// Other discovery keys from now on: see [`set_keys`](finding::device::DeviceHandle::set_keys). Does nothing without
    /// discovery.
    pub async fn set_discovery_keys(&self, keys: DeviceKeys) {
        if let Some(finder) = &self.finder {
            finder.set_keys(keys).await;
        }
    }

    /// Where it listens for orders.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What its journal held at the start. [`Found::Damaged`]: somebody should look at its disk.
    #[must_use]
    pub const fn journal(&self) -> Found {
        self.journal
    }

    /// A way to this device for other tasks and threads: completing orders, saying how far they are, asking the server.
    #[must_use]
    pub const fn handle(&self) -> &serving::Handle {
        &self.handle
    }

    /// Asks the server something and waits for its answer, `within` at most; see [`DeviceHandle::ask`].
    ///
    /// [`DeviceHandle::ask`]: crate::DeviceHandle::ask
    pub async fn ask(
        &self,
        kind: OrderKind,
        schema: u16,
        payload: &[u8],
        within: Duration,
    ) -> Result<serving::Answer, serving::AskError> {
        self.handle.ask(kind, schema, payload, within).await
    }

    /// What happens from now on. A receiver that lags more than 256 events behind is told how many it missed.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<DeviceEvent> {
        self.events.subscribe()
    }

    /// Tells the server that it leaves, ends what is at work for at most 2 s, says goodbye, closes the sockets and ends
    /// the tasks.
    pub async fn shutdown(self) {
        self.shutdown_within(SHUTDOWN_WITHIN).await;
    }

    /// The same with another time for orders that were answered with [`Verdict::Later`](crate::Verdict::Later): those
    /// that are not completed by then have no outcome from this boot. Nothing at work: it is gone at once.
    pub async fn shutdown_within(mut self, within: Duration) {
        let _ = self.stop.send(Some(within));
        let _ = (&mut self.task).await;
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The only place on a device that knows both halves.
struct Join {
    finder: Option<finding::device::DeviceDriver>,
    listener: serving::Listener,
    events: broadcast::Sender<DeviceEvent>,
}

impl Join {
    async fn run(
        mut self,
        mut sessions: broadcast::Receiver<serving::Event>,
        mut stopping: watch::Receiver<Option<Duration>>,
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
                    Some(event) => drop(self.events.send(DeviceEvent::Discovery(event))),
                    None => self.finder = None,
                },
                event = sessions.recv() => match event {
                    Ok(event) => self.session_changed(event).await,
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                // The sender gone means the device was dropped.
                _ = stopping.changed() => break,
            }
        }
        let within = stopping.borrow().unwrap_or_default();
        self.listener.shutdown(within).await;
        if let Some(finder) = self.finder {
            finder.shutdown().await;
        }
    }

    /// A healthy session spares the server refreshes.
    async fn session_changed(&self, event: serving::Event) {
        let linked = match event {
            serving::Event::Session(Served::Served { .. }) => Some(true),
            serving::Event::Session(Served::Unserved { .. }) => Some(false),
            _ => None,
        };
        if let (Some(finder), Some(linked)) = (&self.finder, linked) {
            finder.handle().set_linked(linked).await;
        }
        let _ = self.events.send(DeviceEvent::Session(event));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_keeps_four_seeds_and_leaves_out_a_fifth() {
        let seed = |n| SocketAddrV4::new([192, 0, 2, n].into(), 57_854);
        let builder = Device::builder(Store::new(1, "PARIS-12").unwrap(), NodeId([1; 16]));
        let builder = (1..=5).fold(builder, |builder, n| builder.seed(seed(n)));
        assert_eq!(builder.find.seeds, [1, 2, 3, 4].map(|n| Some(seed(n))));
    }
}
