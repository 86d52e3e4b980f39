//! `tillwire explain`: any bytes of the protocol, field by field.
//!
//! Two readers look at every message: the walk names each byte and goes as far as there are bytes, right or wrong; the
//! parser of the library, the same one that runs in the server, says whether they are right and where they are not.

mod datagram;
mod frame;
mod input;
mod payload;
mod payload_tables;
mod show;
mod tlv;
mod walk;

#[cfg(test)]
mod tests;

use wire_format::datagram::Datagram;
use wire_format::error::ParseError;
use wire_format::frame::order::options;
use wire_format::frame::{Frame, Header, Order, Raw};
use wire_format::payload::PayloadError;

use self::walk::{Field, Walk};
use crate::error::{Outcome, Verdict};

/// What the bytes are taken for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    /// Whatever they look like.
    Auto,
    /// One datagram of discovery.
    Datagram,
    /// Frames of order push, one after another.
    Frames,
    /// The body of an ORDER, as an outbox stores it.
    OrderBody,
    /// The options of an ORDER alone.
    OrderOptions,
    /// A payload alone.
    Payload(&'static payload::Table),
}

/// Reads what follows `--as`; as a value parser.
pub(crate) fn form(text: &str) -> Result<Form, String> {
    match text {
        "auto" => Ok(Form::Auto),
        "datagram" => Ok(Form::Datagram),
        "frames" => Ok(Form::Frames),
        "order-body" => Ok(Form::OrderBody),
        "order-options" => Ok(Form::OrderOptions),
        kind => payload::table(kind).map(Form::Payload).ok_or_else(|| {
            "one of auto, datagram, frames, order-body, order-options, or the name of an order kind for its payload".to_owned()
        }),
    }
}

const EXAMPLES: &str = "\
Examples:
  tillwire explain 000000003000000078563412448f6258
  tillwire explain captured-stream.bin
  xxd -p datagram.bin | tillwire explain -
  tillwire explain --as message payload.bin";

/// `tillwire explain`.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Hexadecimal digits (white space, commas, colons and 0x are ignored), a file of bytes or digits, or - for stdin.
    #[arg(required = true, value_name = "HEX|FILE|-")]
    input: Vec<String>,
    /// What the bytes are: auto, datagram, frames, order-body, order-options, or an order kind for its payload.
    #[arg(long = "as", value_name = "FORM", default_value = "auto", value_parser = form)]
    form: Form,
}

/// Explains the input; not right if any of it is wrong.
pub(crate) fn run(args: &Args, json: bool) -> Outcome {
    let bytes = input::read(&args.input)?;
    let messages = explain(&bytes, args.form);
    if json {
        show::json(&messages)
    } else {
        show::people(&bytes, &messages)
    }
    Ok(Verdict::of(!messages.iter().any(Message::is_wrong)))
}

/// One message of the input.
#[derive(Debug)]
struct Message {
    title: String,
    offset: usize,
    size: usize,
    fields: Vec<Field>,
    fault: Option<Fault>,
}

impl Message {
    fn is_wrong(&self) -> bool {
        self.fault.as_ref().is_some_and(|fault| fault.wrong)
    }
}

/// What is wrong with a message, and where in the input.
#[derive(Debug)]
struct Fault {
    /// The protocol refuses it. A payload is opaque to the protocol: one that is not what its order kind says is only
    /// remarked upon, for the application will refuse it.
    wrong: bool,
    field: String,
    offset: usize,
    what: String,
}

impl Fault {
    fn new(error: ParseError, base: usize) -> Self {
        let offset = base + usize::try_from(error.offset).unwrap_or(usize::MAX);
        Self { wrong: true, field: error.field.to_owned(), offset, what: error.fault.to_string() }
    }

    /// An error in a payload of `len` bytes that starts at `base`.
    fn of_payload(error: PayloadError, base: usize, len: usize, wrong: bool) -> Self {
        let at = match error {
            PayloadError::TooLong { limit, .. } => limit,
            PayloadError::Truncated { at }
            | PayloadError::Trailing { at }
            | PayloadError::Text { at }
            | PayloadError::Bool { at, .. }
            | PayloadError::Variant { at } => at,
            // Limits of values and lists name their field, not their place.
            _ => 0,
        };
        Self { wrong, field: "payload".to_owned(), offset: base + at.min(len), what: error.to_string() }
    }
}

