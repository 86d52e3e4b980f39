//! What a check says: pass, warn or fail, what was found, and what to do.

use clap::ValueEnum;
use serde_json::{Value, json};

/// What is checked. The order is that of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub(crate) enum Check {
    /// The ports this node listens on can be taken, and by one process only.
    Port,
    /// A broadcast leaves every usable interface, and is heard on this host.
    Broadcast,
    /// The receive queue holds what the expected devices send.
    ReceiveBuffer,
    /// The neighbour table has room for the expected devices.
    Neighbours,
    /// No rule of this host's packet filter drops discovery, orders or services.
    Firewall,
    /// The limit on open files leaves a connection for each expected device.
    OpenFiles,
    /// Each known device takes a connection on its port for orders.
    Devices,
    /// The services of the server answer on their ports.
    Services,
    /// The hosts outside the store can be reached, directly or by the proxy.
    Cloud,
    /// The clock is plausible and kept right.
    Clock,
    /// The state directory can be written and holds what belongs there.
    State,
    /// The outbox can be written and synced fast enough, and has room.
    Outbox,
    /// This host has a name of its own, so that the server keeps its id.
    Identity,
}

/// Where this runs: the checks that make sense differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A store server.
    Server,
    /// A till, kiosk or screen.
    Device,
}

impl Check {
    /// Its name, as `--only` takes it.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What it finds out, one line.
    pub(crate) fn about(self) -> String {
        let value = self.to_possible_value();
        value.and_then(|value| value.get_help().map(ToString::to_string)).unwrap_or_default()
    }

    /// Whether it is made without being asked for.
    pub(crate) const fn is_for(self, role: Role) -> bool {
        match self {
            Self::Port | Self::Broadcast | Self::Firewall | Self::Services | Self::Clock | Self::State => {
                true
            }
            Self::ReceiveBuffer
            | Self::Neighbours
            | Self::OpenFiles
            | Self::Devices
            | Self::Cloud
            | Self::Outbox
            | Self::Identity => matches!(role, Role::Server),
        }
    }

    /// The heading it stands under.
    pub(crate) const fn group(self) -> &'static str {
        match self {
            Self::Port | Self::Broadcast | Self::ReceiveBuffer => "discovery",
            Self::Neighbours | Self::Firewall | Self::OpenFiles => "this host's limits and rules",
            Self::Devices => "orders to the devices",
            Self::Services => "services for the LAN",
            Self::Cloud => "the way out of the store",
            Self::Clock | Self::State | Self::Outbox | Self::Identity => "this host",
        }
    }
}

/// How it stands; the worst is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Grade {
    /// As it should be.
    Pass,
    /// It works, or could not be found out; somebody should look.
    Warn,
    /// Something will not work.
    Fail,
}

impl Grade {
    /// `pass`, `warn` or `fail`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Which check.
    pub(crate) check: Check,
    /// Of what: an interface, a port, a host. Empty if there is only one.
    pub(crate) subject: String,
    /// How it stands.
    pub(crate) grade: Grade,
    /// What was found.
    pub(crate) detail: String,
    /// What to do, a line per step; empty if nothing.
    pub(crate) remedy: String,
}

impl Line {
    /// As it should be.
    pub(crate) fn pass(check: Check, subject: impl Into<String>, detail: impl Into<String>) -> Self {
        let (subject, detail) = (subject.into(), detail.into());
        Self { check, subject, grade: Grade::Pass, detail, remedy: String::new() }
    }

    /// Somebody should look.
    pub(crate) fn warn(
        check: Check,
        subject: impl Into<String>,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { grade: Grade::Warn, remedy: remedy.into(), ..Self::pass(check, subject, detail) }
    }

    /// Something will not work.
    pub(crate) fn fail(
        check: Check,
        subject: impl Into<String>,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { grade: Grade::Fail, remedy: remedy.into(), ..Self::pass(check, subject, detail) }
    }

    /// A failure, or a warning if the store works without it.
    pub(crate) fn bad(
        required: bool,
        check: Check,
        subject: impl Into<String>,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let grade = if required { Grade::Fail } else { Grade::Warn };
        Self { grade, ..Self::fail(check, subject, detail, remedy) }
    }

    /// `{event, check, subject, result, detail, remedy}`.
    pub(crate) fn json(&self) -> Value {
        json!({
            "event": "check", "check": self.check.name(), "subject": self.subject, "result": self.grade.name(),
            "detail": self.detail, "remedy": self.remedy,
        })
    }
}

/// How many lines stand so.
pub(crate) fn count(lines: &[Line], grade: Grade) -> usize {
    lines.iter().filter(|line| line.grade == grade).count()
}

/// The worst of all; a run without a finding has nothing against it.
pub(crate) fn worst(lines: &[Line]) -> Grade {
    lines.iter().map(|line| line.grade).max().unwrap_or(Grade::Pass)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_decides() {
        let pass = Line::pass(Check::Clock, "", "d");
        let warn = Line::warn(Check::Clock, "", "d", "r");
        let fail = Line::bad(true, Check::Clock, "", "d", "r");
        assert_eq!(worst(&[]), Grade::Pass);
        assert_eq!(worst(&[warn.clone(), pass.clone()]), Grade::Warn);
        assert_eq!(worst(&[pass, fail.clone(), warn.clone()]), Grade::Fail);
        assert_eq!(Line::bad(false, Check::Clock, "", "d", "r"), warn);
        assert_eq!(fail.json()["result"], "fail");
    }

    #[test]
    fn every_check_has_a_name_and_says_what_it_is() {
        for check in Check::value_variants() {
            assert!(check.name().len() > 3 && check.about().len() > 20, "{check:?}");
            assert!(check.is_for(Role::Server), "a server gets every check");
        }
        assert_eq!(Check::ReceiveBuffer.name(), "receive-buffer");
    }
}
