//! The roster alone, in virtual time: no device answers but by the test's hand.

mod fields;

use crate::link::Arrival;
use crate::testing::{LINK, address};

/// A unicast from the host with this number.
fn arrival(number: u32) -> Arrival {
    Arrival { link: LINK, source: address(number), broadcast: false }
}
