//! What happened to orders, in the order it happened, and the one judge of it.
//!
//! A test writes down everything that can be seen from outside: what was accepted, what a device's handler was given and
//! answered, what the server told as outcomes, who booted, what memory and descriptors were. [`Checker`] holds every new
//! line against the promises; the simulation in virtual time and the tests over real sockets use the same one.
//!
//! | [`Rule`] | broken if |
//! | --- | --- |
//! | `Unknown`, `AcceptedTwice`, `NotTargeted` | something is told of an order nobody accepted, or of a device it was not for |
//! | `SecondEffect` | an order that must not run twice is handed over again, in whatever attempt, boot or session |
//! | `TwiceInOneBoot`, `Unflagged` | one that may is handed over twice in one boot, or again without a word that it comes again |
//! | `OutOfOrder`, `Overlap` | orders of one lane of one log are not handed over in log order, one at a time; with [`Limits::journal`] over boots too, as far as outcomes were told |
//! | `AfterItsEnd` | an order is handed over after an outcome of it was told |
//! | `Late` | it is handed over after its lifetime and the allowance |
//! | `OlderVersion` | it is handed over after one that supersedes it |
//! | `SameKey` | it is handed over though one of another log with its key was, and must not run twice |
//! | `LowerFence` | it is handed over in a session under a lower fence than that of an order before it; without [`Event::Heard`] the fence is that of its log |
//! | `SecondOutcome`, `NoOutcome` | a target has two outcomes, or none at the end |
//! | `AnswerToNothing` | a handler answered an order it was not given |
//! | `NoEffect`, `OtherAnswer` | the outcome is one of the handler's and the handler never answered so |
//! | `EffectDespite` | the outcome says that nothing happened and something did |
//! | `WrongCode` | the outcome is one that this order cannot have |
//! | `SettledTwice`, `SettledEarly`, `NotSettled` | an order is handed back twice, before its last outcome, or never |
//! | `Memory`, `Descriptors` | more was taken since the first sample than the limits allow |

mod checker;
mod event;
mod rule;

use std::fmt::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wire_format::frame::outcome::Code;

pub use checker::{Checker, Limits};
pub use event::{Event, Facts, OrderId};
pub use rule::{Rule, Violation};

/// Violations shown in full; a thousand more say nothing new.
const SHOWN: usize = 5;

/// One line of a history: when, and what.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Since whatever the test counts from; never falls by more than threads race.
    pub at: Duration,
    /// What happened.
    pub event: Event,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>12.6} {}", self.at.as_secs_f64(), self.event)
    }
}

/// An append-only list of everything that happened, checked while it grows. May be shared between threads: an entry
/// stands where it was appended.
#[derive(Debug, Default)]
pub struct History {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: Vec<Entry>,
    checker: Checker,
    violations: Vec<Violation>,
}

impl History {
    /// An empty one, to be held against these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let inner = Inner { checker: Checker::new(limits), ..Inner::default() };
        Self { inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A handler that panics is judged by its test, not by a second panic here.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends what happened at `at` and says which promise it breaks, if it does. Every violation is kept as well and
    /// told by [`History::finish`], so a caller that goes on loses nothing.
    pub fn record(&self, at: Duration, event: Event) -> Option<Violation> {
        let mut inner = self.lock();
        let violation = inner.checker.see(at, &event);
        inner.entries.push(Entry { at, event });
        inner.violations.extend(violation.clone());
        violation
    }

    /// Entries so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Whether nothing happened yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `with` for each entry, oldest first.
    pub fn each(&self, with: impl FnMut(&Entry)) {
        self.lock().entries.iter().for_each(with);
    }

    /// How many entries `is` holds for.
    #[must_use]
    pub fn count(&self, is: impl Fn(&Event) -> bool) -> usize {
        self.lock().entries.iter().filter(|entry| is(&entry.event)).count()
    }

    /// The outcome told of an order on a device, if one was.
    #[must_use]
    pub fn outcome(&self, order: OrderId, device: u32) -> Option<Code> {
        self.lock().checker.outcome_of(order, device)
    }

    /// Whether an order was accepted for this device.
    #[must_use]
    pub fn is_target(&self, order: OrderId, device: u32) -> bool {
        self.lock().checker.targets_of(order).any(|of| of == device)
    }

    /// How often an order was handed over, on whatever device.
    #[must_use]
    pub fn effects(&self, order: OrderId) -> usize {
        self.count(|event| matches!(event, Event::Effect { order: of, .. } if *of == order))
    }

    /// Every entry that concerns this violation, as text: a line each.
    #[must_use]
    pub fn about(&self, violation: &Violation) -> String {
        let inner = self.lock();
        let mut text = format!("{violation}\n");
        for entry in inner.entries.iter().filter(|entry| entry.event.concerns(violation)) {
            let _ = writeln!(text, "{entry}");
        }
        text
    }

    /// The whole history as text: a line for each entry.
    #[must_use]
    pub fn text(&self) -> String {
        let inner = self.lock();
        inner.entries.iter().fold(String::new(), |mut text, entry| {
            let _ = writeln!(text, "{entry}");
            text
        })
    }

    /// Nothing more will happen: what was broken on the way, and what is missing at the end.
    #[must_use]
    pub fn finish(&self) -> Vec<Violation> {
        let inner = self.lock();
        let mut all = inner.violations.clone();
        all.extend(inner.checker.missing(inner.entries.last().map_or(Duration::ZERO, |entry| entry.at)));
        all
    }

    /// As [`History::finish`], for the end of a test.
    ///
    /// # Panics
    ///
    /// If any promise was broken; the message shows which, and what happened to the orders it is about.
    pub fn assert_kept(&self) {
        let violations = self.finish();
        let shown = violations.iter().take(SHOWN).map(|violation| self.about(violation));
        let shown = shown.collect::<Vec<_>>().join("\n");
        assert!(violations.is_empty(), "{} promises broken:\n{shown}", violations.len());
    }
}
