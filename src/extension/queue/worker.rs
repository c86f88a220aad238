//! The queue worker: a background worker that embeds the photos of one database's queue.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::time::{Duration, Instant};

use pg_clip_wire::Priority;
use pgrx::{PgSqlErrorCode, pg_sys};

use super::bell::{Bell, ring};
use super::claim::{self, Job};
use super::failure::{Fate, is_away, is_passing, settle};
use super::finish::{self, Finished};
use super::launcher::Message;
use super::place::{LAUNCHER_BELL, worker_bell, worker_lock};
use super::read::{self, Checksum, Found, Photo};
use super::transaction::{Failure, transaction};
use crate::client::{self, Embedding, Input, Interest, run_while_waiting, wait};
use crate::error::Error;
use crate::watch::home::Home;
use crate::watch::provenance::{self, identity, name_of};
use crate::watch::watched::{Registration, Watched};
use crate::worker::{accept_signals, reload_settings};
use crate::{lock, settings};

/// The entry point that the launcher has called in the worker's process. It returns where there is nothing to do, and
/// where the database is wanted by somebody else.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub(crate) extern "C-unwind" fn clip_queue_worker_main(database: pg_sys::Datum) {
    accept_signals();
    let database = pg_sys::Oid::from(u32::try_from(database.value()).expect("an oid has 32 bits"));
    if let Err(error) = work(database) {
        error.raise();
    }
}

/// A worker whose queue is empty stays this long: the next photo does not wait for its start.
const IDLE: Duration = Duration::from_secs(2);
/// The pause before a queue is looked at again that somebody has locked.
const LOCKED: Duration = Duration::from_secs(1);
/// The pause while the embedder is away, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

fn work(database: pg_sys::Oid) -> Result<(), Error> {
    let Some(_lock) = lock::take(&worker_lock(database))? else {
        return Ok(());
    };
    let bell = Bell::hang(worker_bell(database))?;
    connect(database);
    let home = transaction(|spi| {
        let home = Home::installed(spi)?;
        home.as_ref().map_or(Ok(()), |home| claim::recover(spi, home))?;
        Ok(home)
    })?;
    run_while_waiting(leave_if_wanted);
    match home {
        Some(home) => Worker { database, bell, home, unsettled: Vec::new(), pause: None }.run(),
        None => {
            say_idle(database);
            Ok(())
        }
    }
}

fn say_idle(database: pg_sys::Oid) {
    ring(LAUNCHER_BELL, &Message::Idle(database).encode());
}

/// Connects as the bootstrap superuser, who runs nothing of a user's: see [`crate::watch::role`].
fn connect(database: pg_sys::Oid) {
    let set = |name: &CStr, value: &CStr| {
        // SAFETY: settings of the server by their names, with values that they take.
        unsafe {
            pg_sys::SetConfigOption(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_OVERRIDE,
            );
        }
    };
    // SAFETY: the first call of a worker that is registered with a database connection.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnectionByOid(database, pg_sys::InvalidOid, 0);
        pg_sys::pgstat_report_appname(c"pg_clip queue".as_ptr());
    }
    // Whoever waits for this worker waits for less than `deadlock_timeout`.
    set(c"lock_timeout", c"500ms");
    // A crash loses a vector together with the end of its job.
    set(c"synchronous_commit", c"off");
    set(c"default_transaction_isolation", c"read committed");
    set(c"default_transaction_read_only", c"off");
}

struct Worker {
    database: pg_sys::Oid,
    bell: Bell,
    home: Home,
    /// What could not be written down yet.
    unsettled: Vec<(Job, Fate)>,
    /// Until when nothing is tried, and how long the pause was.
    pause: Option<(Instant, Duration)>,
}

/// What a look at the queue found.
enum Look {
    Jobs(Vec<Job>),
    /// No job that is to be done now, and in how long the next one is due.
    Due(Option<Duration>),
    /// Somebody has locked it.
    Busy,
    /// There is no queue.
    Gone,
}

/// The watch of a source, and which model its photos are embedded with.
struct Source {
    watched: Watched,
    registration: Registration,
    model: String,
    identity: String,
}

impl Worker {
    fn run(mut self) -> Result<(), Error> {
        let mut last_work = None;
        loop {
            reload_settings();
            self.bell.messages();
            leave_if_wanted();
            self.settle_rest();
            let pause_ends = self.pause.map(|(until, _)| until).filter(|until| *until > Instant::now());
            let due = match self.look(pause_ends.is_some())? {
                Look::Jobs(jobs) => {
                    last_work = Some(Instant::now());
                    self.embed(jobs);
                    continue;
                }
                Look::Gone => {
                    say_idle(self.database);
                    return Ok(());
                }
                Look::Busy => Some(Instant::now() + LOCKED),
                Look::Due(left) => left.map(|left| Instant::now() + left),
            };
            report(pg_sys::BackendState::STATE_IDLE, "");
            let idle_ends = last_work.map(|last: Instant| last + IDLE).filter(|end| *end > Instant::now());
            let Some(until) = pause_ends.or(due).or(idle_ends) else {
                if self.leave() {
                    return Ok(());
                }
                continue;
            };
            wait(self.bell.descriptor(), Interest::Readable, Some(until));
        }
    }

