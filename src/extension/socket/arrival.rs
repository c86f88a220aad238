//! Waiting for the embedder's socket where nothing listens on it yet.
//!
//! Each backend that waits has a datagram socket of its own beside the embedder's, which the supervisor sends a message once it
//! listens. So any number of backends can wait; of watches on a directory, the kernel gives a user only a few.
//! A message says no more than that it is time to try again. A backend that could not have a supervisor started sends one too,
//! so that the backends that counted on it try themselves, and learn why there is none.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::process;

use super::descriptor::ExternalDescriptor;
use super::place::{DIRECTORY, WAITING};
use crate::error::Error;

/// Receives a message when the socket may have arrived.
pub(crate) struct ArrivalSocket {
    socket: UnixDatagram,
    path: String,
    _descriptor: ExternalDescriptor,
}

impl ArrivalSocket {
    /// From now on no arrival is missed; one before is found by trying.
    pub(crate) fn bind() -> Result<ArrivalSocket, Error> {
        let failed = |cause| Error::system("make a socket to wait for the embedder with", cause);
        let descriptor = ExternalDescriptor::acquire()?;
        let path = format!("{DIRECTORY}/{WAITING}{}", process::id());
        // A process of the same number may have died while it waited.
        let _ = fs::remove_file(&path);
        // The server's umask leaves the socket to its user alone.
        let socket = UnixDatagram::bind(&path).map_err(failed)?;
        let arrival = ArrivalSocket { socket, path, _descriptor: descriptor };
        arrival.socket.set_nonblocking(true).map_err(failed)?;
        Ok(arrival)
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Forgets the messages that came.
    pub(crate) fn drain(&self) {
        let mut byte = [0];
        while self.socket.recv(&mut byte).is_ok() {}
    }
}

impl Drop for ArrivalSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Wakes all backends that wait for the embedder's socket, without waiting and without raising.
pub(crate) fn wake_all() {
    let Ok(socket) = UnixDatagram::unbound() else { return };
    if socket.set_nonblocking(true).is_err() {
        return;
    }
    for entry in fs::read_dir(DIRECTORY).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(WAITING) {
            continue;
        }
        let path = entry.path();
        if let Err(error) = socket.send_to(b"\0", &path)
            && error.kind() == ErrorKind::ConnectionRefused
        {
            // Its process died while it waited.
            let _ = fs::remove_file(path);
        }
    }
}
