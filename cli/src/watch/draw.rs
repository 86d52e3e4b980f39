//! The picture: a pure function of what is known, what is asked for, the time and the size of the terminal.

use std::collections::BTreeMap;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use comfy_table::{ColumnConstraint, ContentArrangement, Row, Table, Width};

use super::columns::{Column, Sort, age, clean, order};
use super::filter::Filter;
use super::model::{Device, Model, STATES};
use crate::out::{FAINT, STRONG};

const BAD: Style = AnsiColor::Red.on_default();
const DOUBT: Style = AnsiColor::Yellow.on_default();
const PLAIN: Style = Style::new();

/// Kinds counted by name; the others are counted together.
const KINDS_COUNTED: usize = 6;

/// Characters and lines of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) columns: u16,
    pub(super) rows: u16,
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub(super) columns: Vec<Column>,
    pub(super) sort: Vec<Sort>,
    pub(super) filter: Filter,
    /// A text typed while watching, in small letters; it narrows the table alone.
    pub(super) search: String,
    /// It is being typed.
    pub(super) typing: bool,
    /// The first row shown.
    pub(super) first: usize,
    /// Since when the server is away, and what was heard last.
    pub(super) away: Option<(Duration, String)>,
}

/// A line and how it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) style: Style,
}

/// A picture: as many lines as fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) lines: Vec<Line>,
    /// Rows there would be on a terminal without end.
    pub(super) rows: usize,
    /// Rows that fit.
    pub(super) page: usize,
    /// The first row shown, which is never past the last page.
    pub(super) first: usize,
}

/// The devices that are looked at, in their order.
pub(super) fn rows<'m>(model: &'m Model, view: &View, now: Duration) -> Vec<&'m Device> {
    let searched = |device: &&Device| view.search.is_empty() || device.words.contains(&view.search);
    let wanted = |device: &&Device| view.filter.matches(device);
    let mut rows: Vec<&Device> = model.devices.values().filter(wanted).filter(searched).collect();
    rows.sort_unstable_by(|one, other| order(&view.sort, one, other, now));
    rows
}

/// The table for a pipe or a file: every row in full.
pub(super) fn plain(model: &Model, view: &View, now: Duration) -> String {
    let rows = rows(model, view, now);
    let mut text = heading(model, now).join("\n");
    for line in table(&view.columns, &rows, now, None) {
        text.push('\n');
        text.push_str(line.trim_end());
    }
    text.push('\n');
    text
}

/// The picture.
pub(super) fn frame(model: &Model, view: &View, now: Duration, size: Size) -> Frame {
    let all = rows(model, view, now);
    let height = usize::from(size.rows);
    let events = match height {
        0..12 => 0,
        12..20 => 3,
        _ => 6,
    };
    let mut lines: Vec<Line> = heading(model, now).into_iter().map(|text| styled(text, STRONG)).collect();
    lines.extend(away(view, now));
    // The heads of the columns, the title of the events, and the keys.
    let around = lines.len() + 1 + if events > 0 { events + 1 } else { 0 } + 1;
    let page = height.saturating_sub(around).max(1);
    let first = view.first.min(all.len().saturating_sub(page));
    let shown = all.get(first..).unwrap_or_default();
    let shown = shown.get(..page).unwrap_or(shown);
    lines.extend(body(&view.columns, shown, now, size.columns));
    lines.resize(lines.len() + page - shown.len(), styled(String::new(), PLAIN));
    if events > 0 {
        lines.extend(happened(model, now, events));
    }
    lines.push(foot(view, first, shown.len(), all.len()));
    lines.truncate(height);
    for line in &mut lines {
        // Wide characters are cut by the terminal, which does not wrap.
        line.text = line.text.chars().take(size.columns.into()).collect();
    }
    Frame { lines, rows: all.len(), page, first }
}

const fn styled(text: String, style: Style) -> Line {
    Line { text, style }
}

