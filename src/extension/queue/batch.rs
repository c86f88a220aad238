//! Embedding the photos of claimed jobs: reading them, sending them, and writing what comes back.
//!
//! Each step has a transaction of its own, and none is open while the embedder works. A step that fails decides what
//! becomes of its jobs, and of nobody else's.

use std::collections::HashMap;
use std::ffi::CString;
use std::time::{Duration, Instant};

use pg_clip_wire::Priority;
use pgrx::pg_sys;

use super::claim::Job;
use super::failure::{Fate, is_away, settle};
use super::finish::{self, Finished};
use super::read::{self, Checksum, Found, Photo};
use super::transaction::{Failure, transaction};
use crate::client::{self, Embedding, Input};
use crate::error::Error;
use crate::settings;
use crate::spi::Spi;
use crate::watch::home::Home;
use crate::watch::provenance::{self, identity, name_of};
use crate::watch::watched::{Registration, Watched};

/// The pause while the embedder or a model is away, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The worker's side of the embedder.
pub(super) struct Batches {
    pub(super) home: Home,
    /// What could not be written down yet.
    unsettled: Vec<(Job, Fate)>,
    /// Until when nothing is tried because the embedder is away, and how long the pause was.
    pause: Option<(Instant, Duration)>,
    /// The models that the embedder does not have, and how long the pause for their photos was.
    missing_models: HashMap<String, Duration>,
}

/// The watch of a source, and which model its photos are embedded with.
struct Source {
    watched: Watched,
    registration: Registration,
    model: String,
    identity: String,
}

impl Batches {
    pub(super) fn new(home: Home) -> Batches {
        Batches { home, unsettled: Vec::new(), pause: None, missing_models: HashMap::new() }
    }

    /// When the embedder is tried again, where it is away.
    pub(super) fn pause_ends(&self) -> Option<Instant> {
        self.pause.map(|(until, _)| until).filter(|until| *until > Instant::now())
    }

    /// Embeds claimed photos, source by source.
    pub(super) fn embed(&mut self, jobs: Vec<Job>) {
        let mut by_source: HashMap<pg_sys::Oid, Vec<Job>> = HashMap::new();
        for job in jobs {
            by_source.entry(job.source).or_default().push(job);
        }
        for (source, jobs) in by_source {
            self.embed_of(source, jobs);
        }
    }

    /// Writes down what could not be written down when it happened.
    pub(super) fn settle_rest(&mut self) {
        for (job, fate) in std::mem::take(&mut self.unsettled) {
            self.settle(job, fate);
        }
    }

    fn embed_of(&mut self, source: pg_sys::Oid, jobs: Vec<Job>) {
        let home = &self.home;
        let found = transaction(|spi| match Watched::registered(spi, home, source)? {
            Some(watched) => model_of(spi, &watched).map(|model| Some((watched, model))),
            None => Ok(None),
        });
        let (watched, model) = match found {
            Ok(Some(found)) => found,
            Ok(None) => return self.settle_all(jobs, &Fate::Retire),
            Err(failure) => return self.settle_all(jobs, &Fate::of_database(failure)),
        };
        report(
            pg_sys::BackendState::STATE_RUNNING,
            &format!("embedding {} photos of {}", jobs.len(), watched.source),
        );
        let source = match self.source(watched, model) {
            Ok(source) => source,
            Err(error) => return self.give_back(jobs, &error.into()),
        };
        let home = &self.home;
        let found = transaction(|spi| {
            if source.registration.model.as_ref().is_some_and(|pinned| *pinned != source.identity) {
                provenance::check(spi, home, &source.watched, &source.identity)?;
            }
            read::read(spi, &source.watched, &source.registration, jobs.clone())
        });
        let found = match found {
            Ok(found) => found,
            Err(failure) => return self.settle_all(jobs, &Fate::of_database(failure)),
        };
        let mut photos = Vec::new();
        for found in found {
            match found {
                Found::Photo(photo) => photos.push(photo),
                Found::Nothing(job) => self.settle(job, Fate::Retire),
                Found::Unfit(job, failure) => self.settle(job, Fate::Fail { failure, dead: true }),
                Found::Unread(job) => self.settle(job, Fate::GiveBack { seconds: 0.0, alone: false }),
            }
        }
        self.embed_photos(&source, photos);
    }

    fn source(&mut self, watched: Watched, model: String) -> Result<Source, Error> {
        let registration = watched.registration.clone().ok_or(Error::Spi(0))?;
        let fingerprint = match client::describe(&model) {
            Ok(description) => description.fingerprint,
            Err(error @ Error::Embedder(_)) => return Err(Error::ModelAway(model, Box::new(error))),
            Err(error) => return Err(error),
        };
        self.missing_models.remove(&model);
        let identity = identity(&model, &fingerprint);
        Ok(Source { watched, registration, model, identity })
    }

