//! The triggers' side of the queue.
//!
//! Keys are read as the owner of their table and written as the extension's owner, to whom `clip_queue` belongs: who
//! writes photos needs no right on it, and gains none. A trigger adds jobs and never looks for any: what it costs does
//! not grow with the queue. A job whose photo is gone, or has its vector, is retired by the worker that claims it.

use pgrx::pg_sys;

use super::{sql, wake};
use crate::error::Error;
use crate::spi::{Argument, Spi};
use crate::watch::home::Home;
use crate::watch::role::act_as;
use crate::watch::watched::Watched;

/// The jobs of one source.
pub(crate) struct Jobs<'a> {
    pub(crate) spi: &'a Spi,
    pub(crate) home: &'a Home,
    pub(crate) watched: &'a Watched,
}

/// So many keys go into one statement.
const KEYS_A_STATEMENT: usize = 10_000;

impl Jobs<'_> {
    /// Has the photos embedded once the transaction is committed. In the order of the keys, so that two statements on
    /// the same photos wait for one another in one order.
    pub(crate) fn add(&self, mut keys: Vec<String>) -> Result<(), Error> {
        if keys.is_empty() {
            return Ok(());
        }
        keys.sort_unstable();
        keys.dedup();
        let source = Argument::oid(self.watched.source.oid);
        let statement = sql::add(&self.home.schema);
        for some in keys.chunks(KEYS_A_STATEMENT) {
            let keys = Argument::texts(some);
            act_as(self.home.owner, || self.spi.run_kept(&statement, &[source, keys]))?;
        }
        wake::at_commit();
        Ok(())
    }

    /// Forgets all photos.
    pub(crate) fn clear(&self) -> Result<(), Error> {
        clear(self.spi, self.home, self.watched.source.oid)
    }
}

/// Deletes all jobs of a source.
pub(crate) fn clear(spi: &Spi, home: &Home, source: pg_sys::Oid) -> Result<(), Error> {
    act_as(home.owner, || spi.run_kept(&sql::clear(&home.schema), &[Argument::oid(source)]))?;
    Ok(())
}
