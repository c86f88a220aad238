//! Ending the jobs of photos that a feeder fetched, or could not fetch: `clip_feed`.

use std::collections::{HashMap, HashSet};

use pgrx::{PgSqlErrorCode, pg_sys};

use super::arrays::{check_lengths, elements, text_array};
use super::claim::jobs_in;
use super::embed::{Model, Vectors};
use super::{grant, sql};
use crate::attempt::{attempt, of_a_table, with_lock_timeout};
use crate::client;
use crate::error::Error;
use crate::failure::Failure;
use crate::owned::record_of;
use crate::procedure::Procedure;
use crate::queue::batch::model_of;
use crate::queue::claim::Job;
use crate::queue::failure::{Disposition, is_of_table, is_passing, try_settle};
use crate::queue::finish::{self, Finished, Outcome, is_of_bytes};
use crate::queue::sql::MOST_ATTEMPTS;
use crate::refusal::{Reason, refuse};
use crate::spi::{Argument, Spi};
use crate::sql_function::sql_function;
use crate::varlena::{Bytes, Utf8};
use crate::watch::extension_schema::ExtensionSchema;
use crate::watch::registry::{argument, oid_of};
use crate::watch::role::act_as;
use crate::watch::target::{Checksum, checksum_of};
use crate::watch::watched::{LockWait, Watched};

sql_function! {
    /// `clip_feed(source regclass, keys text[], generations text[], reference_list text[], images bytea[], reasons
    /// text[], messages text[], INOUT outcomes text[])`: for each photo its job, the reference that was fetched,
    /// and its bytes or the reason why there are none, see [`Reason`](Why), with a message. A photo with neither is
    /// gone. The outcomes are those of [`Ended`].
    fn clip_feed(fcinfo) {
        // SAFETY: SQL declares the procedure with these arguments, which outlive its transactions.
        unsafe {
            let procedure = Procedure::start(fcinfo)?;
            let source = argument(fcinfo, 0).map_or(pg_sys::InvalidOid, oid_of);
            let photos = Photo::read(fcinfo)?;
            let ended = Feeding { procedure: &procedure, source, photos: &photos }.run()?;
            drop(photos);
            drop(procedure);
            let outcomes: Vec<&str> = ended.iter().map(|ended| ended.name()).collect();
            record_of(fcinfo, &[Some(text_array(&outcomes))])
        }
    }
}

/// A photo that a feeder was asked for.
struct Photo {
    key: String,
    generation: String,
    /// The reference that was fetched; nothing where there was no reference any more.
    reference: Option<String>,
    content: Content,
}

enum Content {
    Image { bytes: Bytes, checksum: Checksum },
    None(Why, String),
    Gone,
}

/// Why there are no bytes.
#[derive(Clone, Copy)]
enum Why {
    /// The store has no such object.
    Missing,
    /// The store does not give it to the feeder.
    Forbidden,
    /// The reference is no key of the store.
    Refused,
    /// It exceeds the limit.
    TooLarge,
    /// The store did not give it this time.
    Failed,
    /// The store gives nothing now: this says nothing of the photo.
    Unavailable,
}

/// The outcome of a photo's job.
#[derive(Clone, Copy)]
enum Ended {
    /// It is done with: the photo has its vector, unless it went meanwhile.
    Embedded,
    /// The same, with the vector that the same bytes had.
    Copied,
    /// There is no photo any more.
    Removed,
    /// It is to be tried again.
    Failed,
    Dead,
    /// It was not its turn: the photo has changed, or is locked.
    Later,
    /// Another feeder, or the photo's owner, was faster.
    Gone,
}

/// How long a lock is waited for, in milliseconds, as the queue worker has it.
const LOCK_PATIENCE: u32 = 500;
/// When a job is due again whose store, or whose table, gives nothing now.
const WAIT_SECONDS: f64 = 10.0;
/// A message in `clip_failures` is not longer, in characters.
const LONGEST_MESSAGE: usize = 500;

