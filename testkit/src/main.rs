//! The campaigns of testkit as commands.

use std::process::ExitCode;

const HELP: &str = "\
Usage: tillwire-testkit COMMAND …

  kill        kill a server and its devices while orders flow, and compare their ledgers with what was promised
  simulate    run whole stores in virtual time and check every promise after every step";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    match words.next().as_deref() {
        #[cfg(unix)]
        Some("kill") => testkit::kill::main(words),
        Some("simulate") => testkit::sim::main(words),
        _ => {
            eprintln!("{HELP}");
            ExitCode::from(2)
        }
    }
}
