//! What may be asked over the control socket, as JSON and as values.

use core::time::Duration;

use serde_json::{Map, Value, json};
use tillwire::push::driver::server::STEPS_MAX;
use wire_format::frame::ask::PAYLOAD_MAX as QUESTION_MAX;
use wire_format::frame::order::{KindFlags, PAYLOAD_MAX};
use wire_format::frame::part::BLOB_MAX;
use wire_format::ids::{Lane, OrderKind};

use crate::names::{self, To};

/// The longest wait for outcomes: a day.
const WAIT_MS_MAX: u64 = 86_400_000;
/// The longest lifetime of an order: 30 days.
pub(crate) const LIFETIME_S_MAX: u64 = 30 * 86_400;

/// The longest wait for the answer to a question: a minute.
pub(crate) const ASK_WITHIN_MS_MAX: u64 = 60_000;

/// The longest a server that leaves waits for what is out: the library's own limit.
pub(crate) const DRAIN_WITHIN_MS_MAX: u64 = 5_000;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Push an order and wait for its outcomes.
    Push(Box<Push>),
    /// Ask devices something.
    Ask(Box<Ask>),
    /// End an order where it has not been started.
    Cancel(u64),
    /// The devices as they are, then every change.
    Watch,
    /// The devices as they are.
    Roster,
    /// How one device stands; its id, or the beginning of it.
    View(String),
    /// The server's counters.
    Stats,
    /// Leave in peace, waiting so long at most for what is out.
    Drain(Duration),
    /// Take the store over from another server.
    Takeover,
}

/// An order to push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Push {
    /// What it asks for.
    pub(crate) kind: OrderKind,
    /// The version of the payload's encoding.
    pub(crate) schema: u16,
    /// What it carries.
    pub(crate) payload: Vec<u8>,
    /// Bytes behind the request's line that are the payload, instead of one inside it; 0 if there are none.
    pub(crate) follow: usize,
    /// Its priority class.
    pub(crate) lane: Lane,
    /// What it may do.
    pub(crate) flags: KindFlags,
    /// Whom it is for.
    pub(crate) to: To,
    /// The application's key.
    pub(crate) key: Option<String>,
    /// What it is a version of, and which.
    pub(crate) supersede: Option<(String, u64)>,
    /// How long it is worth delivering; the server's default if not said.
    pub(crate) lifetime: Option<Duration>,
    /// It need not survive the server.
    pub(crate) volatile: bool,
    /// How long to wait for outcomes.
    pub(crate) wait: Duration,
    /// How many devices must have applied it; all if not said.
    pub(crate) quorum: Option<Quorum>,
    /// The devices shall send results.
    pub(crate) result: bool,
    /// A line per device before the summary.
    pub(crate) each: bool,
    /// A line per outcome as it comes.
    pub(crate) stream: bool,
    /// To some devices first, and to the others if nothing speaks against it.
    pub(crate) rollout: Option<Steps>,
}

/// The steps of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Steps {
    /// So many of a hundred devices have it after each step; they rise.
    pub(crate) percents: Vec<u8>,
    /// It stops when more than so many of a hundred devices of a step fail.
    pub(crate) abort_above: u8,
    /// How long a step waits for its outcomes.
    pub(crate) within: Duration,
}

/// Devices of a hundred that may fail, unless said otherwise.
pub(crate) const ABORT_ABOVE: u8 = 5;
/// How long a step waits for its outcomes, unless said otherwise.
pub(crate) const STEP_WITHIN: Duration = Duration::from_secs(60);

/// Whether these can be steps: at most [`STEPS_MAX`], from 1 to 100, each above the one before.
pub(crate) fn steps(percents: &[u64]) -> Result<Vec<u8>, String> {
    let wrong = || format!("steps are up to {STEPS_MAX} rising shares from 1 to 100, such as 1,10,50,100");
    let rising = percents.windows(2).all(|pair| matches!(pair, [before, after] if before < after));
    if percents.is_empty() || percents.len() > STEPS_MAX || !rising {
        return Err(wrong());
    }
    let step = |percent: &u64| u8::try_from(*percent).ok().filter(|percent| (1..=100).contains(percent));
    percents.iter().map(|percent| step(percent).ok_or_else(wrong)).collect()
}

