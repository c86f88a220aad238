//! The locks that make a background worker the only one of its kind.
//!
//! Open-file-description locks: the kernel releases one when its process ends in any way, and a backend can ask for
//! its state without taking it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use crate::error::Error;

/// Takes the lock for as long as the file stays open, or returns nothing where another process has it.
pub(crate) fn take(path: &str) -> Result<Option<File>, Error> {
    let file = open(path)?;
    match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file())) {
        Ok(_) => Ok(Some(file)),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
        Err(errno) => Err(Error::system("lock a lock file of pg_clip", errno)),
    }
}

/// Whether a process has the lock.
pub(crate) fn is_held(path: &str) -> Result<bool, Error> {
    let mut lock = whole_file();
    fcntl(&open(path)?, FcntlArg::F_OFD_GETLK(&mut lock))
        .map_err(|errno| Error::system("ask for the state of a lock file of pg_clip", errno))?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

fn open(path: &str) -> Result<File, Error> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|cause| Error::system("open a lock file of pg_clip", cause))
}

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}
