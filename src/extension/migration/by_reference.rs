//! Filling the second column of a table of references: a feeder brings the bytes of each photo once more.
//!
//! The code that feeds a photo writes both vectors ([`crate::watch::next`]). So the keys of rows without the second
//! one are queued, a few at a time, and the migration waits for the jobs.

use super::task::Task;
use crate::error::Error;
use crate::owned::{Key, Pair};
use crate::queue::backfill::Calls;
use crate::refusal::{Reason, refuse};
use crate::spi::Spi;
use crate::watch::next::NEXT_EMBEDDING;
use crate::watch::role::{read_as, with_portable_output};

/// The most photos that a photo uploaded meanwhile waits for.
const MOST: u32 = 128;

/// Queues rows that have no vector of the new model. Returns how many rows wait. An error where the queue has given
/// up all photos that are left.
pub(super) fn queue(spi: &Spi, task: &Task) -> Result<usize, Error> {
    let Task { pair, extension, .. } = task;
    task.next()?;
    let queue = Calls { spi, extension, source: pair.source.oid };
    let mut after = None;
    let mut dead = 0;
    loop {
        let keys = rows_without(spi, pair, after.as_ref())?;
        let Some(last) = keys.last().cloned() else {
            break;
        };
        queue.add(&keys)?;
        let jobs = queue.jobs(&keys)?;
        if !jobs.waiting.is_empty() {
            return Ok(jobs.waiting.len());
        }
        dead += jobs.dead.len();
        after = Some(last);
    }
    if dead == 0 {
        return Ok(0);
    }
    let message = format!("{dead} photos of table {} cannot be had or embedded", pair.source.name);
    Err(refuse(Reason::NotReady, message).with_detail("clip_failures says why.").with_hint(
        "Mend them and call clip_retry, or delete them, then call clip_migrate again. Finished rows are kept.",
    ))
}

fn rows_without(spi: &Spi, pair: &Pair, after: Option<&Key>) -> Result<Vec<Key>, Error> {
    let Pair { target, target_key, embedding, key_type, .. } = pair;
    let query = format!(
        "SELECT t.{target_key} FROM {} AS t
        WHERE t.{embedding} IS NOT NULL AND t.{NEXT_EMBEDDING} IS NULL AND t.{target_key} IS NOT NULL
            AND ($1 IS NULL OR t.{target_key} {} $1)
        ORDER BY t.{target_key} LIMIT {MOST}",
        target.name, key_type.above
    );
    read_as(target.owner, || {
        with_portable_output(|| {
            let rows = spi.run(&query, &[key_type.argument(after)])?;
            Ok(rows.all_printed_raw(1).into_iter().flatten().collect())
        })
    })
}
