//! What a node offers and what runs on it: the options `serve` and `device` share.

use tillwire::discovery::config::SERVICES_MAX;
use tillwire::{Firmware, Service};

/// What is told about the services of this node.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct OfferArgs {
    /// Announce HTTP services on these TCP ports, such as 80,8000-8005; at most 8. They are told, not opened.
    #[arg(long, value_name = "PORTS", value_parser = ports, default_value = "")]
    http: Ports,
}

impl OfferArgs {
    /// One entry per port.
    pub(crate) fn services(&self) -> impl Iterator<Item = Service> {
        self.http.0.iter().map(|&port| Service {
            id: Service::HTTP,
            port,
            protocol: Service::TCP,
            flags: 0,
            version: 0,
        })
    }
}

/// Ports, each once, in the order given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ports(Vec<u16>);

/// `80,8000-8005`; as a value parser.
fn ports(text: &str) -> Result<Ports, String> {
    let mut found = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            return Err(format!("{part:?} goes downwards"));
        }
        for port in first..=last {
            if found.contains(&port) {
                return Err(format!("port {port} stands twice"));
            }
            if found.len() == SERVICES_MAX {
                return Err(format!("more than {SERVICES_MAX} ports"));
            }
            found.push(port);
        }
    }
    Ok(Ports(found))
}

fn port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|&port| port != 0);
    port.ok_or_else(|| format!("{text:?} is no port: 1 to 65535"))
}

/// `VERSION` or `VERSION.BUILD`; as a value parser.
pub(crate) fn firmware(text: &str) -> Result<Firmware, String> {
    let (version, build) = text.split_once('.').unwrap_or((text, "0"));
    match (version.parse(), build.parse()) {
        (Ok(version), Ok(build)) => Ok(Firmware { version, build }),
        _ => Err(format!("{text:?} is no firmware: two numbers, as in 12.4711")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_one_by_one_and_in_ranges() {
        assert_eq!(ports("80,8000-8005"), Ok(Ports(vec![80, 8000, 8001, 8002, 8003, 8004, 8005])));
        assert_eq!(ports(""), Ok(Ports::default()));
        assert_eq!(ports(&format!("1-{SERVICES_MAX}")).map(|ports| ports.0.len()), Ok(SERVICES_MAX));
        assert!(ports(&format!("1-{}", SERVICES_MAX + 1)).is_err());
        for wrong in ["0", "65536", "x", "80-", "9-8", "80,80", "1-65535"] {
            assert!(ports(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn firmware_with_and_without_build() {
        assert_eq!(firmware("12.4711"), Ok(Firmware { version: 12, build: 4_711 }));
        assert_eq!(firmware("12"), Ok(Firmware { version: 12, build: 0 }));
        for wrong in ["", "a", "1.2.3", "-1", "4294967296"] {
            assert!(firmware(wrong).is_err(), "{wrong}");
        }
    }
}
