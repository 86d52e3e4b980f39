//! The columns of the table: what is in them, and what order they make.

use std::cmp::Ordering;
use std::time::Duration;

use super::model::Device;

/// Digits of an id that tell devices apart.
const ID_DIGITS: usize = 8;

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Column {
    /// Its name for people.
    Name,
    /// The product's code of it.
    Code,
    /// Till, kiosk, printer…
    Kind,
    /// Where it stands.
    Zone,
    /// What discovery thinks of it.
    State,
    /// How long ago it gave a sign of life.
    Age,
    /// Whether a session for orders is open, or why not.
    Session,
    /// The interface of the server it is behind.
    Via,
    /// Where it takes orders.
    Address,
    /// Its tags.
    Tags,
    /// Its id, shortened.
    Id,
}

/// The columns shown unless others are asked for.
pub(super) const COLUMNS: [Column; 11] = [
    Column::Name,
    Column::Code,
    Column::Kind,
    Column::Zone,
    Column::State,
    Column::Age,
    Column::Session,
    Column::Via,
    Column::Address,
    Column::Tags,
    Column::Id,
];

impl Column {
    /// Its head.
    pub(super) const fn head(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Code => "code",
            Self::Kind => "kind",
            Self::Zone => "zone",
            Self::State => "state",
            Self::Age => "age",
            Self::Session => "session",
            Self::Via => "via",
            Self::Address => "address",
            Self::Tags => "tags",
            Self::Id => "id",
        }
    }

    /// The least characters it has, so that nothing jumps when a row comes or a number grows.
    pub(super) const fn width_min(self) -> u16 {
        match self {
            Self::Age | Self::Code | Self::Via => 4,
            Self::State => 7,
            Self::Session => 7,
            Self::Kind => 6,
            Self::Zone => 4,
            Self::Address => 13,
            Self::Name | Self::Tags | Self::Id => ID_DIGITS as u16,
        }
    }

    /// What it shows of a device.
    pub(super) fn cell(self, device: &Device, now: Duration) -> String {
        match self {
            Self::Name => clean(&device.name),
            Self::Code => clean(&device.code),
            Self::Kind => clean(&device.kind),
            Self::Zone if device.zone == 0 => String::new(),
            Self::Zone => device.zone.to_string(),
            Self::State => clean(&device.state),
            Self::Age if device.connected => "now".to_owned(),
            Self::Age => device.silent(now).map_or_else(|| "-".to_owned(), age),
            Self::Session if device.connected => "open".to_owned(),
            Self::Session if device.why.is_empty() => "-".to_owned(),
            Self::Session => clean(&device.why),
            Self::Via => clean(&device.via),
            Self::Address => clean(&device.address),
            Self::Tags => clean(&device.tags.join(",")),
            Self::Id => clean(device.id.get(..ID_DIGITS).unwrap_or(&device.id)),
        }
    }

    fn compare(self, one: &Device, other: &Device, now: Duration) -> Ordering {
        match self {
            Self::Name => last_if_empty(&one.name, &other.name),
            Self::Code => last_if_empty(&one.code, &other.code),
            Self::Kind => one.kind.cmp(&other.kind),
            Self::Zone => one.zone.cmp(&other.zone),
            Self::State => one.rank().cmp(&other.rank()),
            Self::Age => one.silent(now).cmp(&other.silent(now)),
            Self::Session => other.connected.cmp(&one.connected).then_with(|| one.why.cmp(&other.why)),
            Self::Via => one.via.cmp(&other.via),
            Self::Address => one.socket.cmp(&other.socket).then_with(|| one.address.cmp(&other.address)),
            Self::Tags => one.tags.cmp(&other.tags),
            Self::Id => one.id.cmp(&other.id),
        }
    }
}

fn last_if_empty(one: &str, other: &str) -> Ordering {
    (one.is_empty(), one).cmp(&(other.is_empty(), other))
}

/// Text of the network's without what a terminal would obey.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A span in at most five characters.
pub(super) fn age(span: Duration) -> String {
    let s = span.as_secs();
    match s {
        0..60 => format!("{s}s"),
        60..3_600 => format!("{}m{:02}", s / 60, s % 60),
        3_600..86_400 => format!("{}h{:02}", s / 3_600, s / 60 % 60),
        _ => format!("{}d", s / 86_400),
    }
}

/// By what the rows are ordered: a column, downwards if it was written with a dash before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sort {
    column: Column,
    down: bool,
}

/// The order unless another is asked for.
pub(super) const SORT: [Sort; 3] = [up(Column::Zone), up(Column::Kind), up(Column::Name)];

const fn up(column: Column) -> Sort {
    Sort { column, down: false }
}

/// `COLUMN` or `-COLUMN`; as a value parser.
pub(crate) fn sort(text: &str) -> Result<Sort, String> {
    let (name, down) = text.strip_prefix('-').map_or((text, false), |name| (name, true));
    let column = COLUMNS.into_iter().find(|column| column.head() == name);
    column.map(|column| Sort { column, down }).ok_or_else(|| {
        format!(
            "rows are ordered by one of {}, with a dash before it downwards",
            COLUMNS.map(Column::head).join(", ")
        )
    })
}

/// How two devices stand to each other; no two are equal, so that rows keep their places.
pub(super) fn order(by: &[Sort], one: &Device, other: &Device, now: Duration) -> Ordering {
    let by = by.iter().map(|sort| {
        let ordering = sort.column.compare(one, other, now);
        if sort.down { ordering.reverse() } else { ordering }
    });
    let mut first = by.chain([one.id.cmp(&other.id), one.address.cmp(&other.address)]);
    first.find(|ordering| ordering.is_ne()).unwrap_or(Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn spans_are_short() {
        let ages = [0, 59, 60, 3_599, 3_600, 86_399, 86_400, 864_000].map(|s| age(Duration::from_secs(s)));
        assert_eq!(ages, ["0s", "59s", "1m00", "59m59", "1h00", "23h59", "1d", "10d"]);
    }

    #[test]
    fn rows_are_ordered_by_one_column_after_the_other() {
        let now = Duration::from_secs(100);
        let of = |id: &str, zone: u64, state: &str, address: &str, silent_ms: u64| {
            Device::of(
                &json!({"id": id, "zone": zone, "state": state, "address": address, "silent_ms": silent_ms}),
                now,
            )
        };
        let devices = [
            of("01", 2, "linked", "10.0.0.10:8081", 1_000),
            of("02", 1, "lost", "10.0.0.9:8081", 95_000),
            of("03", 1, "fresh", "10.0.1.1:8081", 3_000),
        ];
        let sorted = |by: &[&str]| {
            let by: Vec<Sort> = by.iter().map(|by| sort(by).unwrap()).collect();
            let mut rows: Vec<&Device> = devices.iter().collect();
            rows.sort_by(|one, other| order(&by, one, other, now));
            rows.iter().map(|device| device.id.as_str()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(sorted(&["zone"]), "02 03 01");
        assert_eq!(sorted(&["-zone", "-id"]), "01 03 02");
        assert_eq!(sorted(&["state"]), "02 03 01", "the worst first");
        assert_eq!(sorted(&["address"]), "02 01 03", "by number, not by digit");
        assert_eq!(sorted(&["age"]), "01 03 02");
        assert!(sort("colour").is_err() && sort("--age").is_err());
    }

    #[test]
    fn a_terminal_is_told_nothing_by_the_network() {
        let device = Device::of(&json!({"name": "a\u{1b}[2Jb\n"}), Duration::ZERO);
        assert_eq!(Column::Name.cell(&device, Duration::ZERO), "a?[2Jb?");
    }
}
