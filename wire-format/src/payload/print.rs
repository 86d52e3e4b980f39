//! PRINT: print a document.
//!
//! Not idempotent: paper comes out each time; lane 1, for somebody waits at the printer.
//!
//! | field | type | rule |
//! | --- | --- | --- |
//! | job | u64 | the sender's number for it, never 0 |
//! | format | enum | 0 text (UTF-8), 1 ESC/POS, 2 PDF, 3 PNG |
//! | copies | u32 | 1 to 20 |
//! | document | enum | 0 inline: bytes, 1 to 32,768 of them; 1 fetch: where to fetch it, its size, its digest |

use serde::{Deserialize, Serialize};

use super::value;
use super::{Fetch, Payload, PayloadError};
use crate::frame::order::KindFlags;
use crate::ids::{Lane, OrderKind};

/// What the bytes of a document are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// 0: UTF-8 text.
    #[default]
    Text,
    /// 1: commands of receipt printers.
    EscPos,
    /// 2: PDF.
    Pdf,
    /// 3: a PNG picture.
    Png,
}

/// Where a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Document<'a> {
    /// 0: here.
    Inline(#[serde(borrow, serialize_with = "value::bytes")] &'a [u8]),
    /// 1: elsewhere.
    Fetch(#[serde(borrow)] Fetch<'a>),
}

/// Print a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Print<'a> {
    /// The sender's number for it.
    pub job: u64,
    /// What the document's bytes are.
    pub format: Format,
    /// How many.
    pub copies: u32,
    /// The document.
    #[serde(borrow)]
    pub document: Document<'a>,
}

impl Print<'_> {
    /// Copies of one job: more is a mistake of the sender.
    pub const COPIES_MAX: u32 = 20;
    /// Bytes of a document inside the order; half of what an order carries.
    pub const INLINE_MAX: usize = 32_768;
}

impl<'a> Payload<'a> for Print<'a> {
    const KIND: OrderKind = OrderKind::PRINT;
    const SCHEMA: u16 = 1;
    const FLAGS: KindFlags = KindFlags::CANCELLABLE;
    const LANE: Lane = Lane::Interactive;
    const LEN_MAX: usize = 8 + 4 + 4 + 4 + value::string(Self::INLINE_MAX);

    fn check(&self) -> Result<(), PayloadError> {
        value::require("job", self.job != 0)?;
        value::require("copies", self.copies != 0)?;
        value::number("copies", self.copies, Self::COPIES_MAX)?;
        match self.document {
            Document::Fetch(fetch) => fetch.check()?,
            Document::Inline(bytes) => {
                value::require("document", !bytes.is_empty())?;
                value::size("document", bytes.len(), Self::INLINE_MAX)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::testing::{self, invalid, too_large};

    fn value() -> Print<'static> {
        Print { job: 99, format: Format::EscPos, copies: 2, document: Document::Inline(b"\x1b@Bon\n\x1dV\0") }
    }

    fn elsewhere(url: &str) -> Print<'_> {
        let document = Document::Fetch(Fetch { url, size: 70_000, sha256: [7; 32] });
        Print { format: Format::Pdf, document, ..value() }
    }

    #[test]
    fn golden_vector() {
        testing::golden("PRINT", &value());
        testing::golden("PRINT-FETCH", &elsewhere("http://10.0.0.2/label.pdf"));
    }

    #[test]
    fn limits_and_one_past_each() {
        let long = [b'x'; 32_769];
        testing::longest(&Print { copies: 20, document: Document::Inline(&long[..32_768]), ..value() });
        testing::refused(&Print { job: 0, ..value() }, invalid("job"));
        testing::refused(&Print { copies: 0, ..value() }, invalid("copies"));
        testing::refused(&Print { copies: 21, ..value() }, too_large("copies", 20));
        testing::refused(&Print { document: Document::Inline(&[]), ..value() }, invalid("document"));
        let document = Document::Inline(&long);
        testing::refused(&Print { document, ..value() }, too_large("document", 32_768));
        testing::refused(&elsewhere("über"), invalid("url"));
    }

    proptest::proptest! {
        #![proptest_config(crate::testing::config())]
        #[test]
        fn round_trip(
            job in 1_u64.., copies in 1_u32..=20, bytes in proptest::collection::vec(0_u8.., 1..200),
        ) {
            testing::check(&Print { job, format: Format::Png, copies, document: Document::Inline(&bytes) });
        }
    }
}
