//! Taking jobs: owners take turns, and so do the tables of each owner.
//!
//! A claim is of one table, so that a table that is locked, slow or broken delays no other: the worker puts it
//! aside with a pause of its own, see [`super::pause`].

use std::collections::HashMap;
use std::time::Duration;

use pgrx::pg_sys;

use super::known::{Known, Waiting};
use super::lane::Lane;
use super::sql;
use crate::error::Error;
use crate::spi::{Argument, Spi};
use crate::watch::extension_schema::ExtensionSchema;
use crate::watch::role::act_as;

/// A job that the worker has claimed.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) source: pg_sys::Oid,
    /// The key as its type prints it.
    pub(super) key: String,
    /// Which request the job stands for: it differs once the photo has changed again.
    pub(super) generation: String,
    /// How often it was tried, this claim included.
    pub(super) attempts: i32,
}

impl Job {
    /// The parameters `$1` to `$3` of the statements on one job.
    pub(super) fn identity(&self) -> [Argument; 3] {
        [Argument::oid(self.source), Argument::text(&self.key), Argument::text(&self.generation)]
    }
}

/// The jobs that workers before this one have claimed. Only the one that has the lane's lock may call this.
pub(super) fn left_behind(spi: &Spi, extension: &ExtensionSchema, lane: Lane) -> Result<Vec<Job>, Error> {
    let rows = act_as(extension.owner, || spi.run(&sql::claimed(&extension.schema, lane), &[]))?;
    let [sources, keys, generations, attempts] = [1, 2, 3, 4].map(|column| rows.all_printed(column));
    let jobs = sources.into_iter().zip(keys).zip(generations).zip(attempts);
    Ok(jobs
        .map(|(((source, key), generation), attempts)| Job {
            source: oid_of(source),
            key: key.unwrap_or_default(),
            generation: generation.unwrap_or_default(),
            attempts: attempts.and_then(|attempts| attempts.parse().ok()).unwrap_or_default(),
        })
        .collect())
}

/// The tables that have jobs in a lane.
pub(super) fn waiting(spi: &Spi, extension: &ExtensionSchema, lane: Lane) -> Result<Vec<Waiting>, Error> {
    let rows = act_as(extension.owner, || spi.run_kept(&sql::waiting(&extension.schema, lane), &[]))?;
    let [sources, owners, seconds] = [1, 2, 3].map(|column| rows.all_printed(column));
    let waiting = sources.into_iter().zip(owners).zip(seconds).map(|((source, owner), seconds)| {
        let seconds = seconds.and_then(|seconds| seconds.parse().ok()).unwrap_or(0.0);
        Waiting { source: oid_of(source), owner: oid_of(owner), due_in: Duration::from_secs_f64(seconds) }
    });
    Ok(waiting.collect())
}

/// Jobs of one table that the worker has claimed.
pub(super) struct Claimed {
    pub(super) jobs: Vec<Job>,
    /// Whether it is one job that is to be embedded alone.
    pub(super) is_alone: bool,
}

/// The result of a claim.
pub(super) enum Claim {
    Jobs(Claimed),
    /// Other transactions have the jobs locked.
    Locked,
    /// The next job is to be embedded alone, and the embedder has other photos.
    Later,
}

/// Claims the next jobs of a table that are known: one that is to be embedded alone, if `may_be_alone`, or as many other
/// jobs as the lane takes at once.
pub(super) fn claim(
    spi: &Spi,
    extension: &ExtensionSchema,
    lane: Lane,
    known: &mut Known,
    source: pg_sys::Oid,
    may_be_alone: bool,
) -> Result<Claim, Error> {
    act_as(extension.owner, || {
        let due = sql::due(&extension.schema, lane);
        let front = Argument::float8(known.front(source));
        let due = spi.run_kept(&due, &[Argument::oid(source), Argument::int8(lane.batch()), front])?;
        if due.len() > 0 {
            known.begin_at(source, due.get(3)?);
        }
        let suspects = due.all_printed(2).into_iter().map(|suspect| suspect.as_deref() == Some("t"));
        let suspects: Vec<bool> = suspects.collect();
        let (count, is_alone) = match suspects.first() {
            None => return Ok(Claim::Locked),
            Some(true) if !may_be_alone => return Ok(Claim::Later),
            Some(true) => (1, true),
            Some(false) => (suspects.iter().take_while(|suspect| !**suspect).count(), false),
        };
        let keys: Vec<String> = due.all_printed(1).into_iter().take(count).flatten().collect();
        let taken = [Argument::oid(source), Argument::texts(&keys)];
        let claimed = spi.run_by_index(&sql::claim(&extension.schema), &taken)?;
        let [keys, generations, attempts] = [1, 2, 3].map(|column| claimed.all_printed(column));
        let jobs = keys.into_iter().zip(generations).zip(attempts);
        let jobs: Vec<Job> = jobs
            .map(|((key, generation), attempts)| Job {
                source,
                key: key.unwrap_or_default(),
                generation: generation.unwrap_or_default(),
                attempts: attempts.and_then(|attempts| attempts.parse().ok()).unwrap_or_default(),
            })
            .collect();
        Ok(if jobs.is_empty() { Claim::Locked } else { Claim::Jobs(Claimed { jobs, is_alone }) })
    })
}

/// The owner and the tables that had the last turns.
#[derive(Clone, Default)]
pub(super) struct Turns {
    owner: u32,
    /// The table of each owner that had the last turn.
    sources: HashMap<u32, u32>,
}

impl Turns {
    /// The next of the tables that are due: the next table of the next owner.
    pub(super) fn next(&mut self, due: &[&Waiting]) -> Option<pg_sys::Oid> {
        let owner = after(self.owner, due.iter().map(|waiting| waiting.owner.into()))?;
        let of_owner = due.iter().filter(|waiting| u32::from(waiting.owner) == owner);
        let last = self.sources.get(&owner).copied().unwrap_or_default();
        let source = after(last, of_owner.map(|waiting| waiting.source.into()))?;
        self.owner = owner;
        self.sources.retain(|owner, _| due.iter().any(|waiting| u32::from(waiting.owner) == *owner));
        self.sources.insert(owner, source);
        Some(pg_sys::Oid::from(source))
    }
}

/// The least number above `last`, or else the least of all.
fn after(last: u32, numbers: impl Iterator<Item = u32> + Clone) -> Option<u32> {
    numbers.clone().filter(|number| *number > last).min().or_else(|| numbers.min())
}

fn oid_of(text: Option<String>) -> pg_sys::Oid {
    pg_sys::Oid::from(text.and_then(|text| text.parse::<u32>().ok()).unwrap_or_default())
}
