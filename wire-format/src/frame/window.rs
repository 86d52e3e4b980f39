//! WINDOW: new limits of the window.
//!
//! The device sends it when it can hold more, or less, than its WELCOME said. What is on its way when the limits shrink
//! is still accepted.
//!
//! ```text
//! server                          device
//!   │◀──────────── WINDOW 4, 2 KiB │  memory is short
//!   │── ORDER … ──────────────────▶│  never more than that open from here on
//! ```
//!
//! Header: no flags; `aux16` the orders that may be unsettled at a time, 1 or more; `aux32` the bytes of ORDER frames that
//! may be unanswered at a time, at least 64. No body. Both logs share the window.

use super::welcome::WINDOW_BYTES_MIN;
use super::{Flags, Header, Kind, Raw, emit_bare};
use crate::error::{EmitError, Fault, ParseError};

/// What may be on its way to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Orders that may be unsettled at a time, 1 or more.
    pub orders: u16,
    /// Bytes of ORDER frames that may be unanswered at a time, at least 64.
    pub bytes: u32,
}

impl Window {
    /// Reads a WINDOW frame.
    pub fn parse(raw: &Raw<'_>) -> Result<Self, ParseError> {
        raw.header.expect(Kind::WINDOW, Flags::NONE)?;
        raw.expect_no_body()?;
        let Header { aux16: orders, aux32: bytes, .. } = raw.header;
        match (orders, bytes) {
            (0, _) => Err(ParseError::new("aux16", 6, Fault::Range)),
            (_, WINDOW_BYTES_MIN..) => Ok(Self { orders, bytes }),
            _ => Err(ParseError::new("aux32", 8, Fault::Range)),
        }
    }

    /// Writes the frame; bytes written.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        match (self.orders, self.bytes) {
            (0, _) => Err(EmitError::Invalid { field: "aux16" }),
            (_, 0..WINDOW_BYTES_MIN) => Err(EmitError::Invalid { field: "aux32" }),
            (aux16, aux32) => emit_bare(Header { aux16, aux32, ..Header::new(Kind::WINDOW, 0) }, buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn check(window: &Window) {
        let bytes = testing::emit(|buffer| window.emit(buffer));
        assert_eq!(Window::parse(&Raw::parse(&bytes).unwrap()), Ok(*window));
        testing::frame(&bytes, |raw, buffer| Ok(Window::parse(raw)?.emit(buffer)));
    }

    #[test]
    fn golden_vector() {
        let window = Window { orders: 4, bytes: 2_048 };
        assert_eq!(testing::emit(|buffer| window.emit(buffer)), testing::vector("WINDOW"));
    }

    #[test]
    fn limits_and_one_past_each() {
        check(&Window { orders: 1, bytes: WINDOW_BYTES_MIN });
        check(&Window { orders: u16::MAX, bytes: u32::MAX });
        let parse = |aux16, aux32| {
            let header = Header { aux16, aux32, ..Header::new(Kind::WINDOW, 0) };
            Window::parse(&Raw { header, body: &[] })
        };
        assert_eq!(parse(0, 64), Err(ParseError::new("aux16", 6, Fault::Range)));
        assert_eq!(parse(1, 63), Err(ParseError::new("aux32", 8, Fault::Range)));
        let emit = |orders, bytes| Window { orders, bytes }.emit(&mut [0; 16]);
        assert_eq!(emit(0, 64), Err(EmitError::Invalid { field: "aux16" }));
        assert_eq!(emit(1, 63), Err(EmitError::Invalid { field: "aux32" }));
    }

    proptest::proptest! {
        #![proptest_config(testing::config())]
        #[test]
        fn round_trip(orders in 1_u16.., bytes in WINDOW_BYTES_MIN..) {
            check(&Window { orders, bytes });
        }
    }
}
