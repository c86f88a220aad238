//! One task at a time changes the files in the base folder, each concern under a lock of its own.

use std::fs::{File, TryLockError};

use anyhow::{Context, Result};

use crate::places::Places;
use crate::progress::say;

/// Held until dropped, or until the process ends however it ends.
pub struct Lock {
    _file: File,
}

impl Lock {
    pub fn take(places: &Places, concern: &str) -> Result<Lock> {
        let path = places.base.join(format!("{concern}.lock"));
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                say("waiting for another cargo xtask to finish its set-up");
                file.lock()?;
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        Ok(Lock { _file: file })
    }
}
