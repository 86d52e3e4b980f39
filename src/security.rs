//! Who may talk to whom, chosen by name.

/// How a node proves who it is. There is no default: starting without a choice is an error.
///
/// This release knows one mode, and its name says what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Security(Mode);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    OpenNetwork,
}

impl Security {
    /// No keys, no encryption: whoever reaches the LAN can read orders, pose as a device, or pose as the server. For
    /// networks where that is acceptable: a bench, a demo, a LAN that is closed by other means.
    #[must_use]
    pub const fn open_network() -> Self {
        Self(Mode::OpenNetwork)
    }

    /// The mode in one word, for logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self.0 {
            Mode::OpenNetwork => "open-network",
        }
    }
}
