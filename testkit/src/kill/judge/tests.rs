//! The judge judged: what a campaign has to find is planted, and found.

use wire_format::ids::Lane;

use super::super::plan::Deed;
use super::super::world::Answer;
use super::*;

fn deed(name: u64, change: impl FnOnce(&mut Deed)) -> Standing {
    let mut deed = Deed {
        name,
        keyed: true,
        volatile: false,
        lane: Lane::Normal,
        idempotent: false,
        cancel: false,
        rejected: false,
        supersede: None,
        lifetime_ms: None,
        targets: vec![0],
        payload: name.to_le_bytes().to_vec(),
        wait_ms: 0,
    };
    change(&mut deed);
    Standing::new(deed, Duration::ZERO, 1)
}

fn answered(mut standing: Standing, number: u64) -> Standing {
    let durable = !standing.deed.volatile;
    standing.answer = Some(Answer { number, durable, run: 1, at: Duration::from_millis(1) });
    standing
}

/// A campaign with one device that is killed once, and two orders before and after.
struct Case(Evidence);

impl Case {
    fn new(deeds: impl IntoIterator<Item = Standing>) -> Self {
        let deeds = deeds.into_iter().map(|standing| (standing.deed.name, standing)).collect();
        let evidence = Evidence {
            no_refusals: true,
            deeds,
            ledgers: vec![Vec::new()],
            kills: vec![1],
            ..Evidence::default()
        };
        let mut case = Self(evidence);
        case.see(What::Server { run: 1 });
        case.boot();
        case
    }

    fn see(&mut self, what: What) {
        let at = Duration::from_millis(self.0.seen.len() as u64);
        self.0.seen.push(Seen { at, what });
    }

    fn len(&self) -> u64 {
        self.0.ledgers[0].last().map_or(0, |line| line.end)
    }

    fn boot(&mut self) -> &mut Self {
        self.see(What::Boot { device: 0, len: self.len() });
        self
    }

    fn runs(&mut self, name: u64, number: u64, redelivered: bool) -> &mut Self {
        let standing = &self.0.deeds[&name];
        let digest = ledger::names([&standing.deed].into_iter()).into_keys().next().unwrap_or_default();
        let (end, lineage, outcome) = (self.len() + 100, "aa".to_owned(), "applied".to_owned());
        self.0.ledgers[0].push(Line { end, lineage, number, digest, redelivered, outcome });
        self
    }

    fn told(&mut self, name: u64, code: Code) -> &mut Self {
        if let Some(standing) = self.0.deeds.get_mut(&name) {
            standing.outcomes.insert(0, code);
        }
        self.see(What::Outcome { name, device: 0, code, len: self.len() });
        self
    }

    fn problems(&self) -> Vec<String> {
        Court::hear(self.0.clone()).problems
    }

    /// That is what is found, and nothing else before it.
    fn finds(&self, what: &str) {
        let problems = self.problems();
        assert!(problems.first().is_some_and(|first| first.contains(what)), "{what}: {problems:#?}");
    }
}

#[test]
fn a_good_campaign_has_no_problems_and_counts() {
    let again = answered(deed(2, |deed| deed.idempotent = true), 8);
    let lost = deed(3, |deed| deed.keyed = false);
    let mut case = Case::new([answered(deed(1, |_| ()), 7), again, lost]);
    case.runs(1, 7, false).told(1, Code::APPLIED).runs(2, 8, false).boot().runs(2, 8, true);
    case.told(2, Code::APPLIED).runs(3, 9, false);
    assert_eq!(case.problems(), [""; 0]);
    let report = Court::hear(case.0).report(Report::default());
    assert_eq!((report.orders, report.pairs, report.restarts), ([2, 0], 2, [0, 1]));
    assert_eq!((report.handed_over, report.unanswered, report.outcomes["applied"]), ([4, 1], 1, 2));
}

#[test]
fn what_runs_twice_is_found() {
    let case = || Case::new([answered(deed(1, |_| ()), 7)]);
    let mut twice = case();
    twice.runs(1, 7, false).boot().runs(1, 7, true).told(1, Code::APPLIED);
    twice.finds("must not run twice and did");
    let mut after = case();
    after.runs(1, 7, false).told(1, Code::APPLIED).boot().runs(1, 7, true);
    after.finds("was handed over after its outcome was told");
    let mut unflagged = Case::new([answered(deed(1, |deed| deed.idempotent = true), 7)]);
    unflagged.runs(1, 7, false).boot().runs(1, 7, false).told(1, Code::APPLIED);
    unflagged.finds("came again without saying so");
    // Under its key it ran once and once more: as another order, or as one before that nobody answered for.
    let mut repeated = case();
    repeated.runs(1, 7, false).boot().runs(1, 9, false).told(1, Code::APPLIED);
    repeated.finds("must not run twice and did");
    let mut before = case();
    before.runs(1, 6, false).runs(1, 7, false).told(1, Code::APPLIED);
    before.finds("was never accepted");
}

