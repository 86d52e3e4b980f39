//! The demo's server on a thread of its own, so that what serving costs can be told from what the demo does besides.

use std::sync::Arc;
use std::thread::JoinHandle;

use testkit::alloc::{Counts, count};
use tillwire::StoreServer;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use super::Args;
use crate::error::Failure;

/// A running server, and the signals its thread waits for.
pub(super) struct Serving {
    pub(super) server: Arc<StoreServer>,
    begin: oneshot::Sender<()>,
    end: oneshot::Sender<()>,
    finish: oneshot::Sender<()>,
    counts: oneshot::Receiver<Counts>,
    thread: JoinHandle<()>,
}

/// The server after its orders, with what its thread took from the allocator while they were pushed and settled.
pub(super) struct Served {
    pub(super) server: Arc<StoreServer>,
    pub(super) counts: Counts,
    finish: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Serving {
    /// Starts the server on its thread.
    pub(super) async fn start(args: Args) -> Result<Self, Failure> {
        let (hand_out, started) = oneshot::channel();
        let (begin, begun) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel::<()>();
        let (finish, finished) = oneshot::channel::<()>();
        let (tell, counts) = oneshot::channel();
        let lost = |cause: String| Failure::broken(format!("the server's thread ended: {cause}"), "");
        let work = move || {
            let runtime = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(hand_out.send(Err(lost(error.to_string())))),
            };
            let server = runtime.block_on(super::server(args));
            if hand_out.send(server).is_err() || runtime.block_on(begun).is_err() {
                return;
            }
            // An error is the demo that has gone: it ends the phase as well.
            let counts = count(|| drop(runtime.block_on(ended)));
            let _ = tell.send(counts);
            let _ = runtime.block_on(finished);
        };
        let thread = std::thread::Builder::new().name("server".to_owned()).spawn(work);
        let thread = thread.map_err(|error| lost(error.to_string()))?;
        let server = started.await.map_err(|error| lost(error.to_string()))??;
        Ok(Self { server: Arc::new(server), begin, end, finish, counts, thread })
    }

    /// Pushes with `push`, counting what the server's thread allocates meanwhile.
    pub(super) async fn counted<T>(
        self,
        push: impl AsyncFnOnce(&Arc<StoreServer>) -> Result<T, Failure>,
    ) -> Result<(Served, T), Failure> {
        let Self { server, begin, end, finish, counts, thread } = self;
        let _ = begin.send(());
        let done = push(&server).await?;
        let _ = end.send(());
        let counts =
            counts.await.map_err(|error| Failure::broken(format!("nothing was counted: {error}"), ""))?;
        Ok((Served { server, counts, finish, thread }, done))
    }
}

impl Served {
    /// Says goodbye to the devices and ends the thread.
    pub(super) async fn shutdown(self) {
        if let Some(server) = Arc::into_inner(self.server) {
            server.shutdown().await;
        }
        let _ = self.finish.send(());
        let _ = tokio::task::spawn_blocking(move || self.thread.join()).await;
    }
}
