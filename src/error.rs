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
    /// The port for orders could not be listened on.
    #[error(transparent)]
    Listen(#[from] push::driver::device::ListenError),
}
