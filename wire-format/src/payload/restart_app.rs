//! RESTART-APP: restart the application (not the device).
//!
//! Perishable and not idempotent: a second restart is a second restart; lane 2.
//!
//! | field | type | rule |
//! | --- | --- | --- |
//! | when | enum | 0 as soon as no customer is being served, 1 now |
//! | within_s | u32 | seconds over which devices spread it, at most 3,600; 0 at once |
//! | reason | string | for the log, at most 128 bytes without control characters |

use serde::{Deserialize, Serialize};

use super::value;
use super::{Payload, PayloadError};
use crate::frame::order::KindFlags;
use crate::ids::{Lane, OrderKind};

/// How urgent a restart is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum When {
    /// 0: as soon as no customer is being served.
    #[default]
    Idle,
    /// 1: now.
    Now,
}

/// Restart the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartApp<'a> {
    /// How urgent it is.
    pub when: When,
    /// Seconds to spread it over.
    pub within_s: u32,
    /// For the log.
    pub reason: &'a str,
}

impl RestartApp<'_> {
    /// The widest spread: an hour.
    pub const WITHIN_S_MAX: u32 = 3_600;
    /// Bytes of the reason: a line of a log.
    pub const REASON_MAX: usize = 128;
}

impl<'a> Payload<'a> for RestartApp<'a> {
    const KIND: OrderKind = OrderKind::RESTART_APP;
    const SCHEMA: u16 = 1;
    const FLAGS: KindFlags = KindFlags::PERISHABLE.with(KindFlags::CANCELLABLE);
    const LANE: Lane = Lane::Normal;
    const LEN_MAX: usize = 4 + 4 + value::string(Self::REASON_MAX);

    fn check(&self) -> Result<(), PayloadError> {
        value::number("within_s", self.within_s, Self::WITHIN_S_MAX)?;
        Ok(value::line("reason", self.reason, Self::REASON_MAX)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::testing::{self, invalid, too_large};

    fn value() -> RestartApp<'static> {
        RestartApp { when: When::Idle, within_s: 600, reason: "new configuration" }
    }

    #[test]
    fn golden_vector() {
        testing::golden("RESTART-APP", &value());
    }

    #[test]
    fn limits_and_one_past_each() {
        let long = "x".repeat(129);
        testing::longest(&RestartApp { within_s: 3_600, reason: &long[..128], ..value() });
        testing::refused(&RestartApp { within_s: 3_601, ..value() }, too_large("within_s", 3_600));
        testing::refused(&RestartApp { reason: &long, ..value() }, too_large("reason", 128));
        testing::refused(&RestartApp { reason: "\r", ..value() }, invalid("reason"));
    }

    proptest::proptest! {
        #![proptest_config(crate::testing::config())]
        #[test]
        fn round_trip(within_s in 0_u32..=3_600, reason in "[^\\pC]{0,40}") {
            testing::check(&RestartApp { when: When::Now, within_s, reason: &reason });
        }
    }
}
