//! The triggers' side of the queue.
//!
//! Keys are read as the caller and written as the extension's owner, to whom `clip_queue` belongs: who writes photos
//! needs no right on it, and gains none.

use pgrx::{IntoDatum, pg_sys};

use super::{sql, wake};
use crate::error::Error;
use crate::spi::{Argument, Spi};
use crate::watch::home::{Home, oid};
use crate::watch::role::{act_as, with_portable_output};

/// The jobs of one source.
pub(crate) struct Jobs<'a> {
    pub(crate) spi: &'a Spi,
    pub(crate) home: &'a Home,
    pub(crate) source: pg_sys::Oid,
}

/// So many keys go into one statement.
const KEYS_A_STATEMENT: usize = 10_000;

impl Jobs<'_> {
    /// Has the photos embedded once the transaction is committed.
    pub(crate) fn add(&self, keys: Vec<String>) -> Result<(), Error> {
        if !keys.is_empty() {
            self.run(&sql::add(&self.home.schema), keys)?;
            wake::at_commit();
        }
        Ok(())
    }

    /// Forgets the photos. Once this returns, no worker writes a vector of theirs before the transaction's end.
    pub(crate) fn remove(&self, keys: Vec<String>) -> Result<(), Error> {
        self.run(&sql::remove(&self.home.schema), keys)
    }

    /// Keeps the worker off the photos until the transaction's end.
    pub(crate) fn lock(&self, keys: Vec<String>) -> Result<(), Error> {
        self.run(&sql::lock(&self.home.schema), keys)
    }

    /// Forgets all photos.
    pub(crate) fn clear(&self) -> Result<(), Error> {
        act_as(self.home.owner, || self.spi.run(&sql::clear(&self.home.schema), &[oid(self.source)]))?;
        Ok(())
    }

    /// In the order of the keys, so that two statements on the same photos wait for one another in one order.
    fn run(&self, statement: &str, mut keys: Vec<String>) -> Result<(), Error> {
        keys.sort_unstable();
        keys.dedup();
        for some in keys.chunks(KEYS_A_STATEMENT) {
            let keys = Argument { oid: pg_sys::TEXTARRAYOID, value: some.to_vec().into_datum() };
            act_as(self.home.owner, || self.spi.run(statement, &[oid(self.source), keys]))?;
        }
        Ok(())
    }
}

/// The keys that a query returns as its first column, as their type prints them.
pub(crate) fn keys(spi: &Spi, query: &str) -> Result<Vec<String>, Error> {
    with_portable_output(|| {
        let mut keys = Vec::new();
        let mut rows = spi.open(query)?;
        while let Some(row) = rows.next() {
            // A photo without a key belongs to nobody.
            keys.extend(row.text(1));
        }
        Ok(keys)
    })
}
