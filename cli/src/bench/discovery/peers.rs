//! The devices of `bench discovery`, in a process of their own: a farm, announces made in advance, or forged datagrams.
//!
//! | line | what it does | what it says |
//! | --- | --- | --- |
//! | `boot MS PPM` | boots every device within so many ms; so many of a million datagrams are lost | `booted` |
//! | `round` | who registers from here on is counted anew | `counting` |
//! | `registered MS` | waits until all have registered in this round, so long at most | `registered` |
//! | `link` | tells every device that its push session is healthy | `linked` |
//! | `run MS` | lets them live, counting anew | `ran` |
//! | `off` | ends the devices | `off` |
//! | `fire PER_S MS` | sends each device's ANNOUNCE until all have an ACK; 0 a second: as fast as it goes | `fired` |
//! | `forge N` | sends forged ANNOUNCEs of random ids from random addresses | `forged` |

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::farm::{Announces, Farm, FarmConfig, Forger, Loss, Sockets, receive_drops};
use wire_format::datagram::header::Kind;

use super::super::machine;
use super::{BROADCAST, micros};
use crate::error::{Failure, Outcome, Verdict};
use crate::out;

/// The address of the first device; the others follow.
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 58, 0, 1);
/// Forged sources: half of what loopback has, beside the devices and servers.
const FORGED: (Ipv4Addr, u32) = (Ipv4Addr::new(127, 128, 0, 0), 0x7F_FF00);
/// Forged datagrams between two looks at what came back.
const FORGED_BETWEEN: u32 = 64;

/// The hidden command.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Args {
    #[arg(long)]
    devices: u32,
    /// Where the server listens.
    #[arg(long)]
    at: SocketAddrV4,
    /// Authenticated mode.
    #[arg(long)]
    auth: bool,
    /// Run on this core.
    #[arg(long)]
    core: Option<usize>,
}

/// Does what its input says until that ends.
pub(crate) fn run(args: Args) -> Outcome {
    let pinned = args.core.is_some_and(machine::pin);
    let broken = |error: std::io::Error| Failure::broken(format!("the devices broke: {error}"), "");
    let config = FarmConfig {
        authenticated: args.auth,
        ..FarmConfig::new(args.devices, FIRST, args.at.port(), super::node::store()?)
    };
    let mut peers = Peers { args, config, farm: None, offset_us: 0, announces: None };
    let told = lines();
    out::json(&json!({"event": "ready", "pinned": pinned}));
    loop {
        let line = match &mut peers.farm {
            // The devices live on while nothing is asked.
            Some(farm) => match told.try_recv() {
                Ok(line) => line,
                Err(TryRecvError::Empty) => {
                    farm.turn(Duration::from_millis(5)).map_err(broken)?;
                    continue;
                }
                Err(TryRecvError::Disconnected) => return Ok(Verdict::AllRight),
            },
            None => match told.recv() {
                Ok(line) => line,
                Err(_) => return Ok(Verdict::AllRight),
            },
        };
        let said = peers.obey(&line).map_err(broken)?;
        out::json(&said);
    }
}

fn lines() -> Receiver<String> {
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    told
}

struct Peers {
    args: Args,
    config: FarmConfig,
    farm: Option<Farm>,
    /// What the farm's clock is behind the machine's.
    offset_us: u64,
    announces: Option<(Announces, Sockets)>,
}

impl Peers {
    fn obey(&mut self, line: &str) -> std::io::Result<Value> {
        let mut words = line.split(' ');
        let what = words.next().unwrap_or_default();
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or_default();
        let (one, two) = (number(), number());
        match what {
            "boot" => self.boot(Duration::from_millis(one), two as f64 / 1e6),
            "fire" => self.fire(u32::try_from(one).unwrap_or_default(), Duration::from_millis(two)),
            "forge" => self.forge(u32::try_from(one).unwrap_or(u32::MAX)),
            "off" => {
                self.farm = None;
                Ok(json!({"event": "off"}))
            }
            _ => self.command(what, Duration::from_millis(one)),
        }
    }

