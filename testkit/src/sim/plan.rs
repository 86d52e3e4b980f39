//! What happens in a run, drawn from its seed before it begins: so that a part of it can be run as well.

use std::time::Duration;

use wire_format::ids::Lane;
use wire_format::rng::{Rng, mix};

use super::fault::{Fault, FaultSpec, draw_faults, draw_rare_faults};
use super::pieces::draw_large;
use super::questions::draw_questions;

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);

/// What kind of world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// One to four devices, half a minute of faults.
    Small,
    /// 8 to 64 devices, five minutes of faults.
    Large,
    /// 100 devices, a day of orders as a store has them, and a few faults.
    Day,
    /// 10,000 devices, a minute.
    Crowd,
}

impl Scene {
    /// All of them, as the command names them.
    pub const NAMED: [(&'static str, Self); 4] =
        [("small", Self::Small), ("large", Self::Large), ("day", Self::Day), ("crowd", Self::Crowd)];

    /// What the command calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMED.iter().find(|(_, scene)| *scene == self).map_or("", |(name, _)| name)
    }
}

/// Where a device keeps its journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeps {
    Nothing,
    Files,
    Flash,
}

/// A device.
#[derive(Clone, Debug)]
pub(super) struct DeviceSpec {
    pub(super) keeps: Keeps,
    /// It is there at all: shrinking takes devices away and leaves the names of the others.
    pub(super) present: bool,
    pub(super) window_orders: u16,
    pub(super) window_bytes: u32,
    pub(super) max_body: u32,
    /// No park and no queue, as on firmware.
    pub(super) small: bool,
    /// The server knows its id beforehand.
    pub(super) listed: bool,
    pub(super) scratch: usize,
    /// It takes payloads in pieces.
    pub(super) parts: bool,
}

/// Whom an order is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whom {
    One(usize),
    Percent(u64),
}

/// An order the application will push.
#[derive(Clone, Debug)]
pub(super) struct OrderSpec {
    /// Its name: stable while others are taken away. Stands at the head of its payload.
    pub(super) id: u32,
    pub(super) at: Duration,
    pub(super) lane: Lane,
    pub(super) idempotent: bool,
    pub(super) lifetime: Option<Duration>,
    /// The key it is a version of; versions rise with time.
    pub(super) versioned: Option<u64>,
    pub(super) key: u64,
    pub(super) len: usize,
    /// Its payload comes in pieces: which one, of those that several orders may have.
    pub(super) large: Option<u64>,
    pub(super) whom: Whom,
    pub(super) cancel_after: Option<Duration>,
    pub(super) durable: bool,
}

impl OrderSpec {
    pub(super) fn is_for(&self, device: usize) -> bool {
        match self.whom {
            Whom::One(one) => one == device,
            Whom::Percent(percent) => mix(u64::from(self.id) << 32 | device as u64) % 100 < percent,
        }
    }
}

/// In percent, how often this run does what orders and handlers can do. In every third run nothing of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Knobs {
    cancels: u64,
    versions: u64,
    keys: u64,
    durable: u64,
    pub(super) attempts: u64,
    pub(super) later: u64,
}

/// A run, before it begins.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) seed: u64,
    pub(super) scene: Scene,
    pub(super) devices: Vec<DeviceSpec>,
    pub(super) servers: usize,
    /// Servers have outboxes on disks.
    pub(super) durable: bool,
    pub(super) orders: Vec<OrderSpec>,
    pub(super) faults: Vec<FaultSpec>,
    pub(super) knobs: Knobs,
    /// Both sides ask and answer.
    pub(super) questions: bool,
    /// How long faults go on, and how long everything may take to settle after them.
    pub(super) storm: Duration,
    pub(super) calm: Duration,
    /// How long bytes take, as a rule.
    pub(super) delay: Duration,
    pub(super) chunk: u64,
}

impl Plan {
    /// The run of this seed.
    #[must_use]
    pub fn draw(scene: Scene, seed: u64) -> Self {
        let mut rng = Rng::new(mix(seed ^ 0x7111_3173));
        let (devices, storm) = match scene {
            Scene::Small => (1 + rng.below(4) as usize, SECOND * 30),
            Scene::Large => (8 + rng.below(57) as usize, SECOND * 300),
            Scene::Day => (100, SECOND * 86_400),
            Scene::Crowd => (10_000, SECOND * 60),
        };
        let quiet = matches!(scene, Scene::Day | Scene::Crowd);
        let knobs = if quiet {
            Knobs { later: 5, versions: 5, keys: 20, durable: 80, ..Knobs::default() }
        } else {
            draw_knobs(&mut rng)
        };
        let mut plan = Self {
            seed,
            scene,
            devices: (0..devices).map(|_| draw_device(&mut rng, quiet)).collect(),
            durable: quiet || rng.below(8) != 0,
            servers: if quiet { 1 } else { 1 + usize::from(rng.below(3) == 0) },
            orders: Vec::new(),
            faults: Vec::new(),
            knobs,
            questions: false,
            storm,
            calm: SECOND * 900,
            delay: if quiet { MS } else { MS * (1 + rng.below(40) as u32) },
            chunk: if quiet { 100_000 } else { [4, 20, 100, 5_000][rng.below(4) as usize] },
        };
        plan.orders = draw_orders(&plan, &mut rng);
        plan.faults = draw_faults(&plan, &mut rng);
        plan.faults.extend(draw_rare_faults(&plan));
        draw_large(&mut plan);
        draw_questions(&mut plan);
        // Who is known by an address alone is whoever answers there.
        if plan.has(|fault| matches!(fault, Fault::Swap { .. } | Fault::FalseAnnounce { .. })) {
            plan.devices.iter_mut().for_each(|device| device.listed = true);
        }
        plan
    }

