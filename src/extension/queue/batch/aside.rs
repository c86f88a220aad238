//! Jobs that the worker has to leave for later: their tables are locked, slow or broken, or the embedder is away.

use std::time::{Duration, Instant};

use pgrx::pg_sys;

use super::{Batches, TURN, say};
use crate::failure::Failure;
use crate::queue::claim::Job;
use crate::queue::failure::{Disposition, is_of_table, is_passing, try_settle};
use crate::queue::lane::Lane;
use crate::queue::pause;
use crate::queue::transaction::{LONGEST, transaction};
use crate::queue::wake;

/// The pause while the embedder or a model is away, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A pause of a table that is longer is shown to its owner.
const SHOWN_PAUSE: Duration = Duration::from_secs(1);

impl Batches {
    /// Whether a table took longer than the lane has time for.
    pub(super) fn is_slow(&self, failure: &Failure) -> bool {
        failure.took_too_long && self.lane == Lane::Prompt
    }

    /// After a transaction failed: puts the table aside where that was not a photo's fault, and otherwise tries one
    /// photo after the other.
    pub(super) fn one_by_one(
        &mut self,
        jobs: Vec<Job>,
        failure: Failure,
        mut again: impl FnMut(&mut Self, Job),
    ) {
        if self.is_slow(&failure) || is_passing(failure.code) || is_of_table(failure.code) {
            return self.put_aside(jobs, failure);
        }
        match <[Job; 1]>::try_from(jobs) {
            Ok([job]) => self.settle(job, Disposition::Fail { failure, dead: false }),
            Err(jobs) => {
                for job in jobs {
                    again(self, job);
                }
            }
        }
    }

    /// Leaves a table alone for a while that is locked, slow or broken.
    pub(super) fn put_aside(&mut self, jobs: Vec<Job>, failure: Failure) {
        let Some(source) = jobs.first().map(|job| job.source) else {
            return;
        };
        if failure.model.is_some() {
            return self.give_back(jobs, &failure);
        }
        let extension = &self.extension;
        if self.is_slow(&failure) {
            let noted = transaction(LONGEST, |spi| pause::note_slow(spi, extension, source));
            self.settle_all(jobs, &TURN);
            if noted.is_ok() {
                // SAFETY: a plain read of a variable of this process.
                wake::want(unsafe { pg_sys::MyDatabaseId }, Lane::Slow);
            }
            return;
        }
        if failure.took_too_long {
            return self.settle_all(jobs, &Disposition::Fail { failure, dead: false });
        }
        let length = self.pauses.add(source, &failure);
        let seconds = length.as_secs_f64();
        if length >= SHOWN_PAUSE {
            let noted =
                transaction(LONGEST, |spi| pause::note(spi, extension, source, &failure.message, length));
            if let Err(error) = noted {
                say(&format!("why photos wait is not written down: {}", error.message));
            }
        }
        let disposition = if is_passing(failure.code) {
            Disposition::GiveBack { seconds, alone: false }
        } else {
            Disposition::Wait { seconds, failure }
        };
        self.settle_all(jobs, &disposition);
    }

    /// Leaves the jobs for later because the embedder is away, or their model.
    pub(super) fn give_back(&mut self, jobs: Vec<Job>, failure: &Failure) {
        let later = |pause: Duration| (2 * pause).min(LONGEST_PAUSE);
        let say = || say(&format!("the queue waits for the embedder: {}", failure.message));
        if let Some(model) = &failure.model {
            let pause = self.missing_models.get(model).map_or_else(
                || {
                    say();
                    FIRST_PAUSE
                },
                |pause| later(*pause),
            );
            self.missing_models.insert(model.clone(), pause);
            return self
                .settle_all(jobs, &Disposition::GiveBack { seconds: pause.as_secs_f64(), alone: false });
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
        self.settle_all(jobs, &TURN);
    }

    pub(in crate::queue) fn settle_all(&mut self, jobs: Vec<Job>, disposition: &Disposition) {
        for job in jobs {
            self.settle(job, disposition.clone());
        }
    }

    pub(super) fn settle(&mut self, job: Job, disposition: Disposition) {
        let extension = &self.extension;
        if !matches!(transaction(LONGEST, |spi| try_settle(spi, extension, &job, &disposition)), Ok(true)) {
            self.unsettled.push((job, disposition));
        }
    }
}
