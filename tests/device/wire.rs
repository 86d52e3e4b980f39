//! The other end of a device's connection: frames by hand, so that these tests hold whatever our own server does.

use std::net::SocketAddr;
use std::time::Duration;

use tillwire::wire::error::EmitError;
use tillwire::wire::frame::ask::Ask;
use tillwire::wire::frame::hello::{LogHead, feature};
use tillwire::wire::frame::order::{Delivery, KindFlags};
use tillwire::wire::frame::{
    Bye, Drain, Hello, Kind, Order, OrderResult, Outcome, Ping, Progress, Raw, Reply, Settled, Want, Welcome,
};
use tillwire::wire::splitter::{Split, split};
use tillwire::{Lane, Lineage, NodeId, OrderKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{SOON, store};

const MAX_BODY: u32 = 65_840;

/// A server of its own making.
pub(super) struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
    /// Features the device declared.
    pub(super) features: u32,
}

/// A frame of the device, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Ended { number: u64, code: u8, ms: u32 },
    Result { number: u64, payload: Vec<u8> },
    Progress { number: u64, per_mille: u16, phase: u16 },
    Ask { correlation: u32, generation: u32, kind: OrderKind, schema: u16, payload: Vec<u8> },
    Reply { correlation: u32, code: u8, schema: u16, age_ms: u32, payload: Vec<u8> },
    Want { offset: u32, pieces: u16 },
    Acked { lane: Lane, number: u32 },
    Drain,
    Bye,
}

/// An order with nothing special about it.
pub(super) fn order(number: u64, lane: Lane, payload: &[u8]) -> Order<'_> {
    Order {
        number,
        order_key: 0,
        supersede_key: 0,
        supersede_version: 0,
        kind: OrderKind(0x8001),
        lane,
        kind_flags: KindFlags::NONE,
        schema: 1,
        options: &[],
        payload,
    }
}

/// A first delivery that lives for a minute.
pub(super) const FRESH: Delivery =
    Delivery { durable: false, replay: false, needs_result: false, remaining_ms: Some(60_000) };

impl Wire {
    /// Connects and greets as the server whose volatile log has given numbers up to `head`.
    pub(super) async fn connect(device: SocketAddr, head: u64) -> Self {
        Self::greet(device, head).await.expect("a WELCOME")
    }

    /// The same; `None` if the device answers with anything but WELCOME.
    pub(super) async fn greet(device: SocketAddr, head: u64) -> Option<Self> {
        let mut stream = TcpStream::connect(device).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let hello = Hello {
            version_min: 1,
            version_max: 1,
            staging: false,
            takeover: false,
            store: store(),
            max_body: MAX_BODY,
            target: NodeId::NONE,
            server: NodeId([9; 16]),
            fence: 1,
            epoch: 1,
            ping_interval_ms: 3_000,
            features: feature::ASK,
            durable: LogHead::default(),
            volatile: LogHead { lineage: Lineage([8; 16]), run: 5, head },
        };
        let mut bytes = vec![0; 1_024];
        let len = hello.emit(&mut bytes).unwrap();
        stream.write_all(&bytes[..len]).await.unwrap();
        let mut wire = Self { stream, unread: Vec::new(), features: 0 };
        let (_, frame) = wire.frame().await.filter(|(kind, _)| *kind == Kind::WELCOME)?;
        wire.features = Welcome::parse(&Raw::parse(&frame).unwrap()).unwrap().features;
        Some(wire)
    }

    /// Sends frames in one write.
    pub(super) async fn send(&mut self, frames: &[Vec<u8>]) {
        self.stream.write_all(&frames.concat()).await.unwrap();
    }

