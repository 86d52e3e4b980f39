//! What can be said alike about a server and a device.

/// The builder methods both sides share; `$staging` says what a staging node is.
macro_rules! shared {
    ($builder:ident, $staging:literal) => {
        #[doc = concat!("Who may talk to it. Must be chosen: [`", stringify!($builder), "::start`] fails without.")]
        #[must_use]
        pub fn security(mut self, security: crate::Security) -> Self {
            self.security = Some(security);
            self
        }

        #[doc = concat!("Whether it is ", $staging, ". Default: production.")]
        #[must_use]
        pub fn staging(mut self, staging: bool) -> Self {
            self.find.staging = staging;
            self
        }

        /// Use this local address only. Needed when several nodes share a host, and on loopback.
        #[must_use]
        pub fn bind(mut self, address: std::net::Ipv4Addr) -> Self {
            self.bind = Some(address);
            self
        }

        #[doc = concat!("With [`", stringify!($builder), "::bind`]: the broadcast address of that subnet.")]
        /// Default: as the interface says.
        #[must_use]
        pub fn broadcast(mut self, address: std::net::Ipv4Addr) -> Self {
            if let Some(net) = &mut self.discovery {
                net.broadcast = Some(address);
            }
            self
        }

        /// The UDP port of discovery, here and on every other node. Default 57854.
        #[must_use]
        pub fn discovery_port(mut self, port: u16) -> Self {
            if let Some(net) = &mut self.discovery {
                net.port = port;
            }
            self
        }

        /// Everything else about interfaces; replaces what was said about discovery before.
        #[must_use]
        pub fn discovery_net(mut self, net: discovery::driver::Net) -> Self {
            self.discovery = Some(net);
            self
        }

        /// Forwards every counter to the `metrics` recorder at once and then at this interval (100 ms at least), see
        /// [`crate::metrics`]. Default: never. Feature `metrics`.
        #[cfg(feature = "metrics")]
        #[must_use]
        pub fn metrics_every(mut self, every: std::time::Duration) -> Self {
            self.metrics_every = Some(every);
            self
        }

        /// No discovery: the server has its devices from a list.
        #[must_use]
        pub fn no_discovery(mut self) -> Self {
            self.discovery = None;
            self
        }

        /// A name for people. At most 32 bytes; what is longer, or not clean text, is left out.
        #[must_use]
        pub fn name(mut self, name: &str) -> Self {
            self.find.name = wire_format::ids::Name::new(name).unwrap_or_default();
            self
        }

        /// A service it offers, told to the other side; at most eight, further ones are left out. Default: none.
        #[must_use]
        pub fn service(mut self, service: crate::Service) -> Self {
            let _no_room = !self.find.services.push(service);
            self
        }

        /// Its boot epoch: must rise at each start, so keep it on disk. Default: a random one.
        #[must_use]
        pub fn epoch(mut self, epoch: u32) -> Self {
            self.find.epoch = epoch;
            self.find.epoch_random = false;
            self
        }
    };
}

pub(crate) use shared;
