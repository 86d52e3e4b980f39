//! MESSAGE: a message to the staff at the device.
//!
//! Idempotent (a message with the id of one that is shown takes its place), perishable; lane 1.
//!
//! | field | type | rule |
//! | --- | --- | --- |
//! | id | u64 | the sender's number for it, never 0 |
//! | severity | enum | 0 information, 1 warning, 2 alarm |
//! | title | string | at most 64 bytes, no control characters |
//! | text | string | 1 to 1,024 bytes; line breaks and tabs, no other control characters |
//! | confirm | bool | it stays until somebody confirms it |
//! | duration_s | option of u32 | seconds it stays otherwise, 1 to 86,400; none for the device's own rule |

use serde::{Deserialize, Serialize};

use super::value;
use super::{Payload, PayloadError};
use crate::frame::order::KindFlags;
use crate::ids::{Lane, OrderKind};

/// How much a message matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Severity {
    /// 0: good to know.
    #[default]
    Information,
    /// 1: look at it soon.
    Warning,
    /// 2: now.
    Alarm,
}

/// A message to the staff.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message<'a> {
    /// The sender's number for it.
    pub id: u64,
    /// How much it matters.
    pub severity: Severity,
    /// A headline; may be empty.
    pub title: &'a str,
    /// What to read.
    pub text: &'a str,
    /// Somebody must confirm it.
    pub confirm: bool,
    /// Seconds it stays if nobody must.
    pub duration_s: Option<u32>,
}

impl Message<'_> {
    /// Bytes of the title: one line of a till's display.
    pub const TITLE_MAX: usize = 64;
    /// Bytes of the text: what fits a till's display.
    pub const TEXT_MAX: usize = 1_024;
    /// The longest showing: a day.
    pub const DURATION_S_MAX: u32 = 86_400;
}

impl<'a> Payload<'a> for Message<'a> {
    const KIND: OrderKind = OrderKind::MESSAGE;
    const SCHEMA: u16 = 1;
    const FLAGS: KindFlags = KindFlags::IDEMPOTENT.with(KindFlags::PERISHABLE).with(KindFlags::CANCELLABLE);
    const LANE: Lane = Lane::Interactive;
    const LEN_MAX: usize =
        8 + 4 + value::string(Self::TITLE_MAX) + value::string(Self::TEXT_MAX) + 1 + value::option(4);

    fn check(&self) -> Result<(), PayloadError> {
        value::require("id", self.id != 0)?;
        value::line("title", self.title, Self::TITLE_MAX)?;
        value::require("text", !self.text.is_empty())?;
        value::text("text", self.text, Self::TEXT_MAX)?;
        let duration_s = self.duration_s.unwrap_or(1);
        value::require("duration_s", duration_s != 0)?;
        Ok(value::number("duration_s", duration_s, Self::DURATION_S_MAX)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::testing::{self, invalid, too_large};

    fn value() -> Message<'static> {
        Message {
            id: 12,
            severity: Severity::Warning,
            title: "Kühlung",
            text: "Vitrine 3 ist offen.\nBitte schließen.",
            confirm: true,
            duration_s: None,
        }
    }

    #[test]
    fn golden_vector() {
        testing::golden("MESSAGE", &value());
    }

    #[test]
    fn limits_and_one_past_each() {
        let long = "x".repeat(1_025);
        let full = Message { title: &long[..64], text: &long[..1_024], duration_s: Some(86_400), ..value() };
        testing::longest(&full);
        testing::refused(&Message { id: 0, ..value() }, invalid("id"));
        testing::refused(&Message { title: &long[..65], ..value() }, too_large("title", 64));
        testing::refused(&Message { title: "\t", ..value() }, invalid("title"));
        testing::refused(&Message { text: &long, ..value() }, too_large("text", 1_024));
        testing::refused(&Message { text: "", ..value() }, invalid("text"));
        testing::refused(&Message { text: "\u{7}", ..value() }, invalid("text"));
        testing::refused(&Message { duration_s: Some(0), ..value() }, invalid("duration_s"));
        testing::refused(&Message { duration_s: Some(86_401), ..value() }, too_large("duration_s", 86_400));
    }

    #[test]
    fn a_bool_of_2_is_refused() {
        let mut bytes = testing::encode(&value());
        let at = bytes.len() - 2;
        bytes[at] = 2;
        assert_eq!(Message::decode(&bytes), Err(PayloadError::Bool { at, found: 2 }));
    }

    proptest::proptest! {
        #![proptest_config(crate::testing::config())]
        #[test]
        fn round_trip(
            id in 1_u64.., title in "[^\\pC]{0,10}", text in "[^\\pC]{1,40}", confirm: bool,
            duration_s in proptest::option::of(1_u32..=86_400),
        ) {
            testing::check(&Message {
                id, severity: Severity::Alarm, title: &title, text: &text, confirm, duration_s,
            });
        }
    }
}
