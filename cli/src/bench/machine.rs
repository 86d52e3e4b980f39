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
        assert!(resident_bytes() > 100_000, "a process has some memory");
    }
}
