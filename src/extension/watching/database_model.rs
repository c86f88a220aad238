//! Writing down the model of a database with its first watch.

use pgrx::pg_sys;

use crate::at_commit::{self, Note};
use crate::current_model;
use crate::error::Error;
use crate::spi::{Argument, Spi};
use crate::watch::extension_schema::ExtensionSchema;
use crate::watch::role::act_as;
use crate::watch::watches_sql;

/// Has a model written down for the database when the transaction commits, unless one is, where the caller has the rights of the
/// database's owner.
pub(super) fn begin(source: pg_sys::Oid, model: &str) {
    // SAFETY: a plain read of the current role.
    let by = unsafe { pg_sys::GetUserId() };
    at_commit::write_down(Note::DatabaseModel { source, model: model.to_owned(), by }, write_down);
}

/// Writes a model down for the database, unless one is, as long as the source is watched.
fn write_down(spi: &Spi, extension: &ExtensionSchema, note: &Note) -> Result<(), Error> {
    let Note::DatabaseModel { source, model, by } = note else {
        return Ok(());
    };
    let arguments = [Argument::text(model), Argument::oid(*by), Argument::oid(*source)];
    let begun = act_as(extension.owner, || {
        Ok::<_, Error>(spi.run(&watches_sql::begin_database_model(&extension.schema), &arguments)?.len() > 0)
    })?;
    if begun {
        current_model::is_written_down(extension);
    }
    Ok(())
}
