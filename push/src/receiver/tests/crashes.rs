//! A device that loses its power at any write, with a server that believes what it says: nothing runs twice that must not,
//! no floor lies above what is recorded, and every end is said until it is settled.

use std::collections::BTreeMap;

use wire_format::frame::reject;
use wire_format::rng::Rng;

use super::*;

/// An order, as its server knows it.
#[derive(Clone, Debug)]
struct Owed {
    durable: bool,
    lane: Lane,
    idempotent: bool,
    /// The boot it was sent in last, 0 never.
    sent: u64,
    /// How it ended here, as far as the server knows.
    outcome: Option<Code>,
    /// Calls of the handler.
    calls: u32,
}

#[derive(Debug)]
struct Session {
    conn: ConnId,
    window: usize,
    /// Sent in this session and not covered by a SETTLED.
    credit: Vec<u64>,
    /// To be sent again before anything new.
    again: Vec<u64>,
}

struct Store {
    world: World,
    rng: Rng,
    orders: BTreeMap<u64, Owed>,
    session: Option<Session>,
    /// Per log and lane the last number an outcome was told of.
    told: BTreeMap<(bool, Lane), u64>,
    /// The power goes when the next write fails.
    dying: bool,
    counts: Counts,
}

/// How often what this is about happened.
#[derive(Debug, Default)]
struct Counts {
    boots: usize,
    cut_in_a_write: usize,
    in_doubt: usize,
    run_again: usize,
    failures: usize,
    repeated: usize,
    applied: usize,
}

