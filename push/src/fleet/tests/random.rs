//! Random lists of operations: the invariants of `check` hold after each, and in the end every pair has one outcome.

use super::*;
use proptest::prelude::*;

const DEVICES: usize = 4;

#[derive(Clone, Debug)]
enum Op {
    /// New orders are of this log from now on.
    Durable {
        on: bool,
    },
    /// What is told to be logged is on disk at once from now on, or waits.
    Logs {
        on: bool,
    },
    /// One of the ends that wait is on disk, whichever.
    Log {
        at: u8,
    },
    /// The oldest session that waits is.
    Traced,
    /// The durable log is given up, and another one begins.
    Renew,
    Submit {
        lane: u8,
        idempotent: bool,
        targets: u8,
        payload: u16,
        lifetime_ms: Option<u32>,
    },
    /// With one of two supersede keys, each with its own lane, and the next version.
    Supersede {
        key: u8,
        targets: u8,
        lifetime_ms: Option<u32>,
    },
    /// Cancels one of the orders submitted last.
    Cancel {
        back: u8,
    },
    /// Another attempt at what waits for one: submitted, or only announced and ended at once.
    Retry {
        submit: bool,
        code: u8,
    },
    /// The device keeps its floors over boots from now on, or not; and says that it began one of the orders it has.
    Journal {
        device: usize,
        persisted: bool,
        began: bool,
    },
    Advance {
        ms: u16,
    },
    Room {
        device: usize,
        bytes: u16,
    },
    Writable {
        device: usize,
    },
    Cut {
        device: usize,
    },
    Reboot {
        device: usize,
    },
    Freeze {
        device: usize,
    },
    Habit {
        device: usize,
        habit: u8,
    },
    Finish {
        device: usize,
        code: u8,
    },
    Remove {
        device: usize,
    },
    Announce {
        device: usize,
    },
    Junk {
        device: usize,
        bytes: Vec<u8>,
    },
    Pause,
}

fn ops() -> impl Strategy<Value = Op> {
    let device = 0..DEVICES;
    prop_oneof![
        3 => any::<bool>().prop_map(|on| Op::Durable { on }),
        2 => any::<bool>().prop_map(|on| Op::Logs { on }),
        6 => any::<u8>().prop_map(|at| Op::Log { at }),
        3 => Just(Op::Traced),
        1 => Just(Op::Renew),
        8 => (0_u8..4, any::<bool>(), 1_u8..16, 0_u16..600, proptest::option::of(1_000_u32..60_000)).prop_map(
            |(lane, idempotent, targets, payload, lifetime_ms)| Op::Submit { lane, idempotent, targets, payload, lifetime_ms }
        ),
        6 => (0_u16..3_000).prop_map(|ms| Op::Advance { ms }),
        3 => (device.clone(), 0_u16..700).prop_map(|(device, bytes)| Op::Room { device, bytes }),
        4 => device.clone().prop_map(|device| Op::Writable { device }),
        2 => device.clone().prop_map(|device| Op::Cut { device }),
        1 => device.clone().prop_map(|device| Op::Reboot { device }),
        1 => device.clone().prop_map(|device| Op::Freeze { device }),
        2 => (device.clone(), 0_u8..3).prop_map(|(device, habit)| Op::Habit { device, habit }),
        4 => (device.clone(), 0_u8..4).prop_map(|(device, code)| Op::Finish { device, code }),
        4 => (0_u8..2, 1_u8..16, proptest::option::of(20_000_u32..60_000))
            .prop_map(|(key, targets, lifetime_ms)| Op::Supersede { key, targets, lifetime_ms }),
        3 => (0_u8..6).prop_map(|back| Op::Cancel { back }),
        3 => (any::<bool>(), 0_u8..4).prop_map(|(submit, code)| Op::Retry { submit, code }),
        1 => (device.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(device, persisted, began)| Op::Journal { device, persisted, began }),
        1 => device.clone().prop_map(|device| Op::Announce { device }),
        1 => (device.clone(), proptest::collection::vec(any::<u8>(), 1..40))
            .prop_map(|(device, bytes)| Op::Junk { device, bytes }),
        1 => Just(Op::Pause),
        1 => (DEVICES - 1..DEVICES).prop_map(|device| Op::Remove { device }),
    ]
}

fn end(code: u8) -> Code {
    [Code::APPLIED, Code::FAILED, Code::BUSY, Code::NO_SPACE][usize::from(code)]
}

