//! What a measurement asks of the machine: clocks, memory, a core of its own.

use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Time that only rises, from a start nobody knows.
pub(super) fn now() -> Duration {
    span(clock_gettime(ClockId::Monotonic))
}

/// What this thread has had of a CPU, in user space and in the kernel.
pub(super) fn thread_cpu() -> Duration {
    span(clock_gettime(ClockId::ThreadCPUTime))
}

/// What all threads of this process have had of a CPU, in user space and in the kernel.
pub(super) fn process_cpu() -> Duration {
    span(clock_gettime(ClockId::ProcessCPUTime))
}

fn span(time: Timespec) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or_default())
}

/// Bytes of this process that are in memory (RSS); 0 where `/proc` does not tell.
pub(super) fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or_default().saturating_mul(rustix::param::page_size() as u64)
}

/// Bytes of this process that are in memory, each page divided by the processes that share it (PSS); 0 where `/proc`
/// does not tell.
pub(super) fn proportional_bytes() -> u64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let kib = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    kib.map_or(0, |kib: u64| kib.saturating_mul(1_024))
}

/// What the first thread of a process has had of a CPU; `None` where `/proc` does not tell.
pub(super) fn cpu_of(process: u32) -> Option<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{process}/schedstat")).ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// Connections the kernel dropped because a listener's queue was full, since it started, on the whole machine; `None`
/// where `/proc` does not tell.
pub(super) fn listen_drops() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/net/netstat").ok()?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    pairs.find(|&(name, _)| name == "ListenDrops")?.1.parse().ok()
}

/// The congestion control new sockets begin with.
pub(super) fn congestion() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").ok()?;
    Some(name.trim().to_owned())
}

/// Tasks that wanted a CPU over the last minute (load average): what else this machine does. 0 if it does not tell.
pub(super) fn load_1m() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|load| load.parse().ok()).unwrap_or_default()
}

/// The two cores that server and devices get, if this process may use two.
pub(super) fn two_cores() -> Option<(usize, usize)> {
    let allowed = sched_getaffinity(None).ok()?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
    Some((cores.next()?, cores.next()?))
}

/// Keeps this thread, and those it starts from now on, on one core. False if the system refused.
pub(super) fn pin(core: usize) -> bool {
    let mut cores = CpuSet::new();
    if core >= CpuSet::MAX_CPU {
        return false;
    }
    cores.set(core);
    sched_setaffinity(None, &cores).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_answers() {
        let (begun, cpu) = (now(), thread_cpu());
        let sum = (0..200_000_u64).fold(0, |sum: u64, n| core::hint::black_box(sum.wrapping_add(n)));
        assert!(sum > 0 && now() > begun && thread_cpu() > cpu);
        assert!(process_cpu() >= cpu, "of which this thread is one");
        assert!(resident_bytes() > 100_000, "a process has some memory");
        assert!(cpu_of(std::process::id()).is_none_or(|cpu| !cpu.is_zero()));
    }
}
