//! Embedding the photos of claimed jobs: reading them, sending them, and writing the results.
//!
//! Each step has a transaction of its own, and none waits for the embedder. While the embedder has one batch, the
//! next one is claimed, read and sent behind it, and the one before is written. A step that fails is tried again
//! with one photo at a time: an error of one photo decides on its own job, and on no other.

mod aside;

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::CString;
use std::rc::Rc;
use std::time::{Duration, Instant};

use pgrx::{PgLogLevel, pg_sys};

use super::begun::{Begun, Model, Undone};
use super::claim::{Claimed, Job};
use super::failure::Disposition;
use super::finish::{self, Done, Finished, Outcome};
use super::lane::Lane;
use super::pause::Pauses;
use super::read::{self, Found, Photo};
use super::transaction::transaction_on;
use crate::client::{self, Stream};
use crate::current_model;
use crate::encoding;
use crate::error::Error;
use crate::failure::Failure;
use crate::notice::tell;
use crate::spi::Spi;
use crate::watch::extension_schema::ExtensionSchema;
use crate::watch::identity::{identity, name_of};
use crate::watch::provenance;
use crate::watch::target::{Checksum, Known};
use crate::watch::watched::{LockWait, Watched};

/// A batch that took too long is tried once more with so many photos at a time: many at once may be slow where each
/// is not, and so may a busy machine. Only if that is slow too, the table is slow.
const PART: usize = 4;
/// Jobs that other transactions have locked cost the others no more than a look at so many in so long.
const SETTLE_EVERY: Duration = Duration::from_secs(1);
const MOST_SETTLED: usize = 64;
/// The turn of a job comes again.
const TURN: Disposition = Disposition::GiveBack { seconds: 0.0, alone: false };
/// How many vectors are kept of photos that are locked.
const MOST_UNWRITTEN: usize = 256;

/// The worker's side of the embedder.
pub(super) struct Batches {
    pub(super) extension: ExtensionSchema,
    pub(super) pauses: Pauses,
    lane: Lane,
    /// The batches that the embedder has, in their order.
    begun: VecDeque<Begun>,
    stream: Stream,
    /// What could not be written down yet, and when that was tried last.
    unsettled: Vec<(Job, Disposition)>,
    settled_at: Option<Instant>,
    /// Until when nothing is tried because the embedder is away, and how long the pause was.
    pause: Option<(Instant, Duration)>,
    /// The models that the embedder does not have, and how long the pause for their photos was.
    missing_models: HashMap<String, Duration>,
    /// The tables whose photos are written in parts.
    in_parts: HashSet<pg_sys::Oid>,
    /// The vectors of photos that another transaction has locked, by their model and checksum: they are embedded once,
    /// however long that takes.
    unwritten: HashMap<(String, Checksum), Vec<f32>>,
}

type Read = (Vec<Found>, HashMap<Checksum, Known>);

impl Batches {
    pub(super) fn new(extension: ExtensionSchema, lane: Lane) -> Batches {
        Batches {
            extension,
            pauses: Pauses::default(),
            lane,
            begun: VecDeque::new(),
            stream: Stream::default(),
            unsettled: Vec::new(),
            settled_at: None,
            pause: None,
            missing_models: HashMap::new(),
            in_parts: HashSet::new(),
            unwritten: HashMap::new(),
        }
    }

    /// When the embedder is tried again, where it is away.
    pub(super) fn pause_ends(&self) -> Option<Instant> {
        self.pause.map(|(until, _)| until).filter(|until| *until > Instant::now())
    }

    /// Whether something is to be written down still.
    pub(super) fn has_unsettled(&self) -> bool {
        !self.unsettled.is_empty()
    }

