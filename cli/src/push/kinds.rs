//! One subcommand per order kind, with the words of its payload.

use std::path::PathBuf;

use clap::Subcommand;
use wire_format::ids::NodeId;

use super::Common;
use super::payloads::Encoded;
use crate::error::Failure;
use crate::names;

/// The kinds of orders.
#[derive(Subcommand, Debug)]
pub(crate) enum Order {
    /// Fetch the content again, each device at a moment of its own.
    RefreshContent(RefreshContentArgs),
    /// Show a page.
    ShowPage(ShowPageArgs),
    /// A message to the staff at the device.
    Message(MessageArgs),
    /// Restart the application (not the device).
    RestartApp(RestartAppArgs),
    /// Fetch and install firmware.
    UpdateFirmware(UpdateFirmwareArgs),
    /// Print a document: a file or a text inside the order, or a URL.
    Print(PrintArgs),
    /// Take over prices.
    PriceList(PriceListArgs),
    /// Prepare what a customer will collect.
    PrepareCollect(PrepareCollectArgs),
    /// Take over a customer's cart from another device. Never put card data into it.
    TransferCart(TransferCartArgs),
    /// Ask how many of an article are there, and show what each device answers.
    StockQuestion(StockQuestionArgs),
    /// An order kind of the integrator's, with a payload as it stands.
    Custom(CustomArgs),
}

impl Order {
    /// The payload, and what is common to all kinds.
    pub(super) fn encode(self) -> Result<(Encoded, Common), Failure> {
        match self {
            Self::RefreshContent(args) => Ok((args.encode()?, args.common)),
            Self::ShowPage(args) => Ok((args.encode()?, args.common)),
            Self::Message(args) => Ok((args.encode()?, args.common)),
            Self::RestartApp(args) => Ok((args.encode()?, args.common)),
            Self::UpdateFirmware(args) => Ok((args.encode()?, args.common)),
            Self::Print(args) => Ok((args.encode()?, args.common)),
            Self::PriceList(args) => Ok((args.encode()?, args.common)),
            Self::PrepareCollect(args) => Ok((args.encode()?, args.common)),
            Self::TransferCart(args) => Ok((args.encode()?, args.common)),
            Self::StockQuestion(args) => Ok((args.encode()?, args.common)),
            Self::Custom(args) => Ok((args.encode()?, args.common)),
        }
    }
}

/// `push refresh-content`.
#[derive(clap::Args, Debug)]
pub(crate) struct RefreshContentArgs {
    /// Which content.
    #[arg(long, value_enum, default_value = "everything")]
    pub(super) content: ContentArg,
    /// The revision to reach; 0 is the newest.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) revision: u64,
    /// Seconds over which the devices spread their fetching.
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(super) within: u32,
    /// Fetch from here instead of the store server.
    #[arg(long, value_name = "URL")]
    pub(super) origin: Option<String>,
    #[command(flatten)]
    pub(super) common: Common,
}

/// `push show-page`.
#[derive(clap::Args, Debug)]
pub(crate) struct ShowPageArgs {
    /// The page's name in the device's content.
    pub(super) page: String,
    /// Which screen of the device.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) screen: u32,
    /// Seconds to show it; until the next order if not said.
    #[arg(long, value_name = "S")]
    pub(super) duration: Option<u32>,
    #[command(flatten)]
    pub(super) common: Common,
}

/// `push message`.
#[derive(clap::Args, Debug)]
pub(crate) struct MessageArgs {
    /// What to read.
    pub(super) text: String,
    /// A headline.
    #[arg(long, default_value = "")]
    pub(super) title: String,
    /// How much it matters.
    #[arg(long, value_enum, default_value = "information")]
    pub(super) severity: SeverityArg,
    /// It stays until somebody confirms it.
    #[arg(long)]
    pub(super) confirm: bool,
    /// Seconds it stays otherwise.
    #[arg(long, value_name = "S")]
    pub(super) duration: Option<u32>,
    /// Its number: one with the number of a message that is shown takes its place. Default: a random one.
    #[arg(long, value_name = "N")]
    pub(super) number: Option<u64>,
    #[command(flatten)]
    pub(super) common: Common,
}

