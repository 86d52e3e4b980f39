//! Whether the receive queue the system grants holds what the expected devices send, and what it lost so far.

use std::collections::BTreeSet;
use std::io;

use socket2::{Domain, Protocol, Socket, Type};
use tillwire::discovery::driver::RECEIVE_BUFFER_BYTES;

use super::host::Host;
use super::proc;
use super::report::{Check, Line};

const CHECK: Check = Check::ReceiveBuffer;

/// What Linux charges a receive queue for a datagram of up to 197 bytes, which every announce is.
pub(crate) const QUEUED_BYTES: u64 = 832;
/// Announces a second that a server asks its devices for.
const ANNOUNCES_PER_S: u64 = 1_000;
/// Datagrams a stock Linux queue holds: a quarter of a second. With less, a server that is briefly busy loses some.
const STOCK_DATAGRAMS: u64 = 256;

/// Compares the queue that the running server has, or a new one would be granted, with what is expected.
pub(crate) async fn check(host: &Host) -> Vec<Line> {
    let servers = host.running.as_ref().and_then(|server| server.receive_buffer_bytes);
    let (who, granted) = match servers {
        Some(bytes) => ("the server that runs here has", Ok(bytes)),
        None => ("a server started now gets", granted()),
    };
    let mut lines = vec![match granted {
        Ok(granted) => judge(host, who, granted, proc::setting("net/core/rmem_max")),
        Err(error) => Line::warn(
            CHECK,
            "queue",
            format!("the system does not tell the size of a receive queue: {error}"),
            "run this where UDP sockets may be opened",
        ),
    }];
    lines.extend(drops(host));
    lines
}

/// Bytes of queue that a node is granted; Linux reports its own overhead with them, which is what datagrams are
/// charged against.
fn granted() -> io::Result<u64> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // Granted less is told by the size below; some systems refuse instead, and the default stays.
    let _refused = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    Ok(socket.recv_buffer_size()? as u64)
}

fn judge(host: &Host, who: &str, granted: u64, allowed: Option<u64>) -> Line {
    let devices = u64::from(host.expected.devices);
    let holds = granted / QUEUED_BYTES;
    let pause_ms = holds.saturating_mul(1_000) / ANNOUNCES_PER_S;
    // A node asks for no more than this, and Linux doubles it.
    let most = 2 * RECEIVE_BUFFER_BYTES as u64 / QUEUED_BYTES;
    let needed = devices.min(most);
    let detail = format!(
        "{who} {granted} bytes, which hold {holds} announces: {} at once, or a pause of {pause_ms} ms at \
         {ANNOUNCES_PER_S} a second; {devices} devices are expected{}",
        if holds >= needed { "all of them" } else { "not all of them" },
        host.expected.from,
    );
    if holds >= needed {
        return Line::pass(CHECK, "queue", detail);
    }
    let wanted = (needed * QUEUED_BYTES / 2).next_power_of_two().clamp(1 << 20, RECEIVE_BUFFER_BYTES as u64);
    let now = allowed.map_or_else(String::new, |now| format!(" (now {now})"));
    let remedy = format!(
        "Linux: sysctl -w net.core.rmem_max={wanted}{now}, and the same line in /etc/sysctl.d/90-tillwire.conf; then start \
         the server again\n\
         Windows: nothing to set, the server asks for its buffer itself"
    );
    if holds < STOCK_DATAGRAMS {
        Line::fail(CHECK, "queue", detail, remedy)
    } else {
        Line::warn(CHECK, "queue", detail, remedy)
    }
}

/// What the sockets on the port have lost since they were opened.
fn drops(host: &Host) -> Option<Line> {
    let entries = proc::on_port("udp", host.net.port).filter(|entries| !entries.is_empty())?;
    let drops: u64 = entries.iter().map(|entry| entry.drops).sum();
    let inodes: BTreeSet<u64> =
        entries.iter().filter(|entry| entry.drops > 0).map(|entry| entry.inode).collect();
    let owners = proc::owners(&inodes);
    let names: BTreeSet<String> =
        owners.values().flatten().map(|owner| format!("{} (pid {})", owner.name, owner.pid)).collect();
    Some(judge_drops(drops, &names))
}

fn judge_drops(drops: u64, names: &BTreeSet<String>) -> Line {
    if drops == 0 {
        return Line::pass(CHECK, "drops", "no datagram was dropped at the open port so far");
    }
    let who = names.iter().cloned().collect::<Vec<_>>().join(", ");
    let who = if who.is_empty() { String::new() } else { format!(" of {who}") };
    Line::warn(
        CHECK,
        "drops",
        format!("{drops} datagrams were dropped at the open port{who} because its queue was full"),
        "give it a larger queue (net.core.rmem_max, then start it again), and look for what keeps this machine busy",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::host::Expected;
    use crate::doctor::host::tests::host;
    use crate::doctor::report::Grade;

    #[test]
    fn queues_against_the_devices_expected() {
        let mut host = host();
        for (devices, granted, grade) in [
            // Stock rmem_max, doubled by Linux: 512 datagrams.
            (500, 425_984, Grade::Pass),
            (512, 425_984, Grade::Pass),
            (513, 425_984, Grade::Warn),
            (10_000, 425_984, Grade::Warn),
            // 4 MiB granted as 8: everybody at once.
            (10_000, 8 << 20, Grade::Pass),
            // Nobody is granted more than a node asks for.
            (50_000, 8 << 20, Grade::Pass),
            (500, 212_992, Grade::Warn),
            (300, 200_000, Grade::Fail),
        ] {
            host.expected = Expected { devices, from: "" };
            let line = judge(&host, "x", granted, Some(212_992));
            assert_eq!(line.grade, grade, "{line:?}");
            assert_eq!(line.remedy.contains("rmem_max"), grade != Grade::Pass, "{line:?}");
        }
        host.expected = Expected { devices: 10_000, from: "" };
        let line = judge(&host, "x", 425_984, Some(212_992));
        assert!(line.remedy.contains("rmem_max=4194304 (now 212992)"), "{line:?}");
    }

    #[tokio::test]
    async fn a_queue_that_overflowed_is_told() {
        if proc::on_port("udp", 1).is_none() {
            println!("skipped: no /proc/net/udp");
            return;
        }
        let full = std::net::UdpSocket::bind("127.41.7.2:0").unwrap();
        let mut host = host();
        host.net.port = full.local_addr().unwrap().port();
        assert_eq!(drops(&host).unwrap().grade, Grade::Pass);
        let sender = std::net::UdpSocket::bind("127.41.7.3:0").unwrap();
        for _ in 0..20_000 {
            sender.send_to(&[0; 100], full.local_addr().unwrap()).unwrap();
        }
        let line = drops(&host).unwrap();
        assert!(
            line.grade == Grade::Warn && line.detail.contains(&format!("pid {}", std::process::id())),
            "{line:?}"
        );
        assert!(check(&host).await.contains(&line));
    }
}
