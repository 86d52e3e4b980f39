//! The scenarios wait far more than they compute, and the test harness runs only as many tests at a time as there are
//! cores. So the first test that runs starts the others as well, several at a time, unless some were asked for by name.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Condvar, LazyLock, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

/// Scenarios at a time: a few dozen threads, nearly all asleep.
const AT_ONCE: usize = 8;

type Running = Mutex<HashMap<&'static str, JoinHandle<()>>>;

/// Runs the scenario of this name, or waits for its end if it was started before.
pub(crate) fn run(all: &'static [(&'static str, fn())], name: &'static str) {
    static RUNNING: LazyLock<Running> = LazyLock::new(Mutex::default);
    static STARTED: std::sync::Once = std::sync::Once::new();
    STARTED.call_once(|| {
        let by_name = std::env::args().skip(1).any(|word| !word.starts_with('-'));
        if !by_name {
            // A thread's output is kept for the test that started it, which is another one.
            std::panic::set_hook(Box::new(|panic| {
                let name = std::thread::current().name().unwrap_or("a node").to_owned();
                // Nobody may be listening.
                let _ = writeln!(std::io::stderr(), "{name}: {panic}");
            }));
            *RUNNING.lock().expect("nobody panics with it") = start(all);
        }
    });
    let started = RUNNING.lock().expect("nobody panics with it").remove(name);
    match started {
        Some(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        None => all.iter().find(|(one, _)| *one == name).expect("it is listed").1(),
    }
}

/// Starts them all, in their order, each as soon as there is a place.
fn start(all: &'static [(&'static str, fn())]) -> HashMap<&'static str, JoinHandle<()>> {
    let places = Arc::new((Mutex::new(AT_ONCE), Condvar::new()));
    let threads = all.iter().map(|&(name, scenario)| {
        let places = Arc::clone(&places);
        let run = move || {
            let _place = Place::take(places);
            scenario();
        };
        (name, Builder::new().name(name.to_owned()).spawn(run).expect("a thread"))
    });
    threads.collect()
}

/// Given back when dropped, also by a panic.
struct Place(Arc<(Mutex<usize>, Condvar)>);

impl Place {
    fn take(places: Arc<(Mutex<usize>, Condvar)>) -> Self {
        let (free, changed) = &*places;
        let free = free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = changed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        drop(free);
        Self(places)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (free, changed) = &*self.0;
        *free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        changed.notify_one();
    }
}
