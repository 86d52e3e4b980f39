//! Every call into the state machines of push. `see(&mut …)` makes their state anything it might be.

use core::hint::black_box;
use core::net::SocketAddr;

use wire_format::ids::{NodeId, Store};
use wire_format::time::Instant;

pub(crate) fn all(bytes: &[u8], buffer: &mut [u8]) {
    let Ok(store) = Store::new(black_box(1), "S") else { return };
    #[cfg(feature = "fleet")]
    fleet(store, bytes, buffer);
    #[cfg(feature = "receiver")]
    receiver(store, bytes, buffer);
}

/// A time nobody knows.
fn now() -> Instant {
    Instant::from_micros(black_box(1))
}

fn address() -> SocketAddr {
    black_box(SocketAddr::from(([10, 0, 0, 1], 8_081)))
}

#[cfg(feature = "fleet")]
#[inline(never)]
fn fleet(store: Store, bytes: &[u8], buffer: &mut [u8]) {
    use push::fleet::{DeviceSlot, DeviceTables, Item, NewDevice, NewOrder, OrderSlot, TrackSlot};
    use push::{Closed, DeviceIndex, DialError, Fleet, FleetConfig};
    use wire_format::frame::order::KindFlags;
    use wire_format::ids::{Lane, Lineage};

    let config = black_box(FleetConfig::new(NodeId([1; 16]), store, Lineage([2; 16])));
    let devices = DeviceTables { slots: [DeviceSlot::EMPTY; 4], logs: [TrackSlot::EMPTY; 8] };
    let orders: [OrderSlot<&[u8], [u8; 4]>; 4] = [const { OrderSlot::EMPTY }; 4];
    let mut fleet = Fleet::new(config, devices, orders, now(), black_box(1));
    super::see(&mut fleet);
    let new = NewDevice { id: Some(black_box(NodeId([3; 16]))), address: Some(address()) };
    let _ = black_box(fleet.add_device(now(), new));
    let device = black_box(DeviceIndex(0));
    fleet.set_address(now(), device, address());
    fleet.announce_address(now(), device, address());
    let order = NewOrder {
        number: black_box(1),
        lane: black_box(Lane::Normal),
        kind_flags: black_box(KindFlags::NONE),
        lifetime: black_box(None),
        frame: bytes,
        first: device,
        marks: black_box([0xF0; 4]),
    };
    let _ = black_box(fleet.submit(now(), order).is_ok());
    black_box(fleet.poll_dial(now()));
    fleet.handle_connected(now(), device);
    fleet.handle_dial_failed(now(), device, black_box(DialError::Refused));
    if let Ok(input) = black_box(fleet.handle_bytes(now(), device, bytes))
        && let Some(Item::Ask { question, .. }) = input.item
    {
        let _ = black_box(fleet.reply(now(), &question, bytes));
    }
    let _ = black_box(fleet.ask(now(), device, |id| {
        black_box(id);
        bytes
    }));
    let blob = push::blob::Blob::new(black_box(1), bytes, [1; 32]);
    let _ = black_box((blob.option(), blob.frames_len(), blob.emit_frames(buffer)));
    let _ = black_box(fleet.ask_status(now(), device, bytes));
    if let Some(transmit) = fleet.poll_transmit(now(), buffer) {
        let (device, len) = (transmit.device, transmit.head.len().wrapping_add(transmit.body.len()));
        fleet.handle_written(now(), device, black_box(len));
    }
    fleet.handle_writable(now(), device);
    super::see(&mut fleet);
    fleet.handle_timeout(now());
    black_box((fleet.poll_close(), fleet.poll_timeout(), fleet.live_orders()));
    black_box(fleet.poll_event().is_some());
    black_box((fleet.find(black_box(NodeId([3; 16]))), fleet.id(device), fleet.is_open(device)));
    black_box(fleet.marks(black_box(1)).is_some());
    black_box((fleet.cancel(now(), black_box(1)), fleet.retry_begins(black_box(2), device)));
    black_box(fleet.resolve(
        now(),
        black_box(2),
        device,
        black_box(wire_format::frame::outcome::Code::APPLIED),
    ));
    black_box((fleet.view(device), fleet.fence_heard()));
    fleet.take_over(now(), black_box(7));
    durable(&mut fleet, bytes);
    fleet.handle_closed(now(), device, black_box(Closed::Eof));
    black_box(fleet.remove_device(now(), device));
    fleet.drain(now(), black_box(core::time::Duration::from_secs(3)));
    fleet.stop(now());
}

