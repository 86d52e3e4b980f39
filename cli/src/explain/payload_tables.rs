//! The byte tables of the standard order kinds' payloads, in the words of the specification.

use wire_format::ids::OrderKind;

use super::payload::{Item, Table, Type};

const U32: Type = Type::Unsigned(4);
const U64: Type = Type::Unsigned(8);

/// Every payload of this version.
pub(super) const TABLES: &[Table] = &[
    table("refresh-content", OrderKind::REFRESH_CONTENT, REFRESH_CONTENT),
    table("show-page", OrderKind::SHOW_PAGE, SHOW_PAGE),
    table("message", OrderKind::MESSAGE, MESSAGE),
    table("restart-app", OrderKind::RESTART_APP, RESTART_APP),
    table("update-firmware", OrderKind::UPDATE_FIRMWARE, UPDATE_FIRMWARE),
    table("print", OrderKind::PRINT, PRINT),
    table("price-list", OrderKind::PRICE_LIST, PRICE_LIST),
    table("prepare-collect", OrderKind::PREPARE_COLLECT, PREPARE_COLLECT),
    table("transfer-cart", OrderKind::TRANSFER_CART, TRANSFER_CART),
    table("stock-question", OrderKind::STOCK_QUESTION, STOCK_QUESTION),
];

/// The answer to a stock question: the payload of a RESULT, not of an order.
pub(super) const STOCK_ANSWER: Table = table(
    "stock-answer",
    OrderKind::STOCK_QUESTION,
    &[
        ("article", U64),
        (
            "level",
            Type::Enum(&[
                ("unknown", &[]),
                ("none", &[]),
                ("some", &[]),
                ("counted", &[("milli", Type::Signed)]),
            ]),
        ),
        ("age_s", U32),
    ],
);

const fn table(name: &'static str, kind: OrderKind, fields: &'static [Item]) -> Table {
    Table { name, kind, schema: 1, fields }
}

const FETCH: &[Item] = &[("url", Type::Text), ("size", U64), ("sha256", Type::Digest)];

const REFRESH_CONTENT: &[Item] = &[
    (
        "content",
        Type::Enum(&[
            ("everything", &[]),
            ("catalogue", &[]),
            ("media", &[]),
            ("layout", &[]),
            ("configuration", &[]),
        ]),
    ),
    ("revision", U64),
    ("within_s", U32),
    ("origin", Type::Option(&Type::Text)),
];

const SHOW_PAGE: &[Item] = &[("page", Type::Text), ("screen", U32), ("duration_s", Type::Option(&U32))];

const MESSAGE: &[Item] = &[
    ("id", U64),
    ("severity", Type::Enum(&[("information", &[]), ("warning", &[]), ("alarm", &[])])),
    ("title", Type::Text),
    ("text", Type::Text),
    ("confirm", Type::Bool),
    ("duration_s", Type::Option(&U32)),
];

const RESTART_APP: &[Item] =
    &[("when", Type::Enum(&[("idle", &[]), ("now", &[])])), ("within_s", U32), ("reason", Type::Text)];

const UPDATE_FIRMWARE: &[Item] = &[
    ("version", Type::Text),
    ("image", Type::Struct(FETCH)),
    ("start_after_s", U32),
    ("start_within_s", U32),
];

const PRINT: &[Item] = &[
    ("job", U64),
    ("format", Type::Enum(&[("text", &[]), ("esc-pos", &[]), ("pdf", &[]), ("png", &[])])),
    ("copies", U32),
    ("document", Type::Enum(&[("inline", &[("bytes", Type::Bytes)]), ("fetch", FETCH)])),
];

const PRICE_LIST: &[Item] = &[
    ("list", U64),
    ("version", U64),
    ("base", Type::Option(&U64)),
    ("valid_from_unix_s", Type::Option(&U64)),
    ("currency", Type::Currency),
    (
        "changes",
        Type::List(&[
            ("article", U64),
            ("price_minor", Type::Signed),
            ("unit", Type::Enum(&[("piece", &[]), ("kilogram", &[]), ("litre", &[]), ("metre", &[])])),
        ]),
    ),
    ("rest", Type::Option(&Type::Struct(FETCH))),
];

const PREPARE_COLLECT: &[Item] = &[
    ("collect", U64),
    ("customer", Type::Text),
    (
        "handover",
        Type::Enum(&[("counter", &[]), ("locker", &[("number", U32)]), ("kerbside", &[("bay", Type::Text)])]),
    ),
    ("due_in_s", Type::Option(&U32)),
    ("paid", Type::Bool),
    (
        "lines",
        Type::List(&[
            ("article", U64),
            ("quantity_milli", U32),
            ("name", Type::Text),
            ("substitute", Type::Bool),
        ]),
    ),
    ("note", Type::Text),
];

const TRANSFER_CART: &[Item] = &[
    ("cart", Type::Id),
    ("revision", U64),
    ("from", Type::Id),
    ("currency", Type::Currency),
    (
        "lines",
        Type::List(&[
            ("article", U64),
            ("quantity_milli", U32),
            ("amount_minor", Type::Signed),
            ("name", Type::Text),
        ]),
    ),
    ("total_minor", Type::Signed),
];

const STOCK_QUESTION: &[Item] = &[("article", U64), ("place", Type::Text)];
