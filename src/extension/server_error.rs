//! An error of the server's, kept whole.
//!
//! pgrx takes an error apart and keeps some of it: SQLSTATEs that PostgreSQL does not define become XX000, and the names of
//! constraint, table and column, the context and the position are lost. An application tells errors apart by them. So a
//! callback copies each error when it is raised, and the last one is raised again as it was.

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::{self, null_mut};

use pgrx::{PgLogLevel, pg_sys};

/// Runs `body`, and returns beside its result the last error that was raised in it, if one was. Its memory ends with the
/// transaction.
pub(crate) fn keep_last<R>(body: impl FnOnce() -> R) -> (R, Option<*mut pg_sys::ErrorData>) {
    let last = Cell::new(null_mut::<pg_sys::ErrorData>());
    let mut callback = pg_sys::ErrorContextCallback {
        // SAFETY: a plain read of this backend's state.
        previous: unsafe { pg_sys::error_context_stack },
        callback: Some(keep),
        arg: ptr::from_ref(&last).cast_mut().cast(),
    };
    // SAFETY: the callback and what it writes to are in this frame, and are taken off the stack below. `body` returns: it lets
    // no error of the server's and no panic pass.
    let result = unsafe {
        pg_sys::error_context_stack = &raw mut callback;
        let result = body();
        pg_sys::error_context_stack = callback.previous;
        result
    };
    (result, Some(last.get()).filter(|last| !last.is_null()))
}

unsafe extern "C-unwind" {
    // As pgrx binds them, but for the guards: they are called in the middle of a report.
    fn CopyErrorData() -> *mut pg_sys::ErrorData;
    fn FreeErrorData(data: *mut pg_sys::ErrorData);
}

/// Called for each report, of whatever level, before it is dealt with.
unsafe extern "C-unwind" fn keep(last: *mut c_void) {
    // SAFETY: `last` is the cell of a frame that is alive. A report is being made, so that there is one to copy; it is copied
    // into a context that outlives the subtransactions of `body`, and freed once.
    unsafe {
        let last = &*last.cast::<Cell<*mut pg_sys::ErrorData>>();
        let before = pg_sys::MemoryContextSwitchTo(pg_sys::TopTransactionContext);
        let data = CopyErrorData();
        pg_sys::MemoryContextSwitchTo(before);
        let is_error = (*data).elevel >= PgLogLevel::ERROR as i32;
        let old = if is_error { last.replace(data) } else { data };
        if !old.is_null() {
            FreeErrorData(old);
        }
    }
}