/// Every message of `bytes`. Their sizes add up to all of them.
fn explain(bytes: &[u8], form: Form) -> Vec<Message> {
    match form {
        Form::Datagram => vec![explain_datagram(bytes)],
        Form::Frames => explain_frames(bytes),
        Form::OrderBody => vec![explain_order_body(bytes)],
        Form::OrderOptions => vec![explain_order_options(bytes)],
        Form::Payload(table) => vec![explain_payload(bytes, table)],
        Form::Auto if begins_as_datagram(bytes) => vec![explain_datagram(bytes)],
        Form::Auto if !begins_as_frame(bytes) && Order::parse_body(bytes).is_ok() => {
            vec![explain_order_body(bytes)]
        }
        Form::Auto => explain_frames(bytes),
    }
}

/// The magic, or what is there of it.
fn begins_as_datagram(bytes: &[u8]) -> bool {
    let len = bytes.len().min(datagram::MAGIC.len());
    bytes[..len] == datagram::MAGIC[..len]
}

fn begins_as_frame(bytes: &[u8]) -> bool {
    bytes.first_chunk().is_some_and(|head| Header::parse(head).is_ok())
}

fn explain_datagram(bytes: &[u8]) -> Message {
    let mut walk = Walk::new(bytes, 0);
    let _ = datagram::walk(&mut walk);
    let fault = Datagram::parse(bytes).err().map(|error| Fault::new(error, 0));
    message(datagram::title(bytes), 0, bytes.len(), walk, fault)
}

fn explain_frames(bytes: &[u8]) -> Vec<Message> {
    let (mut messages, mut at) = (Vec::new(), 0);
    loop {
        let rest = &bytes[at..];
        let length = match rest.first_chunk().map(Header::parse) {
            Some(Ok(header)) => usize::try_from(header.length).unwrap_or(usize::MAX),
            // Without a header that is right there is no telling where the next frame begins.
            _ => usize::MAX,
        };
        let size = frame::HEADER_LEN.saturating_add(length).min(rest.len());
        messages.push(explain_frame(&rest[..size], at));
        at += size;
        if at == bytes.len() {
            return messages;
        }
    }
}

fn explain_frame(bytes: &[u8], base: usize) -> Message {
    let mut walk = Walk::new(bytes, base);
    let _ = frame::walk(&mut walk);
    let fault = match Raw::parse(bytes).and_then(|raw| Frame::parse(&raw)) {
        Ok(Frame::Order(_, order)) => payload_fault(&order, base + frame::HEADER_LEN),
        Ok(_) => None,
        Err(error) => Some(Fault::new(error, base)),
    };
    message(frame::title(bytes), base, bytes.len(), walk, fault)
}

fn explain_order_body(bytes: &[u8]) -> Message {
    let mut walk = Walk::new(bytes, 0);
    let _ = frame::order_body(&mut walk);
    let fault = match Order::parse_body(bytes) {
        Ok(order) => payload_fault(&order, 0),
        Err(error) => Some(Fault::new(error, 0)),
    };
    message("body of an ORDER".to_owned(), 0, bytes.len(), walk, fault)
}

fn explain_order_options(bytes: &[u8]) -> Message {
    let mut walk = Walk::new(bytes, 0);
    let _ = frame::order_options(&mut walk, bytes.len());
    let fault = options(bytes).find_map(Result::err).map(|error| Fault::new(error, 0));
    message("options of an ORDER".to_owned(), 0, bytes.len(), walk, fault)
}

fn explain_payload(bytes: &[u8], table: &payload::Table) -> Message {
    let mut walk = Walk::new(bytes, 0);
    let _ = payload::by_table(&mut walk, "", table, bytes.len());
    let fault = payload::judge(table, bytes).map(|error| Fault::of_payload(error, 0, bytes.len(), true));
    message(format!("payload of {}", table.name), 0, bytes.len(), walk, fault)
}

fn message(title: String, offset: usize, size: usize, walk: Walk<'_>, fault: Option<Fault>) -> Message {
    Message { title, offset, size, fields: walk.finish(), fault }
}

/// What the receiving device would say to options and payload of an order whose body starts at `base`.
fn payload_fault(order: &Order<'_>, base: usize) -> Option<Fault> {
    let at = base + wire_format::frame::order::FIXED_LEN;
    if let Some(error) = options(order.options).find_map(Result::err) {
        return Some(Fault { wrong: false, ..Fault::new(error, at) });
    }
    let at = at + order.options.len();
    let error = payload::judge_order(order.kind, order.schema, order.payload)?;
    Some(Fault::of_payload(error, at, order.payload.len(), false))
}
