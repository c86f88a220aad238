//! Where pg_clip lives in this database.
//!
//! Everything is found through `pg_depend`, as a member of the extension, and nothing by a name in a schema: any role
//! that may create functions there could make one of that name.
//!
//! This library knows the tables of the extension's version that is its own. An extension of another version is refused:
//! between the installation of a new library and `ALTER EXTENSION pg_clip UPDATE`, and where the new SQL has been created
//! while the server still runs the old library.

use pgrx::pg_sys;

use crate::catalog::identifier;
use crate::error::Error;
use crate::spi::{Argument, Rows, Spi};

/// The extension's schema and owner, and pgvector's type, whatever a search_path says.
#[derive(Clone)]
pub(crate) struct Home {
    /// Quoted.
    pub(crate) schema: String,
    /// The owner of the extension's tables.
    pub(crate) owner: pg_sys::Oid,
    pub(crate) vector_type: pg_sys::Oid,
    /// The table `clip_watches`.
    pub(crate) watches: pg_sys::Oid,
}

/// What a database has of the extension.
pub(crate) enum Installed {
    /// The extension of this library.
    Here(Home),
    /// An extension of this other version.
    OtherVersion(String),
    /// No extension, or one whose queue is filled by logical replication.
    Nothing,
}

/// The version of this library, and of the extension that it belongs to.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Home {
    /// Found from a function of the extension: the one that runs.
    pub(crate) fn of(spi: &Spi, function: pg_sys::Oid) -> Result<Home, Error> {
        // SAFETY: looks any number up in pg_depend.
        let extension = unsafe { pg_sys::getExtensionOfObject(pg_sys::ProcedureRelationId, function) };
        let version = spi.run_kept(VERSION_OF, &[Argument::oid(extension)])?;
        if version.len() == 0 {
            return Err(Error::NoExtension);
        }
        if let Some(other) = other_version(&version, 1) {
            return Err(Error::OtherVersion(other));
        }
        let row = spi.run_kept(HOME, &[Argument::oid(extension)])?;
        if row.len() == 0 {
            return Err(Error::NoExtension);
        }
        Home::read(&row)
    }

    /// Found from the extension itself.
    pub(crate) fn installed(spi: &Spi) -> Result<Installed, Error> {
        let extension = spi.run_kept(INSTALLED, &[])?;
        if extension.len() == 0 {
            return Ok(Installed::Nothing);
        }
        if let Some(other) = other_version(&extension, 2) {
            return Ok(Installed::OtherVersion(other));
        }
        let extension = extension.get::<pg_sys::Oid>(1)?.unwrap_or(pg_sys::InvalidOid);
        let row = spi.run_kept(HOME, &[Argument::oid(extension)])?;
        if row.len() == 0 || row.get::<bool>(4)?.unwrap_or_default() {
            return Ok(Installed::Nothing);
        }
        Home::read(&row).map(Installed::Here)
    }

    fn read(row: &Rows) -> Result<Home, Error> {
        Ok(Home {
            schema: identifier(&row.printed(1).unwrap_or_default()),
            owner: row.get(2)?.unwrap_or(pg_sys::InvalidOid),
            vector_type: row.get(3)?.unwrap_or(pg_sys::InvalidOid),
            watches: row.get(5)?.unwrap_or(pg_sys::InvalidOid),
        })
    }
}

/// The version in a column, where it is not this library's.
fn other_version(row: &Rows, column: i32) -> Option<String> {
    row.printed(column).filter(|version| version != VERSION)
}

/// Of extension `$1`: its version.
const VERSION_OF: &str = "SELECT extversion FROM pg_catalog.pg_extension WHERE oid OPERATOR(pg_catalog.=) $1";

/// Of extension `$1`: its schema, the owner of its queue, pgvector's type, whether a subscription fills the queue (then
/// its jobs are those of the publisher), and its table of watches.
const HOME: &str = "
    SELECT namespace.nspname, queue.relowner, vector.oid, EXISTS (
        SELECT FROM pg_catalog.pg_subscription_rel AS subscribed
        WHERE subscribed.srrelid OPERATOR(pg_catalog.=) queue.oid), watches.oid
    FROM pg_catalog.pg_extension AS extension
    JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid OPERATOR(pg_catalog.=) extension.extnamespace
    JOIN pg_catalog.pg_depend AS member ON member.refobjid OPERATOR(pg_catalog.=) extension.oid
        AND member.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
        AND member.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
        AND member.deptype OPERATOR(pg_catalog.=) 'e'
    JOIN pg_catalog.pg_class AS queue ON queue.oid OPERATOR(pg_catalog.=) member.objid
        AND queue.relname OPERATOR(pg_catalog.=) 'clip_queue'
    JOIN pg_catalog.pg_class AS watches ON watches.relnamespace OPERATOR(pg_catalog.=) extension.extnamespace
        AND watches.relname OPERATOR(pg_catalog.=) 'clip_watches'
    JOIN pg_catalog.pg_extension AS pgvector ON pgvector.extname OPERATOR(pg_catalog.=) 'vector'
    JOIN pg_catalog.pg_depend AS part ON part.refobjid OPERATOR(pg_catalog.=) pgvector.oid
        AND part.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
        AND part.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
        AND part.deptype OPERATOR(pg_catalog.=) 'e'
    JOIN pg_catalog.pg_type AS vector ON vector.oid OPERATOR(pg_catalog.=) part.objid
        AND vector.typname OPERATOR(pg_catalog.=) 'vector'
    WHERE extension.oid OPERATOR(pg_catalog.=) $1";

/// The extension that is created in this database, and its version.
const INSTALLED: &str = "
    SELECT oid, extversion FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.=) 'pg_clip'";
