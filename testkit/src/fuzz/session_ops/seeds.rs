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
    // A stranger's orders: one for later, others behind it, one cancelled, a result, questions, a large payload.
    let [stuck, waits, another] = [2, 3, 4].map(|number| [9, 8, number, 2, 0x04]);
    let cancel = [9, 11, 4, 0, 2];
    push(
        "later",
        &[&[0], &hello, &stuck, &[11, 2], &waits, &another, &cancel, &[16, 0], &[11, 0x30], &[11, 0], &[6]],
    );
    let asks =
        [&[14, 9, 0, 9, 0, 0, 1, 8, 5, 0][..], &[16, 2, 9, 13, 0, 0, 0x11], &[7; 8], &[9, 13, 7, 0, 0]];
    push("questions", &[&[0], &asks.concat(), &[8; 8], &[16, 4, 9, 14, 1, 0, 0]]);
    let large = [9, 10, 5, 0, 7, 3, 0];
    push("pieces", &[&[0], &hello, &large, &[9, 12, 7, 1, 3, 1, 2, 3, 0], &[11, 0, 6]]);
    let friendly = [8, 0, 5, 0, 0, 255, 0, 32, 0, 255];
    // Questions to it, a REPLY under the numbers of the first, an ASK of its own and the answer to it.
    let questions = [17, 1, 2, 200, 17, 1, 1, 7, 8, 10, 0, 0, 0, 1, 255, 8, 9, 0, 0, 5, 9, 255, 18, 0];
    push("asks", &[&[0], &connect, &friendly, &questions, &[0, 255, 32]]);
    push("large-payload", &[&[0], &connect, &friendly, &[19, 255], &[8, 8, 1, 0, 0, 64, 255], &[1, 5]]);
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
        let later = seed("later").receiver.stats();
        assert_eq!((later.later, later.parked, later.cancelled, later.delivered), (1, 2, 1, 2));
        assert_eq!((later.results, later.outcomes), (1, 3));
        let questions = seed("questions").receiver.stats();
        assert_eq!((questions.asked, questions.questions, questions.replies), (1, 1, 1));
        assert_eq!((questions.late_replies, questions.unanswered), (0, 0));
        let pieces = seed("pieces");
        assert_eq!((pieces.application.pieces, pieces.receiver.stats().delivered), (1, 1));
        assert_eq!(outcomes(&seed("dribble"), Code::APPLIED), 1);
        assert_eq!(outcomes(&seed("expires"), Code::EXPIRED), 1);
        let asks = seed("asks");
        let stats = asks.fleet.stats();
        assert_eq!((stats.asks, stats.replies, stats.unanswered), (2, 1, 1));
        assert_eq!((stats.questions, stats.answers), (1, 1));
        assert_eq!(seed("large-payload").fleet.stats().pieces, 3);
    }
}
