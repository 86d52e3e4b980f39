//! The terminal: taken over while the table is drawn, and given back as it was, however the command ends.

use std::io::{IsTerminal, Read, Write};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};
use tokio::sync::mpsc;

use super::draw::{Frame, Size};
use super::keys::{self, Key};

/// The other screen, without cursor, without wrapping.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
/// All of it back.
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// Between these a terminal that can shows nothing half drawn.
const HOLD: &str = "\x1b[?2026h";
const SHOW: &str = "\x1b[?2026l";
/// Reads from the keyboard that wait to be looked at.
const READS_MAX: usize = 64;
/// A terminal that does not say its size.
const USUAL: Size = Size { columns: 80, rows: 24 };

/// What has to be given back: the terminal's settings, if it is the keyboard as well.
struct Taken(Option<Termios>);

/// Set while the terminal is ours. A panic gives it back through this, before it says anything.
static TAKEN: Mutex<Option<Taken>> = Mutex::new(None);

fn taken() -> MutexGuard<'static, Option<Taken>> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives the terminal back; nothing if it is not ours.
fn restore() {
    if let Some(Taken(settings)) = taken().take() {
        // A terminal that is gone needs nothing back.
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(LEAVE.as_bytes()).and_then(|()| stdout.flush());
        if let Some(settings) = settings {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &settings);
        }
    }
}

fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            before(info);
        }));
    });
}

/// Whether a table can be drawn on what is behind stdout.
pub(super) fn can_draw() -> bool {
    std::io::stdout().is_terminal()
        && std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}

/// The terminal, while it is ours.
#[derive(Debug)]
pub(super) struct Screen {
    /// The lines that stand there.
    shown: Vec<String>,
    keys: mpsc::Receiver<Vec<u8>>,
    colours: bool,
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

impl Screen {
    /// Takes the terminal over.
    pub(super) fn enter() -> std::io::Result<Self> {
        restore_on_panic();
        take()?;
        let colours = anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never;
        Ok(Self { shown: Vec::new(), keys: keyboard(), colours })
    }

    /// Takes it over again, after this process was stopped.
    pub(super) fn enter_again(&mut self) -> std::io::Result<()> {
        restore();
        self.shown.clear();
        take()
    }

    /// Gives it back, stops this process as its user asked, and goes on when it is let.
    pub(super) fn suspend(&mut self) -> std::io::Result<()> {
        restore();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TSTP)?;
        self.enter_again()
    }

    /// Its size now.
    pub(super) fn size() -> Size {
        match tcgetwinsize(std::io::stdout()) {
            Ok(size) if size.ws_row > 0 && size.ws_col > 0 => {
                Size { columns: size.ws_col, rows: size.ws_row }
            }
            _ => USUAL,
        }
    }

    /// It may show anything now: the next picture is drawn in full.
    pub(super) fn forget(&mut self) -> std::io::Result<()> {
        self.shown.clear();
        write("\x1b[2J")
    }

    /// Shows a picture: what has changed of it is written, in one write.
    pub(super) fn show(&mut self, frame: &Frame) -> std::io::Result<()> {
        let lines = frame.lines.iter().map(|line| {
            let style = if self.colours { line.style } else { anstyle::Style::new() };
            format!("{style}{}{style:#}", line.text)
        });
        let lines: Vec<String> = lines.collect();
        let changes = changes(&self.shown, &lines);
        self.shown = lines;
        if changes.is_empty() { Ok(()) } else { write(&format!("{HOLD}{changes}{SHOW}")) }
    }

    /// The keys pressed; nothing ever comes if the keyboard is not ours. Cancel safe.
    pub(super) async fn keys(&mut self) -> Vec<Key> {
        match self.keys.recv().await {
            Some(bytes) => keys::decode(&bytes),
            None => core::future::pending().await,
        }
    }
}

/// What has to be written so that `after` stands where `before` stood.
fn changes(before: &[String], after: &[String]) -> String {
    let mut out = String::new();
    for at in 0..before.len().max(after.len()) {
        let line = after.get(at);
        if before.get(at) != line {
            let line = line.map_or("", String::as_str);
            // To the end of the line: the old one may have been longer.
            out.push_str(&format!("\x1b[{};1H{line}\x1b[K", at + 1));
        }
    }
    out
}

fn write(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Keys come one by one and unseen; Ctrl-C and Ctrl-Z are keys, so that the terminal can be given back before they work.
fn take() -> std::io::Result<()> {
    let settings = if std::io::stdin().is_terminal() { Some(tcgetattr(std::io::stdin())?) } else { None };
    if let Some(settings) = &settings {
        let mut ours = settings.clone();
        ours.local_modes
            .remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG | LocalModes::IEXTEN);
        ours.special_codes[SpecialCodeIndex::VMIN] = 1;
        ours.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(std::io::stdin(), OptionalActions::Now, &ours)?;
    }
    *taken() = Some(Taken(settings));
    write(ENTER)
}

/// A thread of its own reads the keyboard: a read cannot be given up, and nothing waits for the thread at the end.
fn keyboard() -> mpsc::Receiver<Vec<u8>> {
    let (sender, keys) = mpsc::channel(READS_MAX);
    if std::io::stdin().is_terminal() {
        std::thread::spawn(move || {
            let mut buffer = [0; 256];
            while let Ok(len @ 1..) = std::io::stdin().read(&mut buffer) {
                if sender.blocking_send(buffer[..len].to_vec()).is_err() {
                    return;
                }
            }
        });
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_that_changed_are_written() {
        let lines = |text: &str| text.lines().map(ToOwned::to_owned).collect::<Vec<_>>();
        assert_eq!(changes(&lines("a\nb\nc"), &lines("a\nb\nc")), "");
        assert_eq!(changes(&lines("a\nb\nc"), &lines("a\nx\nc")), "\x1b[2;1Hx\x1b[K");
        assert_eq!(changes(&lines("a\nb"), &lines("a")), "\x1b[2;1H\x1b[K");
        assert_eq!(changes(&[], &lines("a")), "\x1b[1;1Ha\x1b[K");
    }
}
