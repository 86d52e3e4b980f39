//! From the words of the command line to the bytes of a payload.

use std::path::Path;

use sha2::{Digest, Sha256};
use wire_format::error::EmitError;
use wire_format::frame::order::{KindFlags, PAYLOAD_MAX};
use wire_format::frame::part::BLOB_MAX;
use wire_format::ids::{Lane, NodeId, OrderKind};
use wire_format::payload::{
    CartLine, CollectLine, Content, Document, Fetch, Format, Handover, List, Message, Payload,
    PrepareCollect, PriceChange, PriceList, Print, RefreshContent, RestartApp, Severity, ShowPage,
    StockQuestion, TransferCart, Unit, UpdateFirmware, When,
};

use super::kinds::{
    CartLineArg, ContentArg, CustomArgs, FetchArgs, FormatArg, HandoverArg, LineArg, MessageArgs,
    PrepareCollectArgs, PriceListArgs, PrintArgs, RefreshContentArgs, RestartAppArgs, SeverityArg,
    ShowPageArgs, StockQuestionArgs, TransferCartArgs, UpdateFirmwareArgs,
};
use crate::control::request::unhex;
use crate::error::Failure;

/// An order's payload and what its kind says about it.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) kind: OrderKind,
    pub(super) schema: u16,
    pub(super) lane: Lane,
    pub(super) flags: KindFlags,
    pub(super) payload: Vec<u8>,
}

impl Encoded {
    fn typed<'a, P: Payload<'a>>(payload: &P) -> Result<Self, Failure> {
        let mut buffer = vec![0; P::LEN_MAX.min(PAYLOAD_MAX)];
        let len = payload.encode(&mut buffer).map_err(|error| wrong(&error))?;
        buffer.truncate(len);
        Ok(Self { kind: P::KIND, schema: P::SCHEMA, lane: P::LANE, flags: P::FLAGS, payload: buffer })
    }
}

fn wrong(error: &EmitError) -> Failure {
    Failure::start(
        format!("the order cannot be encoded: {error}"),
        "docs/PROTOCOL.md has the limits of every payload",
    )
}

impl RefreshContentArgs {
    pub(super) fn encode(&self) -> Result<Encoded, Failure> {
        Encoded::typed(&RefreshContent {
            content: self.content.into(),
            revision: self.revision,
            within_s: self.within,
            origin: self.origin.as_deref(),
        })
    }
}

impl ShowPageArgs {
    pub(super) fn encode(&self) -> Result<Encoded, Failure> {
        Encoded::typed(&ShowPage { page: &self.page, screen: self.screen, duration_s: self.duration })
    }
}

impl MessageArgs {
    pub(super) fn encode(&self) -> Result<Encoded, Failure> {
        Encoded::typed(&Message {
            id: self.number.unwrap_or_else(random),
            severity: self.severity.into(),
            title: &self.title,
            text: &self.text,
            confirm: self.confirm,
            duration_s: self.duration,
        })
    }
}

impl RestartAppArgs {
    pub(super) fn encode(&self) -> Result<Encoded, Failure> {
        let when = if self.now { When::Now } else { When::Idle };
        Encoded::typed(&RestartApp { when, within_s: self.within, reason: &self.reason })
    }
}

impl UpdateFirmwareArgs {
    pub(super) fn encode(&self) -> Result<Encoded, Failure> {
        Encoded::typed(&UpdateFirmware {
            version: &self.version,
            image: fetch(&self.image)?,
            start_after_s: self.start_after,
            start_within_s: self.start_within,
        })
    }
}

impl PrintArgs {
    pub(super) fn encode(&self) -> Result<Encoded, Failure> {
        let bytes;
        let document = match (self.fetch.given(), &self.file, &self.text) {
            (Some(args), ..) => return self.print(Document::Fetch(fetch(&args)?)),
            (None, Some(file), _) => {
                bytes = read(file, Print::INLINE_MAX)?;
                Document::Inline(&bytes)
            }
            (None, None, Some(text)) => Document::Inline(text.as_bytes()),
            _ => return Err(Failure::start("there is nothing to print", "give --file, --text or --url")),
        };
        self.print(document)
    }

    fn print(&self, document: Document<'_>) -> Result<Encoded, Failure> {
        let (job, format) = (self.job.unwrap_or_else(random), self.format.into());
        Encoded::typed(&Print { job, format, copies: self.copies, document })
    }
}

