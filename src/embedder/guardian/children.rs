//! The children of the guardian: the server, and the processes that it may have left behind.

use std::fs;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};

/// Takes the status of every child that has ended, and returns the server's if it is among them.
pub(super) fn reap(server: Pid) -> Option<WaitStatus> {
    let mut died = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(_) => return died,
            Ok(status) if status.pid() == Some(server) => died = Some(status),
            Ok(_) => {}
        }
    }
}

/// Kills all children and adopted orphans and waits for their end. Where the kernel does not list them, it
/// waits for none: the server ends at the guardian's death anyway.
pub(super) fn end() {
    while let Some(children) = children() {
        for child in children {
            let _ = kill(child, Signal::SIGKILL);
        }
        match waitpid(None, None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// All children, as the kernel lists them: an orphan is adopted without a word.
fn children() -> Option<Vec<Pid>> {
    let list = fs::read_to_string(format!("/proc/self/task/{}/children", getpid())).ok()?;
    Some(list.split_whitespace().filter_map(|pid| pid.parse().ok().map(Pid::from_raw)).collect())
}
