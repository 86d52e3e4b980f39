//! How a command ends: exit codes, and errors in one line with their cause and a way out.

use std::process::ExitCode;

use clap::error::ErrorKind;

use crate::out;

/// What a command that ran to its end says about its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Done, and all as it should be: exit code 0.
    AllRight,
    /// Done, but something was not as it should be: exit code 1.
    NotRight,
}

impl Verdict {
    /// [`Verdict::AllRight`] if `ok`.
    pub(crate) const fn of(ok: bool) -> Self {
        if ok { Self::AllRight } else { Self::NotRight }
    }
}

/// Why a command did not do its work. Shown as `error: …` and, below it, `help: …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What went wrong and why, one line.
    pub(crate) cause: String,
    /// What to do about it, one line.
    pub(crate) help: String,
    /// Whether nothing was begun (exit code 2), or it broke on the way (exit code 1).
    pub(crate) not_started: bool,
}

/// What every command returns.
pub(crate) type Outcome = Result<Verdict, Failure>;

impl Failure {
    /// Usage, permission, a port in use, a bad file: nothing was begun.
    pub(crate) fn start(cause: impl Into<String>, help: impl Into<String>) -> Self {
        Self { cause: one_line(cause), help: one_line(help), not_started: true }
    }

    /// It had begun, and broke on the way.
    pub(crate) fn broken(cause: impl Into<String>, help: impl Into<String>) -> Self {
        Self { cause: one_line(cause), help: one_line(help), not_started: false }
    }
}

/// Line breaks become spaces: an error is one line, whoever worded it.
fn one_line(text: impl Into<String>) -> String {
    text.into().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Prints what there is to print and turns the result into an exit code.
pub(crate) fn finish(result: &Outcome, json: bool) -> ExitCode {
    match result {
        Ok(Verdict::AllRight) => ExitCode::SUCCESS,
        Ok(Verdict::NotRight) => ExitCode::from(1),
        Err(failure) => {
            out::error(&failure.cause, &failure.help);
            if json {
                out::json(&serde_json::json!({
                    "event": "error", "error": failure.cause, "help": failure.help
                }));
            }
            ExitCode::from(if failure.not_started { 2 } else { 1 })
        }
    }
}

/// A usage error in our form; help and version texts pass as they are.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        out::text(&error.render().ansi().to_string());
        return ExitCode::SUCCESS;
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        out::log(error.render().ansi().to_string().trim_end());
        return ExitCode::from(2);
    }
    let text = error.render().to_string();
    let (cause, help) = split_usage(&text);
    let json = std::env::args_os().any(|arg| arg == "--json");
    finish(&Err(Failure::start(cause, help)), json)
}

/// Clap's several lines: what comes before the usage is the cause, a `tip:` or the usage itself the help.
fn split_usage(text: &str) -> (String, String) {
    let body = text.split("\nUsage:").next().unwrap_or(text);
    let body = body.split("\nFor more information").next().unwrap_or(body);
    let (body, tip) = body.split_once("tip:").map_or((body, None), |(body, tip)| (body, Some(tip)));
    let cause = body.trim().trim_start_matches("error:").to_owned();
    let usage = text.split_once("Usage: ").map(|(_, rest)| rest.lines().next().unwrap_or(rest));
    let help = match (tip, usage) {
        (Some(tip), _) => tip.trim().to_owned(),
        (None, Some(usage)) => format!("usage: {usage}; more with --help"),
        (None, None) => "--help shows what is possible".to_owned(),
    };
    (cause, help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_and_carries_its_help() {
        let failure = Failure::start("a\n  b", "c\td");
        assert_eq!((failure.cause.as_str(), failure.help.as_str()), ("a b", "c d"));
    }

    #[test]
    fn usage_errors_come_apart() {
        let text = "error: the following required arguments were not provided:\n  --store <CODE>\n\n\
                    Usage: tillwire serve --store <CODE>\n\nFor more information, try '--help'.\n";
        let (cause, help) = split_usage(text);
        assert_eq!(one_line(cause), "the following required arguments were not provided: --store <CODE>");
        assert_eq!(help, "usage: tillwire serve --store <CODE>; more with --help");
        let text = "error: unexpected argument '--al' found\n\n  tip: a similar argument exists: '--all'\n\nUsage: x\n";
        assert_eq!(one_line(split_usage(text).0), "unexpected argument '--al' found");
        assert_eq!(split_usage(text).1, "a similar argument exists: '--all'");
        let text = "error: invalid value 'x'\n\nFor more information, try '--help'.\n";
        assert_eq!(one_line(split_usage(text).0), "invalid value 'x'");
    }
}
