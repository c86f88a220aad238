//! The switch: the second column takes the place of the first.

use pgrx::{PgSqlErrorCode, pg_sys};

use super::column::{indexes, lock_alone, text};
use super::task::{NEXT_MODEL, Task, describe};
use crate::attempt::{attempt, of_a_lock, with_lock_timeout};
use crate::catalog::identifier;
use crate::current_model;
use crate::error::Error;
use crate::owned::{Pair, Table, literal};
use crate::refusal::{Reason, refuse};
use crate::spi::{Argument, Spi};
use crate::watch::next::{NEXT_EMBEDDING, TRIGGER};
use crate::watch::role::act_as;
use crate::watch::sql;

/// What came of a switch.
pub(super) enum Switch {
    Done,
    /// A table was in use for longer than the patience allowed.
    InUse,
    /// A row has no vector of the new model.
    RowsLeft,
}

/// Switches, with `clip.model` of the database where it is asked for.
pub(super) fn switch(
    spi: &Spi,
    function: pg_sys::Oid,
    [source, target]: [pg_sys::Oid; 2],
    set_default: bool,
    patience: u32,
) -> Result<Switch, Error> {
    let switched = attempt(of_a_lock_or_a_row, || {
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
            if !act_as(task.pair.target.owner, || replace(spi, &task.pair))? {
                return Ok(Switch::RowsLeft);
            }
            let arguments = [Argument::oid(task.pair.source.oid), text(&next.identity)];
            act_as(task.home.owner, || spi.run(&sql::set_model(&task.home.schema), &arguments).map(|_| ()))?;
            if set_default {
                // As the caller: the owner of the table may own no database.
                spi.run(
                    &format!("ALTER DATABASE {} SET clip.model = {}", database(), literal(&next.model)),
                    &[],
                )?;
                let statement = sql::set_database_model(&task.home.schema);
                act_as(task.home.owner, || spi.run(&statement, &[text(&next.model)]).map(|_| ()))?;
                current_model::is_written_down(&task.home);
            }
            Ok(Switch::Done)
        })
    })?;
    Ok(match switched {
        Ok(switch) => switch,
        Err(failure) if of_a_lock(failure.code) => Switch::InUse,
        Err(_) => Switch::RowsLeft,
    })
}

/// That a lock was not to be had, or that a row lacks its second vector.
fn of_a_lock_or_a_row(code: PgSqlErrorCode) -> bool {
    of_a_lock(code) || code == PgSqlErrorCode::ERRCODE_NOT_NULL_VIOLATION
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

/// To be called as the owner, with the target locked. False where a row lacks its second vector.
fn replace(spi: &Spi, pair: &Pair) -> Result<bool, Error> {
    let Pair { embedding, model_column, target: Table { oid: table, name: target, .. }, .. } = pair;
    let run = |statement: String| spi.run(&statement, &[]).map(|_| ());
    let shape = |column: &str| -> Result<(bool, String), Error> {
        let row = spi.run(SHAPE, &[Argument::oid(*table), text(column)])?;
        Ok((row.printed(1).as_deref() == Some("t"), row.printed(2).unwrap_or_default()))
    };
    let before = indexes(spi, *table, embedding)?;
    let (is_required, storage) = shape(embedding)?;
    if is_required {
        run(format!("ALTER TABLE {target} ALTER COLUMN {NEXT_EMBEDDING} SET NOT NULL"))?;
    } else {
        let lacking = format!(
            "SELECT FROM {target} AS t WHERE t.{embedding} IS NOT NULL AND t.{NEXT_EMBEDDING} IS NULL LIMIT 1"
        );
        if spi.run(&lacking, &[])?.len() > 0 {
            return Ok(false);
        }
    }
    run(format!("ALTER TABLE {target} ALTER COLUMN {NEXT_MODEL} DROP DEFAULT"))?;
    if !shape(model_column)?.0 {
        run(format!("ALTER TABLE {target} ALTER COLUMN {NEXT_MODEL} DROP NOT NULL"))?;
    }
    run(format!("ALTER TABLE {target} ALTER COLUMN {NEXT_EMBEDDING} SET STORAGE {storage}"))?;
    let arguments: [Argument; 4] = [Argument::oid(*table), text(embedding), text(model_column), text(target)];
    let possessions: Vec<String> =
        spi.run(POSSESSIONS, &arguments)?.all_printed(1).into_iter().flatten().collect();

    run(format!("DROP TRIGGER {TRIGGER} ON {target}"))?;
    run(format!("ALTER TABLE {target} DROP COLUMN {embedding}, DROP COLUMN {model_column}"))?;
    run(format!("ALTER TABLE {target} RENAME COLUMN {NEXT_EMBEDDING} TO {embedding}"))?;
    run(format!("ALTER TABLE {target} RENAME COLUMN {NEXT_MODEL} TO {model_column}"))?;
    possessions.into_iter().try_for_each(run)?;
    // An index takes the name of the one that had the same definition.
    for old in &before {
        let is_new = |name: &str| before.iter().all(|other| other.name != name);
        let now = indexes(spi, *table, embedding)?;
        let same = now.iter().find(|index| index.definition == old.definition && is_new(&index.name));
        if let Some(index) = same {
            let schema = schema_of(*table);
            let [from, to] = [&index.name, &old.name].map(|name| identifier(name));
            run(format!("ALTER INDEX {schema}.{from} RENAME TO {to}"))?;
        }
    }
    Ok(true)
}

/// The quoted name of the schema that a table is in.
fn schema_of(table: pg_sys::Oid) -> String {
    // SAFETY: the table is locked, and its schema cannot be dropped before it.
    unsafe {
        identifier(&crate::encoding::c_string(pg_sys::get_namespace_name(pg_sys::get_rel_namespace(table))))
    }
}

/// The quoted name of this database.
fn database() -> String {
    // SAFETY: this backend's database exists.
    unsafe { identifier(&crate::encoding::c_string(pg_sys::get_database_name(pg_sys::MyDatabaseId))) }
}
