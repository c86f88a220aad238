//! Writing down which tables are watched.
//!
//! `clip_watches` belongs to the extension's owner and nobody else may write to it, or lock it. These functions write to
//! it for the owner of a table, who is the caller: hence they are no SECURITY DEFINER functions in SQL, which would not
//! know their caller.

use pgrx::{FromDatum, IntoDatum, pg_sys};

use super::home::Home;
use super::role::act_as;
use super::sql;
use super::watched::{Patience, Watched};
use crate::catalog;
use crate::error::Error;
use crate::queue::enqueue;
use crate::spi::{Argument, Spi};
use crate::sql_function;

sql_function! {
    /// `clip_register_watch(source regclass, target regclass, mode text, image_column name, key_column name,
    /// project_column name, target_key_column name, embedding_column name, checksum_column name, model_column name,
    /// target_project_column name, model text) → void`: the columns of `clip_watches`, in their order.
    fn clip_register_watch(fcinfo) {
        const SOURCE: usize = 0;
        const TARGET: usize = 1;
        const MODE: usize = 2;
        const MODEL: usize = 11;
        const COLUMNS: usize = 12;
        // SAFETY: SQL declares the function with these arguments.
        let values: Vec<Option<pg_sys::Datum>> = (0..COLUMNS).map(|index| unsafe { argument(fcinfo, index) }).collect();
        let spi = Spi::connect()?;
        for table in [values[SOURCE], values[TARGET]] {
            check_owner(table)?;
        }
        let arguments: Vec<Argument> = values
            .iter()
            .enumerate()
            .map(|(index, value)| Argument {
                oid: match index {
                    SOURCE | TARGET => pg_sys::REGCLASSOID,
                    MODE | MODEL => pg_sys::TEXTOID,
                    _ => pg_sys::NAMEOID,
                },
                value: *value,
            })
            .collect();
        // SAFETY: `flinfo` is that of the running function.
        let home = Home::of(&spi, unsafe { (*(*fcinfo).flinfo).fn_oid })?;
        act_as(home.owner, || {
            spi.run(&sql::forget_dropped(&home.schema), &[])?;
            spi.run(&sql::forget_jobs_of_dropped(&home.schema), &[])?;
            spi.run(&sql::register(&home.schema), &arguments)
        })?;
        // What cannot be watched is refused here, by the same look that each statement on the table will take.
        Watched::registered(&spi, &home, oid_of(values[SOURCE]), Patience::Wait)?;
        Ok(pg_sys::Datum::from(0))
    }
}

sql_function! {
    /// `clip_unregister_watch(source regclass) → bool`: whether the table was watched.
    fn clip_unregister_watch(fcinfo) {
        // SAFETY: SQL declares the function with this argument.
        let source = unsafe { argument(fcinfo, 0) };
        let spi = Spi::connect()?;
        check_owner(source)?;
        // SAFETY: `flinfo` is that of the running function.
        let home = Home::of(&spi, unsafe { (*(*fcinfo).flinfo).fn_oid })?;
        enqueue::clear(&spi, &home, oid_of(source))?;
        let source = Argument::oid(oid_of(source));
        let deleted = act_as(home.owner, || spi.run(&sql::unregister(&home.schema), &[source]))?;
        Ok((deleted.len() > 0).into_datum().unwrap_or(0.into()))
    }
}

sql_function! {
    /// `clip_set_watch_model(source regclass, model text) → void`
    fn clip_set_watch_model(fcinfo) {
        // SAFETY: SQL declares the function with these arguments.
        let (source, model) = unsafe { (argument(fcinfo, 0), argument(fcinfo, 1)) };
        let spi = Spi::connect()?;
        check_owner(source)?;
        // SAFETY: `flinfo` is that of the running function.
        let home = Home::of(&spi, unsafe { (*(*fcinfo).flinfo).fn_oid })?;
        let arguments = [
            Argument::oid(oid_of(source)),
            Argument { oid: pg_sys::TEXTOID, value: model },
        ];
        act_as(home.owner, || spi.run(&sql::set_model(&home.schema), &arguments))?;
        Ok(pg_sys::Datum::from(0))
    }
}

/// Refuses a table that is not the caller's.
pub(crate) fn check_owner(table: Option<pg_sys::Datum>) -> Result<(), Error> {
    let table = oid_of(table);
    let owner = catalog::owner_of(table).ok_or_else(|| Error::NoTable(u32::from(table).to_string()))?;
    // SAFETY: a plain read of the current role; the function looks any two numbers up in the catalogs.
    if unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), owner) } {
        return Ok(());
    }
    Err(Error::NotOwner(catalog::name_of(table)))
}

/// The oid that an argument of type `oid` or `regclass` holds; that of no object where it is NULL.
pub(crate) fn oid_of(argument: Option<pg_sys::Datum>) -> pg_sys::Oid {
    // SAFETY: SQL declares the argument with one of these types, which are passed by value.
    unsafe { pg_sys::Oid::from_datum(argument.unwrap_or(0.into()), argument.is_none()) }
        .unwrap_or(pg_sys::InvalidOid)
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
