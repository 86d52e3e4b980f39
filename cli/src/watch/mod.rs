//! `tillwire watch`: the roster as it changes. A live table for a terminal, lines for pipes and programs.
//!
//! | file | what for |
//! | --- | --- |
//! | `link` | the server's lines, and the server that comes back |
//! | `model` | what the lines add up to |
//! | `filter` | which devices are looked at |
//! | `columns` | what is shown of a device, and in which order |
//! | `draw` | the picture, a pure function of all that |
//! | `screen`, `keys` | the terminal |
//! | `line` | an event as one line |

mod columns;
mod draw;
mod filter;
mod keys;
mod line;
mod link;
mod model;
mod screen;

use std::time::Duration;

use comfy_table::Table;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::control::{Endpoint, endpoint};
use crate::error::{Failure, Outcome, Verdict};
use crate::{out, start};
use columns::{COLUMNS, Column, SORT, Sort};
use draw::View;
use filter::Filter;
use keys::Key;
pub(crate) use line::line;
use link::{Heard, Link};
use model::{Model, ORIGIN};
use screen::Screen;

/// The table is drawn again at most this often.
const DRAW_EVERY: Duration = Duration::from_millis(200);
/// And at least this often: ages go on without traffic.
const TICK: Duration = Duration::from_secs(1);
/// SIGCONT on Linux: the process goes on after it was stopped.
const SIGCONT: i32 = 18;

const EXAMPLES: &str = "\
Examples:
  tillwire watch
  tillwire watch --where 'kind=till zone=3' --sort state,-age
  tillwire watch --not-state linked --columns name,code,state,age,session,via,address
  tillwire watch --once --state lost,left
  tillwire watch --json --tag bakery --reconnect

Keys: arrows, PgUp, PgDn, Home, End scroll; / finds a text in name, code, id or address; q ends.";

/// Show the devices a running server knows, then every change.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Where the server is reached: a path, or a loopback IP:PORT. Default: the socket of this user.
    #[arg(long, value_name = "SOCKET", value_parser = endpoint)]
    control: Option<Endpoint>,
    /// Show the devices as they are now, and end.
    #[arg(long)]
    once: bool,
    /// Wait for a server that went away. The table does so anyway.
    #[arg(long, conflicts_with = "once")]
    reconnect: bool,
    /// End when the server goes away. Lines do so anyway.
    #[arg(long, conflicts_with = "reconnect")]
    no_reconnect: bool,
    /// The table's columns, with commas between: name, code, kind, zone, state, age, session, via, address, tags, id.
    #[arg(long, value_name = "C,…", value_delimiter = ',', hide_possible_values = true)]
    columns: Vec<Column>,
    /// The columns the rows are ordered by, with commas between; -C downwards. Default: zone,kind,name.
    #[arg(long, value_name = "C,…", value_delimiter = ',', value_parser = columns::sort, allow_hyphen_values = true)]
    sort: Vec<Sort>,
    #[command(flatten)]
    filter: Filter,
}

/// Runs until told to end, or the server goes and is not waited for.
pub(crate) async fn run(args: Args, json: bool) -> Outcome {
    let end = start::End::listen()?;
    let request = if args.once { "roster" } else { "watch" };
    let (link, hello) = Link::open(args.control.clone(), request).await?;
    let mut watch = Watch::new(link, &args);
    watch.model.meet(&hello);
    if json || args.once || !screen::can_draw() {
        watch.lines(end, args, json).await
    } else {
        watch.table(end, !args.no_reconnect).await
    }
}

struct Watch {
    link: Link,
    model: Model,
    view: View,
    began: Instant,
    /// The roster was asked for again, and is not complete yet.
    relisting: bool,
}

impl Watch {
    fn new(link: Link, args: &Args) -> Self {
        let or = |given: &[Column]| if given.is_empty() { COLUMNS.to_vec() } else { given.to_vec() };
        let sort = if args.sort.is_empty() { SORT.to_vec() } else { args.sort.clone() };
        let view = View { columns: or(&args.columns), sort, filter: args.filter.clone(), ..View::default() };
        Self { link, model: Model::default(), view, began: Instant::now(), relisting: false }
    }

