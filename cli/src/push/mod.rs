//! `tillwire push`: an order through a running server, and the outcome of every device.

mod kinds;
mod payloads;
mod report;

use std::time::Duration;

use serde_json::Value;
use wire_format::frame::order::PAYLOAD_MAX;
use wire_format::ids::{Lane, OrderKind};

use crate::control::client::Client;
use crate::control::request::{ABORT_ABOVE, LIFETIME_S_MAX, Push, Quorum, STEP_WITHIN, Steps, quorum, steps};
use crate::control::{Endpoint, endpoint};
use crate::error::{Failure, Outcome, Verdict};
use crate::names::{self, To};
use crate::out;

use self::kinds::Order;
pub(crate) use self::payloads::milli;
pub(crate) use self::report::duration;

const EXAMPLES: &str = "\
Examples:
  tillwire push message \"Lane 3 please\" --to kind=till
  tillwire push show-page /promo --to kind=signage,zone=3 --lifetime 3600
  tillwire push price-list --list 1 --version 42 --currency EUR --change 4006381333931=129 --to all
  tillwire push print --file receipt.bin --format esc-pos --to id=6f9619ff
  tillwire push custom 0x8001 --hex 0102 --to tag=bakery --each
  tillwire push custom 0x8002 --payload-file layout.bin --to kind=signage --wait 60
  tillwire push show-page /promo --to all --quorum 95% --wait 5 --supersede-key page --supersede-version 7
  tillwire push refresh-content --to all --rollout 1,10,50,100 --abort-above 2% --step-within 600";

/// Push an order and wait for the outcome of every device.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    order: Order,
}

/// Whom, how, and how long to wait: the same for every kind.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Common {
    /// Whom: all, or kind=K, zone=Z, tag=T narrowing each other, or id=ID (8 digits or more).
    #[arg(long, value_name = "WHOM", value_parser = names::to)]
    to: To,
    /// Where the server is reached: a path, or a loopback IP:PORT. Default: the socket of this user.
    #[arg(long, value_name = "SOCKET", value_parser = endpoint)]
    control: Option<Endpoint>,
    /// The application's name for this deed: a second push under the same key is the first one, for seven days after its end;
    /// over restarts of the server too, if it keeps orders on disk. So is a second rollout, while the first one goes on or is
    /// among the last 16, if it is kept on disk; a volatile one is always new. Devices see the key beside the order's number.
    #[arg(long, value_name = "TEXT")]
    key: Option<String>,
    /// What the order is a version of: on each device it takes the place of older versions of the same thing.
    #[arg(long, value_name = "TEXT", requires = "supersede_version")]
    supersede_key: Option<String>,
    /// Which version; it rises from push to push.
    #[arg(long, value_name = "N", requires = "supersede_key")]
    supersede_version: Option<u64>,
    /// Seconds the order is worth delivering. Default: a day.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=LIFETIME_S_MAX))]
    lifetime: Option<u64>,
    /// Its priority: 0 urgent, 1 interactive, 2 normal, 3 bulk. Default: as the kind has it.
    #[arg(long, value_name = "N", value_parser = names::lane)]
    lane: Option<Lane>,
    /// Seconds to wait for the outcomes.
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = seconds)]
    wait: f64,
    /// It is enough if so many devices apply it: a number, or a share such as 95%. The wait ends with them, and when they
    /// cannot be reached any more.
    #[arg(long, value_name = "N|P%", value_parser = quorum)]
    quorum: Option<Quorum>,
    /// The order need not survive the server: it is not written to disk, and not waited for there. It goes out also while
    /// the disk is full or broken.
    #[arg(long)]
    volatile: bool,
    /// A line for each device, with its result.
    #[arg(long)]
    each: bool,
    /// A line for each outcome as it comes.
    #[arg(long)]
    stream: bool,
    /// To so many of a hundred devices first, then to more, as long as no step fails; each step is an order of its own. All
    /// devices are the last step, said or not.
    #[arg(long, value_name = "P,P,…", value_parser = rollout, conflicts_with_all = ["quorum", "stream", "supersede_key", "wait"])]
    rollout: Option<StepShares>,
    /// A rollout stops when more than this share of a step's devices fail: they ended otherwise than applied, duplicate or
    /// superseded. Those without an outcome do not count. Default: 5%.
    #[arg(long, value_name = "P%", value_parser = share, requires = "rollout")]
    abort_above: Option<u8>,
    /// Seconds each step waits for its outcomes. Default: 60.
    #[arg(long, value_name = "S", value_parser = seconds, requires = "rollout")]
    step_within: Option<f64>,
    /// Ask the devices for results. (A stock question always does.)
    #[arg(long)]
    results: bool,
}

