//! Messages to the client or the log that are no errors, in the encoding of the database.

use std::ffi::CString;
use std::ptr::null_mut;

use pgrx::{PgLogLevel, pg_sys};

use crate::encoding;

/// Tells the client or the log something that is no error.
pub(crate) fn tell(level: PgLogLevel, message: &str, hint: Option<&str>) {
    let (message, hint) = (c_string(message), hint.map(c_string));
    let mut data = pg_sys::ErrorData {
        elevel: level as i32,
        message: message.as_ptr().cast_mut(),
        hint: hint.as_ref().map_or(null_mut(), |hint| hint.as_ptr().cast_mut()),
        ..Default::default()
    };
    // SAFETY: the data is whole, and the server copies its strings.
    unsafe { pg_sys::ThrowErrorData(&mut data) };
}

/// A text in the encoding of the database.
pub(crate) fn c_string(text: &str) -> CString {
    let bytes = encoding::to_server_lossy(text);
    CString::new(bytes.into_owned()).unwrap_or_else(|error| {
        let end = error.nul_position();
        let mut bytes = error.into_vec();
        bytes.truncate(end);
        CString::new(bytes).expect("the bytes before the first zero byte")
    })
}
