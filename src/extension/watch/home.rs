//! Where pg_clip lives in this database.

use pgrx::{IntoDatum, pg_sys};

use super::sql::{self, identifier};
use crate::error::Error;
use crate::spi::{Argument, Rows, Spi};

/// The extension's schema and owner, and pgvector's type, whatever a search_path says.
pub(crate) struct Home {
    /// Quoted.
    pub(crate) schema: String,
    pub(crate) owner: pg_sys::Oid,
    pub(crate) vector_type: pg_sys::Oid,
}

impl Home {
    /// Found from a function of the extension: the one that runs.
    pub(crate) fn of(spi: &Spi, function: pg_sys::Oid) -> Result<Home, Error> {
        let row = spi.run(sql::HOME, &[oid(function)])?;
        if row.len() == 0 {
            return Err(Error::Spi(0));
        }
        Ok(Home::read(&row))
    }

    /// Found from the extension itself; nothing where it is not created in this database, is of another release than
    /// this library, or has a queue that is filled by logical replication.
    pub(crate) fn installed(spi: &Spi) -> Result<Option<Home>, Error> {
        const RELEASE: i32 = 4;
        let row = spi.run(sql::INSTALLED, &[])?;
        let fits = row.len() > 0 && row.text(RELEASE).as_deref() == Some(env!("CARGO_PKG_VERSION"));
        Ok(fits.then(|| Home::read(&row)))
    }

    fn read(row: &Rows) -> Home {
        Home {
            schema: identifier(&row.text(1).unwrap_or_default()),
            owner: row.value(2).map_or(pg_sys::InvalidOid, oid_of),
            vector_type: row.value(3).map_or(pg_sys::InvalidOid, oid_of),
        }
    }
}

/// An oid as a parameter.
pub(crate) fn oid(oid: pg_sys::Oid) -> Argument {
    Argument { oid: pg_sys::OIDOID, value: oid.into_datum() }
}

/// The oid that a column of type `oid` or `regclass` holds.
pub(crate) fn oid_of(datum: pg_sys::Datum) -> pg_sys::Oid {
    pg_sys::Oid::from(u32::try_from(datum.value()).expect("an oid has 32 bits"))
}
