//! STOCK-QUESTION: how many of an article are there, now? And its answer, the payload of a RESULT.
//!
//! Idempotent and perishable; lane 1: somebody is waiting. The sender sets the order's flag NEEDS_RESULT; the device
//! sends STOCK-ANSWER in a RESULT before its outcome.
//!
//! | field | type | rule |
//! | --- | --- | --- |
//! | article | u64 | the article's number, never 0 |
//! | place | string | where to look (a shelf, a department), at most 32 bytes without control characters; empty everywhere |
//!
//! STOCK-ANSWER:
//!
//! | field | type | rule |
//! | --- | --- | --- |
//! | article | u64 | the article that was asked for, never 0 |
//! | level | enum | 0 unknown; 1 none; 2 some, not counted; 3 counted: i64, thousandths of the article's unit, negative if more were sold than booked |
//! | age_s | u32 | seconds since it was counted or looked at |

use serde::{Deserialize, Serialize};

use super::value;
use super::{Payload, PayloadError};
use crate::frame::order::KindFlags;
use crate::ids::{Lane, OrderKind};

/// How many of an article are there?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockQuestion<'a> {
    /// The article's number.
    pub article: u64,
    /// Where to look; empty for everywhere.
    pub place: &'a str,
}

impl StockQuestion<'_> {
    /// Bytes of a place.
    pub const PLACE_MAX: usize = 32;
}

impl<'a> Payload<'a> for StockQuestion<'a> {
    const KIND: OrderKind = OrderKind::STOCK_QUESTION;
    const SCHEMA: u16 = 1;
    const FLAGS: KindFlags = KindFlags::IDEMPOTENT.with(KindFlags::PERISHABLE).with(KindFlags::CANCELLABLE);
    const LANE: Lane = Lane::Interactive;
    const LEN_MAX: usize = 8 + value::string(Self::PLACE_MAX);

    fn check(&self) -> Result<(), PayloadError> {
        value::require("article", self.article != 0)?;
        Ok(value::line("place", self.place, Self::PLACE_MAX)?)
    }
}

/// What is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    /// 0: the device cannot tell.
    #[default]
    Unknown,
    /// 1: nothing.
    None,
    /// 2: something, not counted.
    Some,
    /// 3: so many thousandths of the article's unit.
    Counted(i64),
}

/// The answer to a [`StockQuestion`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockAnswer {
    /// The article that was asked for.
    pub article: u64,
    /// What is there.
    pub level: Level,
    /// Seconds since it was counted or looked at.
    pub age_s: u32,
}

/// Kind, schema and flags are those of the question: the answer travels in its RESULT.
impl Payload<'_> for StockAnswer {
    const KIND: OrderKind = OrderKind::STOCK_QUESTION;
    const SCHEMA: u16 = StockQuestion::SCHEMA;
    const FLAGS: KindFlags = StockQuestion::FLAGS;
    const LANE: Lane = StockQuestion::LANE;
    const LEN_MAX: usize = 8 + 4 + 8 + 4;

    fn check(&self) -> Result<(), PayloadError> {
        Ok(value::require("article", self.article != 0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::testing::{self, invalid, too_large};

    fn question() -> StockQuestion<'static> {
        StockQuestion { article: 4_006_381_333_931, place: "shelf 12" }
    }

    fn answer() -> StockAnswer {
        StockAnswer { article: 4_006_381_333_931, level: Level::Counted(17_000), age_s: 86_400 }
    }

    #[test]
    fn golden_vectors() {
        testing::golden("STOCK-QUESTION", &question());
        testing::golden("STOCK-ANSWER", &answer());
    }

    #[test]
    fn limits_and_one_past_each() {
        let long = "x".repeat(33);
        testing::longest(&StockQuestion { place: &long[..32], ..question() });
        testing::refused(&StockQuestion { place: &long, ..question() }, too_large("place", 32));
        testing::refused(&StockQuestion { article: 0, ..question() }, invalid("article"));
        testing::longest(&answer());
        testing::refused(&StockAnswer { article: 0, ..answer() }, invalid("article"));
    }

    proptest::proptest! {
        #![proptest_config(crate::testing::config())]
        #[test]
        fn round_trip(article in 1_u64.., place in "[^\\pC]{0,8}", counted: i64, age_s: u32) {
            testing::check(&StockQuestion { article, place: &place });
            for level in [Level::Unknown, Level::None, Level::Some, Level::Counted(counted)] {
                testing::check(&StockAnswer { article, level, age_s });
            }
        }
    }
}
