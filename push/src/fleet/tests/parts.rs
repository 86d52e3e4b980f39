//! Large payloads: who gets which piece, and when.

use wire_format::frame::Want;
use wire_format::frame::part::PIECE_MAX;

use super::*;
use crate::blob::Blob;

/// Bytes of a blob of five pieces, the last one short.
const SIZE: usize = 4 * PIECE_MAX + 1_000;
const PIECE_LEN: usize = 4_132;

fn payload() -> Vec<u8> {
    (0..SIZE).map(|at| (at / 3) as u8).collect()
}

fn order_with(number: u64, lane: Lane, size: usize, targets: usize) -> NewOrder<Vec<u8>, Vec<u8>> {
    order_of(number, number, lane, size, targets)
}

fn order_of(number: u64, blob: u64, lane: Lane, size: usize, targets: usize) -> NewOrder<Vec<u8>, Vec<u8>> {
    let payload = &payload()[..size];
    let blob = Blob::new(blob, payload, [7; 32]);
    let option = blob.option().unwrap();
    let order = crate::order::Order::new(OrderKind(0x8001), 1, &[]).lane(lane).idempotent().options(&option);
    let mut frame = vec![0; order.encoded_len() + blob.frames_len()];
    let len = order.emit(number, &mut frame).unwrap();
    blob.emit_frames(&mut frame[len..]).unwrap();
    let (first, marks) = (DeviceIndex(0), vec![Mark::PENDING.0; targets]);
    let lifetime = Some(crate::order::LIFETIME_DEFAULT);
    NewOrder { number, lane, kind_flags: KindFlags::IDEMPOTENT, lifetime, frame, first, marks }
}

impl World {
    fn submit_blob(&mut self) -> u64 {
        self.number += 1;
        let order = order_with(self.number, Lane::Bulk, SIZE, self.devices.len());
        self.fleet.submit(self.now, order).expect("taken");
        self.drain();
        self.number
    }

    fn wants(&mut self, device: usize, blob: u64, piece: u32, pieces: u16) {
        let want = Want { blob, offset: piece * PIECE_MAX as u32, pieces };
        self.devices[device].send(&Frame::Want(want));
        self.drain();
    }

    /// The pieces a device got since the last call, by number.
    fn pieces(&mut self, device: usize) -> Vec<u32> {
        let parts = core::mem::take(&mut self.devices[device].parts);
        let bytes = payload();
        let piece = |(_, offset, part): (u64, u32, Vec<u8>)| {
            assert_eq!(part, bytes[offset as usize..][..part.len()]);
            offset / PIECE_MAX as u32
        };
        parts.into_iter().map(piece).collect()
    }
}

/// Devices that keep what they get, and one order with a blob.
fn world(devices: usize) -> World {
    let mut world = World::connected(devices, 16);
    world.devices.iter_mut().for_each(|device| device.habit = Habit::Ack);
    assert_eq!(world.submit_blob(), 1);
    assert_eq!(world.devices[0].numbers(), [1]);
    world.devices.iter_mut().for_each(|device| device.writes.clear());
    world
}

#[test]
fn pieces_leave_as_they_are_asked_for_one_per_write_and_without_a_copy() {
    let mut world = world(2);
    assert_eq!(world.pieces(0), [], "nothing was asked for");
    world.wants(0, 1, 0, 2);
    assert_eq!(world.pieces(0), [0, 1]);
    assert_eq!(world.devices[0].writes, [(0, PIECE_LEN); 2]);
    world.wants(0, 1, 1, 3);
    assert_eq!(world.pieces(0), [2, 3], "one is stored, one under way, so two more");
    world.wants(0, 1, 4, 64);
    assert_eq!(world.pieces(0), [4]);
    assert_eq!(world.devices[0].writes.last(), Some(&(0, 36 + 1_000)));
    assert_eq!(world.pieces(1), [], "another device is not concerned");
    world.devices[0].finish(Code::APPLIED);
    world.wants(0, 1, 0, 4);
    assert_eq!(world.pieces(0), [], "its order is over");
    assert_eq!((world.fleet.stats().pieces, world.fleet.stats().wants_dropped), (5, 1));
}

