//! Building the indexes of the vectors once, at the end of a fill: `clip_backfill(…, index_last => true)`.
//!
//! An insert into an index of pgvector costs several times as much as a row of one that is built at once. So the call empties
//! these indexes, in the state in which CREATE INDEX CONCURRENTLY makes its entry: no writer maintains them, and no query uses
//! them. It builds them in the same phases when the photos are done ([`crate::concurrent_index`]).
//!
//! `clip_indexes_to_build` has the indexes that a call emptied, written in the transaction that empties them. Each call on the
//! table builds at its end those of them that no command has built meanwhile, whether it emptied them or an earlier one did that
//! came to no end; one call at a time empties or builds. A migration takes them for whole ones. An index that is unfinished for another reason is never touched.

use pgrx::pg_sys;

use super::watched;
use crate::alone::{ALONE, alone, lock_alone};
use crate::attempt::{attempt, of_a_lock, with_lock_timeout};
use crate::catalog::name_of;
use crate::concurrent_index;
use crate::error::Error;
use crate::owned::{Pair, Table, literal, notice};
use crate::procedure::{Procedure, pause};
use crate::refusal::{Reason, refuse};
use crate::session_lock::{self, Work};
use crate::spi::{Argument, Rows, Spi};
use crate::watch::extension_schema::ExtensionSchema;
use crate::watch::registry::check_owner;
use crate::watch::role::act_as;

/// Refuses a target whose indexes cannot be emptied: an index of a partitioned table is that of its partitions, too.
pub(super) fn check(spi: &Spi, pair: &Pair) -> Result<(), Error> {
    vector_indexes(spi, pair).map(|_| ())
}

/// Empties the indexes of the vectors, and writes them down for [`build`]. Waits for a call that builds them.
pub(super) fn empty(procedure: &Procedure, source: pg_sys::Oid) -> Result<(), Error> {
    let target = take_turn(procedure, source)?;
    let emptied = empty_those(procedure, source, |spi, extension, pair| {
        let mut indexes = vector_indexes(spi, pair)?;
        // An earlier call may have come so far with them that writers maintain them.
        indexes.extend(left(spi, extension, pair.target.oid)?);
        Ok(indexes)
    })?;
    session_lock::release(target, Work::Indexes);
    for index in emptied {
        notice(
            format!("index {index} is built once the photos are done, and no search uses it until then"),
            Some(format!(
                "If this call comes to no end, CALL clip_backfill({}) builds the index.",
                literal(&name_of(source))
            )),
        );
    }
    Ok(())
}

/// Builds the indexes that calls emptied. `note` writes down which one is being built. Where another session drops an index or
/// builds it itself, nothing is left to do.
pub(super) fn build(
    procedure: &Procedure,
    source: pg_sys::Oid,
    note: impl Fn(&Spi, &ExtensionSchema, pg_sys::Oid) -> Result<(), Error>,
) -> Result<(), Error> {
    let target = take_turn(procedure, source)?;
    let (indexes, is_begun) = procedure.step(|spi| {
        let extension = ExtensionSchema::of(procedure.function())?;
        let is_begun = !left_in(spi, &extension, target, BEGUN)?.is_empty();
        Ok((left(spi, &extension, target)?, is_begun))
    })?;
    if is_begun {
        empty_those(procedure, source, |spi, extension, pair| {
            left_in(spi, extension, pair.target.oid, BEGUN)
        })?;
    }
    for &index in &indexes {
        procedure.step(|spi| note(spi, &ExtensionSchema::of(procedure.function())?, index))?;
        concurrent_index::build(procedure, target, &[index], || {
            check_owner(source)?;
            check_owner(target)
        })?;
    }
    procedure.step(|spi| forget(spi, &ExtensionSchema::of(procedure.function())?, target))?;
    session_lock::release(target, Work::Indexes);
    Ok(())
}

/// Waits until no other call empties or builds the indexes of the target, and keeps others from it: a call that finds an index
/// in some state goes on from there, and knows nothing of a call that empties it meanwhile. Returns the target.
fn take_turn(procedure: &Procedure, source: pg_sys::Oid) -> Result<pg_sys::Oid, Error> {
    const POLL: i64 = 100;
    loop {
        let (target, is_taken) = procedure.step(|spi| {
            check_owner(source)?;
            let target = watched(spi, &ExtensionSchema::of(procedure.function())?, source)?.target.oid;
            Ok((target, session_lock::try_take(target, Work::Indexes)))
        })?;
        if is_taken {
            return Ok(target);
        }
        pause(POLL);
    }
}

/// The indexes of a table that a call emptied, and that are not built yet.
pub(crate) fn left(
    spi: &Spi,
    extension: &ExtensionSchema,
    table: pg_sys::Oid,
) -> Result<Vec<pg_sys::Oid>, Error> {
    left_in(spi, extension, table, "true")
}

/// Indexes whose first phase came to no end: what it wrote is in their files, which are to be empty when it begins.
const BEGUN: &str = "NOT indisready AND pg_relation_size(indexrelid) > 0";