impl Store {
    fn new(seed: u64) -> Self {
        Self {
            world: World::journalled(4),
            rng: Rng::new(seed),
            orders: BTreeMap::new(),
            session: None,
            told: BTreeMap::new(),
            dying: false,
            counts: Counts::default(),
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.rng.below(limit)
    }

    fn boot(&self) -> u64 {
        self.world.receiver.config().boot
    }

    fn step(&mut self) {
        match self.below(24) {
            0..=9 => self.send(),
            10..=12 => self.settle(),
            13..=15 => self.complete(),
            16 => self.cut(),
            17 => self.reboot(),
            18 => self.world.tape().grown = true,
            19 => self.take_back(),
            20 | 21 => {
                let good = self.below(5) as usize;
                self.world.tape().good = Some(good);
                self.dying = self.below(2) == 0;
            }
            _ => self.world.pass(Duration::from_millis(700)),
        }
        self.look();
        if self.session.is_none() && self.below(2) == 0 {
            self.open();
        }
        if self.below(4) == 0 {
            self.repair();
        }
    }

    fn repair(&mut self) {
        self.world.tape().good = None;
        self.world.pass(JOURNAL_RETRY);
        self.look();
    }

    fn open(&mut self) {
        let conn = self.world.connect();
        let _ = self.world.feed(conn, &frame(|buffer| hello().emit(buffer)));
        self.session = Some(Session { conn, window: 0, credit: Vec::new(), again: Vec::new() });
        self.look();
    }

    fn send(&mut self) {
        self.world.verdict = match self.below(5) {
            0 => Verdict::Later,
            1 => Verdict::Busy { retry_after: Duration::from_millis(5) },
            2 => Verdict::RejectedKind,
            _ => Verdict::Applied,
        };
        if self.session.as_ref().is_some_and(|session| session.credit.is_empty()) {
            // What is settled comes before the first order.
            for (durable, lane) in [false, true].into_iter().flat_map(|log| Lane::ALL.map(|lane| (log, lane)))
            {
                self.settle_in(durable, lane);
            }
        }
        let count = 1 + self.below(4) as usize;
        let mut bytes = Vec::new();
        for _ in 0..count {
            let boot = self.boot();
            let fresh = self.fresh();
            let Some(session) = &mut self.session else { return };
            session.again.retain(|number| self.orders[number].outcome.is_none());
            if session.window <= session.credit.len() {
                break;
            }
            let number = if session.again.is_empty() { fresh } else { session.again.remove(0) };
            session.credit.push(number);
            let order = self.orders.get_mut(&number).expect("it is known");
            let replay = order.sent != 0;
            order.sent = boot;
            let kind_flags = if order.idempotent { KindFlags::IDEMPOTENT } else { KindFlags::NONE };
            let (durable, lane) = (order.durable, order.lane);
            let order = Order { number, lane, kind_flags, ..plain() };
            bytes.extend(frame(|buffer| order.emit(&Delivery { durable, replay, ..FOREVER }, buffer)));
        }
        if let Some(session) = &self.session {
            let _ = self.world.feed(session.conn, &bytes);
        }
    }

    /// The number of an order that was never sent.
    fn fresh(&mut self) -> u64 {
        if let Some((number, _)) = self.orders.iter().find(|(_, order)| order.sent == 0) {
            return *number;
        }
        let number = self.orders.len() as u64 + 1;
        let order = Owed {
            durable: self.below(2) == 0,
            lane: Lane::new(self.below(2) as u8 * 2).expect("a lane"),
            idempotent: self.below(2) == 0,
            sent: 0,
            outcome: None,
            calls: 0,
        };
        self.orders.insert(number, order);
        number
    }

    /// Says what is settled in some lane of some log.
    fn settle(&mut self) {
        let (durable, lane) = (self.below(2) == 0, Lane::new(self.below(2) as u8 * 2).expect("a lane"));
        self.settle_in(durable, lane);
    }

    fn settle_in(&mut self, durable: bool, lane: Lane) {
        let Some(session) = &mut self.session else { return };
        if session.window == 0 {
            return;
        }
        let track =
            self.orders.iter().filter(|(_, it)| it.sent != 0 && (it.durable, it.lane) == (durable, lane));
        let Some(number) = track.map_while(|(number, it)| it.outcome.map(|_| *number)).last() else { return };
        let orders = &self.orders;
        session.credit.retain(|it| *it > number || (orders[it].durable, orders[it].lane) != (durable, lane));
        let bytes = frame(|buffer| Settled { durable, lane, number }.emit(buffer));
        let _ = self.world.feed(session.conn, &bytes);
    }

    fn complete(&mut self) {
        let count = self.world.tickets.len() as u64;
        if count == 0 {
            return;
        }
        let at = self.below(count) as usize;
        let ticket = self.world.tickets[at];
        self.world.receiver.complete(self.world.now, ticket, Verdict::Applied, None);
        self.world.drain();
    }

    /// The server takes back what was not begun, if it can.
    fn take_back(&mut self) {
        let Some(session) = &self.session else { return };
        let Some(number) = session.credit.last().copied().filter(|number| !self.orders[number].durable)
        else {
            return;
        };
        let _ = self.world.feed(session.conn, &cancelling::cancel(&[number]));
    }

    fn cut(&mut self) {
        if let Some(session) = self.session.take() {
            self.world.receiver.handle_closed(self.world.now, session.conn);
            self.world.drain();
            self.handed_over();
        }
    }

    fn reboot(&mut self) {
        self.handed_over();
        (self.session, self.dying) = (None, false);
        let tape = self.world.tape();
        tape.good = None;
        let unsynced = (tape.records.len() - tape.synced) as u64;
        self.counts.cut_in_a_write += usize::from(unsynced > 0);
        let kept = self.below(unsynced + 1) as usize;
        let world = core::mem::replace(&mut self.world, World::new(4));
        self.world = world.reboot(kept);
        self.counts.boots += 1;
    }

    /// Everything the device did and said since the last look.
    fn look(&mut self) {
        self.handed_over();
        if let Some(conn) = self.session.as_ref().map(|session| session.conn) {
            for said in self.world.said(conn) {
                self.hear(said);
            }
            if self.world.closed.iter().any(|(closed, _)| *closed == conn) {
                self.session = None;
            }
        }
        let failed = self.world.events.contains(&Event::JournalFailed);
        self.world.events.clear();
        self.counts.failures += usize::from(failed);
        if failed && self.dying {
            self.reboot();
        }
    }

    fn handed_over(&mut self) {
        for (lane, number, redelivered) in core::mem::take(&mut self.world.applied) {
            let order = self.orders.get_mut(&number).expect("it was sent");
            order.calls += 1;
            assert!(order.idempotent || order.calls == 1, "{number} ran twice: {order:?}");
            assert!(order.calls == 1 || redelivered, "{number} ran again as if it were new");
            self.counts.run_again += usize::from(order.calls > 1);
            let told = self.told.get(&(order.durable, lane)).copied().unwrap_or(0);
            assert!(number > told, "{number} runs behind {told}, which was told to have ended");
        }
    }

    fn hear(&mut self, said: Said) {
        match said {
            Said::Welcome { window, volatile, durable, persisted, lost } => {
                assert!(persisted && !lost);
                self.resume(usize::from(window), volatile, durable);
            }
            Said::Outcomes { durable, entries } => {
                for (lane, number, code, detail) in entries {
                    self.ended(
                        durable,
                        lane,
                        number,
                        if code == Code::DUPLICATE { Code(detail) } else { code },
                    );
                }
            }
            Said::Bye(code) => assert_eq!(code, bye::Code::STORAGE, "{:?}", self.world.closed.last()),
            Said::Reject(Reject { code, .. }) => assert_eq!(code, reject::Code::BUSY),
            Said::Ack { .. } | Said::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }

    fn ended(&mut self, durable: bool, lane: Lane, number: u64, code: Code) {
        let order = self.orders.get_mut(&number).expect("it was sent");
        assert_eq!((order.durable, order.lane), (durable, lane));
        assert_ne!(code, Code(0), "{number} ended, and nobody knows how");
        match order.outcome {
            None => {
                order.outcome = Some(code);
                self.counts.in_doubt += usize::from(code == Code::IN_DOUBT);
                self.counts.applied += usize::from(code == Code::APPLIED);
                assert!(code != Code::APPLIED || order.calls > 0);
                assert!(code != Code::IN_DOUBT || !order.idempotent);
            }
            Some(before) => {
                assert_eq!(before, code, "{number} ended twice");
                self.counts.repeated += 1;
            }
        }
        let told = self.told.entry((durable, lane)).or_default();
        *told = number.max(*told);
    }

    /// What a server does with what it had sent: it believes the floors.
    fn resume(&mut self, window: usize, volatile: LogFloors, durable: LogFloors) {
        let boot = self.boot();
        let mut again = Vec::new();
        for (number, order) in &mut self.orders {
            let floors = if order.durable { durable } else { volatile };
            let floor = floors.lanes[order.lane.index()].floor;
            let is_named = !floors.lineage.is_none();
            if order.sent == 0 || order.outcome.is_some() {
                continue;
            }
            if !is_named && order.sent != boot && !order.idempotent {
                // It may have been forgotten, for all the server knows. It was not.
                assert_eq!(order.calls, 0, "{number} ran, and the device does not name its lineage");
                order.outcome = Some(Code::IN_DOUBT);
            } else if *number > floor {
                again.push(*number);
            }
        }
        let session = self.session.as_mut().expect("it was opened");
        (session.window, session.again) = (window, again);
    }

    /// All that ended below a floor was said again right behind the WELCOME.
    fn check_floors(&mut self) {
        self.open();
        let Some(session) = &self.session else { return };
        for (number, order) in &self.orders {
            let is_known = order.sent == 0 || order.outcome.is_some() || session.again.contains(number);
            assert!(is_known, "{number} lies below the floor and its end was not said: {order:?}");
        }
    }

    /// No more faults: everything ends.
    fn finish(&mut self) {
        for _ in 0..200 {
            self.repair();
            if self.session.is_none() {
                self.open();
            }
            self.world.verdict = Verdict::Applied;
            let tickets = self.world.tickets.clone();
            for ticket in tickets {
                self.world.receiver.complete(self.world.now, ticket, Verdict::Applied, None);
            }
            self.world.drain();
            self.look();
            for _ in 0..8 {
                self.settle();
                self.look();
            }
            let open = self.orders.values().any(|order| order.sent != 0 && order.outcome.is_none());
            if !open && self.session.is_some() && self.world.receiver.owed() == 0 {
                return;
            }
            if self.session.as_ref().is_some_and(|session| !session.again.is_empty()) {
                self.send();
                self.look();
            }
        }
        panic!(
            "not settled: {:?}",
            self.orders.iter().filter(|(_, order)| order.outcome.is_none()).collect::<Vec<_>>()
        );
    }
}

#[test]
fn whatever_write_the_power_goes_in_nothing_is_lost_and_nothing_happens_twice() {
    let mut all = Counts::default();
    for seed in 0..400 {
        let mut store = Store::new(seed);
        let run = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
            store.open();
            for _ in 0..150 {
                store.step();
            }
            if store.session.is_some() {
                store.cut();
            }
            store.repair();
            store.check_floors();
            store.finish();
        }));
        if let Err(why) = run {
            println!("seed {seed}");
            std::panic::resume_unwind(why);
        }
        let Counts { boots, cut_in_a_write, in_doubt, run_again, failures, repeated, applied } = store.counts;
        all.boots += boots;
        all.cut_in_a_write += cut_in_a_write;
        all.in_doubt += in_doubt;
        all.run_again += run_again;
        all.failures += failures;
        all.repeated += repeated;
        all.applied += applied;
    }
    println!("{all:?}");
    let Counts { boots, cut_in_a_write, in_doubt, run_again, failures, repeated, applied } = all;
    for (what, count) in [
        ("boots", boots),
        ("cut in a write", cut_in_a_write),
        ("in doubt", in_doubt),
        ("run again", run_again),
        ("failures", failures),
        ("repeated", repeated),
        ("applied", applied),
    ] {
        assert!(count >= 100, "{what}: {count}");
    }
}
