//! Why a server or a device did not start.

/// Nothing was started, and nothing is left open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// No [`Security`](crate::Security) was chosen; there is no silent default.
    #[error("no security mode was chosen")]
    SecurityNotChosen,
    /// More devices are listed than there is room for.
    #[error("{listed} devices are listed, and there is room for {capacity}")]
    TooManyDevices {
        /// Devices in the list.
        listed: usize,
        /// Room for devices.
        capacity: usize,
    },
    /// The sockets of discovery could not be opened.
    #[error(transparent)]
    Discovery(#[from] discovery::driver::OpenError),
    /// The directory of the outbox could not be opened or made; [`std::io::ErrorKind::WouldBlock`]: another server uses it.
    #[error("cannot use the outbox in {}", path.display())]
    OutboxDirectory {
        /// The directory.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What is in the outbox could not be read, or that it was opened could not be written.
    #[error("cannot open the outbox")]
    Outbox(#[from] push::outbox::OpenError),
    /// The port for orders could not be listened on.
    #[error(transparent)]
    Listen(#[from] push::driver::device::ListenError),
    /// The device's journal could not be opened or read: it must not serve as if it remembered nothing.
    #[error("the journal {path} cannot be used: {source}", path = path.display())]
    Journal {
        /// Its directory.
        path: std::path::PathBuf,
        /// Why; [`std::io::ErrorKind::WouldBlock`] if another process uses it.
        source: std::io::Error,
    },
}
