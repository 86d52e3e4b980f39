//! What the standard order kinds carry (specification, "Payloads of the standard order kinds").
//!
//! To the protocol a payload is opaque bytes; these are the ones both ends of a shop agree on. Each is a plain struct,
//! one file each, whose fields are written one after another in the order of its table:
//!
//! | type | bytes |
//! | --- | --- |
//! | u8 … u64, i64 | 1 … 8, little-endian, two's complement |
//! | bool | 1: 0 or 1, nothing else |
//! | string | 8-byte length in bytes, then that many bytes of UTF-8, no terminator |
//! | bytes | 8-byte length, then that many bytes |
//! | id | 16 bytes as they stand, no length |
//! | digest | 32 bytes as they stand, no length |
//! | currency | 3 bytes, `A` to `Z`, no length |
//! | option of T | 1 byte, 0 or 1; after a 1 a T |
//! | enum | 4-byte number; an unknown number is refused; after it the fields of that variant, if it has any |
//! | list of T | 8-byte length in bytes of all entries together, then the entries one after another |
//! | struct | its fields, nothing before, between or after them |
//!
//! This is the fixed-int little-endian form of bincode 2 and needs no bincode to be read or written. It is canonical: no
//! two byte strings mean the same, so equal orders have equal bytes. A field is never added to a payload, nor a variant
//! to an enum: that is a new schema number in the order. Control characters are U+0000 to U+001F and U+007F to U+009F.
//!
//! Every value has a named limit, checked before writing and after reading; a payload also has a longest form
//! ([`Payload::LEN_MAX`]). Values borrow from the bytes they were read from: nothing here allocates.
//!
//! ```
//! use wire_format::payload::{Payload, ShowPage};
//! let page = ShowPage { page: "opening-hours", screen: 0, duration_s: Some(30) };
//! let mut buffer = [0; ShowPage::LEN_MAX];
//! let len = page.encode(&mut buffer)?;
//! assert_eq!(ShowPage::decode(&buffer[..len])?, page);
//! let order = ShowPage::order(7, &buffer[..len]);
//! assert_eq!(ShowPage::from_order(&order)?, page);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod codec;
mod fetch;
mod list;
mod message;
mod prepare_collect;
mod price_list;
mod print;
mod refresh_content;
mod restart_app;
mod show_page;
mod stock;
mod transfer_cart;
mod update_firmware;
mod value;

#[cfg(test)]
mod differential;
#[cfg(test)]
mod testing;

pub use fetch::Fetch;
pub use list::{Entry, List};
pub use message::{Message, Severity};
pub use prepare_collect::{CollectLine, Handover, PrepareCollect};
pub use price_list::{PriceChange, PriceList, Unit};
pub use print::{Document, Format, Print};
pub use refresh_content::{Content, RefreshContent};
pub use restart_app::{RestartApp, When};
pub use show_page::ShowPage;
pub use stock::{Level, StockAnswer, StockQuestion};
pub use transfer_cart::{CartLine, TransferCart};
pub use update_firmware::UpdateFirmware;
pub use value::{URL_MAX, ValueError};

use serde::{Deserialize, Serialize};

use crate::error::EmitError;
use crate::frame::order::{KindFlags, Order};
use crate::ids::{Lane, OrderKind};

