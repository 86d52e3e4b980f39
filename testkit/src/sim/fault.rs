//! Faults: what the world throws at everybody, as data.

use std::time::Duration;

use wire_format::rng::{Rng, mix};

use super::names::FaultKind;
use super::plan::{MS, Plan, SECOND, Scene};

/// A fault and its time.
#[derive(Clone, Debug)]
pub(super) struct FaultSpec {
    pub(super) at: Duration,
    pub(super) fault: Fault,
}

/// When somebody dies.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    Now,
    /// After so many further steps of its own: each step of its driver, each operation of its disk.
    Steps(u32),
}

/// What becomes of the server that is taken over.
#[derive(Clone, Copy, Debug)]
pub(super) enum First {
    Dies,
    StandsStill,
    /// It goes on, and keeps what it serves.
    GoesOn,
}

/// What may go wrong. Durations are how long it lasts, or how long who died stays away.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    Cut {
        device: usize,
        silent: bool,
    },
    ResetAtByte {
        device: usize,
        bytes: usize,
    },
    Dribble {
        device: usize,
        lasts: Duration,
    },
    Slow {
        lasts: Duration,
        delay: Duration,
    },
    /// Bytes down, up, or both do not pass.
    Partition {
        device: usize,
        down: bool,
        up: bool,
        lasts: Duration,
    },
    /// One end reads nothing.
    Stall {
        device: usize,
        lasts: Duration,
    },
    DialFails {
        device: usize,
        lasts: Duration,
    },
    Crash {
        device: usize,
        power: bool,
        when: When,
        away: Duration,
    },
    Goodbye {
        device: usize,
        drain: Option<Duration>,
        away: Duration,
    },
    Freeze {
        device: usize,
        lasts: Duration,
    },
    Swap {
        devices: (usize, usize),
        healed_after: Duration,
    },
    Announce {
        device: usize,
    },
    Remove {
        device: usize,
        away: Duration,
    },
    CrashServer {
        power: bool,
        when: When,
        away: Duration,
    },
    Pause {
        lasts: Duration,
    },
    Drain {
        within: Duration,
    },
    TakeOver {
        after: Duration,
        first: First,
    },
    /// The power goes in the middle of the disk's operation after so many.
    DiskDies {
        after: u64,
    },
    DiskFails {
        after: u32,
    },
    DiskFull {
        lasts: Duration,
    },
    DiskSlow {
        lasts: Duration,
        takes: Duration,
    },
    WallJump {
        by_ms: i64,
    },
    JournalDies {
        device: usize,
        after: u32,
    },
    JournalFails {
        device: usize,
        after: u32,
    },
    /// The device loses its power, and what it kept.
    JournalWiped {
        device: usize,
        away: Duration,
    },
    /// The same, but for a bit.
    JournalRots {
        device: usize,
        bit: u64,
        away: Duration,
    },
    WallFrozen {
        lasts: Duration,
    },
    /// Syncs of the journal take so long.
    JournalSlow {
        device: usize,
        lasts: Duration,
        takes: Duration,
    },
    /// No fault: a question, whose answer is waited for so long.
    Question {
        device: usize,
        by_device: bool,
        within: Duration,
    },
    /// After so many pieces of a payload the device loses its connection, or its power for so long.
    PieceCut {
        device: usize,
        after: u32,
        power: Option<Duration>,
    },
    /// Somebody says that the device is found where another one is.
    FalseAnnounce {
        device: usize,
        other: usize,
        healed_after: Duration,
    },
    /// A bit of the outbox is another one; with a time the server loses its power as well.
    DiskRots {
        at: u64,
        away: Option<Duration>,
    },
    /// The server's disk is copied; some time later its machine is replaced by one with the copy.
    Backup {
        restored_after: Duration,
        away: Duration,
    },
}