impl World {
    fn apply_op(&mut self, op: &Op) {
        match *op {
            Op::Durable { on } => self.durable = on,
            Op::Logs { on } => self.logs = on,
            Op::Log { at } => {
                let at = usize::from(at).checked_rem(self.unlogged.len());
                if let Some(entry) = at.and_then(|at| self.unlogged.remove(at)) {
                    self.confirm(entry);
                }
            }
            Op::Traced => {
                if let Some(trace) = self.untraced.pop_front() {
                    self.fleet.traced(self.now, trace.device, trace.boot);
                }
            }
            Op::Renew => self.renew(),
            Op::Submit { lane, idempotent, targets, payload, lifetime_ms } => {
                let flags = if idempotent { KindFlags::IDEMPOTENT } else { KindFlags::NONE };
                let marks =
                    (0..DEVICES).map(|at| if targets >> at & 1 == 1 { Mark::PENDING.0 } else { 0 }).collect();
                let lifetime = lifetime_ms.map(|ms| Duration::from_millis(ms.into()));
                let lane = Lane::new(lane).unwrap();
                let order = new_order(self.number + 1, lane, flags, lifetime, payload.into(), marks);
                let order = if self.durable { as_durable(order) } else { order };
                if self.fleet.submit(self.now, order).is_ok() {
                    self.number += 1;
                }
            }
            Op::Advance { ms } => self.advance(ms.into()),
            Op::Room { device, bytes } => self.devices[device].room = bytes.into(),
            Op::Writable { device } => {
                self.devices[device].room = usize::MAX;
                self.fleet.handle_writable(self.now, DeviceIndex(device as u32));
            }
            Op::Cut { device } => self.cut(device),
            Op::Reboot { device } => {
                self.devices[device].doubt_begun();
                self.devices[device].reboot();
                self.cut(device);
            }
            Op::Freeze { device } => {
                let device = &mut self.devices[device];
                device.frozen = !device.frozen;
                device.read(&[]);
            }
            Op::Habit { device, habit } => {
                self.devices[device].habit = [Habit::Apply, Habit::Ack, Habit::Silent][usize::from(habit)];
            }
            Op::Finish { device, code } => self.devices[device].finish(end(code)),
            Op::Supersede { key, targets, lifetime_ms } => self.supersede(key, targets, lifetime_ms),
            Op::Cancel { back } => {
                self.fleet.cancel(self.now, self.number.saturating_sub(back.into()));
            }
            Op::Retry { submit, code } => self.retry(submit, end(code)),
            Op::Journal { device, persisted, began } => {
                let device = &mut self.devices[device];
                device.persisted = persisted;
                let kept = device.kept.first().filter(|_| began);
                device.started = kept.map(|kept| begun(kept.number, kept.lane, true)).into_iter().collect();
            }
            Op::Remove { device } => {
                self.fleet.remove_device(self.now, DeviceIndex(device as u32));
            }
            Op::Announce { device } => {
                self.fleet.set_address(self.now, DeviceIndex(device as u32), address(device))
            }
            Op::Junk { device, ref bytes } => self.devices[device].answers.extend_from_slice(bytes),
            Op::Pause => self.now = self.now + Duration::from_secs(20),
        }
        self.drain();
    }

    fn supersede(&mut self, key: u8, targets: u8, lifetime_ms: Option<u32>) {
        let marks = (0..DEVICES).map(|at| if targets >> at & 1 == 1 { Mark::PENDING.0 } else { 0 }).collect();
        let lifetime = lifetime_ms.map(|ms| Duration::from_millis(ms.into()));
        let (number, lane) = (self.number + 1, Lane::new(key + 1).unwrap());
        let sort = (lane, KindFlags::IDEMPOTENT);
        let order = keyed_order(number, sort, (u64::from(key) + 1, number), None, lifetime, 40, marks);
        let order = if self.durable { as_durable(order) } else { order };
        match self.fleet.submit(self.now, order) {
            Ok(_) => self.number = number,
            Err(error) => {
                assert!(matches!(
                    error.why,
                    SubmitFault::ShorterLife | SubmitFault::Full | SubmitFault::Stopped
                ))
            }
        }
    }

    /// What the old log says after this is worth nothing.
    fn renew(&mut self) {
        let log = LogId::new(Lineage([self.number as u8 | 1; 16]), 1_000 + self.number, self.number + 1);
        self.drain();
        self.fleet.abandon_durable(self.now);
        self.drain();
        assert!(self.fleet.renew(self.now, log, self.number), "every order of the old one has come back");
        self.unlogged.clear();
        self.untraced.clear();
    }

