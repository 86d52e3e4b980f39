//! Who is killed, and when.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wire_format::rng::Rng;

use super::world::{World, pause};
use super::{Disk, Failure, ledger};

/// How long a chosen moment is waited for; then the kill comes as it comes.
const MOMENT_WITHIN: Duration = Duration::from_millis(1_500);
/// How often a ledger is looked at while its next line is waited for.
const LOOK_EVERY: Duration = Duration::from_micros(200);
/// Kills are so far apart, at least and at most.
const APART: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(200)];
/// A process is away so long, mostly.
const AWAY: [Duration; 2] = [Duration::ZERO, Duration::from_millis(150)];
/// Some devices are away longer than short orders live.
const LONG_AWAY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];
/// After so long a process has read what it kept, mostly; kills at its start come before.
const STARTING: Duration = Duration::from_millis(80);
/// Turns between a disk that is filled and one that has room again.
const FULL_TURNS: u64 = 6;

/// When a process was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// At any time.
    Random,
    /// A push was sent and not answered.
    Sent,
    /// A push was answered "accepted" a moment before.
    Accepted,
    /// An outcome was told a moment before.
    Told,
    /// The handler of the device has just been given an order.
    Handling,
    /// The process was just started.
    Starting,
    /// Together with the other side.
    Both,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Random => "at random",
            Self::Sent => "after a push was sent",
            Self::Accepted => "after a push was accepted",
            Self::Told => "after an outcome was told",
            Self::Handling => "inside the handler",
            Self::Starting => "while starting",
            Self::Both => "both sides at once",
        })
    }
}

/// Kills by moment: of the server, and of devices.
pub(super) type Kills = BTreeMap<Moment, [u32; 2]>;

/// A kill that waits for its moment, and those that were.
#[derive(Debug, Default)]
pub(super) struct Trap(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    armed: Option<(Moment, bool)>,
    kills: Kills,
    of_device: BTreeMap<u8, u32>,
}

impl Trap {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever sees this moment next kills the server, or the device it is about.
    fn arm(&self, moment: Moment, device: bool) {
        self.lock().armed = Some((moment, device));
    }

    /// Nobody saw it: true if it is still set.
    fn disarm(&self) -> bool {
        self.lock().armed.take().is_some()
    }

    fn is_armed(&self) -> bool {
        self.lock().armed.is_some()
    }

    /// This moment is there. Whom it hits, if anybody: true for the device.
    pub(super) fn spring(&self, moment: Moment) -> Option<bool> {
        let mut inner = self.lock();
        let device = inner.armed.filter(|(armed, _)| *armed == moment)?.1;
        inner.armed = None;
        Some(device)
    }

    pub(super) fn count(&self, moment: Moment, device: Option<u8>) {
        let mut inner = self.lock();
        inner.kills.entry(moment).or_default()[usize::from(device.is_some())] += 1;
        if let Some(device) = device {
            *inner.of_device.entry(device).or_default() += 1;
        }
    }

    pub(super) fn kills(&self) -> Kills {
        self.lock().kills.clone()
    }

    pub(super) fn total(&self) -> u32 {
        self.lock().kills.values().flatten().sum()
    }

    pub(super) fn of_device(&self, device: u8) -> u32 {
        self.lock().of_device.get(&device).copied().unwrap_or(0)
    }
}

/// A process that is down, and when it comes back.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Server,
    Device(u8),
}

struct Killer<'w> {
    world: &'w World,
    rng: Rng,
    down: Vec<(Duration, Victim)>,
    turns: u64,
}

/// Kills until there were enough. Some processes may be down at the end.
pub(super) fn run(world: &World) -> Result<(), Failure> {
    let rng = Rng::new(world.options.seed ^ 0x6B69_6C6C);
    let mut killer = Killer { world, rng, down: Vec::new(), turns: 0 };
    while world.trap.total() < world.options.times {
        world.check()?;
        killer.restart()?;
        let [from, to] = APART;
        pause(killer.rng.between(from, to));
        // An order handed over long after its lifetime is seen by what a ledger did not show yet.
        (0..world.options.devices).for_each(|at| world.look(at));
        killer.fill_or_free()?;
        killer.strike()?;
    }
    Ok(())
}

