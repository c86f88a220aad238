//! Whose tables a call may name.

use pgrx::pg_sys;

use super::home::{oid, oid_of};
use super::sql;
use crate::error::Error;
use crate::spi::Spi;

/// Refuses a table that is not the caller's.
pub(crate) fn check_owner(spi: &Spi, table: Option<pg_sys::Datum>) -> Result<(), Error> {
    let table = table.map_or(pg_sys::InvalidOid, oid_of);
    let row = spi.run(sql::OWNS, &[oid(table)])?;
    let owns = row.len() > 0 && row.value(2).is_some_and(|owns| owns.value() != 0);
    if owns {
        return Ok(());
    }
    let name = if row.len() > 0 { row.text(1).unwrap_or_default() } else { u32::from(table).to_string() };
    Err(Error::NotOwner(name))
}

/// An argument of the running function; nothing where it is NULL.
///
/// # Safety
/// The function has an argument of this index.
pub(crate) unsafe fn argument(fcinfo: pg_sys::FunctionCallInfo, index: usize) -> Option<pg_sys::Datum> {
    // SAFETY: the caller vouches for the index.
    let argument = unsafe { &*(*fcinfo).args.as_ptr().add(index) };
    (!argument.isnull).then_some(argument.value)
}
