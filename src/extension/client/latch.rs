//! The one wait: on this process's latch and a descriptor together.

use std::cell::Cell;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use pgrx::pg_sys;

/// What a descriptor is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    Readable,
    ReadableOrWritable,
}

thread_local! {
    static INTERLUDE: Cell<Option<fn()>> = const { Cell::new(None) };
}

/// How often an interlude is run.
const INTERLUDE_EVERY: Duration = Duration::from_secs(1);

/// Has every wait of this process, whatever it is for, run `interlude` once a second.
pub(crate) fn run_while_waiting(interlude: fn()) {
    INTERLUDE.set(Some(interlude));
}

/// Waits until the descriptor is ready, the latch is set or the deadline has passed, and serves interrupts. A cancel,
/// `statement_timeout` or a server stop ends the statement here. Returns whether the deadline has not passed; what
/// else happened, the caller finds out by trying.
pub(crate) fn wait(descriptor: BorrowedFd, interest: Interest, deadline: Option<Instant>) -> bool {
    let mut events = pg_sys::WL_LATCH_SET | pg_sys::WL_EXIT_ON_PM_DEATH | pg_sys::WL_SOCKET_READABLE;
    if interest == Interest::ReadableOrWritable {
        events |= pg_sys::WL_SOCKET_WRITEABLE;
    }
    let mut timeout = -1;
    let interlude = INTERLUDE.get();
    let next_interlude = interlude.map(|_| Instant::now() + INTERLUDE_EVERY);
    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        return false;
    }
    if let Some(deadline) = deadline.into_iter().chain(next_interlude).min() {
        let left = deadline.saturating_duration_since(Instant::now());
        events |= pg_sys::WL_TIMEOUT;
        // Rounded up, so that a wait never ends before its deadline.
        timeout = i64::try_from(left.as_millis()).unwrap_or(i64::MAX - 1) + 1;
    }
    // SAFETY: the latch is this process's own, and the descriptor is open for the duration of the call.
    unsafe {
        pg_sys::WaitLatchOrSocket(
            pg_sys::MyLatch,
            events as i32,
            descriptor.as_raw_fd(),
            timeout,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    pgrx::check_for_interrupts!();
    if let Some(interlude) = interlude {
        interlude();
    }
    true
}
