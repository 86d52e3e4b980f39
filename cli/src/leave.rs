//! `tillwire drain` and `tillwire takeover`: a server that leaves, and one that comes in its place.

use std::time::Duration;

use serde_json::{Value, json};

use crate::control::client::Client;
use crate::control::{Endpoint, endpoint};
use crate::error::{Failure, Outcome, Verdict};
use crate::out;

const DRAIN_EXAMPLES: &str = "\
Examples:
  tillwire drain
  tillwire drain --within 2

The server accepts and sends no order any more, tells its devices, waits until what they have begun has its outcome, and ends.
Orders in its outbox go on when it is started again; volatile ones that were never sent end with it.";

const TAKEOVER_EXAMPLES: &str = "\
Examples:
  tillwire takeover

From now on the devices obey this server and refuse the other one: after its goodbye at once, else 9 s after they heard of it last.
Two servers that take the store from each other in turn serve nobody: do it once, when the other one is gone for good. With
serve --state or --outbox the fence is kept, and the next start needs no takeover.";

/// Let a running server leave in peace, and wait until it has ended.
#[derive(clap::Args, Debug)]
#[command(after_help = DRAIN_EXAMPLES)]
pub(crate) struct DrainArgs {
    /// Seconds it waits at most for what is out, 0 to 5.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u8).range(..=5))]
    within: u8,
    /// Where the server is reached: a path, or a loopback IP:PORT. Default: the socket of this user.
    #[arg(long, value_name = "SOCKET", value_parser = endpoint)]
    control: Option<Endpoint>,
}

/// Let a running server take its store over from another one.
#[derive(clap::Args, Debug)]
#[command(after_help = TAKEOVER_EXAMPLES)]
pub(crate) struct TakeoverArgs {
    /// Where the server is reached: a path, or a loopback IP:PORT. Default: the socket of this user.
    #[arg(long, value_name = "SOCKET", value_parser = endpoint)]
    control: Option<Endpoint>,
}

/// Asks, and waits for the end of the connection, which is the server's.
pub(crate) async fn drain(args: DrainArgs, json: bool) -> Outcome {
    let mut client = Client::connect(args.control.as_ref()).await?;
    let within = Duration::from_secs(args.within.into());
    client.ask(&json!({"do": "drain", "within_ms": u64::from(args.within) * 1_000})).await?;
    say(&client.expect().await?, json, || format!("draining, {} s at most", within.as_secs()));
    if client.next().await?.is_some() {
        return Err(Failure::broken("the server says something else", "is it of the same version?"));
    }
    say(&json!({"event": "drained"}), json, || "the server has ended".to_owned());
    Ok(Verdict::AllRight)
}

/// Asks once.
pub(crate) async fn takeover(args: TakeoverArgs, json: bool) -> Outcome {
    let mut client = Client::connect(args.control.as_ref()).await?;
    client.ask(&json!({"do": "takeover"})).await?;
    let line = client.expect().await?;
    say(&line, json, || format!("taken over with fence {}", line["fence"]));
    if line["kept"] == false {
        out::warn("the server runs without --state and --outbox: its next start falls behind this fence");
    }
    Ok(Verdict::AllRight)
}

fn say(line: &Value, json: bool, people: impl FnOnce() -> String) {
    if json { out::json(line) } else { out::line(&people()) }
}
