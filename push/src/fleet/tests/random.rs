//! Random lists of operations: the invariants of `check` hold after each, and in the end every pair has one outcome.

use super::*;
use proptest::prelude::*;

const DEVICES: usize = 4;

#[derive(Clone, Debug)]
enum Op {
    Submit { lane: u8, idempotent: bool, targets: u8, payload: u16, lifetime_ms: Option<u32> },
    Advance { ms: u16 },
    Room { device: usize, bytes: u16 },
    Writable { device: usize },
    Cut { device: usize },
    Reboot { device: usize },
    Freeze { device: usize },
    Habit { device: usize, habit: u8 },
    Finish { device: usize, failed: bool },
    Remove { device: usize },
    Announce { device: usize },
    Junk { device: usize, bytes: Vec<u8> },
    Pause,
}

fn ops() -> impl Strategy<Value = Op> {
    let device = 0..DEVICES;
    prop_oneof![
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
        4 => (device.clone(), any::<bool>()).prop_map(|(device, failed)| Op::Finish { device, failed }),
        1 => device.clone().prop_map(|device| Op::Announce { device }),
        1 => (device.clone(), proptest::collection::vec(any::<u8>(), 1..40))
            .prop_map(|(device, bytes)| Op::Junk { device, bytes }),
        1 => Just(Op::Pause),
        1 => (DEVICES - 1..DEVICES).prop_map(|device| Op::Remove { device }),
    ]
}

impl World {
    fn apply_op(&mut self, op: &Op) {
        match *op {
            Op::Submit { lane, idempotent, targets, payload, lifetime_ms } => {
                let flags = if idempotent { KindFlags::IDEMPOTENT } else { KindFlags::NONE };
                let marks =
                    (0..DEVICES).map(|at| if targets >> at & 1 == 1 { Mark::PENDING.0 } else { 0 }).collect();
                let lifetime = lifetime_ms.map(|ms| Duration::from_millis(ms.into()));
                let lane = Lane::new(lane).unwrap();
                let order = new_order(self.number + 1, lane, flags, lifetime, payload.into(), marks);
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
            Op::Finish { device, failed } => {
                self.devices[device].finish(if failed { Code::FAILED } else { Code::APPLIED });
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

    /// Lets every device recover and answer everything.
    fn calm_down(&mut self) {
        for _ in 0..40 {
            for index in 0..DEVICES {
                self.devices[index].frozen = false;
                self.devices[index].room = usize::MAX;
                self.devices[index].habit = Habit::Apply;
                self.devices[index].read(&[]);
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
        let mut world = World::new(DEVICES, 24);
        for device in &mut world.devices {
            device.window_orders = window;
            device.window_bytes = 1_024;
        }
        world.advance(100);
        let mut idempotent = Vec::new();
        for op in &ops {
            let before = world.number;
            world.apply_op(op);
            if matches!(op, Op::Submit { idempotent: true, .. }) && world.number != before {
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
