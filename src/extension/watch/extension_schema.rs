//! Where pg_clip lives in this database.
//!
//! Everything is found through `pg_depend`, as a member of the extension, and nothing by a name in a schema: any role
//! that may create functions there could make one of that name.
//!
//! This library knows the tables of the extension's version that is its own. An extension of another version is refused:
//! between the installation of a new library and `ALTER EXTENSION pg_clip UPDATE`, and where the new SQL has been created
//! while the server still runs the old library.

use pgrx::pg_sys;

use crate::catalog::{self, Column, Table};
use crate::error::Error;
use crate::extensions::Extension;
use crate::subscriptions::is_subscribed;
use crate::version::VERSION;

/// The extension's schema and owner, and pgvector's types, found without a search_path.
#[derive(Clone)]
pub(crate) struct ExtensionSchema {
    /// The extension.
    pub(crate) oid: pg_sys::Oid,
    /// Quoted.
    pub(crate) schema: String,
    /// The owner of the extension's tables.
    pub(crate) owner: pg_sys::Oid,
    pub(crate) vector_type: pg_sys::Oid,
    /// The number of no type before pgvector 0.7.
    pub(crate) halfvec_type: pg_sys::Oid,
    /// The table `clip_watches`.
    pub(crate) watches: pg_sys::Oid,
    /// The table `clip_queue`.
    pub(crate) queue: pg_sys::Oid,
}

/// The extension as a database has it.
pub(crate) enum Installed {
    /// The extension of this library.
    Here(ExtensionSchema),
    /// An extension of this other version.
    OtherVersion(String),
    /// No extension, or one whose queue is filled by logical replication.
    Nothing,
}

impl ExtensionSchema {
    /// Found from a function of the extension: the one that runs.
    pub(crate) fn of(function: pg_sys::Oid) -> Result<ExtensionSchema, Error> {
        let entry = Extension::of_function(function).ok_or(Error::NoExtension)?;
        if entry.version != VERSION {
            return Err(Error::OtherVersion(entry.version));
        }
        ExtensionSchema::look_up(&entry).ok_or(Error::NoExtension)
    }

    /// Found from the extension itself.
    pub(crate) fn installed() -> Installed {
        let Some(entry) = Extension::named(c"pg_clip") else {
            return Installed::Nothing;
        };
        if entry.version != VERSION {
            return Installed::OtherVersion(entry.version);
        }
        match ExtensionSchema::look_up(&entry) {
            Some(extension) if !is_subscribed(extension.queue) => Installed::Here(extension),
            _ => Installed::Nothing,
        }
    }

    /// Whether a column of this type takes embeddings. pgvector's own cast makes a `halfvec` of the `vector` that is written.
    pub(crate) fn is_of_vectors(&self, type_oid: pg_sys::Oid) -> bool {
        type_oid == self.vector_type || type_oid == self.halfvec_type
    }

    /// A column of a table of type `vector` or `halfvec`: see [`Table::column`].
    pub(crate) fn vector_column(&self, table: &Table, name: &str) -> Result<Column, Error> {
        let column = table.column(name)?;
        if self.is_of_vectors(column.type_oid) { Ok(column) } else { table.column_of(name, self.vector_type) }
    }

    /// Refuses a trigger that was made just now if its function is none of the extension's. The statement that made it
    /// names the function, and PostgreSQL looks the name up: see [`crate::spi::Analyzed`].
    pub(crate) fn check_trigger(&self, table: pg_sys::Oid, name: &str) -> Result<(), Error> {
        let function = catalog::function_of_trigger(table, name).unwrap_or(pg_sys::InvalidOid);
        if Extension::is_of(self.oid, function) {
            return Ok(());
        }
        Err(Error::Namesake(catalog::function_name(function)))
    }

    fn look_up(entry: &Extension) -> Option<ExtensionSchema> {
        let queue = entry.relation(c"clip_queue")?;
        let pgvector = Extension::named(c"vector")?;
        Some(ExtensionSchema {
            oid: entry.oid,
            schema: catalog::schema_name(entry.schema),
            owner: catalog::owner_of(queue)?,
            vector_type: pgvector.type_named(c"vector")?,
            halfvec_type: pgvector.type_named(c"halfvec").unwrap_or(pg_sys::InvalidOid),
            watches: entry.relation(c"clip_watches")?,
            queue,
        })
    }
}
