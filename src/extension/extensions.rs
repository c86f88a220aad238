//! Extensions of this database and their members, read from the catalogs themselves.
//!
//! PostgreSQL tells no cache when a row of `pg_extension` or `pg_depend` changes, so they are read each time, by their
//! indexes. That takes some microseconds; a query that joins them takes a hundred.

use std::ffi::CStr;

use pgrx::pg_sys;

use crate::catalog_row::find_row;
use crate::encoding;
use crate::varlena::Bytes;

/// An extension of this database.
pub(crate) struct Extension {
    pub(crate) oid: pg_sys::Oid,
    pub(crate) schema: pg_sys::Oid,
    pub(crate) version: String,
}

impl Extension {
    /// The one that a function belongs to.
    pub(crate) fn of_function(function: pg_sys::Oid) -> Option<Extension> {
        let extension = extension_of(pg_sys::ProcedureRelationId, function);
        find(pg_sys::ExtensionOidIndexId, pg_sys::Anum_pg_extension_oid, pg_sys::F_OIDEQ, extension.into())
    }

    pub(crate) fn named(name: &CStr) -> Option<Extension> {
        let (index, column) = (pg_sys::ExtensionNameIndexId, pg_sys::Anum_pg_extension_extname);
        find(index, column, pg_sys::F_NAMEEQ, name.as_ptr().into())
    }

    /// Whether a function is a member of an extension.
    pub(crate) fn is_of(extension: pg_sys::Oid, function: pg_sys::Oid) -> bool {
        extension_of(pg_sys::ProcedureRelationId, function) == extension
    }

    /// Its relation of this name.
    pub(crate) fn relation(&self, name: &CStr) -> Option<pg_sys::Oid> {
        // SAFETY: the string ends with a zero byte; any number may stand for a schema.
        let relation = unsafe { pg_sys::get_relname_relid(name.as_ptr(), self.schema) };
        (extension_of(pg_sys::RelationRelationId, relation) == self.oid).then_some(relation)
    }

    /// Its type of this name.
    pub(crate) fn type_named(&self, name: &CStr) -> Option<pg_sys::Oid> {
        // SAFETY: the cache has these two keys, a name and a schema; the column is the one that holds the number.
        let found = unsafe {
            pg_sys::GetSysCacheOid(
                pg_sys::SysCacheIdentifier::TYPENAMENSP as i32,
                pg_sys::Anum_pg_type_oid as pg_sys::AttrNumber,
                name.as_ptr().into(),
                self.schema.into(),
                0.into(),
                0.into(),
            )
        };
        (extension_of(pg_sys::TypeRelationId, found) == self.oid).then_some(found)
    }
}

/// The extension that an object is a member of; no number where there is none.
fn extension_of(class: pg_sys::Oid, object: pg_sys::Oid) -> pg_sys::Oid {
    // SAFETY: looks any two numbers up in pg_depend.
    unsafe { pg_sys::getExtensionOfObject(class, object) }
}

fn find(index: u32, column: u32, equal: u32, value: pg_sys::Datum) -> Option<Extension> {
    let read = |row: pg_sys::HeapTuple, description: pg_sys::TupleDesc| {
        const COLUMNS: usize = pg_sys::Natts_pg_extension as usize;
        const VERSION: usize = pg_sys::Anum_pg_extension_extversion as usize - 1;
        let (mut values, mut nulls) = ([pg_sys::Datum::from(0); COLUMNS], [true; COLUMNS]);
        // SAFETY: a row of pg_extension, which has so many columns and begins with the struct of its fixed ones; the
        // version is a text that is never NULL. All is copied.
        unsafe {
            pg_sys::heap_deform_tuple(row, description, values.as_mut_ptr(), nulls.as_mut_ptr());
            let fixed = &*pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_extension>();
            let version = encoding::from_server(Bytes::new(values[VERSION]).as_slice());
            Extension { oid: fixed.oid, schema: fixed.extnamespace, version }
        }
    };
    find_row(pg_sys::ExtensionRelationId, index, column, equal, value, |row, description| {
        Some(read(row, description))
    })
}