/// A payload that cannot be believed: what is wrong, and where it shows. Offsets count from the payload's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// The order is of another kind.
    #[error("the order is of kind {found}, not {wanted}")]
    Kind {
        /// The kind of the order.
        found: OrderKind,
        /// The kind this payload belongs to.
        wanted: OrderKind,
    },
    /// The order's payload is in another encoding than this code knows.
    #[error("schema {found} of {kind} is not known here")]
    Schema {
        /// The order's kind.
        kind: OrderKind,
        /// The schema number of the order.
        found: u16,
    },
    /// More bytes than the longest form of this payload.
    #[error("{len} bytes, and the longest form has {limit}")]
    TooLong {
        /// Bytes there are.
        len: usize,
        /// Bytes of the longest form.
        limit: usize,
    },
    /// The bytes end before the value does, or a length inside claims more than there is.
    #[error("the bytes end inside the value that starts at byte {at}")]
    Truncated {
        /// Where the value starts that is not there in full.
        at: usize,
    },
    /// The value ended before the bytes did.
    #[error("bytes are left from byte {at} on")]
    Trailing {
        /// Where the first byte too many stands.
        at: usize,
    },
    /// A string is not UTF-8.
    #[error("the string at byte {at} is not UTF-8")]
    Text {
        /// Where its bytes start.
        at: usize,
    },
    /// A bool, or the first byte of an option, is neither 0 nor 1.
    #[error("the byte at {at} is {found}, neither 0 nor 1")]
    Bool {
        /// Where it stands.
        at: usize,
        /// What it is.
        found: u8,
    },
    /// The number of an enum is none of those the schema lists.
    #[error("the enum at byte {at} has a number the schema does not list")]
    Variant {
        /// Where it stands.
        at: usize,
    },
    /// A field holds a value outside its limits.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// An entry of a list is wrong in itself.
    #[error("entry {index} of {field}: {fault}")]
    Entry {
        /// The list's name in the specification.
        field: &'static str,
        /// Which entry, counted from 0.
        index: usize,
        /// What is wrong. Offsets count from the list's first entry.
        fault: EntryFault,
    },
}

/// What can be wrong with one entry of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryFault {
    /// The list ends inside the entry.
    #[error("the list ends inside the value that starts at byte {at} of it")]
    Truncated {
        /// Where the value starts, counted from the list's first entry.
        at: usize,
    },
    /// A string, bool, option or enum is not one.
    #[error("the value at byte {at} of the list is malformed")]
    Malformed {
        /// Where it stands, counted from the list's first entry.
        at: usize,
    },
    /// A field holds a value outside its limits.
    #[error(transparent)]
    Value(#[from] ValueError),
}

/// A payload of a standard order kind.
///
/// The constants are what a server puts into the order's header; [`Payload::order`] does it.
pub trait Payload<'a>: Sized + Serialize + Deserialize<'a> {
    /// The order kind that carries it.
    const KIND: OrderKind;
    /// The version of this layout.
    const SCHEMA: u16;
    /// What a device may do with the order.
    const FLAGS: KindFlags;
    /// The lane such orders travel in unless somebody decides otherwise.
    const LANE: Lane;
    /// Bytes of the longest form.
    const LEN_MAX: usize;

    /// Every limit of the table in the payload's file.
    fn check(&self) -> Result<(), PayloadError>;

    /// Writes the payload; bytes written.
    fn encode(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        self.check().map_err(value::emit_error)?;
        codec::encode(self, buffer)
    }

    /// Reads a payload that fills `bytes` exactly.
    fn decode(bytes: &'a [u8]) -> Result<Self, PayloadError> {
        if bytes.len() > Self::LEN_MAX {
            return Err(PayloadError::TooLong { len: bytes.len(), limit: Self::LEN_MAX });
        }
        let value: Self = codec::decode(bytes)?;
        value.check()?;
        Ok(value)
    }

    /// An order number `number` that carries `payload`, which [`Payload::encode`] wrote. No keys, no options.
    #[must_use]
    fn order(number: u64, payload: &'a [u8]) -> Order<'a> {
        Order {
            number,
            order_key: 0,
            supersede_key: 0,
            supersede_version: 0,
            kind: Self::KIND,
            lane: Self::LANE,
            kind_flags: Self::FLAGS,
            schema: Self::SCHEMA,
            options: &[],
            payload,
        }
    }

    /// The payload of an order, once kind and schema are right.
    fn from_order(order: &Order<'a>) -> Result<Self, PayloadError> {
        if order.kind != Self::KIND {
            return Err(PayloadError::Kind { found: order.kind, wanted: Self::KIND });
        }
        if order.schema != Self::SCHEMA {
            return Err(PayloadError::Schema { kind: order.kind, found: order.schema });
        }
        Self::decode(order.payload)
    }
}