/// `push restart-app`.
#[derive(clap::Args, Debug)]
pub(crate) struct RestartAppArgs {
    /// Now, instead of when no customer is being served.
    #[arg(long)]
    pub(super) now: bool,
    /// Seconds over which the devices spread it.
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(super) within: u32,
    /// For the log.
    #[arg(long, default_value = "")]
    pub(super) reason: String,
    #[command(flatten)]
    pub(super) common: Common,
}

/// `push update-firmware`.
#[derive(clap::Args, Debug)]
pub(crate) struct UpdateFirmwareArgs {
    /// The version the image holds.
    pub(super) version: String,
    #[command(flatten)]
    pub(super) image: FetchArgs,
    /// Seconds before which the installation may not start.
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(super) start_after: u32,
    /// Seconds after that over which the devices spread their start.
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(super) start_within: u32,
    #[command(flatten)]
    pub(super) common: Common,
}

/// `push print`.
#[derive(clap::Args, Debug)]
pub(crate) struct PrintArgs {
    /// A file of at most 32,768 bytes, sent inside the order.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["text", "url"])]
    pub(super) file: Option<PathBuf>,
    /// A text, sent inside the order.
    #[arg(long, conflicts_with = "url")]
    pub(super) text: Option<String>,
    #[command(flatten)]
    pub(super) fetch: MaybeFetchArgs,
    /// What the document's bytes are.
    #[arg(long, value_enum, default_value = "text")]
    pub(super) format: FormatArg,
    /// How many.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) copies: u32,
    /// The job's number. Default: a random one.
    #[arg(long, value_name = "N")]
    pub(super) job: Option<u64>,
    #[command(flatten)]
    pub(super) common: Common,
}

/// `push price-list`.
#[derive(clap::Args, Debug)]
pub(crate) struct PriceListArgs {
    /// Which list.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) list: u64,
    /// Its version, which rises with every change.
    #[arg(long, value_name = "N")]
    pub(super) version: u64,
    /// The version the changes apply to; none if the list stands for itself.
    #[arg(long, value_name = "N")]
    pub(super) base: Option<u64>,
    /// When it begins to hold, in seconds since 1970 (UTC); at once if not said.
    #[arg(long, value_name = "UNIX_S")]
    pub(super) valid_from: Option<u64>,
    /// ISO 4217.
    #[arg(long, value_name = "CUR", default_value = "EUR")]
    pub(super) currency: String,
    /// A price in the smallest unit, per piece, kilogram, litre or metre; may be given up to 1,024 times.
    #[arg(long = "change", value_name = "ARTICLE=PRICE[/UNIT]", value_parser = super::payloads::change)]
    pub(super) changes: Vec<wire_format::payload::PriceChange>,
    #[command(flatten)]
    pub(super) rest: MaybeFetchArgs,
    #[command(flatten)]
    pub(super) common: Common,
}

/// `push prepare-collect`.
#[derive(clap::Args, Debug)]
pub(crate) struct PrepareCollectArgs {
    /// The number of the customer's order.
    pub(super) collect: u64,
    /// What to call the customer.
    #[arg(long, default_value = "")]
    pub(super) customer: String,
    /// counter, locker=N or kerbside=BAY.
    #[arg(long, default_value = "counter", value_parser = super::payloads::handover)]
    pub(super) handover: HandoverArg,
    /// Seconds until it must be ready; as soon as possible if not said.
    #[arg(long, value_name = "S")]
    pub(super) due: Option<u32>,
    /// Nothing is to be paid at the handover.
    #[arg(long)]
    pub(super) paid: bool,
    /// An article and how many (up to three decimals); may be given up to 64 times.
    #[arg(long = "line", value_name = "ARTICLE=QUANTITY[:NAME]", required = true, value_parser = super::payloads::line)]
    pub(super) lines: Vec<LineArg>,
    /// For whoever prepares it.
    #[arg(long, default_value = "")]
    pub(super) note: String,
    #[command(flatten)]
    pub(super) common: Common,
}

