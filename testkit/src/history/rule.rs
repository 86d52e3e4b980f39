//! The promises, and what is told of one that was broken.

use std::fmt;
use std::time::Duration;

use super::event::OrderId;

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// A promise that can be broken; the table of [`super`] says each in full.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Rule { $($(#[$doc])* $name,)* }

        impl Rule {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What is wrong, as a sentence without its subject.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

rules! {
    /// No such order.
    Unknown = "was never accepted";
    /// The same name again.
    AcceptedTwice = "was accepted twice";
    /// Not for this device.
    NotTargeted = "was not for this device";
    /// Once only, and again.
    SecondEffect = "must not run twice and did";
    /// The same boot, again.
    TwiceInOneBoot = "was handed over twice in one boot";
    /// Again, and not flagged.
    Unflagged = "came again without saying so";
    /// Behind a later one of its lane.
    OutOfOrder = "was handed over after a later one of its lane";
    /// While one of its lane is at work.
    Overlap = "was handed over while another of its lane was at work";
    /// After its outcome.
    AfterItsEnd = "was handed over after its outcome was told";
    /// After its lifetime.
    Late = "was handed over after its lifetime";
    /// After a newer version.
    OlderVersion = "was handed over after one that supersedes it";
    /// After one of another log with its key.
    SameKey = "was handed over after one of another log with its key";
    /// After one of a higher fence.
    LowerFence = "was handed over after one from a server with a higher fence";
    /// Answered without being handed over.
    AnswerToNothing = "was answered without having been handed over";
    /// Another outcome.
    SecondOutcome = "has two outcomes on one device";
    /// Applied, and no effect.
    NoEffect = "ended as something its handler has to answer, and was never handed over";
    /// Not what the handler said.
    OtherAnswer = "ended as something its handler never answered";
    /// Nothing happened, it says.
    EffectDespite = "ended as if nothing had happened, and something had";
    /// Not possible for this order.
    WrongCode = "ended as something this order cannot end as";
    /// Handed back twice.
    SettledTwice = "was handed back twice";
    /// Handed back while a target has no outcome.
    SettledEarly = "was handed back before its last outcome";
    /// No outcome at the end.
    NoOutcome = "has no outcome at the end";
    /// Not handed back at the end.
    NotSettled = "was not handed back at the end";
    /// Memory beyond the limit.
    Memory = "memory beyond the limit was taken";
    /// Descriptors beyond the limit.
    Descriptors = "descriptors beyond the limit were opened";
}

/// A promise that was broken, where, and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When it was seen.
    pub at: Duration,
    /// Which promise.
    pub rule: Rule,
    /// The order it is about, then those it has to do with.
    pub orders: Vec<OrderId>,
    /// The device it is about.
    pub device: Option<u32>,
    /// Numbers a reader wants.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}: ", self.at.as_secs_f64())?;
        if let Some(order) = self.orders.first() {
            write!(f, "order {order} ")?;
        }
        f.write_str(self.rule.text())?;
        if let Some(device) = self.device {
            write!(f, ", device {device}")?;
        }
        if self.detail.is_empty() { Ok(()) } else { write!(f, " ({})", self.detail) }
    }
}

impl std::error::Error for Violation {}
