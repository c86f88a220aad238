//! The triggers of a watch, made and dropped as the owner of the table that they are on.

use pgrx::pg_sys;

use crate::catalog::name_of;
use crate::error::Error;
use crate::spi::{Argument, Spi};
use crate::watch::home::Home;
use crate::watch::role::act_as;

/// The event of a trigger, and the rows that it sees.
const TRIGGERS: [(&str, &str); 4] = [
    ("insert", "REFERENCING NEW TABLE AS new_rows"),
    ("update", "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows"),
    ("delete", "REFERENCING OLD TABLE AS old_rows"),
    ("truncate", ""),
];

/// Makes them, in place of those of an earlier watch.
pub(super) fn make(spi: &Spi, home: &Home, table: pg_sys::Oid, owner: pg_sys::Oid) -> Result<(), Error> {
    drop_all(spi, table, owner)?;
    act_as(owner, || {
        TRIGGERS.iter().try_for_each(|(event, rows)| {
            let statement = format!(
                "CREATE TRIGGER clip_watch_{event} AFTER {event} ON {} {rows}
                FOR EACH STATEMENT EXECUTE FUNCTION {}.clip_fill_image_embeddings()",
                name_of(table),
                home.schema
            );
            spi.run(&statement, &[]).map(|_| ())
        })
    })
}

/// Whether a table has triggers of a watch.
pub(super) fn are_there(spi: &Spi, home: &Home, table: pg_sys::Oid) -> Result<bool, Error> {
    act_as(home.owner, || Ok(spi.run_now(NAMES, &[Argument::oid(table)])?.len() > 0))
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
        clip_watch_insert, clip_watch_update, clip_watch_delete, clip_watch_truncate}'::name[])";
