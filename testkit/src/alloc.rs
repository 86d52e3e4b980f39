//! An allocator that counts what each thread asks for.
//!
//! A test binary that wants to prove "this does not allocate" installs it and wraps the work in [`count`]:
//!
//! ```
//! #[global_allocator]
//! static ALLOCATOR: testkit::alloc::Counting = testkit::alloc::Counting;
//!
//! let counts = testkit::alloc::count(|| drop(core::hint::black_box(vec![0_u8; 100])));
//! assert_eq!((counts.allocations, counts.bytes), (1, 100));
//! assert_eq!(testkit::alloc::count(|| ()), testkit::alloc::Counts::default());
//! ```
//!
//! Counters belong to the thread, so tests that run beside each other do not see one another.
//!
//! A proof that failed says how many and how large, not where. With the environment variable of [`BACKTRACE`] set, the
//! first block that is counted is told on standard error with the path that led to it.

use core::cell::Cell;
use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::io::Write;

/// The name of the environment variable that has the first counted allocation of each [`count`] told with a backtrace.
pub const BACKTRACE: &str = "TILLWIRE_ALLOC_BACKTRACE";

/// The system's allocator, with counters. For `#[global_allocator]`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counting;

/// What was asked of the allocator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Blocks taken, a block that moved while it grew included.
    pub allocations: u64,
    /// Bytes of those blocks.
    pub bytes: u64,
}

thread_local! {
    // `const` and without a destructor: reading it neither allocates nor fails while a thread ends.
    static TAKEN: Cell<Counts> = const { Cell::new(Counts { allocations: 0, bytes: 0 }) };
    /// The next block is to be told with a backtrace.
    static TELLING: Cell<bool> = const { Cell::new(false) };
}

/// What this thread asked for while `work` ran; frees are not counted.
///
/// # Panics
///
/// If [`Counting`] is not the global allocator: a test that counts nothing must not pass.
pub fn count(work: impl FnOnce()) -> Counts {
    let probe = TAKEN.get().allocations;
    drop(core::hint::black_box(Box::new(0_u8)));
    assert_ne!(
        TAKEN.get().allocations,
        probe,
        "testkit::alloc::Counting is not this binary's global allocator"
    );
    TELLING.set(std::env::var_os(BACKTRACE).is_some());
    let before = TAKEN.get();
    work();
    TELLING.set(false);
    let after = TAKEN.get();
    Counts { allocations: after.allocations - before.allocations, bytes: after.bytes - before.bytes }
}

fn note(bytes: usize) {
    // Counting must not be a reason to fail, so a thread that has no counters any more is left alone.
    let _ = TAKEN.try_with(|taken| {
        let Counts { allocations, bytes: sum } = taken.get();
        let now = Counts { allocations: allocations + 1, bytes: sum + bytes as u64 };
        if TELLING.try_with(|telling| telling.replace(false)).unwrap_or(false) {
            tell(bytes);
        }
        // Also forgets what telling took.
        taken.set(now);
    });
}

#[cold]
fn tell(bytes: usize) {
    let path = Backtrace::force_capture();
    // Telling is a help; a closed standard error is no reason to fail inside an allocator.
    let _ = writeln!(
        std::io::stderr(),
        "a block of {bytes} bytes was taken while allocations are counted:\n{path}"
    );
}

// SAFETY: every method hands its arguments on to `System` unchanged and returns what `System` returned; `note` neither
// allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller keeps `alloc`'s contract, which is `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller keeps `alloc_zeroed`'s contract, which is `System`'s.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: the caller keeps `realloc`'s contract, which is `System`'s; every block came from `System`.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `dealloc`'s contract, which is `System`'s; every block came from `System`.
        unsafe { System.dealloc(block, layout) }
    }
}
