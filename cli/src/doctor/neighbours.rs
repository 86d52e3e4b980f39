//! Whether the neighbour (ARP) table has room for the expected devices. A stock Linux keeps 1,024 of them and beyond
//! that loses unicasts without an error: acks, and every connection for orders.

use super::host::Host;
use super::proc;
use super::report::{Check, Line};

const CHECK: Check = Check::Neighbours;
/// Neighbours that are no devices: the gateway, printers, phones, the staff's computers.
const OTHERS: u64 = 64;

/// The table's limits, as Linux has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limits {
    /// Below it nothing is ever thrown out.
    keep: u64,
    /// Beyond it entries unused for 5 s may be thrown out.
    soft: u64,
    /// Beyond it no neighbour is added.
    hard: u64,
}

/// What the kernel counts about its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    /// Entries of all namespaces.
    entries: u64,
    /// Times a neighbour was not added because the table was full, since the kernel started.
    full: u64,
}

/// Compares the limits with the devices expected, and looks whether the table was ever full.
pub(crate) async fn check(host: &Host) -> Vec<Line> {
    let limit = |number: u8| proc::setting(&format!("net/ipv4/neigh/default/gc_thresh{number}"));
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let counts = read("/proc/net/stat/arp_cache").and_then(|text| counts(&text));
    let here = read("/proc/net/arp").map(|text| text.lines().skip(1).filter(|line| !line.is_empty()).count());
    let mut lines = vec![match (limit(1), limit(2), limit(3)) {
        (Some(keep), Some(soft), Some(hard)) => judge(host, Limits { keep, soft, hard }, here),
        _ => Line::warn(
            CHECK,
            "limit",
            "the limits of the neighbour table cannot be read here (a container, or no Linux); they are the kernel's, \
             for all containers together",
            format!("run this on the host itself\n{}", remedy(u64::from(host.expected.devices))),
        ),
    }];
    lines.extend(counts.map(|counts| judge_counts(host, counts)));
    lines
}

fn judge(host: &Host, limits: Limits, here: Option<usize>) -> Line {
    let devices = u64::from(host.expected.devices);
    let needed = devices + OTHERS;
    let Limits { keep, soft, hard } = limits;
    let now = here.map_or_else(String::new, |here| format!("; {here} are known now"));
    let detail = format!(
        "room for {hard} neighbours (gc_thresh1 {keep}, 2 {soft}, 3 {hard}){now}; {devices} devices are expected{}",
        host.expected.from
    );
    if hard < needed {
        let detail = format!("{detail}: beyond the limit nothing reaches a device, and no error says so");
        Line::fail(CHECK, "limit", detail, remedy(devices))
    } else if soft < needed {
        let detail =
            format!("{detail}: beyond gc_thresh2 entries are thrown out and asked for again all the time");
        Line::warn(CHECK, "limit", detail, remedy(devices))
    } else {
        Line::pass(CHECK, "limit", detail)
    }
}

/// Twice what is needed, so that a few more devices are no matter.
fn remedy(devices: u64) -> String {
    let hard = (2 * (devices + OTHERS)).next_power_of_two().max(4_096);
    format!(
        "Linux: sysctl -w net.ipv4.neigh.default.gc_thresh3={hard} net.ipv4.neigh.default.gc_thresh2={} \
         net.ipv4.neigh.default.gc_thresh1={}, and the same three lines in /etc/sysctl.d/90-tillwire.conf\n\
         Windows: netsh interface ipv4 set global neighborcachelimit={hard}",
        hard / 2,
        hard / 4,
    )
}

/// `/proc/net/stat/arp_cache`: a heading, then a line per processor, in hexadecimal digits.
fn counts(text: &str) -> Option<Counts> {
    let mut lines = text.lines();
    let heads: Vec<&str> = lines.next()?.split_ascii_whitespace().collect();
    let column = |name: &str| heads.iter().position(|head| *head == name);
    let (entries, full) = (column("entries")?, column("table_fulls")?);
    let mut counts = None;
    for line in lines {
        let number = |at: usize| {
            let word = line.split_ascii_whitespace().nth(at)?;
            u64::from_str_radix(word, 16).ok()
        };
        // Each line repeats the number of entries; the events are each processor's own.
        let before = counts.map_or(0, |counts: Counts| counts.full);
        counts = Some(Counts { entries: number(entries)?, full: number(full)?.saturating_add(before) });
    }
    counts
}

fn judge_counts(host: &Host, counts: Counts) -> Line {
    let Counts { entries, full } = counts;
    if full == 0 {
        let detail = format!("the table was never full; {entries} entries in the whole kernel");
        return Line::pass(CHECK, "overflow", detail);
    }
    Line::warn(
        CHECK,
        "overflow",
        format!(
            "the table was full {full} times since the kernel started, and each time something was not sent; \
             {entries} entries now"
        ),
        remedy(u64::from(host.expected.devices)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::host::Expected;
    use crate::doctor::host::tests::host;
    use crate::doctor::report::Grade;

    #[test]
    fn limits_against_the_devices_expected() {
        let mut host = host();
        let stock = Limits { keep: 128, soft: 512, hard: 1_024 };
        for (devices, limits, grade) in [
            (448, stock, Grade::Pass),
            (449, stock, Grade::Warn),
            (960, stock, Grade::Warn),
            (961, stock, Grade::Fail),
            (10_000, stock, Grade::Fail),
            (10_000, Limits { keep: 8_192, soft: 16_384, hard: 32_768 }, Grade::Pass),
        ] {
            host.expected = Expected { devices, from: "" };
            let line = judge(&host, limits, Some(3));
            assert_eq!(line.grade, grade, "{line:?}");
            assert!(line.detail.contains("3 are known now"), "{line:?}");
        }
        let line = judge(&host, stock, None);
        assert!(
            line.remedy.contains("gc_thresh3=32768") && line.remedy.contains("gc_thresh1=8192"),
            "{line:?}"
        );
        assert!(line.remedy.contains("netsh"), "{line:?}");
    }

    #[test]
    fn counts_of_the_kernel() {
        let text = "entries  allocs destroys hash_grows lookups hits res_failed rcv_probes_mcast rcv_probes_ucast \
                    periodic_gc_runs forced_gc_runs unresolved_discards table_fulls\n\
                    00000400 00000021 0 0 0 0 0 0 0 0 0 0 0000000a\n\
                    00000400 00000001 0 0 0 0 0 0 0 0 0 0 00000002\n";
        let counts = counts(text).unwrap();
        assert_eq!(counts, Counts { entries: 1_024, full: 12 });
        assert_eq!(judge_counts(&host(), counts).grade, Grade::Warn);
        assert_eq!(judge_counts(&host(), Counts { full: 0, ..counts }).grade, Grade::Pass);
        for text in ["", "entries\n", "entries table_fulls\nx y\n", "entries table_fulls\n"] {
            assert_eq!(super::counts(text), None, "{text:?}");
        }
    }
}
