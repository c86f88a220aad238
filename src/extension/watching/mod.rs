//! Watching a table: `clip_watch` and `clip_unwatch`.
//!
//! All that the trigger and the queue rely on is checked here first, under a lock that keeps writers away: a watch
//! that cannot work is refused when it is asked for, with the reason. Triggers and target belong to the owner of
//! the source, whichever role calls.

pub(crate) mod database_model;
mod ddl;
mod former;
mod partitions;
mod request;
mod source;
mod target;
mod triggers;

use std::ffi::CString;
use std::time::Duration;

use pgrx::{IntoDatum, pg_sys};

use self::request::Request;
pub(crate) use self::request::Storage;
use self::source::Source;
use crate::attempt::{attempt, with_setting};
use crate::client;
use crate::current_model;
use crate::error::Error;
use crate::owned::Table;
use crate::queue::enqueue;
use crate::refusal::{Reason, refuse};
use crate::settings;
use crate::spi::{Argument, Spi};
use crate::sql_function::sql_function;
use crate::watch::extension_schema::ExtensionSchema;
use crate::watch::identity::{identity, name_of};
use crate::watch::registry::argument;
use crate::watch::registry::oid_of;
use crate::watch::role::act_as;
use crate::watch::watches_sql;

/// The lock that keeps writers away, and that CREATE TRIGGER takes.
const WITHOUT_WRITERS: u32 = pg_sys::ShareRowExclusiveLock;
/// The lock that DROP TRIGGER takes.
const ALONE: u32 = pg_sys::AccessExclusiveLock;

sql_function! {
    /// `clip_watch(source regclass, target text, mode text, image_column name, key_column name, project_column name,
    /// target_key_column name, embedding_column name, checksum_column name, model_column name,
    /// target_project_column name, reference_column name, storage text, replicated bool) → regclass`
    fn clip_watch(fcinfo) {
        // SAFETY: SQL declares the function with these arguments; `flinfo` is that of the running function.
        let (request, function) = unsafe {
            pg_sys::PreventCommandIfReadOnly(c"clip_watch()".as_ptr());
            (Request::read(fcinfo)?, (*(*fcinfo).flinfo).fn_oid)
        };
        let spi = Spi::connect()?;
        let extension = ExtensionSchema::of(function)?;
        // Never a stronger lock later than at first: two calls would wait for one another.
        let lock = if triggers::are_there(&spi, &extension, request.source)? { ALONE } else { WITHOUT_WRITERS };
        let table = Table::of_caller(request.source, lock)?;
        let source = Source::look_up(&spi, table, &request)?;
        let target = target::find_or_make(&spi, &extension, &source, &request)?;
        let model = match target.held(&spi)? {
            Some(held) => Some(held),
            None => model_now(),
        };
        register(&spi, &extension, &source, &target, &request, model)?;
        let Table { oid, owner, .. } = source.table;
        let made = triggers::Made { key: &source.key.name, is_replicated: request.is_replicated };
        triggers::make(&spi, &extension, oid, owner, made)?;
        partitions::make(&spi, &extension, oid, owner, made)?;
        Ok(target.table.oid.into())
    }
}

sql_function! {
    /// `clip_unwatch(source regclass) → void`
    fn clip_unwatch(fcinfo) {
        // SAFETY: SQL declares the function with this argument; `flinfo` is that of the running function.
        let (source, function) = unsafe {
            pg_sys::PreventCommandIfReadOnly(c"clip_unwatch()".as_ptr());
            (argument(fcinfo, 0), (*(*fcinfo).flinfo).fn_oid)
        };
        let source = source.map_or(pg_sys::InvalidOid, oid_of);
        let spi = Spi::connect()?;
        let extension = ExtensionSchema::of(function)?;
        let table = Table::of_caller(source, ALONE)?;
        enqueue::clear(&spi, &extension, source)?;
        let deleted = act_as(extension.owner, || spi.run(&watches_sql::unregister(&extension.schema), &[Argument::oid(source)]))?.len();
        if deleted == 0 {
            return Err(refuse(Reason::NotReady, format!("table {} is not watched", table.name)));
        }
        triggers::drop_all(&spi, table.oid, table.owner)?;
        partitions::drop_all(&spi, table.oid, table.owner)?;
        Ok(pg_sys::Datum::from(0))
    }
}

/// The identity of the model that `clip.model` names; nothing where the embedder does not say soon: writers wait. The
/// first photo of a table then need not decide under a lock, which the next one would wait for.
fn model_now() -> Option<String> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let model = current_model::model().ok()?;
    let patience = PATIENCE.min(settings::request_timeout()).as_millis().to_string();
    let patience = CString::new(patience).expect("digits");
    let description = with_setting(c"clip.request_timeout", &patience, || client::describe(&model)).ok()?;
    Some(identity(&model, &description.fingerprint))
}

/// Writes the row of the watch as the extension's owner, which owns `clip_watches`.
fn register(
    spi: &Spi,
    extension: &ExtensionSchema,
    source: &Source,
    target: &target::Target,
    request: &Request,
    model: Option<String>,
) -> Result<(), Error> {
    let table = |table: &Table| Argument { oid: pg_sys::REGCLASSOID, value: table.oid.into_datum() };
    let text = Argument::text_or_null;
    let project = source.project.as_ref().zip(target.project.as_deref());
    let arguments = [
        table(&source.table),
        table(&target.table),
        text(Some(&request.mode)),
        text(Some(&source.image.name)),
        text(Some(&source.key.name)),
        text(project.map(|(project, _)| project.name.as_str())),
        text(Some(&request.target_key)),
        text(Some(&request.embedding)),
        text(Some(&request.checksum)),
        text(Some(&request.model)),
        text(project.map(|(_, project)| project)),
        text(model.as_deref()),
        Argument::bool(request.is_by_reference),
        Argument::bool(request.is_replicated),
    ];
    let is_taken = |code: pgrx::PgSqlErrorCode| code == pgrx::PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION;
    let registered = attempt(is_taken, || {
        act_as(extension.owner, || {
            spi.run(&watches_sql::forget_dropped(&extension.schema), &[])?;
            spi.run(&watches_sql::forget_jobs_of_dropped(&extension.schema), &[])?;
            spi.run(&watches_sql::register(&extension.schema), &arguments)?;
            Ok(())
        })
    })?;
    registered.map_err(|_| target::taken_already(&target.table))?;
    // A target that holds vectors of another model, or of none, changes nothing for other tables.
    let current = current_model::model().ok();
    let model = model.as_deref().map(name_of).filter(|model| current.as_deref() == Some(*model));
    if let Some(model) = model {
        database_model::begin(source.table.oid, model);
    }
    Ok(())
}
