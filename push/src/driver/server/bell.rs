//! How a shard is woken for something other than a socket: a message, a stop.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// Rung by handles, heard by one task.
#[derive(Debug, Default)]
pub(super) struct Bell(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    rung: bool,
    task: Option<Waker>,
}

impl Bell {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The task to wake from now on.
    pub(super) fn register(&self, waker: &Waker) {
        let mut state = self.lock();
        match &mut state.task {
            Some(task) => task.clone_from(waker),
            None => state.task = Some(waker.clone()),
        }
    }

    /// Wakes the task, once until it has heard.
    pub(super) fn ring(&self) {
        let task = {
            let mut state = self.lock();
            if core::mem::replace(&mut state.rung, true) { None } else { state.task.clone() }
        };
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Whether it was rung since the last time. Asked before the messages are taken: one that comes later rings again.
    pub(super) fn heard(&self) -> bool {
        core::mem::take(&mut self.lock().rung)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    /// How often it was woken.
    #[derive(Default)]
    pub(in crate::driver::server) struct Wakes(pub(in crate::driver::server) AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn many_rings_are_one_call_until_heard() {
        let (bell, wakes) = (Bell::default(), Arc::new(Wakes::default()));
        bell.ring();
        bell.register(&Waker::from(Arc::clone(&wakes)));
        assert!(bell.heard(), "also what was rung before anybody listened");
        assert!(!bell.heard());
        bell.ring();
        bell.ring();
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert!(bell.heard());
        bell.ring();
        assert_eq!(wakes.0.load(Ordering::Relaxed), 2);
    }
}
