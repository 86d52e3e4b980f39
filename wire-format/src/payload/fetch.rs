//! Where to fetch something large, and how to know it arrived whole. A part of other payloads.
//!
//! | field | type | rule |
//! | --- | --- | --- |
//! | url | string | 1 to 512 bytes of printable ASCII |
//! | size | u64 | bytes, at least 1 |
//! | sha256 | digest | SHA-256 of those bytes; a device that finds another one drops what it fetched |

use serde::{Deserialize, Serialize};

use super::value::{self, URL_MAX, ValueError};

/// Something to fetch over HTTP: too large for an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch<'a> {
    /// Where it is.
    pub url: &'a str,
    /// Bytes it has.
    pub size: u64,
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
}

impl Fetch<'_> {
    /// Bytes of the longest form.
    pub const LEN_MAX: usize = value::string(URL_MAX) + 8 + 32;

    pub(super) fn check(&self) -> Result<(), ValueError> {
        value::url("url", self.url)?;
        value::require("size", self.size != 0)
    }
}
