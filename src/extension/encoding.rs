//! Texts of the server in UTF-8 and back.
//!
//! A database may have another encoding than UTF-8, and Rust's strings may not. So each text that comes from the
//! server is converted, and each statement and value that goes to it is converted back: a name or a key with an
//! accent is the same on both sides. A character that one of the encodings lacks is the server's own error, 22P05
//! or 22021.

use std::borrow::Cow;
use std::ffi::{CStr, c_char};

use pgrx::{PgTryBuilder, pg_sys};

/// A C string of the server.
///
/// # Safety
/// `text` is a NUL-terminated string.
pub(crate) unsafe fn c_string(text: *const c_char) -> String {
    // SAFETY: the caller vouches for the string.
    from_server(unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// A name of a catalog's row.
pub(crate) fn name(name: &pg_sys::NameData) -> String {
    // SAFETY: a name of the catalogs ends with a zero byte within its length.
    unsafe { c_string(name.data.as_ptr()) }
}

/// A text of the server. In a database of encoding SQL_ASCII, bytes that are not UTF-8 are an error.
pub(crate) fn from_server(text: &[u8]) -> String {
    let bytes = bytes_from_server(text);
    String::from_utf8(bytes.into_owned()).unwrap_or_else(|error| {
        // Only where the server checks nothing: outside of a transaction.
        String::from_utf8_lossy(error.as_bytes()).into_owned()
    })
}

/// A text of the server that may be broken, as a message of an error may be; to be used inside of a transaction.
pub(crate) fn from_server_lossy(text: &[u8]) -> String {
    PgTryBuilder::new(|| from_server(text))
        .catch_others(|_| String::from_utf8_lossy(text).into_owned())
        .execute()
}

/// A text as the server has it, in UTF-8 as far as the server converts it.
pub(crate) fn bytes_from_server(text: &[u8]) -> Cow<'_, [u8]> {
    // SAFETY: a plain read of this process's state.
    if !unsafe { pg_sys::IsTransactionState() } {
        return Cow::Borrowed(text);
    }
    // SAFETY: takes `length` bytes, and returns its argument or a string in the current memory context.
    convert(text, |source, length, utf8| unsafe { pg_sys::pg_server_to_any(source, length, utf8) })
}

/// A text for the server.
pub(crate) fn to_server(text: &str) -> Cow<'_, [u8]> {
    // SAFETY: as in `bytes_from_server`.
    convert(text.as_bytes(), |source, length, utf8| unsafe { pg_sys::pg_any_to_server(source, length, utf8) })
}

/// A text for the server, with `?` for each character that its encoding lacks. It looks nothing up, so that it serves
/// after an error and outside of a transaction.
pub(crate) fn to_server_lossy(text: &str) -> Cow<'_, [u8]> {
    // SAFETY: a plain read of this process's state.
    let encoding = unsafe { pg_sys::GetDatabaseEncoding() };
    let unchanged = [pg_sys::pg_enc::PG_UTF8, pg_sys::pg_enc::PG_SQL_ASCII];
    if text.is_ascii() || unchanged.map(|encoding| encoding as i32).contains(&encoding) {
        return Cow::Borrowed(text.as_bytes());
    }
    Cow::Owned(
        text.chars().flat_map(|character| character_to_server(character).unwrap_or(vec![b'?'])).collect(),
    )
}

/// A character in the encoding of the database, where it has that character.
fn character_to_server(character: char) -> Option<Vec<u8>> {
    /// As in `mb/pg_wchar.h`.
    const MAX_UNICODE_EQUIVALENT_STRING: usize = 16;
    let convert = || {
        let mut buffer = [0; MAX_UNICODE_EQUIVALENT_STRING + 1];
        // SAFETY: the buffer has room for a character of any encoding and a zero byte.
        unsafe { pg_sys::pg_unicode_to_server(character.into(), buffer.as_mut_ptr()) };
        CStr::from_bytes_until_nul(&buffer).ok().map(|converted| converted.to_bytes().to_vec())
    };
    PgTryBuilder::new(convert).catch_others(|_| None).execute()
}

fn convert(text: &[u8], convert: impl FnOnce(*const c_char, i32, i32) -> *mut c_char) -> Cow<'_, [u8]> {
    // An empty text has no address that the server may read.
    if text.is_empty() {
        return Cow::Borrowed(text);
    }
    let utf8 = pg_sys::pg_enc::PG_UTF8 as i32;
    let source = text.as_ptr().cast();
    let converted = convert(source, i32::try_from(text.len()).expect("a datum has at most 1 GB"), utf8);
    if converted.cast_const() == source {
        return Cow::Borrowed(text);
    }
    // SAFETY: a conversion makes a NUL-terminated string in the current memory context, which is freed here once.
    unsafe {
        let copy = CStr::from_ptr(converted).to_bytes().to_vec();
        pg_sys::pfree(converted.cast());
        Cow::Owned(copy)
    }
}
