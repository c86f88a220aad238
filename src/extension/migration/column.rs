//! The second column of a target: its type, its indexes, and the triggers that keep it true.
//!
//! Nothing here reads a row of the target: other sessions wait meanwhile.

use std::ffi::CString;

use pgrx::pg_sys;

use super::by_number;
use super::gaps::GAP_TRIGGER;
use super::task::{NEXT_MODEL, Task, describe};
use crate::alone::lock_alone;
use crate::attempt::{attempt, of_a_lock, with_lock_timeout, with_setting};
use crate::backfill::index_last;
use crate::catalog::identifier;
use crate::concurrent_index;
use crate::encoding;
use crate::error::Error;
use crate::owned::{Pair, Table, columns, literal};
use crate::spi::{Argument, Spi};
use crate::watch::next::{NEXT_EMBEDDING, TRIGGER};
use crate::watch::role::act_as;
use crate::watching::Storage;

/// Adds the column; false where the table was in use for longer than `patience` allows.
pub(super) fn add(
    spi: &Spi,
    function: pg_sys::Oid,
    [source, target]: [pg_sys::Oid; 2],
    (model, storage): (&str, Option<Storage>),
    patience: u32,
) -> Result<bool, Error> {
    let (identity, dimensions) = describe(model)?;
    let added = attempt(of_a_lock, || {
        with_lock_timeout(patience, || lock_alone([source, target]))?;
        with_lock_timeout(0, || {
            let task = Task::of(spi, function, target)?;
            let owner = task.pair.target.owner;
            act_as(owner, || add_to(spi, &task, (model, &identity), storage, dimensions))
        })
    })?;
    Ok(added.is_ok())
}

/// To be called as the owner, after the target is locked.
fn add_to(
    spi: &Spi,
    task: &Task,
    (model, identity): (&str, &str),
    storage: Option<Storage>,
    dimensions: u16,
) -> Result<(), Error> {
    let pair = &task.pair;
    let target = &pair.target.name;
    let run = |statement: String| spi.run(&statement, &[]).map(|_| ());
    let type_oid = storage.unwrap_or(pair.storage).type_oid(&task.extension);
    let arguments = [Argument::oid(pair.target.oid), text(&pair.embedding)];
    let has_dimensions = spi.run(HAS_DIMENSIONS, &arguments)?.get::<bool>(1)? == Some(true);
    let modifier = if has_dimensions { i32::from(dimensions) } else { -1 };
    // Two vectors in one row would take a page each.
    set_toast_target(spi, &pair.target, TOAST_TARGET_OF_TWO)?;
    by_number::add_column(pair.target.oid, &by_number::c_name(NEXT_EMBEDDING), type_oid, modifier);
    run(format!("ALTER TABLE {target} ADD COLUMN {NEXT_MODEL} text NOT NULL DEFAULT {}", literal(identity)))?;
    // A second vector that is written together with the first one is kept. No operator of a type is called.
    run(format!(
        "CREATE TRIGGER {TRIGGER} BEFORE UPDATE OF {embedding} ON {target} FOR EACH ROW
        WHEN (record_image_ne(ROW(NEW.{embedding}), ROW(OLD.{embedding}))
            AND record_image_eq(ROW(NEW.{NEXT_EMBEDDING}), ROW(OLD.{NEXT_EMBEDDING})))
        EXECUTE FUNCTION {}.clip_forget_next_embedding({}, {})",
        task.extension.schema,
        literal(model),
        literal(identity),
        embedding = pair.embedding,
    ))?;
    task.extension.check_trigger(pair.target.oid, TRIGGER)?;
    run(format!("ALTER TABLE {target} ENABLE ALWAYS TRIGGER {TRIGGER}"))?;
    by_number::check(spi, &pair.target, [&[NEXT_EMBEDDING, NEXT_MODEL], &[]], [&[TRIGGER], &[]])
}

/// Makes the trigger that writes down rows without a second vector, unless it is there.
fn make_gap_trigger(spi: &Spi, task: &Task) -> Result<(), Error> {
    const IS_THERE: &str = "SELECT FROM pg_trigger WHERE tgrelid = $1 AND tgname = $2";
    let Pair { target, embedding, .. } = &task.pair;
    if spi.run(IS_THERE, &[Argument::oid(target.oid), text(GAP_TRIGGER)])?.len() > 0 {
        return Ok(());
    }
    let target = &target.name;
    let make = format!(
        "CREATE TRIGGER {GAP_TRIGGER} AFTER INSERT OR UPDATE ON {target} FOR EACH ROW
        WHEN (NEW.{NEXT_EMBEDDING} IS NULL AND NEW.{embedding} IS NOT NULL)
        EXECUTE FUNCTION {}.clip_note_gap()",
        task.extension.schema,
    );
    spi.run(&make, &[])?;
    task.extension.check_trigger(task.pair.target.oid, GAP_TRIGGER)?;
    spi.run(&format!("ALTER TABLE {target} ENABLE ALWAYS TRIGGER {GAP_TRIGGER}"), &[]).map(|_| ())
}