/// What there is of the durable log: its ends, its sessions, what an earlier run left, and another log in its place.
#[cfg(feature = "fleet")]
#[inline(never)]
fn durable<'b, D, O>(fleet: &mut push::Fleet<D, O, &'b [u8], [u8; 4]>, bytes: &'b [u8])
where
    D: push::fleet::DeviceStorage,
    O: push::fleet::OrderStorage<&'b [u8], [u8; 4]>,
{
    use push::DeviceIndex;
    use push::config::LogId;
    use push::fleet::{By, DeviceTrace, LogEntry, NewOrder};
    use wire_format::frame::order::KindFlags;
    use wire_format::frame::outcome::Code;
    use wire_format::ids::{Lane, Lineage};

    let device = black_box(DeviceIndex(0));
    let trace = black_box(DeviceTrace { boot: 1, open: false, upto: [1; 4], ended: [1; 4] });
    black_box(trace.mark(black_box(Lane::Bulk), black_box(9)));
    fleet.restore_device(device, trace);
    fleet.note_head(black_box(true), black_box(9));
    let order = NewOrder {
        number: black_box(10),
        lane: black_box(Lane::Normal),
        kind_flags: black_box(KindFlags::NONE),
        lifetime: black_box(None),
        frame: bytes,
        first: device,
        marks: black_box([0xF4; 4]),
    };
    let _ = black_box(fleet.restore(now(), order).is_ok());
    let entry = LogEntry {
        number: black_box(10),
        device,
        device_ms: black_box(1),
        code: black_box(Code::DUPLICATE),
        first_code: black_box(Code::BUSY),
        by: black_box(By::Device),
    };
    black_box(fleet.logged(now(), entry));
    fleet.traced(now(), device, black_box(1));
    super::see(&mut *fleet);
    fleet.abandon_durable(now());
    black_box(fleet.poll_event().is_some());
    super::see(&mut *fleet);
    let mut log = LogId::new(black_box(Lineage([3; 16])), black_box(4), black_box(11));
    log.runs.push(black_box(5), black_box(12));
    black_box((log.runs.knows(black_box(4), black_box(3), black_box(11)), log.runs.iter().count()));
    black_box(fleet.renew(now(), log, black_box(11)));
}

#[cfg(feature = "receiver")]
#[inline(never)]
fn receiver(store: Store, bytes: &[u8], buffer: &mut [u8]) {
    use push::receiver::{Firmware, Fixed, Receiver, ReceiverConfig};

    let config = black_box(ReceiverConfig { parts: true, ..ReceiverConfig::new(NodeId([1; 16]), store, 1) });
    let mut firmware: Receiver<_, 2> = Receiver::new(config.clone(), Firmware::new(), now());
    serve(&mut firmware, bytes, buffer);
    let mut device: Receiver<_, 4> = Receiver::new(config.clone(), Fixed::<16, 4, 512, 512>::new(), now());
    serve(&mut device, bytes, buffer);
    questions(&mut device, bytes);
    flash(bytes);
    let mut kept: Receiver<_, 4> = Receiver::new(config, Fixed::<16, 4, 512, 512>::new(), now());
    remember(&mut kept, bytes, buffer);
}

/// A device that finds any bytes in its journal, and writes into one that takes and fails what it likes.
#[cfg(feature = "receiver")]
#[inline(never)]
fn remember<S: push::receiver::Storage, const CONNS: usize>(
    receiver: &mut push::receiver::Receiver<S, CONNS>,
    bytes: &[u8],
    buffer: &mut [u8],
) {
    use push::receiver::journal::{Found, Journal, RECORD_MAX};

    struct Any<'a>(&'a [u8]);

    impl Journal for Any<'_> {
        type Error = u8;

        fn replay(&mut self, tell: &mut dyn FnMut(&[u8])) -> Result<Found, u8> {
            tell(self.0);
            black_box(Ok(Found::Whole))
        }
        fn append(&mut self, record: &[u8]) -> Result<(), u8> {
            black_box((record, Ok(()))).1
        }
        fn sync(&mut self) -> Result<(), u8> {
            black_box(Ok(()))
        }
        fn wants_snapshot(&self) -> bool {
            black_box(false)
        }
        fn replace(
            &mut self,
            records: &mut dyn FnMut(&mut [u8; RECORD_MAX]) -> Option<usize>,
        ) -> Result<(), u8> {
            let mut record = [0; RECORD_MAX];
            while records(&mut record).is_some() {
                black_box(&record);
            }
            black_box(Ok(()))
        }
    }

    let mut journal = Any(bytes);
    black_box(receiver.replay(now(), &mut journal).is_ok());
    receiver.restore(bytes);
    receiver.restored(now(), black_box(true));
    black_box(receiver.record(now(), &mut journal).is_ok());
    serve(receiver, bytes, buffer);
    black_box(receiver.record(now(), &mut journal).is_ok());
    let mut record = [0; RECORD_MAX];
    while let Some(len) = receiver.poll_record(&mut record) {
        black_box(len);
    }
    receiver.recorded(now());
    receiver.record_failed(now());
    let mut cursor = push::receiver::Cursor::START;
    while let Some(len) = receiver.poll_snapshot(&mut cursor, &mut record) {
        black_box(len);
    }
    black_box((receiver.wants_record(now()), receiver.wants_snapshot()));
}