/// Who is watched, and how many there are of what.
fn heading(model: &Model, now: Duration) -> Vec<String> {
    let server = &model.server;
    let staging = if server.staging { " STAGING" } else { "" };
    let name = if server.name.is_empty() { String::new() } else { format!("{} ", clean(&server.name)) };
    let id = server.id.get(..8).unwrap_or(&server.id);
    let who = format!(
        "store {}, entity {}{staging}  server {name}{id}  generation {}  {:.1} events/s",
        clean(&server.store),
        server.entity,
        model.generation,
        model.rate(now)
    );
    let devices = model.devices.values();
    let (mut states, mut kinds, mut open) = ([0_usize; STATES.len()], BTreeMap::<&str, usize>::new(), 0);
    for device in devices {
        open += usize::from(device.connected);
        if let Some(count) = states.get_mut(device.rank()) {
            *count += 1;
        }
        if !device.kind.is_empty() {
            *kinds.entry(&device.kind).or_default() += 1;
        }
    }
    let some = |(name, count): (&str, usize)| (count > 0).then(|| format!("{count} {name}"));
    let states: Vec<_> = STATES.into_iter().zip(states).filter_map(some).collect();
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, count)| core::cmp::Reverse(*count));
    let others = kinds.iter().skip(KINDS_COUNTED).map(|(_, count)| count).sum();
    kinds.truncate(KINDS_COUNTED);
    let kinds: Vec<_> = kinds.into_iter().chain([("other", others)]).filter_map(some).collect();
    let parts = [
        format!("{} devices, {open} with a session", model.devices.len()),
        states.join(", "),
        clean(&kinds.join(", ")),
    ];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    vec![who, parts.join("  |  ")]
}

fn away(view: &View, now: Duration) -> Option<Line> {
    let (since, why) = view.away.as_ref()?;
    let text = format!("server away since {} ago, trying again: {why}", age(now.saturating_sub(*since)));
    Some(styled(text, BAD.invert()))
}

fn body(columns: &[Column], shown: &[&Device], now: Duration, width: u16) -> Vec<Line> {
    let styles = shown.iter().map(|device| match device.state.as_str() {
        "lost" => BAD,
        "suspect" | "unconfirmed" => DOUBT,
        "left" => FAINT,
        _ => PLAIN,
    });
    let lines = table(columns, shown, now, Some(width));
    lines
        .into_iter()
        .zip([STRONG].into_iter().chain(styles))
        .map(|(text, style)| styled(text, style))
        .collect()
}

/// The heads and a line per row; cut to `width`, if one is given.
fn table(columns: &[Column], rows: &[&Device], now: Duration, width: Option<u16>) -> Vec<String> {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(columns.iter().map(|column| column.head()));
    table.set_truncation_indicator("…");
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    for device in rows {
        let mut row = Row::from(columns.iter().map(|column| column.cell(device, now)));
        row.max_height(1);
        table.add_row(row);
    }
    for (column, shown) in columns.iter().zip(table.column_iter_mut()) {
        shown.set_padding((0, 2));
        shown.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(column.width_min() + 2)));
    }
    table.lines().collect()
}

/// What happened last, under a title; always as many lines.
fn happened(model: &Model, now: Duration, events: usize) -> Vec<Line> {
    let last = model.recent.iter().rev().take(events).rev();
    let last =
        last.map(|(at, text)| styled(format!("{:>5}  {}", age(now.saturating_sub(*at)), clean(text)), PLAIN));
    let mut lines = vec![styled("last events".to_owned(), STRONG)];
    lines.extend(last);
    lines.resize(events + 1, styled(String::new(), PLAIN));
    lines
}

