//! What `clip_backfill` needs of the queue, for the owner of a watched table, who has no right on `clip_queue`.

use pgrx::{IntoDatum, pg_sys};

use super::{sql, wake};
use crate::error::Error;
use crate::spi::{Argument, Rows, Spi};
use crate::sql_function;
use crate::watch::home::Home;
use crate::watch::registry::check_owner;
use crate::watch::role::act_as;

sql_function! {
    /// `clip_enqueue_missing(source regclass, keys text[]) → int8`
    fn clip_enqueue_missing(fcinfo) {
        // SAFETY: SQL declares the function STRICT with these arguments.
        let added = unsafe {
            let keys = argument(fcinfo, 1, pg_sys::TEXTARRAYOID);
            for_owner(fcinfo, sql::add_missing, &[keys], |added| added.len())?
        };
        if added > 0 {
            wake::at_commit();
        }
        Ok(i64::try_from(added).expect("as many as an array holds").into_datum().unwrap_or(0.into()))
    }
}

sql_function! {
    /// `clip_count_jobs(source regclass, dead bool, enqueued_before timestamptz) → int8`
    fn clip_count_jobs(fcinfo) {
        // SAFETY: SQL declares the function STRICT with these arguments; a count is an int8.
        let count = unsafe {
            let arguments = [argument(fcinfo, 1, pg_sys::BOOLOID), argument(fcinfo, 2, pg_sys::TIMESTAMPTZOID)];
            for_owner(fcinfo, sql::count, &arguments, |rows| {
                rows.get::<i64>(1)
            })??.unwrap_or_default()
        };
        Ok(count.into_datum().unwrap_or(0.into()))
    }
}

sql_function! {
    /// `clip_note_backfill(source regclass, started_at timestamptz, looked_at int8, waiting int8, total int8) → void`
    fn clip_note_backfill(fcinfo) {
        // SAFETY: SQL declares the function STRICT with these arguments.
        unsafe {
            let arguments = [
                argument(fcinfo, 1, pg_sys::TIMESTAMPTZOID),
                argument(fcinfo, 2, pg_sys::INT8OID),
                argument(fcinfo, 3, pg_sys::INT8OID),
                argument(fcinfo, 4, pg_sys::INT8OID),
            ];
            for_owner(fcinfo, sql::note_backfill, &arguments, |_| ())?;
        }
        Ok(pg_sys::Datum::from(0))
    }
}

sql_function! {
    /// `clip_end_backfill(source regclass) → void`
    fn clip_end_backfill(fcinfo) {
        // SAFETY: SQL declares the function STRICT with this argument.
        unsafe { for_owner(fcinfo, sql::end_backfill, &[], |_| ())? };
        Ok(pg_sys::Datum::from(0))
    }
}

/// Runs a statement on the extension's tables, with the source as `$1`, if the source is the caller's.
///
/// # Safety
/// `fcinfo` is that of a running STRICT function of the extension whose first argument is a `regclass`.
unsafe fn for_owner<R>(
    fcinfo: pg_sys::FunctionCallInfo,
    statement: impl Fn(&str) -> String,
    others: &[Argument],
    read: impl Fn(&Rows) -> R,
) -> Result<R, Error> {
    // SAFETY: the caller vouches for `fcinfo`.
    let (source, function) = unsafe { (argument(fcinfo, 0, pg_sys::OIDOID), (*(*fcinfo).flinfo).fn_oid) };
    let spi = Spi::connect()?;
    check_owner(source.value)?;
    let home = Home::of(&spi, function)?;
    let arguments = [&[source], others].concat();
    let rows = act_as(home.owner, || spi.run(&statement(&home.schema), &arguments))?;
    Ok(read(&rows))
}

/// # Safety
/// `fcinfo` is that of a STRICT function that has an argument of this index and type.
unsafe fn argument(fcinfo: pg_sys::FunctionCallInfo, index: usize, oid: pg_sys::Oid) -> Argument {
    // SAFETY: the caller vouches for the index; no argument of a STRICT function is NULL.
    Argument { oid, value: Some(unsafe { (*(*fcinfo).args.as_ptr().add(index)).value }) }
}
