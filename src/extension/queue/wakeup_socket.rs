//! Waking a worker from another process: a datagram socket, which needs no shared memory and so no preloading.
//!
//! A message is a hint, never the only trace of a job: a worker that is woken looks at the queue, and where one is
//! missed, a worker looks there after `clip.queue_poll_interval`.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;

use crate::error::Error;

/// The side that receives.
pub(super) struct WakeupSocket {
    socket: UnixDatagram,
    path: String,
}

/// Longer than any message.
const LONGEST: usize = 16;

impl WakeupSocket {
    /// Binds a socket to this name, in place of one that a process before this one left.
    pub(super) fn bind(path: String) -> Result<WakeupSocket, Error> {
        let _ = fs::remove_file(&path);
        let failed = |cause| Error::system("make a socket to be woken by", cause);
        // The server's umask leaves the socket to its user alone.
        let socket = UnixDatagram::bind(&path).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        Ok(WakeupSocket { socket, path })
    }

    /// The messages that came since the last call, without waiting.
    pub(super) fn messages(&self) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        let mut message = [0; LONGEST];
        loop {
            match self.socket.recv(&mut message) {
                Ok(length) => messages.push(message[..length].to_vec()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return messages,
            }
        }
    }

    /// Removes the name. From here on sending fails; messages sent before are still to be read.
    pub(super) fn unlink(&self) {
        let _ = fs::remove_file(&self.path);
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Sends, without waiting and without raising. Returns whether a process receives at this name.
pub(super) fn send(path: &str, message: &[u8]) -> bool {
    let Ok(socket) = UnixDatagram::unbound() else {
        return false;
    };
    if socket.set_nonblocking(true).is_err() {
        return false;
    }
    match socket.send_to(message, path) {
        Ok(_) => true,
        // The worker has messages to read yet, and looks at the queue then.
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}
