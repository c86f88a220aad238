//! Trying something that may fail, and going on without it: a subtransaction.

use std::ffi::CStr;

use pgrx::{PgSqlErrorCode, pg_sys};

use crate::caught::catch;
use crate::error::Error;
use crate::failure::Failure;
use crate::nested_settings::NestedSettings;

/// Runs `body` in a subtransaction. Where it fails with an error that `tolerates` accepts, what it did is undone and
/// the failure returned; any other error goes on. The result must not borrow from SPI. `tolerates` is asked by
/// [`Caught::judged_code`](crate::caught::Caught::judged_code).
pub(crate) fn attempt<R>(
    tolerates: fn(PgSqlErrorCode) -> bool,
    body: impl FnOnce() -> Result<R, Error>,
) -> Result<Result<R, Failure>, Error> {
    // SAFETY: called inside a transaction; each way out of here ends the subtransaction, as PL/pgSQL does it.
    let (context, owner) = unsafe {
        let kept = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(kept.0);
        kept
    };
    let undo = || {
        // SAFETY: the subtransaction from above is the innermost; the context and the owner are those of before.
        unsafe {
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::CurrentResourceOwner = owner;
        }
    };
    match catch(body) {
        Ok(Ok(result)) => {
            // SAFETY: as in `undo`.
            unsafe {
                pg_sys::ReleaseCurrentSubTransaction();
                pg_sys::MemoryContextSwitchTo(context);
                pg_sys::CurrentResourceOwner = owner;
            }
            Ok(Ok(result))
        }
        Ok(Err(error)) => {
            undo();
            if tolerates(error.sqlstate()) { Ok(Err(error.into())) } else { Err(error) }
        }
        Err(caught) => {
            // Also for an error that goes on: at its end, the abort of the outer transaction expects no
            // subtransaction.
            undo();
            if tolerates(caught.judged_code()) { Ok(Err(caught.failure())) } else { caught.rethrow() }
        }
    }
}

/// The errors of a table that a view tolerates: all but a cancel and a failed assertion.
pub(crate) fn of_a_table(code: PgSqlErrorCode) -> bool {
    code != PgSqlErrorCode::ERRCODE_QUERY_CANCELED
}

/// Whether a lock could not be had.
pub(crate) fn of_a_lock(code: PgSqlErrorCode) -> bool {
    code == PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE
        || code == PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED
}

/// Runs `body` with a limit of so many milliseconds for each lock; 0 is none.
pub(crate) fn with_lock_timeout<R>(milliseconds: u32, body: impl FnOnce() -> R) -> R {
    let value = std::ffi::CString::new(milliseconds.to_string()).expect("digits");
    with_setting(c"lock_timeout", &value, body)
}

/// Runs `body` with a setting that any role may set. An error in it restores the setting with the (sub)transaction.
pub(crate) fn with_setting<R>(name: &CStr, value: &CStr, body: impl FnOnce() -> R) -> R {
    let settings = NestedSettings::begin();
    settings.set(name, value);
    let result = body();
    drop(settings);
    result
}
