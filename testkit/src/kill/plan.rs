//! The orders of a campaign, drawn from its seed.

use serde_json::{Value, json};
use wire_format::ids::Lane;
use wire_format::rng::Rng;

use super::{Disk, Options};

/// Bytes of a payload at most, beside the 8 of its name.
const PAYLOAD_MAX: u64 = 600;
/// The same where segments of the log shall be full soon.
const LARGE_MAX: u64 = 60_000;
/// Orders of this kind are rejected by one of the devices.
pub(super) const REJECTED_KIND: &str = "0x8009";
/// Short enough to be over while a device is away.
const SHORT_MS: u64 = 2_500;

/// An order as it is asked for, and what was answered.
#[derive(Clone, Debug)]
pub(super) struct Deed {
    /// Its name: the first 8 bytes of its payload.
    pub(super) name: u64,
    pub(super) keyed: bool,
    pub(super) volatile: bool,
    pub(super) lane: Lane,
    pub(super) idempotent: bool,
    pub(super) cancel: bool,
    pub(super) rejected: bool,
    /// Key and version.
    pub(super) supersede: Option<(u64, u64)>,
    pub(super) lifetime_ms: Option<u64>,
    /// Devices, from 0.
    pub(super) targets: Vec<u8>,
    pub(super) payload: Vec<u8>,
    /// How long the first push waits for outcomes.
    pub(super) wait_ms: u64,
}

impl Deed {
    /// The request, waiting so long for outcomes.
    pub(super) fn request(&self, wait_ms: u64, ids: &[String]) -> Value {
        let to = self.targets.iter().map(|at| format!("id={}", ids[usize::from(*at)]));
        let to = to.collect::<Vec<_>>().join(",");
        let mut request = json!({
            "do": "push", "kind": if self.rejected { REJECTED_KIND } else { "0x8001" }, "schema": 1,
            "payload": hex(&self.payload), "lane": self.lane.index(), "to": to, "wait_ms": wait_ms,
            "idempotent": self.idempotent, "cancellable": self.cancel, "volatile": self.volatile,
            "stream": true, "each": true,
        });
        if self.keyed {
            request["key"] = format!("deed-{}", self.name).into();
        }
        if let Some((key, version)) = self.supersede {
            request["supersede_key"] = format!("page-{key}").into();
            request["supersede_version"] = version.into();
        }
        if let Some(lifetime) = self.lifetime_ms {
            request["lifetime_ms"] = lifetime.into();
        }
        request
    }
}

/// Draws the orders of one pusher.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    rng: Rng,
    pusher: u64,
    devices: u8,
    volatile: bool,
    payload_max: u64,
    next: u64,
}

impl Plan {
    pub(super) fn new(options: &Options, pusher: u8) -> Self {
        let pusher = u64::from(pusher);
        let Options { seed, devices, volatile, disk, .. } = *options;
        let payload_max = if disk == Disk::Full { LARGE_MAX } else { PAYLOAD_MAX };
        Self { rng: Rng::new(seed ^ (pusher + 1) << 40), pusher, devices, volatile, payload_max, next: 0 }
    }

