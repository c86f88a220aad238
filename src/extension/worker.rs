//! What all of pg_clip's background workers have in common.

use std::ffi::{CStr, c_char, c_int};

use pgrx::pg_sys;

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