#[test]
fn a_further_attempt_has_a_number_behind_the_first() {
    let mut attempt = Case::new([answered(deed(1, |_| ()), 7)]);
    attempt.runs(1, 9, false).told(1, Code::APPLIED);
    assert_eq!(attempt.problems(), [""; 0]);
}

#[test]
fn what_is_lost_is_found() {
    let mut untold = Case::new([answered(deed(1, |_| ()), 7)]);
    untold.runs(1, 7, false).finds("has no outcome at the end");
    let mut never = Case::new([answered(deed(1, |_| ()), 7)]);
    never.told(1, Code::APPLIED).finds("was never handed over");
    let plain = |deed: &mut Deed| (deed.keyed, deed.idempotent) = (false, true);
    let unkeyed = Case::new([answered(deed(1, plain), 7)]);
    unkeyed.finds("was accepted and never came to device 1");
}

#[test]
fn what_changes_is_found() {
    let case = || Case::new([answered(deed(1, |_| ()), 7)]);
    let mut outcome = case();
    outcome.runs(1, 7, false).told(1, Code::APPLIED).told(1, Code::FAILED);
    outcome.finds("has two outcomes on one device");
    let mut payload = case();
    payload.runs(1, 7, false).told(1, Code::APPLIED);
    payload.0.ledgers[0][0].digest = "00".into();
    payload.finds("a payload nobody pushed");
    let mut number = case();
    number.runs(1, 7, false).told(1, Code::APPLIED);
    number.0.deeds.get_mut(&1).unwrap().others.push(9);
    number.finds("was answered Some(7), and then [9]");
    let mut disowned = case();
    disowned.runs(1, 7, false).told(1, Code::APPLIED);
    disowned.0.deeds.get_mut(&1).unwrap().disowned = Some("no room".into());
    disowned.finds("was answered Some(7), and then refused: no room");
    let mut lineage = Case::new([answered(deed(1, |_| ()), 7), answered(deed(2, |_| ()), 8)]);
    lineage.runs(1, 7, false).told(1, Code::APPLIED).runs(2, 8, false).told(2, Code::APPLIED);
    lineage.0.ledgers[0][1].lineage = "bb".into();
    lineage.finds("the durable log changed its lineage");
}

#[test]
fn order_doubt_and_refusals_are_looked_at() {
    let many = (1..=9).map(|name| answered(deed(name, |_| ()), name));
    let mut doubt = Case::new(many);
    for name in 1..=9 {
        doubt.told(name, Code::IN_DOUBT);
    }
    doubt.finds("9 orders in doubt after 1 kills");
    let mut behind = Case::new([answered(deed(1, |_| ()), 7), answered(deed(2, |_| ()), 8)]);
    behind.runs(2, 8, false).told(2, Code::APPLIED).boot().runs(1, 7, false).told(1, Code::APPLIED);
    behind.finds("was handed over after a later one of its lane");
    let mut refused = deed(1, |_| ());
    refused.refused = Some("no room".into());
    Case::new([refused.clone()]).finds("was refused: no room");
    let mut despite = Case::new([refused]);
    despite.0.no_refusals = false;
    assert_eq!(despite.problems(), [""; 0]);
    despite.runs(1, 7, false).finds("was never accepted");
}

#[test]
fn lifetimes_are_held_by_what_a_ledger_did_not_show_yet() {
    let short = |deed: &mut Deed| deed.lifetime_ms = Some(100);
    let late = |looks: [u64; 2]| {
        let mut case = Case::new([answered(deed(1, short), 7)]);
        for at in looks {
            let what = What::Ledger { device: 0, len: case.len() };
            case.0.seen.push(Seen { at: Duration::from_millis(at), what });
            if at == looks[0] {
                case.runs(1, 7, false);
            }
        }
        case.told(1, Code::APPLIED);
        case
    };
    assert_eq!(late([50, 9_000]).problems(), [""; 0], "it may have come in time");
    late([3_000, 3_001]).finds("was handed over after its lifetime");
}