    /// Writes down some of what could not be written down when it happened, where a second has passed since that was tried last.
    pub(super) fn settle_rest(&mut self) {
        if self.unsettled.is_empty() || self.settled_at.is_some_and(|at| at.elapsed() < SETTLE_EVERY) {
            return;
        }
        let later = self.unsettled.split_off(self.unsettled.len().min(MOST_SETTLED));
        for (job, disposition) in std::mem::replace(&mut self.unsettled, later) {
            self.settle(job, disposition);
        }
        self.settled_at = Some(Instant::now());
    }

    /// Whether another batch may be begun: behind the batches that the embedder has, unless one of these is a photo
    /// alone.
    pub(super) fn has_room(&self) -> bool {
        self.begun.len() < self.lane.batches_at_once() && !self.begun.iter().any(|begun| begun.is_alone)
    }

    /// Whether the embedder has no batch.
    pub(super) fn is_idle(&self) -> bool {
        self.begun.is_empty()
    }

    /// Whether the first batch has come back.
    pub(super) fn is_first_back(&mut self) -> bool {
        self.stream.advance();
        self.stream.is_first_answered()
    }

    /// Reads the claimed photos of one source, and sends them to the embedder.
    pub(super) fn begin(&mut self, Claimed { jobs, is_alone }: Claimed) {
        let Some(source) = jobs.first().map(|job| job.source) else {
            return;
        };
        let look_up = || {
            transaction_on(source, self.lane.patience(), |spi| {
                match Watched::to_embed(spi, &self.extension, source, LockWait::None)? {
                    Some(watched) => {
                        let model = model_of(spi, &watched)?;
                        Ok(Some((watched.source, model, watched.next)))
                    }
                    None => Ok(None),
                }
            })
        };
        let mut found = look_up();
        // The machine may have been slow.
        if found.as_ref().is_err_and(|failure| self.is_slow(failure)) {
            found = look_up();
        }
        let (watched, name, next) = match found {
            // The table has become one of references, whose jobs are a feeder's.
            Ok(Some((source, ..))) if source.is_by_reference => {
                return self.settle_all(jobs, &finish::LOCKED);
            }
            Ok(Some(found)) => found,
            Ok(None) => return self.settle_all(jobs, &Disposition::Retire),
            Err(failure) => return self.put_aside(jobs, failure),
        };
        let table = watched.table.name;
        report_embedding(jobs.len(), &table);
        match self.identity(&name) {
            Ok(identity) => {
                let model = Rc::new(Model { name, identity, next, table });
                self.begin_with(&model, jobs, is_alone);
            }
            Err(error) => self.give_back(jobs, &error.into()),
        }
    }

    /// Which model this name means now.
    fn identity(&mut self, name: &str) -> Result<String, Error> {
        let fingerprint = match client::describe(name) {
            Ok(description) => description.fingerprint,
            Err(error @ Error::Embedder(_)) => {
                return Err(Error::ModelAway(name.to_owned(), Box::new(error)));
            }
            Err(error) => return Err(error),
        };
        self.missing_models.remove(name);
        Ok(identity(name, &fingerprint))
    }

    fn begin_with(&mut self, model: &Rc<Model>, jobs: Vec<Job>, is_alone: bool) {
        let read = self.read(model, &jobs);
        if jobs.len() <= PART || !read.as_ref().is_err_and(|failure| self.is_slow(failure)) {
            return self.begin_read(model, jobs, read, is_alone);
        }
        let mut parts = jobs.chunks(PART);
        while let Some(part) = parts.next() {
            let read = self.read(model, part);
            let is_slow = read.as_ref().is_err_and(|failure| self.is_slow(failure));
            self.begin_read(model, part.to_vec(), read, is_alone);
            if is_slow {
                return self.settle_all(parts.flatten().cloned().collect(), &TURN);
            }
        }
    }

    fn begin_read(
        &mut self,
        model: &Rc<Model>,
        jobs: Vec<Job>,
        read: Result<Option<Read>, Failure>,
        is_alone: bool,
    ) {
        match read {
            Ok(Some((found, known))) => self.send(model, found, known, is_alone),
            Ok(None) => self.settle_all(jobs, &Disposition::Retire),
            Err(failure) => self.one_by_one(jobs, failure, |batches, job| {
                batches.begin_with(model, vec![job], is_alone);
            }),
        }
    }

