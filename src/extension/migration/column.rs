//! The second column of a target: its type, its indexes, and the trigger that keeps it true.

use std::ffi::CString;

use pgrx::pg_sys;

use super::task::{NEXT_MODEL, Task, describe};
use crate::attempt::{attempt, of_a_lock, with_lock_timeout, with_setting};
use crate::encoding;
use crate::error::Error;
use crate::owned::{LOOK, Table, literal};
use crate::spi::{Argument, Spi};
use crate::watch::next::{NEXT_EMBEDDING, TRIGGER};
use crate::watch::role::act_as;

/// The strongest lock: no other session reads a table meanwhile.
pub(super) const ALONE: u32 = pg_sys::AccessExclusiveLock;

/// Locks source and target, in the order of the triggers: of two transactions that lock both, none waits for the other.
pub(super) fn lock_alone([source, target]: [pg_sys::Oid; 2]) -> Result<(), Error> {
    Table::of_caller(source, LOOK)?;
    Table::of_caller(target, ALONE)?;
    Ok(())
}

/// Adds the column; false where the table was in use for longer than `patience` allows.
pub(super) fn add(
    spi: &Spi,
    function: pg_sys::Oid,
    [source, target]: [pg_sys::Oid; 2],
    model: &str,
    patience: u32,
) -> Result<bool, Error> {
    let (identity, dimensions) = describe(model)?;
    let added = attempt(of_a_lock, || {
        with_lock_timeout(patience, || lock_alone([source, target]))?;
        with_lock_timeout(0, || {
            let task = Task::of(spi, function, target)?;
            let owner = task.pair.target.owner;
            act_as(owner, || add_to(spi, &task, model, &identity, dimensions))
        })
    })?;
    Ok(added.is_ok())
}

/// To be called as the owner, after the target is locked.
fn add_to(spi: &Spi, task: &Task, model: &str, identity: &str, dimensions: u16) -> Result<(), Error> {
    let pair = &task.pair;
    let target = &pair.target.name;
    let run = |statement: String| spi.run(&statement, &[]).map(|_| ());
    let row = spi.run(TYPE, &[Argument::oid(pair.target.oid), text(&pair.embedding)])?;
    let mut vector = row.printed(1).unwrap_or_default();
    if row.printed(2).as_deref() == Some("t") {
        vector = format!("{vector}({dimensions})");
    }
    drop(row);
    // Under the new column's name for a moment: the definitions of the indexes then are those of the new ones.
    run(format!("ALTER TABLE {target} RENAME COLUMN {} TO {NEXT_EMBEDDING}", pair.embedding))?;
    let indexes = indexes(spi, pair.target.oid, NEXT_EMBEDDING)?;
    run(format!("ALTER TABLE {target} RENAME COLUMN {NEXT_EMBEDDING} TO {}", pair.embedding))?;
    run(format!(
        "ALTER TABLE {target} ADD COLUMN {NEXT_EMBEDDING} {vector},
            ADD COLUMN {NEXT_MODEL} text NOT NULL DEFAULT {}",
        literal(identity)
    ))?;
    // As long as the column is empty, there is nothing to build, and no session waits for it. The indexes grow as the
    // rows come; CREATE INDEX CONCURRENTLY afterwards cannot run in a procedure.
    for index in indexes {
        let space =
            CString::new(encoding::to_server(&index.space)).expect("a name of the catalog has no NUL byte");
        with_setting(c"default_tablespace", &space, || run(index.definition))?;
    }
    // A second vector that is written together with the first one is kept. No operator of a type is called.
    run(format!(
        "CREATE TRIGGER {TRIGGER} BEFORE UPDATE OF {embedding} ON {target} FOR EACH ROW
        WHEN (record_image_ne(ROW(NEW.{embedding}), ROW(OLD.{embedding}))
            AND record_image_eq(ROW(NEW.{NEXT_EMBEDDING}), ROW(OLD.{NEXT_EMBEDDING})))
        EXECUTE FUNCTION {}.clip_forget_next_embedding({}, {})",
        task.home.schema,
        literal(model),
        literal(identity),
        embedding = pair.embedding,
    ))?;
    run(format!("ALTER TABLE {target} ENABLE ALWAYS TRIGGER {TRIGGER}"))
}

/// The type of column `$2`, quoted, of table `$1` without its modifier, and whether it has one.
const TYPE: &str = "
    SELECT format_type(atttypid, NULL), atttypmod <> -1 FROM pg_attribute
    WHERE attrelid = $1 AND quote_ident(attname) = $2";

pub(super) struct Index {
    pub(super) name: String,
    /// Without the name.
    pub(super) definition: String,
    /// Empty for that of the database.
    space: String,
}

/// The indexes on column `$2`, quoted, of table `$1`.
const INDEXES: &str = "
    SELECT DISTINCT class.relname::text,
        begin_of.definition || ' ON ' || substr(
            pg_get_indexdef(class.oid), length(begin_of.definition || format(' %I ON ', class.relname)) + 1),
        coalesce(space.spcname::text, '')
    FROM pg_attribute AS attribute
    JOIN pg_depend AS depend ON depend.classid = 'pg_class'::regclass AND depend.refclassid = 'pg_class'::regclass
        AND depend.refobjid = attribute.attrelid AND depend.refobjsubid = attribute.attnum
    JOIN pg_class AS class ON class.oid = depend.objid
    JOIN pg_index AS index ON index.indexrelid = class.oid
    LEFT JOIN pg_tablespace AS space ON space.oid = class.reltablespace
    CROSS JOIN LATERAL (
        SELECT CASE WHEN index.indisunique THEN 'CREATE UNIQUE INDEX' ELSE 'CREATE INDEX' END) AS begin_of (definition)
    WHERE attribute.attrelid = $1 AND quote_ident(attribute.attname) = $2
    ORDER BY class.relname::text";

/// In the order of their names; to be called as the owner of the table.
pub(super) fn indexes(spi: &Spi, table: pg_sys::Oid, column: &str) -> Result<Vec<Index>, Error> {
    let rows = spi.run(INDEXES, &[Argument::oid(table), text(column)])?;
    let [names, definitions, spaces] = [1, 2, 3].map(|column| rows.all_printed(column).into_iter().flatten());
    Ok(names
        .zip(definitions)
        .zip(spaces)
        .map(|((name, definition), space)| Index { name, definition, space })
        .collect())
}

pub(super) fn text(text: &str) -> Argument {
    Argument::text(text)
}
