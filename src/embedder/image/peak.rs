//! How much memory a piece of work takes, measured for tests.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Runs `work` and returns with its result the most bytes that it had allocated on this thread at once.
pub(super) fn peak_of<T>(work: impl FnOnce() -> T) -> (T, u64) {
    HELD.set(0);
    PEAK.set(0);
    let result = work();
    (result, u64::try_from(PEAK.get()).expect("the peak is not below the start"))
}

/// Runs `work` and returns how many more bytes are allocated on this thread when its result is dropped.
pub(super) fn kept_by<T>(work: impl FnOnce() -> T) -> i64 {
    let before = HELD.get();
    drop(work());
    HELD.get() - before
}

/// The system's allocator, counting for each thread on its own: tests run side by side.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static HELD: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

fn count(bytes: i64) {
    HELD.set(HELD.get() + bytes);
    PEAK.set(PEAK.get().max(HELD.get()));
}

fn bytes(size: usize) -> i64 {
    size as i64
}

// SAFETY: all is left to the system's allocator; counting neither allocates nor panics, because the cells are made with
// the thread and have nothing to drop.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(bytes(layout.size()));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(bytes(layout.size()));
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(bytes(size) - bytes(layout.size()));
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-bytes(layout.size()));
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}
