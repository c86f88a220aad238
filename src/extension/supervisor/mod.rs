//! The supervisor: a background worker that starts the embedder, watches it and starts it again.
//!
//! It starts with the server where pg_clip is in `shared_preload_libraries`, and otherwise with the first call that
//! finds no socket. It has no database connection, opens no relation, and runs on a hot standby too. It holds the
//! listening socket for as long as it lives, through every death of the embedder: a backend that connects meanwhile
//! waits in the backlog and never sees a refused connection.
//!
//! There is one in a cluster: the one that holds the lock on [`crate::socket::LOCK`]. A second one, started by a
//! backend in a race, leaves with status 0 and is not started again. Where many backends find none at once, one of
//! them has it started.

mod child;
mod listener;
mod parts;
mod worker;

use pgrx::pg_sys;

use crate::error::Error;
use crate::lock;
use crate::socket::{ASKED, LOCK, wake_all};
use crate::worker::{ask_for, named};

/// Has the postmaster start the supervisor together with the server.
pub(crate) fn register_at_server_start() {
    // SAFETY: a plain read of a variable of this process; registering is allowed while libraries are preloaded.
    unsafe {
        if pg_sys::process_shared_preload_libraries_in_progress {
            pg_sys::RegisterBackgroundWorker(&mut registration());
        }
    }
}

/// Starts the supervisor, unless one runs.
pub(crate) fn ensure_running() -> Result<(), Error> {
    if lock::is_held(LOCK)? || ask_for(&mut registration(), ASKED)? {
        return Ok(());
    }
    // The backends that counted on this process try themselves.
    wake_all();
    Err(Error::NoWorkerSlot("supervisor"))
}

/// A second later, which is the postmaster's own pause: a supervisor that cannot live must not be started without
/// end.
const RESTART_SECONDS: i32 = 1;

fn registration() -> pg_sys::BackgroundWorker {
    pg_sys::BackgroundWorker {
        bgw_flags: pg_sys::BGWORKER_SHMEM_ACCESS as i32,
        // A standby answers queries from its consistent state on.
        bgw_start_time: pg_sys::BgWorkerStartTime::BgWorkerStart_ConsistentState,
        bgw_restart_time: RESTART_SECONDS,
        ..named(c"pg_clip supervisor", c"clip_supervisor_main")
    }
}
