//! A payload over the inline limit: cut into PART frames once, behind the frame of its order, for every device that is
//! meant.
//!
//! ```text
//!  NewOrder.frame   ┌ ORDER (PARTS option, no payload) │ PART 0 │ PART 4096 │ … │ the last PART ┐
//!                     as long as its header says         4,132 bytes each but the last one
//! ```
//!
//! So a piece is found by arithmetic and leaves as it lies there.

use core::ops::Range;

use wire_format::error::EmitError;
use wire_format::frame::order::{OPTIONS_MAX, OrderOption, options};
use wire_format::frame::part::{BLOB_MAX, FIXED_LEN, PIECE_MAX, Part};
use wire_format::frame::{CHECKSUM_LEN, header};

/// Bytes of the PARTS option.
pub const OPTION_LEN: usize = 48;
/// Bytes of a PART frame with a full piece.
const FULL_LEN: usize = header::LEN + FIXED_LEN + PIECE_MAX + CHECKSUM_LEN;

const _: () = assert!(OPTION_LEN <= OPTIONS_MAX);

/// A large payload on its way to become PART frames.
///
/// ```
/// use push::blob::Blob;
/// use push::order::Order;
/// use wire_format::ids::{Lane, OrderKind};
/// let (number, payload, sha256) = (7, vec![0x5A; 100_000], [0; 32]); // the digest is the caller's to compute
/// let blob = Blob::new(number, &payload, sha256);
/// let option = blob.option()?;
/// let order = Order::new(OrderKind(0x8001), 1, &[]).lane(Lane::Bulk).options(&option);
/// let mut frame = vec![0; order.encoded_len() + blob.frames_len()];
/// let head = order.emit(number, &mut frame)?;
/// let pieces = blob.emit_frames(&mut frame[head..])?;
/// assert_eq!(head + pieces, frame.len());
/// # Ok::<(), wire_format::error::EmitError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob<'a> {
    id: u64,
    bytes: &'a [u8],
    sha256: [u8; 32],
}

impl<'a> Blob<'a> {
    /// A payload of 1 to 8,388,608 bytes and its SHA-256. `id` is never 0 and names it among all blobs of the server: the
    /// number of its first order does.
    #[must_use]
    pub const fn new(id: u64, bytes: &'a [u8], sha256: [u8; 32]) -> Self {
        Self { id, bytes, sha256 }
    }

    /// The option its order carries.
    pub fn option(&self) -> Result<[u8; OPTION_LEN], EmitError> {
        let too_large = EmitError::TooLarge { field: "blob size", limit: BLOB_MAX as usize };
        let size = u32::try_from(self.bytes.len()).map_err(|_| too_large)?;
        let mut option = [0; OPTION_LEN];
        OrderOption::Parts { blob: self.id, size, sha256: self.sha256 }.emit(&mut option)?;
        Ok(option)
    }

    /// Bytes of all its PART frames.
    #[must_use]
    pub const fn frames_len(&self) -> usize {
        frames_len(self.bytes.len())
    }

    /// Writes all its PART frames; bytes written.
    pub fn emit_frames(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let (mut len, mut offset) = (0_usize, 0_u32);
        let need = self.frames_len();
        for piece in self.bytes.chunks(PIECE_MAX) {
            let room = buffer.get_mut(len..).ok_or(EmitError::NoRoom { need })?;
            let size = u32::try_from(piece.len()).unwrap_or(u32::MAX);
            let next = offset.saturating_add(size);
            let more = (next as usize) < self.bytes.len();
            len = len.saturating_add(Part { blob: self.id, offset, more, bytes: piece }.emit(room)?);
            offset = next;
        }
        Ok(len)
    }
}

/// Bytes of the PART frames of a blob of `size` bytes.
#[must_use]
pub const fn frames_len(size: usize) -> usize {
    (size / PIECE_MAX).saturating_mul(FULL_LEN).saturating_add(last_len(size % PIECE_MAX))
}

