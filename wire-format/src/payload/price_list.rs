//! PRICE-LIST: take over prices.
//!
//! Idempotent; lane 2. Small changes travel in the order; a whole list is fetched. A sender sets the order's supersede
//! key to the list and the supersede version to the version, so that a device that was away gets the last one only.
//!
//! | field | type | rule |
//! | --- | --- | --- |
//! | list | u64 | which list |
//! | version | u64 | rises with every change; a device that has it or a later one does nothing |
//! | base | option of u64 | the version the changes apply to; none if the list stands for itself; a device that has another one answers with the outcome failed |
//! | valid_from_unix_s | option of u64 | seconds since 1970-01-01 00:00 UTC; none at once |
//! | currency | currency | ISO 4217 |
//! | changes | list of price change | at most 1,024 |
//! | rest | option of struct | the whole list elsewhere: URL, size, digest |
//!
//! A price change:
//!
//! | field | type | rule |
//! | --- | --- | --- |
//! | article | u64 | the article's number (a GTIN as a number), never 0 |
//! | price_minor | i64 | in the currency's smallest unit; negative for deposits paid back |
//! | unit | enum | 0 piece, 1 kilogram, 2 litre, 3 metre |

use serde::{Deserialize, Serialize};

use super::list::{Entry, List};
use super::value;
use super::{Fetch, Payload, PayloadError, ValueError};
use crate::frame::order::KindFlags;
use crate::ids::{Lane, OrderKind};

/// What a price is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// 0: one piece.
    #[default]
    Piece,
    /// 1: a kilogram.
    Kilogram,
    /// 2: a litre.
    Litre,
    /// 3: a metre.
    Metre,
}

/// One article's new price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceChange {
    /// The article's number.
    pub article: u64,
    /// Its price in the currency's smallest unit.
    pub price_minor: i64,
    /// What the price is for.
    pub unit: Unit,
}

impl PriceChange {
    /// Bytes of every price change.
    pub const LEN: usize = 20;
}

impl Entry<'_> for PriceChange {
    fn check(&self) -> Result<(), ValueError> {
        value::require("article", self.article != 0)
    }
}

/// Take over prices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceList<'a> {
    /// Which list.
    pub list: u64,
    /// Its version after the changes.
    pub version: u64,
    /// Its version before them.
    pub base: Option<u64>,
    /// When it begins to hold, in seconds since 1970 (UTC).
    pub valid_from_unix_s: Option<u64>,
    /// ISO 4217, three capital letters.
    pub currency: [u8; 3],
    /// The changes.
    #[serde(borrow)]
    pub changes: List<'a, PriceChange>,
    /// Where the whole list is.
    #[serde(borrow)]
    pub rest: Option<Fetch<'a>>,
}

impl PriceList<'_> {
    /// Changes in one order: 20 KiB, a third of what an order carries.
    pub const CHANGES_MAX: usize = 1_024;
}

impl<'a> Payload<'a> for PriceList<'a> {
    const KIND: OrderKind = OrderKind::PRICE_LIST;
    const SCHEMA: u16 = 1;
    const FLAGS: KindFlags = KindFlags::IDEMPOTENT.with(KindFlags::CANCELLABLE);
    const LANE: Lane = Lane::Normal;
    const LEN_MAX: usize = 8
        + 8
        + value::option(8)
        + value::option(8)
        + 3
        + value::string(Self::CHANGES_MAX * PriceChange::LEN)
        + value::option(Fetch::LEN_MAX);

    fn check(&self) -> Result<(), PayloadError> {
        value::currency("currency", self.currency)?;
        self.changes.check("changes", Self::CHANGES_MAX)?;
        Ok(self.rest.map_or(Ok(()), |rest| rest.check())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::EntryFault;
    use crate::payload::testing::{self, invalid, too_large};

    const CHANGES: [PriceChange; 2] = [
        PriceChange { article: 4_006_381_333_931, price_minor: 129, unit: Unit::Piece },
        PriceChange { article: 2_000_001, price_minor: -25, unit: Unit::Kilogram },
    ];

    fn value() -> PriceList<'static> {
        PriceList {
            list: 1,
            version: 301,
            base: Some(300),
            valid_from_unix_s: None,
            currency: *b"EUR",
            changes: List::new(&CHANGES),
            rest: None,
        }
    }

    #[test]
    fn golden_vector() {
        testing::golden("PRICE-LIST", &value());
    }

    #[test]
    fn limits_and_one_past_each() {
        let (many, url) = (vec![CHANGES[0]; 1_025], "u".repeat(513));
        let rest = |url| Some(Fetch { url, size: 1, sha256: [0; 32] });
        let full = PriceList {
            valid_from_unix_s: Some(u64::MAX),
            changes: List::new(&many[..1_024]),
            rest: rest(&url[..512]),
            ..value()
        };
        testing::longest(&full);
        let changes = List::new(&many);
        testing::refused(&PriceList { changes, ..value() }, too_large("changes", 1_024));
        testing::refused(&PriceList { rest: rest(&url), ..value() }, too_large("url", 512));
        testing::refused(&PriceList { currency: *b"eur", ..value() }, invalid("currency"));
    }

    #[test]
    fn a_bad_entry_is_named() {
        let changes = [CHANGES[0], PriceChange { article: 0, ..CHANGES[1] }];
        let fault = EntryFault::Value(ValueError::Invalid { field: "article" });
        let error = PayloadError::Entry { field: "changes", index: 1, fault };
        testing::refused(&PriceList { changes: List::new(&changes), ..value() }, error);
        let mut bytes = testing::encode(&value());
        let entries = 8 + 8 + 9 + 1 + 3 + 8;
        bytes[entries + 20 + 16] = 4;
        let fault = EntryFault::Malformed { at: 36 };
        let error = PayloadError::Entry { field: "changes", index: 1, fault };
        assert_eq!(PriceList::decode(&bytes), Err(error));
        let mut bytes = testing::encode(&value());
        bytes[entries - 8] = 39;
        bytes.remove(entries + 39);
        let fault = EntryFault::Truncated { at: 36 };
        let error = PayloadError::Entry { field: "changes", index: 1, fault };
        assert_eq!(PriceList::decode(&bytes), Err(error));
    }

    proptest::proptest! {
        #![proptest_config(crate::testing::config())]
        #[test]
        fn round_trip(
            list: u64, version: u64, base: Option<u64>, valid_from_unix_s: Option<u64>,
            changes in proptest::collection::vec((1_u64.., proptest::prelude::any::<i64>()), 0..20),
        ) {
            let change = |(article, price_minor)| PriceChange { article, price_minor, unit: Unit::Litre };
            let changes: Vec<_> = changes.into_iter().map(change).collect();
            let changes = List::new(&changes);
            testing::check(&PriceList {
                list, version, base, valid_from_unix_s, currency: *b"CHF", changes, rest: None,
            });
        }
    }
}