impl Photo {
    /// # Safety
    /// `fcinfo` is that of `clip_feed`.
    unsafe fn read(fcinfo: pg_sys::FunctionCallInfo) -> Result<Vec<Photo>, Error> {
        // SAFETY: the caller vouches for the arguments, which are arrays of texts or, the fourth, of byteas.
        unsafe {
            let [keys, generations, references, images, reasons, messages] =
                [1, 2, 3, 4, 5, 6].map(|index| elements(argument(fcinfo, index)));
            let all = [&keys, &generations, &references, &images, &reasons, &messages];
            check_lengths(&all.map(Vec::len))?;
            let text = |datum: Option<pg_sys::Datum>| {
                datum.map(|datum| Utf8::new(datum).map(Utf8::into_string)).transpose()
            };
            let required = |datum| {
                text(datum)?.ok_or_else(|| refuse(Reason::NullArgument, "a photo has a key and a generation"))
            };
            (0..keys.len())
                .map(|index| {
                    let reason = text(reasons[index])?.map(|name| Why::named(&name)).transpose()?;
                    let content = match (images[index], reason) {
                        (Some(image), None) => {
                            let bytes = Bytes::new(image);
                            Content::Image { checksum: checksum_of(bytes.as_slice()), bytes }
                        }
                        (None, Some(why)) => Content::None(why, text(messages[index])?.unwrap_or_default()),
                        (None, None) => Content::Gone,
                        (Some(_), Some(_)) => {
                            let message = "a photo has bytes, or a reason why it has none";
                            return Err(refuse(Reason::InvalidParameter, message));
                        }
                    };
                    let (key, generation) = (required(keys[index])?, required(generations[index])?);
                    Ok(Photo { key, generation, reference: text(references[index])?, content })
                })
                .collect()
        }
    }

    /// The job that was claimed, among those that are there now.
    fn job_in<'a>(&self, jobs: &'a HashMap<String, Job>) -> Option<&'a Job> {
        jobs.get(&self.key).filter(|job| job.generation == self.generation)
    }
}

impl Why {
    fn named(name: &str) -> Result<Why, Error> {
        Ok(match name {
            "missing" => Why::Missing,
            "forbidden" => Why::Forbidden,
            "refused" => Why::Refused,
            "too large" => Why::TooLarge,
            "failed" => Why::Failed,
            "unavailable" => Why::Unavailable,
            _ => return Err(refuse(Reason::InvalidParameter, format!("reason \"{name}\" is not known"))),
        })
    }

    fn failure(self, message: &str) -> Failure {
        use PgSqlErrorCode as Code;
        let code = match self {
            Why::Missing => Code::ERRCODE_UNDEFINED_FILE,
            Why::Forbidden => Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
            Why::Refused => Code::ERRCODE_INVALID_NAME,
            Why::TooLarge => Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            Why::Failed | Why::Unavailable => Code::ERRCODE_IO_ERROR,
        };
        let message: String = message.chars().take(LONGEST_MESSAGE).collect();
        Failure::of_report(code, &message)
    }

    /// Whether the next try would end in the same way.
    fn is_final(self) -> bool {
        matches!(self, Why::Missing | Why::Forbidden | Why::Refused | Why::TooLarge)
    }
}

impl Ended {
    fn name(self) -> &'static str {
        match self {
            Ended::Embedded => "embedded",
            Ended::Copied => "copied",
            Ended::Removed => "removed",
            Ended::Failed => "failed",
            Ended::Dead => "dead",
            Ended::Later => "later",
            Ended::Gone => "gone",
        }
    }
}

struct Feeding<'a> {
    procedure: &'a Procedure,
    source: pg_sys::Oid,
    photos: &'a [Photo],
}

