//! Who answers at an address, and who may: exchanged devices, servers beside their successors, dead connections.

use std::sync::Arc;
use std::time::Duration;

use push::ended::Ended;
use testkit::history::Event;
use testkit::proxy::{Faults, OnKind, Plan, Proxy};
use tillwire::{Device, Outcome, ServerEvent, StoreServer};
use tokio::sync::broadcast::Receiver;
use tokio::time::{Instant, sleep, timeout};
use wire_format::frame::{Kind, reject};

use super::judge::Judge;
use super::link::Link;
use super::{
    AFTER_HELLO, SOON, cut_at, device, down, each, eventually, id, listed, next_end, once, page, proxy,
    server, up,
};

/// A header and the eight bytes of a goodbye at most: what a device may still hear after its HELLO if it is the wrong one.
const GOODBYE: u64 = 28;

/// Two devices, and the two addresses where they are reached.
struct Exchange {
    judge: Arc<Judge>,
    devices: [Device; 2],
    proxies: [Proxy; 2],
    server: StoreServer,
}

impl Exchange {
    async fn start() -> Self {
        let judge = Judge::new();
        let one = device(1).start(judge.apply(1)).await.unwrap();
        let two = device(2).start(judge.apply(2)).await.unwrap();
        let proxies =
            [proxy(one.address(), Plan::default()).await, proxy(two.address(), Plan::default()).await];
        let builder =
            server().device(listed(1, proxies[0].address())).device(listed(2, proxies[1].address()));
        let server = builder.start().await.unwrap();
        let it = Self { judge, devices: [one, two], proxies, server };
        it.both_connected().await;
        it
    }

    async fn both_connected(&self) {
        eventually("both are connected", async || self.server.stats().await.unwrap().push.connected == 2)
            .await;
    }

    /// Each address leads to the device given.
    fn lead_to(&self, devices: [usize; 2]) {
        self.judge.note(format!("the addresses lead to {devices:?}"));
        for (proxy, to) in self.proxies.iter().zip(devices) {
            proxy.set_target(self.devices[to].address());
        }
    }

    /// One order for each, and some for both.
    async fn push(&self) {
        for n in 0..4 {
            for targets in [&[1][..], &[2], &[1, 2]] {
                self.judge.push(&self.server, 1, if n % 2 == 0 { page } else { once }, 300, targets).await;
            }
        }
    }

    /// Until each address was tried and answered by the wrong device; no order byte went there.
    async fn refused_at_both(&self) {
        let mut most = [0; 2];
        let refused = async || {
            // Each by itself: one address may be tried twice before the other is.
            for (most, proxy) in most.iter_mut().zip(&self.proxies) {
                *most = proxy.most_up().max(*most);
            }
            let stats = self.server.stats().await.unwrap().push;
            let ends = stats.fleet.rejected + stats.fleet.wrong_device;
            ends >= 2 && stats.connected == 0 && most.iter().all(|&most| most > 0)
        };
        eventually("the wrong devices refuse", refused).await;
        for most in most {
            assert!(most <= AFTER_HELLO + GOODBYE, "{most} bytes went to the wrong device");
        }
    }

    /// The leases are as they were; every order is applied once, where it belongs.
    async fn exchange_back(self) {
        self.lead_to([0, 1]);
        // A refused dial is repeated after up to a minute; a device that is announced is dialled at once, so the server
        // is started anew here and the orders with it.
        self.judge.record(Event::Gone { log: 1 });
        drop(self.server);
        let builder = server()
            .device(listed(1, self.proxies[0].address()))
            .device(listed(2, self.proxies[1].address()));
        let again = builder.start().await.unwrap();
        for targets in [&[1][..], &[2], &[1, 2]] {
            let deed = self.judge.push(&again, 2, once, 300, targets).await;
            assert_eq!(self.judge.settled(&deed, SOON).await.count(Outcome::APPLIED), targets.len());
        }
        self.judge.history.assert_kept();
    }
}

