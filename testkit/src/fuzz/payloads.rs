//! Payloads: what is understood has these bytes and no other.
//!
//! Input: a byte that chooses the payload, then the payload.

use wire_format::payload::{
    CartLine, CollectLine, Entry, List, Message, Payload, PrepareCollect, PriceChange, PriceList, Print,
    RefreshContent, RestartApp, ShowPage, StockAnswer, StockQuestion, TransferCart, UpdateFirmware,
};

use super::{Seed, seed_name};
use crate::vectors::Vector;

/// Any bytes as a payload of one of the standard kinds.
///
/// # Panics
///
/// If what was decoded does not encode to the bytes it came from.
pub fn payloads(data: &[u8]) {
    let Some((&choice, bytes)) = data.split_first() else { return };
    match choice {
        0 => drop(canonical::<RefreshContent<'_>>(bytes)),
        1 => drop(canonical::<ShowPage<'_>>(bytes)),
        2 => drop(canonical::<Message<'_>>(bytes)),
        3 => drop(canonical::<RestartApp<'_>>(bytes)),
        4 => drop(canonical::<UpdateFirmware<'_>>(bytes)),
        5 => drop(canonical::<Print<'_>>(bytes)),
        6 => {
            if let Some(list) = canonical::<PriceList<'_>>(bytes) {
                entries::<PriceChange>(list.changes, PriceList::CHANGES_MAX);
            }
        }
        7 => {
            if let Some(collect) = canonical::<PrepareCollect<'_>>(bytes) {
                entries::<CollectLine<'_>>(collect.lines, PrepareCollect::LINES_MAX);
            }
        }
        8 => {
            if let Some(cart) = canonical::<TransferCart<'_>>(bytes) {
                entries::<CartLine<'_>>(cart.lines, TransferCart::LINES_MAX);
            }
        }
        9 => drop(canonical::<StockQuestion<'_>>(bytes)),
        10 => drop(canonical::<StockAnswer>(bytes)),
        _ => {}
    }
}

/// The names of the vectors whose payload a choice stands for, by choice.
const NAMES: [&str; 11] = [
    "REFRESH-CONTENT",
    "SHOW-PAGE",
    "MESSAGE",
    "RESTART-APP",
    "UPDATE-FIRMWARE",
    "PRINT",
    "PRICE-LIST",
    "PREPARE-COLLECT",
    "TRANSFER-CART",
    "STOCK-QUESTION",
    "STOCK-ANSWER",
];

fn canonical<'a, P: Payload<'a>>(bytes: &'a [u8]) -> Option<P> {
    let value = P::decode(bytes).ok()?;
    assert!(bytes.len() <= P::LEN_MAX, "longer than the longest form");
    let mut buffer = vec![0xA5; P::LEN_MAX];
    let len = value.encode(&mut buffer).expect("what decodes, encodes");
    assert_eq!(buffer[..len], *bytes, "the same payload has two forms");
    let order = P::order(1, bytes);
    assert!(P::from_order(&order).is_ok(), "a payload its own order refuses");
    Some(value)
}

/// A list that was read is the list of its entries.
fn entries<'a, T: Entry<'a> + PartialEq + core::fmt::Debug>(list: List<'a, T>, limit: usize) {
    let entries: Vec<T> = list.iter().collect();
    assert!(entries.len() <= limit && entries.len() == list.len());
    assert!(entries.iter().all(|entry| entry.check().is_ok()));
    assert!(list.iter().eq(entries.iter().copied()));
}

/// Every payload of the specification.
pub(super) fn seeds(vectors: &[Vector], seeds: &mut Vec<Seed>) {
    for vector in vectors.iter().filter(|vector| vector.sort == "payload") {
        let choice =
            NAMES.iter().position(|name| vector.name.strip_suffix("-FETCH").unwrap_or(&vector.name) == *name);
        let choice = choice.unwrap_or_else(|| panic!("no payload for the vector {}", vector.name));
        let bytes = [&[u8::try_from(choice).unwrap()], &vector.bytes[..]].concat();
        seeds.push(Seed { target: "payloads", name: seed_name(vector), bytes });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_reads_its_vector() {
        for seed in super::super::seeds().iter().filter(|seed| seed.target == "payloads") {
            let (choice, bytes) = (seed.bytes[0], &seed.bytes[1..]);
            let read = match choice {
                0 => RefreshContent::decode(bytes).is_ok(),
                1 => ShowPage::decode(bytes).is_ok(),
                2 => Message::decode(bytes).is_ok(),
                3 => RestartApp::decode(bytes).is_ok(),
                4 => UpdateFirmware::decode(bytes).is_ok(),
                5 => Print::decode(bytes).is_ok(),
                6 => PriceList::decode(bytes).is_ok(),
                7 => PrepareCollect::decode(bytes).is_ok(),
                8 => TransferCart::decode(bytes).is_ok(),
                9 => StockQuestion::decode(bytes).is_ok(),
                10 => StockAnswer::decode(bytes).is_ok(),
                _ => false,
            };
            assert!(read, "{}", seed.name);
        }
    }
}
