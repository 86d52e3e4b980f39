//! One TCP connection tried, and what became of it.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use std::io::ErrorKind;
use std::time::Duration;

use tokio::net::TcpStream;

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum NoWay {
    /// The host is there, and nothing listens.
    Refused,
    /// No answer at all.
    TimedOut,
    /// No route, or no neighbour of that address.
    Unreachable,
    /// A rule of this host forbids it.
    NotPermitted,
    /// This process may open no more files.
    NoFiles,
    /// The name is not known.
    NoName,
    /// No answer to the question for the name.
    NameTimedOut,
    /// Anything else.
    Broken(ErrorKind),
}

impl fmt::Display for NoWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused: the host is there and nothing listens",
            Self::TimedOut => "no answer in time: switched off, another address, or a filter on the way",
            Self::Unreachable => "unreachable: no route there, or nobody has the address",
            Self::NotPermitted => "forbidden by a rule of this host",
            Self::NoFiles => "not tried: too many open files here",
            Self::NoName => "the name is not known",
            Self::NameTimedOut => "the name server does not answer in time",
            Self::Broken(kind) => return write!(f, "broken: {kind}"),
        })
    }
}

impl From<std::io::Error> for NoWay {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            // Some middleboxes let a connection begin to end it.
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Self::Refused,
            ErrorKind::TimedOut => Self::TimedOut,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => {
                Self::Unreachable
            }
            ErrorKind::PermissionDenied => Self::NotPermitted,
            _ if matches!(error.raw_os_error(), Some(23 | 24)) => Self::NoFiles,
            kind => Self::Broken(kind),
        }
    }
}

/// Connects within `limit`.
pub(crate) async fn dial(address: SocketAddr, limit: Duration) -> Result<TcpStream, NoWay> {
    let connecting = tokio::time::timeout(limit, TcpStream::connect(address)).await;
    connecting.map_or(Err(NoWay::TimedOut), |connected| connected.map_err(NoWay::from))
}

/// The addresses of a name, in the system's order; at most [`ADDRESSES_MAX`].
pub(crate) async fn resolve(host: &str, limit: Duration) -> Result<Vec<IpAddr>, NoWay> {
    let asking = tokio::time::timeout(limit, tokio::net::lookup_host((host, 0))).await;
    let found = asking.map_err(|_| NoWay::NameTimedOut)?.map_err(|_| NoWay::NoName)?;
    first_of(found.map(|address| address.ip()))
}

fn first_of(found: impl Iterator<Item = IpAddr>) -> Result<Vec<IpAddr>, NoWay> {
    let addresses: Vec<_> = found.take(ADDRESSES_MAX).collect();
    if addresses.is_empty() { Err(NoWay::NoName) } else { Ok(addresses) }
}

/// Addresses of one name that are tried: two of each family.
pub(crate) const ADDRESSES_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_that_work_and_those_that_do_not() {
        let limit = Duration::from_secs(20);
        let listener = tokio::net::TcpListener::bind("127.41.7.4:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert!(dial(address, limit).await.is_ok());
        drop(listener);
        assert_eq!(dial(address, limit).await.unwrap_err(), NoWay::Refused);
        assert_eq!(resolve("127.0.0.1", limit).await, Ok(vec!["127.0.0.1".parse().unwrap()]));
        assert_eq!(resolve("not a name", limit).await, Err(NoWay::NoName));
        assert_eq!(NoWay::from(std::io::Error::from_raw_os_error(24)), NoWay::NoFiles);
    }

    #[test]
    fn as_many_addresses_as_the_limit_and_one_more() {
        let some = |count: usize| first_of(vec![IpAddr::from([10, 0, 0, 1]); count].into_iter());
        assert_eq!(some(0), Err(NoWay::NoName));
        assert_eq!(some(ADDRESSES_MAX).unwrap().len(), ADDRESSES_MAX);
        assert_eq!(some(ADDRESSES_MAX + 1).unwrap().len(), ADDRESSES_MAX);
    }
}
