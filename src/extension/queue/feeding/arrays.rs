//! Arrays of the procedure that a feeder calls, which are as long as one another.

use pgrx::pg_sys;

use crate::error::Error;
use crate::refusal::{Reason, refuse};
use crate::spi::text_datum;

/// The elements of an array of varlenas; none where it is NULL.
///
/// # Safety
/// `array` is a `text[]` or a `bytea[]` that outlives the elements.
pub(super) unsafe fn elements(array: Option<pg_sys::Datum>) -> Vec<Option<pg_sys::Datum>> {
    let Some(array) = array else {
        return Vec::new();
    };
    // SAFETY: the caller vouches for the array; both lists have as many entries as it has elements, and live in the
    // current memory context.
    unsafe {
        let array = pg_sys::pg_detoast_datum(array.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        let (mut datums, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        let align = pg_sys::TYPALIGN_INT as std::ffi::c_char;
        pg_sys::deconstruct_array(
            array,
            (*array).elemtype,
            -1,
            false,
            align,
            &mut datums,
            &mut nulls,
            &mut count,
        );
        let count = usize::try_from(count).expect("an array's length is not negative");
        (0..count).map(|index| (!*nulls.add(index)).then(|| *datums.add(index))).collect()
    }
}

/// Refuses arrays of different lengths.
pub(super) fn check_lengths(lengths: &[usize]) -> Result<(), Error> {
    if lengths.windows(2).all(|pair| pair[0] == pair[1]) {
        return Ok(());
    }
    Err(refuse(Reason::InvalidParameter, "the arrays must be as long as one another"))
}

/// A `text[]` in the current memory context.
pub(super) fn text_array(texts: &[&str]) -> pg_sys::Datum {
    let mut datums: Vec<pg_sys::Datum> = texts.iter().map(|text| text_datum(text)).collect();
    let count = i32::try_from(datums.len()).expect("a batch");
    let align = pg_sys::TYPALIGN_INT as std::ffi::c_char;
    // SAFETY: the elements are as many texts, of this length and alignment.
    unsafe { pg_sys::construct_array(datums.as_mut_ptr(), count, pg_sys::TEXTOID, -1, false, align).into() }
}
