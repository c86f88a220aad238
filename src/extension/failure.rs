//! Why a part of the work failed: the part of a caught error that is kept.

use pgrx::PgSqlErrorCode;

use crate::sqlstate;

/// Why something failed: an error of ours or of the server.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) code: PgSqlErrorCode,
    pub(crate) message: String,
    /// The model that is missing, where this is the reason.
    pub(crate) model: Option<String>,
    /// Whether a transaction of the worker was given up because of the time that it took.
    pub(crate) took_too_long: bool,
}

impl Failure {
    /// The failure that an ERROR of the server reports.
    pub(crate) fn of_report(code: PgSqlErrorCode, message: &str) -> Failure {
        Failure { code, message: message.to_owned(), model: None, took_too_long: false }
    }

    /// The five characters of the SQLSTATE.
    pub(crate) fn sqlstate(&self) -> String {
        sqlstate::text_of(self.code)
    }
}
