//! Frames: however the stream is cut into reads, the same frames come out; and each says again what it said.
//!
//! Input: a mode byte, then the stream. Bit 0 of the mode makes the checksums right before anything looks at them, for a
//! fuzzer does not guess them; the other bits choose how the stream is cut.

use wire_format::crc;
use wire_format::frame::order::{Delivery, OrderOption};
use wire_format::frame::{Frame, Order, Raw, header, order};
use wire_format::payload::{Payload, ShowPage};
use wire_format::rng::Rng;
use wire_format::splitter::{RxBuffer, Split, split};

use super::{Seed, seed_name};
use crate::vectors::Vector;

/// Bytes of the largest body the receiver takes here.
const MAX_BODY: u32 = 4_096;
const STORAGE: usize = header::LEN + MAX_BODY as usize;
const REPAIR: u8 = 0x01;

/// Any bytes as the stream of a connection.
///
/// # Panics
///
/// If chunks and the whole stream disagree, or a frame does not come back.
pub fn frame_stream(data: &[u8]) {
    let Some((&mode, stream)) = data.split_first() else { return };
    let mut stream = stream.to_vec();
    if mode & REPAIR != 0 {
        repair(&mut stream);
    }
    let (frames, failed) = whole(&stream);
    let (cut, cut_failed) = chunked(&stream, mode);
    assert!(frames == cut && failed == cut_failed, "the way the stream is cut changes what it says");
    for frame in &frames {
        comes_back(frame);
    }
}

/// The frames of the stream in one piece, and whether an error ended it.
fn whole(mut rest: &[u8]) -> (Vec<&[u8]>, bool) {
    let mut frames = Vec::new();
    loop {
        match split(rest, MAX_BODY) {
            Ok(Split::Frame(raw)) => {
                let (frame, tail) = rest.split_at(raw.len());
                assert_eq!(Raw::parse(frame), Ok(raw), "the splitter cuts at the wrong place");
                frames.push(frame);
                rest = tail;
            }
            Ok(Split::Need(need)) => {
                assert!(need > rest.len() && need <= STORAGE, "needs {need} of {} bytes", rest.len());
                return (frames, false);
            }
            Err(_) => return (frames, true),
        }
    }
}

/// The same through a buffer that is filled in pieces.
fn chunked(mut rest: &[u8], mode: u8) -> (Vec<Vec<u8>>, bool) {
    let (mut rng, mut rx, mut frames) =
        (Rng::new(u64::from(mode)), RxBuffer::new(vec![0; STORAGE]), Vec::new());
    loop {
        loop {
            match rx.next(MAX_BODY) {
                Ok(Some(raw)) => frames.push([&raw.header.emit(), raw.body].concat()),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
        if rest.is_empty() {
            return (frames, false);
        }
        let spare = rx.spare();
        assert!(!spare.is_empty(), "a buffer of the largest frame is full without one");
        let most = if mode & 0x02 == 0 { 7 } else { 600 };
        let len = usize::try_from(1 + rng.below(most)).unwrap().min(rest.len()).min(spare.len());
        spare[..len].copy_from_slice(&rest[..len]);
        rx.filled(len);
        rest = &rest[len..];
    }
}

/// A frame that is understood has one form only: these bytes.
fn comes_back(bytes: &[u8]) {
    let raw = Raw::parse(bytes).expect("it was cut out as a frame");
    let Ok(frame) = Frame::parse(&raw) else { return };
    if let Frame::Ignored(_) = frame {
        return;
    }
    let mut buffer = [0xA5; STORAGE];
    let len = frame.emit(&mut buffer).expect("what parses, emits");
    assert_eq!(buffer[..len], *bytes, "{frame:?} has two forms");
    if let Frame::Order(_, order) = frame {
        for option in order::options(order.options).map_while(Result::ok) {
            option_comes_back(option);
        }
    }
}

fn option_comes_back(option: OrderOption) {
    let mut buffer = [0; 64];
    let len = option.emit(&mut buffer).expect("what parses, emits");
    assert!(order::options(&buffer[..len]).eq([Ok(option)]), "{option:?} changed on the way");
}

/// Makes lengths possible and checksums right, frame after frame.
fn repair(mut stream: &mut [u8]) {
    while let Some((head, rest)) = stream.split_first_chunk_mut::<{ header::LEN }>() {
        let asked = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) % (MAX_BODY + 1);
        let length = usize::try_from(asked).unwrap().min(rest.len());
        head[..4].copy_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
        let (body, tail) = rest.split_at_mut(length);
        if head[4] == 0x10 && length >= order::FIXED_LEN {
            let sum = crc::append(crc::crc32c(&body[..44]), &body[order::FIXED_LEN..]);
            body[44..order::FIXED_LEN].copy_from_slice(&sum.to_le_bytes());
        } else if let Some((covered, sum)) = body.split_last_chunk_mut::<4>() {
            *sum = crc::crc32c(covered).to_le_bytes();
        }
        let sum = crc::crc32c(&head[..12]);
        head[12..].copy_from_slice(&sum.to_le_bytes());
        stream = tail;
    }
}

/// Every frame of the specification with and without repair, and all of them in one stream.
pub(super) fn seeds(vectors: &[Vector], seeds: &mut Vec<Seed>) {
    let mut all = vec![REPAIR];
    for vector in vectors.iter().filter(|vector| vector.is_frame()) {
        let bytes = [&[REPAIR], &vector.bytes[..]].concat();
        seeds.push(Seed { target: "frame_stream", name: seed_name(vector), bytes });
        all.extend_from_slice(&vector.bytes);
    }
    for vector in vectors.iter().filter(|vector| vector.is_options()) {
        let bytes = order_with(&vector.bytes);
        all.extend_from_slice(&bytes);
        seeds.push(Seed {
            target: "frame_stream",
            name: seed_name(vector),
            bytes: [&[REPAIR], &bytes[..]].concat(),
        });
    }
    seeds.push(Seed { target: "frame_stream", name: "every-frame-repaired".into(), bytes: all.clone() });
    all[0] = 0x02;
    seeds.push(Seed { target: "frame_stream", name: "every-frame-as-it-is".into(), bytes: all });
}

/// An ORDER that carries these options.
fn order_with(options: &[u8]) -> Vec<u8> {
    let order = Order { options, ..ShowPage::order(9, b"") };
    let delivery = Delivery { durable: false, replay: true, needs_result: true, remaining_ms: None };
    let mut bytes = vec![0; STORAGE];
    let len = order.emit(&delivery, &mut bytes).expect("a short order fits");
    bytes.truncate(len);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repair_leaves_right_frames_alone_and_makes_wrong_ones_right() {
        let seeds = super::super::seeds();
        let stream = &seeds.iter().find(|seed| seed.name == "every-frame-repaired").unwrap().bytes[1..];
        let mut repaired = stream.to_vec();
        repair(&mut repaired);
        assert!(repaired == stream, "a right frame was changed");
        let mut broken = vec![0xFF; 3 * header::LEN];
        broken[5] = 0;
        repair(&mut broken);
        assert_eq!(whole(&broken).0.len(), 1, "one frame that takes all the rest");
    }

    #[test]
    fn every_vector_is_understood() {
        for seed in super::super::seeds().iter().filter(|seed| seed.target == "frame_stream") {
            let (frames, failed) = whole(&seed.bytes[1..]);
            assert!(!failed && !frames.is_empty(), "{}", seed.name);
            assert!(
                frames.iter().all(|frame| Frame::parse(&Raw::parse(frame).unwrap()).is_ok()),
                "{}",
                seed.name
            );
        }
    }
}
