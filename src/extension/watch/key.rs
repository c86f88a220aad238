//! Keys of photos, of any type.
//!
//! Keys are compared by their type's default equality operator and never by their text. A job names a photo by the
//! key's text, which is printed under fixed settings and can be read again under any.

use std::ffi::{CString, c_int};

use pgrx::pg_sys;

use super::role::PortableOutput;
use crate::catalog::equality_of;
use crate::encoding;
use crate::error::Error;

unsafe extern "C-unwind" {
    /// `utils/datum.h`
    fn datumCopy(value: pg_sys::Datum, by_value: bool, length: c_int) -> pg_sys::Datum;
}

/// The type of a watched table's key.
pub(crate) struct KeyType {
    pub(crate) oid: pg_sys::Oid,
    /// The operator by which two keys are the same, as SQL writes it.
    pub(crate) equals: String,
    by_value: bool,
    length: i16,
}

/// A key that outlives the row that it was read from.
pub(crate) struct Key {
    datum: pg_sys::Datum,
    by_value: bool,
}

impl KeyType {
    pub(crate) fn new(oid: pg_sys::Oid) -> Result<KeyType, Error> {
        let (mut length, mut by_value) = (0, false);
        // SAFETY: the type is that of a column of a table that is locked.
        unsafe { pg_sys::get_typlenbyval(oid, &mut length, &mut by_value) };
        Ok(KeyType { oid, equals: equality_of(oid)?, by_value, length })
    }

    /// Copies a key of this type.
    ///
    /// # Safety
    /// `datum` is a non-null value of this type.
    pub(crate) unsafe fn copy(&self, datum: pg_sys::Datum) -> Key {
        // SAFETY: the caller vouches for the value's type, whose storage this describes; an ERROR becomes a panic.
        let datum = unsafe {
            pg_sys::ffi::pg_guard_ffi_boundary(|| datumCopy(datum, self.by_value, self.length.into()))
        };
        Key { datum, by_value: self.by_value }
    }

    /// Reads a key that was printed, under the same settings; its type's input function refuses what is none.
    pub(crate) fn read(&self, text: &str, _settings: &PortableOutput) -> Key {
        let text = CString::new(encoding::to_server(text)).expect("a text of the server has no NUL byte");
        let (mut input, mut parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
        // SAFETY: the type is that of a column of a table that is locked; its input function takes these arguments,
        // leaves the string alone and returns a new value.
        let datum = unsafe {
            pg_sys::getTypeInputInfo(self.oid, &mut input, &mut parameter);
            pg_sys::OidInputFunctionCall(input, text.as_ptr().cast_mut(), parameter, -1)
        };
        Key { datum, by_value: self.by_value }
    }

    /// Prints a key of this type.
    pub(crate) fn print(&self, key: &Key, _settings: &PortableOutput) -> String {
        let (mut output, mut is_varlena) = (pg_sys::InvalidOid, false);
        // SAFETY: the key is a value of this type; its output function returns a string in the current memory context.
        unsafe {
            pg_sys::getTypeOutputInfo(self.oid, &mut output, &mut is_varlena);
            encoding::c_string(pg_sys::OidOutputFunctionCall(output, key.datum))
        }
    }
}

impl Key {
    /// The value, which lives as long as this.
    pub(crate) fn datum(&self) -> pg_sys::Datum {
        self.datum
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        // After an ERROR the memory context is gone with all that was in it.
        if !self.by_value && !std::thread::panicking() {
            // SAFETY: a value that was allocated for this key, and is freed nowhere else.
            unsafe { pg_sys::pfree(self.datum.cast_mut_ptr()) };
        }
    }
}
