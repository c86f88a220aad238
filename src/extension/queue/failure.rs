//! The next state of a job that failed.

use std::collections::HashSet;

use pgrx::{PgSqlErrorCode as Code, pg_sys};

use super::claim::Job;
use super::sql;
use crate::error::Error;
use crate::failure::Failure;
use crate::spi::{Argument, Spi};
use crate::watch::extension_schema::ExtensionSchema;
use crate::watch::role::act_as;

/// How a job goes on.
#[derive(Clone)]
pub(super) enum Disposition {
    /// The job is done.
    Retire,
    /// The job is tried again after this many seconds, and the attempt does not count; from now on alone, or not.
    GiveBack { seconds: f64, alone: bool },
    /// The same, and the job shows its owner why it waits.
    Wait { seconds: f64, failure: Failure },
    /// The attempt counts. `dead` says whether it was the last in any case.
    Fail { failure: Failure, dead: bool },
    /// The worker that had claimed it has ended.
    Recover,
}

/// Whether an error says that another transaction was in the way, and says nothing of a photo.
pub(super) fn is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::ERRCODE_LOCK_NOT_AVAILABLE
            | Code::ERRCODE_T_R_DEADLOCK_DETECTED
            | Code::ERRCODE_T_R_SERIALIZATION_FAILURE
    )
}

/// Whether an error says that the embedder is away, and says nothing of a photo.
pub(super) fn is_away(code: Code) -> bool {
    matches!(
        code,
        Code::ERRCODE_CANNOT_CONNECT_NOW
            | Code::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED
            | Code::ERRCODE_CONFIG_FILE_ERROR
            | Code::ERRCODE_TOO_MANY_CONNECTIONS
            | Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
            | Code::ERRCODE_SYSTEM_ERROR
    )
}

/// Whether an error says that the table cannot be worked on as it is now, or its disk is full, and says nothing of a photo.
pub(super) fn is_of_table(code: Code) -> bool {
    matches!(
        code,
        Code::ERRCODE_DISK_FULL
            | Code::ERRCODE_UNDEFINED_TABLE
            | Code::ERRCODE_UNDEFINED_COLUMN
            | Code::ERRCODE_UNDEFINED_FUNCTION
            | Code::ERRCODE_WRONG_OBJECT_TYPE
            | Code::ERRCODE_DATATYPE_MISMATCH
            | Code::ERRCODE_INDETERMINATE_COLLATION
            | Code::ERRCODE_INSUFFICIENT_PRIVILEGE
            | Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
    )
}

/// Writes the disposition of a job down, unless the job has changed since it was claimed. Returns false while
/// another transaction has the job locked.
pub(super) fn try_settle(
    spi: &Spi,
    extension: &ExtensionSchema,
    job: &Job,
    disposition: &Disposition,
) -> Result<bool, Error> {
    let has_rows = |statement: &str| {
        act_as(extension.owner, || spi.run_kept(statement, &job.identity())).map(|rows| rows.len() > 0)
    };
    if has_rows(&sql::hold(&extension.schema))? {
        settle(spi, extension, job, disposition)?;
        return Ok(true);
    }
    Ok(!has_rows(&sql::exists(&extension.schema))?)
}

/// Locks jobs of one source, and returns which of them this transaction then holds: no job that has changed, or
/// that another transaction has locked.
pub(super) fn hold_all(
    spi: &Spi,
    extension: &ExtensionSchema,
    source: pg_sys::Oid,
    jobs: &[&Job],
) -> Result<Vec<bool>, Error> {
    let rows = act_as(extension.owner, || {
        spi.run_by_index(&sql::hold_all(&extension.schema), &arguments(source, jobs))
    })?;
    let held: HashSet<(String, String)> =
        rows.all_printed(1).into_iter().flatten().zip(rows.all_printed(2).into_iter().flatten()).collect();
    Ok(jobs.iter().map(|job| held.contains(&(job.key.clone(), job.generation.clone()))).collect())
}

/// Deletes jobs of one source that this transaction holds.
pub(super) fn retire_all(
    spi: &Spi,
    extension: &ExtensionSchema,
    source: pg_sys::Oid,
    jobs: &[&Job],
) -> Result<(), Error> {
    if !jobs.is_empty() {
        act_as(extension.owner, || {
            spi.run_by_index(&sql::retire_all(&extension.schema), &arguments(source, jobs))
        })?;
    }
    Ok(())
}

/// The parameters `$1` to `$3` of the statements on several jobs.
fn arguments(source: pg_sys::Oid, jobs: &[&Job]) -> [Argument; 3] {
    let texts =
        |text: fn(&Job) -> &String| -> Vec<String> { jobs.iter().map(|job| text(job).clone()).collect() };
    let (keys, generations) = (texts(|job| &job.key), texts(|job| &job.generation));
    [Argument::oid(source), Argument::texts(&keys), Argument::texts(&generations)]
}

/// Writes the disposition of a job down that this transaction holds.
pub(super) fn settle(
    spi: &Spi,
    extension: &ExtensionSchema,
    job: &Job,
    disposition: &Disposition,
) -> Result<(), Error> {
    let mut arguments = job.identity().to_vec();
    let statement = match disposition {
        Disposition::Retire => sql::retire(&extension.schema),
        Disposition::Recover => sql::recover(&extension.schema),
        Disposition::GiveBack { seconds, alone } => {
            arguments.extend([Argument::float8(*seconds), Argument::bool(*alone)]);
            sql::give_back(&extension.schema)
        }
        Disposition::Wait { seconds, failure } => {
            arguments.push(Argument::float8(*seconds));
            arguments.extend([Argument::text(&failure.sqlstate()), Argument::message(&failure.message)]);
            sql::wait(&extension.schema)
        }
        Disposition::Fail { failure, dead } => {
            arguments.extend([Argument::text(&failure.sqlstate()), Argument::message(&failure.message)]);
            arguments.push(Argument::bool(*dead));
            sql::fail(&extension.schema)
        }
    };
    act_as(extension.owner, || spi.run_kept(&statement, &arguments))?;
    Ok(())
}