/// `push transfer-cart`.
#[derive(clap::Args, Debug)]
pub(crate) struct TransferCartArgs {
    /// Which cart: 32 hexadecimal digits.
    #[arg(value_parser = names::node_id)]
    pub(super) cart: NodeId,
    /// Its revision.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) revision: u64,
    /// The device that has it now.
    #[arg(long, value_name = "ID", value_parser = names::node_id)]
    pub(super) from: Option<NodeId>,
    /// ISO 4217.
    #[arg(long, value_name = "CUR", default_value = "EUR")]
    pub(super) currency: String,
    /// An article, how many, and what the line costs in the smallest unit; may be given up to 256 times.
    #[arg(long = "line", value_name = "ARTICLE=QUANTITY@AMOUNT[:NAME]", value_parser = super::payloads::cart_line)]
    pub(super) lines: Vec<CartLineArg>,
    #[command(flatten)]
    pub(super) common: Common,
}

/// `push stock-question`.
#[derive(clap::Args, Debug)]
pub(crate) struct StockQuestionArgs {
    /// The article's number.
    pub(super) article: u64,
    /// Where to look; everywhere if not said.
    #[arg(long, default_value = "")]
    pub(super) place: String,
    #[command(flatten)]
    pub(super) common: Common,
}

/// `push custom`.
#[derive(clap::Args, Debug)]
pub(crate) struct CustomArgs {
    /// The kind's number, 0x8000 and above (or any other, to test how devices refuse it).
    #[arg(value_parser = names::order_kind)]
    pub(super) kind: wire_format::ids::OrderKind,
    /// The payload in hexadecimal digits.
    #[arg(long, conflicts_with_all = ["file", "text"])]
    pub(super) hex: Option<String>,
    /// The payload is this file's bytes, at most 8,388,608 of them. More than 65,536 go in pieces on lane 3 (bulk), behind
    /// everything else, and go on after a cut.
    #[arg(long, visible_alias = "payload-file", value_name = "FILE", conflicts_with = "text")]
    pub(super) file: Option<PathBuf>,
    /// The payload is this text.
    #[arg(long)]
    pub(super) text: Option<String>,
    /// The version of the payload's encoding.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) schema: u16,
    /// Applying it twice does what applying it once does.
    #[arg(long)]
    pub(super) idempotent: bool,
    /// Worthless once its lifetime is in doubt.
    #[arg(long)]
    pub(super) perishable: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

/// Where something large is, and how to know it arrived whole.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct FetchArgs {
    /// Where the devices fetch it.
    #[arg(long, value_name = "URL")]
    pub(super) url: String,
    /// The file behind the URL: its size and digest are taken from here.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["size", "sha256"])]
    pub(super) of: Option<PathBuf>,
    /// Bytes it has.
    #[arg(long, value_name = "BYTES")]
    pub(super) size: Option<u64>,
    /// SHA-256 of its bytes, 64 hexadecimal digits.
    #[arg(long, value_name = "HEX")]
    pub(super) sha256: Option<String>,
}

/// The same, if it is somewhere else at all.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct MaybeFetchArgs {
    /// Where the devices fetch it.
    #[arg(long, value_name = "URL")]
    pub(super) url: Option<String>,
    /// The file behind the URL: its size and digest are taken from here.
    #[arg(long, value_name = "FILE", requires = "url", conflicts_with_all = ["size", "sha256"])]
    pub(super) of: Option<PathBuf>,
    /// Bytes it has.
    #[arg(long, value_name = "BYTES", requires = "url")]
    pub(super) size: Option<u64>,
    /// SHA-256 of its bytes, 64 hexadecimal digits.
    #[arg(long, value_name = "HEX", requires = "url")]
    pub(super) sha256: Option<String>,
}

impl MaybeFetchArgs {
    pub(super) fn given(&self) -> Option<FetchArgs> {
        let Self { url, of, size, sha256 } = self.clone();
        url.map(|url| FetchArgs { url, of, size, sha256 })
    }
}

/// Which content.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub(crate) enum ContentArg {
    Everything,
    Catalogue,
    Media,
    Layout,
    Configuration,
}

/// How much a message matters.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub(crate) enum SeverityArg {
    Information,
    Warning,
    Alarm,
}

/// What a document's bytes are.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub(crate) enum FormatArg {
    Text,
    EscPos,
    Pdf,
    Png,
}

/// Where a customer gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HandoverArg {
    Counter,
    Locker(u32),
    Kerbside(String),
}

/// One article to prepare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LineArg {
    pub(super) article: u64,
    pub(super) quantity_milli: u32,
    pub(super) name: String,
}

/// One line of a cart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CartLineArg {
    pub(super) line: LineArg,
    pub(super) amount_minor: i64,
}
