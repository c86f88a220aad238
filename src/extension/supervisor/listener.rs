//! The listening socket.

use std::fs;
use std::os::unix::net::UnixListener;

use crate::error::Error;
use crate::socket::{SOCKET, STAGED_SOCKET, wake_all};

/// Listens, and only then shows the socket under its name and wakes the backends that wait for it: a backend that
/// sees it can connect. The socket of an earlier supervisor is replaced.
pub(super) fn listen() -> Result<UnixListener, Error> {
    let _ = fs::remove_file(STAGED_SOCKET);
    // The server's umask leaves the socket to its user alone.
    let listener = UnixListener::bind(STAGED_SOCKET)
        .map_err(|cause| Error::system("listen for pg_clip's backends", cause))?;
    fs::rename(STAGED_SOCKET, SOCKET)
        .map_err(|cause| Error::system("put pg_clip's socket in its place", cause))?;
    wake_all();
    Ok(listener)
}