impl PriceListArgs {
    pub(super) fn encode(&self) -> Result<Encoded, Failure> {
        let rest = self.rest.given();
        Encoded::typed(&PriceList {
            list: self.list,
            version: self.version,
            base: self.base,
            valid_from_unix_s: self.valid_from,
            currency: currency_of(&self.currency)?,
            changes: List::new(&self.changes),
            rest: rest.as_ref().map(fetch).transpose()?,
        })
    }
}

impl PrepareCollectArgs {
    pub(super) fn encode(&self) -> Result<Encoded, Failure> {
        let lines: Vec<_> = self.lines.iter().map(collect_line).collect();
        Encoded::typed(&PrepareCollect {
            collect: self.collect,
            customer: &self.customer,
            handover: match &self.handover {
                HandoverArg::Counter => Handover::Counter,
                HandoverArg::Locker(number) => Handover::Locker(*number),
                HandoverArg::Kerbside(bay) => Handover::Kerbside(bay),
            },
            due_in_s: self.due,
            paid: self.paid,
            lines: List::new(&lines),
            note: &self.note,
        })
    }
}

impl TransferCartArgs {
    pub(super) fn encode(&self) -> Result<Encoded, Failure> {
        let lines: Vec<_> = self.lines.iter().map(cart_line_of).collect();
        Encoded::typed(&TransferCart {
            cart: self.cart.0,
            revision: self.revision,
            from: self.from.unwrap_or(NodeId::NONE),
            currency: currency_of(&self.currency)?,
            lines: List::new(&lines),
            total_minor: self.lines.iter().fold(0, |sum, line| line.amount_minor.saturating_add(sum)),
        })
    }
}

impl StockQuestionArgs {
    pub(super) fn encode(&self) -> Result<Encoded, Failure> {
        Encoded::typed(&StockQuestion { article: self.article, place: &self.place })
    }
}

impl CustomArgs {
    pub(super) fn encode(&self) -> Result<Encoded, Failure> {
        let payload = match (&self.hex, &self.file, &self.text) {
            (Some(hex), ..) => unhex(hex).map_err(|why| Failure::start(why, "for instance --hex 0a1b2c"))?,
            (_, Some(file), _) => read(file, BLOB_MAX as usize)?,
            (.., text) => text.clone().unwrap_or_default().into_bytes(),
        };
        let flag = |on, flag| if on { flag } else { KindFlags::NONE };
        let flags =
            flag(self.idempotent, KindFlags::IDEMPOTENT).with(flag(self.perishable, KindFlags::PERISHABLE));
        Ok(Encoded { kind: self.kind, schema: self.schema, lane: Lane::Normal, flags, payload })
    }
}

fn collect_line(line: &LineArg) -> CollectLine<'_> {
    CollectLine {
        article: line.article,
        quantity_milli: line.quantity_milli,
        name: &line.name,
        substitute: false,
    }
}

fn cart_line_of(arg: &CartLineArg) -> CartLine<'_> {
    let LineArg { article, quantity_milli, ref name } = arg.line;
    CartLine { article, quantity_milli, amount_minor: arg.amount_minor, name }
}

/// A number nobody else has: the hasher keys of this process are drawn from the system's randomness. Never 0.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish() | 1
}

fn read(path: &Path, limit: usize) -> Result<Vec<u8>, Failure> {
    let bytes = std::fs::read(path).map_err(|error| {
        Failure::start(format!("cannot read {}: {error}", path.display()), "give a file this user may read")
    })?;
    if bytes.len() > limit {
        return Err(Failure::start(
            format!("{} has {} bytes, and {limit} fit into this order", path.display(), bytes.len()),
            "put it on the server's HTTP service and send its --url",
        ));
    }
    Ok(bytes)
}

/// Where to fetch, with size and digest taken from the file or as they were said.
fn fetch(args: &FetchArgs) -> Result<Fetch<'_>, Failure> {
    let (size, sha256) = match (&args.of, args.size, &args.sha256) {
        (Some(path), ..) => measure(path)?,
        (None, Some(size), Some(sha256)) => {
            let digest = unhex(sha256).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
            let digest = digest.ok_or_else(|| {
                Failure::start("--sha256 is 64 hexadecimal digits", "sha256sum FILE prints them")
            })?;
            (size, digest)
        }
        _ => {
            return Err(Failure::start(
                "a device checks size and digest of what it fetches, and they are not given",
                "give the file behind the URL with --of FILE, or --size and --sha256",
            ));
        }
    };
    Ok(Fetch { url: &args.url, size, sha256 })
}

fn measure(path: &Path) -> Result<(u64, [u8; 32]), Failure> {
    let cannot = |error: std::io::Error| {
        Failure::start(format!("cannot read {}: {error}", path.display()), "give a file this user may read")
    };
    let mut file = std::fs::File::open(path).map_err(cannot)?;
    let mut digest = Digested(Sha256::new());
    let size = std::io::copy(&mut file, &mut digest).map_err(cannot)?;
    Ok((size, digest.0.finalize().into()))
}

