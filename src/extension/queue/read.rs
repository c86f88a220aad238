//! Reading the photos of claimed jobs, as the owner of their table.

use pgrx::pg_sys;
use sha2::{Digest, Sha256};

use super::claim::Job;
use super::transaction::Failure;
use crate::client;
use crate::error::Error;
use crate::spi::{Plan, Spi};
use crate::varlena::{self, Bytes};
use crate::watch::role::read_as;
use crate::watch::sql;
use crate::watch::watched::{Registration, Watched};

pub(super) type Checksum = [u8; 32];

/// A photo as the worker found it.
pub(super) struct Photo {
    pub(super) job: Job,
    /// Which version of the row it was.
    pub(super) version: String,
    pub(super) checksum: Checksum,
    pub(super) image: Vec<u8>,
}

/// What was found for a job.
pub(super) enum Found {
    Photo(Photo),
    /// There is no such photo, or it is NULL.
    Nothing(Job),
    /// There is one that cannot be embedded.
    Unfit(Job, Failure),
    /// The batch is large enough without it.
    Unread(Job),
}

/// What a batch holds at most, beside one photo.
const BATCH_BYTES: usize = 64 << 20;

/// Reads the photos of jobs of one source.
pub(super) fn read(
    spi: &Spi,
    watched: &Watched,
    of: &Registration,
    jobs: Vec<Job>,
) -> Result<Vec<Found>, Error> {
    read_as(of.reader, || {
        let plan = spi.prepare(&sql::photo(watched), &[of.key_type])?;
        let mut bytes = 0;
        jobs.into_iter()
            .map(|job| {
                if bytes >= BATCH_BYTES {
                    return Ok(Found::Unread(job));
                }
                let found = read_one(&plan, of, job)?;
                if let Found::Photo(photo) = &found {
                    bytes += photo.image.len();
                }
                Ok(found)
            })
            .collect()
    })
}

fn read_one(plan: &Plan, of: &Registration, job: Job) -> Result<Found, Error> {
    const IMAGE: i32 = 1;
    const VERSION: i32 = 2;
    let row = plan.run(&[Some(key(of, &job))])?;
    if row.len() == 0 {
        return Ok(Found::Nothing(job));
    }
    let Some(image) = row.value(IMAGE) else {
        return Ok(Found::Nothing(job));
    };
    // SAFETY: a non-null bytea of a row at hand.
    let size = unsafe { varlena::size(image) };
    if let Err(error) = client::check_image_size(size) {
        return Ok(Found::Unfit(job, error.into()));
    }
    // SAFETY: as above.
    let image = unsafe { Bytes::new(image) }.as_slice().to_vec();
    let version = row.text(VERSION).unwrap_or_default();
    Ok(Found::Photo(Photo { job, version, checksum: Sha256::digest(&image).into(), image }))
}

/// The key of a job as a value of its type, made by the type's own input function.
pub(super) fn key(of: &Registration, job: &Job) -> pg_sys::Datum {
    let text = std::ffi::CString::new(job.key.as_str()).expect("a text of the server has no NUL byte");
    let (mut input, mut parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
    // SAFETY: the type is that of a column; its input function takes these arguments and leaves the string alone.
    unsafe {
        pg_sys::getTypeInputInfo(of.key_type, &mut input, &mut parameter);
        pg_sys::OidInputFunctionCall(input, text.as_ptr().cast_mut(), parameter, -1)
    }
}