    fn embed_photos(&mut self, source: &Source, photos: Vec<Photo>) {
        let checksums: Vec<Checksum> = photos.iter().map(|photo| photo.checksum).collect();
        let known = transaction(|spi| {
            finish::known(spi, &source.watched, &source.registration, &source.identity, &checksums)
        });
        let mut vectors: HashMap<Checksum, Result<Vec<f32>, Failure>> = match known {
            Ok(known) => known.into_iter().map(|(checksum, vector)| (checksum, Ok(vector))).collect(),
            Err(failure) => {
                let jobs = photos.into_iter().map(|photo| photo.job).collect();
                return self.settle_all(jobs, &Fate::of_database(failure));
            }
        };
        let mut fresh: Vec<&Photo> = Vec::new();
        for photo in &photos {
            if !vectors.contains_key(&photo.checksum)
                && fresh.iter().all(|other| other.checksum != photo.checksum)
            {
                fresh.push(photo);
            }
        }
        let inputs: Vec<Input> = fresh.iter().map(|photo| Input::Image(&photo.image)).collect();
        match client::embed(&source.model, &inputs, Priority::Bulk) {
            Ok(answers) => {
                self.pause = None;
                for (photo, answer) in fresh.iter().zip(answers) {
                    let answer = answer.map_err(Error::from).and_then(|embedding| source.vector(embedding));
                    vectors.insert(photo.checksum, answer.map_err(Failure::from));
                }
            }
            // A photo may have done it. Alone, it counts; in a batch, nobody knows which.
            Err(error @ (Error::Died | Error::TimedOut(_))) => {
                let alone = fresh.len() == 1;
                let failure = Failure::from(error);
                for photo in photos {
                    let fate = if alone {
                        Fate::Fail { failure: failure.clone(), dead: false }
                    } else {
                        Fate::GiveBack { seconds: 0.0, alone: true }
                    };
                    self.settle(photo.job, fate);
                }
                return;
            }
            Err(error) => {
                let jobs = photos.into_iter().map(|photo| photo.job).collect();
                return self.give_back(jobs, &error.into());
            }
        }
        for photo in photos {
            match vectors.get(&photo.checksum) {
                Some(Ok(vector)) => self.finish(source, &photo, vector),
                Some(Err(failure)) if is_away(failure.code) => {
                    self.give_back(vec![photo.job], &failure.clone());
                }
                Some(Err(failure)) => self.settle(photo.job, Fate::of_photo(failure.clone())),
                None => self.settle(photo.job, Fate::GiveBack { seconds: 1.0, alone: false }),
            }
        }
    }

    fn finish(&mut self, source: &Source, photo: &Photo, vector: &[f32]) {
        let finished = Finished {
            job: &photo.job,
            version: &photo.version,
            checksum: &photo.checksum,
            vector,
            model: &source.identity,
        };
        let home = &self.home;
        let done =
            transaction(|spi| finish::finish(spi, home, &source.watched, &source.registration, &finished));
        match done {
            Ok(Fate::Retire) => {}
            Ok(fate) => self.settle(photo.job.clone(), fate),
            Err(failure) => self.settle(photo.job.clone(), Fate::of_database(failure)),
        }
    }

    /// Leaves the jobs for later because the embedder is away, or their model.
    fn give_back(&mut self, jobs: Vec<Job>, failure: &Failure) {
        let later = |pause: Duration| (2 * pause).min(LONGEST_PAUSE);
        let say = || pgrx::log!("pg_clip: the queue waits for the embedder: {}", failure.message);
        if let Some(model) = &failure.model {
            let pause = self.missing_models.get(model).map_or_else(
                || {
                    say();
                    FIRST_PAUSE
                },
                |pause| later(*pause),
            );
            self.missing_models.insert(model.clone(), pause);
            return self.settle_all(jobs, &Fate::GiveBack { seconds: pause.as_secs_f64(), alone: false });
        }
        let pause = match self.pause {
            None => {
                say();
                FIRST_PAUSE
            }
            Some((until, pause)) if until > Instant::now() => pause,
            Some((_, pause)) => later(pause),
        };
        self.pause = Some((Instant::now() + pause, pause));
        self.settle_all(jobs, &Fate::GiveBack { seconds: 0.0, alone: false });
    }

    fn settle_all(&mut self, jobs: Vec<Job>, fate: &Fate) {
        for job in jobs {
            self.settle(job, fate.clone());
        }
    }

    fn settle(&mut self, job: Job, fate: Fate) {
        let home = &self.home;
        if transaction(|spi| settle(spi, home, &job, &fate)).is_err() {
            self.unsettled.push((job, fate));
        }
    }
}

/// The model whose vectors the target holds, or else the one that `clip.model` names: what is set for the database can be
/// read in a transaction only.
fn model_of(spi: &Spi, watched: &Watched) -> Result<String, Error> {
    let pinned = watched.registration.as_ref().and_then(|registration| registration.model.as_deref());
    match pinned.map(name_of) {
        Some(pinned) if provenance::holds_vectors(spi, watched)? => Ok(pinned.to_owned()),
        _ => settings::model(),
    }
}

impl Source {
    fn vector(&self, embedding: Embedding) -> Result<Vec<f32>, Error> {
        if identity(&self.model, &embedding.fingerprint) == self.identity {
            Ok(embedding.vector)
        } else {
            Err(Error::ModelChanged)
        }
    }
}

/// Says in `pg_stat_activity` what the worker does.
pub(super) fn report(state: pg_sys::BackendState::Type, activity: &str) {
    let activity = CString::new(activity).unwrap_or_default();
    // SAFETY: the server copies the string.
    unsafe { pg_sys::pgstat_report_activity(state, activity.as_ptr()) };
}
