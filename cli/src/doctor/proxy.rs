//! The way out through a proxy: which one, whom it is not for, and asking it for a connection (HTTP CONNECT).

use core::fmt;
use core::str::FromStr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::http;

/// A proxy that speaks plain HTTP to us.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    /// Its name or address.
    pub(crate) host: String,
    /// Its TCP port.
    pub(crate) port: u16,
    /// `user:password`, percent signs resolved.
    login: Option<String>,
}

/// Without the password: this is printed.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `http://[USER:PASSWORD@]HOST[:PORT]`, the scheme may be left out; the port is 80 if not said. As a value parser.
impl FromStr for Proxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Not the text itself: there may be a password in it.
        let wrong = || "a proxy is http://[USER:PASSWORD@]HOST[:PORT]".to_owned();
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) => {
                return Err(format!("proxies are spoken to by http://, not {scheme}://"));
            }
            None => text,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (login, place) =
            rest.rsplit_once('@').map_or((None, rest), |(login, place)| (Some(login), place));
        let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, "80"),
            Some((host, port)) => (host, port.strip_prefix(':').ok_or_else(wrong)?),
            None => place.split_once(':').unwrap_or((place, "80")),
        };
        super::profile::host_name(host).map_err(|_| wrong())?;
        let port = port.parse().ok().filter(|&port| port > 0).ok_or_else(wrong)?;
        Ok(Self { host: host.to_owned(), port, login: login.map(percent_decoded) })
    }
}

/// What the environment says about the way out, as curl and others read it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Environment {
    /// `HTTPS_PROXY` or `https_proxy`.
    pub(crate) proxy: Option<String>,
    /// `NO_PROXY` or `no_proxy`.
    pub(crate) not_for: String,
}

impl Environment {
    /// That of this process. The lower-case name wins, as it does elsewhere.
    pub(crate) fn read() -> Self {
        let set = |names: [&str; 2]| {
            names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        };
        Self {
            proxy: set(["https_proxy", "HTTPS_PROXY"]),
            not_for: set(["no_proxy", "NO_PROXY"]).unwrap_or_default(),
        }
    }
}

/// Whether `host` is reached directly although there is a proxy: `list` is `*`, or names and addresses, each for itself
/// and for everything below it.
pub(crate) fn goes_directly(list: &str, host: &str) -> bool {
    list.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        let entry = entry.trim_start_matches("*.").trim_start_matches('.');
        let below = host.len().checked_sub(entry.len()).and_then(|at| host.split_at_checked(at));
        entry == "*"
            || below.is_some_and(|(before, end)| {
                end.eq_ignore_ascii_case(entry) && (before.is_empty() || before.ends_with('.'))
            })
    })
}

/// Why a proxy gives no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyRefusal {
    /// 407: it wants a user name and a password, or others than it got.
    LoginWanted,
    /// It answered with this status.
    Status(u16),
    /// It answered something that is no HTTP.
    NotHttp,
    /// It closed the connection without an answer.
    Closed,
    /// It did not answer in time.
    Silent,
}

impl fmt::Display for ProxyRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoginWanted => f.write_str("wants a user name and a password (407)"),
            Self::Status(status) => write!(f, "refuses with status {status}"),
            Self::NotHttp => f.write_str("does not speak HTTP"),
            Self::Closed => f.write_str("closed the connection without an answer"),
            Self::Silent => f.write_str("took the connection and does not answer"),
        }
    }
}

/// Asks for a connection to `host:port` on a connection to the proxy.
pub(crate) async fn ask(
    stream: &mut TcpStream,
    proxy: &Proxy,
    host: &str,
    port: u16,
    limit: Duration,
) -> Result<(), ProxyRefusal> {
    let place = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let login = proxy.login.as_ref().map_or_else(String::new, |login| {
        format!("Proxy-Authorization: Basic {}\r\n", base64(login.as_bytes()))
    });
    let request =
        format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\nUser-Agent: {}\r\n{login}\r\n", http::AGENT);
    let asking = async {
        stream.write_all(request.as_bytes()).await.map_err(|_| ProxyRefusal::Closed)?;
        let head = http::read_head(stream).await.map_err(|_| ProxyRefusal::Closed)?;
        match http::status(&head) {
            Some(200..=299) => Ok(()),
            Some(407) => Err(ProxyRefusal::LoginWanted),
            Some(status) => Err(ProxyRefusal::Status(status)),
            None if head.is_empty() => Err(ProxyRefusal::Closed),
            None => Err(ProxyRefusal::NotHttp),
        }
    };
    tokio::time::timeout(limit, asking).await.unwrap_or(Err(ProxyRefusal::Silent))
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).filter(|_| *first == b'%').and_then(|hex| core::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let index = bits >> (18 - 6 * digit) & 63;
            let used = digit <= chunk.len();
            let symbol = DIGITS.get(usize::try_from(index).unwrap_or(0)).copied().unwrap_or(b'A');
            text.push(if used { char::from(symbol) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_read_and_shown_without_their_password() {
        for (text, host, port, login) in [
            ("http://proxy:3128", "proxy", 3128, None),
            ("proxy.shop:8080/", "proxy.shop", 8080, None),
            ("HTTP://10.0.0.1", "10.0.0.1", 80, None),
            ("http://till:s%40cret@proxy:3128", "proxy", 3128, Some("till:s@cret")),
            ("http://a:b@c@proxy", "proxy", 80, Some("a:b@c")),
            ("http://[::1]:3128", "::1", 3128, None),
        ] {
            let proxy: Proxy = text.parse().unwrap();
            assert_eq!(
                (proxy.host.as_str(), proxy.port, proxy.login.as_deref()),
                (host, port, login),
                "{text}"
            );
            let shown = format!("{proxy} {proxy:?}");
            assert!(!shown.contains("cret") && !shown.contains("b@c"), "{shown}");
        }
        for text in
            ["https://proxy", "socks5://proxy", "http://", "proxy:0", "proxy:x", "http://pro xy", "[::1"]
        {
            let error = text.parse::<Proxy>().unwrap_err();
            assert!(error.contains("http://"), "{text}: {error}");
        }
        let error = "http://u:hidden@proxy:x".parse::<Proxy>().unwrap_err();
        assert!(!error.contains("hidden"));
    }

    #[test]
    fn who_goes_directly() {
        for (list, host, direct) in [
            ("*", "api.example.com", true),
            ("example.com", "api.example.com", true),
            (".example.com", "api.example.com", true),
            ("*.example.com", "API.Example.Com", true),
            ("localhost, 10.0.0.1 ,x", "10.0.0.1", true),
            ("ample.com", "api.example.com", false),
            ("api.example.com", "example.com", false),
            ("", "example.com", false),
            (" , ,", "example.com", false),
        ] {
            assert_eq!(goes_directly(list, host), direct, "{list:?} {host}");
        }
    }

    #[test]
    fn logins_are_encoded_as_rfc_4648_has_it() {
        for (plain, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
            ("till:\u{ff}?", "dGlsbDrDvz8="),
        ] {
            assert_eq!(base64(plain.as_bytes()), encoded, "{plain}");
        }
        assert_eq!(percent_decoded("a%41%zz%4"), "aA%zz%4");
    }
}
