//! The server at the other end, which may go away and come back.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::control::Endpoint;
use crate::control::client::Client;
use crate::error::Failure;

/// Pause between attempts to reach a server that went away.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// What comes from there.
#[derive(Debug)]
pub(super) enum Heard {
    /// A line.
    Line(Value),
    /// It went away.
    Away(Failure),
    /// It is still away, for this reason.
    StillAway(Failure),
    /// It is back; this is its first line.
    Back(Value),
}

/// A watch on a server.
pub(super) struct Link {
    endpoint: Option<Endpoint>,
    client: Option<Client>,
    attempt: JoinSet<Result<Client, Failure>>,
    attempt_at: Instant,
}

impl Link {
    /// Opens it; the server's first line comes with it.
    pub(super) async fn open(endpoint: Option<Endpoint>, request: &str) -> Result<(Self, Value), Failure> {
        let mut client = Client::connect(endpoint.as_ref()).await?;
        client.ask(&json!({"do": request})).await?;
        let hello = client.hello().clone();
        let link =
            Self { endpoint, client: Some(client), attempt: JoinSet::new(), attempt_at: Instant::now() };
        Ok((link, hello))
    }

    /// What comes next. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Heard {
        let Some(client) = &mut self.client else { return self.try_again().await };
        let failure = match client.next().await {
            Ok(Some(line)) => return Heard::Line(line),
            Ok(None) => Failure::broken("the server has ended", "start it again with tillwire serve"),
            Err(failure) => failure,
        };
        self.client = None;
        self.attempt_at = Instant::now() + RETRY_AFTER;
        Heard::Away(failure)
    }

    /// Asks for the roster again. A server that is away lists it when it is back.
    pub(super) async fn relist(&mut self) {
        if let Some(client) = &mut self.client {
            // If it went away, the next line says so.
            let _ = client.ask(&json!({"do": "roster"})).await;
        }
    }

    async fn try_again(&mut self) -> Heard {
        if self.attempt.is_empty() {
            tokio::time::sleep_until(self.attempt_at).await;
            let endpoint = self.endpoint.clone();
            self.attempt.spawn(async move {
                let mut client = Client::connect(endpoint.as_ref()).await?;
                client.ask(&json!({"do": "watch"})).await?;
                Ok(client)
            });
        }
        match self.attempt.join_next().await {
            Some(Ok(Ok(client))) => {
                let hello = client.hello().clone();
                self.client = Some(client);
                Heard::Back(hello)
            }
            ended => {
                self.attempt_at = Instant::now() + RETRY_AFTER;
                let failure = match ended {
                    Some(Ok(Err(failure))) => failure,
                    _ => Failure::broken("the attempt to reach it failed", ""),
                };
                Heard::StillAway(failure)
            }
        }
    }
}
