//! The two lanes of a database's queue, each with a worker of its own.
//!
//! A target whose triggers sleep would stop the photos of all other tables, because a worker can do one thing at a
//! time. So the prompt lane gives a transaction little time. A table that takes more goes to the slow lane, whose
//! worker waits longer, and where only slow tables wait for one another.

use std::time::Duration;

use crate::batch_limits::MOST_PHOTOS;

/// A lane, by how long its worker waits for a table.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    Prompt,
    Slow,
}

impl Lane {
    pub(super) const ALL: [Lane; 2] = [Lane::Prompt, Lane::Slow];

    /// How long a transaction on a table may take.
    pub(super) fn patience(self) -> Duration {
        match self {
            Lane::Prompt => Duration::from_millis(500),
            Lane::Slow => Duration::from_secs(60),
        }
    }

    /// The most photos that are embedded at once. A transaction writes their vectors.
    pub(super) fn batch(self) -> i64 {
        match self {
            Lane::Prompt => MOST_PHOTOS as i64,
            Lane::Slow => 4,
        }
    }

    /// The most batches that the embedder has at once: the next one where time counts. Where a transaction may take long, the
    /// answers would wait for it.
    pub(super) fn batches_at_once(self) -> usize {
        match self {
            Lane::Prompt => 2,
            Lane::Slow => 1,
        }
    }

    /// The jobs that wait in this lane, as a condition of SQL.
    pub(super) fn condition(self) -> &'static str {
        match self {
            Lane::Prompt => "NOT dead AND NOT slow",
            Lane::Slow => "NOT dead AND slow",
        }
    }

    /// Stands in names of files and in messages to the launcher.
    pub(super) fn letter(self) -> char {
        match self {
            Lane::Prompt => 'p',
            Lane::Slow => 's',
        }
    }

    pub(super) fn from_letter(letter: u8) -> Option<Lane> {
        Lane::ALL.into_iter().find(|lane| lane.letter() == char::from(letter))
    }
}