    /// The photos of the jobs, and the vectors that some of them have already. Nothing where the table is watched no more.
    fn read(&self, model: &Model, jobs: &[Job]) -> Result<Option<Read>, Failure> {
        let extension = &self.extension;
        let source = jobs.first().map_or(pg_sys::InvalidOid, |job| job.source);
        transaction_on(source, self.lane.patience(), |spi| {
            let Some(watched) = Watched::to_embed(spi, extension, source, LockWait::None)? else {
                return Ok(None);
            };
            let found = read::read(spi, &watched, jobs)?;
            let checksums: Vec<Checksum> = found
                .iter()
                .filter_map(|found| match found.photo {
                    Photo::Whole { checksum, .. } => Some(checksum),
                    _ => None,
                })
                .collect();
            let known = finish::known(spi, extension, &watched, &model.identity, &checksums)?;
            Ok(Some((found, known)))
        })
    }

    /// Sends the photos that have no vector yet, and that no batch before them has.
    fn send(
        &mut self,
        model: &Rc<Model>,
        found: Vec<Found>,
        known: HashMap<Checksum, Known>,
        is_alone: bool,
    ) {
        let mut begun = Begun::new(model, found, known, is_alone);
        let kept = |checksum| self.unwritten.get(&(model.identity.clone(), checksum)).cloned();
        let on_their_way = |checksum| self.begun.iter().any(|other| other.brings(model, checksum));
        let images = begun.take_fresh(kept, on_their_way);
        if !images.is_empty() {
            // If the embedder dies, any of them may be the reason.
            let mut others: Vec<&mut Begun> =
                self.begun.iter_mut().filter(|other| !other.fresh.is_empty()).collect();
            begun.is_blameless |= !others.is_empty();
            others.iter_mut().for_each(|other| other.is_blameless = true);
        }
        self.begun.push_back(begun);
        self.stream.send(model.name.clone(), images);
    }

    /// Waits for the first batch that the embedder has, and writes the results.
    pub(super) fn finish_first(&mut self) {
        let Some(mut begun) = self.begun.pop_front() else {
            return;
        };
        report_embedding(begun.found.len(), &begun.model.table);
        match self.stream.finish() {
            Ok(answers) => {
                if !begun.fresh.is_empty() {
                    self.pause = None;
                }
                begun.take_answers(answers);
            }
            // A photo may be the reason. A photo that was alone has failed; of several, it is not known which.
            Err(error @ (Error::Died | Error::TimedOut(_))) => {
                if begun.is_blameless || begun.fresh.len() != 1 {
                    return self
                        .settle_all(begun.jobs(), &Disposition::GiveBack { seconds: 0.0, alone: true });
                }
                begun.take_failure(&error.into());
            }
            Err(error) => {
                let failure = error.into();
                self.give_back(begun.jobs(), &failure);
                for other in std::mem::take(&mut self.begun) {
                    self.give_back(other.jobs(), &failure);
                }
                self.stream = Stream::default();
                return;
            }
        }
        for other in &mut self.begun {
            other.take_from(&begun);
        }
        begun.add_next(|identity, checksum| self.unwritten.get(&(identity.to_owned(), checksum)).cloned());
        let model = Rc::clone(&begun.model);
        let (finished, undone) = begun.outcomes();
        for undone in undone {
            match undone {
                Undone::Again(job) => self.settle(job, TURN),
                Undone::Away(job, failure) => self.give_back(vec![job], &failure),
            }
        }
        self.finish(&model, finished);
    }

