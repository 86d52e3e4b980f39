//! PREPARE-COLLECT: prepare what a customer will collect.
//!
//! Idempotent (an order with the number of one that is known takes its place), cancellable; lane 1.
//!
//! | field | type | rule |
//! | --- | --- | --- |
//! | collect | u64 | the number of the customer's order, never 0 |
//! | customer | string | what to call the customer, at most 64 bytes without control characters |
//! | handover | enum | 0 counter; 1 locker: u32, its number; 2 kerbside: string, the bay, at most 16 bytes |
//! | due_in_s | option of u32 | seconds from the order's arrival until it must be ready, at most 604,800; none as soon as possible |
//! | paid | bool | nothing is to be paid at the handover |
//! | lines | list of collect line | 1 to 64 |
//! | note | string | at most 256 bytes; line breaks and tabs, no other control characters |
//!
//! A collect line:
//!
//! | field | type | rule |
//! | --- | --- | --- |
//! | article | u64 | the article's number, never 0 |
//! | quantity_milli | u32 | thousandths of the article's unit, at least 1 |
//! | name | string | at most 64 bytes without control characters |
//! | substitute | bool | a similar article may take its place |

use serde::{Deserialize, Serialize};

use super::list::{Entry, List};
use super::value;
use super::{Payload, PayloadError, ValueError};
use crate::frame::order::KindFlags;
use crate::ids::{Lane, OrderKind};

/// Where the customer gets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Handover<'a> {
    /// 0: at the counter.
    #[default]
    Counter,
    /// 1: from the locker with this number.
    Locker(u32),
    /// 2: in the car, in this bay.
    Kerbside(#[serde(borrow)] &'a str),
}

/// One article to prepare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectLine<'a> {
    /// The article's number.
    pub article: u64,
    /// How much, in thousandths of its unit.
    pub quantity_milli: u32,
    /// What it is called.
    pub name: &'a str,
    /// A similar article may take its place.
    pub substitute: bool,
}

impl CollectLine<'_> {
    /// Bytes of a name.
    pub const NAME_MAX: usize = 64;
    /// Bytes of the longest line.
    pub const LEN_MAX: usize = 8 + 4 + value::string(Self::NAME_MAX) + 1;
}

impl<'a> Entry<'a> for CollectLine<'a> {
    fn check(&self) -> Result<(), ValueError> {
        value::require("article", self.article != 0)?;
        value::require("quantity_milli", self.quantity_milli != 0)?;
        value::line("name", self.name, Self::NAME_MAX)
    }
}

/// Prepare what a customer will collect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareCollect<'a> {
    /// The number of the customer's order.
    pub collect: u64,
    /// What to call the customer.
    pub customer: &'a str,
    /// Where the customer gets it.
    #[serde(borrow)]
    pub handover: Handover<'a>,
    /// Seconds until it must be ready.
    pub due_in_s: Option<u32>,
    /// Nothing is to be paid at the handover.
    pub paid: bool,
    /// What to prepare.
    #[serde(borrow)]
    pub lines: List<'a, CollectLine<'a>>,
    /// For whoever prepares it.
    pub note: &'a str,
}

impl PrepareCollect<'_> {
    /// Bytes of the customer's name.
    pub const CUSTOMER_MAX: usize = 64;
    /// Bytes of a bay.
    pub const BAY_MAX: usize = 16;
    /// The latest due time: a week.
    pub const DUE_IN_S_MAX: u32 = 604_800;
    /// Lines of one order; a larger one is split by the sender.
    pub const LINES_MAX: usize = 64;
    /// Bytes of the note.
    pub const NOTE_MAX: usize = 256;
}

