//! SHOW-PAGE: show a page, for a while or until told otherwise.
//!
//! Idempotent and perishable; lane 2.
//!
//! | field | type | rule |
//! | --- | --- | --- |
//! | page | string | the page's name in the device's content, 1 to 256 bytes without control characters |
//! | screen | u32 | which screen of the device, from 0; a device without it answers with the outcome rejected-payload |
//! | duration_s | option of u32 | seconds until the screen goes back to its own programme, 1 to 86,400; none until the next order |

use serde::{Deserialize, Serialize};

use super::value;
use super::{Payload, PayloadError};
use crate::frame::order::KindFlags;
use crate::ids::{Lane, OrderKind};

/// Show a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShowPage<'a> {
    /// The page's name.
    pub page: &'a str,
    /// Which screen of the device.
    pub screen: u32,
    /// Seconds to show it.
    pub duration_s: Option<u32>,
}

impl ShowPage<'_> {
    /// Bytes of a page's name.
    pub const PAGE_MAX: usize = 256;
    /// The longest showing: a day.
    pub const DURATION_S_MAX: u32 = 86_400;
}

impl<'a> Payload<'a> for ShowPage<'a> {
    const KIND: OrderKind = OrderKind::SHOW_PAGE;
    const SCHEMA: u16 = 1;
    const FLAGS: KindFlags = KindFlags::IDEMPOTENT.with(KindFlags::PERISHABLE).with(KindFlags::CANCELLABLE);
    const LANE: Lane = Lane::Normal;
    const LEN_MAX: usize = value::string(Self::PAGE_MAX) + 4 + value::option(4);

    fn check(&self) -> Result<(), PayloadError> {
        value::name("page", self.page, Self::PAGE_MAX)?;
        let duration_s = self.duration_s.unwrap_or(1);
        value::require("duration_s", duration_s != 0)?;
        Ok(value::number("duration_s", duration_s, Self::DURATION_S_MAX)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::testing::{self, invalid, too_large};

    fn value() -> ShowPage<'static> {
        ShowPage { page: "opening-hours", screen: 1, duration_s: Some(30) }
    }

    #[test]
    fn golden_vector() {
        testing::golden("SHOW-PAGE", &value());
    }

    #[test]
    fn limits_and_one_past_each() {
        let page = "é".repeat(129);
        testing::longest(&ShowPage { page: &page[..256], duration_s: Some(86_400), ..value() });
        testing::refused(&ShowPage { page: &page, ..value() }, too_large("page", 256));
        testing::refused(&ShowPage { page: "", ..value() }, invalid("page"));
        testing::refused(&ShowPage { page: "a\nb", ..value() }, invalid("page"));
        testing::refused(&ShowPage { duration_s: Some(0), ..value() }, invalid("duration_s"));
        testing::refused(&ShowPage { duration_s: Some(86_401), ..value() }, too_large("duration_s", 86_400));
    }

    #[test]
    fn broken_text_is_refused_where_it_stands() {
        let mut bytes = testing::encode(&value());
        bytes[10] = 0xFF;
        assert_eq!(ShowPage::decode(&bytes), Err(PayloadError::Text { at: 8 }));
    }

    #[test]
    fn a_length_that_claims_everything_is_refused() {
        let mut bytes = testing::encode(&value());
        bytes[..8].fill(0xFF);
        assert_eq!(ShowPage::decode(&bytes), Err(PayloadError::Truncated { at: 8 }));
    }

    #[test]
    fn an_order_of_another_kind_or_schema_is_not_read() {
        let bytes = testing::encode(&value());
        let order = ShowPage::order(1, &bytes);
        let schema = crate::frame::Order { schema: 2, ..order };
        let error = PayloadError::Schema { kind: OrderKind::SHOW_PAGE, found: 2 };
        assert_eq!(ShowPage::from_order(&schema), Err(error));
        let kind = crate::frame::Order { kind: OrderKind::PRINT, ..order };
        let error = PayloadError::Kind { found: OrderKind::PRINT, wanted: OrderKind::SHOW_PAGE };
        assert_eq!(ShowPage::from_order(&kind), Err(error));
    }

    proptest::proptest! {
        #![proptest_config(crate::testing::config())]
        #[test]
        fn round_trip(page in "[^\\pC]{1,40}", screen: u32, duration_s in proptest::option::of(1_u32..=86_400)) {
            testing::check(&ShowPage { page: &page, screen, duration_s });
        }
    }
}
