//! Whether the limit on open files leaves a connection for each expected device.

use super::host::Host;
use super::proc;
use super::report::{Check, Line};

const CHECK: Check = Check::OpenFiles;
/// Files of a server besides its devices: sockets of discovery and of callers, epoll, standard streams, its state.
const OTHERS: u64 = 128;

/// Looks at the server that runs here, or else at what this user's processes may have.
pub(crate) async fn check(host: &Host) -> Vec<Line> {
    let read = |pid: &str| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).ok();
        text.and_then(|text| proc::open_files(&text))
    };
    let server = host.running.as_ref().and_then(|server| server.pid);
    let found = match server.and_then(|pid| Some((pid, read(&pid.to_string())?))) {
        Some((pid, limits)) => Some((format!("the server (pid {pid})"), limits)),
        None => read("self").or_else(own).map(|limits| ("a server started like this".to_owned(), limits)),
    };
    vec![match found {
        Some((who, limits)) => judge(host, &who, limits),
        None => Line::warn(CHECK, "", "the limit on open files cannot be read here", "see ulimit -n"),
    }]
}

/// The limits of this process, where there is no /proc.
fn own() -> Option<(u64, u64)> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    Some((limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX)))
}

/// A server raises its limit as far as it may, so the higher of the two counts.
fn judge(host: &Host, who: &str, (_, highest): (u64, u64)) -> Line {
    let devices = u64::from(host.expected.devices);
    let needed = devices + OTHERS;
    let may = if highest == u64::MAX { "any number of".to_owned() } else { highest.to_string() };
    let detail = format!(
        "{who} may have {may} open files; {needed} are needed for {devices} devices{}",
        host.expected.from
    );
    if highest >= needed {
        return Line::pass(CHECK, "", detail);
    }
    let wanted = (2 * needed).next_power_of_two();
    Line::fail(
        CHECK,
        "",
        format!("{detail}: the last ones are never connected"),
        format!(
            "systemd: LimitNOFILE={wanted} in the server's unit, then systemctl daemon-reload and a restart\n\
             else: a line \"USER hard nofile {wanted}\" in /etc/security/limits.conf, or ulimit -Hn {wanted} as root before the \
             start\n\
             Windows: no such limit"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::host::Expected;
    use crate::doctor::host::tests::host;
    use crate::doctor::report::Grade;

    #[tokio::test]
    async fn files_against_the_devices_expected() {
        let mut host = host();
        host.expected = Expected { devices: 10_000, from: "" };
        assert_eq!(judge(&host, "x", (1_024, 10_128)).grade, Grade::Pass);
        let line = judge(&host, "x", (1_024, 10_127));
        assert!(line.grade == Grade::Fail && line.remedy.contains("LimitNOFILE=32768"), "{line:?}");
        assert_eq!(judge(&host, "x", (1_024, u64::MAX)).grade, Grade::Pass);
        host.expected = Expected { devices: 1, from: "" };
        assert_eq!(check(&host).await[0].grade, Grade::Pass);
    }
}
