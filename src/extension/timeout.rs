//! Timeouts of the server, as `utils/timeout.h` has them in PostgreSQL 15 to 18.

use std::ffi::c_int;

use pgrx::pg_sys;

unsafe extern "C-unwind" {
    pub(crate) fn enable_timeout_after(timeout: c_int, milliseconds: c_int);
    pub(crate) fn enable_timeout_every(timeout: c_int, first: pg_sys::TimestampTz, milliseconds: c_int);
    pub(crate) fn disable_timeout(timeout: c_int, keep_indicator: bool);
    pub(crate) fn RegisterTimeout(timeout: c_int, handler: unsafe extern "C-unwind" fn()) -> c_int;
    pub(crate) fn get_timeout_active(timeout: c_int) -> bool;
    pub(crate) fn get_timeout_finish_time(timeout: c_int) -> pg_sys::TimestampTz;
}

/// `STATEMENT_TIMEOUT`
pub(crate) const STATEMENT_TIMEOUT: c_int = 3;
/// `USER_TIMEOUT`: the first that an extension may ask for.
#[cfg(any(feature = "pg15", feature = "pg16"))]
pub(crate) const USER_TIMEOUT: c_int = 12;
#[cfg(any(feature = "pg17", feature = "pg18"))]
pub(crate) const USER_TIMEOUT: c_int = 13;
