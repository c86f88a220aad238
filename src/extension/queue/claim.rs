//! Taking jobs.

use std::time::Duration;

use pgrx::{IntoDatum, pg_sys};

use super::sql;
use crate::error::Error;
use crate::spi::{Argument, Spi};
use crate::watch::home::Home;
use crate::watch::role::act_as;

/// A job that the worker has claimed.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) source: pg_sys::Oid,
    /// The key as its type prints it.
    pub(super) key: String,
    /// Which request the job stands for: it differs once the photo has changed again.
    pub(super) generation: String,
}

impl Job {
    /// The parameters `$1` to `$3` of the statements on one job.
    pub(super) fn identity(&self) -> [Argument; 3] {
        [
            Argument { oid: pg_sys::OIDOID, value: self.source.into_datum() },
            Argument { oid: pg_sys::TEXTOID, value: self.key.as_str().into_datum() },
            Argument { oid: pg_sys::TEXTOID, value: self.generation.as_str().into_datum() },
        ]
    }
}

/// The most photos in a batch.
pub(super) const BATCH_PHOTOS: i64 = 32;

/// Gives up the claims of workers before this one. Only the one that has the database's lock may call this.
pub(super) fn recover(spi: &Spi, home: &Home) -> Result<(), Error> {
    act_as(home.owner, || spi.run(&sql::recover(&home.schema), &[]))?;
    Ok(())
}

/// Claims the next jobs: one that is to be embedded alone, or up to [`BATCH_PHOTOS`] others.
pub(super) fn claim(spi: &Spi, home: &Home) -> Result<Vec<Job>, Error> {
    act_as(home.owner, || {
        let most = Argument { oid: pg_sys::INT8OID, value: BATCH_PHOTOS.into_datum() };
        let due = spi.run(&sql::due(&home.schema), &[most])?;
        let suspects: Vec<bool> =
            due.texts(3).into_iter().map(|suspect| suspect.as_deref() == Some("t")).collect();
        let count = match suspects.first() {
            None => return Ok(Vec::new()),
            Some(true) => 1,
            Some(false) => suspects.iter().take_while(|suspect| !**suspect).count(),
        };
        let sources: Vec<pg_sys::Oid> = due.texts(1).into_iter().take(count).map(oid_of).collect();
        let keys: Vec<String> = due.texts(2).into_iter().take(count).flatten().collect();
        let taken = [
            Argument { oid: pg_sys::OIDARRAYOID, value: sources.into_datum() },
            Argument { oid: pg_sys::TEXTARRAYOID, value: keys.into_datum() },
        ];
        let claimed = spi.run(&sql::claim(&home.schema), &taken)?;
        let [sources, keys, generations] = [1, 2, 3].map(|column| claimed.texts(column));
        let jobs = sources.into_iter().zip(keys).zip(generations);
        Ok(jobs
            .map(|((source, key), generation)| Job {
                source: oid_of(source),
                key: key.unwrap_or_default(),
                generation: generation.unwrap_or_default(),
            })
            .collect())
    })
}

/// When the next job is due; nothing where no job waits.
pub(super) fn next_due(spi: &Spi, home: &Home) -> Result<Option<Duration>, Error> {
    let rows = act_as(home.owner, || spi.run(&sql::next_due(&home.schema), &[]))?;
    let seconds = rows.texts(1).into_iter().next().flatten().and_then(|seconds| seconds.parse::<f64>().ok());
    Ok(seconds.map(Duration::from_secs_f64))
}

fn oid_of(text: Option<String>) -> pg_sys::Oid {
    pg_sys::Oid::from(text.and_then(|text| text.parse::<u32>().ok()).unwrap_or_default())
}
