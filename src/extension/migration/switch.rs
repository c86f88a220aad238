//! The switch: the second column takes the place of the first.

use pgrx::pg_sys;

use super::by_number;
use super::column::{Made, TOAST_TARGET, drop_all, indexes, of_storage, schema_of, set_toast_target, text};
use super::gaps::{self, GAP_TRIGGER};
use super::required;
use super::task::{NEXT_MODEL, Task, describe};
use crate::alone::lock_alone;
use crate::attempt::{attempt, of_a_lock, with_lock_timeout};
use crate::backfill::index_last;
use crate::catalog::identifier;
use crate::current_model;
use crate::error::Error;
use crate::owned::{Pair, Table, columns, literal};
use crate::refusal::{Reason, refuse};
use crate::spi::{Argument, Spi};
use crate::watch::next::{NEXT_EMBEDDING, TRIGGER};
use crate::watch::role::act_as;
use crate::watch::watches_sql;
use crate::watching::Storage;

/// What came of a switch.
pub(super) enum Switch {
    Done,
    /// A table was in use for longer than the patience allowed.
    InUse,
    /// A row may have no vector of the new model.
    RowsLeft,
    /// The first column has an index that the second has not.
    IndexesLeft,
}

/// Switches, with `clip.model` of the database where it is asked for. `made` are the indexes that the second column was given for
/// those of the first.
pub(super) fn switch(
    spi: &Spi,
    function: pg_sys::Oid,
    [source, target]: [pg_sys::Oid; 2],
    made: &[Made],
    set_default: bool,
    patience: u32,
) -> Result<Switch, Error> {
    let switched = attempt(of_a_lock, || {
        with_lock_timeout(patience, || {
            lock_alone([source, target])?;
            let task = Task::of(spi, function, target)?;
            let next = task.next()?;
            if describe(&next.model)?.0 != next.identity {
                let Pair { target, .. } = &task.pair;
                return Err(refuse(
                    Reason::NotReady,
                    format!(
                        "model {} was replaced during the migration of table {}",
                        next.model, target.name
                    ),
                )
                .with_hint(format!("SELECT clip_abandon_migration({})", literal(&target.name))));
            }
            if gaps::are_noted(spi, &task.extension, target)? {
                return Ok(Switch::RowsLeft);
            }
            let owner = task.pair.target.owner;
            let left = index_last::left(spi, &task.extension, target)?;
            let [of_first, mut of_second] = act_as(owner, || {
                Ok::<_, Error>([
                    indexes(spi, target, &task.pair.embedding, &left)?,
                    indexes(spi, target, NEXT_EMBEDDING, &[])?,
                ])
            })?;
            // Other sessions may have made some of the first's and dropped some of either.
            let mut made: Vec<&Made> = made.iter().collect();
            for index in &of_first {
                let copy = made.iter().position(|made| made.of_first == index.definition);
                let copy = copy.map(|place| made.swap_remove(place).index);
                let Some(place) = of_second.iter().position(|index| Some(index.oid) == copy) else {
                    return Ok(Switch::IndexesLeft);
                };
                of_second.swap_remove(place);
            }
            drop_all(spi, &task, &of_second)?;
            act_as(owner, || replace(spi, &task, &left))?;
            let arguments = [Argument::oid(task.pair.source.oid), text(&next.identity)];
            act_as(task.extension.owner, || {
                spi.run(&watches_sql::set_model(&task.extension.schema), &arguments).map(|_| ())
            })?;
            if set_default {
                // As the caller: the owner of the table may own no database.
                spi.run(
                    &format!("ALTER DATABASE {} SET clip.model = {}", database(), literal(&next.model)),
                    &[],
                )?;
                let statement = watches_sql::set_database_model(&task.extension.schema);
                act_as(task.extension.owner, || spi.run(&statement, &[text(&next.model)]).map(|_| ()))?;
                current_model::is_written_down(&task.extension);
            }
            Ok(Switch::Done)
        })
    })?;
    Ok(switched.unwrap_or(Switch::InUse))
}

/// What the columns have beside their type, as statements that give it to the new ones. `$2` and `$3` are the quoted
/// names of the vector and of the model.
const POSSESSIONS: &str = "
    SELECT format('GRANT %s (%I) ON %s TO %s %s', privilege_type, attname, $4,
        CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
        CASE WHEN is_grantable THEN 'WITH GRANT OPTION' END)
    FROM pg_attribute, aclexplode(attacl)
    WHERE attrelid = $1 AND quote_ident(attname) IN ($2, $3) AND NOT attisdropped
    UNION ALL
    SELECT format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT %s', $4, attname, pg_get_expr(adbin, adrelid))
    FROM pg_attribute JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE attrelid = $1 AND quote_ident(attname) IN ($2, $3)
    UNION ALL
    SELECT format('COMMENT ON COLUMN %s.%I IS %L', $4, attname, col_description(attrelid, attnum))
    FROM pg_attribute
    WHERE attrelid = $1 AND quote_ident(attname) IN ($2, $3) AND col_description(attrelid, attnum) IS NOT NULL";