/// Bytes written to it are digested.
struct Digested(Sha256);

impl std::io::Write for Digested {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn currency_of(text: &str) -> Result<[u8; 3], Failure> {
    text.as_bytes().try_into().map_err(|_| {
        Failure::start(format!("{text:?} is no currency"), "three capital letters, as ISO 4217 has them")
    })
}

/// `ARTICLE=PRICE[/UNIT]`; as a value parser.
pub(super) fn change(text: &str) -> Result<PriceChange, String> {
    let form =
        || "a change is ARTICLE=PRICE or ARTICLE=PRICE/kilogram, the price in the smallest unit".to_owned();
    let (article, price) = text.split_once('=').ok_or_else(form)?;
    let (price, unit) = price.split_once('/').unwrap_or((price, "piece"));
    let unit = match unit {
        "piece" => Unit::Piece,
        "kilogram" => Unit::Kilogram,
        "litre" => Unit::Litre,
        "metre" => Unit::Metre,
        _ => return Err(form()),
    };
    let article = article.parse().map_err(|_| form())?;
    Ok(PriceChange { article, price_minor: price.parse().map_err(|_| form())?, unit })
}

/// `counter`, `locker=N`, `kerbside=BAY`; as a value parser.
pub(super) fn handover(text: &str) -> Result<HandoverArg, String> {
    match text.split_once('=') {
        None if text == "counter" => Ok(HandoverArg::Counter),
        Some(("locker", number)) => {
            number.parse().map(HandoverArg::Locker).map_err(|error| error.to_string())
        }
        Some(("kerbside", bay)) => Ok(HandoverArg::Kerbside(bay.to_owned())),
        _ => Err("one of counter, locker=N, kerbside=BAY".to_owned()),
    }
}

/// `ARTICLE=QUANTITY[:NAME]`; as a value parser.
pub(super) fn line(text: &str) -> Result<LineArg, String> {
    let form = || "a line is ARTICLE=QUANTITY or ARTICLE=QUANTITY:NAME".to_owned();
    let (article, rest) = text.split_once('=').ok_or_else(form)?;
    let (quantity, name) = rest.split_once(':').unwrap_or((rest, ""));
    let article = article.parse().map_err(|_| form())?;
    Ok(LineArg { article, quantity_milli: milli(quantity).ok_or_else(form)?, name: name.to_owned() })
}

/// `ARTICLE=QUANTITY@AMOUNT[:NAME]`; as a value parser.
pub(super) fn cart_line(text: &str) -> Result<CartLineArg, String> {
    let form = || "a line is ARTICLE=QUANTITY@AMOUNT or ARTICLE=QUANTITY@AMOUNT:NAME".to_owned();
    let (counted, rest) = text.split_once('@').ok_or_else(form)?;
    let (amount, name) = rest.split_once(':').unwrap_or((rest, ""));
    let amount_minor = amount.parse().map_err(|_| form())?;
    Ok(CartLineArg { line: line(&format!("{counted}:{name}")).map_err(|_| form())?, amount_minor })
}

/// A quantity with up to three decimals, in thousandths.
pub(crate) fn milli(text: &str) -> Option<u32> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let decimals: u32 = format!("{decimals:0<3}").parse().ok()?;
    whole.parse::<u32>().ok()?.checked_mul(1_000)?.checked_add(decimals)
}

impl From<ContentArg> for Content {
    fn from(arg: ContentArg) -> Self {
        match arg {
            ContentArg::Everything => Self::Everything,
            ContentArg::Catalogue => Self::Catalogue,
            ContentArg::Media => Self::Media,
            ContentArg::Layout => Self::Layout,
            ContentArg::Configuration => Self::Configuration,
        }
    }
}

impl From<SeverityArg> for Severity {
    fn from(arg: SeverityArg) -> Self {
        match arg {
            SeverityArg::Information => Self::Information,
            SeverityArg::Warning => Self::Warning,
            SeverityArg::Alarm => Self::Alarm,
        }
    }
}

