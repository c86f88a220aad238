//! Reading `bytea` and `text` arguments.

use std::slice;

use pgrx::pg_sys;

use crate::encoding;
use crate::error::Error;

/// The bytes of a varlena datum, detoasted where needed, freed on drop where that made a copy.
pub(crate) struct Bytes {
    original: *mut pg_sys::varlena,
    detoasted: *mut pg_sys::varlena,
}

impl Bytes {
    /// Detoasts a datum.
    ///
    /// # Safety
    /// `datum` is a non-null varlena that outlives the value.
    pub(crate) unsafe fn new(datum: pg_sys::Datum) -> Bytes {
        let original = datum.cast_mut_ptr::<pg_sys::varlena>();
        // SAFETY: the caller vouches for the datum.
        let detoasted = unsafe { pg_sys::pg_detoast_datum_packed(original) };
        Bytes { original, detoasted }
    }

    /// Copies a datum, detoasted, so that it outlives the row that it came from.
    ///
    /// # Safety
    /// `datum` is a non-null varlena.
    pub(crate) unsafe fn copy(datum: pg_sys::Datum) -> Bytes {
        // SAFETY: the caller vouches for the datum.
        let detoasted = unsafe { pg_sys::pg_detoast_datum_copy(datum.cast_mut_ptr()) };
        Bytes { original: std::ptr::null_mut(), detoasted }
    }

    /// Takes over a value that was made in the current memory context.
    ///
    /// # Safety
    /// `datum` is a plain varlena that no other code frees.
    pub(crate) unsafe fn own(datum: pg_sys::Datum) -> Bytes {
        Bytes { original: std::ptr::null_mut(), detoasted: datum.cast_mut_ptr() }
    }

    /// The value as a datum, which lives as long as this.
    pub(crate) fn datum(&self) -> pg_sys::Datum {
        pg_sys::Datum::from(self.detoasted)
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: `detoasted` is a plain varlena, with a short or a long header, that this value keeps alive.
        unsafe {
            let data = pgrx::varlena::vardata_any(self.detoasted).cast::<u8>();
            slice::from_raw_parts(data, pgrx::varlena::varsize_any_exhdr(self.detoasted))
        }
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        if self.detoasted != self.original {
            // SAFETY: detoasting allocated this copy, and no other code frees it.
            unsafe { pg_sys::pfree(self.detoasted.cast()) };
        }
    }
}

/// The size of a varlena's data in bytes, without reading a toasted one.
///
/// # Safety
/// `datum` is a non-null varlena.
pub(crate) unsafe fn size(datum: pg_sys::Datum) -> usize {
    // SAFETY: the caller vouches for the datum.
    let with_header = unsafe { pg_sys::toast_raw_datum_size(datum) };
    with_header.saturating_sub(size_of::<i32>())
}

/// Whether two varlenas hold the same bytes. Values that were not touched by an UPDATE are known by their TOAST
/// pointers, and then neither is read.
///
/// # Safety
/// Both datums are non-null varlenas.
pub(crate) unsafe fn same(left: pg_sys::Datum, right: pg_sys::Datum) -> bool {
    // SAFETY: the caller vouches for both datums; the stored form is as long as VARSIZE_ANY says.
    unsafe {
        if stored_form(left) == stored_form(right) {
            return true;
        }
        if size(left) != size(right) {
            return false;
        }
        Bytes::new(left).as_slice() == Bytes::new(right).as_slice()
    }
}

/// A text in UTF-8, in a database of any encoding.
pub(crate) struct Utf8 {
    text: String,
}

impl Utf8 {
    /// Reads and converts a `text` datum.
    ///
    /// # Safety
    /// `datum` is a non-null `text`.
    pub(crate) unsafe fn new(datum: pg_sys::Datum) -> Result<Utf8, Error> {
        // SAFETY: the caller vouches for the datum.
        let bytes = unsafe { Bytes::new(datum) };
        let bytes = encoding::bytes_from_server(bytes.as_slice()).into_owned();
        // Only a database of encoding SQL_ASCII can hold another text.
        String::from_utf8(bytes).map(|text| Utf8 { text }).map_err(|_| Error::TextNotUtf8)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn into_string(self) -> String {
        self.text
    }
}

/// The bytes of a datum as they are stored: the value itself, or the TOAST pointer to it.
///
/// # Safety
/// `datum` is a non-null varlena that outlives the slice.
unsafe fn stored_form<'a>(datum: pg_sys::Datum) -> &'a [u8] {
    let pointer = datum.cast_mut_ptr::<pg_sys::varlena>();
    // SAFETY: the caller vouches for the datum, whose stored form is as long as VARSIZE_ANY says.
    unsafe { slice::from_raw_parts(pointer.cast_const().cast::<u8>(), pgrx::varlena::varsize_any(pointer)) }
}