    /// The same run, ending sooner: what happens later does not.
    #[must_use]
    pub fn until(mut self, end: Duration) -> Self {
        self.storm = self.storm.min(end);
        self.orders.retain(|order| order.at < end);
        self.faults.retain(|fault| fault.at < end);
        self
    }

    /// The seed it was drawn from.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// Devices, orders and faults in it.
    #[must_use]
    pub fn size(&self) -> [usize; 3] {
        let devices = self.devices.iter().filter(|device| device.present).count();
        [devices, self.orders.len(), self.faults.len()]
    }

    /// The faults in it, a line each.
    #[must_use]
    pub fn faults_text(&self) -> String {
        self.faults
            .iter()
            .map(|FaultSpec { at, fault }| format!("  {:>9.3} {fault:?}\n", at.as_secs_f64()))
            .collect()
    }

    /// Whether a fault of this kind is in it.
    pub(super) fn has(&self, is: impl Fn(&Fault) -> bool) -> bool {
        self.faults.iter().any(|spec| is(&spec.fault))
    }
}

fn draw_knobs(rng: &mut Rng) -> Knobs {
    let plain = rng.below(3) == 0;
    let share = 1 + rng.below(3);
    let mut percent = |most: u64| if plain { 0 } else { rng.below(most + 1) };
    Knobs {
        durable: [0, 50, 80, 100][share as usize],
        cancels: percent(40),
        versions: percent(60),
        keys: percent(40),
        later: percent(60),
        attempts: percent(40),
    }
}

fn draw_device(rng: &mut Rng, quiet: bool) -> DeviceSpec {
    let small = !quiet && rng.below(4) == 0;
    DeviceSpec {
        keeps: [Keeps::Nothing, Keeps::Files, Keeps::Files, Keeps::Flash][rng.below(4) as usize],
        present: true,
        window_orders: if quiet { 16 } else { 1 + rng.below(8) as u16 },
        window_bytes: if quiet { 16_384 } else { [512, 900, 16_384][rng.below(3) as usize] },
        max_body: if quiet { 8_192 } else { [1_024, 1_024, 6_000][rng.below(3) as usize] },
        small,
        listed: rng.below(5) != 0,
        scratch: push::receiver::SCRATCH_MIN + rng.below(2_000) as usize,
        parts: false,
    }
}

/// How long until the next burst of orders.
fn draw_wait(plan: &Plan, rng: &mut Rng) -> Duration {
    match plan.scene {
        Scene::Small => rng.between(MS, MS * 3_000),
        Scene::Large => rng.between(MS, MS * 4_000),
        Scene::Day => rng.between(SECOND, SECOND * 40),
        Scene::Crowd => rng.between(SECOND, SECOND * 10),
    }
}

fn draw_orders(plan: &Plan, rng: &mut Rng) -> Vec<OrderSpec> {
    let mut orders = Vec::new();
    let mut at = Duration::ZERO;
    loop {
        at += draw_wait(plan, rng);
        if at >= plan.storm {
            return orders;
        }
        // Bursts fill windows.
        let burst = if matches!(plan.scene, Scene::Small | Scene::Large) {
            [0, 0, 1, 12][rng.below(4) as usize]
        } else {
            0
        };
        for _ in 0..=burst {
            orders.push(draw_order(plan, rng, orders.len() as u32 + 1, at));
        }
    }
}

fn draw_order(plan: &Plan, rng: &mut Rng, id: u32, at: Duration) -> OrderSpec {
    let Knobs { cancels, versions, keys, durable, .. } = plan.knobs;
    let quiet = matches!(plan.scene, Scene::Day | Scene::Crowd);
    let mut chance = |percent: u64| rng.below(100) < percent;
    let versioned = chance(versions);
    let durable = chance(durable) && plan.durable;
    let (mortal, idempotent, keyed, cancelled, long) =
        (chance(40), chance(50), chance(keys), chance(cancels), chance(if quiet { 1 } else { 4 }));
    let versioned = versioned.then(|| 1 + rng.below(3));
    let whom = match plan.scene {
        Scene::Day if rng.below(20) == 0 => Whom::Percent(100),
        Scene::Day => Whom::One(rng.below(plan.devices.len() as u64) as usize),
        Scene::Crowd => Whom::Percent(100),
        _ => Whom::Percent(75),
    };
    let life = if quiet { (SECOND * 30, SECOND * 7_200) } else { (MS * 50, MS * 9_000) };
    OrderSpec {
        id,
        durable,
        at,
        lane: Lane::ALL[versioned.unwrap_or_else(|| rng.below(4)) as usize & 3],
        idempotent,
        lifetime: mortal.then(|| rng.between(life.0, life.1)),
        versioned,
        key: if keyed { 1 + rng.below(if quiet { 1 << 40 } else { 3 }) } else { 0 },
        len: 8 + rng.below(if long { 5_000 } else { 700 }) as usize,
        large: None,
        whom,
        cancel_after: cancelled.then(|| rng.between(Duration::ZERO, MS * 3_000)),
    }
}