#[tokio::test]
async fn devices_whose_addresses_are_exchanged_while_connected_get_no_order_of_the_other() {
    let it = Exchange::start().await;
    it.push().await;
    it.judge.all_applied_once(SOON).await;
    for proxy in &it.proxies {
        let _ = proxy.most_up();
    }
    it.lead_to([1, 0]);
    it.proxies.iter().for_each(Proxy::cut_all);
    it.push().await;
    it.refused_at_both().await;
    it.exchange_back().await;
}

#[tokio::test]
async fn devices_whose_addresses_are_exchanged_while_offline_get_no_order_of_the_other() {
    let it = Exchange::start().await;
    // Nobody is reached until the addresses have changed; orders wait meanwhile.
    it.proxies.iter().for_each(|proxy| proxy.set_plan(up(cut_at(0))));
    it.proxies.iter().for_each(Proxy::cut_all);
    eventually("both are away", async || it.server.stats().await.unwrap().push.connected == 0).await;
    it.push().await;
    for proxy in &it.proxies {
        let _ = proxy.most_up();
    }
    it.lead_to([1, 0]);
    it.proxies.iter().for_each(|proxy| proxy.set_plan(Plan::default()));
    it.refused_at_both().await;
    it.exchange_back().await;
}

/// The next end of a session that is a refusal, and its code.
async fn next_refusal(events: &mut Receiver<ServerEvent>) -> reject::Code {
    let next = async {
        loop {
            if let (_, Ended::Rejected { code, .. }) = next_end(events).await {
                return code;
            }
        }
    };
    timeout(SOON, next).await.expect("a refusal")
}

#[tokio::test]
async fn a_server_that_restarts_twenty_times_beside_its_successor_disturbs_nobody() {
    const SUCCESSOR: u64 = 99;
    let judge = Judge::new();
    judge.record(Event::Log { log: SUCCESSOR, fence: 2 });
    let device = device(1).start(judge.apply(1)).await.unwrap();
    let successor =
        server().fence(2).server_id(id(101)).device(listed(1, device.address())).start().await.unwrap();
    judge.push(&successor, SUCCESSOR, once, 8, &[1]).await;
    judge.all_applied_once(SOON).await;
    for log in 1..=20 {
        judge.record(Event::Log { log, fence: 1 });
        let old = server().server_id(id(100)).device(listed(1, device.address())).start().await.unwrap();
        let mut events = old.subscribe();
        let stale = judge.push(&old, log, page, 8, &[1]).await;
        let code = next_refusal(&mut events).await;
        // Beside a living session its lease is what stands in the way.
        assert!(matches!(code, reject::Code::STALE_FENCE | reject::Code::LEASE_HELD), "{code}");
        let deed = judge.push(&successor, SUCCESSOR, once, 8, &[1]).await;
        assert_eq!(judge.settled(&deed, SOON).await.count(Outcome::APPLIED), 1);
        judge.tell(&stale, &stale.fan_out.report().await).await;
        judge.record(Event::Gone { log });
        assert_eq!(judge.history.effects(stale.order), 0);
        old.shutdown().await;
    }
    let stats = successor.stats().await.unwrap().push;
    assert_eq!((stats.fleet.sessions, stats.connected), (1, 1), "its session was never ended");
    judge.history.assert_kept();
}

#[tokio::test]
async fn a_staging_server_with_a_higher_fence_leaves_no_trace() {
    let judge = Judge::new();
    let device = device(1).start(judge.apply(1)).await.unwrap();
    let staging = server()
        .staging(true)
        .fence(u64::MAX)
        .server_id(id(102))
        .device(listed(1, device.address()))
        .start()
        .await
        .unwrap();
    let mut events = staging.subscribe();
    let never = judge.push(&staging, 2, page, 8, &[1]).await;
    assert_eq!(next_refusal(&mut events).await, reject::Code::STAGING);
    // The device never saw that fence: a production server with a low one is served at once.
    let production = server().fence(1).device(listed(1, device.address())).start().await.unwrap();
    for _ in 0..8 {
        let deed = judge.push(&production, 1, once, 8, &[1]).await;
        assert_eq!(judge.settled(&deed, SOON).await.count(Outcome::APPLIED), 1);
    }
    assert_eq!(never.fan_out.report().await.unsettled(), 1);
    judge.record(Event::Gone { log: 2 });
    assert_eq!(judge.history.effects(never.order), 0);
    judge.history.assert_kept();
}

