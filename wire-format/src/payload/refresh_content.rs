//! REFRESH-CONTENT: fetch the content again, each device at a moment of its own within a window.
//!
//! Idempotent; lane 2. Without the window 10,000 devices would ask the server for content in the same second.
//!
//! | field | type | rule |
//! | --- | --- | --- |
//! | content | enum | 0 everything, 1 catalogue, 2 media, 3 layout, 4 configuration |
//! | revision | u64 | the revision to reach; a device that has it or a later one does nothing; 0 whatever is newest |
//! | within_s | u32 | seconds over which devices spread their fetching, at most 86,400; 0 at once |
//! | origin | option of string | a URL (1 to 512 bytes of printable ASCII) to fetch from instead of the store server |

use serde::{Deserialize, Serialize};

use super::value::{self, URL_MAX};
use super::{Payload, PayloadError};
use crate::frame::order::KindFlags;
use crate::ids::{Lane, OrderKind};

/// Which content is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// 0: all of it.
    #[default]
    Everything,
    /// 1: articles and their texts.
    Catalogue,
    /// 2: pictures and films.
    Media,
    /// 3: pages and playlists.
    Layout,
    /// 4: the settings of the application.
    Configuration,
}

/// Fetch the content again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshContent<'a> {
    /// Which part.
    pub content: Content,
    /// The revision to reach, 0 for the newest.
    pub revision: u64,
    /// Seconds to spread the fetching over.
    pub within_s: u32,
    /// Where to fetch from, if not from the store server.
    #[serde(borrow)]
    pub origin: Option<&'a str>,
}

impl RefreshContent<'_> {
    /// The widest window: a day.
    pub const WITHIN_S_MAX: u32 = 86_400;
}

impl<'a> Payload<'a> for RefreshContent<'a> {
    const KIND: OrderKind = OrderKind::REFRESH_CONTENT;
    const SCHEMA: u16 = 1;
    const FLAGS: KindFlags = KindFlags::IDEMPOTENT.with(KindFlags::CANCELLABLE);
    const LANE: Lane = Lane::Normal;
    const LEN_MAX: usize = 4 + 8 + 4 + value::option(value::string(URL_MAX));

    fn check(&self) -> Result<(), PayloadError> {
        value::number("within_s", self.within_s, Self::WITHIN_S_MAX)?;
        Ok(self.origin.map_or(Ok(()), |origin| value::url("origin", origin))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::testing::{self, too_large};

    fn value() -> RefreshContent<'static> {
        RefreshContent {
            content: Content::Media,
            revision: 4_711,
            within_s: 300,
            origin: Some("http://10.0.0.2/content"),
        }
    }

    #[test]
    fn golden_vector() {
        testing::golden("REFRESH-CONTENT", &value());
    }

    #[test]
    fn limits_and_one_past_each() {
        let url = "u".repeat(URL_MAX + 1);
        let full = RefreshContent { within_s: 86_400, origin: Some(&url[..URL_MAX]), ..value() };
        testing::longest(&full);
        testing::refused(&RefreshContent { within_s: 86_401, ..value() }, too_large("within_s", 86_400));
        testing::refused(&RefreshContent { origin: Some(&url), ..value() }, too_large("origin", URL_MAX));
        testing::refused(&RefreshContent { origin: Some(""), ..value() }, testing::invalid("origin"));
        testing::refused(&RefreshContent { origin: Some("a b"), ..value() }, testing::invalid("origin"));
    }

    #[test]
    fn an_unlisted_content_is_refused() {
        let mut bytes = testing::encode(&value());
        bytes[0] = 5;
        assert_eq!(RefreshContent::decode(&bytes), Err(PayloadError::Variant { at: 0 }));
        bytes[0] = 0;
        bytes[16] = 2;
        assert_eq!(RefreshContent::decode(&bytes), Err(PayloadError::Bool { at: 16, found: 2 }));
    }

    proptest::proptest! {
        #![proptest_config(crate::testing::config())]
        #[test]
        fn round_trip(revision: u64, within_s in 0_u32..=86_400, origin in proptest::option::of("[!-~]{1,80}")) {
            testing::check(&RefreshContent {
                content: Content::Layout, revision, within_s, origin: origin.as_deref(),
            });
        }
    }
}
