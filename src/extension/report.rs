//! Reports to PostgreSQL in the encoding of the database.
//!
//! pgrx reports Rust's UTF-8 as it is. In a database of another encoding a name with an accent would arrive broken, or the
//! client would get an error about its bytes instead of the report. So the texts are converted here; `?` stands for a
//! character that the encoding lacks. An error of the server's goes on as it was ([`crate::server_error`]).

use std::ffi::CString;
use std::panic::AssertUnwindSafe;
use std::ptr::null_mut;

use pgrx::pg_sys::panic::{CaughtError, ErrorReportWithLevel};
use pgrx::{PgTryBuilder, pg_sys};

use crate::error::Error;
use crate::notice::c_string;
use crate::server_error;

/// Runs the body of a function that PostgreSQL calls: its error becomes an ERROR.
///
/// # Safety
/// Called in the outermost Rust frame below PostgreSQL, where nothing is left to be dropped.
pub(crate) unsafe fn guard(body: impl FnOnce() -> Result<pg_sys::Datum, Error>) -> pg_sys::Datum {
    let attempt = || match body() {
        Ok(datum) => Ok(datum),
        Err(error) => error.raise(),
    };
    let (done, last) = server_error::keep_last(|| {
        PgTryBuilder::new(AssertUnwindSafe(attempt))
            .catch_others(|cause| {
                let is_of_server = matches!(cause, CaughtError::PostgresError(_));
                let (CaughtError::PostgresError(report)
                | CaughtError::ErrorReport(report)
                | CaughtError::RustPanic { ereport: report, .. }) = cause;
                Err((is_of_server, Box::new(report)))
            })
            .execute()
    });
    let data = match (done, last) {
        (Ok(datum), _) => return datum,
        (Err((true, _)), Some(whole)) => whole,
        (Err((_, report)), _) => error_data(*report),
    };
    // SAFETY: the data is whole. This frame holds nothing else, and the caller vouches for the frames above it.
    unsafe { throw(data) };
    unreachable!("an ERROR does not return")
}

unsafe extern "C-unwind" {
    /// As pgrx binds it, but for the guard: the jump ends in PostgreSQL.
    #[link_name = "ThrowErrorData"]
    fn throw(data: *mut pg_sys::ErrorData);
}

/// The report as the server has it, where the server keeps what belongs to an error.
fn error_data(report: ErrorReportWithLevel) -> *mut pg_sys::ErrorData {
    // Before the context has any content: a conversion that fails empties it.
    let message = c_string(report.message());
    let detail = report.detail_with_backtrace().map(|detail| c_string(&detail));
    let hint = report.hint().map(c_string);
    let file = c_string(report.file());
    let function = report.function_name().map(c_string);
    // SAFETY: the context lives as long as the process; zeros are a valid value of the struct.
    unsafe {
        let before = pg_sys::MemoryContextSwitchTo(pg_sys::ErrorContext);
        let copy = |text: &CString| pg_sys::pstrdup(text.as_ptr());
        let data = pg_sys::palloc0(size_of::<pg_sys::ErrorData>()).cast::<pg_sys::ErrorData>();
        *data = pg_sys::ErrorData {
            elevel: report.level() as i32,
            sqlerrcode: report.sql_error_code() as i32,
            message: copy(&message),
            detail: detail.as_ref().map_or(null_mut(), copy),
            hint: hint.as_ref().map_or(null_mut(), copy),
            filename: copy(&file),
            lineno: i32::try_from(report.line_number()).unwrap_or_default(),
            funcname: function.as_ref().map_or(null_mut(), copy).cast_const(),
            ..Default::default()
        };
        pg_sys::MemoryContextSwitchTo(before);
        data
    }
}
