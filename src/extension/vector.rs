//! pgvector's `vector` and `halfvec`: the one place that knows their layout.
//!
//! Layout (pgvector 0.5 to 0.8, `src/vector.h` and `src/halfvec.h`): varlena header `int32`, `int16 dim`, `int16 unused`
//! (zero), `float4 x[dim]`, or as many IEEE 754 binary16. pgvector checks elements in its input functions only: code that makes a vector elsewhere must make
//! sure that all are finite. The client checks every answer.

use pgrx::pg_sys;

const HEADER: usize = size_of::<i32>() + 2 * size_of::<i16>();

/// The values of a `vector`; nothing where the datum is none.
///
/// # Safety
/// `datum` is a varlena with a long header, as detoasting makes it.
pub(crate) unsafe fn from_datum(datum: pg_sys::Datum) -> Option<Vec<f32>> {
    // SAFETY: the caller vouches for the datum.
    unsafe { values(datum, |value: f32| value) }
}

/// The values of a `halfvec`; nothing where the datum is none.
///
/// # Safety
/// `datum` is a varlena with a long header, as detoasting makes it.
pub(crate) unsafe fn from_half_datum(datum: pg_sys::Datum) -> Option<Vec<f32>> {
    // SAFETY: the caller vouches for the datum.
    unsafe { values(datum, from_half) }
}

/// # Safety
/// `datum` is a varlena with a long header, as detoasting makes it.
unsafe fn values<T>(datum: pg_sys::Datum, convert: fn(T) -> f32) -> Option<Vec<f32>> {
    // SAFETY: the caller vouches for the datum; nothing beyond its size is read.
    unsafe {
        let start = datum.cast_mut_ptr::<u8>().cast_const();
        let size = pgrx::varlena::varsize_any(start.cast());
        if size < HEADER {
            return None;
        }
        let dimensions = usize::try_from(start.add(size_of::<i32>()).cast::<i16>().read_unaligned()).ok()?;
        if size != HEADER + dimensions * size_of::<T>() {
            return None;
        }
        let values = start.add(HEADER).cast::<T>();
        Some((0..dimensions).map(|index| convert(values.add(index).read_unaligned())).collect())
    }
}

/// The value of an IEEE 754 binary16: a sign, 5 bits of exponent and 10 of fraction.
fn from_half(half: u16) -> f32 {
    let (sign, exponent, fraction) = (half >> 15, half >> 10 & 0x1f, half & 0x3ff);
    let fraction = f32::from(fraction);
    let value = match exponent {
        0 => fraction * 2_f32.powi(-24),
        0x1f if fraction == 0.0 => f32::INFINITY,
        0x1f => f32::NAN,
        _ => (1024.0 + fraction) * 2_f32.powi(i32::from(exponent) - 25),
    };
    if sign == 0 { value } else { -value }
}

/// Allocates a `vector` in the current memory context.
pub(crate) fn to_datum(values: &[f32]) -> pg_sys::Datum {
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
