//! The control socket: how `tillwire push` and `tillwire watch` speak to a running `tillwire serve`.
//!
//! One JSON object a line in both directions, as `docs/CONTROL.md` describes. Who may open the socket may push orders:
//! a Unix socket belongs to the server's user alone, TCP is taken on loopback addresses only.

mod asking;
pub(crate) mod client;
pub(crate) mod listener;
pub(crate) mod request;
mod rollout;
pub(crate) mod session;
mod view;
mod watching;

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt};

/// The version of the line protocol, told in the server's first line.
pub(crate) const VERSION: u64 = 1;

/// Bytes of one line: a payload of 65,536 bytes in hexadecimal digits, and room for the rest.
pub(crate) const LINE_BYTES_MAX: usize = 192 * 1024;

/// Where the socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP port on a loopback address.
    Tcp(SocketAddr),
}

impl core::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

/// A path or a loopback `IP:PORT`; as a value parser.
pub(crate) fn endpoint(text: &str) -> Result<Endpoint, String> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Ok(Endpoint::Tcp(address)),
        Ok(_) => {
            Err("the control socket gives away the right to push: TCP is for loopback addresses only".into())
        }
        Err(_) if text.is_empty() => Err("a path, or a loopback address such as 127.0.0.1:8090".into()),
        Err(_) => Ok(Endpoint::Unix(text.into())),
    }
}

/// `$XDG_RUNTIME_DIR/tillwire.sock`, or a name in the temporary directory that carries the user's number.
pub(crate) fn default_endpoint() -> Endpoint {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    Endpoint::Unix(match runtime {
        Some(dir) => dir.join("tillwire.sock"),
        None => PathBuf::from(format!("/tmp/tillwire-{}.sock", user())),
    })
}

/// The number of the user this process runs as: who owns its entry in /proc, or else the home directory.
pub(crate) fn user() -> u32 {
    let own = std::fs::metadata("/proc/self").or_else(|_| {
        std::env::home_dir().map_or_else(|| Err(std::io::ErrorKind::NotFound.into()), std::fs::metadata)
    });
    own.map_or(0, |metadata| metadata.uid())
}

/// Why no line came.
#[derive(Debug)]
pub(crate) enum LineError {
    /// Longer than [`LINE_BYTES_MAX`].
    TooLong,
    /// Not a JSON object.
    NotJson(String),
    /// The connection broke.
    Io(std::io::Error),
}

impl core::fmt::Display for LineError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooLong => write!(f, "a line of more than {LINE_BYTES_MAX} bytes"),
            Self::NotJson(error) => write!(f, "a line that is no JSON object: {error}"),
            Self::Io(error) => write!(f, "{error}"),
        }
    }
}

/// The next line's object; `None` at the end. May be dropped and called again: what was read stays in `partial`.
pub(crate) async fn read_line(
    from: &mut (impl AsyncBufRead + Unpin),
    partial: &mut Vec<u8>,
) -> Result<Option<Value>, LineError> {
    loop {
        let chunk = from.fill_buf().await.map_err(LineError::Io)?;
        if chunk.is_empty() {
            return Ok(None);
        }
        let end = chunk.iter().position(|&byte| byte == b'\n');
        let taken = end.map_or(chunk.len(), |end| end + 1);
        partial.extend_from_slice(&chunk[..taken]);
        from.consume(taken);
        if partial.len() > LINE_BYTES_MAX {
            return Err(LineError::TooLong);
        }
        if end.is_some() {
            let line = core::mem::take(partial);
            return match serde_json::from_slice(&line) {
                Ok(value @ Value::Object(_)) => Ok(Some(value)),
                Ok(_) => Err(LineError::NotJson("another value".to_owned())),
                Err(error) => Err(LineError::NotJson(error.to_string())),
            };
        }
    }
}

/// Writes one object as one line.
pub(crate) async fn write_line(to: &mut (impl AsyncWrite + Unpin), object: &Value) -> std::io::Result<()> {
    to.write_all(format!("{object}\n").as_bytes()).await?;
    to.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_is_for_loopback_and_everything_else_is_a_path() {
        assert_eq!(endpoint("127.0.0.1:8090"), Ok(Endpoint::Tcp("127.0.0.1:8090".parse().unwrap())));
        assert_eq!(endpoint("[::1]:8090"), Ok(Endpoint::Tcp("[::1]:8090".parse().unwrap())));
        assert!(endpoint("192.168.1.4:8090").is_err());
        assert!(endpoint("0.0.0.0:8090").is_err());
        assert!(endpoint("").is_err());
        assert_eq!(endpoint("/run/till.sock"), Ok(Endpoint::Unix("/run/till.sock".into())));
    }

    async fn read(bytes: &[u8]) -> Result<Option<Value>, LineError> {
        read_line(&mut tokio::io::BufReader::with_capacity(7, bytes), &mut Vec::new()).await
    }

    #[tokio::test]
    async fn lines_at_their_limit_and_one_past_it() {
        let line = |len: usize| format!("{{\"a\":\"{}\"}}\n", "x".repeat(len - 9));
        assert_eq!(line(20).len(), 20);
        assert!(matches!(read(line(LINE_BYTES_MAX).as_bytes()).await, Ok(Some(_))));
        assert!(matches!(read(line(LINE_BYTES_MAX + 1).as_bytes()).await, Err(LineError::TooLong)));
        assert!(matches!(read(b"").await, Ok(None)));
        assert!(matches!(read(b"{\"cut\":").await, Ok(None)));
        for wrong in ["POST / HTTP/1.1\r\n", "[]\n", "\n", "\"do\"\n", "{} {}\n"] {
            assert!(matches!(read(wrong.as_bytes()).await, Err(LineError::NotJson(_))), "{wrong:?}");
        }
    }
}
