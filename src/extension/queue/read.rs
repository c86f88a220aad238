//! Reading the photos of claimed jobs, as the owner of their table.

use std::rc::Rc;

use super::claim::Job;
use crate::batch_limits::MOST_BYTES;
use crate::client;
use crate::error::Error;
use crate::spi::{Plan, Spi};
use crate::watch::key::Key;
use crate::watch::role::PortableOutput;
use crate::watch::sql;
use crate::watch::target::{Checksum, checksum_of};
use crate::watch::watched::Watched;

/// A job and the row under its key.
pub(super) struct Found {
    pub(super) job: Job,
    pub(super) photo: Photo,
}

pub(super) enum Photo {
    Whole {
        /// Which version of the row it was.
        version: String,
        checksum: Checksum,
        image: Rc<[u8]>,
    },
    /// There is none, or its image is NULL.
    Absent,
    /// Its image exceeds `clip.max_image_bytes`.
    TooLarge(usize),
    /// The batch is large enough without it.
    Unread,
}

/// The columns of [`sql::photo`].
pub(super) const IMAGE: i32 = 1;
pub(super) const PROJECT: i32 = 2;
pub(super) const VERSION: i32 = 3;

/// Reads the photos of jobs of one source.
pub(super) fn read(spi: &Spi, watched: &Watched, jobs: &[Job]) -> Result<Vec<Found>, Error> {
    watched.read(|| {
        let plan = spi.prepare_look_up(&sql::photo(watched), &[watched.source.key_type.oid])?;
        let mut bytes = 0;
        let mut found = Vec::with_capacity(jobs.len());
        for (job, key) in jobs.iter().zip(keys_of(watched, jobs.iter())) {
            let photo = if bytes >= MOST_BYTES { Photo::Unread } else { read_one(&plan, &key)? };
            if let Photo::Whole { image, .. } = &photo {
                bytes += image.len();
            }
            found.push(Found { job: job.clone(), photo });
        }
        Ok(found)
    })
}

/// The keys of jobs. To be used inside of [`Watched::read`].
pub(super) fn keys_of<'a>(watched: &Watched, jobs: impl Iterator<Item = &'a Job>) -> Vec<Key> {
    let settings = PortableOutput::begin();
    jobs.map(|job| watched.source.key_type.read(&job.key, &settings)).collect()
}

fn read_one(plan: &Plan, key: &Key) -> Result<Photo, Error> {
    let row = plan.run(&[Some(key.datum())])?;
    let image = if row.len() > 0 { row.bytea(IMAGE)? } else { None };
    let Some(image) = image else {
        return Ok(Photo::Absent);
    };
    if client::check_image_size(image.size()).is_err() {
        return Ok(Photo::TooLarge(image.size()));
    }
    let image: Rc<[u8]> = Rc::from(image.copy().as_slice());
    let version = row.printed(VERSION).unwrap_or_default();
    Ok(Photo::Whole { version, checksum: checksum_of(&image), image })
}
