//! TCP as far as the protocol can see it: two pipes of bytes.

use push::receiver::ConnId;
use testkit::pipe::Pipe;

/// One connection, from its dial to the moment both ends are gone.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) device: usize,
    /// The device's name for it, once accepted.
    pub(crate) conn: Option<ConnId>,
    /// Bytes to the device, and to the server.
    pub(crate) down: Pipe,
    pub(crate) up: Pipe,
    /// Which ends are open.
    pub(crate) server: bool,
    pub(crate) client: bool,
    /// The cable is out: nothing arrives any more, and nobody is told.
    pub(crate) cut: bool,
    /// The server reads no more.
    pub(crate) deaf: bool,
}

impl Link {
    pub(crate) fn new(device: usize, capacity: usize) -> Self {
        Self {
            device,
            conn: None,
            down: Pipe::new(capacity),
            up: Pipe::new(capacity),
            server: true,
            client: true,
            cut: false,
            deaf: false,
        }
    }
}