/// A question to devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// What is asked.
    pub(crate) kind: OrderKind,
    /// The version of the payload's encoding.
    pub(crate) schema: u16,
    /// What it carries.
    pub(crate) payload: Vec<u8>,
    /// Whom.
    pub(crate) to: To,
    /// How long each answer is waited for.
    pub(crate) within: Duration,
}

impl Ask {
    /// The request as JSON.
    pub(crate) fn json(&self) -> Value {
        json!({
            "do": "ask",
            "kind": self.kind.to_string(),
            "schema": self.schema,
            "payload": hex(&self.payload),
            "to": self.to.to_string(),
            "within_ms": millis(self.within),
        })
    }
}

/// How many devices are enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quorum {
    /// So many, or all if there are fewer.
    Count(u32),
    /// So many of a hundred, rounded up.
    Percent(u8),
}

impl core::fmt::Display for Quorum {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Count(devices) => write!(f, "{devices}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// `N` or `P%`; as a value parser.
pub(crate) fn quorum(text: &str) -> Result<Quorum, String> {
    let wrong = || "a number of devices, or a share such as 95%".to_owned();
    match text.strip_suffix('%') {
        Some(percent) => match percent.parse() {
            Ok(percent @ 1..=100) => Ok(Quorum::Percent(percent)),
            _ => Err(wrong()),
        },
        None => match text.parse() {
            Ok(devices @ 1..) => Ok(Quorum::Count(devices)),
            _ => Err(wrong()),
        },
    }
}

impl Push {
    /// The request as JSON.
    pub(crate) fn json(&self) -> Value {
        let mut object = json!({
            "do": "push",
            "kind": self.kind.to_string(),
            "schema": self.schema,
            "lane": self.lane.index(),
            "idempotent": self.flags.contains(KindFlags::IDEMPOTENT),
            "perishable": self.flags.contains(KindFlags::PERISHABLE),
            "cancellable": self.flags.contains(KindFlags::CANCELLABLE),
            "to": self.to.to_string(),
            "volatile": self.volatile,
            "wait_ms": millis(self.wait),
            "result": self.result,
            "each": self.each,
            "stream": self.stream,
        });
        match self.follow {
            0 => object["payload"] = json!(hex(&self.payload)),
            bytes => object["payload_bytes"] = json!(bytes),
        }
        if let Some(key) = &self.key {
            object["key"] = json!(key);
        }
        if let Some((key, version)) = &self.supersede {
            object["supersede_key"] = json!(key);
            object["supersede_version"] = json!(version);
        }
        if let Some(quorum) = self.quorum {
            object["quorum"] = json!(quorum.to_string());
        }
        if let Some(lifetime) = self.lifetime {
            object["lifetime_ms"] = json!(millis(lifetime));
        }
        if let Some(steps) = &self.rollout {
            object["rollout"] = json!(steps.percents);
            object["abort_above"] = json!(steps.abort_above);
            object["step_within_ms"] = json!(millis(steps.within));
        }
        object
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Request {
    /// Reads a request; what is wrong with it otherwise, in one sentence.
    pub(crate) fn read(object: &Value) -> Result<Self, String> {
        let Value::Object(fields) = object else { return Err("a request is an object".to_owned()) };
        match fields.get("do").and_then(Value::as_str) {
            Some("push") => read_push(fields).map(Box::new).map(Self::Push),
            Some("ask") => read_ask(fields).map(Box::new).map(Self::Ask),
            Some("cancel") => match number(fields, "order", u64::MAX)? {
                Some(order @ 1..) => Ok(Self::Cancel(order)),
                _ => Err("\"order\" is the number of an order, 1 or more".to_owned()),
            },
            Some("watch") => Ok(Self::Watch),
            Some("roster") => Ok(Self::Roster),
            Some("stats") => Ok(Self::Stats),
            Some("takeover") => Ok(Self::Takeover),
            Some("drain") => {
                let within = number(fields, "within_ms", DRAIN_WITHIN_MS_MAX)?.unwrap_or(DRAIN_WITHIN_MS_MAX);
                Ok(Self::Drain(Duration::from_millis(within)))
            }
            Some("view") => {
                names::id_prefix(text(fields, "device")?.ok_or("\"device\" is missing")?).map(Self::View)
            }
            Some(other) => Err(format!(
                "\"do\" is {other:?}, and push, ask, cancel, watch, roster, stats, view, drain, takeover are what can \
                 be done"
            )),
            None => Err("\"do\" is missing".to_owned()),
        }
    }
}

fn read_ask(fields: &Map<String, Value>) -> Result<Ask, String> {
    let payload = unhex(text(fields, "payload")?.unwrap_or_default())?;
    if payload.len() > QUESTION_MAX {
        return Err(format!(
            "the payload has {} bytes, and a question carries at most {QUESTION_MAX}",
            payload.len()
        ));
    }
    let within = number(fields, "within_ms", ASK_WITHIN_MS_MAX)?.unwrap_or(2_000);
    Ok(Ask {
        kind: names::order_kind(text(fields, "kind")?.ok_or("\"kind\" is missing")?)?,
        schema: schema(fields)?,
        payload,
        to: names::to(text(fields, "to")?.ok_or("\"to\" is missing")?)?,
        within: Duration::from_millis(within.max(1)),
    })
}

fn schema(fields: &Map<String, Value>) -> Result<u16, String> {
    let schema = number(fields, "schema", u16::MAX.into())?;
    Ok(schema.and_then(|schema| u16::try_from(schema).ok()).unwrap_or(0))
}

fn read_push(fields: &Map<String, Value>) -> Result<Push, String> {
    let flag = |name: &str, flag: KindFlags| {
        Ok::<_, String>(if bool(fields, name)? { flag } else { KindFlags::NONE })
    };
    let lane = match number(fields, "lane", 3)? {
        Some(lane) => u8::try_from(lane).ok().and_then(Lane::new).unwrap_or_default(),
        None => Lane::default(),
    };
    let payload = unhex(text(fields, "payload")?.unwrap_or_default())?;
    if payload.len() > PAYLOAD_MAX {
        return Err(format!(
            "the payload has {} bytes, and an order carries at most {PAYLOAD_MAX}",
            payload.len()
        ));
    }
    let follow = number(fields, "payload_bytes", BLOB_MAX.into())?.unwrap_or(0);
    if follow > 0 && !payload.is_empty() {
        return Err(
            "the payload is in the line or behind it: \"payload\" and \"payload_bytes\" do not go together"
                .to_owned(),
        );
    }
    let lifetime = number(fields, "lifetime_ms", LIFETIME_S_MAX * 1_000)?;
    if lifetime == Some(0) {
        return Err("a lifetime of 0 is over before the order is sent".to_owned());
    }
    let push = Push {
        kind: names::order_kind(text(fields, "kind")?.ok_or("\"kind\" is missing")?)?,
        schema: schema(fields)?,
        payload,
        follow: usize::try_from(follow).unwrap_or(0),
        lane,
        flags: flag("idempotent", KindFlags::IDEMPOTENT)?
            .with(flag("perishable", KindFlags::PERISHABLE)?)
            .with(flag("cancellable", KindFlags::CANCELLABLE)?),
        to: names::to(text(fields, "to")?.ok_or("\"to\" is missing")?)?,
        key: text(fields, "key")?.map(ToOwned::to_owned),
        supersede: read_supersede(fields)?,
        lifetime: lifetime.map(Duration::from_millis),
        volatile: bool(fields, "volatile")?,
        wait: Duration::from_millis(number(fields, "wait_ms", WAIT_MS_MAX)?.unwrap_or(0)),
        quorum: text(fields, "quorum")?.map(quorum).transpose()?,
        result: bool(fields, "result")?,
        each: bool(fields, "each")?,
        stream: bool(fields, "stream")?,
        rollout: read_steps(fields)?,
    };
    if push.rollout.is_some() && (push.quorum.is_some() || push.stream || push.supersede.is_some()) {
        return Err("a rollout judges its steps itself, and each is an order: \"quorum\", \"stream\" and \
                    \"supersede_key\" do not go with it"
            .to_owned());
    }
    Ok(push)
}

fn read_steps(fields: &Map<String, Value>) -> Result<Option<Steps>, String> {
    let abort_above = number(fields, "abort_above", 100)?;
    let within = number(fields, "step_within_ms", WAIT_MS_MAX)?;
    let percents: Vec<u64> = match fields.get("rollout") {
        None | Some(Value::Null) => return Ok(None),
        // What is no number is no share.
        Some(Value::Array(list)) => list.iter().map(|step| step.as_u64().unwrap_or(0)).collect(),
        Some(_) => return Err("\"rollout\" has to be a list of numbers".to_owned()),
    };
    Ok(Some(Steps {
        percents: steps(&percents)?,
        abort_above: abort_above.and_then(|percent| u8::try_from(percent).ok()).unwrap_or(ABORT_ABOVE),
        within: within.map_or(STEP_WITHIN, Duration::from_millis),
    }))
}

fn read_supersede(fields: &Map<String, Value>) -> Result<Option<(String, u64)>, String> {
    let (key, version) = (text(fields, "supersede_key")?, number(fields, "supersede_version", u64::MAX)?);
    match (key, version) {
        (None, None) => Ok(None),
        (Some(key), Some(version)) if !key.is_empty() => Ok(Some((key.to_owned(), version))),
        _ => Err("\"supersede_key\" and \"supersede_version\" belong together".to_owned()),
    }
}

fn text<'v>(fields: &'v Map<String, Value>, name: &str) -> Result<Option<&'v str>, String> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{name:?} has to be a text")),
    }
}

fn number(fields: &Map<String, Value>, name: &str, max: u64) -> Result<Option<u64>, String> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(number) if number <= max => Ok(Some(number)),
            _ => Err(format!("{name:?} has to be a whole number from 0 to {max}")),
        },
    }
}