impl Fault {
    pub(super) const fn kind(&self) -> FaultKind {
        match self {
            Self::Cut { silent: true, .. } => FaultKind::CutSilently,
            Self::Cut { .. } => FaultKind::Cut,
            Self::ResetAtByte { .. } => FaultKind::ResetAtByte,
            Self::Dribble { .. } => FaultKind::Dribble,
            Self::Slow { .. } => FaultKind::Slow,
            Self::Partition { down: true, up: true, .. } => FaultKind::Partition,
            Self::Partition { .. } => FaultKind::OneWay,
            Self::Stall { .. } => FaultKind::StalledReader,
            Self::DialFails { .. } => FaultKind::DialFails,
            Self::Crash { when: When::Steps(_), .. } => FaultKind::DiedAtStep,
            Self::Crash { power: true, .. } => FaultKind::PowerCut,
            Self::Crash { .. } => FaultKind::Killed,
            Self::Goodbye { .. } => FaultKind::Goodbye,
            Self::Freeze { .. } => FaultKind::Freeze,
            Self::Swap { .. } => FaultKind::AddressSwap,
            Self::Announce { .. } => FaultKind::Announce,
            Self::Remove { .. } => FaultKind::Removed,
            Self::CrashServer { when: When::Steps(_), .. } => FaultKind::ServerDiedAtStep,
            Self::CrashServer { power: true, .. } => FaultKind::ServerPowerCut,
            Self::CrashServer { .. } => FaultKind::ServerKilled,
            Self::Pause { .. } => FaultKind::ServerPause,
            Self::Drain { .. } => FaultKind::ServerDrain,
            Self::TakeOver { .. } => FaultKind::TakeOver,
            Self::DiskDies { .. } => FaultKind::DiskDies,
            Self::DiskFails { .. } => FaultKind::DiskFails,
            Self::DiskFull { .. } => FaultKind::DiskFull,
            Self::DiskSlow { .. } => FaultKind::DiskSlow,
            Self::WallJump { .. } => FaultKind::WallJump,
            Self::JournalDies { .. } => FaultKind::JournalDies,
            Self::JournalFails { .. } => FaultKind::JournalFails,
            Self::JournalWiped { .. } => FaultKind::JournalWiped,
            Self::JournalRots { .. } => FaultKind::JournalRots,
            Self::WallFrozen { .. } => FaultKind::WallFrozen,
            Self::JournalSlow { .. } => FaultKind::JournalSlow,
            Self::Question { by_device: true, .. } => FaultKind::DeviceAsks,
            Self::Question { .. } => FaultKind::ServerAsks,
            Self::PieceCut { .. } => FaultKind::PieceCut,
            Self::FalseAnnounce { .. } => FaultKind::FalseAnnounce,
            Self::DiskRots { .. } => FaultKind::DiskRots,
            Self::Backup { .. } => FaultKind::Backup,
        }
    }
}

/// How long until the next fault.
fn draw_wait(plan: &Plan, rng: &mut Rng) -> Duration {
    match plan.scene {
        Scene::Small => rng.between(MS * 50, MS * 2_000),
        Scene::Large => rng.between(MS * 20, MS * 800),
        Scene::Day => rng.between(SECOND * 60, SECOND * 1_800),
        Scene::Crowd => rng.between(MS * 20, MS * 1_000),
    }
}

pub(super) fn draw_faults(plan: &Plan, rng: &mut Rng) -> Vec<FaultSpec> {
    let mut faults = Vec::new();
    let mut at = Duration::ZERO;
    loop {
        at += draw_wait(plan, rng);
        if at >= plan.storm {
            return faults;
        }
        faults.push(FaultSpec { at, fault: draw_fault(plan, rng) });
    }
}

/// Mostly short; now and then longer than any deadline there is.
fn draw_span(rng: &mut Rng, least: Duration, usual: Duration, most: Duration) -> Duration {
    if rng.below(10) == 0 { rng.between(least, most) } else { rng.between(least, usual) }
}

fn draw_when(rng: &mut Rng) -> When {
    if rng.below(3) == 0 { When::Now } else { When::Steps(1 + rng.below(40) as u32) }
}

fn draw_fault(plan: &Plan, rng: &mut Rng) -> Fault {
    let count = plan.devices.len() as u64;
    let device = rng.below(count) as usize;
    let away = rng.between(MS * 50, MS * 4_000);
    match rng.below(112) {
        100..=111 => draw_journal_fault(rng, device, away),
        0..=12 => Fault::Cut { device, silent: rng.below(5) < 2 },
        13..=17 => Fault::ResetAtByte { device, bytes: rng.below(2_000) as usize },
        18..=21 => Fault::Dribble { device, lasts: draw_span(rng, MS * 100, SECOND * 4, SECOND * 20) },
        22..=23 => {
            let lasts = draw_span(rng, SECOND, SECOND * 5, SECOND * 20);
            Fault::Slow { lasts, delay: draw_span(rng, MS * 100, SECOND, SECOND * 90) }
        }
        24..=30 => draw_partition(rng, device),
        31..=34 => Fault::Stall { device, lasts: draw_span(rng, MS * 100, SECOND * 9, SECOND * 70) },
        35..=38 => Fault::DialFails { device, lasts: draw_span(rng, MS * 100, SECOND * 5, SECOND * 60) },
        39..=58 => Fault::Crash { device, power: rng.below(2) == 0, when: draw_when(rng), away },
        59..=62 => {
            let drain = (rng.below(2) == 0).then(|| rng.between(Duration::ZERO, MS * 4_000));
            Fault::Goodbye { device, drain, away }
        }
        63..=70 => Fault::Freeze { device, lasts: draw_span(rng, MS * 100, SECOND * 9, SECOND * 600) },
        71..=74 => Fault::Swap { devices: (device, rng.below(count) as usize), healed_after: away * 3 },
        75..=77 => Fault::Announce { device },
        78 => Fault::Remove { device, away },
        _ => draw_server_fault(plan, rng),
    }
}

