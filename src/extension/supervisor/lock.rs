//! The lock that makes the supervisor the only one.
//!
//! An open-file-description lock: the kernel lets it go with the process, however that ends, and a backend can ask
//! for its state without taking it for a moment.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use crate::client::LOCK;
use crate::error::Error;

/// Takes the lock for as long as the file stays open, or returns nothing where another process has it.
pub(super) fn take() -> Result<Option<File>, Error> {
    let file = open()?;
    match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file())) {
        Ok(_) => Ok(Some(file)),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
        Err(errno) => Err(Error::system("lock pg_clip's lock file", errno)),
    }
}

/// Whether a supervisor runs.
pub(super) fn is_held() -> Result<bool, Error> {
    let mut lock = whole_file();
    fcntl(&open()?, FcntlArg::F_OFD_GETLK(&mut lock))
        .map_err(|errno| Error::system("ask for the state of pg_clip's lock file", errno))?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

fn open() -> Result<File, Error> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(LOCK)
        .map_err(|cause| Error::system("open pg_clip's lock file", cause))
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
