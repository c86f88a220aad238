//! Waking the queue worker when the photos that it is to embed are committed.
//!
//! A callback of the transaction's end, registered once in a backend. Before the commit it sees to it that a launcher
//! runs, which takes a background worker slot and may fail with no more than a line in the log. After the commit it
//! wakes the worker of the database, or the launcher where there is none: plain system calls, because nothing may
//! raise there. A transaction that is rolled back wakes no worker; one that is prepared leaves its jobs to the poll.

use std::cell::Cell;
use std::ffi::c_void;
use std::sync::Once;

use pgrx::{PgLogLevel, pg_sys};

use super::lane::Lane;
use super::launcher;
use super::message::{Message, Place};
use super::place::{LAUNCHER_SOCKET, worker_socket};
use super::wakeup_socket::send;
use crate::notice;

thread_local! {
    /// Whether the current transaction has put jobs into the queue.
    static ENQUEUED: Cell<bool> = const { Cell::new(false) };
    /// The message that the worker gets at the commit.
    static MESSAGE: Cell<&'static [u8]> = const { Cell::new(NEW) };
}

/// There are new photos.
const NEW: &[u8] = b"n";
/// Photos are to be tried again, and so are tables that were put aside.
pub(super) const AGAIN: &[u8] = b"a";

/// As [`at_commit`], and ends the worker's pauses.
pub(super) fn to_try_again_at_commit() {
    at_commit();
    MESSAGE.set(AGAIN);
}

/// Wakes the worker when the current transaction commits.
pub(super) fn at_commit() {
    static REGISTER: Once = Once::new();
    // SAFETY: the callback is a function of this library, which is never unloaded.
    REGISTER.call_once(|| unsafe {
        pg_sys::RegisterXactCallback(Some(at_end_of_transaction), std::ptr::null_mut());
    });
    ENQUEUED.set(true);
}

/// Wakes the worker of a lane of a database, or has it started.
pub(super) fn want(database: pg_sys::Oid, lane: Lane) {
    want_with(database, lane, NEW);
}

fn want_with(database: pg_sys::Oid, lane: Lane, message: &[u8]) {
    if !send(&worker_socket(database, lane), message) {
        send(LAUNCHER_SOCKET, &Message::Wanted(Place { database, lane }).encode());
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_end_of_transaction(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    use pg_sys::XactEvent::{
        XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PRE_COMMIT, XACT_EVENT_PRE_PREPARE,
        XACT_EVENT_PREPARE,
    };
    if !ENQUEUED.get() {
        return;
    }
    match event {
        XACT_EVENT_PRE_COMMIT | XACT_EVENT_PRE_PREPARE => {
            if let Err(error) = launcher::ensure_running() {
                notice::tell(PgLogLevel::LOG, &format!("pg_clip: photos wait in the queue: {error}"), None);
            }
        }
        XACT_EVENT_COMMIT => {
            ENQUEUED.set(false);
            // SAFETY: a plain read of a variable of this process.
            let database = unsafe { pg_sys::MyDatabaseId };
            want_with(database, Lane::Prompt, MESSAGE.replace(NEW));
        }
        XACT_EVENT_ABORT | XACT_EVENT_PREPARE => {
            ENQUEUED.set(false);
            MESSAGE.set(NEW);
        }
        _ => {}
    }
}