/// An index of the second column.
pub(super) struct Made {
    /// The definition of the first column's index that it stands for.
    pub(super) of_first: String,
    pub(super) index: pg_sys::Oid,
}

/// The indexes of the second column.
pub(super) struct Defined {
    pub(super) all: Vec<Made>,
    pub(super) to_build: Vec<pg_sys::Oid>,
}

/// Makes the entries of the indexes that the first column has and the second one has not, for [`concurrent_index::build`], and the
/// trigger that what follows rests on ([`super::gaps`]): before, almost all rows lack a second vector. Nothing where the table
/// was in use for longer than `patience` allows.
pub(super) fn define_indexes(
    spi: &Spi,
    function: pg_sys::Oid,
    tables: [pg_sys::Oid; 2],
    patience: u32,
) -> Result<Option<Defined>, Error> {
    let defined = attempt(of_a_lock, || {
        with_lock_timeout(patience, || lock_alone(tables))?;
        let task = Task::of(spi, function, tables[1])?;
        task.next()?;
        let left = index_last::left(spi, &task.extension, tables[1])?;
        let (wanted, mut there) = act_as(task.pair.target.owner, || {
            make_gap_trigger(spi, &task)?;
            drop_unfinished(spi, tables[1])?;
            Ok::<_, Error>((
                wanted_indexes(spi, &task, &left)?,
                indexes(spi, tables[1], NEXT_EMBEDDING, &[])?,
            ))
        })?;
        let define = |index: &Index| {
            let space = CString::new(encoding::to_server(&index.space))
                .expect("a name of the catalog has no NUL byte");
            with_setting(c"default_tablespace", &space, || {
                concurrent_index::define(
                    spi,
                    &task.extension,
                    &task.pair.target,
                    &index.definition,
                    index.oid,
                )
            })
        };
        let mut defined = Defined { all: Vec::new(), to_build: Vec::new() };
        for (of_first, wanted) in wanted {
            let place = there.iter().position(|index| index.definition == wanted.definition);
            let index = match place {
                Some(place) => there.swap_remove(place).oid,
                None => {
                    let index = define(&wanted)?;
                    defined.to_build.push(index);
                    index
                }
            };
            defined.all.push(Made { of_first, index });
        }
        drop_all(spi, &task, &there)?;
        Ok::<_, Error>(defined)
    })?;
    Ok(defined.ok())
}

/// Drops the indexes of the second column that an attempt which came to no end has left.
fn drop_unfinished(spi: &Spi, target: pg_sys::Oid) -> Result<(), Error> {
    for index in all_indexes(spi, target, NEXT_EMBEDDING)?.iter().filter(|index| !index.is_valid) {
        drop_index(spi, target, index)?;
    }
    Ok(())
}

/// The definitions of the first column's indexes, and each of these indexes in the second column's words.
fn wanted_indexes(spi: &Spi, task: &Task, left: &[pg_sys::Oid]) -> Result<Vec<(String, Index)>, Error> {
    const FIRST: &str = "clip_first_embedding";
    let pair = &task.pair;
    let (target, embedding) = (&pair.target.name, &pair.embedding);
    let rename = |from: &str, to: &str| {
        spi.run(&format!("ALTER TABLE {target} RENAME COLUMN {from} TO {to}"), &[]).map(|_| ())
    };
    let of_first = indexes(spi, pair.target.oid, embedding, left)?;
    // Under the new column's name for a moment: the definitions of the indexes then are those of the new ones.
    rename(NEXT_EMBEDDING, FIRST)?;
    rename(embedding, NEXT_EMBEDDING)?;
    let mut wanted = indexes(spi, pair.target.oid, NEXT_EMBEDDING, left)?;
    rename(NEXT_EMBEDDING, embedding)?;
    rename(FIRST, NEXT_EMBEDDING)?;
    by_number::check(spi, &pair.target, [&[embedding, NEXT_EMBEDDING], &[FIRST]], [&[], &[]])?;
    let next = columns(spi, &pair.target)?.into_iter().find(|column| column.name == NEXT_EMBEDDING);
    if let Some(storage) = next.map(|next| Storage::of(&task.extension, next.type_oid)) {
        for index in &mut wanted {
            index.definition = of_storage(&index.definition, pair.storage, storage);
        }
    }
    // Both are in the order of their names.
    Ok(of_first.into_iter().map(|index| index.definition).zip(wanted).collect())
}

