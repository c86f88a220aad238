//! What becomes of a job that failed.

use pgrx::{IntoDatum, PgSqlErrorCode as Code, pg_sys};

use super::claim::Job;
use super::sql;
use super::transaction::Failure;
use crate::error::Error;
use crate::spi::{Argument, Spi};
use crate::watch::home::Home;
use crate::watch::role::act_as;

/// How a job goes on.
#[derive(Clone)]
pub(super) enum Fate {
    /// It is done with.
    Retire,
    /// It is to be tried again as if it had not been, after this many seconds; alone from now on, or not.
    GiveBack { seconds: f64, alone: bool },
    /// The attempt counts. Whether it was the last in any case.
    Fail { failure: Failure, dead: bool },
}

impl Fate {
    /// After an error that the embedder gave for this photo alone.
    pub(super) fn of_photo(failure: Failure) -> Fate {
        let dead = matches!(
            failure.code,
            Code::ERRCODE_INVALID_BINARY_REPRESENTATION
                | Code::ERRCODE_FEATURE_NOT_SUPPORTED
                | Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED
                | Code::ERRCODE_INVALID_PARAMETER_VALUE
        );
        Fate::Fail { failure, dead }
    }

    /// After an error of the server, while the photo was read or its vector written.
    pub(super) fn of_database(failure: Failure) -> Fate {
        if is_passing(failure.code) {
            Fate::GiveBack { seconds: 1.0, alone: false }
        } else {
            Fate::Fail { failure, dead: false }
        }
    }
}

/// Whether an error says that somebody was in the way, and nothing of a photo.
pub(super) fn is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::ERRCODE_LOCK_NOT_AVAILABLE
            | Code::ERRCODE_T_R_DEADLOCK_DETECTED
            | Code::ERRCODE_T_R_SERIALIZATION_FAILURE
    )
}

/// Whether an error says that the embedder is away, and nothing of a photo.
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

/// Writes the fate of a job down, unless the job has changed since it was claimed.
pub(super) fn settle(spi: &Spi, home: &Home, job: &Job, fate: &Fate) -> Result<(), Error> {
    let mut arguments = job.identity().to_vec();
    let statement = match fate {
        Fate::Retire => sql::retire(&home.schema),
        Fate::GiveBack { seconds, alone } => {
            arguments.push(Argument { oid: pg_sys::FLOAT8OID, value: seconds.into_datum() });
            arguments.push(Argument { oid: pg_sys::BOOLOID, value: alone.into_datum() });
            sql::give_back(&home.schema)
        }
        Fate::Fail { failure, dead } => {
            let text = |text: String| Argument { oid: pg_sys::TEXTOID, value: text.into_datum() };
            arguments.push(text(failure.sqlstate()));
            arguments.push(text(failure.message.clone()));
            arguments.push(Argument { oid: pg_sys::BOOLOID, value: dead.into_datum() });
            sql::fail(&home.schema)
        }
    };
    act_as(home.owner, || spi.run(&statement, &arguments))?;
    Ok(())
}
