//! A transaction of the worker.

use std::ffi::c_int;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use pgrx::{PgSqlErrorCode, PgTryBuilder, pg_sys};

use crate::error::{Error, text_of};
use crate::spi::Spi;

/// Why something failed: an error of ours or of the server.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) code: PgSqlErrorCode,
    pub(crate) message: String,
    /// The model that is missing, where that is why.
    pub(super) model: Option<String>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let model = match &error {
            Error::ModelAway(model, _) => Some(model.clone()),
            _ => None,
        };
        Failure { code: error.sqlstate(), message: error.to_string(), model }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        Error::Queue(failure)
    }
}

impl Failure {
    /// What an ERROR of the server says.
    pub(crate) fn of_report(code: PgSqlErrorCode, message: &str) -> Failure {
        Failure { code, message: message.to_owned(), model: None }
    }

    /// The five characters of the SQLSTATE.
    pub(super) fn sqlstate(&self) -> String {
        text_of(self.code)
    }
}

/// A trigger of a user's that does not come to its end must not hold up the photos of others.
const LONGEST: Duration = Duration::from_secs(60);

unsafe extern "C-unwind" {
    fn enable_timeout_after(timeout: c_int, milliseconds: c_int);
    fn disable_timeout(timeout: c_int, keep_indicator: bool);
}

/// `STATEMENT_TIMEOUT` of `utils/timeout.h`, the same in PostgreSQL 15 to 18.
const STATEMENT_TIMEOUT: c_int = 3;

/// Runs `body` in a transaction of its own and commits it; an error rolls it back, and so does
/// [`LONGEST`]. A cancel by somebody ends the worker.
pub(super) fn transaction<R>(body: impl FnOnce(&Spi) -> Result<R, Error>) -> Result<R, Failure> {
    // SAFETY: no transaction is open; each way out of here ends it.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        enable_timeout_after(STATEMENT_TIMEOUT, c_int::try_from(LONGEST.as_millis()).expect("a minute"));
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
    }
    let start = Instant::now();
    let done = PgTryBuilder::new(AssertUnwindSafe(|| {
        let done = {
            let spi = Spi::connect()?;
            body(&spi)?
        };
        // SAFETY: the snapshot and the transaction from above; SPI is closed.
        unsafe {
            pg_sys::PopActiveSnapshot();
            disable_timeout(STATEMENT_TIMEOUT, false);
            pg_sys::CommitTransactionCommand();
        }
        Ok(done)
    }))
    .catch_others(|cause| {
        use pg_sys::panic::CaughtError;
        let (CaughtError::PostgresError(report)
        | CaughtError::ErrorReport(report)
        | CaughtError::RustPanic { ereport: report, .. }) = &cause;
        let failure =
            Failure { code: report.sql_error_code(), message: report.message().to_owned(), model: None };
        if failure.code == PgSqlErrorCode::ERRCODE_QUERY_CANCELED && start.elapsed() < LONGEST {
            cause.rethrow();
        }
        Err(failure)
    })
    .execute();
    // SAFETY: a failed transaction is open still, whether or not an error was raised in it.
    unsafe {
        if done.is_err() {
            disable_timeout(STATEMENT_TIMEOUT, false);
            pg_sys::AbortCurrentTransaction();
        }
        pg_sys::pgstat_report_stat(false);
    }
    done
}
