//! Typed payloads of about a given size, one after another of every standard kind.

use tillwire::{Lane, NodeId, OrderKind, Verdict};
use wire_format::frame::Order;
use wire_format::frame::order::{KindFlags, PAYLOAD_MAX};
use wire_format::payload::{
    CartLine, CollectLine, Content, Document, Fetch, Format, Handover, Level, List, Message, Payload,
    PrepareCollect, PriceChange, PriceList, Print, RefreshContent, RestartApp, Severity, ShowPage,
    StockAnswer, StockQuestion, TransferCart, Unit, UpdateFirmware, When,
};
use wire_format::rng::Rng;

/// A payload and what its kind says about the order.
#[derive(Debug)]
pub(crate) struct Typed {
    pub(crate) kind: OrderKind,
    pub(crate) schema: u16,
    pub(crate) lane: Lane,
    pub(crate) flags: KindFlags,
    pub(crate) payload: Vec<u8>,
}

fn typed<'a, P: Payload<'a>>(payload: &P) -> Typed {
    let mut buffer = vec![0; P::LEN_MAX.min(PAYLOAD_MAX)];
    // Sizes are kept within the payload's limits below, and a test runs through them.
    let len = payload.encode(&mut buffer).unwrap_or(0);
    buffer.truncate(len);
    Typed { kind: P::KIND, schema: P::SCHEMA, lane: P::LANE, flags: P::FLAGS, payload: buffer }
}

/// `bytes` bytes that look like text.
pub(crate) fn filler(bytes: usize) -> Vec<u8> {
    b"tillwire ".iter().copied().cycle().take(bytes.min(PAYLOAD_MAX)).collect()
}

/// Text of `bytes` bytes less what stands beside it, within the field's limits.
fn text(bytes: usize, beside: usize, max: usize) -> String {
    let len = bytes.saturating_sub(beside).clamp(1, max);
    String::from_utf8(filler(len)).unwrap_or_default().replace(' ', "-")
}

/// A message of about `bytes` bytes.
pub(crate) fn message(bytes: usize) -> Typed {
    let text = text(bytes, 38, Message::TEXT_MAX);
    let (severity, title) = (Severity::Information, "");
    typed(&Message { id: 7, severity, title, text: &text, confirm: false, duration_s: Some(60) })
}

/// Version `version` of a price list of about `bytes` bytes.
pub(crate) fn prices(bytes: usize, version: u64) -> Typed {
    let change = PriceChange { article: 4_006_381_333_931, price_minor: 129, unit: Unit::Piece };
    let changes = bytes.saturating_sub(64).div_ceil(PriceChange::LEN).clamp(1, PriceList::CHANGES_MAX);
    let changes = vec![change; changes];
    let (list, changes) = (1, List::new(&changes));
    let (base, valid_from_unix_s, rest, currency) = (None, None, None, *b"EUR");
    typed(&PriceList { list, version, base, valid_from_unix_s, currency, changes, rest })
}

/// What a device of the demo has in stock of an article, in thousandths: anything, but the same each time.
pub(crate) fn stock(article: u64) -> i64 {
    i64::try_from(article % 1_000).unwrap_or(0) * 1_000
}

/// What a device of the demo answers to a question about stock. Bytes written; 0 if it is none.
pub(crate) fn answer_to(question: &[u8], buffer: &mut [u8]) -> usize {
    let Ok(StockQuestion { article, .. }) = StockQuestion::decode(question) else { return 0 };
    let answer = StockAnswer { article, level: Level::Counted(stock(article)), age_s: 0 };
    answer.encode(buffer).unwrap_or(0)
}

/// Whether `result` is what a device of the demo answers to this question.
pub(crate) fn is_answer(question: &[u8], result: &[u8]) -> bool {
    let (question, answer) = (StockQuestion::decode(question), StockAnswer::decode(result));
    matches!((question, answer), (Ok(question), Ok(answer))
        if answer.article == question.article && answer.level == Level::Counted(stock(question.article)))
}

