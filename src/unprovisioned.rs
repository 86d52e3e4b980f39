//! A device that belongs to no store yet: which servers are on this LAN, for a person to choose from.

use std::time::Duration;

use discovery::driver::Net;
use discovery::driver::device::{Candidate, DeviceDriver, DeviceEvent, DeviceStats, spawn};
use wire_format::ids::NodeId;

use crate::{Device, DeviceBuilder, StartError, chance};

/// A device that nobody has told its store. It asks for any server, announces itself to none, takes no orders, and lists
/// what it hears: at most 8 servers, of any store, productive and test ones.
///
/// Whoever can broadcast on the LAN can be in the list, so a person chooses, as for a printer; what was chosen the
/// installation keeps, and starts with [`Device::builder`] from then on.
///
/// ```no_run
/// use std::time::Duration;
/// use tillwire::discovery::driver::Net;
/// use tillwire::{Delivered, NodeId, Security, Unprovisioned, Verdict};
///
/// # fn ask_the_technician(_: &[tillwire::Candidate]) -> Option<usize> { Some(0) }
/// # fn keep(_: tillwire::Store, _staging: bool) {}
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let id: NodeId = "6f9619ff-8b86-d011-b42d-00c04fc964ff".parse()?;
/// let till = Unprovisioned::listen(id, Net::default())?;
/// let chosen = loop {
///     tokio::time::sleep(Duration::from_secs(1)).await;
///     // Name, store, legal entity, test or production, address: what a technician recognises.
///     let servers = till.candidates().await;
///     if let Some(at) = ask_the_technician(&servers) {
///         break servers[at];
///     }
/// };
/// keep(chosen.store, chosen.staging);
/// let builder = till.choose(&chosen).await.security(Security::open_network());
/// let device = builder.start(|_order: &Delivered<'_>| Verdict::Applied).await?;
/// # device.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Unprovisioned {
    id: NodeId,
    net: Net,
    finder: DeviceDriver,
}

impl Unprovisioned {
    /// Opens the socket of discovery and asks who is there.
    ///
    /// One node has the port of a host: where a store server or a device runs already,
    /// [`StartError::Discovery`] says [`PortInUse`](discovery::driver::OpenErrorKind::PortInUse).
    pub fn listen(id: NodeId, net: Net) -> Result<Self, StartError> {
        let config = discovery::DeviceConfig::unprovisioned(id);
        let finder = spawn(net.clone(), config, chance::random())?;
        Ok(Self { id, net, finder })
    }

    /// The same under an id of its own for this once: for a tool that only looks.
    pub fn look(net: Net) -> Result<Self, StartError> {
        Self::listen(NodeId(chance::random16()), net)
    }

    /// The servers heard within the last 35 s: those of one store beside each other, the one its devices would choose
    /// first.
    pub async fn candidates(&self) -> Vec<Candidate> {
        self.finder.handle().candidates().await
    }

    /// The next change of the list. Cancel-safe.
    pub async fn next_event(&mut self) -> Option<DeviceEvent> {
        self.finder.next_event().await
    }

    /// What was counted. `protocol.dropped_full` above 0 says that there are more than 8 servers.
    pub async fn stats(&self) -> Option<DeviceStats> {
        self.finder.handle().stats().await
    }

    /// This device belongs to the store of `server` from now on, on its side of staging. Its socket is free when this returns;
    /// the builder has id, store, side and network, and lacks [`DeviceBuilder::security`] and what else is to be said.
    ///
    /// `server` is not remembered: any server of that store will do.
    pub async fn choose(self, server: &Candidate) -> DeviceBuilder {
        let Self { id, net, finder } = self;
        finder.shutdown().await;
        let bind = net.bind;
        let builder = Device::builder(server.store, id).staging(server.staging).discovery_net(net);
        match bind {
            Some(address) => builder.bind(address),
            None => builder,
        }
    }

    /// Ends it without a choice.
    pub async fn shutdown(self) {
        self.finder.shutdown().await;
    }
}

/// The store servers heard on this LAN within `span`: of any store, productive and test ones, at most 8. A server that wants
/// keys speaks every 10 s only, so 12 s hear everybody; in clear mode 3 s do.
///
/// ```no_run
/// # #[tokio::main]
/// # async fn main() -> Result<(), tillwire::StartError> {
/// let span = std::time::Duration::from_secs(3);
/// for server in tillwire::find_servers(tillwire::discovery::driver::Net::default(), span).await? {
///     println!("{} {} at {}", server.store, server.name, server.address);
/// }
/// # Ok(())
/// # }
/// ```
pub async fn find_servers(net: Net, span: Duration) -> Result<Vec<Candidate>, StartError> {
    let listening = Unprovisioned::look(net)?;
    tokio::time::sleep(span).await;
    let servers = listening.candidates().await;
    listening.shutdown().await;
    Ok(servers)
}