/// Whether column `$2` of table `$1` is NOT NULL, and its storage.
const SHAPE: &str = "
    SELECT attnotnull, CASE attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END
    FROM pg_attribute WHERE attrelid = $1 AND quote_ident(attname) = $2";

/// The number that column `$2` of table `$1` has in its type.
const DIMENSIONS: &str =
    "SELECT atttypmod FROM pg_attribute WHERE attrelid = $1 AND attname = $2 AND atttypmod > 0";

/// To be called as the owner, with the target locked, and where no row lacks its second vector. No row is read: other sessions
/// wait.
fn replace(spi: &Spi, task: &Task, left: &[pg_sys::Oid]) -> Result<(), Error> {
    let pair = &task.pair;
    let Pair { embedding, model_column, target: Table { oid: table, name: target, .. }, .. } = pair;
    let run = |statement: String| spi.run(&statement, &[]).map(|_| ());
    let shape = |column: &str| -> Result<(bool, String), Error> {
        let row = spi.run(SHAPE, &[Argument::oid(*table), text(column)])?;
        Ok((row.printed(1).as_deref() == Some("t"), row.printed(2).unwrap_or_default()))
    };
    let mut before = indexes(spi, *table, embedding, left)?;
    let (is_required, storage) = shape(embedding)?;
    run(format!("ALTER TABLE {target} ALTER COLUMN {NEXT_MODEL} DROP DEFAULT"))?;
    if !shape(model_column)?.0 {
        run(format!("ALTER TABLE {target} ALTER COLUMN {NEXT_MODEL} DROP NOT NULL"))?;
    }
    let next = columns(spi, &pair.target)?.into_iter().find(|column| column.name == NEXT_EMBEDDING);
    let new = next.map_or(pair.storage, |next| Storage::of(&task.extension, next.type_oid));
    // A vector that may not leave its row has to fit into a page.
    let row = spi.run(DIMENSIONS, &[Argument::oid(*table), text(NEXT_EMBEDDING)])?;
    let dimensions = if row.len() > 0 { row.printed(1) } else { None };
    let dimensions = dimensions.and_then(|number| number.parse().ok()).unwrap_or(u16::MAX);
    let storage = if storage == "PLAIN" && !new.fits_a_row(dimensions) { "EXTERNAL" } else { &storage };
    run(format!("ALTER TABLE {target} ALTER COLUMN {NEXT_EMBEDDING} SET STORAGE {storage}"))?;
    set_toast_target(spi, &pair.target, TOAST_TARGET)?;
    let arguments: [Argument; 4] = [Argument::oid(*table), text(embedding), text(model_column), text(target)];
    let possessions: Vec<String> =
        spi.run(POSSESSIONS, &arguments)?.all_printed(1).into_iter().flatten().collect();

    run(format!("DROP TRIGGER {TRIGGER} ON {target}"))?;
    run(format!("DROP TRIGGER {GAP_TRIGGER} ON {target}"))?;
    run(format!("ALTER TABLE {target} DROP COLUMN {embedding}, DROP COLUMN {model_column}"))?;
    run(format!("ALTER TABLE {target} RENAME COLUMN {NEXT_EMBEDDING} TO {embedding}"))?;
    run(format!("ALTER TABLE {target} RENAME COLUMN {NEXT_MODEL} TO {model_column}"))?;
    if is_required {
        required::add(spi, target, embedding)?;
    }
    possessions.into_iter().try_for_each(run)?;
    // An index takes the name of the one that had the same definition.
    for old in &mut before {
        old.definition = of_storage(&old.definition, pair.storage, new);
    }
    for old in &before {
        let is_new = |name: &str| before.iter().all(|other| other.name != name);
        let now = indexes(spi, *table, embedding, &[])?;
        let same = now.iter().find(|index| index.definition == old.definition && is_new(&index.name));
        if let Some(index) = same {
            let schema = schema_of(*table);
            let [from, to] = [&index.name, &old.name].map(|name| identifier(name));
            run(format!("ALTER INDEX {schema}.{from} RENAME TO {to}"))?;
        }
    }
    let gone = [NEXT_EMBEDDING, NEXT_MODEL];
    by_number::check(spi, &pair.target, [&[embedding, model_column], &gone], [&[], &[TRIGGER, GAP_TRIGGER]])
}

/// The quoted name of this database.
fn database() -> String {
    // SAFETY: this backend's database exists.
    unsafe { identifier(&crate::encoding::c_string(pg_sys::get_database_name(pg_sys::MyDatabaseId))) }
}
