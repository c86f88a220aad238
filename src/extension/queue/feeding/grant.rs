//! Which roles may feed a table: `clip_grant_feeder` and `clip_revoke_feeder`.
//!
//! The right is a row and no privilege of PostgreSQL's: each of those on the table would let the role do more with it.

use pgrx::{IntoDatum, pg_sys};

use super::sql;
use crate::catalog;
use crate::error::Error;
use crate::owned::{LOOK, Table};
use crate::refusal::{Reason, refuse};
use crate::spi::{Argument, Spi};
use crate::sql_function::sql_function;
use crate::watch::extension_schema::ExtensionSchema;
use crate::watch::registry::{argument, oid_of};
use crate::watch::role::act_as;

sql_function! {
    /// `clip_grant_feeder(source regclass, feeder regrole) → void`
    fn clip_grant_feeder(fcinfo) {
        // SAFETY: SQL declares the function STRICT with these arguments.
        unsafe {
            check_role(argument(fcinfo, 1).map_or(pg_sys::InvalidOid, oid_of))?;
            write(fcinfo, sql::grant)
        }
    }
}

sql_function! {
    /// `clip_revoke_feeder(source regclass, feeder regrole) → void`
    fn clip_revoke_feeder(fcinfo) {
        // SAFETY: SQL declares the function STRICT with these arguments.
        unsafe { write(fcinfo, sql::revoke) }
    }
}

/// Refuses the number of no role: a regrole may be any.
fn check_role(role: pg_sys::Oid) -> Result<(), Error> {
    // SAFETY: takes any number, and returns null where there is no such role.
    let name = unsafe { pg_sys::GetUserNameFromId(role, true) };
    if name.is_null() {
        let message = format!("role {} does not exist", u32::from(role));
        return Err(refuse(Reason::UndefinedRole, message));
    }
    Ok(())
}

/// # Safety
/// `fcinfo` is that of a running STRICT function of a regclass and a regrole.
unsafe fn write(
    fcinfo: pg_sys::FunctionCallInfo,
    statement: fn(&str) -> String,
) -> Result<pg_sys::Datum, Error> {
    // SAFETY: the caller vouches for the arguments; `flinfo` is that of the running function.
    let (source, feeder, function) = unsafe {
        pg_sys::PreventCommandIfReadOnly(c"clip_grant_feeder()".as_ptr());
        let oid = |index| argument(fcinfo, index).map_or(pg_sys::InvalidOid, oid_of);
        (oid(0), oid(1), (*(*fcinfo).flinfo).fn_oid)
    };
    let spi = Spi::connect()?;
    let extension = ExtensionSchema::of(function)?;
    let table = Table::of_caller(source, LOOK)?;
    check_by_reference(&spi, &extension, source, &table.name)?;
    let feeder = Argument { oid: pg_sys::REGROLEOID, value: feeder.into_datum() };
    let source = Argument { oid: pg_sys::REGCLASSOID, value: source.into_datum() };
    act_as(extension.owner, || spi.run(&statement(&extension.schema), &[source, feeder]))?;
    Ok(pg_sys::Datum::from(0))
}

/// Refuses a table that is not watched by reference, or that the caller may not feed. Locks nothing.
pub(super) fn check(spi: &Spi, extension: &ExtensionSchema, source: pg_sys::Oid) -> Result<(), Error> {
    // SAFETY: a plain read of the current role.
    let caller = unsafe { pg_sys::GetUserId() };
    let owner = catalog::owner_of(source).ok_or_else(|| Error::NoTable(u32::from(source).to_string()))?;
    // SAFETY: plain look-ups of roles.
    let is_owner = unsafe { pg_sys::has_privs_of_role(caller, owner) };
    let may_feed = is_owner || {
        let arguments = [Argument::oid(source), Argument::oid(caller)];
        act_as(extension.owner, || spi.run_kept(&sql::may_feed(&extension.schema), &arguments))?.len() > 0
    };
    let name = catalog::name_of(source);
    if !may_feed {
        let message = format!("permission denied to feed table {name}");
        return Err(refuse(Reason::NotAllowed, message)
            .with_hint(format!("Its owner grants it: SELECT clip_grant_feeder('{name}', '...')")));
    }
    check_by_reference(spi, extension, source, &name)
}

fn check_by_reference(
    spi: &Spi,
    extension: &ExtensionSchema,
    source: pg_sys::Oid,
    name: &str,
) -> Result<(), Error> {
    let statement = sql::is_by_reference(&extension.schema);
    if act_as(extension.owner, || spi.run_kept(&statement, &[Argument::oid(source)]))?.len() > 0 {
        return Ok(());
    }
    Err(refuse(Reason::NotReady, format!("table {name} is not watched by reference"))
        .with_hint(format!("SELECT clip_watch('{name}', reference_column => '...')")))
}