/// Bytes of the last frame, with `rest` bytes in it; 0 if there are none.
const fn last_len(rest: usize) -> usize {
    if rest == 0 { 0 } else { (FULL_LEN - PIECE_MAX).saturating_add(rest).next_multiple_of(4) }
}

/// Pieces of a blob of `size` bytes.
#[must_use]
pub const fn pieces(size: u32) -> u16 {
    let pieces = size.div_ceil(PIECE_MAX as u32);
    if pieces > u16::MAX as u32 { u16::MAX } else { pieces as u16 }
}

/// Where the frame of a piece lies behind the order's frame; empty if there is no such piece.
pub(crate) const fn frame_of(piece: u16, size: u32) -> Range<usize> {
    let (start, all) = ((piece as usize).saturating_mul(FULL_LEN), frames_len(size as usize));
    let end = start.saturating_add(FULL_LEN);
    let end = if end < all { end } else { all };
    if start < end { start..end } else { 0..0 }
}

/// The blob an order's options name: id and size. The options were not judged yet.
pub(crate) fn named_by(bytes: &[u8]) -> Option<(u64, u32)> {
    options(bytes).map_while(Result::ok).find_map(|option| match option {
        OrderOption::Parts { blob, size, .. } => Some((blob, size)),
        OrderOption::Retry { .. } => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire_format::splitter::{Split, split};

    fn payload(size: usize) -> Vec<u8> {
        (0..size).map(|at| (at * 7 / 5) as u8).collect()
    }

    #[test]
    fn the_pieces_are_the_payload_and_lie_where_they_are_looked_for() {
        for size in [1, 3, 4_095, 4_096, 4_097, 8_192, 70_001] {
            let bytes = payload(size);
            let blob = Blob::new(3, &bytes, [1; 32]);
            let mut frames = vec![0; blob.frames_len()];
            assert_eq!(blob.emit_frames(&mut frames), Ok(frames.len()));
            let (mut at, mut again, mut piece) = (0, Vec::new(), 0);
            while at < frames.len() {
                let Ok(Split::Frame(raw)) = split(&frames[at..], 4_116) else { panic!("no frame at {at}") };
                assert_eq!(frame_of(piece, size as u32), at..at + raw.len());
                let part = Part::parse(&raw).unwrap();
                assert_eq!((part.blob, part.offset as usize), (3, again.len()));
                again.extend_from_slice(part.bytes);
                assert_eq!(part.more, again.len() < size);
                (at, piece) = (at + raw.len(), piece + 1);
            }
            assert_eq!((again, piece), (bytes.clone(), pieces(size as u32)));
            assert_eq!(frame_of(piece, size as u32), 0..0);
            let short = frames.len() - 1;
            assert!(blob.emit_frames(&mut frames[..short]).is_err());
        }
    }

    #[test]
    fn blobs_at_their_limit_and_one_past_it() {
        let bytes = vec![0; BLOB_MAX as usize + 1];
        let option = |size: usize| Blob::new(1, &bytes[..size], [2; 32]).option();
        assert_eq!(named_by(&option(BLOB_MAX as usize).unwrap()), Some((1, BLOB_MAX)));
        assert_eq!((pieces(BLOB_MAX), frames_len(BLOB_MAX as usize)), (2_048, 2_048 * 4_132));
        assert_eq!(
            option(BLOB_MAX as usize + 1),
            Err(EmitError::TooLarge { field: "blob size", limit: BLOB_MAX as usize })
        );
        assert_eq!(option(0), Err(EmitError::Invalid { field: "blob size" }));
    }

    #[test]
    fn a_blob_is_found_behind_another_option() {
        let mut bytes = [0; 64];
        let retry = OrderOption::Retry { first: 7, attempt: 1 }.emit(&mut bytes).unwrap();
        bytes[retry..][..OPTION_LEN].copy_from_slice(&Blob::new(5, b"x", [0; 32]).option().unwrap());
        assert_eq!(named_by(&bytes), Some((5, 1)));
        assert_eq!(named_by(&bytes[..retry]), None);
    }
}
