//! The checks every payload passes.

use core::fmt::Debug;

use super::{Payload, PayloadError, ValueError};
use crate::error::EmitError;
use crate::testing;

/// What `encode` writes: see [`testing::emit`].
pub(super) fn encode<'a, P: Payload<'a>>(value: &P) -> Vec<u8> {
    testing::emit(|buffer| value.encode(buffer))
}

/// The specification's block of that name, everything [`check`] asks, and every byte changed into every other.
pub(super) fn golden<'a, P: Payload<'a> + Again + PartialEq + Debug>(name: &str, value: &P) {
    let bytes = encode(value);
    assert_eq!(bytes, testing::block("payload", name), "\n```payload {name}\n{}```", hex(&bytes));
    check(value);
    changes::<P>(&bytes, 1..=255);
}

fn hex(bytes: &[u8]) -> String {
    let line =
        |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ") + "\n";
    bytes.chunks(16).map(line).collect()
}

/// Reads bytes as this type of payload, whatever they live for, and writes what was read.
pub(super) trait Again {
    fn again(bytes: &[u8], buffer: &mut [u8]) -> Result<usize, PayloadError>;
}

macro_rules! again {
    ($($payload:ty),*) => {$(
        impl Again for $payload {
            fn again(bytes: &[u8], buffer: &mut [u8]) -> Result<usize, PayloadError> {
                Ok(<$payload>::decode(bytes)?.encode(buffer).expect("what decodes, encodes"))
            }
        }
    )*};
}

again!(
    super::RefreshContent<'_>,
    super::ShowPage<'_>,
    super::Message<'_>,
    super::RestartApp<'_>,
    super::UpdateFirmware<'_>,
    super::Print<'_>,
    super::PriceList<'_>,
    super::PrepareCollect<'_>,
    super::TransferCart<'_>,
    super::StockQuestion<'_>,
    super::StockAnswer
);

/// The value comes back; every truncation and a trailing byte are refused; a flipped bit is refused or means something
/// whose bytes are those.
pub(super) fn check<'a, P: Payload<'a> + Again + PartialEq + Debug>(value: &P) {
    let mut bytes = encode(value);
    let len = bytes.len();
    assert!(len <= P::LEN_MAX);
    // A borrowed value binds its bytes to `'a`; a few hundred of them leak per case.
    assert_eq!(P::decode(bytes.clone().leak()).as_ref(), Ok(value));
    let mut buffer = vec![0; P::LEN_MAX];
    for cut in 0..len {
        assert!(P::again(&bytes[..cut], &mut buffer).is_err(), "cut to {cut} of {len} bytes and accepted");
    }
    bytes.push(0);
    let error = P::again(&bytes, &mut buffer).unwrap_err();
    assert!(error == PayloadError::Trailing { at: len } || len == P::LEN_MAX, "{error:?}");
    bytes.pop();
    changes::<P>(&bytes, (0..8).map(|bit| 1 << bit));
}

/// Bytes changed by each of `masks` at each place (every so many in a long payload) are refused or come back as they are.
fn changes<P: Again>(bytes: &[u8], masks: impl Iterator<Item = u8> + Clone) {
    let (mut changed, mut buffer) = (bytes.to_vec(), vec![0; 70_000]);
    for at in (0..bytes.len()).step_by((bytes.len() / 256).max(1)) {
        for mask in masks.clone() {
            changed[at] = bytes[at] ^ mask;
            if let Ok(written) = P::again(&changed, &mut buffer) {
                assert_eq!(buffer[..written], changed, "byte {at}: not canonical");
            }
        }
        changed[at] = bytes[at];
    }
}

/// The value has the longest form there is; a byte more is refused before anything is read.
pub(super) fn longest<'a, P: Payload<'a> + PartialEq + Debug>(value: &P) {
    let mut bytes = encode(value);
    assert_eq!(bytes.len(), P::LEN_MAX);
    bytes.push(0);
    let bytes: &'a [u8] = bytes.leak();
    let (exact, one_past) =
        (&bytes[..P::LEN_MAX], PayloadError::TooLong { len: bytes.len(), limit: P::LEN_MAX });
    assert_eq!(P::decode(exact).as_ref(), Ok(value));
    assert_eq!(P::decode(bytes), Err(one_past));
}

/// Written by somebody who does not check, the value is refused for `error` (or for being too long); our own `encode`
/// refuses it too.
pub(super) fn refused<'a, P: Payload<'a> + PartialEq + Debug>(value: &P, error: PayloadError) {
    let mut buffer = vec![0; 100_000];
    assert!(matches!(value.encode(&mut buffer), Err(EmitError::TooLarge { .. } | EmitError::Invalid { .. })));
    let len = super::codec::encode(value, &mut buffer).unwrap();
    buffer.truncate(len);
    let bytes: &'a [u8] = buffer.leak();
    let too_long = PayloadError::TooLong { len, limit: P::LEN_MAX };
    let expected = if len > P::LEN_MAX { too_long } else { error };
    assert_eq!(P::decode(bytes), Err(expected));
    assert_eq!(value.check(), Err(error));
}

pub(super) const fn too_large(field: &'static str, limit: usize) -> PayloadError {
    PayloadError::Value(ValueError::TooLarge { field, limit })
}

pub(super) const fn invalid(field: &'static str) -> PayloadError {
    PayloadError::Value(ValueError::Invalid { field })
}

/// The tables above the types and those of the specification are the same, line by line.
#[test]
fn tables_are_those_of_the_specification() {
    let specification = include_str!("../../../docs/PROTOCOL.md");
    let files = [
        include_str!("mod.rs"),
        include_str!("fetch.rs"),
        include_str!("refresh_content.rs"),
        include_str!("show_page.rs"),
        include_str!("message.rs"),
        include_str!("restart_app.rs"),
        include_str!("update_firmware.rs"),
        include_str!("print.rs"),
        include_str!("price_list.rs"),
        include_str!("prepare_collect.rs"),
        include_str!("transfer_cart.rs"),
        include_str!("stock.rs"),
    ];
    for file in files {
        let rows =
            file.lines().filter_map(|line| line.strip_prefix("//! ")).filter(|line| line.starts_with('|'));
        let (table, rows) = (rows.clone().collect::<Vec<_>>().join("\n"), rows.count());
        assert!(rows > 4, "a file without a table");
        for row in table.lines() {
            assert!(specification.lines().any(|line| line == row), "not in docs/PROTOCOL.md: {row}");
        }
    }
}
