//! Descriptors beside those of PostgreSQL's own files.

use pgrx::pg_sys;

use crate::error::Error;

/// A descriptor that PostgreSQL knows of, so that its own files leave room for it.
pub(crate) struct ExternalDescriptor;

impl ExternalDescriptor {
    pub(crate) fn acquire() -> Result<ExternalDescriptor, Error> {
        // SAFETY: a counter of this process; `drop` releases what this acquires.
        if unsafe { pg_sys::AcquireExternalFD() } { Ok(ExternalDescriptor) } else { Err(Error::NoDescriptor) }
    }
}

impl Drop for ExternalDescriptor {
    fn drop(&mut self) {
        // SAFETY: acquired by the only constructor.
        unsafe { pg_sys::ReleaseExternalFD() };
    }
}
