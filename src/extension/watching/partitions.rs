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
//! is written in PL/pgSQL, and calls this library only where a command concerns a watched partitioned table: a library
//! that is missing must not stop every CREATE TABLE.
//!
//! A command of one role must not fail or wait because of another one. So rows are read and written only in a command of the
//! owner of the watched table itself: triggers, indexes and constraints can carry code of that role's. A command of any other
//! role, a superuser included, changes triggers alone, and takes only locks that are free; a warning names the call that does
//! the rest.

use pgrx::{PgLogLevel, pg_sys};

use super::ddl::{Change, Command};
use super::former;
use super::{ALONE, WITHOUT_WRITERS, triggers};
use crate::attempt::{attempt, of_a_table, with_lock_timeout};
use crate::catalog;
use crate::error::Error;
use crate::failure::Failure;
use crate::notice;
use crate::owned::literal;
use crate::partition_tree;
use crate::queue::enqueue::Jobs;
use crate::spi::{Argument, Spi};
use crate::sql_function::sql_function;
use crate::varlena::Utf8;
use crate::watch::extension_schema::ExtensionSchema;
use crate::watch::role::act_as;
use crate::watch::watched::{LockWait, Watch, Watched};
use crate::watch::{self, sql};

/// For so many milliseconds the owner's command waits for a lock on the rest of the pair. It has locked the watched table.
const LOCK_PATIENCE: u32 = 1000;

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
        let follow = Follow { spi: &spi, extension: &extension };
        if event == "sql_drop" { follow.dropped()? } else { follow.altered()? }
        Ok(pg_sys::Datum::from(0))
    }
}

/// A call that follows what a command has done.
struct Follow<'a> {
    spi: &'a Spi,
    extension: &'a ExtensionSchema,
}

/// A watched partitioned table.
struct Root<'a> {
    table: pg_sys::Oid,
    owner: pg_sys::Oid,
    /// Quoted, with its schema.
    name: String,
    watch: Watch<'a>,
}

impl<'a> Follow<'a> {
    /// After a command that may have dropped partitions.
    fn dropped(&self) -> Result<(), Error> {
        const DROPPED: &str = "
            SELECT objid FROM pg_event_trigger_dropped_objects()
            WHERE classid = 'pg_class'::regclass AND object_type IN ('table', 'foreign table')";
        let dropped = act_as(self.extension.owner, || {
            Ok::<_, Error>(oids(self.spi.run_now(DROPPED, &[])?.all_printed(1)))
        })?;
        for root in self.roots(dropped.into_iter().flat_map(former::wholes).collect())? {
            self.delete_gone(&root)?;
        }
        Ok(())
    }

    /// After a command that may have brought partitions or detached one.
    fn altered(&self) -> Result<(), Error> {
        const COMMANDS: &str = "
            SELECT objid, command FROM pg_event_trigger_ddl_commands() WHERE classid = 'pg_class'::regclass";
        let (tables, commands) = act_as(self.extension.owner, || {
            let rows = self.spi.run_now(COMMANDS, &[])?;
            Ok::<_, Error>((oids(rows.all_printed(1)), rows.all_by_value(2, Command::TYPE)?))
        })?;
        let (mut with_more, mut with_less) = (Vec::new(), Vec::new());
        for (table, command) in tables.into_iter().zip(commands) {
            // SAFETY: the command is one that the running event trigger is told of.
            match command.and_then(|command| unsafe { Command::new(command) }.change()) {
                Some(Change::Came) => {
                    with_more.push(table);
                    with_more.extend(partition_tree::ancestors(table));
                }
                Some(Change::Went) => with_less.push(table),
                None => {}
            }
        }
        for root in self.roots(with_more)? {
            self.watch_new(&root)?;
        }
        for whole in with_less {
            let mut wholes = partition_tree::ancestors(whole);
            wholes.push(whole);
            let roots = self.roots(wholes)?;
            if !roots.is_empty() {
                self.let_go(whole, &roots)?;
            }
        }
        Ok(())
    }

