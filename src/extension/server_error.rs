//! An error of the server's, kept whole.
//!
//! pgrx takes an error apart and keeps some of it: SQLSTATEs that PostgreSQL does not define become XX000, and the names of
//! constraint, table and column, the context and the position are lost. An application tells errors apart by them. So a
//! callback copies each error when it is raised, and the last one is raised again as it was. The copies have a memory
//! context of their own: a procedure's transactions end while it runs.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_void};
use std::ptr::{self, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use pgrx::{PgLogLevel, pg_sys};

/// Runs `body`, and returns beside its result the last error that was raised in it, if one was. Its memory is used again
/// when the next function that PostgreSQL calls begins.
pub(crate) fn keep_last<R>(body: impl FnOnce() -> R) -> (R, Option<*mut pg_sys::ErrorData>) {
    if DEPTH.fetch_add(1, Ordering::Relaxed) == 0 {
        // SAFETY: no function runs that could hold what is in the context.
        unsafe { pg_sys::MemoryContextReset(copies()) };
    }
    let last = Cell::new(null_mut::<pg_sys::ErrorData>());
    let mut callback = pg_sys::ErrorContextCallback {
        // SAFETY: a plain read of this backend's state.
        previous: unsafe { pg_sys::error_context_stack },
        callback: Some(keep),
        arg: ptr::from_ref(&last).cast_mut().cast(),
    };
    // SAFETY: the callback and the cell that it writes to are in this frame, and are taken off the stack below.
    // `body` returns: it lets no error of the server's and no panic pass.
    let result = unsafe {
        pg_sys::error_context_stack = &raw mut callback;
        let result = body();
        pg_sys::error_context_stack = callback.previous;
        result
    };
    DEPTH.fetch_sub(1, Ordering::Relaxed);
    (result, Some(last.get()).filter(|last| !last.is_null()))
}

/// The message of an error, in the encoding of the database.
///
/// # Safety
/// `data` is an error that [`keep_last`] has just returned.
pub(crate) unsafe fn message_of(data: *mut pg_sys::ErrorData) -> Option<CString> {
    // SAFETY: the caller vouches for the error, whose message is null or a string.
    unsafe {
        let message = (*data).message;
        (!message.is_null()).then(|| CStr::from_ptr(message).to_owned())
    }
}

/// How many functions that PostgreSQL has called run: one can run within another, as a trigger within a procedure.
static DEPTH: AtomicU32 = AtomicU32::new(0);

/// The memory context of the copies, which lives as long as the process.
fn copies() -> pg_sys::MemoryContext {
    static CONTEXT: AtomicPtr<pg_sys::MemoryContextData> = AtomicPtr::new(null_mut());
    if CONTEXT.load(Ordering::Relaxed).is_null() {
        // SAFETY: the parent lives as long as the process, and the name is static.
        let context = unsafe {
            pg_sys::AllocSetContextCreateInternal(
                pg_sys::TopMemoryContext,
                c"errors of the server".as_ptr(),
                0,
                1024,
                8 * 1024 * 1024,
            )
        };
        CONTEXT.store(context, Ordering::Relaxed);
    }
    CONTEXT.load(Ordering::Relaxed)
}

unsafe extern "C-unwind" {
    // As pgrx binds them, but for the guards: they are called in the middle of a report.
    fn CopyErrorData() -> *mut pg_sys::ErrorData;
    fn FreeErrorData(data: *mut pg_sys::ErrorData);
}

/// Called for each report, of whatever level, before it is dealt with.
unsafe extern "C-unwind" fn keep(last: *mut c_void) {
    // SAFETY: `last` is the cell of a frame that is alive. A report is being made, so that there is one to copy; it is copied
    // into a context that is reset when no such frame is left, and freed once.
    unsafe {
        let last = &*last.cast::<Cell<*mut pg_sys::ErrorData>>();
        let before = pg_sys::MemoryContextSwitchTo(copies());
        let data = CopyErrorData();
        pg_sys::MemoryContextSwitchTo(before);
        let is_error = (*data).elevel >= PgLogLevel::ERROR as i32;
        let old = if is_error { last.replace(data) } else { data };
        if !old.is_null() {
            FreeErrorData(old);
        }
    }
}