#[test]
fn the_same_blob_of_the_next_order_may_be_asked_for_ahead_of_the_outcome() {
    let mut world = world(1);
    world.number += 1;
    let order = order_of(2, 1, Lane::Bulk, SIZE, 1);
    world.fleet.submit(world.now, order).expect("taken");
    world.drain();
    world.wants(0, 1, 0, 64);
    assert_eq!(world.pieces(0), [0, 1, 2, 3, 4]);
    // What a device has to ask leaves ahead of its outcomes, in the same write.
    let want = Want { blob: 1, offset: 0, pieces: 64 };
    let applied = Entry { number: 1, code: Code::APPLIED, detail: 0, lane: Lane::Bulk, ms: 7 };
    world.devices[0].kept.retain(|kept| kept.number != 1);
    world.devices[0].apply(applied);
    world.devices[0].send(&Frame::Want(want));
    world.devices[0].send_outcomes(&[applied]);
    while world.read(0) {}
    world.drain();
    assert_eq!((world.settled(), world.pieces(0)), (vec![1], vec![0, 1, 2, 3, 4]));
}

#[test]
fn the_same_want_starts_again() {
    let mut world = world(1);
    world.wants(0, 1, 0, 64);
    assert_eq!(world.pieces(0), [0, 1, 2, 3, 4]);
    world.wants(0, 1, 0, 64);
    assert_eq!(world.pieces(0), [0, 1, 2, 3, 4]);
    world.wants(0, 1, 3, 1);
    assert_eq!(world.pieces(0), [3]);
}

#[test]
fn an_urgent_order_waits_for_one_piece_at_most_and_nothing_owed_waits_for_any() {
    let mut world = world(1);
    let now = world.now;
    let want = Want { blob: 1, offset: 0, pieces: 64 };
    world.devices[0].send(&Frame::Want(want));
    while world.read(0) {}
    let mut scratch = vec![0; 4_096];
    let mut write = |world: &mut World| {
        let transmit = world.fleet.poll_transmit(now, &mut scratch).expect("something to write");
        let (device, len) = (transmit.device, transmit.head.len() + transmit.body.len());
        world.fleet.handle_written(now, device, len);
        len
    };
    assert_eq!(write(&mut world), PIECE_LEN);
    world.submit_to(Lane::Urgent, Some(HOUR), 100, &[0]);
    world.submit_to(Lane::Bulk, Some(HOUR), 100, &[0]);
    assert_eq!(write(&mut world), 2 * 168, "both orders before the next piece");
    assert_eq!(write(&mut world), PIECE_LEN);
}

#[test]
fn pieces_go_on_when_the_window_is_full() {
    let mut world = World::connected(1, 16);
    world.devices[0].habit = Habit::Ack;
    world.devices[0].send(&Frame::Window(wire_format::frame::Window { orders: 1, bytes: 16_384 }));
    world.drain();
    world.submit_blob();
    world.submit_to(Lane::Normal, Some(HOUR), 100, &[0]);
    world.wants(0, 1, 0, 2);
    assert_eq!(world.devices[0].numbers(), [1], "the second one waits for the first, the first for its blob");
    assert_eq!(world.pieces(0), [0, 1]);
}

#[test]
fn a_new_session_goes_on_where_the_device_stands() {
    let mut world = world(1);
    world.wants(0, 1, 0, 3);
    assert_eq!(world.pieces(0), [0, 1, 2]);
    world.cut(0);
    world.advance(2_000);
    assert!(world.devices[0].orders[1].0.replay);
    assert_eq!(world.pieces(0), [], "a transfer ends with its session");
    world.wants(0, 1, 3, 3);
    assert_eq!(world.pieces(0), [3, 4]);
}

