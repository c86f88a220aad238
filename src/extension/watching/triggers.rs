//! The triggers of a watch, made and dropped as the owner of the table that they are on. An owner that has no right on the
//! extension's schema cannot name their function there: for such a one they are made as the extension's owner. Neither way runs
//! code of a user's.

use pgrx::pg_sys;
use pgrx::spi::quote_literal;

use crate::catalog::{letter, name_of, owner_of};
use crate::error::Error;
use crate::spi::{Argument, Spi};
use crate::watch::extension_schema::ExtensionSchema;
use crate::watch::role::act_as;
use crate::watch::{applied, moves};

/// The event of a trigger, and the rows that it sees.
const TRIGGERS: [(&str, &str); 4] = [
    ("insert", "REFERENCING NEW TABLE AS new_rows"),
    ("update", "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows"),
    ("delete", "REFERENCING OLD TABLE AS old_rows"),
    ("truncate", ""),
];

/// The triggers of a partition that note where a row moves, and their events: see [`moves`].
const MOVES: [(&str, &str); 2] = [("clip_watch_moved_away", "DELETE"), ("clip_watch_moved_here", "INSERT")];

/// The triggers that are fired only for rows and TRUNCATEs that logical replication applies: see [`applied`]. Row
/// triggers are on each table that holds rows, TRUNCATE triggers on each table.
const APPLIED_ROW: &str = "clip_watch_applied";
const APPLIED_TRUNCATE: &str = "clip_watch_applied_truncate";

/// The watch that triggers are made for.
#[derive(Clone, Copy)]
pub(super) struct Made<'a> {
    /// The column of the photos' keys.
    pub(super) key: &'a str,
    /// Whether rows that logical replication applies are embedded too.
    pub(super) is_replicated: bool,
}

/// Makes them, in place of those of an earlier watch.
pub(super) fn make(
    spi: &Spi,
    extension: &ExtensionSchema,
    table: pg_sys::Oid,
    owner: pg_sys::Oid,
    Made { key, is_replicated }: Made,
) -> Result<(), Error> {
    drop_all(spi, table, owner)?;
    let function = format!("{}.clip_fill_image_embeddings", extension.schema);
    let table_name = name_of(table);
    let maker = if can_name(spi, extension, owner)? {
        owner
    } else if owner_of(table) == Some(owner) {
        extension.owner
    } else {
        return Err(Error::NotOwner(table_name));
    };
    act_as(maker, || {
        for (event, rows) in TRIGGERS {
            let statement = format!(
                "CREATE TRIGGER clip_watch_{event} AFTER {event} ON {table_name} {rows}
                FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
            );
            spi.run(&statement, &[])?;
            extension.check_trigger(table, &format!("clip_watch_{event}"))?;
        }
        if is_replicated {
            let mut replica = vec![(APPLIED_TRUNCATE, "TRUNCATE", "STATEMENT")];
            if holds_rows(table) {
                replica.push((APPLIED_ROW, "INSERT OR UPDATE OR DELETE", "ROW"));
            }
            for (name, events, level) in replica {
                let statement = format!(
                    "CREATE TRIGGER {name} AFTER {events} ON {table_name}
                    FOR EACH {level} EXECUTE FUNCTION {function}('{}')",
                    applied::ARGUMENT
                );
                spi.run(&statement, &[])?;
                extension.check_trigger(table, name)?;
                spi.run(&format!("ALTER TABLE {table_name} ENABLE REPLICA TRIGGER {name}"), &[])?;
            }
        }
        if !can_receive_moved_rows(table) {
            return Ok(());
        }
        let argument = quote_literal(format!("{}{key}", moves::ARGUMENT));
        for (name, event) in MOVES {
            let statement = format!(
                "CREATE TRIGGER {name} AFTER {event} ON {table_name}
                FOR EACH ROW EXECUTE FUNCTION {function}({argument})"
            );
            spi.run(&statement, &[])?;
            extension.check_trigger(table, name)?;
        }
        Ok(())
    })
}

/// Whether a role has the right to use the extension's schema.
fn can_name(spi: &Spi, extension: &ExtensionSchema, role: pg_sys::Oid) -> Result<bool, Error> {
    const MAY_USE: &str = "SELECT WHERE has_schema_privilege($1, to_regnamespace($2)::oid, 'USAGE')";
    let arguments = [Argument::oid(role), Argument::text(&extension.schema)];
    act_as(extension.owner, || Ok(spi.run_now(MAY_USE, &arguments)?.len() > 0))
}

/// Whether rows of other partitions can move to a table.
fn can_receive_moved_rows(table: pg_sys::Oid) -> bool {
    // SAFETY: the function takes any number.
    unsafe { pg_sys::get_rel_relispartition(table) && holds_rows(table) }
}

/// Whether a table is no partitioned one.
pub(super) fn holds_rows(table: pg_sys::Oid) -> bool {
    // SAFETY: the function takes any number.
    unsafe { letter(pg_sys::get_rel_relkind(table)) == pg_sys::RELKIND_RELATION }
}

/// Whether a table has triggers of a watch.
pub(super) fn are_there(spi: &Spi, extension: &ExtensionSchema, table: pg_sys::Oid) -> Result<bool, Error> {
    act_as(extension.owner, || Ok(spi.run_now(NAMES, &[Argument::oid(table)])?.len() > 0))
}

pub(super) fn drop_all(spi: &Spi, table: pg_sys::Oid, owner: pg_sys::Oid) -> Result<(), Error> {
    act_as(owner, || {
        let names = spi.run_now(NAMES, &[Argument::oid(table)])?.all_printed(1);
        names.into_iter().flatten().try_for_each(|name| {
            spi.run(&format!("DROP TRIGGER {name} ON {}", name_of(table)), &[]).map(|_| ())
        })?;
        // The schema may have been renamed, and a namesake may have had triggers of these names.
        match spi.run_now(NAMES, &[Argument::oid(table)])?.len() {
            0 => Ok(()),
            _ => Err(Error::Namesake(name_of(table))),
        }
    })
}

/// The triggers of a watch on table `$1`.
const NAMES: &str = "
    SELECT tgname::text FROM pg_trigger
    JOIN pg_depend ON classid = 'pg_proc'::regclass AND objid = tgfoid AND refclassid = 'pg_extension'::regclass AND deptype = 'e'
    JOIN pg_extension ON pg_extension.oid = refobjid AND extname = 'pg_clip'
    WHERE tgrelid = $1 AND NOT tgisinternal AND tgname = ANY ('{
        clip_watch_insert, clip_watch_update, clip_watch_delete, clip_watch_truncate,
        clip_watch_moved_away, clip_watch_moved_here, clip_watch_applied, clip_watch_applied_truncate}'::name[])";
