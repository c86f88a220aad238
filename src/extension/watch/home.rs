//! Where pg_clip lives in this database.

use pgrx::{IntoDatum, pg_sys};

use super::sql::{self, identifier};
use crate::error::Error;
use crate::spi::{Argument, Spi};

/// The extension's schema and owner, and pgvector's type, whatever a search_path says.
pub(super) struct Home {
    /// Quoted.
    pub(super) schema: String,
    pub(super) owner: pg_sys::Oid,
    pub(super) vector_type: pg_sys::Oid,
}

impl Home {
    /// Found from a function of the extension: the one that runs.
    pub(super) fn of(spi: &Spi, function: pg_sys::Oid) -> Result<Home, Error> {
        let row = spi.run(sql::HOME, &[oid(function)])?;
        if row.len() == 0 {
            return Err(Error::Spi(0));
        }
        Ok(Home {
            schema: identifier(&row.text(1).unwrap_or_default()),
            owner: row.value(2).map_or(pg_sys::InvalidOid, oid_of),
            vector_type: row.value(3).map_or(pg_sys::InvalidOid, oid_of),
        })
    }
}

/// An oid as a parameter.
pub(super) fn oid(oid: pg_sys::Oid) -> Argument {
    Argument { oid: pg_sys::OIDOID, value: oid.into_datum() }
}

/// The oid that a column of type `oid` or `regclass` holds.
pub(crate) fn oid_of(datum: pg_sys::Datum) -> pg_sys::Oid {
    pg_sys::Oid::from(u32::try_from(datum.value()).expect("an oid has 32 bits"))
}
