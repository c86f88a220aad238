//! The rows that statements return.

use std::ffi::CString;
use std::marker::PhantomData;

use pgrx::pg_sys;

use super::value::{Value, Varlena};
use crate::encoding;
use crate::error::Error;
use crate::varlena::Bytes;
use crate::vector;
use crate::watch::extension_schema::ExtensionSchema;

/// The rows that a statement returned, freed on drop.
pub(crate) struct Rows<'spi> {
    table: *mut pg_sys::SPITupleTable,
    count: u64,
    spi: PhantomData<&'spi ()>,
}

impl Rows<'_> {
    /// Takes over the result of the statement that ran last.
    pub(super) fn take<'spi>() -> Rows<'spi> {
        // SAFETY: SPI set both for the statement that was run last; from here on the table is ours to free.
        unsafe {
            let table = std::ptr::replace(&raw mut pg_sys::SPI_tuptable, std::ptr::null_mut());
            let count = if table.is_null() { 0 } else { pg_sys::SPI_processed };
            Rows { table, count, spi: PhantomData }
        }
    }

    /// How many rows there are; 0 for a statement that returns none.
    pub(crate) fn len(&self) -> u64 {
        self.count
    }

    /// A column of the first row, counted from 1, or `None` where it is NULL.
    pub(crate) fn get<T: Value>(&self, column: i32) -> Result<Option<T>, Error> {
        let found = self.type_of(column);
        if !T::TYPES.contains(&found) {
            return Err(Error::RowType { column, found });
        }
        // SAFETY: the value is of a type that `T` reads.
        Ok(self.datum(column).map(|datum| unsafe { T::read(datum) }))
    }

    /// A column of the first row that is of this type, or `None` where it is NULL. The value lives as long as these
    /// rows.
    pub(crate) fn value(&self, column: i32, wanted: pg_sys::Oid) -> Result<Option<pg_sys::Datum>, Error> {
        let found = self.type_of(column);
        if found != wanted {
            return Err(Error::RowType { column, found });
        }
        Ok(self.datum(column))
    }

    /// A `bytea` of the first row. The value lives as long as these rows.
    pub(crate) fn bytea(&self, column: i32) -> Result<Option<Varlena<'_>>, Error> {
        self.varlena(column, pg_sys::BYTEAOID)
    }

    /// A value of the first row that is of this type, a varlena. The value lives as long as these rows.
    pub(crate) fn varlena(&self, column: i32, wanted: pg_sys::Oid) -> Result<Option<Varlena<'_>>, Error> {
        let datum = self.value(column, wanted)?;
        Ok(datum.map(Varlena::of))
    }

    /// A copy of a `vector` or a `halfvec` of the first row.
    pub(crate) fn vector(&self, column: i32, extension: &ExtensionSchema) -> Result<Option<Vec<f32>>, Error> {
        let is_half = self.type_of(column) == extension.halfvec_type;
        let Some(datum) =
            self.value(column, if is_half { extension.halfvec_type } else { extension.vector_type })?
        else {
            return Ok(None);
        };
        // SAFETY: the value is of that type of pgvector's, a varlena; detoasting gives it a long header.
        let values = unsafe {
            let copy = Bytes::copy(datum);
            if is_half { vector::from_half_datum(copy.datum()) } else { vector::from_datum(copy.datum()) }
        };
        values.map(Some).ok_or(Error::BrokenVector)
    }

    /// A column of the first row as its type prints it, or `None` where it is NULL.
    pub(crate) fn printed(&self, column: i32) -> Option<String> {
        assert!(self.count > 0, "there is a first row");
        self.printed_of(0, column)
    }

    /// A column of all rows as its type prints it.
    pub(crate) fn all_printed(&self, column: i32) -> Vec<Option<String>> {
        let rows = usize::try_from(self.count).expect("rows that fit into memory");
        (0..rows).map(|row| self.printed_of(row, column)).collect()
    }

    fn printed_of(&self, row: usize, column: i32) -> Option<String> {
        // SAFETY: the table has as many rows as `count` says; SPI takes the output function of the column's type and
        // returns null or a string in the current memory context.
        unsafe {
            let tuple = *(*self.table).vals.add(row);
            let text = pg_sys::SPI_getvalue(tuple, (*self.table).tupdesc, column);
            (!text.is_null()).then(|| {
                let owned = encoding::c_string(text);
                pg_sys::pfree(text.cast());
                owned
            })
        }
    }

    /// A column of all rows as its type prints it, in the encoding of the database.
    pub(crate) fn all_printed_raw(&self, column: i32) -> Vec<Option<CString>> {
        let rows = usize::try_from(self.count).expect("rows that fit into memory");
        // SAFETY: as in `printed_of`.
        let text = |row| unsafe {
            let tuple = *(*self.table).vals.add(row);
            let text = pg_sys::SPI_getvalue(tuple, (*self.table).tupdesc, column);
            (!text.is_null()).then(|| {
                let owned = std::ffi::CStr::from_ptr(text).to_owned();
                pg_sys::pfree(text.cast());
                owned
            })
        };
        (0..rows).map(text).collect()
    }

    /// A column of all rows that is of this type, whose values are no pointers to memory of the rows.
    pub(crate) fn all_by_value(
        &self,
        column: i32,
        wanted: pg_sys::Oid,
    ) -> Result<Vec<Option<pg_sys::Datum>>, Error> {
        let found = self.type_of(column);
        if found != wanted {
            return Err(Error::RowType { column, found });
        }
        let rows = usize::try_from(self.count).expect("rows that fit into memory");
        let value = |row| {
            let mut is_null = false;
            // SAFETY: the table has such a row; SPI checks the column's number.
            let value = unsafe {
                let tuple = *(*self.table).vals.add(row);
                pg_sys::SPI_getbinval(tuple, (*self.table).tupdesc, column, &mut is_null)
            };
            (!is_null).then_some(value)
        };
        Ok((0..rows).map(value).collect())
    }

    /// A column of type `bytea` of a row, counted from 0; nothing where it is NULL or of another type.
    pub(crate) fn bytes(&self, row: usize, column: i32) -> Option<Vec<u8>> {
        if row as u64 >= self.count || self.type_of(column) != pg_sys::BYTEAOID {
            return None;
        }
        let mut is_null = false;
        // SAFETY: the table has such a row; the value is a bytea that lives as long as the rows.
        unsafe {
            let tuple = *(*self.table).vals.add(row);
            let value = pg_sys::SPI_getbinval(tuple, (*self.table).tupdesc, column, &mut is_null);
            (!is_null).then(|| Bytes::new(value).as_slice().to_vec())
        }
    }

    fn datum(&self, column: i32) -> Option<pg_sys::Datum> {
        assert!(self.count > 0, "there is a first row");
        let mut is_null = false;
        // SAFETY: the table has a first row; SPI checks the column's number.
        let value = unsafe {
            pg_sys::SPI_getbinval(*(*self.table).vals, (*self.table).tupdesc, column, &mut is_null)
        };
        (!is_null).then_some(value)
    }

    /// The type of a column.
    fn type_of(&self, column: i32) -> pg_sys::Oid {
        assert!(!self.table.is_null(), "the statement returned rows");
        // SAFETY: the descriptor is there with the table; SPI checks the column's number.
        unsafe { pg_sys::SPI_gettypeid((*self.table).tupdesc, column) }
    }
}

impl Drop for Rows<'_> {
    fn drop(&mut self) {
        if !self.table.is_null() && !std::thread::panicking() {
            // SAFETY: taken from SPI by the only constructor, and freed nowhere else.
            unsafe { pg_sys::SPI_freetuptable(self.table) };
        }
    }
}
