//! Turns in the slow lane, by time: a table that takes a minute for a photo would otherwise cost each of the others a minute
//! for each of their turns.

use std::collections::HashMap;
use std::time::Duration;

use pgrx::pg_sys;

use super::known::Waiting;

/// How long the lane has been at work on the tables that wait.
#[derive(Default)]
pub(super) struct Spent {
    on: HashMap<pg_sys::Oid, Duration>,
}

impl Spent {
    pub(super) fn add(&mut self, source: pg_sys::Oid, time: Duration) {
        *self.on.entry(source).or_default() += time;
    }

    /// Forgets tables that wait no more. A new table starts with the least time that any table has had.
    pub(super) fn follow(&mut self, waiting: &[Waiting]) {
        self.on.retain(|source, _| waiting.iter().any(|waiting| waiting.source == *source));
        let least = self.on.values().min().copied().unwrap_or_default();
        for Waiting { source, .. } in waiting {
            self.on.entry(*source).or_insert(least);
        }
    }

    /// Of the tables that are due, the one that has had the least time.
    pub(super) fn next(&self, due: &[&Waiting]) -> Option<pg_sys::Oid> {
        let spent = |waiting: &&&Waiting| (self.on.get(&waiting.source), u32::from(waiting.source));
        due.iter().min_by_key(spent).map(|waiting| waiting.source)
    }
}
