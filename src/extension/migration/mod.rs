//! What `clip_migrate` cannot say in SQL. The procedure itself is in `sql/migration.sql`.
//!
//! It has to keep others away between its transactions ([`hold`]), and to wait for what others do without a queue
//! forming behind it ([`wait`]): both as CREATE INDEX CONCURRENTLY does it.

mod hold;
mod model;
mod wait;

use pgrx::pg_sys;

use crate::error::Error;
use crate::watch::registry::{check_owner, oid_of};

/// The first argument, which is a table of the caller's.
///
/// # Safety
/// `fcinfo` is that of a STRICT function whose first argument is a `regclass`.
unsafe fn own_table(fcinfo: pg_sys::FunctionCallInfo) -> Result<pg_sys::Oid, Error> {
    // SAFETY: the caller vouches for `fcinfo`.
    let table = unsafe { argument(fcinfo, 0) };
    check_owner(Some(table))?;
    Ok(oid_of(Some(table)))
}

/// # Safety
/// `fcinfo` is that of a STRICT function that has an argument of this index.
unsafe fn argument(fcinfo: pg_sys::FunctionCallInfo, index: usize) -> pg_sys::Datum {
    // SAFETY: the caller vouches for the index; no argument of a STRICT function is NULL.
    unsafe { (*(*fcinfo).args.as_ptr().add(index)).value }
}
