//! Which hosts and ports an installation needs, as a TOML file. `docs/DOCTOR.md` describes every key.
//!
//! A profile decides what is checked, so nothing in it is guessed: a key that is not known, a host that is a URL, or a
//! port 0 is refused with the file, the line and the reason.

use core::fmt;
use core::ops::Range;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::proxy::Proxy;
use crate::args::{DISCOVERY_PORT, PUSH_PORT};
use crate::error::Failure;

/// The profiles in the program, by name; the first one is the default.
pub(crate) const SHIPPED: [(&str, &str); 2] = [
    ("store-server", include_str!("../../profiles/store-server.toml")),
    ("backup-appliance", include_str!("../../profiles/backup-appliance.toml")),
];

/// Bytes of a profile: ten times the longest one we ship.
pub(crate) const PROFILE_BYTES_MAX: usize = 64 << 10;
/// Entries `[[outgoing]]` of a profile; each is several connections at the same time.
pub(crate) const OUTGOING_MAX: usize = 64;
/// Hosts of one entry of which any one is enough.
pub(crate) const HOSTS_MAX: usize = 8;
/// Ports of one entry.
pub(crate) const PORTS_MAX: usize = 16;
/// Entries `[[service]]` of a profile.
pub(crate) const SERVICES_MAX: usize = 32;
/// Bytes of a host name, as DNS has it.
const HOST_BYTES_MAX: usize = 253;

/// A profile, checked.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    /// Its name.
    pub(crate) name: String,
    /// The port of discovery.
    pub(crate) discovery_port: u16,
    /// The port devices listen on.
    pub(crate) push_port: u16,
    /// How many devices there shall be.
    pub(crate) expected: Option<u32>,
    /// The way out, if it is a proxy.
    pub(crate) proxy: Option<Proxy>,
    /// What the server offers to the LAN.
    pub(crate) services: Vec<Service>,
    /// What must be reached outside.
    pub(crate) outgoing: Vec<Outgoing>,
    /// Hosts whose plain HTTP answers carry a date.
    pub(crate) dates: Vec<(String, u16)>,
}

/// A service of the server on its LAN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    /// Its TCP port.
    pub(crate) port: u16,
    /// It must speak HTTP.
    pub(crate) http: bool,
    /// Without it the store does not work.
    pub(crate) required: bool,
    /// What it is for.
    pub(crate) purpose: String,
}

/// A destination outside the store: any host, on any port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outgoing {
    /// Any one of these is enough.
    pub(crate) hosts: Vec<String>,
    /// On any one of these.
    pub(crate) ports: Vec<u16>,
    /// Without it the store does not work.
    pub(crate) required: bool,
    /// What it is for.
    pub(crate) purpose: String,
    /// It may go through the proxy, if there is one.
    pub(crate) proxy: bool,
}