fn draw_journal_fault(rng: &mut Rng, device: usize, away: Duration) -> Fault {
    match rng.below(12) {
        0..=6 => Fault::JournalDies { device, after: rng.below(12) as u32 },
        7..=9 => Fault::JournalFails { device, after: rng.below(8) as u32 },
        10 => Fault::JournalWiped { device, away },
        _ => Fault::JournalRots { device, bit: rng.next_u64() >> 8, away },
    }
}

fn draw_partition(rng: &mut Rng, device: usize) -> Fault {
    let (down, up) = [(true, true), (true, true), (true, false), (false, true)][rng.below(4) as usize];
    Fault::Partition { device, down, up, lasts: draw_span(rng, MS * 100, SECOND * 9, SECOND * 70) }
}

fn draw_server_fault(plan: &Plan, rng: &mut Rng) -> Fault {
    let away = draw_span(rng, MS * 10, SECOND * 3, SECOND * 60);
    match rng.below(if plan.durable { 40 } else { 20 }) {
        0..=8 => Fault::CrashServer { power: rng.below(2) == 0, when: draw_when(rng), away },
        9..=12 => Fault::Pause { lasts: draw_span(rng, MS * 600, SECOND * 9, SECOND * 600) },
        13..=14 => Fault::Drain { within: rng.between(Duration::ZERO, SECOND * 5) },
        15..=19 if plan.servers > 1 => {
            let first = [First::Dies, First::StandsStill, First::GoesOn][rng.below(3) as usize];
            Fault::TakeOver { after: away, first }
        }
        15..=19 => Fault::Pause { lasts: rng.between(MS * 600, SECOND * 3) },
        _ => draw_disk_fault(rng),
    }
}

fn draw_disk_fault(rng: &mut Rng) -> Fault {
    let lasts = draw_span(rng, MS * 100, SECOND * 4, SECOND * 20);
    match rng.below(16) {
        0..=6 => Fault::DiskDies { after: rng.below(20) },
        7..=9 => Fault::DiskFails { after: rng.below(10) as u32 },
        10 => Fault::DiskFull { lasts },
        11..=13 => {
            let takes = [MS * 50, MS * 200, SECOND, SECOND * 5][rng.below(4) as usize];
            Fault::DiskSlow { lasts, takes }
        }
        14 => Fault::WallFrozen { lasts },
        _ => {
            // Back or forth, by seconds or by years.
            let most = [10_000, 86_400_000, 315_360_000_000][rng.below(3) as usize];
            Fault::WallJump { by_ms: rng.below(2 * most) as i64 - most as i64 }
        }
    }
}

/// Faults that few runs have, from a generator of their own: all other runs are what they are without them.
pub(super) fn draw_rare_faults(plan: &Plan) -> Vec<FaultSpec> {
    let mut rng = Rng::new(mix(plan.seed ^ 0x2A2E));
    let mut faults = Vec::new();
    if matches!(plan.scene, Scene::Day | Scene::Crowd) {
        return faults;
    }
    let (kind, storm) = (rng.below(32), plan.storm);
    let count = plan.devices.len() as u64;
    for _ in 0..1 + rng.below(4) {
        let (at, device) = (rng.between(SECOND, storm), rng.below(count) as usize);
        let away = rng.between(MS * 50, MS * 4_000);
        let fault = match kind {
            0..=3 => {
                let takes = [MS * 20, MS * 200, SECOND, SECOND * 4][rng.below(4) as usize];
                Fault::JournalSlow { device, lasts: rng.between(SECOND, SECOND * 10), takes }
            }
            4 | 5 => {
                let other = rng.below(count) as usize;
                Fault::FalseAnnounce { device, other, healed_after: away * 2 }
            }
            6..=8 if plan.durable => {
                Fault::DiskRots { at: rng.next_u64(), away: (rng.below(3) != 0).then_some(away) }
            }
            // One is enough, and where no other server is: which of them leads is another question.
            9 | 10 if plan.durable && plan.servers == 1 && faults.is_empty() => {
                Fault::Backup { restored_after: rng.between(MS * 500, SECOND * 15), away }
            }
            _ => break,
        };
        faults.push(FaultSpec { at, fault });
    }
    faults
}
