//! A transaction of the worker.

use std::ffi::{CString, c_int};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pgrx::{PgSqlErrorCode, pg_sys};

use crate::caught::{Caught, catch};
use crate::error::Error;
use crate::failure::Failure;
use crate::spi::Spi;
use crate::timeout::{
    RegisterTimeout, STATEMENT_TIMEOUT, USER_TIMEOUT, disable_timeout, enable_timeout_after,
    enable_timeout_every,
};

/// For transactions that touch no table of a user's. They take no time; this is for a machine that is very busy.
pub(super) const LONGEST: Duration = Duration::from_secs(60);
/// Code of a user can catch a cancel and go on. The process ends so much later …
const GRACE: Duration = Duration::from_millis(250);
/// … or after so many more such times, where the cancel has not reached the code yet: while a machine stands still,
/// both times pass.
const GRACES: u32 = 20;

static MARK: OnceLock<CString> = OnceLock::new();

/// The table that a transaction is at work on, or 0.
static AT_WORK_ON: AtomicU32 = AtomicU32::new(0);

/// How often a transaction has been let go on since its cancel.
static GRANTED: AtomicU32 = AtomicU32::new(0);

/// Has this process leave a file under this name if a transaction has to end it. Returns the table that the process before this
/// one was at work on, where it was ended so. The file stays until [`forget_the_slow_end`].
pub(super) fn mark_a_slow_end(path: &str) -> Option<pg_sys::Oid> {
    let mark = std::fs::read(path).unwrap_or_default();
    // Set once: a process has one lane.
    let _ = CString::new(path).map(|path| MARK.set(path));
    <[u8; 4]>::try_from(mark).ok().map(u32::from_ne_bytes).filter(|table| *table != 0).map(pg_sys::Oid::from)
}

/// Removes what the process before this one has left: the table is written down as slow.
pub(super) fn forget_the_slow_end(path: &str) {
    let _ = std::fs::remove_file(path);
}

/// The timeout that ends the process.
fn end_of_process() -> c_int {
    /// Ends the process as SIGTERM does, at its next check for interrupts. The mark is for the process after this
    /// one.
    unsafe extern "C-unwind" fn end() {
        // SAFETY: a plain read of this process's flag.
        let is_on_its_way = unsafe { pg_sys::QueryCancelPending } != 0;
        if is_on_its_way && GRANTED.fetch_add(1, Ordering::Relaxed) < GRACES {
            return;
        }
        // SAFETY: system calls that a signal handler may make, with a string that ends with a zero byte and an array of
        // this length; plain writes of this process's flags, and a set latch, as the server's own handlers do it.
        unsafe {
            if let Some(mark) = MARK.get() {
                let table = AT_WORK_ON.load(Ordering::Relaxed).to_ne_bytes();
                let file = libc::open(mark.as_ptr(), libc::O_CREAT | libc::O_WRONLY | libc::O_CLOEXEC, 0o600);
                libc::write(file, table.as_ptr().cast(), table.len());
                libc::close(file);
            }
            pg_sys::ProcDiePending = 1;
            pg_sys::InterruptPending = 1;
            pg_sys::SetLatch(pg_sys::MyLatch);
        }
    }

    static TIMEOUT: OnceLock<c_int> = OnceLock::new();
    // SAFETY: registered once in a process, with a handler that does what a signal handler may.
    *TIMEOUT.get_or_init(|| unsafe { RegisterTimeout(USER_TIMEOUT, end) })
}

/// As [`transaction`], where code of a user's may run that belongs to the table `source` or to its target.
pub(super) fn transaction_on<R>(
    source: pg_sys::Oid,
    patience: Duration,
    body: impl FnOnce(&Spi) -> Result<R, Error>,
) -> Result<R, Failure> {
    AT_WORK_ON.store(source.into(), Ordering::Relaxed);
    let done = transaction(patience, body);
    AT_WORK_ON.store(0, Ordering::Relaxed);
    done
}

/// Runs `body` in a transaction of its own and commits it; an error rolls it back, and so does the end of `patience`. A
/// cancel by another session ends the worker.
pub(super) fn transaction<R>(
    patience: Duration,
    body: impl FnOnce(&Spi) -> Result<R, Error>,
) -> Result<R, Failure> {
    let milliseconds = |time: Duration| c_int::try_from(time.as_millis()).expect("minutes");
    let end_of_process = end_of_process();
    GRANTED.store(0, Ordering::Relaxed);
    // SAFETY: no transaction is open; each way out of here ends it.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        enable_timeout_after(STATEMENT_TIMEOUT, milliseconds(patience));
        let after = i64::from(milliseconds(patience + GRACE)) * 1000;
        enable_timeout_every(end_of_process, pg_sys::GetCurrentTimestamp() + after, milliseconds(GRACE));
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
    }
    let start = Instant::now();
    let done = catch(|| {
        let done = {
            let spi = Spi::connect()?;
            body(&spi)?
        };
        // SAFETY: the snapshot and the transaction from above; SPI is closed.
        unsafe {
            pg_sys::PopActiveSnapshot();
            pg_sys::CommitTransactionCommand();
            disable_timeout(STATEMENT_TIMEOUT, false);
            disable_timeout(end_of_process, false);
        }
        Ok::<_, Error>(done)
    });
    let is_cancelled = |caught: &Caught| caught.code() == PgSqlErrorCode::ERRCODE_QUERY_CANCELED;
    let took_too_long = start.elapsed() >= patience;
    let done = match done {
        Err(caught) if is_cancelled(&caught) && !took_too_long => caught.rethrow(),
        done => done,
    };
    // SAFETY: a failed transaction is open still, whether or not an error was raised in it.
    unsafe {
        if !matches!(done, Ok(Ok(_))) {
            disable_timeout(STATEMENT_TIMEOUT, false);
            disable_timeout(end_of_process, false);
            pg_sys::AbortCurrentTransaction();
        }
        pg_sys::pgstat_report_stat(false);
    }
    match done {
        Ok(done) => done.map_err(Failure::from),
        Err(caught) => {
            Err(Failure { took_too_long: took_too_long && is_cancelled(&caught), ..failure_of(&caught) })
        }
    }
}

/// The error's text. Its letters are converted by a conversion that the catalogs name.
fn failure_of(caught: &Caught) -> Failure {
    if !caught.has_letters() {
        return caught.failure();
    }
    // SAFETY: no transaction is open; nothing in it raises an error.
    unsafe { pg_sys::StartTransactionCommand() };
    let failure = caught.failure();
    // SAFETY: the transaction from above.
    unsafe { pg_sys::CommitTransactionCommand() };
    failure
}
