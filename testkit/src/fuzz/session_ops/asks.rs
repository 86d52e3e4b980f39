//! Questions of both sides and large payloads, as operations: each question ends exactly once.

use push::blob::Blob;
use push::fleet::{AskId, Item, NewOrder};
use push::order::Order;
use push::{DeviceIndex, Mark};
use wire_format::frame::order::KindFlags;
use wire_format::frame::reply::Code;
use wire_format::frame::status::StatusRows;
use wire_format::frame::{Ask, Status};
use wire_format::ids::{Lane, OrderKind};

use super::frames::emitted;
use super::{HONEST, World};
use crate::fuzz::Source;

/// Questions of devices the application still means to answer.
const KEPT: usize = 8;

impl World {
    /// The server asks a device, or what became of an order there.
    pub(super) fn ask(&mut self, source: &mut Source<'_>) {
        let [device, what, ms] = source.array();
        let device = DeviceIndex(u32::from(device & 1));
        let asked = if what & 1 == 0 {
            self.fleet.ask(self.now, device, |AskId { correlation, generation }| {
                let (deadline_ms, payload) = (u32::from(ms) * 8, &[what; 300][..usize::from(what)]);
                let kind = OrderKind::STOCK_QUESTION;
                emitted(|room| {
                    Ask { correlation, generation, kind, schema: 1, deadline_ms, payload }.emit(room)
                })
            })
        } else {
            let numbers = [u64::from(ms)];
            let rows = StatusRows::Question((&numbers).into());
            let frame = emitted(|room| Status { durable: what & 2 != 0, rows }.emit(room));
            self.fleet.ask_status(self.now, device, frame)
        };
        if let Ok(id) = asked {
            assert!(self.asked.insert(id), "two questions under one name");
        }
    }

    /// The application answers a question, perhaps one it has answered, or whose session is over.
    pub(super) fn reply(&mut self, how: u8) {
        let at = usize::from(how) % KEPT;
        let Some(question) = self.questions.get(at) else { return };
        let frame = emitted(|room| question.reply(Code(how % 4), 1, 0, b"so").emit(room));
        let _ = self.fleet.reply(self.now, question, frame);
    }

    /// What a device said to the application.
    pub(super) fn told(&mut self, item: &Item<'_>) {
        match item {
            Item::Ask { question, .. } => {
                self.questions.truncate(KEPT - 1);
                self.questions.insert(0, *question);
            }
            Item::Reply { ask, .. } | Item::Status { ask, .. } => self.answered(*ask),
            _ => {}
        }
    }

    /// A question came to its end.
    pub(super) fn answered(&mut self, ask: AskId) {
        assert!(self.asked.remove(&ask), "{ask:?} ended and was not open");
    }

    /// An order with a large payload, for both devices.
    pub(super) fn submit_blob(&mut self, source: &mut Source<'_>) {
        let payload = vec![0x5A; 1 + usize::from(source.u8()) * 48];
        let number = self.last_number + 1;
        let blob = Blob::new(number, &payload, [number.to_le_bytes()[0]; 32]);
        let option = blob.option().expect("1 to 12,241 bytes");
        let order = Order::new(OrderKind(0x8001), 1, &[]).lane(Lane::Bulk).options(&option);
        let mut frame = vec![0; order.encoded_len() + blob.frames_len()];
        let len = order.emit(number, &mut frame).expect("fits");
        blob.emit_frames(&mut frame[len..]).expect("fits");
        let new = NewOrder {
            number,
            lane: Lane::Bulk,
            kind_flags: KindFlags::NONE,
            lifetime: Some(push::order::LIFETIME_DEFAULT),
            frame,
            first: HONEST,
            marks: vec![Mark::PENDING.0; 2],
        };
        if self.fleet.submit(self.now, new).is_ok() {
            self.last_number = number;
            let (_, marks) = self.fleet.marks(number).expect("a taken order is live");
            self.marks.insert(number, marks.to_vec());
        }
    }
}
