//! Texts of ours as the server takes them: in the encoding of the database.

use std::ffi::{CString, c_char};

use pgrx::pg_sys;

use crate::encoding;

/// A statement as the server reads it.
pub(crate) fn text_of(sql: &str) -> CString {
    CString::new(encoding::to_server(sql)).expect("our own statements have no NUL byte")
}

/// A `text` in the current memory context.
pub(crate) fn text_datum(text: &str) -> pg_sys::Datum {
    text_datum_of(&encoding::to_server(text))
}

pub(super) fn text_datum_of(bytes: &[u8]) -> pg_sys::Datum {
    let length = i32::try_from(bytes.len()).expect("a datum has at most 1 GB");
    // SAFETY: copies as many bytes as there are.
    unsafe { pg_sys::cstring_to_text_with_len(bytes.as_ptr().cast(), length).into() }
}

/// A `text[]` in the current memory context.
pub(super) fn text_array(texts: Vec<Option<pg_sys::Datum>>) -> pg_sys::Datum {
    let mut values: Vec<pg_sys::Datum> = texts.into_iter().map(|text| text.unwrap_or(0.into())).collect();
    let count = i32::try_from(values.len()).expect("fewer elements than that");
    let align = c_char::try_from(pg_sys::TYPALIGN_INT).expect("ASCII");
    // SAFETY: the elements are texts of this length and alignment, none of them NULL.
    unsafe { pg_sys::construct_array(values.as_mut_ptr(), count, pg_sys::TEXTOID, -1, false, align).into() }
}
