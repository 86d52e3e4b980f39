//! The end of a campaign: nobody is killed any more, and everything that was accepted has to end.

use std::sync::Mutex;
use std::time::Duration;

use wire_format::ids::Lane;

use super::plan::Deed;
use super::pusher::{self, Line};
use super::world::{Standing, World, pause};
use super::{Disk, Failure, judge, ledger};

/// Callers that ask for what is left.
const CALLERS: usize = 6;
/// How long an order is waited for before another one has its turn.
const TURN_MS: u64 = 3_000;
/// Orders that are pushed when all the rest has ended: the store has to be well.
const LAST_ORDERS: u64 = 12;
/// Their names begin here.
const LAST: u64 = 0xFF << 32;

/// Starts whoever is down and asks for each order with a key until it has ended, then pushes a few more.
pub(super) fn run(world: &World) -> Result<(), Failure> {
    if world.options.disk == Disk::Full {
        world.fill(false)?;
    }
    world.note("no more kills");
    (0..world.options.devices).try_for_each(|at| world.start_device(at))?;
    world.start_server()?;
    world.go_on();
    let until = world.since() + world.options.patience;
    ask_for_all(world, until)?;
    wait_for_the_rest(world, until)?;
    for at in 0..LAST_ORDERS {
        let deed = last(world, at);
        world.deeds().insert(deed.name, Standing::new(deed, world.since(), 0));
    }
    ask_for_all(world, until)?;
    world.stop();
    Ok(())
}

/// Whatever was broken before, this one goes everywhere.
fn last(world: &World, at: u64) -> Deed {
    let name = LAST | at;
    Deed {
        name,
        keyed: true,
        volatile: world.options.volatile || at % 3 == 2,
        lane: Lane::ALL[at as usize % Lane::ALL.len()],
        idempotent: at.is_multiple_of(2),
        cancel: false,
        rejected: false,
        supersede: None,
        lifetime_ms: None,
        targets: (0..world.options.devices).collect(),
        payload: name.to_le_bytes().to_vec(),
        wait_ms: TURN_MS,
    }
}

fn ask_for_all(world: &World, until: Duration) -> Result<(), Failure> {
    loop {
        world.check()?;
        let deeds = world.deeds();
        let open = deeds.values().filter(|standing| is_open(world, standing));
        let mut open: Vec<_> = open.map(|standing| standing.deed.clone()).collect();
        drop(deeds);
        if open.is_empty() || world.since() > until {
            return Ok(());
        }
        open.reverse();
        let open = Mutex::new(open);
        std::thread::scope(|scope| {
            for _ in 0..CALLERS {
                scope.spawn(|| {
                    let mut line: Line = None;
                    while let Some(deed) = open.lock().ok().and_then(|mut open| open.pop()) {
                        pusher::ask(world, &mut line, &deed, TURN_MS);
                        if world.since() > until {
                            return;
                        }
                    }
                });
            }
        });
        pause(Duration::from_millis(20));
    }
}

/// What has no key cannot be asked for; it shows in the ledgers when it has come.
fn wait_for_the_rest(world: &World, until: Duration) -> Result<(), Failure> {
    let deeds = world.deeds().clone();
    let names = ledger::names(deeds.values().map(|standing| &standing.deed));
    loop {
        world.check()?;
        // A line may be half written now; the judge reads when nobody writes.
        let devices = 0..world.options.devices;
        let ledgers: Vec<_> = devices.map(|at| ledger::read(&world.ledger(at)).unwrap_or_default()).collect();
        if judge::absent(&deeds, &names, &ledgers).is_empty() || world.since() > until {
            return Ok(());
        }
        pause(Duration::from_millis(100));
    }
}

/// One of the last ones was not pushed before; all others are asked for if they may be.
fn is_open(world: &World, standing: &Standing) -> bool {
    let first = standing.deed.name >= LAST && standing.pushes == 0;
    (first || pusher::may_ask(world, standing)) && !standing.is_told()
}
