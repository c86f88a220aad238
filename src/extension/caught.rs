//! Errors that are caught, with their messages in UTF-8.
//!
//! pgrx takes the server's message for UTF-8. In a database of another encoding its letters would be lost, so the message
//! is taken from the error itself and converted.

use std::ffi::CString;
use std::panic::AssertUnwindSafe;

use pgrx::pg_sys::panic::{CaughtError, ErrorReportWithLevel};
use pgrx::{PgSqlErrorCode, PgTryBuilder};

use crate::encoding;
use crate::failure::Failure;
use crate::server_error;

/// An error of the server's or a panic.
pub(crate) struct Caught {
    cause: Box<CaughtError>,
    /// The message of an error of the server's, in the encoding of the database.
    message: Option<CString>,
}

/// Runs `body`. An ERROR in it leaves the (sub)transaction to be ended.
pub(crate) fn catch<R>(body: impl FnOnce() -> R) -> Result<R, Caught> {
    let (done, last) = server_error::keep_last(|| {
        PgTryBuilder::new(AssertUnwindSafe(|| Ok(body())))
            .catch_others(|cause| Err(Box::new(cause)))
            .execute()
    });
    done.map_err(|cause| {
        let last = last.filter(|_| matches!(*cause, CaughtError::PostgresError(_)));
        // SAFETY: the error was returned just now.
        let message = last.and_then(|last| unsafe { server_error::message_of(last) });
        Caught { cause, message }
    })
}

impl Caught {
    pub(crate) fn code(&self) -> PgSqlErrorCode {
        self.report().sql_error_code()
    }

    /// The SQLSTATE that says what to do about it. Code of a user's can raise an error with the SQLSTATE of a cancelled statement, of
    /// a lock or of a full disk: such an error counts as raised by a user (P0001), whatever its SQLSTATE is.
    pub(crate) fn judged_code(&self) -> PgSqlErrorCode {
        /// The functions of PL/pgSQL, PL/Perl, PL/Python and PL/Tcl that raise what a user's code says.
        const OF_USERS: [&str; 7] = [
            "exec_stmt_raise",
            "exec_stmt_assert",
            "do_util_elog",
            "plperl_util_elog",
            "PLy_output",
            "PLy_elog_impl",
            "pltcl_elog",
        ];
        /// The function of the server that ends a statement because it was cancelled or took too long.
        const OF_A_CANCEL: &str = "ProcessInterrupts";
        let raised_by = self.report().function_name().unwrap_or_default();
        let is_of_a_user = OF_USERS.contains(&raised_by)
            || self.code() == PgSqlErrorCode::ERRCODE_QUERY_CANCELED && raised_by != OF_A_CANCEL;
        let is_of_the_server = matches!(&*self.cause, CaughtError::PostgresError(_));
        if is_of_the_server && is_of_a_user { PgSqlErrorCode::ERRCODE_RAISE_EXCEPTION } else { self.code() }
    }

    /// Whether its message has letters that have to be converted.
    pub(crate) fn has_letters(&self) -> bool {
        self.message.as_ref().is_some_and(|message| !message.as_bytes().is_ascii())
    }

    /// The error's text. Where it has letters, a transaction must be open that is whole.
    pub(crate) fn failure(&self) -> Failure {
        let message = self.message.as_ref().map(|message| encoding::from_server_lossy(message.as_bytes()));
        Failure::of_report(self.code(), message.as_deref().unwrap_or(self.report().message()))
    }

    /// Goes on with it.
    pub(crate) fn rethrow(self) -> ! {
        self.cause.rethrow()
    }

    fn report(&self) -> &ErrorReportWithLevel {
        let (CaughtError::PostgresError(report)
        | CaughtError::ErrorReport(report)
        | CaughtError::RustPanic { ereport: report, .. }) = &*self.cause;
        report
    }
}
