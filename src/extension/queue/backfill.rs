//! The part of the queue that `clip_backfill` uses. The queue belongs to the extension's owner.

use std::collections::HashSet;

use pgrx::{IntoDatum, pg_sys};

use super::{sql, wake};
use crate::error::Error;
use crate::owned::{Key, text_array};
use crate::spi::{Argument, Spi};
use crate::watch::extension_schema::ExtensionSchema;
use crate::watch::role::act_as;

/// The queue, as a call of `clip_backfill` on one source sees it.
pub(crate) struct Calls<'a> {
    pub(crate) spi: &'a Spi,
    pub(crate) extension: &'a ExtensionSchema,
    pub(crate) source: pg_sys::Oid,
}

/// Which of some keys have a job.
pub(crate) struct Jobs {
    pub(crate) waiting: HashSet<Key>,
    pub(crate) dead: HashSet<Key>,
}

impl Calls<'_> {
    /// Has photos embedded that have no job yet, not even a dead one.
    pub(crate) fn add(&self, keys: &[Key]) -> Result<(), Error> {
        let statement = sql::add_missing(&self.extension.schema);
        let arguments = [Argument::oid(self.source), text_array(keys)];
        let added = act_as(self.extension.owner, || self.spi.run(&statement, &arguments))?.len();
        if added > 0 {
            wake::at_commit();
        }
        Ok(())
    }

    pub(crate) fn jobs(&self, keys: &[Key]) -> Result<Jobs, Error> {
        let statement = sql::jobs_of(&self.extension.schema);
        let arguments = [Argument::oid(self.source), text_array(keys)];
        let (found, dead) = act_as(self.extension.owner, || {
            let rows = self.spi.run_now(&statement, &arguments)?;
            Ok::<_, Error>((rows.all_printed_raw(1), rows.all_printed(2)))
        })?;
        let mut jobs = Jobs { waiting: HashSet::new(), dead: HashSet::new() };
        for (key, dead) in found.into_iter().zip(dead) {
            let kind = if dead.as_deref() == Some("t") { &mut jobs.dead } else { &mut jobs.waiting };
            kind.extend(key);
        }
        Ok(jobs)
    }

    /// Writes down how far this session's call is, and which index it builds.
    pub(crate) fn note(&self, done: i64, total: i64, building: Option<pg_sys::Oid>) -> Result<(), Error> {
        let building = Argument { oid: pg_sys::OIDOID, value: building.and_then(IntoDatum::into_datum) };
        let statement = sql::note_backfill(&self.extension.schema);
        let arguments = [Argument::oid(self.source), Argument::int8(done), Argument::int8(total), building];
        act_as(self.extension.owner, || self.spi.run(&statement, &arguments))?;
        Ok(())
    }

    /// Deletes this session's note.
    pub(crate) fn end(&self) -> Result<(), Error> {
        let statement = sql::end_backfill(&self.extension.schema);
        act_as(self.extension.owner, || self.spi.run(&statement, &[Argument::oid(self.source)]))?;
        Ok(())
    }
}
