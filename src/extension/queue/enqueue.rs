//! The triggers' side of the queue.
//!
//! Keys are read as the owner of their table and written as the extension's owner, which owns `clip_queue`: a role
//! that writes photos needs no right on it, and gains none. A trigger adds jobs and looks for failed ones only: its
//! cost does not grow with the queue, nor with the rows that finished jobs left. A job whose photo is gone, or has
//! its vector, is retired by the worker that claims it.

use pgrx::pg_sys;

use super::{sql, wake};
use crate::error::Error;
use crate::spi::{Argument, Spi};
use crate::watch::extension_schema::ExtensionSchema;
use crate::watch::role::act_as;
use crate::watch::watched::Source;

/// The jobs of one source.
pub(crate) struct Jobs<'a> {
    spi: &'a Spi,
    extension: &'a ExtensionSchema,
    source: pg_sys::Oid,
    is_by_reference: bool,
}

/// So many keys go into one statement.
const KEYS_A_STATEMENT: usize = 10_000;

impl<'a> Jobs<'a> {
    pub(crate) fn of(spi: &'a Spi, extension: &'a ExtensionSchema, source: &Source) -> Jobs<'a> {
        Jobs { spi, extension, source: source.table.oid, is_by_reference: source.is_by_reference }
    }

    /// Has the photos embedded once the transaction is committed.
    pub(crate) fn add(&self, keys: Vec<String>) -> Result<(), Error> {
        self.add_by(&sql::add(&self.extension.schema), keys)
    }

    /// As [`Jobs::add`], before all others: for photos whose vector goes, or is known already.
    pub(crate) fn add_first(&self, keys: Vec<String>) -> Result<(), Error> {
        self.add_by(&sql::add_first(&self.extension.schema), keys)
    }

    fn add_by(&self, statement: &str, keys: Vec<String>) -> Result<(), Error> {
        if !keys.is_empty() {
            self.run(statement, keys)?;
            if !self.is_by_reference {
                wake::at_commit();
            }
        }
        Ok(())
    }

    /// Whether photos of the source are among the failures. Looks at these only.
    pub(crate) fn have_failed(&self) -> Result<bool, Error> {
        let statement = sql::have_failed(&self.extension.schema);
        let source = Argument::oid(self.source);
        Ok(act_as(self.extension.owner, || self.spi.run_kept(&statement, &[source]))?.len() > 0)
    }

    /// Takes photos off the failures: they are gone, or have other bytes.
    pub(crate) fn forget_failed(&self, keys: Vec<String>) -> Result<(), Error> {
        if keys.is_empty() || !self.have_failed()? {
            return Ok(());
        }
        self.run(&sql::forget_failed(&self.extension.schema), keys)
    }

    /// Forgets all photos.
    pub(crate) fn clear(&self) -> Result<(), Error> {
        clear(self.spi, self.extension, self.source)
    }

    /// In the order of the keys: two statements on the same photos then lock them in the same order, and cannot
    /// deadlock.
    fn run(&self, statement: &str, mut keys: Vec<String>) -> Result<(), Error> {
        keys.sort_unstable();
        keys.dedup();
        for some in keys.chunks(KEYS_A_STATEMENT) {
            let arguments = [Argument::oid(self.source), Argument::texts(some)];
            act_as(self.extension.owner, || self.spi.run_kept(statement, &arguments))?;
        }
        Ok(())
    }
}

/// Deletes all jobs of a source.
pub(crate) fn clear(spi: &Spi, extension: &ExtensionSchema, source: pg_sys::Oid) -> Result<(), Error> {
    act_as(extension.owner, || spi.run_kept(&sql::clear(&extension.schema), &[Argument::oid(source)]))?;
    Ok(())
}