    fn now(&self) -> Duration {
        ORIGIN + self.began.elapsed()
    }

    /// Takes a line in, and asks for the roster again where it has to be. The lines to be shown for it.
    async fn take(&mut self, event: Value) -> (Vec<Value>, bool) {
        let now = self.now();
        let applied = self.model.apply(now, &event, &self.view.filter);
        let mut shown = Vec::new();
        if let Some(missing) = applied.gap {
            let gap = json!({"event": "gap", "generation": self.model.generation, "events": missing});
            self.model.note(now, line(&gap));
            shown.push(gap);
        }
        if applied.listed {
            self.relisting = false;
        }
        if applied.relist && !core::mem::replace(&mut self.relisting, true) {
            self.link.relist().await;
        }
        if applied.shown {
            shown.push(event);
        }
        (shown, applied.listed)
    }

    /// For pipes and programs, and for whoever wants to know once.
    async fn lines(mut self, mut end: start::End, args: Args, json: bool) -> Outcome {
        let say = |event: &Value| if json { out::json(event) } else { out::line(&line(event)) };
        loop {
            let heard = tokio::select! {
                () = end.told() => return Ok(Verdict::AllRight),
                heard = self.link.next() => heard,
            };
            match heard {
                Heard::Line(event) => {
                    let (shown, listed) = self.take(event).await;
                    if json || !args.once {
                        shown.iter().for_each(say);
                    }
                    if args.once && listed {
                        if !json {
                            out::text(&draw::plain(&self.model, &self.view, self.now()));
                        }
                        return Ok(Verdict::AllRight);
                    }
                }
                Heard::Away(failure) if args.reconnect => {
                    say(&json!({"event": "server-away", "error": failure.cause}));
                }
                Heard::Away(failure) => return Err(failure),
                Heard::StillAway(_) => {}
                Heard::Back(hello) => {
                    say(&json!({"event": "server-back", "server": hello["server"]}));
                    self.meet(&hello);
                }
            }
        }
    }

    fn meet(&mut self, hello: &Value) {
        self.model.meet(hello);
        self.relisting = false;
    }

    /// The live table.
    async fn table(mut self, mut end: start::End, reconnect: bool) -> Outcome {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Failure::start(format!("cannot listen for signals: {error}"), "try again"))
        };
        let mut hung_up = listen(SignalKind::hangup())?;
        let mut resized = listen(SignalKind::window_change())?;
        let mut continued = listen(SignalKind::from_raw(SIGCONT))?;
        let mut screen = Screen::enter().map_err(gone)?;
        let mut drawn = Drawn::default();
        let mut redraw = tokio::time::interval(DRAW_EVERY);
        redraw.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = end.told() => return Ok(Verdict::AllRight),
                () = came(&mut hung_up) => return Ok(Verdict::AllRight),
                () = came(&mut resized) => {
                    screen.forget().map_err(gone)?;
                    drawn = Drawn::default();
                }
                () = came(&mut continued) => {
                    screen.enter_again().map_err(gone)?;
                    drawn = Drawn::default();
                }
                keys = screen.keys() => {
                    for key in keys {
                        match drawn.press(key, &mut self.view) {
                            Pressed::Nothing => {}
                            Pressed::End => return Ok(Verdict::AllRight),
                            Pressed::Suspend => screen.suspend().map_err(gone)?,
                        }
                    }
                    drawn.at = None;
                }
                heard = self.link.next() => self.hear(heard, reconnect).await?,
                _ = redraw.tick() => self.draw(&mut screen, &mut drawn).map_err(gone)?,
            }
        }
    }

    async fn hear(&mut self, heard: Heard, reconnect: bool) -> Result<(), Failure> {
        match heard {
            Heard::Line(event) => drop(self.take(event).await),
            Heard::Away(failure) if reconnect => {
                let now = self.now();
                self.model.note(now, format!("{:<13} {}", "server-away", failure.cause));
                self.view.away = Some((now, failure.cause));
            }
            Heard::Away(failure) => return Err(failure),
            Heard::StillAway(failure) => {
                if let Some((_, why)) = &mut self.view.away {
                    *why = failure.cause;
                }
            }
            Heard::Back(hello) => {
                self.view.away = None;
                let now = self.now();
                self.model
                    .note(now, format!("{:<13} {}", "server-back", hello["server"].as_str().unwrap_or("?")));
                self.meet(&hello);
            }
        }
        Ok(())
    }

    /// Draws if something changed, or the ages did.
    fn draw(&self, screen: &mut Screen, drawn: &mut Drawn) -> std::io::Result<()> {
        let now = self.now();
        let due = drawn.at.is_none_or(|at| now.saturating_sub(at) >= TICK);
        if !due && drawn.version == self.model.version {
            return Ok(());
        }
        let frame = draw::frame(&self.model, &self.view, now, Screen::size());
        screen.show(&frame)?;
        *drawn = Drawn { at: Some(now), version: self.model.version, page: frame.page, rows: frame.rows };
        Ok(())
    }
}