/// A journal in flash that reads as anything.
#[cfg(feature = "receiver")]
fn flash(bytes: &[u8]) {
    use push::receiver::journal::Journal;
    use push::receiver::{FlashJournal, FlashPages, FlashShape};

    /// Hardware that says what it likes.
    struct Pages<'a>(&'a [u8]);

    impl FlashPages for Pages<'_> {
        type Error = u8;

        fn shape(&self) -> FlashShape {
            black_box(FlashShape { pages: 4, page_bytes: 2_048, unit_bytes: 8 })
        }
        fn erase(&mut self, page: u32) -> Result<(), u8> {
            black_box((page, Ok(()))).1
        }
        fn program(&mut self, page: u32, offset: u32, bytes: &[u8]) -> Result<(), u8> {
            black_box((page, offset, bytes, Err(3))).3
        }
        fn read(&mut self, page: u32, offset: u32, into: &mut [u8]) -> Result<(), u8> {
            for (to, from) in into.iter_mut().zip(self.0) {
                *to = black_box(*from);
            }
            black_box((page, offset, Ok(()))).2
        }
    }

    let Ok(mut journal) = FlashJournal::new(Pages(bytes)) else { return };
    super::see(&mut journal);
    let _ = black_box(journal.replay(&mut |record| {
        black_box(record);
    }));
    let _ = black_box((journal.append(bytes), journal.sync(), journal.wants_snapshot(), journal.room()));
    let mut left = black_box(9_u32);
    let _ = black_box(journal.replace(&mut |record| {
        left = left.checked_sub(1)?;
        Some(black_box(record.len()))
    }));
}

/// A device from its first connection to its last word.
#[cfg(feature = "receiver")]
fn serve<S: push::receiver::Storage, const CONNS: usize>(
    receiver: &mut push::receiver::Receiver<S, CONNS>,
    bytes: &[u8],
    buffer: &mut [u8],
) {
    use push::receiver::{Item, Verdict};

    super::see(&mut *receiver);
    let Ok(conn) = receiver.handle_connected(now(), address()) else { return };
    if let Ok(input) = receiver.handle_bytes(now(), conn, bytes) {
        match input.item {
            Some(Item::Order(order)) => {
                receiver.complete(now(), order.ticket, black_box(Verdict::Applied), black_box(Some(bytes)));
                black_box(receiver.progress(now(), order.ticket, black_box(7), 1));
            }
            Some(Item::Piece(piece)) => receiver.verified(now(), piece.ticket, black_box(true)),
            _ => {}
        }
    }
    super::see(&mut *receiver);
    receiver.handle_timeout(now());
    if let Some(order) = receiver.poll_order(now()) {
        let ticket = order.ticket;
        receiver.complete(now(), ticket, black_box(Verdict::Later), None);
    }
    if let Some(transmit) = receiver.poll_transmit(now(), buffer) {
        let (conn, len) = (transmit.conn, transmit.head.len().wrapping_add(transmit.body.len()));
        receiver.handle_written(now(), conn, black_box(len));
    }
    receiver.handle_writable(now(), conn);
    black_box((receiver.poll_close(), receiver.poll_event(), receiver.poll_timeout()));
    black_box((receiver.served(), receiver.known(), receiver.owed()));
    receiver.handle_closed(now(), conn);
    let reason = wire_format::frame::drain::Reason::RESTARTING;
    receiver.drain(now(), black_box(wire_format::frame::Drain { reason, after_ms: 5 }));
    receiver.stop(now());
    black_box(receiver.is_stopped());
}

/// What a device asks, and how it answers.
#[cfg(feature = "receiver")]
fn questions<S: push::receiver::Storage, const CONNS: usize>(
    receiver: &mut push::receiver::Receiver<S, CONNS>,
    bytes: &[u8],
) {
    use push::receiver::{AnswerBuffer, AnswerCode, Item};

    let within = core::time::Duration::from_millis(black_box(9));
    black_box(receiver.ask(now(), wire_format::ids::OrderKind(black_box(3)), 1, within, bytes).is_ok());
    let Ok(conn) = receiver.handle_connected(now(), address()) else { return };
    if let Ok(input) = receiver.handle_bytes(now(), conn, bytes)
        && let Some(Item::Question(question)) = input.item
    {
        let mut room = [0; 64];
        let mut answer = AnswerBuffer::new(&mut room);
        black_box(answer.bytes.write(question.payload).is_ok());
        black_box(receiver.reply(now(), question.id, black_box(AnswerCode::Ok), &answer));
    }
}
