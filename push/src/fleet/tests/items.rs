//! What devices say to the application: results and progress.

use wire_format::frame::{OrderResult, Progress};

use super::*;

impl World {
    /// One order to all that wants a result.
    fn submit_asking(&mut self) -> u64 {
        self.number += 1;
        let marks = vec![Mark::PENDING.0; self.devices.len()];
        let order = new_order(self.number, Lane::Normal, KindFlags::IDEMPOTENT, Some(HOUR), 100, marks);
        let mut frame = order.frame;
        frame[5] |= 0x10;
        let checksum = wire_format::crc::crc32c(&frame[..12]);
        frame[12..16].copy_from_slice(&checksum.to_le_bytes());
        self.fleet.submit(self.now, NewOrder { frame, ..order }).expect("taken");
        self.drain();
        self.number
    }
}

/// A device that keeps what it gets, with two orders: the first wants a result, the second does not.
fn two_orders() -> World {
    let mut world = World::connected(1, 8);
    world.devices[0].habit = Habit::Silent;
    world.submit_asking();
    world.submit(Lane::Normal);
    world
}

fn result(number: u64) -> Frame<'static> {
    Frame::Result(OrderResult { durable: false, number, payload: b"17 pieces" })
}

/// The device sends these frames; what the fleet hands on.
fn said(world: &mut World, frames: &[Frame<'_>]) -> Vec<String> {
    frames.iter().for_each(|frame| world.devices[0].send(frame));
    world.drain();
    core::mem::take(&mut world.items)
}

#[test]
fn a_result_is_handed_on_once_and_before_its_outcome() {
    let mut world = two_orders();
    let payload = b"17 pieces";
    let item = Item::Result { number: 1, payload };
    assert_eq!(said(&mut world, &[result(1), result(1)]), [format!("{item:?}")]);
    assert_eq!(world.mark(1, 0), Mark::RESULTED);
    assert_eq!((world.fleet.stats().results, world.fleet.stats().results_dropped), (1, 1));
    world.devices[0].finish(Code::APPLIED);
    world.drain();
    assert_eq!(world.settled(), [1, 2]);
    assert!(said(&mut world, &[result(1)]).is_empty(), "its order is over");
}

#[test]
fn a_result_gives_byte_credit_back_like_any_receipt() {
    let mut world = World::connected(1, 8);
    world.devices[0].habit = Habit::Silent;
    world.devices[0].send(&Frame::Window(wire_format::frame::Window { orders: 16, bytes: 200 }));
    world.drain();
    world.submit_asking();
    world.submit(Lane::Normal);
    assert_eq!(world.devices[0].numbers(), [1], "168 bytes of 200 are taken");
    said(&mut world, &[result(1)]);
    assert_eq!(world.devices[0].numbers(), [1, 2]);
}

#[test]
fn results_nobody_waits_for_are_dropped_and_counted() {
    let mut world = two_orders();
    assert!(said(&mut world, &[result(2)]).is_empty(), "did not want one");
    assert_eq!(world.fleet.stats().results_dropped, 1);
    let foreign = OrderResult { durable: true, number: 1, payload: b"" };
    assert!(said(&mut world, &[result(99), Frame::Result(foreign)]).is_empty());
    assert_eq!(world.fleet.stats().numbers_unknown, 2);
    assert_eq!(world.mark(1, 0), Mark::SENT);
}

#[test]
fn a_redelivery_has_a_result_of_its_own() {
    let mut world = two_orders();
    assert_eq!(said(&mut world, &[result(1)]).len(), 1);
    world.cut(0);
    world.devices[0].reboot();
    world.advance(2_000);
    assert_eq!(world.mark(1, 0), Mark::SENT, "sent again: the first run was lost with the boot");
    assert_eq!(said(&mut world, &[result(1)]).len(), 1);
}

#[test]
fn progress_is_handed_on_while_the_order_is_out() {
    let mut world = two_orders();
    let progress = |number| Frame::Progress(Progress { durable: false, number, per_mille: 250, phase: 2 });
    let item = Item::Progress { number: 2, per_mille: 250, phase: 2 };
    assert_eq!(said(&mut world, &[progress(2), progress(3)]), [format!("{item:?}")]);
    assert_eq!(world.mark(2, 0), Mark::STARTED);
    assert_eq!(world.fleet.stats().numbers_unknown, 1);
    assert_eq!(said(&mut world, &[result(1), progress(1)]).len(), 2);
    assert_eq!(world.mark(1, 0), Mark::RESULTED, "progress after a result says nothing new");
}