    /// Repeats the first attempt that waits for it.
    fn retry(&mut self, submit: bool, code: Code) {
        let waits = |number: &u64| {
            let marks = self.fleet.marks(*number).map_or(&[][..], |(_, marks)| marks);
            let at = marks.iter().position(|&mark| Mark(mark).attempt_code().is_some())?;
            Some((*number, at))
        };
        let Some((first, at)) = (1..=self.number).find_map(|number| waits(&number)) else { return };
        let device = DeviceIndex(at as u32);
        if submit {
            let mut marks = vec![0; DEVICES];
            marks[at] = Mark::PENDING.0;
            let number = self.number + 1;
            let sort = (Lane::Normal, KindFlags::IDEMPOTENT);
            let order = keyed_order(number, sort, (0, 0), Some(first), Some(HOUR / 200), 40, marks);
            let frame = self.fleet.frame(first).expect("it lives");
            let order = if frame[5] & 0x08 != 0 { as_durable(order) } else { order };
            if self.fleet.submit(self.now, order).is_err() {
                return;
            }
            self.number = number;
        }
        assert!(self.fleet.retry_begins(first, device));
        if submit {
            self.children.insert(self.number, (first, device));
        } else {
            assert!(self.fleet.resolve(self.now, first, device, code));
        }
    }

    /// Ends the orders whose last attempt has ended.
    fn resolve(&mut self) {
        let ended: Vec<u64> =
            self.settled().into_iter().filter(|number| self.children.contains_key(number)).collect();
        for number in ended {
            let (first, device) = self.children.remove(&number).unwrap();
            let code = self.outcomes().iter().find(|(_, told, _)| *told == number).map(|&(_, _, code)| code);
            self.fleet.resolve(self.now, first, device, code.unwrap_or(Code::OVERFLOW));
            self.drain();
        }
    }

    /// Lets every device recover and answer everything.
    fn calm_down(&mut self) {
        self.logs = true;
        // What waits for another attempt, or for the end of one, ends with its lifetime at the latest.
        for _ in 0..80 {
            self.log();
            self.resolve();
            self.retry(false, Code::NO_SPACE);
            for index in 0..DEVICES {
                self.devices[index].frozen = false;
                self.devices[index].room = usize::MAX;
                self.devices[index].habit = Habit::Apply;
                self.devices[index].read(&[]);
                self.devices[index].started.clear();
                self.devices[index].finish(Code::APPLIED);
                self.fleet.handle_writable(self.now, DeviceIndex(index as u32));
            }
            self.advance(3_000);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]
    #[test]
    fn every_pair_ends_exactly_once(ops in proptest::collection::vec(ops(), 1..120), window in 1_u16..9) {
        let mut world = World::with(DEVICES, 24, durable_log);
        for device in &mut world.devices {
            device.window_orders = window;
            device.window_bytes = 1_024;
        }
        world.advance(100);
        let mut idempotent = Vec::new();
        for op in &ops {
            let before = world.number;
            world.apply_op(op);
            world.resolve();
            let twice = !matches!(op, Op::Submit { idempotent: false, .. });
            if twice && world.number != before {
                idempotent.push(world.number);
            }
        }
        world.calm_down();
        prop_assert_eq!(world.fleet.live_orders(), 0, "{:?}", world.fleet);
        let mut outcomes = world.outcomes();
        let told = outcomes.len();
        outcomes.sort_unstable_by_key(|(device, number, _)| (*device, *number));
        outcomes.dedup_by_key(|(device, number, _)| (*device, *number));
        prop_assert_eq!(outcomes.len(), told, "an outcome was told twice");
        prop_assert_eq!(world.settled().len() as u64, world.number);
        for event in &world.events {
            if let Event::Settled { marks, .. } = event {
                prop_assert!(marks.iter().all(|&mark| mark == 0 || Mark(mark).is_final()));
            }
        }
        // What must not run twice did not, in whatever boot; what is reported as applied has run.
        for (index, device) in world.devices.iter().enumerate() {
            for (number, times) in &device.effects {
                prop_assert!(*times == 1 || idempotent.contains(number), "{} ran {} times", number, times);
            }
            for (_, number, _) in world.outcomes().iter().filter(|(to, _, code)| (*to as usize, *code) == (index, Code::APPLIED)) {
                prop_assert!(device.effects.contains_key(number), "{} on {} never ran", number, index);
            }
        }
    }
}