fn bool(fields: &Map<String, Value>, name: &str) -> Result<bool, String> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(_) => Err(format!("{name:?} has to be true or false")),
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hexadecimal digits as bytes; white space between them is passed over.
pub(crate) fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let wrong = || "bytes are written as pairs of hexadecimal digits".to_owned();
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| !c.is_ascii_whitespace())
        .map(|c| c.to_digit(16).ok_or_else(wrong))
        .collect::<Result<_, _>>()?;
    let (pairs, []) = digits.as_chunks::<2>() else { return Err(wrong()) };
    Ok(pairs.iter().map(|[high, low]| u8::try_from(high * 16 + low).unwrap_or(0)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push() -> Push {
        Push {
            kind: OrderKind(0x8001),
            schema: 3,
            payload: vec![0xAB, 0],
            follow: 0,
            lane: Lane::Urgent,
            flags: KindFlags::IDEMPOTENT.with(KindFlags::CANCELLABLE),
            to: names::to("kind=kiosk,zone=3").unwrap(),
            key: Some("order 7".to_owned()),
            supersede: Some(("prices".to_owned(), 7)),
            lifetime: Some(Duration::from_secs(60)),
            volatile: true,
            wait: Duration::from_secs(10),
            quorum: Some(Quorum::Percent(95)),
            result: true,
            each: true,
            stream: true,
            rollout: None,
        }
    }

    #[test]
    fn a_rollout_reads_back_and_its_steps_rise() {
        let steps_of = |percents| Steps { percents, abort_above: 2, within: Duration::from_millis(1) };
        let rollout = |percents| Push {
            quorum: None,
            stream: false,
            supersede: None,
            rollout: Some(steps_of(percents)),
            ..push()
        };
        let careful = rollout(vec![1, 10, 100]);
        assert_eq!(Request::read(&careful.json()), Ok(Request::Push(Box::new(careful.clone()))));
        let with = |name: &str, value: Value| {
            let mut request = careful.json();
            request[name] = value;
            Request::read(&request)
        };
        for wrong in
            [json!([]), json!([0]), json!([101]), json!([5, 5]), json!([9, 5]), json!(["1"]), json!(1)]
        {
            assert!(with("rollout", wrong.clone()).is_err(), "{wrong}");
        }
        assert!(with("rollout", json!((1..=32).collect::<Vec<_>>())).is_ok());
        assert!(with("rollout", json!((1..=33).collect::<Vec<_>>())).unwrap_err().contains("32"));
        assert!(with("abort_above", json!(100)).is_ok() && with("abort_above", json!(101)).is_err());
        for (name, value) in [("quorum", json!("1")), ("stream", json!(true))] {
            assert!(with(name, value).unwrap_err().contains("rollout"));
        }
        let Ok(Request::Push(plain)) = with("abort_above", json!(null)) else { panic!("it is a push") };
        assert_eq!(plain.rollout.unwrap().abort_above, ABORT_ABOVE);
    }

    #[test]
    fn a_push_reads_back_as_it_was_written() {
        assert_eq!(Request::read(&push().json()), Ok(Request::Push(Box::new(push()))));
        let plain = Push { key: None, supersede: None, lifetime: None, quorum: None, ..push() };
        assert_eq!(Request::read(&plain.json()), Ok(Request::Push(Box::new(plain))));
    }

    #[test]
    fn quorums_at_their_limits_and_one_past_each() {
        for (text, expected) in
            [("1", Quorum::Count(1)), ("1%", Quorum::Percent(1)), ("100%", Quorum::Percent(100))]
        {
            assert_eq!(quorum(text), Ok(expected));
            assert_eq!(expected.to_string(), text);
        }
        for wrong in ["0", "0%", "101%", "-1", "most", "", "%"] {
            assert!(quorum(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_request_is_said() {
        let with = |name: &str, value: Value| {
            let mut request = push().json();
            request[name] = value;
            Request::read(&request).unwrap_err()
        };
        assert!(with("do", json!("dance")).contains("dance"));
        assert!(with("kind", json!("waltz")).contains("order kind"));
        assert!(with("kind", json!(null)).contains("missing"));
        assert!(with("lane", json!(4)).contains("lane"));
        assert!(with("payload", json!("abc")).contains("pairs"));
        assert!(with("payload", json!("00".repeat(PAYLOAD_MAX + 1))).contains("65537"));
        assert!(with("payload_bytes", json!(1)).contains("go together"));
        let behind = |bytes: u32| {
            let mut request = push().json();
            (request["payload"], request["payload_bytes"]) = (Value::Null, bytes.into());
            Request::read(&request)
        };
        assert!(behind(BLOB_MAX + 1).unwrap_err().contains("payload_bytes"));
        let Ok(Request::Push(large)) = behind(BLOB_MAX) else { panic!("it is a push") };
        assert_eq!((large.follow, large.payload.len()), (8 << 20, 0));
        assert_eq!(Request::read(&large.json()), Ok(Request::Push(large)));
        assert!(with("lifetime_ms", json!(0)).contains("lifetime"));
        assert!(with("lifetime_ms", json!(LIFETIME_S_MAX * 1_000 + 1)).contains("whole number"));
        assert!(with("wait_ms", json!(-1)).contains("wait_ms"));
        assert!(with("supersede_key", json!(null)).contains("belong together"));
        assert!(with("supersede_key", json!("")).contains("belong together"));
        assert!(with("quorum", json!("101%")).contains("share"));
        assert!(with("each", json!("yes")).contains("true or false"));
        assert!(Request::read(&json!({})).is_err());
        let question = Ask {
            kind: OrderKind(0x8001),
            schema: 2,
            payload: vec![7; QUESTION_MAX],
            to: names::to("zone=3").unwrap(),
            within: Duration::from_secs(60),
        };
        assert_eq!(Request::read(&question.json()), Ok(Request::Ask(Box::new(question.clone()))));
        let too_long = Ask { payload: vec![7; QUESTION_MAX + 1], ..question.clone() };
        assert!(Request::read(&too_long.json()).unwrap_err().contains("4097"));
        let too_late = Ask { within: Duration::from_millis(60_001), ..question };
        assert!(Request::read(&too_late.json()).unwrap_err().contains("within_ms"));
        assert_eq!(Request::read(&json!({"do": "cancel", "order": 7})), Ok(Request::Cancel(7)));
        assert!(Request::read(&json!({"do": "cancel", "order": 0})).unwrap_err().contains("order"));
        let view = Request::read(&json!({"do": "view", "device": "6F9619FF"}));
        assert_eq!(view, Ok(Request::View("6f9619ff".to_owned())));
        assert!(Request::read(&json!({"do": "view", "device": "6f"})).unwrap_err().contains("digits"));
    }
}
