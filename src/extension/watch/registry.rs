//! Which tables a call may name.

use pgrx::pg_sys;

use crate::catalog;
use crate::error::Error;

/// Refuses a table that is not the caller's.
pub(crate) fn check_owner(table: pg_sys::Oid) -> Result<(), Error> {
    let owner = catalog::owner_of(table).ok_or_else(|| Error::NoTable(u32::from(table).to_string()))?;
    // SAFETY: a plain read of the current role; the function looks any two numbers up in the catalogs.
    if unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), owner) } {
        return Ok(());
    }
    Err(Error::NotOwner(catalog::name_of(table)))
}

/// The oid that an argument of type `oid` or `regclass` holds.
pub(crate) fn oid_of(argument: pg_sys::Datum) -> pg_sys::Oid {
    pg_sys::Oid::from(u32::try_from(argument.value()).expect("an oid has 32 bits"))
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
