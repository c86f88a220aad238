//! Writing a vector and retiring its job, in one transaction.

use std::collections::HashMap;

use pgrx::IntoDatum;
use sha2::{Digest, Sha256};

use super::claim::Job;
use super::failure::{Fate, settle};
use super::read::{Checksum, key};
use super::sql as queue_sql;
use crate::error::Error;
use crate::spi::Spi;
use crate::varlena::Bytes;
use crate::vector;
use crate::watch::home::Home;
use crate::watch::provenance;
use crate::watch::role::{act_as, read_as};
use crate::watch::sql;
use crate::watch::target::{Row, Target};
use crate::watch::watched::{Registration, Watched};

/// A vector that is to be written.
pub(super) struct Finished<'a> {
    pub(super) job: &'a Job,
    pub(super) version: &'a str,
    pub(super) checksum: &'a Checksum,
    pub(super) vector: &'a [f32],
    /// Which model made it, as the target's model column has it.
    pub(super) model: &'a str,
}

/// Writes the vector if the photo still is what was embedded, and retires the job. Whoever changes the photo waits for
/// the job's lock. Returns what is to become of the job; where that is [`Fate::Retire`], it is done.
pub(super) fn finish(
    spi: &Spi,
    home: &Home,
    watched: &Watched,
    of: &Registration,
    finished: &Finished,
) -> Result<Fate, Error> {
    const AGAIN: Fate = Fate::GiveBack { seconds: 1.0, alone: false };
    const VERSION: i32 = 1;
    const PROJECT: i32 = 2;
    let job = finished.job;
    let held = act_as(home.owner, || spi.run(&queue_sql::hold(&home.schema), &job.identity()))?;
    if held.len() == 0 {
        // It has changed, or is about to. Should nothing come of that, it is there to be tried again.
        return Ok(AGAIN);
    }
    let (row, key) = read_as(of.reader, || {
        let key = key(of, job);
        spi.prepare(&sql::photo_version(watched), &[of.key_type])?.run(&[Some(key)]).map(|row| (row, key))
    })?;
    if row.len() == 0 {
        settle(spi, home, job, &Fate::Retire)?;
        return Ok(Fate::Retire);
    }
    if row.text(VERSION).as_deref() != Some(finished.version) {
        let image =
            read_as(of.reader, || spi.prepare(&sql::photo(watched), &[of.key_type])?.run(&[Some(key)]))?;
        // SAFETY: a non-null bytea of a row at hand.
        let image =
            (image.len() > 0).then(|| image.value(1)).flatten().map(|image| unsafe { Bytes::new(image) });
        let same =
            image.is_some_and(|image| Sha256::digest(image.as_slice()).as_slice() == finished.checksum);
        if !same {
            return Ok(AGAIN);
        }
    }
    provenance::check(spi, home, watched, finished.model)?;
    let target = Target::prepare(spi, watched, finished.model.to_owned(), of.key_type, of.project_type)?;
    // SAFETY: values that were made for these.
    let (checksum, vector) = unsafe {
        (
            Bytes::own(finished.checksum.as_slice().into_datum().unwrap_or(0.into())),
            Bytes::own(vector::to_datum(finished.vector)),
        )
    };
    // What is deferred would run at the commit, as the worker.
    spi.run("SET CONSTRAINTS ALL IMMEDIATE", &[])?;
    // A crash loses a vector together with the end of its job.
    spi.run("SET LOCAL synchronous_commit = off", &[])?;
    let project = row.value(PROJECT);
    target.put(&Row { key, checksum: &checksum, vector: vector.datum(), project })?;
    settle(spi, home, job, &Fate::Retire)?;
    Ok(Fate::Retire)
}

/// Copies of the vectors that the same bytes have already.
pub(super) fn known(
    spi: &Spi,
    watched: &Watched,
    of: &Registration,
    model: &str,
    checksums: &[Checksum],
) -> Result<HashMap<Checksum, Vec<f32>>, Error> {
    let target = Target::prepare(spi, watched, model.to_owned(), of.key_type, of.project_type)?;
    let mut known = HashMap::new();
    for checksum in checksums {
        // SAFETY: a bytea that was made for this value.
        let bytes = unsafe { Bytes::own(checksum.as_slice().into_datum().unwrap_or(0.into())) };
        // SAFETY: the column is of pgvector's type, as clip_watch made sure.
        let vector = target.vector_of(&bytes)?.and_then(|copy| unsafe { vector::from_datum(copy.datum()) });
        known.extend(vector.map(|vector| (*checksum, vector)));
    }
    Ok(known)
}
