//! The one wait: on this process's latch and a descriptor together.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Instant;

use pgrx::pg_sys;

/// What a descriptor is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    Readable,
    ReadableOrWritable,
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
    if let Some(deadline) = deadline {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
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
    true
}