/// The steps of a rollout in percent.
#[derive(Clone, Debug)]
struct StepShares(Vec<u8>);

fn rollout(text: &str) -> Result<StepShares, String> {
    // What is no number is no share.
    let shares = text.split(',').map(|step| step.trim().trim_end_matches('%').parse().unwrap_or(0));
    steps(&shares.collect::<Vec<u64>>()).map(StepShares)
}

fn share(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse().ok();
    number.filter(|percent| *percent <= 100).ok_or_else(|| "a share from 0% to 100%".to_owned())
}

impl Common {
    fn steps(&self) -> Option<Steps> {
        let StepShares(percents) = self.rollout.clone()?;
        Some(Steps {
            percents,
            abort_above: self.abort_above.unwrap_or(ABORT_ABOVE),
            within: self.step_within.map_or(STEP_WITHIN, Duration::from_secs_f64),
        })
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("seconds from 0 to 86400".to_owned()),
    }
}

/// Pushes; right only if every device, or as many as are enough, applied the order in time.
pub(crate) async fn run(args: Args, json: bool) -> Outcome {
    let (encoded, common) = args.order.encode()?;
    let rollout = common.steps();
    let request = Push {
        kind: encoded.kind,
        schema: encoded.schema,
        follow: if encoded.payload.len() > PAYLOAD_MAX { encoded.payload.len() } else { 0 },
        payload: encoded.payload,
        lane: common.lane.unwrap_or(encoded.lane),
        flags: encoded.flags,
        to: common.to,
        key: common.key,
        supersede: common.supersede_key.zip(common.supersede_version),
        lifetime: common.lifetime.map(Duration::from_secs),
        volatile: common.volatile,
        wait: Duration::from_secs_f64(common.wait),
        quorum: common.quorum,
        result: common.results || encoded.kind == OrderKind::STOCK_QUESTION,
        each: common.each || (encoded.kind == OrderKind::STOCK_QUESTION && !common.stream),
        stream: common.stream,
        rollout,
    };
    let mut end = crate::start::End::listen()?;
    let mut client = Client::connect(common.control.as_ref()).await?;
    client.ask(&request.json()).await?;
    if request.follow > 0 {
        client.send(&request.payload).await?;
    }
    let accepted = client.expect().await?;
    if !matches!(accepted["event"].as_str(), Some("accepted" | "rolling-out")) {
        return Err(Failure::broken(format!("the server answered {accepted}"), "is it of the same version?"));
    }
    if json {
        out::json(&accepted);
    }
    loop {
        tokio::select! {
            line = client.expect() => {
                let line = line?;
                if line["event"] == "summary" {
                    return Ok(finish(&line, json));
                }
                if json { out::json(&line) } else { out::line(&report::line(&line)) }
            }
            () = end.told() => return Err(interrupted(&accepted)),
        }
    }
}

fn interrupted(accepted: &Value) -> Failure {
    let what = match &accepted["order"] {
        Value::Null => "the rollout ends with the step that is under way".to_owned(),
        order if accepted["durable"] == true => {
            format!("order {order} is on its way all the same, also over a restart of the server")
        }
        order => format!("order {order} is on its way all the same"),
    };
    Failure::broken(format!("interrupted; {what}"), "its outcomes are in the server's counters only")
}

fn finish(summary: &Value, json: bool) -> Verdict {
    if json {
        out::json(summary)
    } else {
        out::text(&report::summary(summary))
    }
    Verdict::of(summary["ok"] == true)
}