/// A payload of about `bytes` bytes, as far as its kind takes that many.
pub(crate) fn standard(number: u32, bytes: usize, rng: &mut Rng) -> Typed {
    let article = rng.below(1 << 40) + 1;
    let entries = |size: usize, max: usize| bytes.saturating_sub(64).div_ceil(size).clamp(1, max);
    match number % 10 {
        0 => {
            let text = text(bytes, 38, Message::TEXT_MAX);
            let (severity, title) = (Severity::Information, "");
            typed(&Message {
                id: article,
                severity,
                title,
                text: &text,
                confirm: false,
                duration_s: Some(60),
            })
        }
        1 => {
            let page = text(bytes, 17, ShowPage::PAGE_MAX);
            typed(&ShowPage { page: &page, screen: 0, duration_s: Some(30) })
        }
        2 => {
            let change = PriceChange { article, price_minor: 129, unit: Unit::Piece };
            let changes = vec![change; entries(PriceChange::LEN, PriceList::CHANGES_MAX)];
            let (list, version, changes) = (1, article, List::new(&changes));
            let (base, valid_from_unix_s, rest, currency) = (None, None, None, *b"EUR");
            typed(&PriceList { list, version, base, valid_from_unix_s, currency, changes, rest })
        }
        3 => {
            let origin = format!("http://{}", text(bytes, 32, 505));
            typed(&RefreshContent {
                content: Content::Media,
                revision: article,
                within_s: 0,
                origin: Some(&origin),
            })
        }
        4 => {
            let bytes = filler(bytes.saturating_sub(28).clamp(1, Print::INLINE_MAX));
            typed(&Print {
                job: article,
                format: Format::Text,
                copies: 1,
                document: Document::Inline(&bytes),
            })
        }
        5 => {
            let line = CollectLine { article, quantity_milli: 1_000, name: "flour, 1 kg", substitute: true };
            let lines = vec![line; entries(32, PrepareCollect::LINES_MAX)];
            let (customer, handover, lines) = ("A. Customer", Handover::Locker(7), List::new(&lines));
            let (due_in_s, paid, note) = (Some(900), true, "");
            typed(&PrepareCollect { collect: article, customer, handover, due_in_s, paid, lines, note })
        }
        6 => {
            let line = CartLine { article, quantity_milli: 2_000, amount_minor: 398, name: "milk, 1 l" };
            let lines = vec![line; entries(37, TransferCart::LINES_MAX)];
            let (cart, from, currency, lines) = ([7; 16], NodeId::NONE, *b"EUR", List::new(&lines));
            typed(&TransferCart { cart, revision: article, from, currency, lines, total_minor: 398 })
        }
        7 => {
            let place = text(bytes, 16, StockQuestion::PLACE_MAX);
            typed(&StockQuestion { article, place: &place })
        }
        8 => {
            let reason = text(bytes, 16, RestartApp::REASON_MAX);
            typed(&RestartApp { when: When::Idle, within_s: 0, reason: &reason })
        }
        _ => {
            let url = format!("http://{}", text(bytes, 80, 505));
            let image = Fetch { url: &url, size: article, sha256: [0x5A; 32] };
            typed(&UpdateFirmware { version: "4.2.0", image, start_after_s: 0, start_within_s: 3_600 })
        }
    }
}

/// What a device of the demo makes of an order: it knows the standard kinds and reads their payloads.
pub(crate) fn judge(order: &Order<'_>) -> Verdict {
    let readable = match order.kind {
        OrderKind::REFRESH_CONTENT => RefreshContent::from_order(order).is_ok(),
        OrderKind::SHOW_PAGE => ShowPage::from_order(order).is_ok(),
        OrderKind::MESSAGE => Message::from_order(order).is_ok(),
        OrderKind::RESTART_APP => RestartApp::from_order(order).is_ok(),
        OrderKind::UPDATE_FIRMWARE => UpdateFirmware::from_order(order).is_ok(),
        OrderKind::PRINT => Print::from_order(order).is_ok(),
        OrderKind::PRICE_LIST => PriceList::from_order(order).is_ok(),
        OrderKind::PREPARE_COLLECT => PrepareCollect::from_order(order).is_ok(),
        OrderKind::TRANSFER_CART => TransferCart::from_order(order).is_ok(),
        OrderKind::STOCK_QUESTION => StockQuestion::from_order(order).is_ok(),
        super::scene::HOLD_KIND | super::scene::MARKER_KIND => true,
        _ => return Verdict::RejectedKind,
    };
    if readable { Verdict::Applied } else { Verdict::RejectedPayload }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_at_every_size_is_read_by_a_device() {
        let mut rng = Rng::new(1);
        let mut kinds = std::collections::HashSet::new();
        for bytes in [0, 1, 64, 200, 300, 1_200, 4_096, 32_768, 65_536] {
            for number in 0..10 {
                let Typed { kind, schema, lane, flags, payload } = standard(number, bytes, &mut rng);
                assert!(!payload.is_empty(), "{kind} at {bytes}");
                let order = Order {
                    number: 1,
                    order_key: 0,
                    supersede_key: 0,
                    supersede_version: 0,
                    kind,
                    lane,
                    kind_flags: flags,
                    schema,
                    options: &[],
                    payload: &payload,
                };
                assert_eq!(judge(&order), Verdict::Applied, "{kind} at {bytes}");
                let broken = Order { payload: &payload[1..], ..order };
                assert_ne!(judge(&broken), Verdict::RejectedKind);
                kinds.insert(kind);
                if bytes == 200 && !matches!(kind, OrderKind::STOCK_QUESTION | OrderKind::RESTART_APP) {
                    assert!((140..=260).contains(&payload.len()), "{kind}: {}", payload.len());
                }
            }
        }
        assert_eq!(kinds.len(), 10);
        assert_eq!(judge(&Order { kind: OrderKind(0x80DE), ..order() }), Verdict::RejectedKind);
    }

    fn order() -> Order<'static> {
        Order {
            number: 1,
            order_key: 0,
            supersede_key: 0,
            supersede_version: 0,
            kind: OrderKind::MESSAGE,
            lane: Lane::Normal,
            kind_flags: KindFlags::NONE,
            schema: 0,
            options: &[],
            payload: &[],
        }
    }
}