#[tokio::test]
async fn a_device_that_holds_a_dead_connection_takes_a_new_one_at_once() {
    let len = page(&[0; 8]).encoded_len() as u64;
    let cases = [0, 1, len, 2 * len].map(|at| async move {
        let plan = Plan { half_open: true, ..up(cut_at(AFTER_HELLO + at)) };
        let mut link = Link::start(plan).await;
        link.push(page, 8).await;
        link.push(once, 8).await;
        let why = link.hit(Plan::default()).await;
        let since = Instant::now();
        assert!(matches!(why, Ended::Closed(_)), "{why}");
        link.push(once, 8).await;
        link.all_applied_once().await;
        // Its own limit for a dead connection is 10 s; the backoff of the first redials is 0.2 and 0.4 s.
        assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
        assert_eq!(link.device_closed().await, Ended::Replaced, "the dead one goes when the new one comes");
    });
    each(cases).await;
}

fn on_outcome(act: OnKind) -> Faults {
    Faults { on_kind: Some((Kind::OUTCOME.0, act)), ..Faults::default() }
}

#[tokio::test]
async fn an_outcome_lost_after_the_effect_is_told_again() {
    let cases = [true, false].map(|reset| async move {
        let mut link = Link::start(Plan { reset, ..down(on_outcome(OnKind::Cut)) }).await;
        for n in 0..8 {
            link.push(if n % 2 == 0 { page } else { once }, 8).await;
        }
        link.hit(down(on_outcome(OnKind::Cut))).await;
        // The second is lost as well; the third connection is whole.
        let twice = async || link.server.stats().await.unwrap().push.fleet.sessions >= 2;
        eventually("a second session", twice).await;
        link.proxy.set_plan(Plan::default());
        link.all_applied_once().await;
        assert_eq!(link.judge.history.count(|event| matches!(event, Event::Effect { .. })), 8);
    });
    each(cases).await;
}

#[tokio::test]
async fn an_outcome_that_comes_late_is_credited_to_its_order_alone() {
    // Late within the session; and later than the session, which another has followed by then.
    let cases = [(3, false), (7, true)].map(|(late_s, ends)| async move {
        let mut link = Link::start(down(on_outcome(OnKind::Hold(Duration::from_secs(late_s))))).await;
        for n in 0..4 {
            link.push(if n % 2 == 0 { page } else { once }, 8).await;
        }
        if ends {
            assert_eq!(link.hit(Plan::default()).await, Ended::Dead);
        }
        link.push(once, 8).await;
        link.all_applied_once().await;
        // The late one is out by now, if it can come at all.
        sleep(Duration::from_secs(1)).await;
        link.push(once, 8).await;
        link.all_applied_once().await;
        let stats = link.server.stats().await.unwrap().push.fleet;
        assert_eq!((stats.sessions, stats.outcomes_repeated), (1 + u64::from(ends), 0));
    });
    each(cases).await;
}

#[tokio::test]
async fn a_receipt_that_is_lost_costs_a_session_at_most() {
    let drop_all = |kind| Faults { on_kind: Some((kind, OnKind::Drop)), ..Faults::default() };
    let cases = [Kind::SETTLED, Kind::PING].map(|kind| async move {
        let link = Link::start(up(drop_all(kind.0))).await;
        for n in 0..20 {
            let deed = link.push(if n % 2 == 0 { page } else { once }, 8).await;
            link.judge.settled(&deed, SOON).await;
        }
        link.proxy.set_plan(Plan::default());
        link.all_applied_once().await;
    });
    each(cases).await;
}
