//! The codes of errors.

use std::ffi::CStr;

use pgrx::{PgSqlErrorCode, pg_sys};

/// A SQLSTATE as applications know it: five characters.
pub(crate) fn text_of(code: PgSqlErrorCode) -> String {
    // SAFETY: takes any number and returns a string of five characters in a buffer of its own.
    let text = unsafe { CStr::from_ptr(pg_sys::unpack_sql_state(code as i32)) };
    text.to_string_lossy().into_owned()
}