#[test]
fn a_device_that_takes_no_pieces_gets_no_such_order() {
    let mut world = World::new(3, 4);
    world.devices[0].features = 0x0E;
    world.devices[1].max_body = 4_115;
    world.devices[2].max_body = 4_116;
    world.advance(1_100);
    world.submit_blob();
    assert_eq!(world.outcomes(), [(0, 1, Code::TOO_LARGE), (1, 1, Code::TOO_LARGE), (2, 1, Code::APPLIED)]);
}

#[test]
fn frames_that_are_not_an_order_and_its_pieces_are_refused() {
    let mut world = World::connected(1, 4);
    let mut refused = |order: NewOrder<Vec<u8>, Vec<u8>>| {
        assert_eq!(world.fleet.submit(world.now, order).unwrap_err().why, SubmitFault::Frame);
    };
    refused(order_with(1, Lane::Normal, SIZE, 1));
    let order = order_with(1, Lane::Bulk, SIZE, 1);
    for len in [order.frame.len() - 4, order.frame.len() - PIECE_LEN] {
        refused(NewOrder { frame: order.frame[..len].to_vec(), ..order.clone() });
    }
    refused(NewOrder { frame: [&order.frame[..], &[0; 4]].concat(), ..order.clone() });
    let plain = new_order(1, Lane::Bulk, KindFlags::NONE, Some(HOUR), 100, vec![Mark::PENDING.0]);
    refused(NewOrder { frame: [&plain.frame[..], &[0; 4]].concat(), ..plain.clone() });
    world.fleet.submit(world.now, order).expect("right as it was");
}

#[test]
fn a_want_for_nothing_that_is_out_is_dropped_and_counted() {
    let mut world = world(1);
    world.wants(0, 9, 0, 1);
    world.wants(0, 1, 5, 1);
    assert_eq!((world.pieces(0), world.fleet.stats().wants_dropped), (vec![], 2));
    world.submit_blob();
    world.wants(0, 1, 0, 1);
    world.wants(0, 2, 4, 1);
    assert_eq!(world.pieces(0), [0, 4], "another blob takes the place of the one before");
    assert_eq!(world.devices[0].parts.len(), 0);
}

/// An order, its pieces and an urgent order in writes that are cut at every 13th byte.
#[test]
fn pieces_cut_anywhere_arrive_whole() {
    for at in (0..2 * PIECE_LEN + 168).step_by(13) {
        let mut world = world(1);
        world.devices[0].send(&Frame::Want(Want { blob: 1, offset: 8_192, pieces: 2 }));
        world.devices[0].room = at;
        world.drain();
        world.submit_to(Lane::Urgent, Some(HOUR), 100, &[0]);
        world.trickle(3);
        assert_eq!(world.pieces(0), [2, 3], "cut at {at}");
        assert_eq!(world.devices[0].numbers(), [1, 2], "cut at {at}");
        assert_eq!(world.closed, []);
    }
}

#[test]
fn an_order_that_ends_in_the_middle_of_a_piece_is_handed_back_when_its_rest_has_left() {
    let mut world = world(1);
    world.devices[0].send(&Frame::Want(Want { blob: 1, offset: 0, pieces: 2 }));
    world.devices[0].room = 100;
    world.drain();
    world.devices[0].finish(Code::CANCELLED);
    world.drain();
    assert_eq!((world.outcomes().len(), world.settled().len()), (1, 0));
    world.unblock(usize::MAX);
    assert_eq!((world.pieces(0), world.settled()), (vec![0], vec![1]));

    let mut world = self::world(1);
    world.devices[0].send(&Frame::Want(Want { blob: 1, offset: 0, pieces: 2 }));
    world.devices[0].room = 100;
    world.drain();
    world.devices[0].finish(Code::CANCELLED);
    world.drain();
    world.cut(0);
    world.drain();
    assert_eq!(world.settled(), [1], "nor when its session is gone");
}
