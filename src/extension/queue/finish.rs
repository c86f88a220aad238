//! Writing vectors and retiring their jobs, in one transaction.
//!
//! A photo's row is locked before its vector is written, and the vector is written only if the row still has the
//! embedded version. A row that another transaction has locked is left for later: nothing here waits for a user. So
//! a vector is always that of the committed bytes, whatever other transactions do.

use std::cell::Cell;
use std::collections::HashMap;

use pgrx::PgSqlErrorCode as Code;

use super::claim::Job;
use super::failure::{Disposition, hold_all, retire_all, settle};
use super::rate;
use super::read::{IMAGE, PROJECT, VERSION, keys_of};
use crate::error::Error;
use crate::failure::Failure;
use crate::partition_tree;
use crate::spi::{Argument, Plan, Rows, Spi};
use crate::watch::extension_schema::ExtensionSchema;
use crate::watch::key::Key;
use crate::watch::next::Next;
use crate::watch::provenance;
use crate::watch::role::act_as;
use crate::watch::sql;
use crate::watch::target::{self, Checksum, Known, Row, Target, checksum_of};
use crate::watch::watched::{LockWait, Watched};

/// A job, and the outcome of its photo.
#[derive(Clone)]
pub(super) struct Finished {
    pub(super) job: Job,
    pub(super) outcome: Outcome,
}

#[derive(Clone)]
pub(super) enum Outcome {
    /// The photo in this version of its row, see [`Write::version_in`], has this vector.
    Embedded { version: String, checksum: Checksum, vectors: Known },
    /// The photo cannot be embedded, and will not be tried again if `dead`.
    Failed { failure: Failure, dead: bool },
    /// The photo that a feeder was to bring cannot be had or embedded, and will not be tried again if `dead`.
    /// `checksum` is that of its bytes, where the feeder had them.
    Unfed { reference: String, checksum: Option<Checksum>, failure: Failure, dead: bool },
    /// There is no photo.
    Absent,
}

/// The settled jobs.
#[derive(Default)]
pub(super) struct Done {
    pub(super) settled: usize,
    /// How many wait for other transactions that have locked their photos.
    pub(super) locked: usize,
    /// The jobs that other transactions have locked.
    pub(super) unheld: Vec<Job>,
    /// The quoted name of the source.
    pub(super) table: String,
}

/// A row that is locked is looked at again after a second.
pub(super) const LOCKED: Disposition = Disposition::GiveBack { seconds: 1.0, alone: false };
/// A photo that changed meanwhile is embedded again.
const AGAIN: Disposition = Disposition::GiveBack { seconds: 0.0, alone: false };

/// Writes the outcomes of one source's jobs. `model` is which model made the vectors, as the target's model column
/// has it, and `next` which one made the second vectors.
pub(super) fn finish(
    spi: &Spi,
    extension: &ExtensionSchema,
    finished: &[Finished],
    model: &str,
    next: Option<&Next>,
) -> Result<Done, Error> {
    let Some(first) = finished.first() else {
        return Ok(Done::default());
    };
    let source = first.job.source;
    let watched = Watched::to_embed(spi, extension, source, LockWait::None)?;
    // A crash loses a vector together with the end of its job.
    spi.run_kept("SET LOCAL synchronous_commit = off", &[])?;
    // Constraint triggers that are deferred would run at the commit, as the worker.
    spi.run_kept("SET CONSTRAINTS ALL IMMEDIATE", &[])?;
    let table = watched.as_ref().map(|watched| watched.source.table.name.clone()).unwrap_or_default();
    let mut done = Done { table, ..Done::default() };
    let jobs: Vec<&Job> = finished.iter().map(|finished| &finished.job).collect();
    let are_held = hold_all(spi, extension, source, &jobs)?;
    let is_held = are_held.iter().copied();
    let (held, unheld): (Vec<_>, Vec<_>) = finished.iter().zip(is_held).partition(|(_, is_held)| *is_held);
    // They have changed, or are about to change. If that change is rolled back, they are there to be tried again.
    done.unheld = unheld.into_iter().map(|(Finished { job, .. }, _)| job.clone()).collect();
    let held: Vec<&Finished> = held.into_iter().map(|(finished, _)| finished).collect();
    let dispositions = match &watched {
        Some(watched) if !held.is_empty() => {
            watched.read(|| Write::prepare(spi, extension, watched, model, next)?.all(&held))?
        }
        _ => held.iter().map(|_| Disposition::Retire).collect(),
    };
    let ended = dispositions
        .iter()
        .filter(|disposition| {
            matches!(disposition, Disposition::Retire | Disposition::Fail { dead: true, .. })
        })
        .count();
    let mut retired = Vec::new();
    for (Finished { job, .. }, disposition) in held.into_iter().zip(&dispositions) {
        match disposition {
            Disposition::GiveBack { seconds, .. } if *seconds > 0.0 => done.locked += 1,
            _ => done.settled += 1,
        }
        match disposition {
            Disposition::Retire => retired.push(job),
            disposition => settle(spi, extension, job, disposition)?,
        }
    }
    retire_all(spi, extension, source, &retired)?;
    rate::count(spi, extension, source, u32::try_from(ended).unwrap_or(u32::MAX))?;
    Ok(done)
}

