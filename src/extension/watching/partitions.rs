//! Partitions of a watched table.
//!
//! A statement on a partition fires its own triggers and not those of the table that it is part of. So each
//! partition has the triggers of a watch, whose function looks for the watch among its ancestors. An event trigger
//! follows the partitions: one that is attached gets the triggers, and the queue embeds its photos; one that is
//! detached loses them, and its embeddings are deleted. It does nothing after other commands on the same tables
//! ([`super::ddl`]): the commands that make these triggers are among them, and those of a restore, which brings the
//! triggers itself.
//!
//! An event trigger also runs in statements that have nothing to do with pg_clip: an error in it becomes a warning. It
//! is written in PL/pgSQL, and calls this library only where a partitioned table is watched: a library that is missing
//! must not stop every CREATE TABLE.

use pgrx::{PgLogLevel, pg_sys};

use super::ddl::Command;
use super::triggers;
use crate::attempt::{attempt, of_a_table};
use crate::catalog;
use crate::error::Error;
use crate::notice;
use crate::queue::enqueue::Jobs;
use crate::spi::{Argument, Spi};
use crate::sql_function::sql_function;
use crate::varlena::Utf8;
use crate::watch::extension_schema::ExtensionSchema;
use crate::watch::role::act_as;
use crate::watch::watched::{LockWait, Watched};
use crate::watch::{self, sql};

sql_function! {
    /// `clip_watch_partitions(event text) → void`, called by an event trigger at `ddl_command_end` or `sql_drop`.
    fn clip_watch_partitions(fcinfo) {
        // SAFETY: SQL declares the function STRICT with this argument; `flinfo` is that of the running function.
        let (event, function) = unsafe {
            let event = Utf8::new((*(*fcinfo).args.as_ptr()).value)?.into_string();
            (event, (*(*fcinfo).flinfo).fn_oid)
        };
        let spi = Spi::connect()?;
        let extension = ExtensionSchema::of(function)?;
        let roots = if event == "sql_drop" { roots_of_dropped(&spi, &extension)? } else { roots_of_altered(&spi, &extension)? };
        for root in roots {
            let followed = attempt(of_a_table, || follow(&spi, &extension, root))?;
            if let Err(failure) = followed {
                let (table, why) = (catalog::name_of(root), failure.message);
                let message = format!("pg_clip did not follow the partitions of table {table}: {why}");
                notice::tell(PgLogLevel::WARNING, &message, None);
            }
        }
        Ok(pg_sys::Datum::from(0))
    }
}

/// The watched partitioned tables that a running DDL command may have given partitions, or taken them from.
fn roots_of_altered(spi: &Spi, extension: &ExtensionSchema) -> Result<Vec<pg_sys::Oid>, Error> {
    let query = format!(
        "SELECT watch.source::oid, command.command FROM {}.clip_watches AS watch
        JOIN pg_class AS class ON class.oid = watch.source AND class.relkind = 'p'
        JOIN pg_event_trigger_ddl_commands() AS command ON command.classid = 'pg_class'::regclass
        WHERE command.objid = watch.source
            OR watch.source IN (SELECT relid FROM pg_partition_ancestors(command.objid))",
        extension.schema
    );
    let (roots, commands) = act_as(extension.owner, || {
        let rows = spi.run_now(&query, &[])?;
        Ok::<_, Error>((oids(rows.all_printed(1)), rows.all_by_value(2, Command::TYPE)?))
    })?;
    let concerned = roots.into_iter().zip(commands).filter(|(_, command)| {
        // SAFETY: the command is one that the running event trigger is told of.
        command.is_some_and(|command| unsafe { Command::new(command) }.changes_partitions())
    });
    let mut roots: Vec<pg_sys::Oid> = concerned.map(|(root, _)| root).collect();
    roots.sort_unstable_by_key(|root| u32::from(*root));
    roots.dedup();
    Ok(roots)
}

/// All watched partitioned tables, where a running command drops a table with the triggers of a watch.
fn roots_of_dropped(spi: &Spi, extension: &ExtensionSchema) -> Result<Vec<pg_sys::Oid>, Error> {
    let query = format!(
        "SELECT watch.source::oid FROM {}.clip_watches AS watch
        JOIN pg_class AS class ON class.oid = watch.source AND class.relkind = 'p'
        WHERE EXISTS (
            SELECT FROM pg_event_trigger_dropped_objects() AS dropped
            WHERE dropped.object_type = 'trigger' AND 'clip_watch_delete' = ANY (dropped.address_names))",
        extension.schema
    );
    act_as(extension.owner, || Ok(oids(spi.run_now(&query, &[])?.all_printed(1))))
}

