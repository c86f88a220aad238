//! Which model made the vectors of a target: never two at a time.
//!
//! `clip_watches.model` holds the identity of the model whose vectors the target has, from the first vector on. Which model that
//! is, a role chooses by its setting where it has the rights of the table's owner. For any other role it is the one that the
//! watch has, or that counts for the whole database: a role that only writes photos must not choose for those that search.

use pgrx::pg_sys;

use super::extension_schema::ExtensionSchema;
use super::identity;
use super::role::act_as;
use super::sql;
use super::watched::Watched;
use super::watches_sql;
use crate::at_commit::{self, Note};
use crate::current_model;
use crate::error::Error;
use crate::refusal::{Reason, refuse};
use crate::spi::{Argument, Rows, Spi};

/// Refuses to write vectors of a model beside those of another one, and keeps it so until the transaction's end.
///
/// The first vector that is written to an empty target decides. Where the watch has no model yet, it decides at the commit, so that
/// transactions with vectors of the same model do not wait for one another: the first one that commits writes the model down, and
/// one with another model fails. Where the watch has another model, the first vector decides under the lock of the watch's row.
/// The lock that `watched` has on the target keeps a migration away until the transaction's end.
pub(crate) fn check(
    spi: &Spi,
    extension: &ExtensionSchema,
    watched: &Watched,
    model: &str,
) -> Result<(), Error> {
    let Some(registration) = &watched.registration else {
        return match held(spi, watched, &sql::any_model(watched), &[])? {
            Some(other) if other != model => Err(mixed(watched, other, model)),
            _ => Ok(()),
        };
    };
    let text = Argument::text(model);
    let source = Argument::oid(watched.source.table.oid);
    let now =
        act_as(extension.owner, || spi.run_now_kept(&watches_sql::model(&extension.schema), &[source]))?;
    let now = if now.len() > 0 { now.printed(1) } else { None };
    if registration.model != now && keeps_its_snapshot() {
        // A migration's last vectors may be younger than the snapshot.
        return Err(Error::ModelChanged);
    }
    if now.as_deref() == Some(model) {
        return Ok(());
    }
    match at_commit::first_model(watched.source.table.oid) {
        Some(first) if first != model => return Err(mixed(watched, first, model)),
        Some(_) if now.is_none() => return Ok(()),
        _ => {}
    }
    if !may_choose(watched, model)? {
        return match held(spi, watched, &sql::other_model(watched), &[text])? {
            Some(other) => Err(mixed(watched, other, model)),
            None => Err(not_chosen(watched, now.as_deref(), model)),
        };
    }
    if now.is_none() {
        if let Some(other) = held(spi, watched, &sql::other_model(watched), &[text])? {
            return Err(mixed(watched, other, model));
        }
        let (source, model) = (watched.source.table.oid, model.to_owned());
        at_commit::write_down(Note::FirstModel { source, model }, write_down);
        return Ok(());
    }
    let row = act_as(extension.owner, || spi.run(&watches_sql::lock_model(&extension.schema), &[source]))?;
    if row.len() > 0 && row.printed(1).as_deref() == Some(model) {
        return Ok(());
    }
    if let Some(other) = held(spi, watched, &sql::other_model(watched), &[text])? {
        return Err(mixed(watched, other, model));
    }
    act_as(extension.owner, || spi.run(&watches_sql::set_model(&extension.schema), &[source, text]))?;
    Ok(())
}

/// Writes down which model made the first vectors of the target of a source, unless that is known: an error where it is another.
fn write_down(spi: &Spi, extension: &ExtensionSchema, note: &Note) -> Result<(), Error> {
    let Note::FirstModel { source, model } = note else {
        return Ok(());
    };
    let argument = Argument::oid(*source);
    act_as(extension.owner, || {
        let known = |rows: Rows| (rows.len() > 0).then(|| rows.printed(1));
        let now = known(spi.run_now(&watches_sql::model(&extension.schema), &[argument])?);
        let now = match now {
            // A row that another transaction has changed since is read as it is then.
            Some(None) => known(spi.run(&watches_sql::lock_model(&extension.schema), &[argument])?),
            now => now,
        };
        match now {
            Some(None) => {
                spi.run(&watches_sql::set_model(&extension.schema), &[argument, Argument::text(model)])?;
                Ok(())
            }
            Some(Some(held)) if held != *model => {
                let table = spi.run(&watches_sql::registration(&extension.schema), &[argument])?.printed(1);
                let table = table.unwrap_or_default();
                Err(Error::OtherModel { table, held, model: model.to_owned() })
            }
            // It is watched no more, or the model is known.
            _ => Ok(()),
        }
    })
}

/// Whether the target has a vector of any model.
pub(crate) fn holds_vectors(spi: &Spi, watched: &Watched) -> Result<bool, Error> {
    Ok(held(spi, watched, &sql::any_model(watched), &[])?.is_some())
}

/// Whether the transaction is REPEATABLE READ or SERIALIZABLE.
fn keeps_its_snapshot() -> bool {
    // SAFETY: a plain read of this backend's state.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}

/// The model that a query on the target finds.
fn held(spi: &Spi, watched: &Watched, query: &str, arguments: &[Argument]) -> Result<Option<String>, Error> {
    let row = watched.write(|| spi.run(query, arguments))?;
    Ok(if row.len() > 0 { row.printed(1) } else { None })
}

/// Whether the role that writes may choose this model for a target without vectors.
fn may_choose(watched: &Watched, model: &str) -> Result<bool, Error> {
    // SAFETY: a look-up of roles.
    let is_owners = unsafe { pg_sys::has_privs_of_role(watched.caller, watched.source.table.owner) };
    Ok(is_owners || current_model::is_the_databases(identity::name_of(model))?)
}

fn not_chosen(watched: &Watched, known: Option<&str>, model: &str) -> Error {
    let table = &watched.target.name;
    let message = match known {
        Some(known) => format!("table {table} takes vectors of model {known}, not {model}"),
        None => format!("table {table} has no model yet, and this role does not choose it"),
    };
    refuse(Reason::NotReady, message)
        .with_detail("The owner of the table or the setting of the database chooses the model of a table without vectors.")
        .with_hint("RESET clip.model, or ask the owner of the table.")
}

fn mixed(watched: &Watched, held: String, model: &str) -> Error {
    Error::OtherModel { table: watched.target.name.clone(), held, model: model.to_owned() }
}
