//! The cable is pulled while orders are on their way: a device in a network of its own, whose link goes down.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use push::ended::Ended;
use tillwire::Outcome;
use tokio::time::{Instant, sleep, timeout};

use super::judge::Judge;
use super::process::Process;
use super::{SOON, device, eventually, id, listed, next_end, once, page, server};

/// Known dead within 6 s; what a busy host may be late on top.
const DEAD_WITHIN: Duration = Duration::from_secs(8);
const FAR: u8 = 1;
const NEAR: u8 = 2;

/// A network namespace with one host in it, at the other end of a cable. Dropped, it is gone.
struct Cable {
    namespace: String,
    net: u8,
}

fn ip(words: &str) -> Result<(), String> {
    let output =
        Command::new("ip").args(words.split(' ')).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {words}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

impl Cable {
    /// 10.213.`net`.1 on this side, .2 on the other; or why this host does not permit it.
    fn lay(net: u8) -> Result<Self, String> {
        let namespace = format!("tillwire-{}-{net}", std::process::id());
        let (near, far) = (format!("twn{net}"), format!("twf{net}"));
        ip(&format!("netns add {namespace}"))?;
        let cable = Self { namespace, net };
        let inside = format!("-n {}", cable.namespace);
        ip(&format!("link add {near} type veth peer name {far} netns {}", cable.namespace))?;
        ip(&format!("addr add 10.213.{net}.1/30 dev {near}"))?;
        ip(&format!("{inside} addr add 10.213.{net}.2/30 dev {far}"))?;
        ip(&format!("link set {near} up"))?;
        ip(&format!("{inside} link set lo up"))?;
        ip(&format!("{inside} link set {far} up"))?;
        Ok(cable)
    }

    /// Puts the cable in (`up`) or pulls it out (`down`), at the far end.
    fn put(&self, how: &str) {
        ip(&format!("-n {} link set twf{} {how}", self.namespace, self.net)).unwrap();
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        let _ = ip(&format!("netns del {}", self.namespace));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cable_pulled_amid_orders_costs_no_order_and_delays_nobody() {
    let net = 1 + (std::process::id() % 250) as u8;
    let cable = match Cable::lay(net) {
        Ok(cable) => cable,
        Err(why) => {
            println!("skipped: no network namespace can be made here: {why}");
            return;
        }
    };
    let judge = Judge::new();
    let inside = ["ip", "netns", "exec", &cable.namespace];
    let address = format!("10.213.{net}.2:0").parse().unwrap();
    let (_far, address) = Process::device(&judge, FAR, address, &inside).await;
    let near = device(NEAR).start(judge.apply(NEAR)).await.unwrap();
    let server = Arc::new(
        server().device(listed(FAR, address)).device(listed(NEAR, near.address())).start().await.unwrap(),
    );
    eventually("both connect", async || server.stats().await.unwrap().push.connected == 2).await;
    let mut events = server.subscribe();

    // Enough that some are half written when the cable goes.
    for n in 0..60 {
        judge.push(&server, 1, if n % 2 == 0 { page } else { once }, 60_000, &[FAR]).await;
    }
    cable.put("down");
    let since = Instant::now();
    let watch = timeout(DEAD_WITHIN, next_end(&mut events));
    let serve = async {
        loop {
            let deed = judge.push(&server, 1, once, 8, &[NEAR]).await;
            let report = judge.settled(&deed, Duration::from_secs(2)).await;
            assert_eq!(report.count(Outcome::APPLIED), 1, "the other one is served");
            sleep(Duration::from_millis(20)).await;
        }
    };
    let (who, why) = tokio::select! {
        end = watch => end.expect("known dead in time"),
        () = serve => unreachable!("it serves for ever"),
    };
    judge.note(format!("the session with {who:?} ended after {:?}: {why}", since.elapsed()));
    assert_eq!(who, Some(id(FAR)));
    assert!(matches!(why, Ended::Dead | Ended::Closed(_)), "{why}");

    cable.put("up");
    judge.all_applied_once(SOON * 2).await;
}