fn left_in(
    spi: &Spi,
    extension: &ExtensionSchema,
    table: pg_sys::Oid,
    state: &str,
) -> Result<Vec<pg_sys::Oid>, Error> {
    let query = format!(
        "SELECT emptied.index::oid FROM {}.clip_indexes_to_build AS emptied JOIN pg_index ON indexrelid = emptied.index
        WHERE indrelid = $1 AND indislive AND NOT indisvalid AND {state} ORDER BY 1",
        extension.schema
    );
    act_as(extension.owner, || oids(&spi.run_now(&query, &[Argument::oid(table)])?, 1))
}

/// Empties the indexes that `choose` names, under the strongest lock. Returns their names.
fn empty_those(
    procedure: &Procedure,
    source: pg_sys::Oid,
    choose: impl Fn(&Spi, &ExtensionSchema, &Pair) -> Result<Vec<pg_sys::Oid>, Error>,
) -> Result<Vec<String>, Error> {
    let pair = |spi: &Spi| {
        let extension = ExtensionSchema::of(procedure.function())?;
        let pair = watched(spi, &extension, source)?;
        Ok::<_, Error>((extension, pair))
    };
    let tables = |spi: &Spi| {
        let (_, pair) = pair(spi)?;
        Ok([pair.source.oid, pair.target.oid])
    };
    alone(procedure, tables, |spi, tables, patience| {
        let emptied = attempt(of_a_lock, || {
            with_lock_timeout(patience, || lock_alone(tables))?;
            let (extension, pair) = with_lock_timeout(0, || pair(spi))?;
            if pair.target.oid != tables[1] {
                return Ok(None);
            }
            let indexes = choose(spi, &extension, &pair)?;
            with_lock_timeout(patience, || {
                for &index in &indexes {
                    // SAFETY: any number may be locked; the transaction's end releases it.
                    unsafe { pg_sys::LockRelationOid(index, ALONE as pg_sys::LOCKMODE) };
                }
            });
            with_lock_timeout(0, || {
                for &index in &indexes {
                    concurrent_index::empty(spi, &extension, index)?;
                    write_down(spi, &extension, index)?;
                }
                Ok(Some(indexes.iter().map(|&index| name_of(index)).collect()))
            })
        })?;
        Ok(emptied.ok().flatten())
    })
}

fn write_down(spi: &Spi, extension: &ExtensionSchema, index: pg_sys::Oid) -> Result<(), Error> {
    let statement = format!(
        "INSERT INTO {}.clip_indexes_to_build (index) VALUES ($1) ON CONFLICT (index) DO NOTHING",
        extension.schema
    );
    act_as(extension.owner, || spi.run(&statement, &[Argument::oid(index)]).map(|_| ()))
}

/// Deletes the notes of indexes of a table that are built, and of those that are gone.
fn forget(spi: &Spi, extension: &ExtensionSchema, table: pg_sys::Oid) -> Result<(), Error> {
    let statement = format!(
        "DELETE FROM {}.clip_indexes_to_build AS emptied WHERE NOT EXISTS (
            SELECT FROM pg_index WHERE indexrelid = emptied.index AND indislive AND NOT (indisvalid AND indrelid = $1))",
        extension.schema
    );
    act_as(extension.owner, || spi.run(&statement, &[Argument::oid(table)]).map(|_| ()))
}

/// The whole indexes of pgvector on the column of the vectors, or on expressions of it.
fn vector_indexes(spi: &Spi, pair: &Pair) -> Result<Vec<pg_sys::Oid>, Error> {
    const INDEXES: &str = "
        SELECT DISTINCT class.oid, class.relkind = 'I' OR class.relispartition
        FROM pg_attribute AS attribute
        JOIN pg_depend AS depend ON depend.classid = 'pg_class'::regclass AND depend.refclassid = 'pg_class'::regclass
            AND depend.refobjid = attribute.attrelid AND depend.refobjsubid = attribute.attnum
        JOIN pg_class AS class ON class.oid = depend.objid
        JOIN pg_index AS index ON index.indexrelid = class.oid
        JOIN pg_am AS method ON method.oid = class.relam
        WHERE attribute.attrelid = $1 AND quote_ident(attribute.attname) = $2 AND method.amname IN ('hnsw', 'ivfflat')
            AND index.indrelid = attribute.attrelid AND index.indisvalid AND index.indisready AND index.indislive
        ORDER BY class.oid";
    let Pair { target: Table { oid, owner, name, .. }, embedding, .. } = pair;
    let (indexes, of_partitions) = act_as(*owner, || {
        let rows = spi.run_now(INDEXES, &[Argument::oid(*oid), Argument::text(embedding)])?;
        Ok::<_, Error>((oids(&rows, 1)?, rows.all_printed(2)))
    })?;
    let is_of_partitions = |flag: &Option<String>| flag.as_deref() == Some("t");
    if let Some(place) = of_partitions.iter().position(is_of_partitions) {
        let message =
            format!("index {} of table {name} is one of a partitioned table", name_of(indexes[place]));
        return Err(refuse(Reason::NotSupported, message)
            .with_detail("It cannot be built last.")
            .with_hint(format!("CALL clip_backfill({})", literal(&pair.source.name))));
    }
    Ok(indexes)
}

fn oids(rows: &Rows, column: i32) -> Result<Vec<pg_sys::Oid>, Error> {
    let numbers = rows.all_by_value(column, pg_sys::OIDOID)?.into_iter().flatten();
    Ok(numbers.map(|number| pg_sys::Oid::from(number.value() as u32)).collect())
}
