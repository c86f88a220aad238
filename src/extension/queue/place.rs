//! Where enqueuing backends, the launcher and the queue workers meet: files beside the embedder's socket, see
//! [`crate::client`].

use pgrx::pg_sys;

use super::lane::Lane;

/// Locked by the running launcher.
pub(super) const LAUNCHER_LOCK: &str = "pg_stat_tmp/pg_clip.launcher.lock";

/// When a launcher was last asked for.
pub(super) const LAUNCHER_ASKED: &str = "pg_stat_tmp/pg_clip.launcher.asked";

/// Where the launcher receives.
pub(super) const LAUNCHER_SOCKET: &str = "pg_stat_tmp/pg_clip.launcher.socket";

/// Locked by the running queue worker of a lane of a database.
pub(super) fn worker_lock(database: pg_sys::Oid, lane: Lane) -> String {
    format!("pg_stat_tmp/pg_clip.queue.{}.{}.lock", u32::from(database), lane.letter())
}

/// Left by a queue worker that a table held up until its end.
pub(super) fn slow_mark(database: pg_sys::Oid, lane: Lane) -> String {
    format!("pg_stat_tmp/pg_clip.queue.{}.{}.slow", u32::from(database), lane.letter())
}

/// Where the queue worker of a lane of a database receives.
pub(super) fn worker_socket(database: pg_sys::Oid, lane: Lane) -> String {
    format!("pg_stat_tmp/pg_clip.queue.{}.{}.socket", u32::from(database), lane.letter())
}
