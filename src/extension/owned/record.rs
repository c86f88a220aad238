//! A row as the result of a function.

use pgrx::{IntoDatum, pg_sys};

use crate::error::Error;
use crate::refusal::{Reason, refuse};

/// The result of a function that is declared to return a row of `int8`.
///
/// # Safety
/// `fcinfo` is that of a running function whose OUT parameters are as many `int8` as there are counts.
pub(crate) unsafe fn record(
    fcinfo: pg_sys::FunctionCallInfo,
    counts: &[Option<i64>],
) -> Result<pg_sys::Datum, Error> {
    let values: Vec<Option<pg_sys::Datum>> =
        counts.iter().map(|count| count.and_then(IntoDatum::into_datum)).collect();
    // SAFETY: the caller vouches for the result's type.
    unsafe { record_of(fcinfo, &values) }
}

/// The result of a function that is declared to return a row. A value of none is NULL.
///
/// # Safety
/// `fcinfo` is that of a running function whose OUT parameters are of the types of the values, if they are as many.
pub(crate) unsafe fn record_of(
    fcinfo: pg_sys::FunctionCallInfo,
    values: &[Option<pg_sys::Datum>],
) -> Result<pg_sys::Datum, Error> {
    // SAFETY: the caller vouches for the result's type; both arrays have an entry for each of its columns.
    unsafe {
        let mut descriptor = std::ptr::null_mut();
        let class = pg_sys::get_call_result_type(fcinfo, std::ptr::null_mut(), &mut descriptor);
        let is_record = class == pg_sys::TypeFuncClass::TYPEFUNC_COMPOSITE;
        let columns = if is_record { usize::try_from((*descriptor).natts).unwrap_or_default() } else { 0 };
        // Views of an extension of another release stay readable.
        let nothing = vec![None; columns];
        let values = if values.iter().all(Option::is_none) { &nothing } else { values };
        if !is_record || columns != values.len() {
            return Err(refuse(
                Reason::NotReady,
                "the library and the SQL of pg_clip are of different releases",
            )
            .with_hint("ALTER EXTENSION pg_clip UPDATE"));
        }
        let descriptor = pg_sys::BlessTupleDesc(descriptor);
        let mut nulls: Vec<bool> = values.iter().map(|value| value.is_none()).collect();
        let mut values: Vec<pg_sys::Datum> = values.iter().map(|value| value.unwrap_or(0.into())).collect();
        let tuple = pg_sys::heap_form_tuple(descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
        Ok(pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data))
    }
}
