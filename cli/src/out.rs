//! What goes to the terminal: results on stdout, everything else on stderr.
//!
//! A reader that went away (`tillwire watch | head`) ends the program instead of a panic, as it does for every filter.

use std::io::Write;

use anstyle::{AnsiColor, Style};
use serde_json::Value;

const ERROR: Style = AnsiColor::Red.on_default().bold();
const HELP: Style = AnsiColor::Cyan.on_default();
const WARN: Style = AnsiColor::Yellow.on_default();
/// Column heads and titles.
pub(crate) const STRONG: Style = Style::new().bold();
/// Side remarks.
pub(crate) const FAINT: Style = Style::new().dimmed();

/// Writes `text` as it stands and flushes, so that a reader at the other end of a pipe sees whole lines at once.
pub(crate) fn text(text: &str) {
    let mut stdout = anstream::stdout().lock();
    if stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err() {
        // Nobody reads our results any more: there is nothing left to do.
        std::process::exit(1);
    }
}

/// One line of results.
pub(crate) fn line(line: &str) {
    text(&format!("{line}\n"));
}

/// One JSON object, one line.
pub(crate) fn json(object: &Value) {
    let mut stdout = std::io::stdout().lock();
    let line = format!("{object}\n");
    if stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(1);
    }
}

/// One line of log. A broken stderr is nobody's business.
pub(crate) fn log(line: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{line}");
}

/// Something the operator should know although it goes on.
pub(crate) fn warn(line: &str) {
    log(&format!("{WARN}warning{WARN:#}: {line}"));
}

/// Why it does not go on.
pub(crate) fn error(cause: &str, help: &str) {
    log(&format!("{ERROR}error{ERROR:#}: {cause}"));
    if !help.is_empty() {
        log(&format!("  {HELP}help{HELP:#}: {help}"));
    }
}

/// A title above a block of lines.
pub(crate) fn title(title: &str) -> String {
    format!("{STRONG}{title}{STRONG:#}")
}