fn foot(view: &View, first: usize, shown: usize, all: usize) -> Line {
    if view.typing {
        return styled(format!("/{}▏  Enter keeps it, Esc drops it", clean(&view.search)), STRONG);
    }
    let rows = if shown == all {
        format!("{all} shown")
    } else {
        format!("{}-{} of {all}", first + 1, first + shown)
    };
    let search = if view.search.is_empty() { String::new() } else { format!(" with {:?}", view.search) };
    styled(format!("{rows}{search}   ↑↓ PgUp PgDn scroll   / find   q end"), FAINT)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::columns::{COLUMNS, SORT};
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);

    fn model() -> Model {
        let mut model = Model::default();
        model.meet(&json!({"server": "6f9619ff8b86d011b42d00c04fc964ff", "name": "Back office", "entity": 7,
                           "store": "PARIS-12", "staging": true}));
        let devices = [
            json!({"id": "11111111111111111111111111111111", "name": "Till 1", "code": "K-01", "kind": "till", "zone": 1,
                   "tags": ["front"], "address": "10.0.0.11:8081", "state": "linked", "connected": true, "via": "eth0",
                   "silent_ms": 40_000}),
            json!({"id": "22222222222222222222222222222222", "name": "Till 2", "code": "K-02", "kind": "till", "zone": 1,
                   "tags": ["front", "cash"], "address": "10.0.0.12:8081", "state": "suspect", "connected": false,
                   "via": "eth0", "silent_ms": 61_000}),
            json!({"id": "33333333333333333333333333333333", "name": "Kiosk süd", "kind": "kiosk", "zone": 3, "tags": [],
                   "address": "10.0.0.13:8081", "state": "lost", "connected": false, "via": "eth1",
                   "silent_ms": 3_700_000}),
            json!({"id": null, "name": "", "kind": "till", "zone": 0, "tags": [], "address": "10.9.0.1:8081",
                   "state": "listed", "connected": false}),
        ];
        for device in devices {
            model.apply(NOW, &json!({"event": "present", "device": device}), &Filter::default());
        }
        model.apply(NOW, &json!({"event": "listed", "generation": 41, "devices": 4}), &Filter::default());
        let event = |event: &str, generation: u64, more: Value| {
            let mut event = json!({"event": event, "generation": generation, "changed": [],
                                   "device": {"id": "22222222222222222222222222222222", "name": "Till 2"}});
            event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            event
        };
        let refused = event("disconnected", 41, json!({"why": "refused", "detail": "connection refused"}));
        model.apply(NOW, &refused, &Filter::default());
        model.apply(
            NOW + Duration::from_secs(5),
            &event("moved", 42, json!({"from": "10.0.0.99:8081"})),
            &Filter::default(),
        );
        model
    }

    fn view() -> View {
        View { columns: COLUMNS.to_vec(), sort: SORT.to_vec(), ..View::default() }
    }

    fn text(frame: &Frame) -> String {
        frame.lines.iter().map(|line| format!("{}\n", line.text.trim_end())).collect()
    }

    #[test]
    fn the_whole_picture() {
        let frame = frame(&model(), &view(), NOW + Duration::from_secs(9), Size { columns: 140, rows: 20 });
        assert_eq!(text(&frame), include_str!("picture.txt"));
        assert_eq!((frame.rows, frame.page, frame.first), (4, 9, 0));
        let styles: Vec<_> = frame.lines.iter().map(|line| line.style).collect();
        assert_eq!(styles[2..7], [STRONG, PLAIN, PLAIN, DOUBT, BAD], "the rows by their state");
    }

    #[test]
    fn ages_tick_and_the_picture_otherwise_stays() {
        let (model, view, size) = (model(), view(), Size { columns: 140, rows: 24 });
        let at = |s| frame(&model, &view, NOW + Duration::from_secs(s), size).lines;
        assert_eq!(at(20), at(20));
        let (before, after) = (at(20), at(21));
        let changed: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
        assert_eq!(changed.len(), 4, "a suspect device, a lost one in minutes, two events: {changed:#?}");
    }

    #[test]
    fn every_size_is_filled_and_never_exceeded() {
        let model = model();
        for rows in 1..40 {
            for columns in [1, 10, 40, 80, 200] {
                let frame = frame(&model, &view(), NOW, Size { columns, rows });
                assert!(frame.lines.len() <= rows.into(), "{rows}");
                assert!(rows < 5 || frame.lines.len() == usize::from(rows), "{rows} rows, {columns} columns");
                assert!(frame.lines.iter().all(|line| line.text.chars().count() <= columns.into()));
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_scrolled_to() {
        let (model, size) = (model(), Size { columns: 120, rows: 6 });
        let shown = |first| frame(&model, &View { first, ..view() }, NOW, size);
        assert_eq!(shown(0).page, 2);
        assert!(text(&shown(0)).contains("1-2 of 4") && text(&shown(0)).contains("Till 1"));
        assert!(!text(&shown(2)).contains("Till 1") && text(&shown(2)).contains("Kiosk"));
        assert_eq!(shown(99).first, 2, "never past the last page");
    }

    #[test]
    fn a_filter_a_search_and_a_server_away_are_shown() {
        let searched =
            View { search: "süd".to_owned(), away: Some((NOW, "it closed".to_owned())), ..view() };
        let shown =
            text(&frame(&model(), &searched, NOW + Duration::from_secs(75), Size { columns: 140, rows: 16 }));
        assert!(shown.contains("server away since 1m15 ago, trying again: it closed"), "{shown}");
        assert!(shown.contains("Kiosk süd") && !shown.contains("Till 1"), "{shown}");
        assert!(shown.contains("1 shown with \"süd\""), "{shown}");
        let typing = View { typing: true, ..searched };
        assert!(text(&frame(&model(), &typing, NOW, Size { columns: 140, rows: 16 })).contains("/süd▏"));
    }

    #[test]
    fn a_file_gets_every_row_in_full() {
        let plain = plain(&model(), &view(), NOW);
        assert_eq!(plain.lines().count(), 7);
        assert!(plain.contains("front,cash"), "{plain}");
        assert!(plain.lines().all(|line| line.trim_end() == line));
    }
}
