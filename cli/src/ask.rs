//! `tillwire ask`: a live question to devices, answered now or not at all.

use std::time::Duration;

use clap::Subcommand;
use serde_json::Value;
use wire_format::ids::OrderKind;
use wire_format::payload::{Payload, StockQuestion};

use crate::control::client::Client;
use crate::control::request::{ASK_WITHIN_MS_MAX, Ask, unhex};
use crate::control::{Endpoint, endpoint};
use crate::error::{Failure, Outcome, Verdict};
use crate::names::{self, To};
use crate::{out, stock};

const EXAMPLES: &str = "\
Examples:
  tillwire ask stock 4006381333931 --to kind=till
  tillwire ask custom 0x8001 --hex 0102 --to id=6f9619ff --within 5";

/// Ask devices that are connected, and show what each answers. Nothing is repeated, and nothing waits for who is not there.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    question: Question,
}

#[derive(Subcommand, Debug)]
enum Question {
    /// How many of an article it has.
    Stock {
        /// The article's number.
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        article: u64,
        /// Where to look; everywhere if not said.
        #[arg(long, default_value = "")]
        place: String,
        #[command(flatten)]
        common: Common,
    },
    /// A question of the integrator's.
    Custom {
        /// The kind's number.
        #[arg(value_parser = names::order_kind)]
        kind: OrderKind,
        /// The payload in hexadecimal digits, at most 4,096 bytes.
        #[arg(long, default_value = "")]
        hex: String,
        /// The version of the payload's encoding.
        #[arg(long, value_name = "N", default_value_t = 0)]
        schema: u16,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(clap::Args, Clone, Debug)]
struct Common {
    /// Whom: all, or kind=K, zone=Z, tag=T narrowing each other, or id=ID (8 digits or more).
    #[arg(long, value_name = "WHOM", value_parser = names::to)]
    to: To,
    /// Seconds to wait for each answer, at most 60.
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = seconds)]
    within: f64,
    /// Where the server is reached: a path, or a loopback IP:PORT. Default: the socket of this user.
    #[arg(long, value_name = "SOCKET", value_parser = endpoint)]
    control: Option<Endpoint>,
}

fn seconds(text: &str) -> Result<f64, String> {
    #[expect(clippy::cast_precision_loss, reason = "60,000")]
    let most = ASK_WITHIN_MS_MAX as f64 / 1_000.0;
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=most).contains(&seconds) => Ok(seconds),
        _ => Err(format!("seconds from 0.001 to {most}")),
    }
}

impl Question {
    fn encode(self) -> Result<(Ask, Option<Endpoint>), Failure> {
        let (kind, schema, payload, common) = match self {
            Self::Stock { article, place, common } => {
                let mut buffer = [0; StockQuestion::LEN_MAX];
                let len = StockQuestion { article, place: &place }.encode(&mut buffer);
                let len =
                    len.map_err(|error| Failure::start(error.to_string(), "see tillwire ask stock --help"))?;
                let payload = buffer.get(..len).unwrap_or_default().to_vec();
                (OrderKind::STOCK_QUESTION, StockQuestion::SCHEMA, payload, common)
            }
            Self::Custom { kind, hex, schema, common } => {
                let payload =
                    unhex(&hex).map_err(|error| Failure::start(error, "see tillwire ask custom --help"))?;
                (kind, schema, payload, common)
            }
        };
        let within = Duration::from_secs_f64(common.within);
        Ok((Ask { kind, schema, payload, to: common.to, within }, common.control))
    }
}

/// Asks; right only if every device answered.
pub(crate) async fn run(args: Args, json: bool) -> Outcome {
    let (request, control) = args.question.encode()?;
    let mut client = Client::connect(control.as_ref()).await?;
    client.ask(&request.json()).await?;
    loop {
        let line = client.expect().await?;
        let summary = line["event"] == "summary";
        if json {
            out::json(&line);
        } else if summary {
            out::line(&format!("{} of {} answered", line["answered"], line["asked"]));
        } else {
            out::line(&people(&line));
        }
        if summary {
            return Ok(Verdict::of(line["ok"] == true));
        }
    }
}

fn people(line: &Value) -> String {
    let text = |name: &str| line[name].as_str().unwrap_or_default();
    let said = match (&line["stock"], text("payload"), text("error")) {
        (answer @ Value::Object(_), ..) => stock::people(answer),
        (_, "", "") => text("code").to_owned(),
        (_, payload, "") => format!("{}, {payload}", text("code")),
        (.., error) => format!("no answer: {error}"),
    };
    format!("{:<32}  {said}", text("device"))
}