/// Brings the triggers of a watched table's partitions, and of those that it had, up to date.
fn follow(spi: &Spi, extension: &ExtensionSchema, root: pg_sys::Oid) -> Result<(), Error> {
    let Some(watched) = Watched::registered(spi, extension, root, LockWait::Wait)? else {
        return Ok(());
    };
    for part in parts(spi, &watched, PARTS_WITHOUT)? {
        let registration = watched.registration.as_ref();
        let made = triggers::Made {
            key: watched.source.key.raw_name(),
            is_replicated: registration.is_some_and(|registration| registration.is_replicated),
        };
        triggers::make(spi, extension, part, watched.source.table.owner, made)?;
        watched.read(|| {
            let rows = format!("ONLY {}", catalog::name_of(part));
            let keys =
                watch::printed_keys(spi.open(&sql::inserted_keys(&watched.source, &rows))?, &watched.source)?;
            Jobs::of(spi, extension, &watched.source).add(keys)
        })?;
    }
    for part in parts(spi, &watched, &strays(&extension.schema))? {
        if let Some(owner) = catalog::owner_of(part) {
            triggers::drop_all(spi, part, owner)?;
        }
    }
    watched.read(|| watch::delete_all_gone(spi, &watched))
}

/// Makes the triggers of a watch on all partitions of a table.
pub(super) fn make(
    spi: &Spi,
    extension: &ExtensionSchema,
    root: pg_sys::Oid,
    owner: pg_sys::Oid,
    made: triggers::Made,
) -> Result<(), Error> {
    each_part(spi, root, owner, |part| triggers::make(spi, extension, part, owner, made))
}

/// Drops the triggers of a watch from all partitions of a table.
pub(super) fn drop_all(spi: &Spi, root: pg_sys::Oid, owner: pg_sys::Oid) -> Result<(), Error> {
    each_part(spi, root, owner, |part| triggers::drop_all(spi, part, owner))
}

fn each_part(
    spi: &Spi,
    root: pg_sys::Oid,
    owner: pg_sys::Oid,
    then: impl Fn(pg_sys::Oid) -> Result<(), Error>,
) -> Result<(), Error> {
    let parts = act_as(owner, || Ok::<_, Error>(spi.run_now(PARTS, &[Argument::oid(root)])?.all_printed(1)))?;
    oids(parts).into_iter().try_for_each(then)
}

fn parts(spi: &Spi, watched: &Watched, query: &str) -> Result<Vec<pg_sys::Oid>, Error> {
    let root = Argument::oid(watched.source.table.oid);
    watched.read(|| Ok(oids(spi.run_now(query, &[root])?.all_printed(1))))
}

fn oids(texts: Vec<Option<String>>) -> Vec<pg_sys::Oid> {
    let numbers = texts.into_iter().flatten().filter_map(|oid| oid.parse::<u32>().ok());
    numbers.map(pg_sys::Oid::from).collect()
}

/// The partitions of table `$1`, at any depth. A foreign table can have no such triggers.
const PARTS: &str = "
    SELECT part.relid::oid FROM pg_partition_tree($1::oid) AS part
    JOIN pg_class AS class ON class.oid = part.relid AND class.relkind IN ('r', 'p')
    WHERE part.relid <> $1::oid";

/// The partitions among them without the triggers of a watch.
const PARTS_WITHOUT: &str = "
    SELECT part.relid::oid FROM pg_partition_tree($1::oid) AS part
    JOIN pg_class AS class ON class.oid = part.relid AND class.relkind IN ('r', 'p')
    WHERE part.relid <> $1::oid AND NOT EXISTS (
        SELECT FROM pg_trigger WHERE tgrelid = part.relid AND tgname = 'clip_watch_delete')";

/// Tables of the owner of table `$1` that have the triggers of a watch, made for a partition, and are no partition any more. A
/// trigger of the same function on `$1` tells which function that is.
fn strays(schema: &str) -> String {
    format!(
        "SELECT stray.oid FROM pg_trigger AS own
        JOIN pg_trigger AS made ON made.tgfoid = own.tgfoid AND made.tgname = own.tgname AND made.tgnargs = 0
        JOIN pg_class AS stray ON stray.oid = made.tgrelid AND NOT stray.relispartition AND stray.oid <> own.tgrelid
        JOIN pg_class AS root ON root.oid = own.tgrelid AND root.relowner = stray.relowner
        WHERE own.tgrelid = $1::oid AND own.tgname = 'clip_watch_delete'
            AND NOT EXISTS (SELECT FROM {schema}.clip_watches AS watch WHERE watch.source = stray.oid)"
    )
}
