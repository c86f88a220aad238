//! The one wait: on this process's latch and a descriptor together.

use std::cell::Cell;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use pgrx::pg_sys;

/// The events of a descriptor that end a wait.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    Readable,
    ReadableOrWritable,
}

thread_local! {
    static CALLBACK: Cell<Option<fn()>> = const { Cell::new(None) };
}

/// How often the callback is run.
const CALLBACK_INTERVAL: Duration = Duration::from_secs(1);

/// Has every wait of this process run `callback` once a second.
pub(crate) fn run_while_waiting(callback: fn()) {
    CALLBACK.set(Some(callback));
}

/// Waits until the descriptor is ready, the latch is set or the deadline has passed, and serves interrupts. A
/// cancel, `statement_timeout` or a server stop ends the statement here. Returns whether the deadline has not
/// passed; the caller finds out by trying what else happened.
pub(crate) fn wait(descriptor: BorrowedFd, interest: Interest, deadline: Option<Instant>) -> bool {
    let mut events = pg_sys::WL_LATCH_SET | pg_sys::WL_EXIT_ON_PM_DEATH | pg_sys::WL_SOCKET_READABLE;
    if interest == Interest::ReadableOrWritable {
        events |= pg_sys::WL_SOCKET_WRITEABLE;
    }
    let mut timeout = -1;
    let callback = CALLBACK.get();
    let next_call = callback.map(|_| Instant::now() + CALLBACK_INTERVAL);
    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        return false;
    }
    if let Some(deadline) = deadline.into_iter().chain(next_call).min() {
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
    if let Some(callback) = callback {
        callback();
    }
    true
}
