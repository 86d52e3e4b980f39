//! UPDATE-FIRMWARE: fetch an image, check it, install it within a window.
//!
//! Idempotent: a device that runs the version says applied; lane 3. Times count from the arrival of the order, for a
//! device may have no clock. The digest says that the image arrived whole, not who made it: a device also checks the
//! maker's signature inside the image.
//!
//! | field | type | rule |
//! | --- | --- | --- |
//! | version | string | 1 to 32 bytes without control characters |
//! | image | struct | where to fetch it, its size, its digest |
//! | start_after_s | u32 | seconds before the installation may start, at most 604,800 |
//! | start_within_s | u32 | seconds after that over which devices spread their start, at most 604,800 |

use serde::{Deserialize, Serialize};

use super::value;
use super::{Fetch, Payload, PayloadError};
use crate::frame::order::KindFlags;
use crate::ids::{Lane, OrderKind};

/// Install firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateFirmware<'a> {
    /// The version the image holds.
    pub version: &'a str,
    /// The image.
    #[serde(borrow)]
    pub image: Fetch<'a>,
    /// Seconds from the order's arrival before which the installation must not start.
    pub start_after_s: u32,
    /// Seconds after that within which it starts.
    pub start_within_s: u32,
}

impl UpdateFirmware<'_> {
    /// Bytes of a version.
    pub const VERSION_MAX: usize = 32;
    /// The latest start and the widest window: a week each.
    pub const START_S_MAX: u32 = 604_800;
}

impl<'a> Payload<'a> for UpdateFirmware<'a> {
    const KIND: OrderKind = OrderKind::UPDATE_FIRMWARE;
    const SCHEMA: u16 = 1;
    const FLAGS: KindFlags = KindFlags::IDEMPOTENT.with(KindFlags::CANCELLABLE);
    const LANE: Lane = Lane::Bulk;
    const LEN_MAX: usize = value::string(Self::VERSION_MAX) + Fetch::LEN_MAX + 4 + 4;

    fn check(&self) -> Result<(), PayloadError> {
        value::name("version", self.version, Self::VERSION_MAX)?;
        self.image.check()?;
        value::number("start_after_s", self.start_after_s, Self::START_S_MAX)?;
        Ok(value::number("start_within_s", self.start_within_s, Self::START_S_MAX)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::testing::{self, invalid, too_large};

    fn value() -> UpdateFirmware<'static> {
        let image = Fetch { url: "http://10.0.0.2/fw/4.2.0.bin", size: 8_388_608, sha256: [0xAB; 32] };
        UpdateFirmware { version: "4.2.0", image, start_after_s: 3_600, start_within_s: 7_200 }
    }

    #[test]
    fn golden_vector() {
        testing::golden("UPDATE-FIRMWARE", &value());
    }

    #[test]
    fn limits_and_one_past_each() {
        let (long, base) = ("x".repeat(513), value());
        let full = UpdateFirmware {
            version: &long[..32],
            image: Fetch { url: &long[..512], ..base.image },
            start_after_s: 604_800,
            start_within_s: 604_800,
        };
        testing::longest(&full);
        let image = |image| UpdateFirmware { image, ..base };
        testing::refused(&UpdateFirmware { version: &long[..33], ..base }, too_large("version", 32));
        testing::refused(&UpdateFirmware { version: "", ..base }, invalid("version"));
        testing::refused(&image(Fetch { url: &long, ..base.image }), too_large("url", 512));
        testing::refused(&image(Fetch { size: 0, ..base.image }), invalid("size"));
        let late = UpdateFirmware { start_after_s: 604_801, ..base };
        testing::refused(&late, too_large("start_after_s", 604_800));
        let wide = UpdateFirmware { start_within_s: 604_801, ..base };
        testing::refused(&wide, too_large("start_within_s", 604_800));
    }

    proptest::proptest! {
        #![proptest_config(crate::testing::config())]
        #[test]
        fn round_trip(
            version in "[0-9a-z.]{1,12}", url in "[!-~]{1,60}", size in 1_u64.., sha256: [u8; 32],
            start_after_s in 0_u32..=604_800, start_within_s in 0_u32..=604_800,
        ) {
            let image = Fetch { url: &url, size, sha256 };
            testing::check(&UpdateFirmware { version: &version, image, start_after_s, start_within_s });
        }
    }
}
