//! The Rust types that columns are read as.

use std::marker::PhantomData;

use pgrx::{FromDatum, pg_sys};

use crate::varlena::{self, Bytes};

/// A type of Rust's that a column can be read as.
pub(crate) trait Value {
    /// The types of columns that [`Value::read`] takes.
    const TYPES: &[pg_sys::Oid];

    /// # Safety
    /// `datum` is a non-null value of one of the types.
    unsafe fn read(datum: pg_sys::Datum) -> Self;
}

impl Value for bool {
    const TYPES: &[pg_sys::Oid] = &[pg_sys::BOOLOID];

    unsafe fn read(datum: pg_sys::Datum) -> bool {
        datum.value() != 0
    }
}

impl Value for i64 {
    const TYPES: &[pg_sys::Oid] = &[pg_sys::INT8OID];

    unsafe fn read(datum: pg_sys::Datum) -> i64 {
        // SAFETY: the caller vouches for the value, which is not NULL.
        unsafe { i64::from_datum(datum, false) }.unwrap_or_default()
    }
}

impl Value for f64 {
    const TYPES: &[pg_sys::Oid] = &[pg_sys::FLOAT8OID];

    unsafe fn read(datum: pg_sys::Datum) -> f64 {
        // SAFETY: the caller vouches for the value, which is not NULL.
        unsafe { f64::from_datum(datum, false) }.unwrap_or_default()
    }
}

impl Value for pg_sys::Oid {
    const TYPES: &[pg_sys::Oid] = &[pg_sys::OIDOID, pg_sys::REGCLASSOID];

    unsafe fn read(datum: pg_sys::Datum) -> pg_sys::Oid {
        pg_sys::Oid::from(u32::try_from(datum.value()).expect("an oid has 32 bits"))
    }
}

/// A `bytea` or a text of a row, perhaps a TOAST pointer.
#[derive(Clone, Copy)]
pub(crate) struct Varlena<'rows> {
    datum: pg_sys::Datum,
    rows: PhantomData<&'rows ()>,
}

impl<'rows> Varlena<'rows> {
    /// Of a non-null varlena of rows that are at hand.
    pub(super) fn of(datum: pg_sys::Datum) -> Varlena<'rows> {
        Varlena { datum, rows: PhantomData }
    }

    /// Its size in bytes, which does not read it.
    pub(crate) fn size(self) -> usize {
        // SAFETY: a non-null varlena of rows that are at hand, see `Rows::varlena`.
        unsafe { varlena::size(self.datum) }
    }

    /// Reads it.
    pub(crate) fn copy(self) -> Bytes {
        // SAFETY: as in `size`.
        unsafe { Bytes::copy(self.datum) }
    }

    /// Whether both hold the same bytes. Values of one TOAST pointer are not read.
    pub(crate) fn is_same_as(self, other: Varlena) -> bool {
        // SAFETY: as in `size`, of both.
        unsafe { varlena::same(self.datum, other.datum) }
    }
}
