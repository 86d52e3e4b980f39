//! The only place that names bincode: fixed-int little-endian, over our own cursor, which knows where it stands.

use bincode::BorrowDecode;
use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use bincode::de::read::{BorrowReader, Reader};
use bincode::de::{BorrowDecoder, DecoderImpl};
use bincode::enc::write::Writer;
use bincode::error::{DecodeError, EncodeError};
use bincode::serde::BorrowCompat;
use serde::{Deserialize, Serialize};

use super::PayloadError;
use crate::bytes;
use crate::error::EmitError;
use crate::frame::order::PAYLOAD_MAX;

/// A second fence behind [`super::Payload::LEN_MAX`]: no value claims more than an order can carry.
type Config = Configuration<LittleEndian, Fixint, Limit<PAYLOAD_MAX>>;

const fn config() -> Config {
    bincode::config::standard().with_fixed_int_encoding().with_limit::<PAYLOAD_MAX>()
}

/// Writes `value`; bytes written. What it needs is told when the buffer is too short.
pub(super) fn encode<T: Serialize>(value: &T, buffer: &mut [u8]) -> Result<usize, EmitError> {
    let mut output = Output(bytes::Writer::new(buffer));
    match bincode::serde::encode_into_writer(value, &mut output, config()) {
        Ok(()) => output.0.finish(),
        // The cursor never fails and no payload type does: unreachable, and not worth a panic.
        Err(_) => Err(EmitError::Invalid { field: "payload" }),
    }
}

/// Bytes `value` takes.
pub(super) fn encoded_len<T: Serialize>(value: &T) -> usize {
    let mut output = Output(bytes::Writer::new(&mut []));
    match bincode::serde::encode_into_writer(value, &mut output, config()) {
        Ok(()) => output.0.len(),
        Err(_) => 0,
    }
}

/// Reads a value that fills `input` exactly.
pub(super) fn decode<'a, T: Deserialize<'a>>(input: &'a [u8]) -> Result<T, PayloadError> {
    let (value, used) = decode_prefix(input)?;
    if used == input.len() { Ok(value) } else { Err(PayloadError::Trailing { at: used }) }
}

/// Reads a value from the front of `input`; the value and the bytes it took.
pub(super) fn decode_prefix<'a, T: Deserialize<'a>>(input: &'a [u8]) -> Result<(T, usize), PayloadError> {
    let reader = Input { bytes: input, at: 0, last: 0 };
    let mut decoder = DecoderImpl::new(reader, config(), ());
    match BorrowCompat::<T>::borrow_decode(&mut decoder) {
        Ok(BorrowCompat(value)) => Ok((value, decoder.borrow_reader().at)),
        Err(error) => Err(locate(&error, decoder.borrow_reader())),
    }
}

/// What bincode says, with the place our cursor knows.
const fn locate(error: &DecodeError, input: &Input<'_>) -> PayloadError {
    match error {
        DecodeError::Utf8 { .. } => PayloadError::Text { at: input.last },
        DecodeError::InvalidBooleanValue(found) => PayloadError::Bool { at: input.last, found: *found },
        DecodeError::UnexpectedVariant { found, .. } => {
            let [found, ..] = found.to_le_bytes();
            PayloadError::Bool { at: input.last, found }
        }
        // What serde's derived code finds wrong is the number of an enum: nothing else in our types can be.
        DecodeError::Serde(_) => PayloadError::Variant { at: input.last },
        _ => PayloadError::Truncated { at: input.at },
    }
}

/// Our writing cursor: it never fails, it counts.
struct Output<'b>(bytes::Writer<'b>);

impl Writer for Output<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.bytes(bytes);
        Ok(())
    }
}

/// A reading cursor that remembers where the last value began.
struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
    last: usize,
}

impl<'a> Input<'a> {
    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let Some((taken, rest)) = self.bytes.split_at_checked(len) else {
            return Err(DecodeError::UnexpectedEnd { additional: len.saturating_sub(self.bytes.len()) });
        };
        self.bytes = rest;
        self.last = self.at;
        self.at = self.at.wrapping_add(len);
        Ok(taken)
    }
}

impl Reader for Input<'_> {
    #[inline]
    fn read(&mut self, into: &mut [u8]) -> Result<(), DecodeError> {
        let taken = self.take(into.len())?;
        for (to, from) in into.iter_mut().zip(taken) {
            *to = *from;
        }
        Ok(())
    }
}

impl<'a> BorrowReader<'a> for Input<'a> {
    #[inline]
    fn take_bytes(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        self.take(length)
    }
}
