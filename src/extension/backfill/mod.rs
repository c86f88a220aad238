//! Embedding the photos of a table that have no embedding yet: `clip_backfill`.
//!
//! The queue does the work, whatever the watch's mode: its retries, its failures and its wait for an embedder that
//! is away serve a million photos as they serve one. This module finds the keys, a few at a time, and waits for the
//! jobs. A call that is killed loses nothing: the queue goes on with the jobs, and the next call finds the rest.
//!
//! With `verify`, each photo is read, and rows of other bytes, of another project or of no photo are found too. The
//! queue mends whatever is wrong under a key.
//!
//! With `index_last`, the indexes of the vectors are built once, when the photos are done ([`index_last`]).

mod find;
pub(crate) mod index_last;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use pgrx::pg_sys;

use self::find::Page;
use crate::error::Error;
use crate::owned::{Key, Pair, Side, notice, refuse_subscribed};
use crate::procedure::{Procedure, pause};
use crate::queue::backfill::Calls;
use crate::refusal::{Reason, refuse};
use crate::spi::Spi;
use crate::sql_function::sql_function;
use crate::subscriptions::is_subscribed;
use crate::watch::extension_schema::ExtensionSchema;
use crate::watch::registry::oid_of;
use crate::watch::registry::{argument, check_owner};

/// The most photos that a photo uploaded meanwhile waits for.
const MOST_WAITING: usize = 128;
/// The most jobs that one step writes.
const MOST_AT_ONCE: usize = 64;
const REPORT_EVERY: Duration = Duration::from_secs(10);

sql_function! {
    /// `clip_backfill(source regclass, verify bool, index_last bool)`
    fn clip_backfill(fcinfo) {
        // SAFETY: SQL declares the procedure with these arguments.
        let (procedure, source, [verify, index_last]) = unsafe {
            (Procedure::start(fcinfo)?, argument(fcinfo, 0), [1, 2].map(|index| argument(fcinfo, index)))
        };
        let Some(source) = source else {
            return Err(refuse(Reason::NullArgument, "the table must be named"));
        };
        let [verify, index_last] = [verify, index_last].map(|flag| flag.is_some_and(|flag| flag.value() != 0));
        Call::begin(&procedure, oid_of(source), verify, index_last)?.run()?;
        Ok(pg_sys::Datum::from(0))
    }
}

/// The tables to look through, one after the other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Looking {
    ForPhotos,
    ForOrphans,
    No,
}

/// A running call.
struct Call<'a> {
    procedure: &'a Procedure,
    source: pg_sys::Oid,
    name: String,
    verify: bool,
    /// Whether the indexes are still to be emptied, before the first photo is embedded.
    empties_indexes: bool,
    looking: Looking,
    /// The key before the next page.
    after: Option<Key>,
    /// Found, and not asked for yet.
    found: VecDeque<Key>,
    /// Asked for, and not done yet.
    waiting: Vec<Key>,
    /// Photos that are embedded, of so many: never less than before.
    done: i64,
    total: i64,
    /// How many rows were wrong, and how many of them stay so.
    wrong: i64,
    failed: i64,
}