    /// The next frame; `None` at the end of the connection.
    async fn frame(&mut self) -> Option<(Kind, Vec<u8>)> {
        loop {
            if let Ok(Split::Frame(raw)) = split(&self.unread, MAX_BODY) {
                let (kind, len) = (raw.header.kind, raw.len());
                return Some((kind, self.unread.drain(..len).collect()));
            }
            let read = timeout(SOON, self.stream.read_buf(&mut self.unread));
            if read.await.expect("a frame in time").unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// What the device says next, PONGs aside; the entries of an OUTCOME one by one. Empty at the end.
    pub(super) async fn heard(&mut self) -> Vec<Said> {
        loop {
            let Some((kind, frame)) = self.frame().await else { return Vec::new() };
            if kind == Kind::PING {
                let pong =
                    frame_of(|buffer| Ping::parse(&Raw::parse(&frame).unwrap()).unwrap().pong().emit(buffer));
                self.send(&[pong]).await;
            } else if kind != Kind::PONG {
                return said(kind, &Raw::parse(&frame).unwrap());
            }
        }
    }

    /// Everything the device says until `wanted` has been said `times`, without receipts.
    pub(super) async fn until(&mut self, times: usize, wanted: impl Fn(&Said) -> bool) -> Vec<Said> {
        let mut all = Vec::new();
        while all.iter().filter(|said| wanted(said)).count() < times {
            let heard = self.heard().await;
            assert!(!heard.is_empty(), "the connection ended after {all:?}");
            all.extend(heard.into_iter().filter(|said| !matches!(said, Said::Acked { .. })));
        }
        all
    }

    /// Everything until this order has ended.
    pub(super) async fn until_ended(&mut self, number: u64) -> Vec<Said> {
        self.until(1, |said| matches!(said, Said::Ended { number: ended, .. } if *ended == number)).await
    }

    /// Nothing but receipts comes for a while.
    pub(super) async fn quiet(&mut self, span: Duration) {
        let until = tokio::time::Instant::now() + span;
        while let Ok(heard) = tokio::time::timeout_at(until, self.heard()).await {
            let loud: Vec<_> = heard.iter().filter(|said| !matches!(said, Said::Acked { .. })).collect();
            assert!(!heard.is_empty() && loud.is_empty(), "heard {heard:?}");
        }
    }
}

fn said(kind: Kind, raw: &Raw<'_>) -> Vec<Said> {
    let one = match kind {
        Kind::OUTCOME => {
            let entries = Outcome::parse(raw).unwrap().entries;
            return entries
                .into_iter()
                .map(|entry| Said::Ended { number: entry.number, code: entry.code.0, ms: entry.ms })
                .collect();
        }
        Kind::RESULT => {
            let result = OrderResult::parse(raw).unwrap();
            Said::Result { number: result.number, payload: result.payload.to_vec() }
        }
        Kind::PROGRESS => {
            let Progress { number, per_mille, phase, .. } = Progress::parse(raw).unwrap();
            Said::Progress { number, per_mille, phase }
        }
        Kind::ASK => {
            let Ask { correlation, generation, kind, schema, payload, .. } = Ask::parse(raw).unwrap();
            Said::Ask { correlation, generation, kind, schema, payload: payload.to_vec() }
        }
        Kind::REPLY => {
            let Reply { correlation, schema, code, age_ms, payload, .. } = Reply::parse(raw).unwrap();
            Said::Reply { correlation, code: code.0, schema, age_ms, payload: payload.to_vec() }
        }
        Kind::WANT => {
            let Want { offset, pieces, .. } = Want::parse(raw).unwrap();
            Said::Want { offset, pieces }
        }
        Kind::ACK => {
            let ack = tillwire::wire::frame::Ack::parse(raw).unwrap();
            Said::Acked { lane: ack.lane, number: ack.number_low }
        }
        Kind::DRAIN => Drain::parse(raw).map(|_| Said::Drain).unwrap(),
        Kind::BYE => Bye::parse(raw).map(|_| Said::Bye).unwrap(),
        other => panic!("a {other} of a device"),
    };
    vec![one]
}

/// A frame as bytes.
pub(super) fn frame_of(emit: impl FnOnce(&mut [u8]) -> Result<usize, EmitError>) -> Vec<u8> {
    let mut buffer = vec![0; 70_000];
    let len = emit(&mut buffer).unwrap();
    buffer.truncate(len);
    buffer
}

pub(super) fn sent(delivery: Delivery, order: &Order<'_>) -> Vec<u8> {
    frame_of(|buffer| order.emit(&delivery, buffer))
}

pub(super) fn settled(lane: Lane, number: u64) -> Vec<u8> {
    frame_of(|buffer| Settled { durable: false, lane, number }.emit(buffer))
}
