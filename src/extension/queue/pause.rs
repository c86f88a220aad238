//! Tables that the worker leaves alone for a while, and tables that are slow.
//!
//! A worker remembers its pauses by itself. Pauses that are to outlive it, or to be seen, stand in
//! `clip_queue_pauses`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pgrx::pg_sys;

use super::sql;
use crate::error::Error;
use crate::failure::Failure;
use crate::spi::{Argument, Spi};
use crate::watch::extension_schema::ExtensionSchema;
use crate::watch::role::act_as;

/// The pauses of tables that were locked, slow or broken: each is twice as long as the one before.
#[derive(Default)]
pub(super) struct Pauses {
    of: HashMap<pg_sys::Oid, Pause>,
}

struct Pause {
    until: Instant,
    length: Duration,
    reason: String,
}

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(30);
/// A table that went well for so long begins with the first pause again.
const FORGOTTEN: Duration = Duration::from_secs(60);

impl Pauses {
    /// Puts a table aside, and returns for how long.
    pub(super) fn add(&mut self, source: pg_sys::Oid, failure: &Failure) -> Duration {
        let now = Instant::now();
        let before = self.of.get(&source).filter(|pause| pause.until + FORGOTTEN > now);
        let length = before.map_or(FIRST, |pause| (2 * pause.length).min(LONGEST));
        self.of.insert(source, Pause { until: now + length, length, reason: failure.message.clone() });
        length
    }

    /// Forgets the pauses of a table: it went well.
    pub(super) fn end(&mut self, source: pg_sys::Oid) {
        self.of.remove(&source);
    }

    /// Until when a table is left alone, where it is.
    pub(super) fn until(&self, source: pg_sys::Oid) -> Option<Instant> {
        self.of.get(&source).map(|pause| pause.until).filter(|until| *until > Instant::now())
    }

    /// Why tables wait, for `pg_stat_activity`.
    pub(super) fn reasons(&self) -> String {
        let now = Instant::now();
        let waiting = self.of.values().filter(|pause| pause.until > now);
        let mut reasons: Vec<&str> = waiting.map(|pause| pause.reason.as_str()).collect();
        reasons.sort_unstable();
        reasons.dedup();
        reasons.join("; ")
    }

    /// Forgets tables that have no jobs any more.
    pub(super) fn retain(&mut self, has_jobs: impl Fn(pg_sys::Oid) -> bool) {
        self.of.retain(|source, _| has_jobs(*source));
    }
}

/// Writes down that photos of a table wait, why, and for how long.
pub(super) fn note(
    spi: &Spi,
    extension: &ExtensionSchema,
    source: pg_sys::Oid,
    reason: &str,
    length: Duration,
) -> Result<(), Error> {
    let arguments =
        [Argument::oid(source), Argument::message(reason), Argument::float8(length.as_secs_f64())];
    act_as(extension.owner, || spi.run_kept(&sql::note_pause(&extension.schema), &arguments))?;
    Ok(())
}

/// Writes down that a table is slow: for some minutes, its photos go to the slow lane.
pub(super) fn note_slow(spi: &Spi, extension: &ExtensionSchema, source: pg_sys::Oid) -> Result<(), Error> {
    act_as(extension.owner, || spi.run_kept(&sql::note_slow(&extension.schema), &[Argument::oid(source)]))?;
    Ok(())
}

/// Whether a table is known to be slow.
pub(super) fn is_slow(spi: &Spi, extension: &ExtensionSchema, source: pg_sys::Oid) -> Result<bool, Error> {
    let rows =
        act_as(extension.owner, || spi.run_kept(&sql::is_slow(&extension.schema), &[Argument::oid(source)]))?;
    Ok(rows.len() > 0)
}

/// Has the slow lane take over the photos of a table.
pub(super) fn slow_down(spi: &Spi, extension: &ExtensionSchema, source: pg_sys::Oid) -> Result<(), Error> {
    act_as(extension.owner, || spi.run_kept(&sql::slow_down(&extension.schema), &[Argument::oid(source)]))?;
    Ok(())
}
