//! A payload of 8 MiB on a line that is slower than it: what is urgent does not wait for it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest, Sha256};
use testkit::proxy::Faults;
use tillwire::wire::frame::part::BLOB_MAX;
use tillwire::{Delivered, Lane, Order, OrderKind, Outcome, Target, Verdict};
use tokio::time::{Instant, timeout};

use super::{SOON, device, eventually, listed, proxy, server, up};

/// The whole payload takes four seconds on it.
const RATE_PER_S: u32 = BLOB_MAX / 4;
const IMAGE: OrderKind = OrderKind(0x8003);
const RECALL: OrderKind = OrderKind(0x8004);

/// What the device was handed, in its order: the kind, and the digest of the payload.
type Handed = Arc<Mutex<Vec<(OrderKind, [u8; 32])>>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_urgent_recall_passes_eight_mebibytes_on_a_throttled_line() {
    let handed = Handed::default();
    let take = {
        let handed = Arc::clone(&handed);
        move |delivered: &Delivered<'_>| {
            let digest = Sha256::digest(delivered.order.payload).into();
            handed.lock().unwrap().push((delivered.order.kind, digest));
            Verdict::Applied
        }
    };
    let device = device(1).start(take).await.unwrap();
    let proxy = proxy(device.address(), up(Faults { rate: RATE_PER_S, ..Faults::default() })).await;
    let server = server().device(listed(1, proxy.address())).start().await.unwrap();
    let payload: Vec<u8> = (0..BLOB_MAX).map(|at| ((at >> 12) ^ (at * 7)) as u8).collect();
    let digest: [u8; 32] = Sha256::digest(&payload).into();

    let pieces = async || server.stats().await.unwrap().push.fleet.pieces;
    let image = Order::new(IMAGE, 1, &payload).idempotent();
    let image = server.push(&image, &Target::all()).await.unwrap();
    let since = Instant::now();
    eventually("pieces arrive", async || pieces().await > 64).await;

    let recall = Order::new(RECALL, 1, b"article 4711").lane(Lane::Urgent);
    let pushed = Instant::now();
    let report = server.push(&recall, &Target::all()).await.unwrap().settled(SOON).await;
    let (recalled, sent) = (pushed.elapsed(), pieces().await);
    assert_eq!(report.outcomes(), [(Outcome::APPLIED, 1)]);
    // While parts are still arriving: the device has neither the whole payload, nor has the server sent it.
    assert_eq!(handed.lock().unwrap().iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [RECALL]);
    assert_eq!(image.report().await.unsettled(), 1);
    assert!(sent < u64::from(BLOB_MAX / 4_096), "{sent} pieces were sent when the recall was answered");

    let report = timeout(SOON * 4, image.settled(SOON * 4)).await.unwrap();
    assert_eq!(report.outcomes(), [(Outcome::APPLIED, 1)]);
    assert_eq!(handed.lock().unwrap().last(), Some(&(IMAGE, digest)), "every byte of it, once");
    assert_eq!(handed.lock().unwrap().len(), 2);
    // However slow this host is, the recall did not wait for a line's worth of the payload.
    let whole = since.elapsed();
    assert!(recalled * 2 < whole + Duration::from_millis(500), "{recalled:?} of {whole:?}");
    server.shutdown().await;
}
