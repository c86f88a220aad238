//! What commands by name have done, looked at by numbers.
//!
//! A command such as ALTER TABLE names its table. The owner of the schema can rename that and put another table of this name into
//! its place, which a superuser's command then alters. None of these commands runs code of a table; so they are looked at
//! afterwards, in the same transaction: it ends where the table is not as they leave it.

use pgrx::pg_sys;

use crate::encoding;
use crate::error::Error;
use crate::owned::Table;
use crate::spi::{Argument, Spi};

/// Adds a column of a type to a table. To be called as its owner; the table is locked alone.
pub(super) fn add_column(table: pg_sys::Oid, name: &std::ffi::CStr, type_oid: pg_sys::Oid, modifier: i32) {
    // SAFETY: the definition is complete, and lives in the current memory context.
    alter(table, |command| unsafe {
        let column = pg_sys::makeColumnDef(name.as_ptr(), type_oid, modifier, pg_sys::InvalidOid);
        command.subtype = pg_sys::AlterTableType::AT_AddColumn;
        command.def = column.cast();
    });
}

/// Validates a constraint of a table: reads its rows. To be called as its owner, under the lock that it needs.
pub(super) fn validate_constraint(table: pg_sys::Oid, name: &std::ffi::CStr) {
    alter(table, |command| {
        command.subtype = pg_sys::AlterTableType::AT_ValidateConstraint;
        command.name = name.as_ptr().cast_mut();
    });
}

/// Runs a command of ALTER TABLE that names nothing but parts of the table.
fn alter(table: pg_sys::Oid, write: impl FnOnce(&mut pg_sys::AlterTableCmd)) {
    // SAFETY: the node lives in the current memory context; the function takes the table by its number, and a command that is
    // complete; an ERROR becomes a panic.
    unsafe {
        let size = size_of::<pg_sys::AlterTableCmd>();
        let command = pg_sys::palloc0(size).cast::<pg_sys::AlterTableCmd>();
        (*command).type_ = pg_sys::NodeTag::T_AlterTableCmd;
        write(&mut *command);
        let commands = pg_sys::lappend(std::ptr::null_mut(), command.cast());
        pg_sys::AlterTableInternal(table, commands, true);
        pg_sys::CommandCounterIncrement();
    }
}

/// Sees to it that a table has some columns and triggers, by their quoted and their unquoted names, and others not.
pub(super) fn check(
    spi: &Spi,
    table: &Table,
    [columns, gone]: [&[&str]; 2],
    [triggers, gone_triggers]: [&[&str]; 2],
) -> Result<(), Error> {
    const IS_SO: &str = "
        WITH columns AS (
            SELECT quote_ident(attname) AS name FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped
        ), triggers AS (
            SELECT tgname::text AS name FROM pg_trigger WHERE tgrelid = $1
        )
        SELECT $2 <@ ARRAY(SELECT name FROM columns) AND NOT $3 && ARRAY(SELECT name FROM columns)
            AND $4 <@ ARRAY(SELECT name FROM triggers) AND NOT $5 && ARRAY(SELECT name FROM triggers)";
    let texts = |names: &[&str]| {
        Argument::texts(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>())
    };
    let arguments =
        [Argument::oid(table.oid), texts(columns), texts(gone), texts(triggers), texts(gone_triggers)];
    match spi.run_now(IS_SO, &arguments)?.get::<bool>(1)? {
        Some(true) => Ok(()),
        _ => Err(Error::Namesake(table.name.clone())),
    }
}

/// The name of a column as a string of C.
pub(super) fn c_name(name: &str) -> std::ffi::CString {
    std::ffi::CString::new(encoding::to_server(name)).expect("a name has no NUL byte")
}