impl From<FormatArg> for Format {
    fn from(arg: FormatArg) -> Self {
        match arg {
            FormatArg::Text => Self::Text,
            FormatArg::EscPos => Self::EscPos,
            FormatArg::Pdf => Self::Pdf,
            FormatArg::Png => Self::Png,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    fn encode(words: &[&str]) -> Result<Encoded, Failure> {
        let line = ["tillwire", "push"].iter().chain(words).chain(&["--to", "all"]);
        match Cli::try_parse_from(line).expect("parses").command {
            Command::Push(args) => args.order.encode().map(|(encoded, _)| encoded),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_standard_kind_becomes_a_payload_its_device_reads() {
        let message = encode(&["message", "Lane 3 please", "--severity", "alarm", "--number", "7"]).unwrap();
        let read = Message::decode(&message.payload).unwrap();
        assert_eq!((message.kind, read.id, read.text), (OrderKind::MESSAGE, 7, "Lane 3 please"));
        assert_eq!((message.lane, read.severity), (Lane::Interactive, Severity::Alarm));
        let page = encode(&["show-page", "/promo", "--duration", "30"]).unwrap();
        assert_eq!(ShowPage::decode(&page.payload).unwrap().page, "/promo");
        assert!(RefreshContent::decode(&encode(&["refresh-content"]).unwrap().payload).is_ok());
        let restart = encode(&["restart-app", "--now"]).unwrap();
        assert_eq!(RestartApp::decode(&restart.payload).unwrap().when, When::Now);
        assert!(!restart.flags.contains(KindFlags::IDEMPOTENT));
        let print = encode(&["print", "--text", "hello", "--copies", "2"]).unwrap();
        assert_eq!(Print::decode(&print.payload).unwrap().document, Document::Inline(b"hello"));
        let prices =
            encode(&["price-list", "--version", "2", "--change", "4006=129", "--change", "5=-25/litre"]);
        let prices = prices.unwrap();
        let changes: Vec<_> = PriceList::decode(&prices.payload).unwrap().changes.iter().collect();
        assert_eq!(
            (changes[0].price_minor, changes[1].price_minor, changes[1].unit),
            (129, -25, Unit::Litre)
        );
        let collect =
            encode(&["prepare-collect", "9", "--line", "5=1.5:flour", "--handover", "locker=4"]).unwrap();
        let collect = PrepareCollect::decode(&collect.payload).unwrap();
        assert_eq!(
            (collect.handover, collect.lines.iter().next().unwrap().quantity_milli),
            (Handover::Locker(4), 1_500)
        );
        let cart = "0123456789abcdef0123456789abcdef";
        let cart = encode(&["transfer-cart", cart, "--line", "5=2@398:milk", "--line", "6=1@-25"]).unwrap();
        assert_eq!(TransferCart::decode(&cart.payload).unwrap().total_minor, 373);
        let stock = encode(&["stock-question", "5", "--place", "shelf 7"]).unwrap();
        assert_eq!(StockQuestion::decode(&stock.payload).unwrap().place, "shelf 7");
        let firmware = ["update-firmware", "4.2", "--url", "http://s/f", "--size", "9", "--sha256"];
        let digest = "ab".repeat(32);
        let firmware = encode(&[&firmware[..], &[digest.as_str()]].concat()).unwrap();
        assert_eq!(UpdateFirmware::decode(&firmware.payload).unwrap().image.sha256, [0xAB; 32]);
        let custom = encode(&["custom", "0x8001", "--hex", "0a0b", "--schema", "3", "--idempotent"]).unwrap();
        assert_eq!((custom.kind, custom.schema, custom.payload), (OrderKind(0x8001), 3, vec![10, 11]));
        assert_eq!(custom.flags, KindFlags::IDEMPOTENT);
    }

    #[test]
    fn what_cannot_be_encoded_is_said_before_anything_is_sent() {
        assert!(encode(&["print"]).unwrap_err().cause.contains("nothing to print"));
        assert!(encode(&["print", "--url", "http://s/f"]).unwrap_err().help.contains("--of"));
        assert!(encode(&["message", ""]).unwrap_err().cause.contains("text"));
        assert!(
            encode(&["price-list", "--version", "1", "--currency", "euro"])
                .unwrap_err()
                .cause
                .contains("euro")
        );
        assert!(encode(&["show-page", &"x".repeat(257)]).unwrap_err().cause.contains("256"));
        assert!(encode(&["custom", "0x8001", "--hex", "0"]).is_err());
        assert!(encode(&["print", "--file", "/nonexistent"]).unwrap_err().cause.contains("/nonexistent"));
    }

    #[test]
    fn quantities_have_at_most_three_decimals() {
        assert_eq!((milli("2"), milli("0.5"), milli("1.005")), (Some(2_000), Some(500), Some(1_005)));
        assert_eq!(
            (milli("1.0005"), milli(""), milli("4294968"), milli("-1"), milli("1.-5")),
            (None, None, None, None, None)
        );
    }
}