    pub(super) const fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.rng.below(100) < percent
    }

    /// The next one.
    pub(super) fn next(&mut self) -> Deed {
        self.next += 1;
        let name = self.pusher << 32 | self.next;
        let volatile = self.volatile || self.percent(15);
        // Nothing is promised of the order between the two logs, so neither has versions of the other's.
        let key = self.pusher << 1 | u64::from(volatile);
        let supersede = self.percent(12).then_some((key, self.next));
        // A key of versions is bound to one lane, and a version lives as long as the one before.
        let lane = if supersede.is_some() { Lane::Normal } else { self.lane() };
        let cancel = supersede.is_none() && self.percent(6);
        let short = supersede.is_none() && self.percent(8);
        // Some wait for outcomes; of the others they are asked for later.
        let wait_ms = if cancel || self.percent(50) { 0 } else { self.rng.below(300) };
        Deed {
            name,
            keyed: self.percent(85),
            volatile,
            lane,
            idempotent: self.percent(50),
            cancel,
            rejected: self.percent(5),
            supersede,
            lifetime_ms: short.then_some(SHORT_MS),
            targets: self.targets(),
            payload: self.payload(name),
            wait_ms,
        }
    }

    fn lane(&mut self) -> Lane {
        [Lane::Urgent, Lane::Interactive, Lane::Normal, Lane::Bulk][self.rng.below(4) as usize]
    }

    fn targets(&mut self) -> Vec<u8> {
        let all = 0..self.devices;
        if self.percent(40) {
            return all.collect();
        }
        let some = self.rng.next_u64();
        let one = self.rng.below(self.devices.into()) as u8;
        all.filter(|at| *at == one || some >> at & 3 == 3).collect()
    }

    fn payload(&mut self, name: u64) -> Vec<u8> {
        let more = self.rng.below(self.payload_max);
        let drawn = (0..more).map(|_| self.rng.next_u64() as u8).collect::<Vec<_>>();
        name.to_le_bytes().into_iter().chain(drawn).collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_of_all_sorts_are_drawn_and_again_from_the_same_seed() {
        let draw = |seed| {
            let mut plan = Plan::new(&Options { seed, devices: 5, ..Options::default() }, 3);
            (0..400).map(|_| plan.next()).collect::<Vec<_>>()
        };
        let deeds = draw(7);
        assert_eq!(format!("{deeds:?}"), format!("{:?}", draw(7)));
        let count = |is: fn(&Deed) -> bool| deeds.iter().filter(|deed| is(deed)).count();
        let sorts = [
            count(|deed| deed.keyed),
            count(|deed| !deed.keyed),
            count(|deed| deed.volatile),
            count(|deed| deed.idempotent),
            count(|deed| deed.cancel),
            count(|deed| deed.rejected),
            count(|deed| deed.supersede.is_some()),
            count(|deed| deed.lifetime_ms.is_some()),
            count(|deed| deed.targets.len() == 5),
            count(|deed| deed.targets.len() == 1),
        ];
        assert!(sorts.iter().all(|n| *n > 5), "{sorts:?}");
        for lane in Lane::ALL {
            assert!(deeds.iter().any(|deed| deed.lane == lane), "{lane:?}");
        }
        assert!(deeds.iter().all(|deed| deed.payload.starts_with(&deed.name.to_le_bytes())));
        let versions: Vec<_> = deeds.iter().filter_map(|deed| deed.supersede).collect();
        assert!(versions.windows(2).all(|pair| pair[0].1 < pair[1].1), "versions rise");
        let keys = |volatile| {
            deeds.iter().filter(move |deed| deed.volatile == volatile).filter_map(|deed| deed.supersede)
        };
        assert!(
            keys(true).all(|(key, _)| keys(false).all(|(other, _)| key != other)),
            "each log has its own"
        );
    }

    #[test]
    fn the_request_says_what_was_drawn() {
        let deed = Deed {
            name: 1,
            keyed: true,
            volatile: false,
            lane: Lane::Bulk,
            idempotent: true,
            cancel: false,
            rejected: true,
            supersede: Some((2, 9)),
            lifetime_ms: Some(2_500),
            targets: vec![1],
            payload: vec![1, 255],
            wait_ms: 0,
        };
        let request = deed.request(70, &["aa".into(), "bb".into()]);
        let said = ["to", "payload", "kind", "key", "supersede_key"].map(|name| request[name].clone());
        assert_eq!(said, ["id=bb", "01ff", REJECTED_KIND, "deed-1", "page-2"].map(Value::from));
        let said = ["lane", "wait_ms", "lifetime_ms", "supersede_version"].map(|name| request[name].clone());
        assert_eq!(said, [3, 70, 2_500, 9].map(Value::from));
        assert_eq!((&request["idempotent"], &request["volatile"]), (&true.into(), &false.into()));
    }
}
