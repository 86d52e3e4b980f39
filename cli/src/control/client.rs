//! The other end: what `push` and `watch` open.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;

use serde_json::Value;
use tokio::io::{AsyncWriteExt, BufReader, ReadHalf, WriteHalf};
use tokio::net::{TcpStream, UnixStream};

use super::listener::Stream;
use super::{Endpoint, LineError, VERSION, default_endpoint, read_line, user, write_line};
use crate::error::Failure;

/// A connection to a running server.
pub(crate) struct Client {
    hello: Value,
    reader: BufReader<ReadHalf<Box<dyn Stream>>>,
    writer: WriteHalf<Box<dyn Stream>>,
    partial: Vec<u8>,
}

impl Client {
    /// Connects and reads the server's first line.
    pub(crate) async fn connect(endpoint: Option<&Endpoint>) -> Result<Self, Failure> {
        let endpoint = endpoint.cloned().unwrap_or_else(default_endpoint);
        let stream = open(&endpoint).await.map_err(|error| unreachable_server(&endpoint, &error))?;
        let (reader, writer) = tokio::io::split(stream);
        let reader = BufReader::new(reader);
        let mut client = Self { reader, writer, partial: Vec::new(), hello: Value::Null };
        match client.next().await? {
            Some(hello) if hello["event"] == "hello" && hello["control"] == VERSION => {
                client.hello = hello;
                Ok(client)
            }
            _ => Err(Failure::start(
                format!(
                    "what listens at {endpoint} does not speak version {VERSION} of our control protocol"
                ),
                "is it a tillwire serve of the same version?",
            )),
        }
    }

    /// The server's first line: who it is, and which store it serves.
    pub(crate) const fn hello(&self) -> &Value {
        &self.hello
    }

    /// Sends a request.
    pub(crate) async fn ask(&mut self, request: &Value) -> Result<(), Failure> {
        write_line(&mut self.writer, request).await.map_err(|error| lost(&error.to_string()))
    }

    /// Sends what follows a request's line.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let sent = match self.writer.write_all(bytes).await {
            Ok(()) => self.writer.flush().await,
            error => error,
        };
        sent.map_err(|error| lost(&error.to_string()))
    }

    /// The next line; an error the server sends ends the command with it.
    pub(crate) async fn next(&mut self) -> Result<Option<Value>, Failure> {
        let line = match read_line(&mut self.reader, &mut self.partial).await {
            Ok(line) => line,
            Err(LineError::Io(error)) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => return Err(lost(&error.to_string())),
        };
        match line {
            Some(error) if error["event"] == "error" => Err(failure(&error)),
            line => Ok(line),
        }
    }

    /// The next line, which must come.
    pub(crate) async fn expect(&mut self) -> Result<Value, Failure> {
        self.next().await?.ok_or_else(|| lost("it closed the connection"))
    }
}

fn failure(error: &Value) -> Failure {
    let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    match error["started"] {
        Value::Bool(true) => Failure::broken(text("error"), text("help")),
        _ => Failure::start(text("error"), text("help")),
    }
}

async fn open(endpoint: &Endpoint) -> std::io::Result<Box<dyn Stream>> {
    match endpoint {
        Endpoint::Tcp(address) => Ok(Box::new(TcpStream::connect(address).await?)),
        Endpoint::Unix(path) => {
            // In a directory all may write to, a stranger could have made this name first.
            let (owner, own) = (std::fs::metadata(path)?.uid(), user());
            if owner != own && owner != 0 && own != 0 {
                return Err(std::io::Error::other(format!("it belongs to user {owner}")));
            }
            Ok(Box::new(UnixStream::connect(path).await?))
        }
    }
}

fn unreachable_server(endpoint: &Endpoint, error: &std::io::Error) -> Failure {
    Failure::start(
        format!("no server answers at the control socket {endpoint}: {error}"),
        "start one with tillwire serve, or name its socket with --control",
    )
}

fn lost(why: &str) -> Failure {
    Failure::broken(
        format!("the server went away: {why}"),
        "orders it had accepted may still be delivered; see its log",
    )
}