impl Killer<'_> {
    /// Starts again what was down long enough.
    fn restart(&mut self) -> Result<(), Failure> {
        let now = self.world.since();
        let (due, down): (Vec<_>, Vec<_>) = self.down.drain(..).partition(|(at, _)| *at <= now);
        self.down = down;
        for (_, victim) in due {
            match victim {
                Victim::Server => self.world.start_server()?,
                Victim::Device(at) => self.world.start_device(at)?,
            }
            if self.rng.below(100) < 12 {
                pause(self.rng.between(Duration::ZERO, STARTING));
                self.kill(victim, Moment::Starting);
            }
        }
        Ok(())
    }

    fn fill_or_free(&mut self) -> Result<(), Failure> {
        self.turns += 1;
        if self.world.options.disk != Disk::Full || !self.turns.is_multiple_of(FULL_TURNS) {
            return Ok(());
        }
        self.world.fill(!self.world.is_full())
    }

    /// Kills one, or both sides, now or at a chosen moment.
    fn strike(&mut self) -> Result<(), Failure> {
        let device = self.rng.below(self.world.options.devices.into()) as u8;
        let on_server = self.rng.below(100) < 40;
        let moment = self.moment(on_server);
        match moment {
            Moment::Both => {
                self.kill(Victim::Server, Moment::Both);
                self.kill(Victim::Device(device), Moment::Both);
            }
            Moment::Sent | Moment::Accepted | Moment::Told => self.trap(moment, on_server)?,
            Moment::Handling => {
                self.next_line(device)?;
                self.kill(Victim::Device(device), Moment::Handling);
            }
            _ if on_server => self.kill(Victim::Server, Moment::Random),
            _ => self.kill(Victim::Device(device), Moment::Random),
        }
        Ok(())
    }

    fn moment(&mut self, on_server: bool) -> Moment {
        match (self.rng.below(100), on_server) {
            (0..8, _) => Moment::Both,
            (8..24, true) => Moment::Sent,
            (24..46, true) => Moment::Accepted,
            (46..62, true) => Moment::Told,
            (8..40, false) => Moment::Handling,
            (40..58, false) => Moment::Told,
            _ => Moment::Random,
        }
    }

    fn kill(&mut self, victim: Victim, moment: Moment) {
        let killed = match victim {
            Victim::Server => self.world.kill_server(moment),
            Victim::Device(at) => self.world.kill_device(at, moment),
        };
        if killed {
            self.comes_back(victim);
        }
    }

    fn comes_back(&mut self, victim: Victim) {
        let long = matches!(victim, Victim::Device(_)) && self.rng.below(100) < 8;
        let [from, to] = if long { LONG_AWAY } else { AWAY };
        let at = self.world.since() + self.rng.between(from, to);
        self.down.push((at, victim));
    }

    /// A pusher kills, at the moment it sees.
    fn trap(&mut self, moment: Moment, on_server: bool) -> Result<(), Failure> {
        self.world.trap.arm(moment, !on_server);
        let until = self.world.since() + MOMENT_WITHIN;
        while self.world.trap.is_armed() && self.world.since() < until {
            self.restart()?;
            pause(LOOK_EVERY);
        }
        self.world.trap.disarm();
        // Whoever was hit is down; those that are down already are on the list.
        let listed: Vec<_> = self.down.iter().map(|(_, victim)| *victim).collect();
        if !self.world.server().is_running() && !listed.iter().any(|victim| matches!(victim, Victim::Server))
        {
            self.comes_back(Victim::Server);
        }
        for at in 0..self.world.options.devices {
            let listed = listed.iter().any(|victim| matches!(victim, Victim::Device(of) if *of == at));
            if !listed && !self.world.device(at).is_running() {
                self.comes_back(Victim::Device(at));
            }
        }
        Ok(())
    }

    /// Waits for the next order that is handed over on a device.
    fn next_line(&mut self, device: u8) -> Result<(), Failure> {
        let path = self.world.ledger(device);
        let (before, until) = (ledger::len(&path), self.world.since() + MOMENT_WITHIN);
        while ledger::len(&path) == before && self.world.since() < until {
            self.restart()?;
            pause(LOOK_EVERY);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trap_springs_once_at_its_moment() {
        let trap = Trap::default();
        assert_eq!(trap.spring(Moment::Sent), None);
        trap.arm(Moment::Accepted, false);
        assert_eq!((trap.spring(Moment::Told), trap.is_armed()), (None, true));
        assert_eq!(trap.spring(Moment::Accepted), Some(false));
        assert_eq!((trap.spring(Moment::Accepted), trap.disarm()), (None, false));
        trap.arm(Moment::Told, true);
        assert!(trap.disarm() && trap.spring(Moment::Told).is_none());
        trap.count(Moment::Both, None);
        trap.count(Moment::Both, Some(2));
        trap.count(Moment::Random, Some(2));
        assert_eq!((trap.total(), trap.of_device(2), trap.of_device(1)), (3, 2, 0));
        assert_eq!(trap.kills()[&Moment::Both], [1, 1]);
    }
}