impl Feeding<'_> {
    fn run(&self) -> Result<Vec<Ended>, Error> {
        let (jobs, model, next) = self.step(|spi, extension| {
            let jobs = self.jobs(spi, extension)?;
            let Some(watched) = self.watched(spi, extension)? else {
                return Ok((jobs, None, None));
            };
            let has_images = self.photos.iter().any(|photo| matches!(photo.content, Content::Image { .. }));
            let model = has_images.then(|| model_of(spi, &watched)).transpose()?;
            Ok((jobs, model, watched.next))
        })?;
        // No snapshot is held from here to the next step.
        let model = model.map(|model| Model::look_up(model, next)).transpose()?;
        let images: Vec<(Checksum, &[u8])> = self
            .photos
            .iter()
            .filter(|photo| photo.job_in(&jobs).is_some())
            .filter_map(|photo| match &photo.content {
                Content::Image { bytes, checksum } => Some((*checksum, bytes.as_slice())),
                _ => None,
            })
            .filter(|(_, bytes)| client::check_image_size(bytes.len()).is_ok())
            .collect();
        let (vectors, copied) = match &model {
            Some(model) if !images.is_empty() => self.vectors(model, &images)?,
            _ => (Vectors::new(), HashSet::new()),
        };
        let mut finished = Vec::new();
        let mut waiting = Vec::new();
        for photo in self.photos {
            let Some(job) = photo.job_in(&jobs) else {
                continue;
            };
            match outcome(photo, job, &vectors) {
                Ok(outcome) => finished.push(Finished { job: job.clone(), outcome }),
                Err(disposition) => waiting.push((job, disposition)),
            }
        }
        self.step(|spi, extension| {
            for (job, disposition) in &waiting {
                try_settle(spi, extension, job, disposition)?;
            }
            self.finish(spi, extension, model.as_ref(), &finished)?;
            self.ended(spi, extension, &jobs, copied)
        })
    }

    /// A step, for as long as the caller may feed the table. Nothing in it waits long for a user's transaction.
    fn step<R>(&self, body: impl FnOnce(&Spi, &ExtensionSchema) -> Result<R, Error>) -> Result<R, Error> {
        self.procedure.step(|spi| {
            let extension = ExtensionSchema::of(self.procedure.function())?;
            grant::check(spi, &extension, self.source)?;
            with_lock_timeout(LOCK_PATIENCE, || body(spi, &extension))
        })
    }

    fn watched(&self, spi: &Spi, extension: &ExtensionSchema) -> Result<Option<Watched>, Error> {
        Watched::to_embed(spi, extension, self.source, LockWait::None)
    }

    /// The jobs that are there now, by their keys.
    fn jobs(&self, spi: &Spi, extension: &ExtensionSchema) -> Result<HashMap<String, Job>, Error> {
        let jobs = self.rows(spi, extension, |rows| jobs_in(self.source, rows))?;
        Ok(jobs.into_iter().map(|job| (job.key.clone(), job)).collect())
    }

    /// The vectors of images, and which of them are copies of vectors that the same bytes had.
    fn vectors(
        &self,
        model: &Model,
        images: &[(Checksum, &[u8])],
    ) -> Result<(Vectors, HashSet<Checksum>), Error> {
        let checksums: Vec<Checksum> = images.iter().map(|(checksum, _)| *checksum).collect();
        let known = self.step(|spi, extension| match self.watched(spi, extension)? {
            Some(watched) => finish::known(spi, extension, &watched, &model.identity, &checksums),
            None => Ok(HashMap::new()),
        })?;
        let copied = known.keys().copied().collect();
        Ok((model.embed(images, known)?, copied))
    }

    /// Writes the outcomes all at once or, after an error, one photo after the other, so that one wrong photo keeps
    /// no other waiting.
    fn finish(
        &self,
        spi: &Spi,
        extension: &ExtensionSchema,
        model: Option<&Model>,
        finished: &[Finished],
    ) -> Result<(), Error> {
        let (identity, next) = model.map_or(("", None), |model| (&model.identity, model.next.as_ref()));
        let write = |some: &[Finished]| {
            attempt(of_a_table, || finish::finish(spi, extension, some, identity, next).map(|_| ()))
        };
        let Err(failure) = write(finished)? else {
            return Ok(());
        };
        for one in finished {
            let failure = if is_passing(failure.code) || is_of_table(failure.code) {
                failure.clone()
            } else if let Err(failure) = write(std::slice::from_ref(one))? {
                failure
            } else {
                continue;
            };
            try_settle(spi, extension, &one.job, &disposition_of(failure))?;
        }
        Ok(())
    }

    fn ended(
        &self,
        spi: &Spi,
        extension: &ExtensionSchema,
        before: &HashMap<String, Job>,
        mut with_vector: HashSet<Checksum>,
    ) -> Result<Vec<Ended>, Error> {
        const GENERATION: usize = 1;
        const DEAD: usize = 3;
        let now: HashMap<String, [Option<String>; 4]> = self.rows(spi, extension, |rows| {
            let [keys, generations, attempts, dead] = [1, 2, 3, 4].map(|column| rows.all_printed(column));
            let rows = keys.into_iter().zip(generations).zip(attempts).zip(dead);
            rows.map(|(((key, generation), attempts), dead)| {
                (key.clone().unwrap_or_default(), [key, generation, attempts, dead])
            })
            .collect()
        })?;
        let ended = self.photos.iter().map(|photo| {
            let was_there = photo.job_in(before).is_some();
            match now.get(&photo.key) {
                _ if !was_there => Ended::Gone,
                None => match &photo.content {
                    Content::Image { checksum, .. } if !with_vector.insert(*checksum) => Ended::Copied,
                    Content::Image { .. } => Ended::Embedded,
                    _ => Ended::Removed,
                },
                Some(job) if job[DEAD].as_deref() == Some("t") => Ended::Dead,
                Some(job) if job[GENERATION].as_ref() != Some(&photo.generation) => Ended::Later,
                Some(_) if matches!(photo.content, Content::None(..)) => Ended::Failed,
                Some(_) => Ended::Later,
            }
        });
        Ok(ended.collect())
    }

    /// The queue's rows under the keys of the photos.
    fn rows<R>(
        &self,
        spi: &Spi,
        extension: &ExtensionSchema,
        read: impl FnOnce(&crate::spi::Rows) -> R,
    ) -> Result<R, Error> {
        let keys: Vec<String> = self.photos.iter().map(|photo| photo.key.clone()).collect();
        let arguments = [Argument::oid(self.source), Argument::texts(&keys)];
        act_as(extension.owner, || Ok(read(&spi.run_kept(&sql::jobs(&extension.schema), &arguments)?)))
    }
}