    /// What only devices that are on can do.
    fn command(&mut self, what: &str, span: Duration) -> std::io::Result<Value> {
        let Some(farm) = &mut self.farm else { return Ok(json!({"event": "off"})) };
        match what {
            "round" => {
                farm.crowd.begin_round();
                farm.crowd.counts = testkit::farm::Counts::default();
                Ok(json!({"event": "counting"}))
            }
            "link" => {
                farm.set_linked(true);
                Ok(json!({"event": "linked"}))
            }
            "registered" => {
                let all = farm.run_until(span, |crowd| crowd.registered_in_round() == crowd.devices())?;
                let mut said = counts(farm, "registered");
                said["all"] = all.into();
                said["at_us"] = (farm.crowd.counts.last_registered.as_micros() + self.offset_us).into();
                Ok(said)
            }
            _ => {
                farm.crowd.counts = testkit::farm::Counts::default();
                farm.run_for(span)?;
                Ok(counts(farm, "ran"))
            }
        }
    }

    fn boot(&mut self, within: Duration, lost: f64) -> std::io::Result<Value> {
        self.announces = None;
        let config = FarmConfig { loss: Loss::all(lost), ..self.config.clone() };
        let mut farm = Farm::open(&config)?;
        self.offset_us = micros(machine::now()).saturating_sub(farm.now().as_micros());
        farm.boot_within(within);
        self.farm = Some(farm);
        Ok(json!({"event": "booted"}))
    }

    fn fire(&mut self, per_s: u32, within: Duration) -> std::io::Result<Value> {
        let (announces, sockets) = match &mut self.announces {
            Some(ready) => ready,
            none => none.insert((
                Announces::new(&self.config, 1),
                Sockets::open(0, SocketAddrV4::new(BROADCAST, self.args.at.port()))?,
            )),
        };
        let before = receive_drops(self.args.at);
        let fired = announces.fire(sockets, self.args.at, (per_s > 0).then_some(per_s), within)?;
        let drops = receive_drops(self.args.at).zip(before).map(|(after, before)| after - before);
        Ok(json!({
            "event": "fired",
            "announce_bytes": announces.len_each(),
            "sent": fired.sent,
            "acked": fired.acked,
            "refused": fired.refused,
            "elapsed_us": micros(fired.elapsed),
            "drops": drops,
        }))
    }

    fn forge(&self, count: u32) -> std::io::Result<Value> {
        let Self { args, config, .. } = self;
        let mut forger = Forger::new(args.at, BROADCAST, config.store, FORGED, config.seed)?;
        let begun = machine::now();
        let mut left = count;
        while left > 0 {
            for _ in 0..left.min(FORGED_BETWEEN) {
                // What the system does not take is not sent, and another one is.
                let _source = forger.announce(config.push_port);
            }
            left -= left.min(FORGED_BETWEEN);
            forger.listen(Duration::ZERO)?;
        }
        let elapsed = machine::now() - begun;
        forger.listen(Duration::from_millis(300))?;
        Ok(json!({
            "event": "forged",
            "sent": forger.sent,
            "sent_bytes": forger.sent_bytes,
            "heard": forger.heard,
            "heard_bytes": forger.heard_bytes,
            "heard_broadcast_bytes": forger.heard_broadcast_bytes,
            "elapsed_us": micros(elapsed),
        }))
    }
}

fn counts(farm: &Farm, event: &str) -> Value {
    let crowd = &farm.crowd;
    let (peak, mean) = crowd.counts.announce_peak_and_mean();
    json!({
        "event": event,
        "registered": crowd.registered_in_round(),
        "broadcasts": crowd.counts.broadcasts,
        "sent": crowd.counts.sent_in_all(),
        "sent_seek": crowd.counts.sent(Kind::Seek),
        "sent_announce": crowd.counts.sent(Kind::Announce),
        "heard": crowd.counts.heard_in_all(),
        "heard_beacon": crowd.counts.heard(Kind::Beacon),
        "lost": crowd.counts.lost,
        "announces_per_10_ms_max": peak,
        "announces_per_10_ms_mean": mean,
        "own_drops": farm.own_drops(),
        "send_errors": farm.send_errors(),
    })
}