    fn finish(&mut self, model: &Model, finished: Vec<Finished>) {
        let Some(source) = finished.first().map(|finished| finished.job.source) else {
            return;
        };
        if !self.in_parts.contains(&source) {
            let done = self.write(source, model, &finished);
            if !done.as_ref().is_err_and(|failure| self.is_slow(failure)) {
                return self.conclude(source, model, finished, done);
            }
            // In the slow lane, the photos would be embedded once more.
            self.in_parts.insert(source);
        }
        let mut parts = finished.chunks(PART);
        while let Some(part) = parts.next() {
            let done = self.write(source, model, part);
            let is_slow = done.as_ref().is_err_and(|failure| self.is_slow(failure));
            self.conclude(source, model, part.to_vec(), done);
            if is_slow {
                return self
                    .settle_all(parts.flatten().map(|finished| finished.job.clone()).collect(), &TURN);
            }
        }
    }

    fn conclude(
        &mut self,
        source: pg_sys::Oid,
        model: &Model,
        finished: Vec<Finished>,
        done: Result<Done, Failure>,
    ) {
        match done {
            Ok(Done { settled, locked, unheld, table }) => {
                if locked > 0 {
                    self.keep(model, &finished);
                }
                if settled > 0 {
                    self.pauses.end(source);
                } else if locked > 0 {
                    self.pauses.add(source, &Error::LockedPhotos(table).into());
                }
                self.settle_all(unheld, &finish::LOCKED);
            }
            Err(failure) => {
                self.keep(model, &finished);
                let jobs: Vec<Job> = finished.iter().map(|finished| finished.job.clone()).collect();
                self.one_by_one(jobs, failure, |batches, job| {
                    let one = finished.iter().find(|finished| finished.job.key == job.key).cloned();
                    batches.finish(model, one.into_iter().collect());
                });
            }
        }
    }

    fn write(&self, source: pg_sys::Oid, model: &Model, finished: &[Finished]) -> Result<Done, Failure> {
        transaction_on(source, self.lane.patience(), |spi| {
            finish::finish(spi, &self.extension, finished, &model.identity, model.next.as_ref())
        })
    }

    /// Remembers vectors that could not be written.
    fn keep(&mut self, model: &Model, finished: &[Finished]) {
        if self.unwritten.len() >= MOST_UNWRITTEN {
            self.unwritten.clear();
        }
        for Finished { outcome, .. } in finished {
            if let Outcome::Embedded { checksum, vectors: Known { vector, next }, .. } = outcome {
                self.unwritten.insert((model.identity.clone(), *checksum), vector.clone());
                if let (Some(model), Some(vector)) = (&model.next, next) {
                    self.unwritten.insert((model.identity.clone(), *checksum), vector.clone());
                }
            }
        }
    }
}

/// The model whose vectors the target holds, or else the one that `clip.model` names. A transaction must be open:
/// the database's setting is read in it.
pub(super) fn model_of(spi: &Spi, watched: &Watched) -> Result<String, Error> {
    let pinned = watched.registration.as_ref().and_then(|registration| registration.model.as_deref());
    match pinned.map(name_of) {
        Some(pinned) if watched.read(|| provenance::holds_vectors(spi, watched))? => Ok(pinned.to_owned()),
        // A name that is none is mended by its setting, and not by trying the photo.
        _ => current_model::model().map_err(|error| Error::ModelAway(error.to_string(), Box::new(error))),
    }
}

/// Says something in the log.
fn say(message: &str) {
    tell(PgLogLevel::LOG, &format!("pg_clip: {message}"), None);
}

fn report_embedding(photos: usize, table: &str) {
    report(pg_sys::BackendState::STATE_RUNNING, &format!("embedding {photos} photos of {table}"));
}

/// Shows the worker's present work in `pg_stat_activity`.
pub(super) fn report(state: pg_sys::BackendState::Type, activity: &str) {
    let activity = CString::new(encoding::to_server_lossy(activity)).unwrap_or_default();
    // SAFETY: the server copies the string.
    unsafe { pg_sys::pgstat_report_activity(state, activity.as_ptr()) };
}