impl<'a> Payload<'a> for PrepareCollect<'a> {
    const KIND: OrderKind = OrderKind::PREPARE_COLLECT;
    const SCHEMA: u16 = 1;
    const FLAGS: KindFlags = KindFlags::IDEMPOTENT.with(KindFlags::CANCELLABLE);
    const LANE: Lane = Lane::Interactive;
    const LEN_MAX: usize = 8
        + value::string(Self::CUSTOMER_MAX)
        + 4
        + value::string(Self::BAY_MAX)
        + value::option(4)
        + 1
        + value::string(Self::LINES_MAX * CollectLine::LEN_MAX)
        + value::string(Self::NOTE_MAX);

    fn check(&self) -> Result<(), PayloadError> {
        value::require("collect", self.collect != 0)?;
        value::line("customer", self.customer, Self::CUSTOMER_MAX)?;
        if let Handover::Kerbside(bay) = self.handover {
            value::name("handover", bay, Self::BAY_MAX)?;
        }
        value::number("due_in_s", self.due_in_s.unwrap_or(0), Self::DUE_IN_S_MAX)?;
        value::require("lines", !self.lines.is_empty())?;
        self.lines.check("lines", Self::LINES_MAX)?;
        Ok(value::text("note", self.note, Self::NOTE_MAX)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::EntryFault;
    use crate::payload::testing::{self, invalid, too_large};

    const LINES: [CollectLine<'_>; 2] = [
        CollectLine { article: 4_006_381_333_931, quantity_milli: 2_000, name: "Stift", substitute: true },
        CollectLine { article: 2_000_001, quantity_milli: 350, name: "Käse", substitute: false },
    ];

    fn value() -> PrepareCollect<'static> {
        PrepareCollect {
            collect: 1_042,
            customer: "Ada",
            handover: Handover::Kerbside("B7"),
            due_in_s: Some(900),
            paid: true,
            lines: List::new(&LINES),
            note: "",
        }
    }

    #[test]
    fn golden_vector() {
        testing::golden("PREPARE-COLLECT", &value());
    }

    #[test]
    fn limits_and_one_past_each() {
        let long = "x".repeat(257);
        let many = vec![CollectLine { name: &long[..64], ..LINES[0] }; 65];
        let full = PrepareCollect {
            customer: &long[..64],
            handover: Handover::Kerbside(&long[..16]),
            due_in_s: Some(604_800),
            lines: List::new(&many[..64]),
            note: &long[..256],
            ..value()
        };
        testing::longest(&full);
        testing::refused(&PrepareCollect { collect: 0, ..value() }, invalid("collect"));
        testing::refused(&PrepareCollect { customer: &long[..65], ..value() }, too_large("customer", 64));
        let handover = Handover::Kerbside(&long[..17]);
        testing::refused(&PrepareCollect { handover, ..value() }, too_large("handover", 16));
        let handover = Handover::Kerbside("");
        testing::refused(&PrepareCollect { handover, ..value() }, invalid("handover"));
        let due_in_s = Some(604_801);
        testing::refused(&PrepareCollect { due_in_s, ..value() }, too_large("due_in_s", 604_800));
        testing::refused(&PrepareCollect { lines: List::default(), ..value() }, invalid("lines"));
        let lines = List::new(&many);
        testing::refused(&PrepareCollect { lines, ..value() }, too_large("lines", 64));
        testing::refused(&PrepareCollect { note: &long, ..value() }, too_large("note", 256));
        let line = [CollectLine { name: &long[..65], ..LINES[0] }];
        let fault = EntryFault::Value(ValueError::TooLarge { field: "name", limit: 64 });
        let error = PayloadError::Entry { field: "lines", index: 0, fault };
        testing::refused(&PrepareCollect { lines: List::new(&line), ..value() }, error);
    }

    #[test]
    fn other_handovers() {
        testing::check(&PrepareCollect { handover: Handover::Counter, ..value() });
        testing::check(&PrepareCollect { handover: Handover::Locker(12), due_in_s: None, ..value() });
    }

    proptest::proptest! {
        #![proptest_config(crate::testing::config())]
        #[test]
        fn round_trip(
            collect in 1_u64.., customer in "[^\\pC]{0,16}", due_in_s in proptest::option::of(0_u32..=604_800),
            paid: bool, note in "[^\\pC]{0,20}",
            lines in proptest::collection::vec((1_u64.., 1_u32.., "[^\\pC]{0,12}"), 1..6),
        ) {
            let lines: Vec<_> = lines.iter().map(|(article, quantity_milli, name)| CollectLine {
                article: *article, quantity_milli: *quantity_milli, name, substitute: paid,
            }).collect();
            let lines = List::new(&lines);
            let handover = Handover::Locker(3);
            testing::check(&PrepareCollect {
                collect, customer: &customer, handover, due_in_s, paid, lines, note: &note,
            });
        }
    }
}