/// The last picture.
#[derive(Debug, Default)]
struct Drawn {
    at: Option<Duration>,
    version: u64,
    page: usize,
    rows: usize,
}

/// What a key asks of the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pressed {
    Nothing,
    End,
    Suspend,
}

impl Drawn {
    fn press(&self, key: Key, view: &mut View) -> Pressed {
        match key {
            Key::Interrupt => return Pressed::End,
            Key::Suspend => return Pressed::Suspend,
            Key::Enter | Key::Escape | Key::Backspace | Key::Char(_) if view.typing => type_in(key, view),
            Key::Char('q') => return Pressed::End,
            Key::Char('/') => view.typing = true,
            Key::Escape => view.search.clear(),
            Key::Up | Key::Char('k') => view.first = view.first.saturating_sub(1),
            Key::Down | Key::Char('j') => view.first += 1,
            Key::PageUp => view.first = view.first.saturating_sub(self.page),
            Key::PageDown | Key::Char(' ') => view.first += self.page,
            Key::Home => view.first = 0,
            Key::End => view.first = self.rows,
            Key::Enter | Key::Backspace | Key::Char(_) => {}
        }
        view.first = view.first.min(self.rows.saturating_sub(self.page));
        Pressed::Nothing
    }
}

fn type_in(key: Key, view: &mut View) {
    match key {
        Key::Enter => view.typing = false,
        Key::Escape => {
            view.typing = false;
            view.search.clear();
        }
        Key::Backspace => drop(view.search.pop()),
        Key::Char(c) => view.search.extend(c.to_lowercase()),
        _ => {}
    }
    view.first = 0;
}

async fn came(signal: &mut Signal) {
    signal.recv().await;
}

fn gone(error: std::io::Error) -> Failure {
    Failure::broken(
        format!("the terminal cannot be written to: {error}"),
        "--json and pipes get lines instead",
    )
}

/// A table without borders, its heads in bold.
pub(crate) fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(heads.to_vec());
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_scroll_find_and_end() {
        let drawn = Drawn { page: 10, rows: 35, ..Drawn::default() };
        let mut view = View::default();
        let mut press = |key| (drawn.press(key, &mut view), view.first, view.search.clone());
        assert_eq!(press(Key::Up).1, 0);
        assert_eq!(press(Key::Down).1, 1);
        assert_eq!(press(Key::PageDown).1, 11);
        assert_eq!(press(Key::End).1, 25);
        assert_eq!(press(Key::PageDown).1, 25, "never past the last page");
        for c in "/Qü".chars() {
            press(Key::Char(c));
        }
        assert_eq!(press(Key::Enter), (Pressed::Nothing, 0, "qü".to_owned()));
        assert_eq!(press(Key::Escape).2, "");
        assert_eq!(press(Key::Suspend).0, Pressed::Suspend);
        assert_eq!(press(Key::Char('q')).0, Pressed::End);
        assert_eq!(press(Key::Interrupt).0, Pressed::End);
    }
}
