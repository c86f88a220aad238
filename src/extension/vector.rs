//! pgvector's `vector`: the one place that knows its layout.
//!
//! Layout (pgvector 0.5 to 0.8, `src/vector.h`): varlena header `int32`, `int16 dim`, `int16 unused` (zero),
//! `float4 x[dim]`. pgvector checks elements in its input functions only: whoever makes a vector elsewhere vouches
//! that all are finite. The client does so for every answer.

use pgrx::pg_sys;

/// Allocates a `vector` in the current memory context.
pub(crate) fn to_datum(values: &[f32]) -> pg_sys::Datum {
    const HEADER: usize = size_of::<i32>() + 2 * size_of::<i16>();
    let dimensions = i16::try_from(values.len()).expect("the wire allows at most 16,000 dimensions");
    let size = HEADER + size_of_val(values);
    // SAFETY: the allocation is zeroed, MAXALIGNed and `size` bytes long; all writes stay inside it.
    unsafe {
        let start = pg_sys::palloc0(size).cast::<u8>();
        pgrx::set_varsize_4b(start.cast(), i32::try_from(size).expect("64 kB at most"));
        start.add(size_of::<i32>()).cast::<i16>().write(dimensions);
        start.add(HEADER).cast::<f32>().copy_from_nonoverlapping(values.as_ptr(), values.len());
        pg_sys::Datum::from(start)
    }
}
