//! How far the demo has got: a bar on a terminal, elsewhere a line now and then. Silence looks like a hang.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::out;

/// Between two lines.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Between two looks of a bar, whose clock goes on while nothing happens.
const DRAW_EVERY: Duration = Duration::from_millis(200);

/// One stage of the demo. Dropped, it is over.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    /// One task, that ends with this.
    _teller: JoinSet<()>,
}

impl Progress {
    /// A stage that is over with `length` of `what`.
    pub(super) fn start(length: usize, what: &'static str) -> Self {
        let bar = ProgressBar::new(length as u64).with_message(what);
        let style = ProgressStyle::with_template("{msg:>18} {bar:40} {pos}/{len} {elapsed} {prefix}");
        let bar = match style {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        };
        let mut teller = JoinSet::new();
        teller.spawn(tell(bar.clone()));
        Self { bar, _teller: teller }
    }

    /// So many are done.
    pub(super) fn set(&self, position: usize) {
        self.bar.set_position(position as u64);
    }

    /// One more is done.
    pub(super) fn inc(&self) {
        self.bar.inc(1);
    }

    /// Something to say beside the number.
    pub(super) fn note(&self, note: String) {
        self.bar.set_prefix(note);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Keeps the bar moving, or tells in its place where there is no terminal.
async fn tell(bar: ProgressBar) {
    let begun = Instant::now();
    let every = if bar.is_hidden() { LINE_EVERY } else { DRAW_EVERY };
    let mut turns = tokio::time::interval_at(begun + every, every);
    loop {
        turns.tick().await;
        if bar.is_hidden() {
            out::log(&line(&bar, begun.elapsed()));
        } else {
            bar.tick();
        }
    }
}

fn line(bar: &ProgressBar, elapsed: Duration) -> String {
    let (done, all) = (bar.position(), bar.length().unwrap_or_default());
    let note = match bar.prefix() {
        note if note.is_empty() => note,
        note => format!(", {note}"),
    };
    format!("{:>4} s: {done} of {all} {}{note}", elapsed.as_secs(), bar.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_says_how_far_it_is() {
        let progress = Progress::start(10_000, "devices connected");
        progress.set(2_900);
        progress.inc();
        let told = |progress: &Progress| line(&progress.bar, Duration::from_millis(15_400));
        assert_eq!(told(&progress), "  15 s: 2901 of 10000 devices connected");
        progress.note("3120 found".to_owned());
        assert_eq!(told(&progress), "  15 s: 2901 of 10000 devices connected, 3120 found");
    }
}
