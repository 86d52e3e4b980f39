//! The devices of a large demo in processes of their own: one process has too few descriptors for thousands.
//!
//! The parent speaks through stdin, the child through stdout, a line each:
//!
//! | parent | child |
//! | --- | --- |
//! | | `{"event":"ready","devices":n}` once all listen, or `{"event":"error",…}` |
//! | `report` | `{"event":"seen","device":i,"orders":[[number,digest,code],…]}` for each, then `{"event":"end"}` |
//! | end of input | says goodbye and ends; so it ends with the parent, however that ends |

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::farm::{Farm, Part, Record, Seen};
use crate::error::{Failure, Outcome, Verdict};
use crate::{out, start};

/// How long the devices of a process may take to say what they saw, or to say goodbye.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// The hidden command.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    part: Part,
}

/// The child's side.
pub(crate) async fn run(args: Args) -> Outcome {
    start::raise_open_files();
    // Ctrl-C in a terminal reaches the whole group; the parent decides when this ends.
    let _deaf = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt());
    let farm = match Farm::start(args.part).await {
        Ok(farm) => farm,
        Err(failure) => {
            out::json(&json!({"event": "error", "error": failure.cause, "help": failure.help}));
            return Ok(Verdict::NotRight);
        }
    };
    out::json(&json!({"event": "ready", "devices": args.part.count}));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if line == "report" {
            report(&farm);
        }
    }
    farm.shutdown().await;
    Ok(Verdict::AllRight)
}

fn report(farm: &Farm) {
    for (device, seen) in farm.seen() {
        let orders: Vec<_> = seen.iter().map(|seen| json!([seen.order, seen.digest, seen.code])).collect();
        out::json(&json!({"event": "seen", "device": device, "orders": orders}));
    }
    out::json(&json!({"event": "end"}));
}

/// The parent's side: a running child. Killed if it is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts a child for `part` of the devices.
    pub(crate) fn start(part: Part) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(|error| cannot(&error))?;
        let mut child = Command::new(program)
            .arg("demo-devices")
            .args(["--first", &part.first.to_string(), "--count", &part.count.to_string()])
            .args(["--seed", &part.seed.to_string()])
            .args(["--port-discovery", &part.port_discovery.to_string()])
            .args(["--port-push", &part.port_push.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| cannot(&error))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or_else(|| lost("it has no output"))?;
        Ok(Self { child, stdin, lines: BufReader::new(stdout).lines() })
    }

    /// Waits until all its devices listen.
    pub(crate) async fn ready(&mut self) -> Result<(), Failure> {
        let line = self.next().await?;
        match line["event"].as_str() {
            Some("ready") => Ok(()),
            Some("error") => Err(Failure::start(
                line["error"].as_str().unwrap_or_default(),
                line["help"].as_str().unwrap_or_default(),
            )),
            _ => Err(lost(&format!("it said {line}"))),
        }
    }

    /// What its devices saw.
    pub(crate) async fn seen(&mut self) -> Result<Vec<Record>, Failure> {
        let seen = tokio::time::timeout(ANSWER_WITHIN, self.ask_seen()).await;
        seen.unwrap_or_else(|_| Err(lost(&format!("it has not answered for {} s", ANSWER_WITHIN.as_secs()))))
    }

    async fn ask_seen(&mut self) -> Result<Vec<Record>, Failure> {
        let stdin = self.stdin.as_mut().ok_or_else(|| lost("it was told to end"))?;
        stdin.write_all(b"report\n").await.map_err(|error| lost(&error.to_string()))?;
        let mut records = Vec::new();
        loop {
            let line = self.next().await?;
            if line["event"] == "end" {
                return Ok(records);
            }
            records.push(record(&line).ok_or_else(|| lost(&format!("it said {line}")))?);
        }
    }

    async fn next(&mut self) -> Result<Value, Failure> {
        match self.lines.next_line().await {
            Ok(Some(line)) => serde_json::from_str(&line).map_err(|error| lost(&error.to_string())),
            Ok(None) => Err(lost("it ended")),
            Err(error) => Err(lost(&error.to_string())),
        }
    }

    /// Tells it to end and waits; one that does not end is killed.
    pub(crate) async fn shutdown(mut self) {
        drop(self.stdin.take());
        let _ = tokio::time::timeout(ANSWER_WITHIN, self.child.wait()).await;
    }
}

fn record(line: &Value) -> Option<Record> {
    let device = u32::try_from(line["device"].as_u64()?).ok()?;
    let seen = line["orders"].as_array()?.iter().map(|entry| {
        let number = |at: usize| entry.get(at).and_then(Value::as_u64);
        let digest = u32::try_from(number(1)?).ok()?;
        Some(Seen { order: number(0)?, digest, code: u8::try_from(number(2)?).ok()? })
    });
    Some((device, seen.collect::<Option<_>>()?))
}

fn cannot(error: &std::io::Error) -> Failure {
    Failure::start(
        format!("cannot start a process for the devices: {error}"),
        "fewer --devices run inside one process: up to 500",
    )
}

fn lost(why: &str) -> Failure {
    Failure::broken(
        format!("a process with devices was lost: {why}"),
        "is memory or the limit on open files short?",
    )
}
