//! Trying something on a user's table in a session that goes on, for so long at most.
//!
//! Code of a user may run in it, which can catch a cancel and go on: PL/pgSQL does so at the end of a subtransaction. From the
//! limit on, each end of a subtransaction inside has the next check for interrupts cancel again. That check comes before the
//! next statement, outside of the block that has caught the last cancel: so what is caught is caught once in each block.

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use pgrx::{PgSqlErrorCode, pg_sys};

use crate::attempt::{attempt, of_a_table};
use crate::error::Error;
use crate::failure::Failure;
use crate::timeout::{
    RegisterTimeout, STATEMENT_TIMEOUT, USER_TIMEOUT, disable_timeout, enable_timeout_every,
    get_timeout_active, get_timeout_finish_time,
};

/// Runs `body` in a subtransaction, as [`attempt`] does. Where it fails, or is not done in time, what it did is undone. A cancel
/// of the session's own, or the end of its `statement_timeout`, goes on. The result must not borrow from SPI.
pub(crate) fn attempt_for<R>(
    limit: Duration,
    body: impl FnOnce() -> Result<R, Error>,
) -> Result<Result<R, Failure>, Error> {
    // Code of a user may come here again. The limit that runs is that of all of it.
    if LEVEL.load(Ordering::Relaxed) > 0 {
        return attempt(of_a_table, body);
    }
    let _running = Running::start(limit);
    attempt(is_tolerated, body)
}

/// Whether a failure is that of the limit.
pub(crate) fn is_out_of_time(failure: &Failure) -> bool {
    failure.code == PgSqlErrorCode::ERRCODE_QUERY_CANCELED
}

/// Cancels again while code of a user's catches that, in milliseconds.
const AGAIN: c_int = 50;

/// Whether the time is over.
static IS_OVER: AtomicBool = AtomicBool::new(false);
/// Whether a cancel that is pending was asked for here.
static IS_PENDING: AtomicBool = AtomicBool::new(false);
/// Whether the time is that of the session's own statement.
static IS_STATEMENTS: AtomicBool = AtomicBool::new(false);
/// The nest level of the transaction in which the limit was set; 0 while there is none.
static LEVEL: AtomicI32 = AtomicI32::new(0);

struct Running {
    timeout: c_int,
    /// When the session's statement is to end, where that comes before the limit.
    statement_ends: Option<pg_sys::TimestampTz>,
}

impl Running {
    fn start(limit: Duration) -> Running {
        let timeout = timeout();
        for flag in [&IS_OVER, &IS_PENDING, &IS_STATEMENTS] {
            flag.store(false, Ordering::Relaxed);
        }
        // SAFETY: plain reads of this backend's state; the timeout is registered, and `drop` disables it.
        unsafe {
            // The subtransaction begins after this.
            LEVEL.store(pg_sys::GetCurrentTransactionNestLevel() + 1, Ordering::Relaxed);
            let ends =
                get_timeout_active(STATEMENT_TIMEOUT).then(|| get_timeout_finish_time(STATEMENT_TIMEOUT));
            let limit = i64::try_from(limit.as_micros()).unwrap_or(i64::MAX / 2);
            let end = pg_sys::GetCurrentTimestamp() + limit;
            let statement_ends = ends.filter(|ends| *ends <= end);
            IS_STATEMENTS.store(statement_ends.is_some(), Ordering::Relaxed);
            enable_timeout_every(timeout, statement_ends.unwrap_or(end), AGAIN);
            Running { timeout, statement_ends }
        }
    }
}

/// Also where an error goes on.
impl Drop for Running {
    fn drop(&mut self) {
        LEVEL.store(0, Ordering::Relaxed);
        // SAFETY: disables what `start` has enabled, and raises no error; plain writes of this backend's flags.
        unsafe {
            disable_timeout(self.timeout, false);
            if IS_PENDING.load(Ordering::Relaxed) {
                pg_sys::QueryCancelPending = 0;
            }
            if self.statement_ends.is_some_and(|ends| ends <= pg_sys::GetCurrentTimestamp()) {
                // The code may have caught it.
                pg_sys::QueryCancelPending = 1;
                pg_sys::InterruptPending = 1;
            }
        }
    }
}

fn is_tolerated(code: PgSqlErrorCode) -> bool {
    let is_of_the_limit = code == PgSqlErrorCode::ERRCODE_QUERY_CANCELED
        && IS_OVER.load(Ordering::Relaxed)
        && !IS_STATEMENTS.load(Ordering::Relaxed);
    of_a_table(code) || is_of_the_limit
}

/// The timeout, registered once in a process, together with what follows the ends of subtransactions.
fn timeout() -> c_int {
    static TIMEOUT: OnceLock<c_int> = OnceLock::new();
    // SAFETY: registered once in a process; the handler does what a signal handler may, and the callback is a function of this
    // library, which is never unloaded.
    *TIMEOUT.get_or_init(|| unsafe {
        pg_sys::RegisterSubXactCallback(Some(at_end_of_subtransaction), std::ptr::null_mut());
        RegisterTimeout(USER_TIMEOUT, end)
    })
}

unsafe extern "C-unwind" fn end() {
    IS_OVER.store(true, Ordering::Relaxed);
    cancel();
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_end_of_subtransaction(
    event: pg_sys::SubXactEvent::Type,
    _own: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _argument: *mut c_void,
) {
    let level = LEVEL.load(Ordering::Relaxed);
    // SAFETY: a plain read of this backend's state.
    let is_inside = || unsafe { pg_sys::GetCurrentTransactionNestLevel() } > level;
    let is_abort = event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB;
    // SAFETY: a plain read of this process's flag.
    if level > 0 && unsafe { pg_sys::QueryCancelPending } == 0 {
        // The cancel was served. One that comes now is another session's, unless it is asked for below.
        IS_PENDING.store(false, Ordering::Relaxed);
    }
    if level > 0 && is_abort && IS_OVER.load(Ordering::Relaxed) && is_inside() {
        cancel();
    }
}

/// Has the next check for interrupts cancel the statement, as a signal of another session would.
fn cancel() {
    // SAFETY: plain reads and writes of this process's flags, and a set latch, as the server's own handlers do it.
    unsafe {
        if pg_sys::QueryCancelPending == 0 {
            IS_PENDING.store(true, Ordering::Relaxed);
            pg_sys::QueryCancelPending = 1;
        }
        pg_sys::InterruptPending = 1;
        pg_sys::SetLatch(pg_sys::MyLatch);
    }
}