/// An index's definition with the operator classes of another storage.
pub(super) fn of_storage(definition: &str, from: Storage, to: Storage) -> String {
    let mut definition = definition.to_owned();
    for distance in ["cosine", "ip", "l2", "l1"] {
        let class = |storage: Storage| format!(".{}_{distance}_ops", storage.name());
        definition = definition.replace(&class(from), &class(to));
    }
    definition
}

/// From so many bytes on, values are moved out of a row: not the vector of a row that has one, and the second of two.
pub(super) const TOAST_TARGET: u32 = 8160;
const TOAST_TARGET_OF_TWO: u32 = 4080;

/// Sets from which size on the rows of a target that `clip_watch` has made are made smaller. As the owner of the table, which is
/// locked alone.
pub(super) fn set_toast_target(spi: &Spi, target: &Table, bytes: u32) -> Result<(), Error> {
    const IS_SET: &str = "SELECT FROM pg_class, unnest(reloptions) AS option
        WHERE oid = $1 AND option IN ('toast_tuple_target=8160', 'toast_tuple_target=4080')";
    if spi.run(IS_SET, &[Argument::oid(target.oid)])?.len() > 0 {
        spi.run(&format!("ALTER TABLE {} SET (toast_tuple_target = {bytes})", target.name), &[])?;
    }
    Ok(())
}

/// Whether column `$2`, quoted, of table `$1` has a number of dimensions.
const HAS_DIMENSIONS: &str =
    "SELECT atttypmod <> -1 FROM pg_attribute WHERE attrelid = $1 AND quote_ident(attname) = $2";

pub(super) struct Index {
    pub(super) oid: pg_sys::Oid,
    pub(super) name: String,
    /// Without the name.
    pub(super) definition: String,
    /// Empty for that of the database.
    space: String,
    is_valid: bool,
}

/// The indexes on column `$2`, quoted, of table `$1`.
const INDEXES: &str = "
    SELECT DISTINCT class.relname::text,
        begin_of.definition || ' ON ' || substr(
            pg_get_indexdef(class.oid), length(begin_of.definition || format(' %I ON ', class.relname)) + 1),
        coalesce(space.spcname::text, ''), class.oid, index.indisvalid
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

/// In the order of their names, without those that queries do not use: what a command that failed has left, or another session
/// still builds. Those that `clip_backfill` builds later, which are `left`, count as whole ones. To be called as the owner of the
/// table.
pub(super) fn indexes(
    spi: &Spi,
    table: pg_sys::Oid,
    column: &str,
    left: &[pg_sys::Oid],
) -> Result<Vec<Index>, Error> {
    let indexes = all_indexes(spi, table, column)?.into_iter();
    Ok(indexes.filter(|index| index.is_valid || left.contains(&index.oid)).collect())
}

fn all_indexes(spi: &Spi, table: pg_sys::Oid, column: &str) -> Result<Vec<Index>, Error> {
    let rows = spi.run(INDEXES, &[Argument::oid(table), text(column)])?;
    let [names, definitions, spaces] = [1, 2, 3].map(|column| rows.all_printed(column).into_iter().flatten());
    let numbers = rows.all_by_value(4, pg_sys::OIDOID)?.into_iter().flatten();
    let valid = rows.all_by_value(5, pg_sys::BOOLOID)?.into_iter().flatten();
    type Row = (((String, String), String), (pg_sys::Datum, pg_sys::Datum));
    let index = |(((name, definition), space), (number, valid)): Row| Index {
        oid: pg_sys::Oid::from(number.value() as u32),
        name,
        definition,
        space,
        is_valid: valid.value() != 0,
    };
    Ok(names.zip(definitions).zip(spaces).zip(numbers.zip(valid)).map(index).collect())
}

/// Drops indexes of the second column that stand for none of the first. The table is locked alone.
pub(super) fn drop_all(spi: &Spi, task: &Task, indexes: &[Index]) -> Result<(), Error> {
    let Table { oid, owner, .. } = task.pair.target;
    act_as(owner, || indexes.iter().try_for_each(|index| drop_index(spi, oid, index)))
}

/// To be called as the owner of the table.
fn drop_index(spi: &Spi, table: pg_sys::Oid, index: &Index) -> Result<(), Error> {
    let (schema, name) = (schema_of(table), identifier(&index.name));
    spi.run(&format!("DROP INDEX {schema}.{name}"), &[]).map(|_| ())
}

/// The quoted name of the schema that a table is in.
pub(super) fn schema_of(table: pg_sys::Oid) -> String {
    // SAFETY: the table is locked, and its schema cannot be dropped before it.
    unsafe { identifier(&encoding::c_string(pg_sys::get_namespace_name(pg_sys::get_rel_namespace(table)))) }
}

pub(super) fn text(text: &str) -> Argument {
    Argument::text(text)
}