/// What the file says, word by word.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Spanned<String>,
    #[serde(default)]
    about: String,
    #[serde(default)]
    discovery: Discovery,
    #[serde(default)]
    devices: Devices,
    proxy: Option<Spanned<String>>,
    #[serde(default)]
    service: Vec<Spanned<ServiceEntry>>,
    #[serde(default)]
    outgoing: Vec<Spanned<OutgoingEntry>>,
    #[serde(default)]
    clock: Clock,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Discovery {
    port: Option<Spanned<u16>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Devices {
    port: Option<Spanned<u16>>,
    expected: Option<u32>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Protocol {
    Http,
    Tcp,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceEntry {
    ports: Vec<Spanned<u16>>,
    protocol: Protocol,
    #[serde(default)]
    purpose: String,
    required: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OutgoingEntry {
    hosts: Vec<Spanned<String>>,
    ports: Vec<Spanned<u16>>,
    #[serde(default)]
    purpose: String,
    required: Option<bool>,
    proxy: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Clock {
    #[serde(default)]
    http: Vec<Spanned<String>>,
}

/// Why a profile is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Its line, from 1.
    pub(crate) line: usize,
    /// What is wrong there.
    pub(crate) what: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.what)
    }
}

/// What is wrong, and where in the text.
struct Wrong(Range<usize>, String);

fn wrong<T>(at: Range<usize>, what: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong(at, what.into()))
}

/// The text of a profile: one of [`SHIPPED`] by name, else a file.
pub(crate) fn text(name: &str) -> Result<String, Failure> {
    if let Some((_, text)) = SHIPPED.iter().find(|(shipped, _)| *shipped == name) {
        return Ok((*text).to_owned());
    }
    let known = SHIPPED.map(|(name, _)| name).join(", ");
    let help =
        format!("--profile takes a TOML file or one of {known}; --print-profile writes one to begin with");
    let failure = |why: String| Failure::start(format!("cannot read the profile {name}: {why}"), &help);
    let mut bytes = Vec::new();
    let file = std::fs::File::open(Path::new(name)).map_err(|error| failure(error.to_string()))?;
    let limit = PROFILE_BYTES_MAX as u64 + 1;
    file.take(limit).read_to_end(&mut bytes).map_err(|error| failure(error.to_string()))?;
    if bytes.len() > PROFILE_BYTES_MAX {
        return Err(failure(format!("it has more than {PROFILE_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| failure("it is not UTF-8".to_owned()))
}

/// The profile of that name or path.
pub(crate) fn load(name: &str) -> Result<Profile, Failure> {
    read(&text(name)?).map_err(|refused| {
        Failure::start(
            format!("{name}:{refused}"),
            "docs/DOCTOR.md lists every key; --print-profile writes an example",
        )
    })
}

/// Reads a profile's text.
pub(crate) fn read(text: &str) -> Result<Profile, Refused> {
    let refused = |at: usize, what: String| {
        let before = text.get(..at).unwrap_or(text);
        Refused { line: before.matches('\n').count() + 1, what }
    };
    let file: File = toml::from_str(text).map_err(|error| {
        let what = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
        refused(error.span().map_or(0, |span| span.start), what)
    })?;
    profile(file).map_err(|Wrong(at, what)| refused(at.start, what))
}

fn profile(file: File) -> Result<Profile, Wrong> {
    if file.name.get_ref().is_empty() {
        return wrong(file.name.span(), "a profile has a name");
    }
    // For people who read the file; nothing here shows it.
    drop(file.about);
    let proxy = match file.proxy {
        None => None,
        Some(text) => match text.get_ref().parse() {
            Ok(proxy) => Some(proxy),
            Err(error) => return wrong(text.span(), error),
        },
    };
    let mut services = Vec::new();
    for (at, entry) in file.service.into_iter().enumerate() {
        service(at, entry, &mut services)?;
    }
    let entries = file.outgoing.into_iter().enumerate();
    let outgoing = entries.map(|(at, entry)| outgoing(at, entry)).collect::<Result<_, _>>()?;
    let dates = file.clock.http.iter().map(date).collect::<Result<_, _>>()?;
    Ok(Profile {
        name: file.name.into_inner(),
        discovery_port: file.discovery.port.map_or(Ok(DISCOVERY_PORT), |number| port(&number))?,
        push_port: file.devices.port.map_or(Ok(PUSH_PORT), |number| port(&number))?,
        expected: file.devices.expected,
        proxy,
        services,
        outgoing,
        dates,
    })
}

fn service(at: usize, entry: Spanned<ServiceEntry>, services: &mut Vec<Service>) -> Result<(), Wrong> {
    let span = entry.span();
    if at >= SERVICES_MAX {
        return wrong(span, format!("more than {SERVICES_MAX} entries [[service]]"));
    }
    let entry = entry.into_inner();
    for port in ports(&span, &entry.ports)? {
        services.push(Service {
            port,
            http: entry.protocol == Protocol::Http,
            required: entry.required.unwrap_or(true),
            purpose: entry.purpose.clone(),
        });
    }
    Ok(())
}

fn outgoing(at: usize, entry: Spanned<OutgoingEntry>) -> Result<Outgoing, Wrong> {
    let span = entry.span();
    if at >= OUTGOING_MAX {
        return wrong(span, format!("more than {OUTGOING_MAX} entries [[outgoing]]"));
    }
    let entry = entry.into_inner();
    if entry.hosts.is_empty() || entry.hosts.len() > HOSTS_MAX {
        return wrong(span, format!("hosts are 1 to {HOSTS_MAX} names, of which any one is enough"));
    }
    Ok(Outgoing {
        ports: ports(&span, &entry.ports)?,
        hosts: entry.hosts.iter().map(host).collect::<Result<_, _>>()?,
        required: entry.required.unwrap_or(true),
        purpose: entry.purpose,
        proxy: entry.proxy.unwrap_or(true),
    })
}

fn ports(entry: &Range<usize>, list: &[Spanned<u16>]) -> Result<Vec<u16>, Wrong> {
    if list.is_empty() || list.len() > PORTS_MAX {
        return wrong(entry.clone(), format!("ports are 1 to {PORTS_MAX} numbers"));
    }
    list.iter().map(port).collect()
}

fn port(number: &Spanned<u16>) -> Result<u16, Wrong> {
    match *number.get_ref() {
        0 => wrong(number.span(), "a port is a number from 1 to 65535"),
        port => Ok(port),
    }
}

fn host(name: &Spanned<String>) -> Result<String, Wrong> {
    match host_name(name.get_ref()) {
        Ok(()) => Ok(name.get_ref().clone()),
        Err(why) => wrong(name.span(), why),
    }
}

fn date(source: &Spanned<String>) -> Result<(String, u16), Wrong> {
    let text = source.get_ref();
    let (host, port) = text.rsplit_once(':').unwrap_or((text, "80"));
    if let Err(why) = host_name(host) {
        return wrong(source.span(), why);
    }
    match port.parse() {
        Ok(port @ 1..) => Ok((host.to_owned(), port)),
        _ => wrong(source.span(), format!("{text:?} is not HOST:PORT")),
    }
}

/// Whether this can be a host's name or address.
pub(crate) fn host_name(text: &str) -> Result<(), String> {
    if text.contains("://") || text.contains('/') {
        return Err(format!("{text:?} is a URL; a host is its name alone, such as api.example.com"));
    }
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if text.parse::<core::net::Ipv6Addr>().is_ok() {
        return Ok(());
    }
    if text.is_empty() || text.len() > HOST_BYTES_MAX || !text.chars().all(good) {
        return Err(format!("{text:?} is no host name"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        read(text).expect_err(text).to_string()
    }

    #[test]
    fn the_shipped_profiles_say_what_the_notes_say() {
        let server = load("store-server").unwrap();
        assert_eq!((server.discovery_port, server.push_port), (57_854, 8_081));
        let ports: Vec<u16> = server.services.iter().map(|one| one.port).collect();
        assert_eq!(ports, [80, 8_000, 8_001, 8_002, 8_003, 8_004, 8_005]);
        assert!(server.services.iter().all(|one| one.http && one.required));
        assert!(server.outgoing.iter().all(|one| one.ports == [443] && one.proxy));
        let names = |required: bool| -> Vec<&str> {
            let entries = server.outgoing.iter().filter(move |one| one.required == required);
            entries.flat_map(|one| one.hosts.iter().map(String::as_str)).collect()
        };
        assert_eq!(names(false), ["api.logmatic.io", "koostodesapp-ns.servicebus.windows.net"]);
        assert_eq!(names(true)[..2], ["api.altazion.com", "api.server.commerce-hub.io"]);
        assert_eq!(names(true).len(), 4);

        let backup = load("backup-appliance").unwrap();
        assert!(backup.services.is_empty());
        let m0 = backup.outgoing.iter().find(|one| one.hosts == ["m0.wooxo.fr"]).unwrap();
        assert_eq!(m0.ports, [6_670, 443, 80, 21, 123, 1_720, 1_723]);
        assert_eq!(backup.outgoing.len(), 7);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, line, says) in [
            ("name = \"x\"\nports = 3\n", 2, "unknown field `ports`"),
            ("about = \"x\"\n", 1, "missing field `name`"),
            ("name = \"\"\n", 1, "has a name"),
            ("name = \"x\"\n\n[discovery]\nport = 0\n", 4, "from 1 to 65535"),
            ("name = \"x\"\n[devices]\nport = 70000\n", 3, "u16"),
            ("name = \"x\"\n[devices]\nexpected = -1\n", 3, "u32"),
            ("name = \"x\"\nproxy = \"socks5://p\"\n", 2, "http://"),
            ("name = \"x\"\n[[service]]\nports = []\nprotocol = \"http\"\n", 2, "1 to 16"),
            ("name = \"x\"\n[[service]]\nports = [80]\nprotocol = \"gopher\"\n", 4, "gopher"),
            ("name = \"x\"\n[[outgoing]]\nhosts = [\"https://a.b/c\"]\nports = [1]\n", 3, "URL"),
            ("name = \"x\"\n[[outgoing]]\nhosts = [\"a\",\n  \"b c\"]\nports = [1]\n", 4, "no host name"),
            ("name = \"x\"\n[[outgoing]]\nhosts = []\nports = [1]\n", 2, "1 to 8 names"),
            ("name = \"x\"\n[clock]\nhttp = [\"a:b\"]\n", 3, "HOST:PORT"),
            ("name = \"x\"\nname = \"y\"\n", 2, "duplicate"),
            ("name = \"x\n", 1, "string"),
        ] {
            let refused = refused(text);
            assert!(
                refused.starts_with(&format!("{line}: ")) && refused.contains(says),
                "{text:?}: {refused}"
            );
        }
    }

    #[test]
    fn profiles_at_their_limits_and_one_past_each() {
        let outgoing = |hosts: usize, ports: usize| {
            let hosts = vec!["\"h\""; hosts].join(",");
            format!("[[outgoing]]\nhosts = [{hosts}]\nports = [{}]\n", vec!["1"; ports].join(","))
        };
        let with = |entries: &str| read(&format!("name = \"x\"\n{entries}"));
        assert!(with(&outgoing(HOSTS_MAX, PORTS_MAX)).is_ok());
        assert!(with(&outgoing(HOSTS_MAX + 1, 1)).is_err());
        assert!(with(&outgoing(1, PORTS_MAX + 1)).is_err());
        assert!(with(&outgoing(1, 1).repeat(OUTGOING_MAX)).is_ok());
        assert!(with(&outgoing(1, 1).repeat(OUTGOING_MAX + 1)).is_err());
        let service = "[[service]]\nports = [1]\nprotocol = \"tcp\"\n";
        assert!(with(&service.repeat(SERVICES_MAX)).is_ok());
        assert!(with(&service.repeat(SERVICES_MAX + 1)).is_err());

        let path = std::env::temp_dir().join(format!("tillwire-profile-{}.toml", std::process::id()));
        let padded = |len: usize| format!("name = \"x\" #{}", " ".repeat(len - 12));
        std::fs::write(&path, padded(PROFILE_BYTES_MAX)).unwrap();
        assert_eq!(load(path.to_str().unwrap()).unwrap().name, "x");
        std::fs::write(&path, padded(PROFILE_BYTES_MAX + 1)).unwrap();
        assert!(load(path.to_str().unwrap()).unwrap_err().cause.contains("65536 bytes"));
        std::fs::remove_file(path).unwrap();
    }

    /// Neither random text nor a shipped profile with bytes changed, cut out or repeated makes it panic, and a refusal
    /// names a line that is there.
    #[test]
    fn no_text_makes_the_reader_panic() {
        let mut random = wire_format::rng::Rng::new(57_854);
        let mut next = move |below: usize| usize::try_from(random.next_u64() % below.max(1) as u64).unwrap();
        let mut refusals = 0;
        for round in 0..4_000 {
            let mut text = SHIPPED[round % 2].1.as_bytes().to_vec();
            for _ in 0..=next(4) {
                let at = next(text.len());
                match next(4) {
                    0 => text[at] = b"[]{}=\"'\n#.,-0aZ\xff"[next(16)],
                    1 => text.truncate(at),
                    2 => drop(text.drain(at..at + next(text.len() - at))),
                    _ => text.splice(at..at, b"[[".repeat(next(200))).for_each(drop),
                }
                text.push(b'\n');
            }
            let text = String::from_utf8_lossy(&text).into_owned();
            if let Err(refused) = read(&text) {
                refusals += 1;
                assert!((1..=text.matches('\n').count() + 1).contains(&refused.line), "{refused}");
            }
        }
        assert!(refusals > 1_000, "{refusals}");
    }
}
