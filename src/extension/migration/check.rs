//! Whether a target has to be moved, or why it cannot be.

use pgrx::{IntoDatum, pg_sys};

use super::gaps::GAP_TRIGGER;
use super::task::{Task, describe};
use crate::current_model;
use crate::error::Error;
use crate::owned::{Table, columns, literal, notice, refuse_subscribed};
use crate::refusal::{Reason, refuse};
use crate::spi::{Argument, Spi};
use crate::watch::next::{NEXT_EMBEDDING, TRIGGER};
use crate::watch::role::act_as;
use crate::watching::Storage;

/// The part of the migration that is left to do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Needed {
    Nothing,
    All,
    /// An earlier call has prepared the target.
    Rest,
}

/// Objects beside indexes, defaults and NOT NULL that depend on the columns `$2` and `$3`, both quoted, of table `$1`.
/// An index is made anew for the new column; one on an expression may name the dimensions, unless they stay `$4`.
const DEPENDENTS: &str = "
    SELECT string_agg(DISTINCT pg_describe_object(depend.classid, depend.objid, depend.objsubid), ', ')
    FROM pg_attribute AS attribute
    JOIN pg_depend AS depend ON depend.refclassid = 'pg_class'::regclass AND depend.refobjid = $1
        AND depend.refobjsubid = attribute.attnum
    LEFT JOIN pg_index AS index ON depend.classid = 'pg_class'::regclass AND index.indexrelid = depend.objid
        AND quote_ident(attribute.attname) = $2
    LEFT JOIN pg_attrdef AS own ON depend.classid = 'pg_attrdef'::regclass AND own.oid = depend.objid
        AND own.adnum = attribute.attnum
    LEFT JOIN pg_constraint AS not_null ON depend.classid = 'pg_constraint'::regclass
        AND not_null.oid = depend.objid AND not_null.contype = 'n'
    LEFT JOIN pg_trigger AS trigger ON depend.classid = 'pg_trigger'::regclass AND trigger.oid = depend.objid
        AND trigger.tgname IN ($5, $6)
    WHERE attribute.attrelid = $1 AND quote_ident(attribute.attname) IN ($2, $3)
        AND own.oid IS NULL AND not_null.oid IS NULL AND trigger.oid IS NULL
        AND (index.indexrelid IS NULL OR index.indexprs IS NOT NULL AND attribute.atttypmod NOT IN (-1, $4))";

pub(super) fn check(
    spi: &Spi,
    task: &Task,
    model: &str,
    storage: Option<Storage>,
    set_default: bool,
) -> Result<Needed, Error> {
    let target = &task.pair.target;
    if target.is_partitioned() || inherits(spi, target)? {
        let message = format!("table {} is partitioned or inherits", target.name);
        return Err(refuse(Reason::NotSupported, message));
    }
    refuse_subscribed(target)?;
    if set_default {
        check_database(spi)?;
    }
    let (identity, dimensions) = describe(model)?;
    let needed = match &task.next {
        Some(next) if next.identity != identity => {
            return Err(refuse(
                Reason::NotReady,
                format!("table {} is being migrated to model {}, not {identity}", target.name, next.identity),
            )
            .with_hint(format!("SELECT clip_abandon_migration({})", literal(&target.name))));
        }
        Some(_) => {
            let prepared = columns(spi, target)?.into_iter().find(|column| column.name == NEXT_EMBEDDING);
            let prepared = prepared.map(|column| Storage::of(&task.extension, column.type_oid));
            if storage.is_some() && prepared != storage {
                let message = format!("table {} is being migrated to another storage", target.name);
                return Err(refuse(Reason::NotReady, message)
                    .with_hint(format!("SELECT clip_abandon_migration({})", literal(&target.name))));
            }
            Needed::Rest
        }
        None if task.pair.model.as_ref() == Some(&identity)
            && storage.is_none_or(|storage| storage == task.pair.storage) =>
        {
            notice(format!("table {} holds the vectors of model {identity} already", target.name), None);
            return Ok(Needed::Nothing);
        }
        None => Needed::All,
    };
    check_dependents(spi, task, dimensions)?;
    Ok(needed)
}

fn inherits(spi: &Spi, target: &Table) -> Result<bool, Error> {
    const INHERITS: &str = "SELECT FROM pg_inherits WHERE $1 IN (inhrelid, inhparent) LIMIT 1";
    act_as(target.owner, || Ok(spi.run_now(INHERITS, &[Argument::oid(target.oid)])?.len() > 0))
}

/// `ALTER DATABASE` runs as the caller, which must own the database.
fn check_database(spi: &Spi) -> Result<(), Error> {
    const DATABASE: &str = "
        SELECT datname::pg_catalog.text, pg_catalog.pg_has_role(datdba, 'USAGE') FROM pg_catalog.pg_database
        WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()";
    let row = spi.run_now(DATABASE, &[])?;
    if row.len() > 0 && row.printed(2).as_deref() == Some("t") {
        return Ok(());
    }
    let name = row.printed(1).unwrap_or_default();
    Err(refuse(Reason::NotAllowed, format!("must be owner of database {name}"))
        .with_hint("With set_default => false, clip.model stays as it is and is yours to change."))
}

fn check_dependents(spi: &Spi, task: &Task, dimensions: u16) -> Result<(), Error> {
    use crate::spi::Argument;
    let pair = &task.pair;
    let text = Argument::text;
    let arguments = [
        Argument::oid(pair.target.oid),
        text(&pair.embedding),
        text(&pair.model_column),
        Argument { oid: pg_sys::INT4OID, value: i32::from(dimensions).into_datum() },
        text(TRIGGER),
        text(GAP_TRIGGER),
    ];
    let dependents =
        act_as(pair.target.owner, || Ok::<_, Error>(spi.run_now(DEPENDENTS, &arguments)?.printed(1)))?;
    let Some(dependents) = dependents else {
        return Ok(());
    };
    Err(refuse(
        Reason::DependentObjects,
        format!(
            "other objects depend on the columns {}, {} of table {}",
            pair.embedding, pair.model_column, pair.target.name
        ),
    )
    .with_detail(format!("Dependent: {dependents}."))
    .with_hint("Drop them, and create them again after the migration."))
}

/// Tells which work a migration leaves to the user.
pub(super) fn announce(spi: &Spi, task: &Task, model: &str, set_default: bool) -> Result<(), Error> {
    use crate::spi::Argument;
    const ROLES: &str = "
        SELECT string_agg(DISTINCT quote_ident(rolname), ', ')
        FROM pg_db_role_setting JOIN pg_roles ON pg_roles.oid = setrole, unnest(setconfig) AS entry
        WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
            AND lower(split_part(entry, '=', 1)) = 'clip.model' AND split_part(entry, '=', 2) <> $1";
    if !set_default && current_model::model().ok().as_deref() != Some(model) {
        notice(format!("after the migration, photos are refused until clip.model is {model}"), None);
    }
    let model = Argument::text(model);
    let roles = act_as(task.extension.owner, || Ok::<_, Error>(spi.run_now(ROLES, &[model])?.printed(1)))?;
    if let Some(roles) = roles {
        notice(
            format!("clip.model is set to another model for the roles {roles}"),
            Some("ALTER ROLE ... RESET clip.model, once the table has been migrated.".to_owned()),
        );
    }
    Ok(())
}