    /// The watched partitioned tables among some.
    fn roots(&self, mut tables: Vec<pg_sys::Oid>) -> Result<Vec<Root<'a>>, Error> {
        tables.sort_unstable_by_key(|table| u32::from(*table));
        tables.dedup();
        let mut roots = Vec::new();
        for table in tables {
            let Some(owner) = catalog::owner_of(table).filter(|_| partition_tree::is_partitioned(table))
            else {
                continue;
            };
            if let Some(watch) = Watch::registered(self.spi, self.extension, table)? {
                roots.push(Root { table, owner, name: catalog::name_of(table), watch });
            }
        }
        Ok(roots)
    }

    /// Gives partitions that have none the triggers of the watch, and has their photos embedded.
    fn watch_new(&self, root: &Root) -> Result<(), Error> {
        let parts = Argument::texts(&numbers(&partition_tree::below(root.table)));
        let parts = act_as(root.owner, || {
            Ok::<_, Error>(oids(self.spi.run_now(THOSE_WITHOUT, &[parts])?.all_printed(1)))
        })?;
        let key = root.watch.key();
        let is_replicated = root.watch.registration.as_ref().is_some_and(|watch| watch.is_replicated);
        let mut with_rows = Vec::new();
        for part in parts {
            let made = attempt(of_a_table, || {
                let has_some = triggers::are_there(self.spi, self.extension, part)?;
                lock_if_free(part, if has_some { ALONE } else { WITHOUT_WRITERS })?;
                let made = triggers::Made { key: &key, is_replicated };
                triggers::make(self.spi, self.extension, part, root.owner, made)
            })?;
            match made {
                Ok(()) if has_rows(part) => with_rows.push(part),
                Ok(()) => {}
                Err(failure) => {
                    let message = format!(
                        "pg_clip did not follow partition {} of table {}: {}",
                        catalog::name_of(part),
                        root.name,
                        failure.message
                    );
                    notice::tell(PgLogLevel::WARNING, &message, None);
                }
            }
        }
        // What a subscription applies to the target are the vectors of these photos.
        if with_rows.is_empty() || root.watch.rests() {
            return Ok(());
        }
        let asked = root.by_its_owner(|| {
            let Some(source) = root.watch.source(LockWait::Wait)? else {
                return Ok(());
            };
            for part in &with_rows {
                let rows = format!("ONLY {}", catalog::name_of(*part));
                let keys = source.read(|| {
                    watch::printed_keys(self.spi.open(&sql::inserted_keys(&source, &rows))?, &source)
                })?;
                Jobs::of(self.spi, self.extension, &source).add(keys)?;
            }
            Ok(())
        })?;
        root.tell_what_is_left(asked, "photos in a partition that came have no embedding yet", "")
    }

    /// Takes the triggers of watches from what was detached from a table that these roots are or contain.
    fn let_go(&self, whole: pg_sys::Oid, roots: &[Root]) -> Result<(), Error> {
        let detached = former::taken_from(whole);
        let is_free = |part: &pg_sys::Oid| partition_tree::ancestors(*part).is_empty();
        let mut had_rows = false;
        for part in detached.into_iter().filter(is_free) {
            let mut tree = partition_tree::below(part);
            tree.insert(0, part);
            for table in tree {
                had_rows |= has_rows(table);
                // One that was watched before it was attached is watched on.
                if Watch::of_whole(self.spi, self.extension, table)?.is_some() {
                    continue;
                }
                let Some(owner) = catalog::owner_of(table) else {
                    continue;
                };
                let dropped = attempt(of_a_table, || {
                    lock_if_free(table, ALONE)?;
                    triggers::drop_all(self.spi, table, owner)
                })?;
                if let Err(failure) = dropped {
                    let message = format!(
                        "pg_clip left its triggers on table {}, which was detached: {}",
                        catalog::name_of(table),
                        failure.message
                    );
                    notice::tell(PgLogLevel::WARNING, &message, None);
                }
            }
        }
        if had_rows {
            roots.iter().try_for_each(|root| self.delete_gone(root))?;
        }
        Ok(())
    }

    /// Deletes the embeddings of photos that were in a partition.
    fn delete_gone(&self, root: &Root) -> Result<(), Error> {
        // A publisher deletes them, or has not sent these photos yet.
        if root.watch.rests() {
            return Ok(());
        }
        let deleted = root.by_its_owner(|| {
            match Watched::registered(self.spi, self.extension, root.table, LockWait::Wait)? {
                Some(watched) => watched.read(|| watch::delete_all_gone(self.spi, &watched)),
                None => Ok(()),
            }
        })?;
        root.tell_what_is_left(
            deleted,
            "embeddings of photos in a partition that went may be left",
            ", verify => true",
        )
    }
}