/// The outcome of a photo, or the disposition of its job where the photo has no part in it.
fn outcome(photo: &Photo, job: &Job, vectors: &Vectors) -> Result<Outcome, Disposition> {
    let reference = photo.reference.clone().unwrap_or_default();
    let unfed = |checksum, failure: Failure, is_final: bool| Outcome::Unfed {
        reference: reference.clone(),
        checksum,
        failure,
        dead: is_final || job.attempts >= MOST_ATTEMPTS,
    };
    match &photo.content {
        Content::Gone => Ok(Outcome::Absent),
        Content::None(Why::Unavailable, message) => {
            Err(Disposition::Wait { seconds: WAIT_SECONDS, failure: Why::Unavailable.failure(message) })
        }
        Content::None(why, message) => Ok(unfed(None, why.failure(message), why.is_final())),
        Content::Image { bytes, checksum } => match vectors.get(checksum) {
            Some(Ok(vectors)) => Ok(Outcome::Embedded {
                version: reference.clone(),
                checksum: *checksum,
                vectors: vectors.clone(),
            }),
            Some(Err(failure)) => Ok(unfed(Some(*checksum), failure.clone(), is_of_bytes(failure.code))),
            None => match client::check_image_size(bytes.as_slice().len()) {
                Err(error) => Ok(unfed(Some(*checksum), error.into(), true)),
                Ok(()) => Err(Disposition::GiveBack { seconds: 0.0, alone: false }),
            },
        },
    }
}

/// The disposition of a job whose photo could not be written down.
fn disposition_of(failure: Failure) -> Disposition {
    if is_passing(failure.code) {
        Disposition::GiveBack { seconds: 1.0, alone: false }
    } else if is_of_table(failure.code) {
        Disposition::Wait { seconds: WAIT_SECONDS, failure }
    } else {
        Disposition::Fail { failure, dead: false }
    }
}
