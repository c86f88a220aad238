//! The code that all of pg_clip's background workers share.

use std::ffi::{CStr, c_char, c_int};
use std::os::unix::fs::FileExt;

use pgrx::pg_sys;

use crate::error::Error;
use crate::lock;

/// The registration of a worker of this library: its name, and the function that is its main.
pub(crate) fn named(name: &CStr, function: &CStr) -> pg_sys::BackgroundWorker {
    let mut worker = pg_sys::BackgroundWorker::default();
    put(&mut worker.bgw_name, name);
    put(&mut worker.bgw_type, name);
    put(&mut worker.bgw_library_name, c"pg_clip");
    put(&mut worker.bgw_function_name, function);
    worker
}

fn put<const N: usize>(field: &mut [c_char; N], text: &CStr) {
    const { assert!(N > 32, "all of the names fit") };
    for (place, byte) in field.iter_mut().zip(text.to_bytes_with_nul()) {
        *place = c_char::try_from(*byte).expect("ASCII");
    }
}

/// For so many microseconds after it was asked for, a worker is expected. If it fails, the postmaster starts it
/// again a second later.
const PROMISE: i64 = 10_000_000;

/// Has the postmaster start a worker, unless another process asked for it a moment ago: where many processes find
/// no worker running, one of them takes a slot, and the file `asked` tells the other ones. Returns whether a worker
/// is to come.
pub(crate) fn ask_for(registration: &mut pg_sys::BackgroundWorker, asked: &str) -> Result<bool, Error> {
    let failed = |cause| Error::system("note that a worker of pg_clip is to start", cause);
    let Some(file) = lock::take(asked)? else {
        // Another process is asking at this moment.
        return Ok(true);
    };
    // SAFETY: a plain read of a variable that the postmaster set, and the server's clock.
    let (postmaster, now) = unsafe { (pg_sys::PgStartTime, pg_sys::GetCurrentTimestamp()) };
    let mut noted = [[0; 8]; 2];
    let is_noted = file.read_exact_at(noted.as_flattened_mut(), 0).is_ok();
    let [by, at] = noted.map(i64::from_le_bytes);
    if is_noted && by == postmaster && (at..at.saturating_add(PROMISE)).contains(&now) {
        return Ok(true);
    }
    let mut handle = std::ptr::null_mut();
    // SAFETY: called in a backend, with a registration that lives through the call.
    if !unsafe { pg_sys::RegisterDynamicBackgroundWorker(registration, &mut handle) } {
        return Ok(false);
    }
    let note = [postmaster, now].map(i64::to_le_bytes);
    file.write_all_at(note.as_flattened(), 0).map_err(failed)?;
    Ok(true)
}

/// Reads the configuration files again if the server was asked to. Returns whether it was.
pub(crate) fn reload_settings() -> bool {
    // SAFETY: this process's own flag, set by its SIGHUP handler; the files are read outside of the handler.
    unsafe {
        if pg_sys::ConfigReloadPending == 0 {
            return false;
        }
        pg_sys::ConfigReloadPending = 0;
        pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
    }
    true
}

/// SIGTERM ends the worker as it ends a backend, also out of a wait; SIGHUP asks for the configuration; SIGCHLD wakes.
pub(crate) fn accept_signals() {
    #[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17"))]
    use pg_sys::pqsignal as set_handler;
    #[cfg(feature = "pg18")]
    use pg_sys::pqsignal_be as set_handler;

    unsafe extern "C-unwind" {
        fn die(signal: c_int);
        fn SignalHandlerForConfigReload(signal: c_int);
    }

    unsafe extern "C-unwind" fn wake(_signal: c_int) {
        // SAFETY: setting the process's own latch is async-signal-safe and keeps errno.
        unsafe { pg_sys::SetLatch(pg_sys::MyLatch) };
    }

    // SAFETY: the handlers are the server's own, or do no more than they may; signals are blocked until the last line.
    unsafe {
        set_handler(libc::SIGTERM, Some(die));
        set_handler(libc::SIGHUP, Some(SignalHandlerForConfigReload));
        set_handler(libc::SIGCHLD, Some(wake));
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}
