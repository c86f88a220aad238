//! A transaction of the worker.

use std::panic::AssertUnwindSafe;

use pgrx::{PgSqlErrorCode, PgTryBuilder, pg_sys};

use crate::error::Error;
use crate::spi::Spi;

/// Why something failed: an error of ours or of the server.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) code: PgSqlErrorCode,
    pub(crate) message: String,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { code: error.sqlstate(), message: error.to_string() }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        Error::Queue(failure)
    }
}

impl Failure {
    /// The five characters of the SQLSTATE.
    pub(super) fn sqlstate(&self) -> String {
        // MAKE_SQLSTATE of elog.h: six bits a character.
        let character = |place: u32| ((self.code as u32 >> (6 * place) & 0x3f) as u8 + b'0') as char;
        (0..5).map(character).collect()
    }
}

/// Runs `body` in a transaction of its own and commits it; an error rolls it back. A cancel ends the worker.
pub(super) fn transaction<R>(body: impl FnOnce(&Spi) -> Result<R, Error>) -> Result<R, Failure> {
    // SAFETY: no transaction is open; each way out of here ends it.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
    }
    let done = PgTryBuilder::new(AssertUnwindSafe(|| {
        let done = {
            let spi = Spi::connect()?;
            body(&spi)?
        };
        // SAFETY: the snapshot and the transaction from above; SPI is closed.
        unsafe {
            pg_sys::PopActiveSnapshot();
            pg_sys::CommitTransactionCommand();
        }
        Ok(done)
    }))
    .catch_others(|cause| {
        use pg_sys::panic::CaughtError;
        let (CaughtError::PostgresError(report)
        | CaughtError::ErrorReport(report)
        | CaughtError::RustPanic { ereport: report, .. }) = &cause;
        let failure = Failure { code: report.sql_error_code(), message: report.message().to_owned() };
        if failure.code == PgSqlErrorCode::ERRCODE_QUERY_CANCELED {
            cause.rethrow();
        }
        Err(failure)
    })
    .execute();
    // SAFETY: a failed transaction is open still, whether or not an error was raised in it.
    unsafe {
        if done.is_err() {
            pg_sys::AbortCurrentTransaction();
        }
        pg_sys::pgstat_report_stat(false);
    }
    done
}
