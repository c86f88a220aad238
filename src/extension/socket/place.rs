//! Where backends, supervisor and embedder meet: files in the data directory.
//!
//! Every server process has the data directory as its current one, so the names are relative: a long path of the data
//! directory cannot exceed the 107 bytes of a socket's name. `pg_stat_tmp` is open to the server's user alone, and
//! base backups leave its contents out.

/// Where backends connect.
pub(crate) const SOCKET: &str = "pg_stat_tmp/pg_clip.sock";

/// Where the supervisor makes the socket, to rename it once it listens: a backend that sees `SOCKET` can connect.
pub(crate) const STAGED_SOCKET: &str = "pg_stat_tmp/pg_clip.sock.new";

/// Locked by the running supervisor.
pub(crate) const LOCK: &str = "pg_stat_tmp/pg_clip.lock";

/// When a backend last asked for a supervisor.
pub(crate) const ASKED: &str = "pg_stat_tmp/pg_clip.asked";

/// The directory of all of them.
pub(super) const DIRECTORY: &str = "pg_stat_tmp";

/// How the sockets of the backends begin that wait for `SOCKET`.
pub(super) const WAITING: &str = "pg_clip.waiting.";