struct Write<'a> {
    spi: &'a Spi,
    extension: &'a ExtensionSchema,
    watched: &'a Watched,
    model: &'a str,
    next: Option<&'a Next>,
    target: Target<'a>,
    lock: Plan<'a>,
    look: Plan<'a>,
    /// Whether the target takes vectors of the model, up to the transaction's end.
    is_of_model: Cell<bool>,
}

/// To be used inside of [`Watched::read`].
impl<'a> Write<'a> {
    fn prepare(
        spi: &'a Spi,
        extension: &'a ExtensionSchema,
        watched: &'a Watched,
        model: &'a str,
        next: Option<&'a Next>,
    ) -> Result<Write<'a>, Error> {
        let key = [watched.source.key_type.oid];
        let target = Target::prepare(spi, extension, watched, model)?;
        let lock = spi.prepare_look_up(&sql::lock_photo(watched), &key)?;
        let look = spi.prepare_look_up(&sql::photo(watched), &key)?;
        Ok(Write { spi, extension, watched, model, next, target, lock, look, is_of_model: Cell::new(false) })
    }

    fn all(&self, finished: &[&Finished]) -> Result<Vec<Disposition>, Error> {
        let keys = keys_of(self.watched, finished.iter().map(|finished| &finished.job));
        keys.into_iter().zip(finished).map(|(key, finished)| self.one(&key, finished)).collect()
    }

    fn one(&self, key: &Key, Finished { job, outcome }: &Finished) -> Result<Disposition, Error> {
        let row = self.lock.run(&[Some(key.datum())])?;
        if row.len() == 0 {
            return if self.has_image(&self.look.run(&[Some(key.datum())])?)? {
                Ok(LOCKED)
            } else {
                self.clear(key)
            };
        }
        let Some(image) = self.watched.source.image_in(&row, IMAGE)? else {
            return self.clear(key);
        };
        match outcome {
            // The photo came after its row was read.
            Outcome::Absent => Ok(AGAIN),
            // The bytes that failed are in the table no more.
            Outcome::Failed { .. } if self.watched.source.is_by_reference => Ok(AGAIN),
            Outcome::Failed { failure, dead } => {
                if *dead {
                    let checksum = checksum_of(image.copy().as_slice());
                    target::delete_stale(self.spi, self.watched, key, &checksum)?;
                }
                Ok(Disposition::Fail { failure: failure.clone(), dead: *dead })
            }
            Outcome::Embedded { version, checksum, vectors } => {
                let target_moves_to = self.watched.next.as_ref().map(|next| &next.identity);
                let moved_to = self.next.map(|next| &next.identity);
                // A row without its second vector would hold the migration up.
                let lacks_next = target_moves_to.is_some() && target_moves_to != moved_to;
                let is_same = || {
                    self.version_in(&row).as_ref() == Some(version)
                        || checksum_of(image.copy().as_slice()) == *checksum
                };
                if lacks_next || !is_same() {
                    return Ok(AGAIN);
                }
                self.put(key, &row, checksum, vectors)?;
                Ok(Disposition::Retire)
            }
            Outcome::Unfed { reference, checksum, failure, dead } => {
                if self.version_in(&row).as_ref() != Some(reference) {
                    return Ok(AGAIN);
                }
                match checksum {
                    Some(checksum) if *dead => target::delete_stale(self.spi, self.watched, key, checksum)?,
                    None if *dead && self.has_changed(job)? => {
                        target::delete_embedding(self.spi, self.watched, key)?;
                    }
                    _ => {}
                }
                Ok(Disposition::Fail { failure: failure.clone(), dead: *dead })
            }
        }
    }

    /// Which version of a photo's row was found: that of the row, or the reference that is in it.
    fn version_in(&self, row: &Rows) -> Option<String> {
        row.printed(if self.watched.source.is_by_reference { IMAGE } else { VERSION })
    }

    fn has_image(&self, row: &Rows) -> Result<bool, Error> {
        Ok(row.len() > 0 && self.watched.source.image_in(row, IMAGE)?.is_some())
    }

    /// Whether the photo of a job may differ from the one that its embedding was made from.
    fn has_changed(&self, job: &Job) -> Result<bool, Error> {
        let statement = super::sql::has_changed(&self.extension.schema);
        Ok(act_as(self.extension.owner, || self.spi.run_kept(&statement, &job.identity()))?.len() > 0)
    }

    fn put(&self, key: &Key, row: &Rows, checksum: &Checksum, vectors: &Known) -> Result<(), Error> {
        if !self.is_of_model.get() {
            provenance::check(self.spi, self.extension, self.watched, self.model)?;
            self.is_of_model.set(true);
        }
        let project = match &self.watched.project {
            Some((project, _)) => row.value(PROJECT, project.type_oid)?,
            None => None,
        };
        let Known { vector, next } = vectors;
        self.target.put(&Row { key, checksum, vector, next: next.as_deref(), project })
    }

    /// Deletes the embedding under a key that has no photo. It is locked first and the photo looked for after: a
    /// transaction that brings one meanwhile writes the embedding, and waits for the lock.
    fn clear(&self, key: &Key) -> Result<Disposition, Error> {
        let watched = self.watched;
        if !partition_tree::is_known(&watched.source.table) {
            return Ok(LOCKED);
        }
        let argument = Argument { oid: watched.source.key_type.oid, value: Some(key.datum()) };
        let run = |statement: &str| watched.write(|| self.spi.run_by_index(statement, &[argument]));
        let is_locked = run(&sql::lock_embedding(watched))?.len() > 0;
        if !is_locked && run(&sql::embedding_exists(watched))?.len() > 0 {
            return Ok(LOCKED);
        }
        if self.has_image(&self.look.run(&[Some(key.datum())])?)? {
            return Ok(AGAIN);
        }
        if is_locked {
            target::delete_embedding(self.spi, watched, key)?;
        }
        Ok(Disposition::Retire)
    }
}

/// Copies of the vectors that the same bytes have already.
pub(super) fn known(
    spi: &Spi,
    extension: &ExtensionSchema,
    watched: &Watched,
    model: &str,
    checksums: &[Checksum],
) -> Result<HashMap<Checksum, Known>, Error> {
    watched.read(|| {
        let target = Target::prepare(spi, extension, watched, model)?;
        let mut known = HashMap::new();
        for checksum in checksums {
            known.extend(target.known(checksum)?.map(|vectors| (*checksum, vectors)));
        }
        Ok(known)
    })
}

/// Whether a failure is of the photo's bytes, which will not change by themselves.
pub(super) fn is_of_bytes(code: Code) -> bool {
    matches!(
        code,
        Code::ERRCODE_INVALID_BINARY_REPRESENTATION
            | Code::ERRCODE_FEATURE_NOT_SUPPORTED
            | Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED
            | Code::ERRCODE_INVALID_PARAMETER_VALUE
    )
}