/// Why work on a table's rows was not done.
enum Undone {
    /// The command is one of another role than the owner.
    OtherRole,
    Failed(Failure),
}

impl Root<'_> {
    /// Runs `work`, if the role that gives the command is the owner. It waits for no lock for long.
    fn by_its_owner(&self, work: impl FnOnce() -> Result<(), Error>) -> Result<Result<(), Undone>, Error> {
        // SAFETY: a plain read of the current role, which is that of the command: the event trigger's functions change none.
        if unsafe { pg_sys::GetUserId() } != self.owner {
            return Ok(Err(Undone::OtherRole));
        }
        // SAFETY: a plain read of a setting, in milliseconds; 0 is none.
        let own = u32::try_from(unsafe { pg_sys::LockTimeout }).unwrap_or_default();
        let patience = if own == 0 { LOCK_PATIENCE } else { own.min(LOCK_PATIENCE) };
        let done = attempt(of_a_table, || with_lock_timeout(patience, work))?;
        Ok(done.map_err(Undone::Failed))
    }

    /// Says what was not done, and the call that does it.
    fn tell_what_is_left(&self, done: Result<(), Undone>, left: &str, option: &str) -> Result<(), Error> {
        let table = &self.name;
        let message = match done {
            Ok(()) => return Ok(()),
            Err(Undone::OtherRole) => format!("{left}, of table {table}, which has another owner"),
            Err(Undone::Failed(failure)) => format!("{left}, of table {table}: {}", failure.message),
        };
        let hint = format!("CALL clip_backfill({}{option})", literal(table));
        notice::tell(PgLogLevel::WARNING, &message, Some(&hint));
        Ok(())
    }
}

/// Locks a partition as the change of its triggers does. The command has locked what it brought or detached itself.
fn lock_if_free(table: pg_sys::Oid, lock: u32) -> Result<(), Error> {
    // SAFETY: any number may be locked; the transaction's end releases it.
    let is_free = unsafe { pg_sys::ConditionalLockRelationOid(table, lock as pg_sys::LOCKMODE) };
    catalog::accept_changes();
    if is_free { Ok(()) } else { Err(Error::Locked(catalog::name_of(table))) }
}

/// Whether a table that this transaction has locked may hold rows by itself. None is read.
fn has_rows(table: pg_sys::Oid) -> bool {
    if !triggers::holds_rows(table) {
        return false;
    }
    // SAFETY: the relation is locked, holds rows, and is closed again.
    unsafe {
        let relation = pg_sys::RelationIdGetRelation(table);
        if relation.is_null() {
            return false;
        }
        let blocks = pg_sys::RelationGetNumberOfBlocksInFork(relation, pg_sys::ForkNumber::MAIN_FORKNUM);
        pg_sys::RelationClose(relation);
        blocks > 0
    }
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

fn numbers(oids: &[pg_sys::Oid]) -> Vec<String> {
    oids.iter().map(|oid| u32::from(*oid).to_string()).collect()
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

/// The tables among `$1` that can have the triggers of a watch, and have none.
const THOSE_WITHOUT: &str = "
    SELECT class.oid FROM unnest($1::oid[]) AS part (oid)
    JOIN pg_class AS class ON class.oid = part.oid AND class.relkind IN ('r', 'p')
    WHERE NOT EXISTS (
        SELECT FROM pg_trigger
        JOIN pg_depend ON classid = 'pg_proc'::regclass AND objid = tgfoid AND refclassid = 'pg_extension'::regclass AND deptype = 'e'
        JOIN pg_extension ON pg_extension.oid = refobjid AND extname = 'pg_clip'
        WHERE tgrelid = class.oid AND tgname = 'clip_watch_delete')";
