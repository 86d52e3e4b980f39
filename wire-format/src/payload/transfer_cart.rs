//! TRANSFER-CART: take over a customer's cart from another device.
//!
//! Idempotent (a cart has one revision at a time) and perishable; lane 1. A cart holds articles and prices; it never
//! holds card data or anything else a customer paid or identified with.
//!
//! | field | type | rule |
//! | --- | --- | --- |
//! | cart | id | which cart, never all zero |
//! | revision | u64 | rises with every change of the cart |
//! | from | id | the device that has it now; all zero if it comes from none |
//! | currency | currency | ISO 4217 |
//! | lines | list of cart line | at most 256 |
//! | total_minor | i64 | what the giving device shows, in the currency's smallest unit |
//!
//! A cart line:
//!
//! | field | type | rule |
//! | --- | --- | --- |
//! | article | u64 | the article's number, never 0 |
//! | quantity_milli | u32 | thousandths of the article's unit, at least 1 |
//! | amount_minor | i64 | what the line costs, in the currency's smallest unit; negative for deposits paid back |
//! | name | string | at most 64 bytes without control characters |

use serde::{Deserialize, Serialize};

use super::list::{Entry, List};
use super::value;
use super::{Payload, PayloadError, ValueError};
use crate::frame::order::KindFlags;
use crate::ids::{Lane, NodeId, OrderKind};

/// One line of a cart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CartLine<'a> {
    /// The article's number.
    pub article: u64,
    /// How much, in thousandths of its unit.
    pub quantity_milli: u32,
    /// What it costs, in the currency's smallest unit.
    pub amount_minor: i64,
    /// What it is called.
    pub name: &'a str,
}

impl CartLine<'_> {
    /// Bytes of a name.
    pub const NAME_MAX: usize = 64;
    /// Bytes of the longest line.
    pub const LEN_MAX: usize = 8 + 4 + 8 + value::string(Self::NAME_MAX);
}

impl<'a> Entry<'a> for CartLine<'a> {
    fn check(&self) -> Result<(), ValueError> {
        value::require("article", self.article != 0)?;
        value::require("quantity_milli", self.quantity_milli != 0)?;
        value::line("name", self.name, Self::NAME_MAX)
    }
}

/// Take over a cart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferCart<'a> {
    /// Which cart: 16 bytes, drawn when it begins.
    pub cart: [u8; 16],
    /// Its revision.
    pub revision: u64,
    /// The device that has it now.
    #[serde(with = "value::id")]
    pub from: NodeId,
    /// ISO 4217, three capital letters.
    pub currency: [u8; 3],
    /// What is in it.
    #[serde(borrow)]
    pub lines: List<'a, CartLine<'a>>,
    /// What it costs, in the currency's smallest unit.
    pub total_minor: i64,
}

impl TransferCart<'_> {
    /// Lines of a cart: more than any till takes; they fill half of what an order carries.
    pub const LINES_MAX: usize = 256;
}

impl<'a> Payload<'a> for TransferCart<'a> {
    const KIND: OrderKind = OrderKind::TRANSFER_CART;
    const SCHEMA: u16 = 1;
    const FLAGS: KindFlags = KindFlags::IDEMPOTENT.with(KindFlags::PERISHABLE).with(KindFlags::CANCELLABLE);
    const LANE: Lane = Lane::Interactive;
    const LEN_MAX: usize = 16 + 8 + 16 + 3 + value::string(Self::LINES_MAX * CartLine::LEN_MAX) + 8;

    fn check(&self) -> Result<(), PayloadError> {
        value::require("cart", self.cart != [0; 16])?;
        value::currency("currency", self.currency)?;
        self.lines.check("lines", Self::LINES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::testing::{self, invalid, too_large};

    const LINES: [CartLine<'_>; 1] =
        [CartLine { article: 4_006_381_333_931, quantity_milli: 1_000, amount_minor: 129, name: "Stift" }];

    fn value() -> TransferCart<'static> {
        TransferCart {
            cart: [0xC5; 16],
            revision: 3,
            from: NodeId([0x11; 16]),
            currency: *b"EUR",
            lines: List::new(&LINES),
            total_minor: 129,
        }
    }

    #[test]
    fn golden_vector() {
        testing::golden("TRANSFER-CART", &value());
    }

    #[test]
    fn limits_and_one_past_each() {
        let long = "x".repeat(65);
        let many = vec![CartLine { name: &long[..64], ..LINES[0] }; 257];
        testing::longest(&TransferCart { lines: List::new(&many[..256]), ..value() });
        let lines = List::new(&many);
        testing::refused(&TransferCart { lines, ..value() }, too_large("lines", 256));
        testing::refused(&TransferCart { cart: [0; 16], ..value() }, invalid("cart"));
        testing::refused(&TransferCart { currency: *b"E\0R", ..value() }, invalid("currency"));
    }

    #[test]
    fn lists_are_equal_however_they_were_made() {
        let bytes = testing::encode(&value());
        let read = TransferCart::decode(&bytes).unwrap().lines;
        assert_eq!(read, List::new(&LINES));
        assert_eq!(read.len(), 1);
        assert!(!read.is_empty() && List::<CartLine<'_>>::default().is_empty());
        assert_eq!(format!("{read:?}"), format!("{LINES:?}"));
    }

    proptest::proptest! {
        #![proptest_config(crate::testing::config())]
        #[test]
        fn round_trip(
            revision: u64, from: [u8; 16], total_minor: i64,
            lines in proptest::collection::vec((1_u64.., 1_u32.., 0_i64.., "[^\\pC]{0,12}"), 0..6),
        ) {
            let lines: Vec<_> = lines.iter().map(|(article, quantity_milli, amount_minor, name)| CartLine {
                article: *article, quantity_milli: *quantity_milli, amount_minor: -amount_minor, name,
            }).collect();
            let lines = List::new(&lines);
            testing::check(&TransferCart { revision, from: NodeId(from), total_minor, lines, ..value() });
        }
    }
}
