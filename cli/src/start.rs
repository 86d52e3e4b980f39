//! What is done before a node runs: room for its sockets, and its errors put into words with a way out.

use std::io::ErrorKind;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tillwire::StartError;
use tillwire::discovery::driver::{OpenError, OpenErrorKind};
use tillwire::push::driver::device::ListenError;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::Failure;

/// Raises the limit on open files as far as this user may, and says how many there may be.
pub(crate) fn raise_open_files() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: maximum, maximum };
    if current != maximum && setrlimit(Resource::Nofile, wanted).is_ok() {
        return maximum.unwrap_or(u64::MAX);
    }
    current.unwrap_or(u64::MAX)
}

/// Why a server or a device did not start, and what to do about it.
pub(crate) fn failure(error: &StartError) -> Failure {
    match error {
        StartError::Discovery(error) => discovery(error),
        StartError::Listen(error) => listen(error),
        StartError::Journal { source, .. } => journal(error, source.kind()),
        StartError::SecurityNotChosen => Failure::start(error.to_string(), "choose one with --open-network"),
        StartError::TooManyDevices { .. } => Failure::start(error.to_string(), "list fewer devices"),
        _ => Failure::start(error.to_string(), "see tillwire --help"),
    }
}

fn discovery(error: &OpenError) -> Failure {
    let help = match error.kind() {
        OpenErrorKind::PortInUse => {
            "another node runs on this host: give each an address with --bind, or this one another --discovery-port"
        }
        OpenErrorKind::NotPermitted => {
            "this user may not open the socket or broadcast here: ask for the right, or use --no-discovery with addresses"
        }
        OpenErrorKind::NoSuchAddress => "--bind has to be an address of this host (see ip address)",
        OpenErrorKind::NoInterface => "give the broadcast address of that subnet with --broadcast",
        _ => "the system's own words are in the error; --no-discovery runs without these sockets",
    };
    Failure::start(format!("{error} ({})", error.source), help)
}

fn listen(error: &ListenError) -> Failure {
    let help = match error.source.kind() {
        ErrorKind::AddrInUse => {
            "something else listens there (ss -tlnp shows what): stop it, or give --port another number or --bind another address"
        }
        ErrorKind::PermissionDenied => "ports below 1024 are for root; give --port another number",
        ErrorKind::AddrNotAvailable => "--bind has to be an address of this host (see ip address)",
        _ => "give --port or --bind something else",
    };
    Failure::start(error.to_string(), help)
}

fn journal(error: &StartError, kind: ErrorKind) -> Failure {
    let help = match kind {
        ErrorKind::WouldBlock => {
            "one process, one journal: stop the other device or give --journal another directory"
        }
        ErrorKind::PermissionDenied => "give --journal a directory this user may write to",
        _ => {
            "without its journal a device could apply orders twice: repair the disk, or give --journal a new directory"
        }
    };
    Failure::start(error.to_string(), help)
}

/// The runtime a command runs on.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
        Failure::start(
            format!("cannot start the runtime: {error}"),
            "is the limit on processes or open files reached?",
        )
    })
}

/// Ctrl-C and polite requests to end, heard from the moment this exists.
#[derive(Debug)]
pub(crate) struct End {
    interrupt: Signal,
    terminate: Signal,
}

impl End {
    /// Listens from now on.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Failure::start(format!("cannot listen for signals: {error}"), "try again"))
        };
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Returns when it was told. Cancel safe.
    pub(crate) async fn told(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