impl<'a> Call<'a> {
    /// The first step: whether the table can be filled, and how much there is to do.
    fn begin(
        procedure: &'a Procedure,
        source: pg_sys::Oid,
        verify: bool,
        index_last: bool,
    ) -> Result<Call<'a>, Error> {
        let (name, total) = procedure.step(|spi| {
            let extension = ExtensionSchema::of(procedure.function())?;
            let pair = watched(spi, &extension, source)?;
            if is_subscribed(extension.queue) {
                return Err(refuse(
                    Reason::NotReady,
                    "the queue of this database is filled by a subscription",
                )
                .with_detail("The jobs in it are the publisher's, and no photo is embedded here.")
                .with_hint("Publish tables by their names, and not pg_clip's tables."));
            }
            refuse_subscribed(&pair.target)?;
            if index_last {
                index_last::check(spi, &pair)?;
            }
            let total = find::count(spi, &pair, verify)?;
            Ok((pair.source.name, total))
        })?;
        Ok(Call {
            procedure,
            source,
            name,
            verify,
            empties_indexes: index_last,
            looking: Looking::ForPhotos,
            after: None,
            found: VecDeque::new(),
            waiting: Vec::new(),
            done: 0,
            total,
            wrong: 0,
            failed: 0,
        })
    }

    fn run(mut self) -> Result<(), Error> {
        let mut reported = Instant::now();
        loop {
            let procedure = self.procedure;
            if self.empties_indexes && !self.found.is_empty() {
                index_last::empty(procedure, self.source)?;
                self.empties_indexes = false;
            }
            let has_moved = procedure.step(|spi| self.step(spi))?;
            if self.looking == Looking::No && self.found.is_empty() && self.waiting.is_empty() {
                break;
            }
            if reported.elapsed() > REPORT_EVERY {
                notice(
                    format!("{} of {} photos of table {} embedded", self.done, self.total, self.name),
                    None,
                );
                reported = Instant::now();
            }
            if !has_moved {
                const POLL: i64 = 100;
                pause(POLL);
            }
        }
        let Call { procedure, source, wrong, failed, name, .. } = &self;
        notice(
            format!("{wrong} photos of table {name} were without an embedding, {failed} cannot be embedded"),
            None,
        );
        index_last::build(procedure, *source, |spi, extension, index| {
            Calls { spi, extension, source: *source }.note(self.done, self.total, Some(index))
        })?;
        procedure.step(|spi| {
            let extension = ExtensionSchema::of(procedure.function())?;
            Calls { spi, extension: &extension, source: *source }.end()
        })
    }

    /// Writes jobs for the keys that were found, or finds more, or only counts the jobs that are done. Returns
    /// whether the next step may have something to do at once.
    fn step(&mut self, spi: &Spi) -> Result<bool, Error> {
        check_owner(self.source)?;
        let extension = ExtensionSchema::of(self.procedure.function())?;
        let queue = Calls { spi, extension: &extension, source: self.source };
        self.settle(&queue)?;
        let has_room = self.waiting.len() < MOST_WAITING;
        if has_room && !self.found.is_empty() {
            let some: Vec<Key> = self.found.drain(..self.found.len().min(MOST_AT_ONCE)).collect();
            queue.add(&some)?;
            self.waiting.extend(some);
        } else if has_room && self.looking != Looking::No {
            self.look(spi, &extension)?;
        }
        self.total = self.total.max(self.done + self.outstanding());
        queue.note(self.done, self.total, None)?;
        Ok(self.waiting.len() < MOST_WAITING && (!self.found.is_empty() || self.looking != Looking::No))
    }

    /// Counts the photos whose jobs have ended.
    fn settle(&mut self, queue: &Calls) -> Result<(), Error> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let jobs = queue.jobs(&self.waiting)?;
        for key in std::mem::take(&mut self.waiting) {
            if jobs.waiting.contains(&key) {
                self.waiting.push(key);
            } else if jobs.dead.contains(&key) {
                self.failed += 1;
            } else {
                self.done += 1;
            }
        }
        Ok(())
    }

    fn look(&mut self, spi: &Spi, extension: &ExtensionSchema) -> Result<(), Error> {
        let pair = watched(spi, extension, self.source)?;
        let Page { last, wrong, right } = match self.looking {
            Looking::ForOrphans => find::orphans(spi, &pair, self.after.as_ref())?,
            _ => find::photos(spi, &pair, self.after.as_ref(), self.verify)?,
        };
        if last.is_none() {
            self.looking = match self.looking {
                Looking::ForPhotos if self.verify => Looking::ForOrphans,
                _ => Looking::No,
            };
        }
        self.after = last;
        self.wrong += i64::try_from(wrong.len()).expect("a page");
        self.found.extend(wrong);
        if self.verify {
            self.done += right;
        }
        Ok(())
    }

    /// Photos that are known not to be embedded.
    fn outstanding(&self) -> i64 {
        i64::try_from(self.found.len() + self.waiting.len()).expect("a page") + self.failed
    }
}

pub(crate) fn watched(spi: &Spi, extension: &ExtensionSchema, source: pg_sys::Oid) -> Result<Pair, Error> {
    Pair::of_caller(spi, extension, Side::Source(source))?.ok_or_else(|| {
        // SAFETY: returns null or a string in the current memory context.
        let name = unsafe {
            let name = pg_sys::get_rel_name(source);
            if name.is_null() { String::new() } else { crate::encoding::c_string(name) }
        };
        Error::NotWatched(name)
    })
}
