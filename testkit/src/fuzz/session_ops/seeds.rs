//! The first lists of operations.

use crate::fuzz::Seed;

/// Lists that reach far: a session opens, an order is applied, a cut and a reboot come between, strangers speak.
pub(in crate::fuzz) fn seeds(seeds: &mut Vec<Seed>) {
    let connect = [1, 0, 3, 7, 3, 7, 6, 6];
    let submit = |mask, flags| vec![2, mask, 2, flags, 0, 2, b'h', b'i'];
    let apply = [6, 11, 0, 6, 1, 200, 6];
    let welcome = [8, 0, 5, 0, 0, 255, 0, 0, 0, 100];
    let mut push = |name: &str, parts: &[&[u8]]| {
        seeds.push(Seed { target: "session_ops", name: name.into(), bytes: parts.concat() });
    };
    push("applied", &[&[0], &connect, &submit(1, 0), &apply, &submit(1, 1), &apply]);
    push(
        "applied-then-cut",
        &[&[0], &connect, &submit(1, 0), &[6, 11, 0, 7, 0, 0, 255, 4], &connect, &apply],
    );
    push("rebooted-idempotent", &[&[0], &connect, &submit(1, 1), &[6, 13, 0, 255, 4], &connect, &apply]);
    push("rebooted-in-doubt", &[&[0], &connect, &submit(1, 0), &[6, 11, 0, 13, 0, 255, 4], &connect, &apply]);
    let outcome = [8, 3, 1, 2, 0, 1, 0, 0, 50];
    push(
        "hostile-device",
        &[&[0], &connect, &welcome, &submit(3, 0), &outcome, &[8, 2, 1, 2, 0, 1, 9], &apply],
    );
    let hello = [14, 9, 0, 9, 0, 0, 1, 0, 5, 0];
    let order = [9, 2, 1, 2, 0, 2, b'n', b'o'];
    push("hostile-server", &[&[0], &hello, &order, &[11, 0], &connect, &submit(1, 0), &apply]);
    push(
        "dribble",
        &[&[0], &connect, &[12, 0x83], &submit(1, 0), &[4, 1, 12, 0x85, 4, 1, 5, 1, 12, 0], &apply],
    );
    push("expires", &[&[0], &[2, 1, 0, 0, 5, 0, 0, 255, 8], &connect, &[15, 255], &submit(2, 0), &[15, 0]]);
}

#[cfg(test)]
mod tests {
    use wire_format::frame::outcome::Code;

    use super::super::{LINEAGE, World, run};

    fn seed(name: &str) -> World {
        let seeds = crate::fuzz::seeds();
        run(&seeds.iter().find(|seed| seed.target == "session_ops" && seed.name == name).unwrap().bytes)
    }

    /// A list that reaches nothing proves nothing.
    #[test]
    fn seeds_reach_what_their_names_say() {
        let outcomes = |world: &World, code| world.fleet.stats().outcomes.of(code);
        let applied = seed("applied");
        assert_eq!(
            (outcomes(&applied, Code::APPLIED), applied.applied.len(), applied.marks.len()),
            (2, 2, 0)
        );
        let again = seed("applied-then-cut");
        assert_eq!(
            (outcomes(&again, Code::APPLIED), again.applied.get(&1)),
            (1, Some(&1)),
            "said again, not done again"
        );
        let rebooted = seed("rebooted-idempotent");
        assert_eq!((outcomes(&rebooted, Code::APPLIED), rebooted.boot), (1, 2));
        assert_eq!(outcomes(&seed("rebooted-in-doubt"), Code::IN_DOUBT), 1);
        assert_eq!(outcomes(&seed("hostile-device"), Code::APPLIED), 2);
        let hostile = seed("hostile-server");
        assert!(
            hostile.handed.values().any(|(lineage, _)| *lineage != LINEAGE),
            "a stranger's order was handed over"
        );
        assert_eq!(outcomes(&seed("dribble"), Code::APPLIED), 1);
        assert_eq!(outcomes(&seed("expires"), Code::EXPIRED), 1);
    }
}
