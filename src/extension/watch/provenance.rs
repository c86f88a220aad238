//! Which model made the vectors of a target: never two at a time.
//!
//! `clip_watches.model` holds the identity of the model whose vectors the target has, from the first vector on.

use pgrx::pg_sys;

use super::extension_schema::ExtensionSchema;
use super::role::act_as;
use super::sql;
use super::watched::Watched;
use super::watches_sql;
use crate::error::Error;
use crate::spi::{Argument, Spi};

/// Refuses to write vectors of a model beside those of another one, and keeps it so until the transaction's end.
///
/// The first vector that is written to an empty target decides, under the lock of the watch's row: another
/// transaction that writes a first vector at the same time waits for it. The lock that `watched` has on the target
/// keeps a migration away until then.
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

fn mixed(watched: &Watched, held: String, model: &str) -> Error {
    Error::OtherModel { table: watched.target.name.clone(), held, model: model.to_owned() }
}
