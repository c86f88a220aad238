//! What a worker knows of the queue from its last whole look.
//!
//! A job that is done leaves entries at the front of the index of those that are due, and they stay while any snapshot is
//! older than the job's end: that of a dump, or of a `CREATE INDEX` of another table. A look at the whole queue reads all of
//! them. So a worker claims on from the job that it found last, and looks at the whole queue again after a hundred times
//! as long as the last such look took, and at least twice a second. A table whose first photo comes, and a job that is
//! due before the others, wait that long at most.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pgrx::pg_sys;

/// A table with jobs.
pub(super) struct Waiting {
    pub(super) source: pg_sys::Oid,
    /// The owner of the table; that of no role where the table is gone.
    pub(super) owner: pg_sys::Oid,
    /// In how long its next job is due.
    pub(super) due_in: Duration,
}

/// How many times as long as a whole look takes its result is good.
const LENGTHS: u32 = 100;
/// How long it is good at most.
const LONGEST: Duration = Duration::from_millis(500);

/// The tables that had jobs at the last whole look, and where their jobs begin.
#[derive(Default)]
pub(super) struct Known {
    pub(super) waiting: Vec<Waiting>,
    /// Whether the slow lane had any.
    pub(super) has_slow: bool,
    /// The tables whose jobs the slow lane has taken over since.
    moved: Vec<pg_sys::Oid>,
    good_until: Option<Instant>,
    fronts: HashMap<pg_sys::Oid, f64>,
}

impl Known {
    /// From a whole look that began at `began`.
    pub(super) fn by_whole_look(waiting: Vec<Waiting>, has_slow: bool, began: Instant) -> Known {
        let now = Instant::now();
        let good_until = Some(now + LONGEST.min(LENGTHS * (now - began)));
        Known { waiting, has_slow, good_until, ..Known::default() }
    }

    pub(super) fn is_good(&self) -> bool {
        self.good_until.is_some_and(|end| Instant::now() < end)
    }

    /// Remembers that the slow lane has taken over the jobs of a table.
    pub(super) fn moved(&mut self, source: pg_sys::Oid) {
        self.moved.push(source);
        self.has_slow = true;
    }

    pub(super) fn is_moved(&self, source: pg_sys::Oid) -> bool {
        self.moved.contains(&source)
    }

    /// Since which second of the epoch there may be a job of a table that is due.
    pub(super) fn front(&self, source: pg_sys::Oid) -> f64 {
        self.fronts.get(&source).copied().unwrap_or(f64::NEG_INFINITY)
    }

    /// Remembers when the first job that was found is due.
    pub(super) fn begin_at(&mut self, source: pg_sys::Oid, due: Option<f64>) {
        self.fronts.extend(due.map(|due| (source, due)));
    }

    /// Has the next look be a whole one.
    pub(super) fn forget(&mut self) {
        *self = Known::default();
    }
}
