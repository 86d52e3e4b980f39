//! One caller of the control socket: pushes, writes down what is answered, repeats what was not.

use std::time::Duration;

use serde_json::{Value, json};
use wire_format::frame::outcome::Code;
use wire_format::rng::Rng;

use super::control::Control;
use super::killer::Moment;
use super::plan::{Deed, Plan};
use super::world::{Answer, Standing, What, World, pause};

/// Between two looks whether a server is up.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Between two pushes, at most.
const REST: Duration = Duration::from_millis(25);
/// Of a hundred turns so many ask for an order of before, under its key.
const ASK_AGAIN: u64 = 15;

/// A connection to the server, and to which run of it.
pub(super) type Line = Option<(Control, u32)>;

/// How a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Went {
    /// It was answered to the end.
    Whole,
    /// The server went away, or nobody answered in the first place.
    Lost,
}

/// Pushes until the campaign stops.
pub(super) fn run(world: &World, at: u8) {
    let mut plan = Plan::new(&world.options, at);
    let mut line = None;
    while !world.is_stopped() {
        if plan.rng().below(100) < ASK_AGAIN
            && let Some(deed) = open_one(world, plan.rng())
        {
            ask(world, &mut line, &deed, deed.wait_ms);
        } else {
            push(world, &mut line, plan.next());
        }
        pause(plan.rng().between(Duration::ZERO, REST));
    }
}

/// An order that has not all its outcomes, and can be asked for.
fn open_one(world: &World, rng: &mut Rng) -> Option<Deed> {
    let deeds = world.deeds();
    let open: Vec<_> = deeds.values().filter(|standing| may_ask(world, standing)).collect();
    let one = usize::try_from(rng.below(open.len() as u64)).ok()?;
    open.get(one).map(|standing| standing.deed.clone())
}

/// Whether a push under the same key is the same deed: the key is kept with the order, and with a volatile one as long as the
/// server runs.
pub(super) fn may_ask(world: &World, standing: &Standing) -> bool {
    let kept = !standing.deed.volatile || standing.answer.is_some() && standing.run == run_of(world);
    standing.deed.keyed && kept && !standing.is_over()
}

fn run_of(world: &World) -> u32 {
    world.run.load(std::sync::atomic::Ordering::Relaxed)
}

fn push(world: &World, line: &mut Line, deed: Deed) {
    let name = deed.name;
    let standing = Standing::new(deed.clone(), world.since(), run_of(world));
    world.deeds().insert(name, standing);
    ask(world, line, &deed, deed.wait_ms);
    // A version must not come after its successor, so the answer is waited for before the next push.
    while deed.keyed && !deed.volatile && !is_answered(world, name) && !world.is_stopped() {
        ask(world, line, &deed, deed.wait_ms);
    }
    if deed.cancel {
        cancel(world, line, name);
    }
}

fn is_answered(world: &World, name: u64) -> bool {
    world.deeds().get(&name).is_some_and(|standing| standing.answer.is_some() || standing.refused.is_some())
}

/// A connection to the server that runs now; waits for one as long as the campaign lasts.
pub(super) fn connect(world: &World, line: &mut Line) -> bool {
    while line.is_none() && !world.is_stopped() {
        let run = run_of(world);
        // Another server may be there by then: the order would be said to be of the wrong run.
        *line =
            Control::connect(&world.control).map(|control| (control, run)).filter(|_| run_of(world) == run);
        if line.is_none() {
            pause(LOOK_EVERY);
        }
    }
    line.is_some()
}

/// Pushes a deed, for the first time or again, and writes down all that is answered.
pub(super) fn ask(world: &World, line: &mut Line, deed: &Deed, wait_ms: u64) -> Went {
    if !connect(world, line) {
        return Went::Lost;
    }
    let Some((mut control, run)) = line.take() else { return Went::Lost };
    if let Some(standing) = world.deeds().get_mut(&deed.name) {
        // The key of a volatile order went with the server that knew it: this would be another order.
        if deed.volatile && standing.pushes > 0 && standing.run != run {
            *line = Some((control, run));
            return Went::Lost;
        }
        standing.pushes += 1;
        if standing.pushes == 1 {
            standing.run = run;
        }
    }
    if control.ask(&deed.request(wait_ms, &world.ids)).is_err() {
        return Went::Lost;
    }
    if world.trap.spring(Moment::Sent).is_some() {
        world.kill_server(Moment::Sent);
    }
    loop {
        match control.next() {
            Ok(Some(answer)) => {
                if heard(world, deed, run, &answer) {
                    *line = Some((control, run));
                    return Went::Whole;
                }
            }
            Ok(None) => return Went::Lost,
            Err(error) => {
                world.note(format!("the control socket failed: {error}"));
                return Went::Lost;
            }
        }
    }
}

/// Writes down a line of an answer; true for the last one.
fn heard(world: &World, deed: &Deed, run: u32, answer: &Value) -> bool {
    match answer["event"].as_str() {
        Some("accepted") => {
            accepted(world, deed.name, run, answer);
            if world.trap.spring(Moment::Accepted).is_some() {
                world.kill_server(Moment::Accepted);
            }
            false
        }
        Some("outcome" | "device") => {
            outcome(world, deed, answer);
            false
        }
        Some("summary") => {
            if let Some(standing) = world.deeds().get_mut(&deed.name) {
                let counts = answer["outcomes"].as_object().into_iter().flatten();
                standing.summary = counts.filter_map(|(code, n)| Some((code.clone(), n.as_u64()?))).collect();
            }
            true
        }
        _ => {
            let why = answer["error"].as_str().unwrap_or("an answer nobody knows").to_owned();
            if let Some(standing) = world.deeds().get_mut(&deed.name) {
                let refused =
                    if standing.answer.is_some() { &mut standing.disowned } else { &mut standing.refused };
                refused.get_or_insert(why);
            }
            true
        }
    }
}

fn accepted(world: &World, name: u64, run: u32, answer: &Value) {
    let (Some(number), Some(durable)) = (answer["order"].as_u64(), answer["durable"].as_bool()) else {
        return;
    };
    let at = world.since();
    if let Some(standing) = world.deeds().get_mut(&name) {
        let first = *standing.answer.get_or_insert(Answer { number, durable, run, at });
        if (first.number, first.durable) != (number, durable) {
            standing.others.push(number);
        }
    }
}

fn outcome(world: &World, deed: &Deed, answer: &Value) {
    let id = answer["device"].as_str().unwrap_or_default().replace('-', "");
    let device = world.ids.iter().position(|known| *known == id).and_then(|at| u8::try_from(at).ok());
    let code = answer["outcome"].as_str().and_then(code_of);
    let (Some(device), Some(code)) = (device, code) else { return };
    world.outcome(deed.name, device, code);
    match world.trap.spring(Moment::Told) {
        Some(true) => drop(world.kill_device(device, Moment::Told)),
        Some(false) => drop(world.kill_server(Moment::Told)),
        None => {}
    }
}

pub(super) fn code_of(name: &str) -> Option<Code> {
    Code::NAMES.iter().find(|(_, known)| *known == name).map(|(code, _)| *code)
}

/// Takes an order back. What is answered does not matter: the outcomes tell.
fn cancel(world: &World, line: &mut Line, name: u64) {
    let number = world.deeds().get(&name).and_then(|standing| standing.answer).map(|answer| answer.number);
    let (Some(number), Some((control, _))) = (number, line.as_mut()) else { return };
    world.see(What::Cancel { name });
    let answered = control.ask(&json!({"do": "cancel", "order": number})).and_then(|()| control.next());
    if !matches!(answered, Ok(Some(_))) {
        *line = None;
    }
}
