//! The triggers of a watch, made and dropped as the owner of the table that they are on.

use pgrx::pg_sys;
use pgrx::spi::quote_literal;

use crate::catalog::name_of;
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
    act_as(owner, || {
        for (event, rows) in TRIGGERS {
            let statement = format!(
                "CREATE TRIGGER clip_watch_{event} AFTER {event} ON {table_name} {rows}
                FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
            );
            spi.run(&statement, &[])?;
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
        }
        Ok(())
    })
}

/// Whether rows of other partitions can move to a table.
fn can_receive_moved_rows(table: pg_sys::Oid) -> bool {
    // SAFETY: the function takes any number.
    unsafe { pg_sys::get_rel_relispartition(table) && holds_rows(table) }
}

/// Whether a table is no partitioned one.
fn holds_rows(table: pg_sys::Oid) -> bool {
    // SAFETY: the function takes any number.
    unsafe { pg_sys::get_rel_relkind(table).cast_unsigned() == pg_sys::RELKIND_RELATION }
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
        })
    })
}

/// The triggers of a watch on table `$1`.
const NAMES: &str = "
    SELECT tgname::text FROM pg_trigger
    WHERE tgrelid = $1 AND NOT tgisinternal AND tgname = ANY ('{
        clip_watch_insert, clip_watch_update, clip_watch_delete, clip_watch_truncate,
        clip_watch_moved_away, clip_watch_moved_here, clip_watch_applied, clip_watch_applied_truncate}'::name[])";
