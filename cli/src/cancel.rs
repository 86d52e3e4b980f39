//! `tillwire cancel`: an order that is not wanted any more.

use serde_json::json;

use crate::control::client::Client;
use crate::control::{Endpoint, endpoint};
use crate::error::{Outcome, Verdict};
use crate::out;

const EXAMPLES: &str = "\
Examples:
  tillwire cancel 17

The order ends as cancelled on every device that has not begun it; what a device has begun ends with what comes of it. The
push that waits for its outcomes shows both. A rollout, by the number that push and status show, takes no further step; what was
pushed of it goes on.";

/// Cancel an order that is on its way.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The order's number, as push shows it; or a rollout's.
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    order: u64,
    /// Where the server is reached: a path, or a loopback IP:PORT. Default: the socket of this user.
    #[arg(long, value_name = "SOCKET", value_parser = endpoint)]
    control: Option<Endpoint>,
}

/// Asks once; an order that is not on its way is an error.
pub(crate) async fn run(args: Args, json: bool) -> Outcome {
    let mut client = Client::connect(args.control.as_ref()).await?;
    client.ask(&json!({"do": "cancel", "order": args.order})).await?;
    let line = client.expect().await?;
    if json {
        out::json(&line);
    } else if line["event"] == "stopping" {
        let steps = line["orders"].as_array().map_or(0, Vec::len);
        out::line(&format!("rollout {} takes no further step; it had taken {steps}", args.order));
    } else {
        let (targets, ended) = (&line["targets"], &line["ended"]);
        out::line(&format!("cancelling order {}; it had ended on {ended} of {targets} devices", args.order));
    }
    Ok(Verdict::AllRight)
}