    /// Looks at the queue, and claims jobs unless the worker pauses.
    fn look(&mut self, pausing: bool) -> Result<Look, Failure> {
        report(pg_sys::BackendState::STATE_RUNNING, "claiming photos");
        let looked = transaction(|spi| {
            // The extension may have been dropped, moved to another schema or updated meanwhile.
            let Some(home) = Home::installed(spi)? else {
                return Ok(None);
            };
            let jobs = if pausing { Vec::new() } else { claim::claim(spi, &home)? };
            let due = if jobs.is_empty() { claim::next_due(spi, &home)? } else { None };
            Ok(Some((home, jobs, due)))
        });
        match looked {
            Ok(Some((home, jobs, due))) => {
                self.home = home;
                Ok(if jobs.is_empty() { Look::Due(due) } else { Look::Jobs(jobs) })
            }
            Ok(None) => Ok(Look::Gone),
            // Dropped while we waited for it: the next look finds that out.
            Err(failure) if failure.code == PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE => Ok(Look::Busy),
            Err(failure) if is_passing(failure.code) => Ok(Look::Busy),
            Err(failure) => Err(failure),
        }
    }

    /// Leaves, unless somebody rang meanwhile: a ring that comes later finds no bell and goes to the launcher.
    fn leave(&mut self) -> bool {
        self.bell.take_down();
        if self.bell.messages().is_empty() {
            say_idle(self.database);
            return true;
        }
        match Bell::hang(worker_bell(self.database)) {
            Ok(bell) => self.bell = bell,
            Err(_) => return true,
        }
        false
    }

    /// Embeds claimed photos, source by source.
    fn embed(&mut self, jobs: Vec<Job>) {
        let mut by_source: HashMap<pg_sys::Oid, Vec<Job>> = HashMap::new();
        for job in jobs {
            by_source.entry(job.source).or_default().push(job);
        }
        for (source, jobs) in by_source {
            self.embed_of(source, jobs);
        }
    }

    fn embed_of(&mut self, source: pg_sys::Oid, jobs: Vec<Job>) {
        let home = &self.home;
        let watch = match transaction(|spi| Watched::registered(spi, home, source)) {
            Ok(Some(watch)) => watch,
            Ok(None) => return self.settle_all(jobs, &Fate::Retire),
            Err(failure) => return self.settle_all(jobs, &Fate::of_database(failure)),
        };
        let activity = format!("embedding {} photos of {}", jobs.len(), watch.source);
        report(pg_sys::BackendState::STATE_RUNNING, &activity);
        let source = match Source::of(watch) {
            Ok(source) => source,
            Err(error) => return self.give_back(jobs, &error.into()),
        };
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

    fn embed_photos(&mut self, source: &Source, photos: Vec<Photo>) {
        let mut vectors: HashMap<Checksum, Result<Vec<f32>, Failure>> = HashMap::new();
        let known = transaction(|spi| {
            let mut known = HashMap::new();
            for photo in &photos {
                let (watched, of) = (&source.watched, &source.registration);
                if let Some(copy) = finish::known(spi, watched, of, &source.identity, &photo.checksum)? {
                    known.insert(photo.checksum, Ok(copy));
                }
            }
            Ok(known)
        });
        match known {
            Ok(known) => vectors.extend(known),
            Err(failure) => {
                let jobs = photos.into_iter().map(|photo| photo.job).collect();
                return self.settle_all(jobs, &Fate::of_database(failure));
            }
        }
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

    /// Leaves the jobs for later because the embedder is away.
    fn give_back(&mut self, jobs: Vec<Job>, failure: &Failure) {
        let pause = match self.pause {
            None => {
                pgrx::log!("pg_clip: the queue waits for the embedder: {}", failure.message);
                FIRST_PAUSE
            }
            Some((until, pause)) if until > Instant::now() => pause,
            Some((_, pause)) => (2 * pause).min(LONGEST_PAUSE),
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

    fn settle_rest(&mut self) {
        for (job, fate) in std::mem::take(&mut self.unsettled) {
            self.settle(job, fate);
        }
    }
}

impl Source {
    /// The model is the one whose vectors the target holds, or else the one that `clip.model` names.
    fn of(watched: Watched) -> Result<Source, Error> {
        let registration = watched.registration.clone().ok_or(Error::Spi(0))?;
        let model = match &registration.model {
            Some(pinned) => name_of(pinned).to_owned(),
            None => settings::model()?,
        };
        let identity = identity(&model, &client::describe(&model)?.fingerprint);
        Ok(Source { watched, registration, model, identity })
    }

    fn vector(&self, embedding: Embedding) -> Result<Vec<f32>, Error> {
        if identity(&self.model, &embedding.fingerprint) == self.identity {
            Ok(embedding.vector)
        } else {
            Err(Error::ModelChanged)
        }
    }
}

/// Ends the worker if somebody waits to drop, rename or copy its database: they hold a lock that tells, and wait 5
/// seconds for other connections to end. The launcher starts it again.
fn leave_if_wanted() {
    // SAFETY: no transaction is open while this worker waits; the end of this one releases the lock.
    let free = unsafe {
        pg_sys::StartTransactionCommand();
        let lock = pg_sys::RowExclusiveLock as pg_sys::LOCKMODE;
        let database = pg_sys::MyDatabaseId;
        let free = pg_sys::ConditionalLockSharedObject(pg_sys::DatabaseRelationId, database, 0, lock);
        pg_sys::CommitTransactionCommand();
        free
    };
    if !free {
        // SAFETY: runs the server's own callbacks and ends the process.
        unsafe { pg_sys::proc_exit(0) };
    }
}

/// Says in `pg_stat_activity` what the worker does.
fn report(state: pg_sys::BackendState::Type, activity: &str) {
    let activity = CString::new(activity).unwrap_or_default();
    // SAFETY: the server copies the string.
    unsafe { pg_sys::pgstat_report_activity(state, activity.as_ptr()) };
}
