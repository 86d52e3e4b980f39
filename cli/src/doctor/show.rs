//! The report for people: groups, aligned columns, colours, and the remedy below what needs one.

use core::fmt::Write;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};

use super::report::{Check, Grade, Line, count, worst};
use crate::out::{FAINT, title};

/// Lines are not made longer than this, however wide the terminal.
const WIDTH_MAX: usize = 120;
/// Nor squeezed into less.
const WIDTH_MIN: usize = 60;

const fn style(grade: Grade) -> Style {
    let colour = match grade {
        Grade::Pass => AnsiColor::Green,
        Grade::Warn => AnsiColor::Yellow,
        Grade::Fail => AnsiColor::Red,
    };
    colour.on_default().bold()
}

/// All findings, and the worst.
pub(super) fn people(lines: &[Line]) -> String {
    let width = rustix::termios::tcgetwinsize(std::io::stdout())
        .map_or(WIDTH_MAX, |size| usize::from(size.ws_col))
        .clamp(WIDTH_MIN, WIDTH_MAX);
    text(lines, width)
}

fn text(lines: &[Line], width: usize) -> String {
    let mut text = String::new();
    let mut group = "";
    for (at, line) in lines.iter().enumerate() {
        if line.check.group() != group {
            let space = if group.is_empty() { "" } else { "\n" };
            group = line.check.group();
            text.push_str(&format!("{space}{}\n", title(group)));
        }
        add(&mut text, line, width);
        // What helps several findings in a row is said once, below the last of them.
        let said_below =
            lines.get(at + 1).is_some_and(|next| (next.check, &next.remedy) == (line.check, &line.remedy));
        if !said_below {
            add_remedy(&mut text, line);
        }
    }
    let worst = worst(lines);
    let style = style(worst);
    let of = |grade| count(lines, grade);
    let _always = writeln!(
        text,
        "\nworst: {style}{}{style:#}   {} passed, {} warned, {} failed",
        worst.name(),
        of(Grade::Pass),
        of(Grade::Warn),
        of(Grade::Fail)
    );
    text
}

/// Where details begin: two spaces, the grade, the longest name of a check, and spaces between them.
const INDENT: usize = 24;

fn add(text: &mut String, line: &Line, width: usize) {
    let (grade, style) = (line.grade.name(), style(line.grade));
    let head = if line.subject.is_empty() {
        line.detail.clone()
    } else {
        format!("{}: {}", line.subject, line.detail)
    };
    let mut rows = wrapped(&head, width - INDENT).into_iter();
    let first = rows.next().unwrap_or_default();
    let _always = writeln!(text, "  {style}{grade}{style:#}  {:<15} {first}", line.check.name());
    for row in rows {
        let _always = writeln!(text, "{:INDENT$}{row}", "");
    }
}

fn add_remedy(text: &mut String, line: &Line) {
    for step in line.remedy.lines() {
        // A command is copied, so it is not broken up.
        let _always = writeln!(text, "{:INDENT$}{FAINT}→{FAINT:#} {step}", "");
    }
}

/// Broken at spaces; a word longer than a line stays whole.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut rows = vec![String::new()];
    for word in text.split(' ') {
        let Some(row) = rows.last_mut() else { break };
        if !row.is_empty() && row.chars().count() + 1 + word.chars().count() > width {
            rows.push(word.to_owned());
        } else {
            if !row.is_empty() {
                row.push(' ');
            }
            row.push_str(word);
        }
    }
    rows
}

/// What is still under way, on stderr if that is a terminal.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    left: Mutex<Vec<Check>>,
}

impl Progress {
    /// Shows itself only to people.
    pub(super) fn new(checks: &[Check], json: bool) -> Self {
        let shown = !json && std::io::stderr().is_terminal();
        let bar = if shown { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
            bar.set_style(style);
        }
        if shown {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        let progress = Self { bar, left: Mutex::new(checks.to_vec()) };
        progress.say(checks);
        progress
    }

    /// One less.
    pub(super) fn done(&self, check: Check) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.retain(|one| *one != check);
        self.say(&left);
    }

    fn say(&self, left: &[Check]) {
        let names: Vec<_> = left.iter().map(|check| check.name()).collect();
        self.bar.set_message(format!("checking: {}", names.join(", ")));
    }

    /// Gone, with its line.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_stand_in_groups_with_their_remedies() {
        let lines = [
            Line::pass(Check::Port, "57854/udp", "free"),
            Line::warn(Check::Port, "reserved", "a word ".repeat(20).trim(), "one step\nanother one"),
            Line::fail(Check::Clock, "time", "long ago", "set it"),
            Line::fail(Check::Clock, "others", "behind", "set it"),
        ];
        let plain = anstream::adapter::strip_str(&text(&lines, WIDTH_MIN)).to_string();
        let rows: Vec<_> = plain.lines().collect();
        assert_eq!(rows[0], "discovery");
        assert_eq!(rows[1], "  pass  port            57854/udp: free");
        assert!(rows[2].starts_with("  warn  port            reserved: a word"));
        assert!(rows.iter().all(|row| row.chars().count() <= WIDTH_MIN), "{plain}");
        assert!(
            plain.contains(
                "                        → another one\n\nthis host\n  fail  clock           time: long ago\n"
            ),
            "{plain}"
        );
        assert_eq!(plain.matches("→ set it").count(), 1, "said once: {plain}");
        assert_eq!(*rows.last().unwrap(), "worst: fail   1 passed, 1 warned, 2 failed");
    }

    #[test]
    fn text_is_broken_at_spaces_only() {
        assert_eq!(wrapped("ab cd efghij k", 5), ["ab cd", "efghij", "k"]);
        assert_eq!(wrapped("", 5), [""]);
    }
}
