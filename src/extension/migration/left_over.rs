//! Why a round left rows without a vector of the new model.

use std::ffi::CString;

use super::task::Task;
use crate::error::Error;
use crate::owned::{Key, Pair};
use crate::queue::backfill::Calls;
use crate::refusal::{Reason, refuse};
use crate::spi::Spi;
use crate::watch::next::NEXT_EMBEDDING;
use crate::watch::role::{read_as, with_portable_output};

/// The reasons why rows wait.
pub(super) enum LeftOver {
    /// For the queue: their photos have changed.
    Queued,
    /// For transactions that have locked them, or for nothing any more.
    Locked,
}

/// Rows that are looked at in one go.
const MOST: u32 = 1000;

/// Refuses to go on where rows cannot be embedded with the new model.
pub(super) fn check(spi: &Spi, task: &Task, failure: Option<&str>) -> Result<LeftOver, Error> {
    let target = &task.pair.target;
    if let Some(failure) = failure {
        let message = format!("photos of table {} cannot be embedded: {failure}", target.name);
        return Err(refuse(Reason::NotReady, message).with_hint(format!("Mend or delete them, {AGAIN}")));
    }
    if task.next.is_none() {
        return Ok(LeftOver::Locked);
    }
    let before = without_photo(spi, &task.pair)?;
    if before.is_empty() {
        return Ok(LeftOver::Locked);
    }
    let keys: Vec<Key> = before.iter().filter_map(|(key, _)| key.clone()).collect();
    let jobs = Calls { spi, extension: &task.extension, source: task.pair.source.oid }.jobs(&keys)?;
    // A job may have ended since the rows were looked at. Then its row has another checksum now.
    let still = without_photo(spi, &task.pair)?;
    let is_lost =
        |row: &Row| row.0.as_ref().is_none_or(|key| !jobs.waiting.contains(key)) && still.contains(row);
    if before.iter().any(is_lost) { Err(refuse_lost(spi, &task.pair)?) } else { Ok(LeftOver::Queued) }
}

const AGAIN: &str = "then call clip_migrate again. Finished rows are kept.";

/// The key and the checksum of a row.
type Row = (Option<Key>, Option<CString>);

/// Some rows without a photo that has their bytes.
fn without_photo(spi: &Spi, pair: &Pair) -> Result<Vec<Row>, Error> {
    let Pair { target_key, checksum, .. } = pair;
    let query = format!(
        "SELECT t.{target_key}, t.{checksum} {} ORDER BY t.{target_key} LIMIT {MOST}",
        rows_without_photo(pair)
    );
    read_as(pair.target.owner, || {
        with_portable_output(|| {
            let rows = spi.run(&query, &[])?;
            Ok(rows.all_printed_raw(1).into_iter().zip(rows.all_printed_raw(2)).collect())
        })
    })
}

fn refuse_lost(spi: &Spi, pair: &Pair) -> Result<Error, Error> {
    let query = format!("SELECT count(*) {}", rows_without_photo(pair));
    let count = read_as(pair.target.owner, || Ok::<_, Error>(spi.run(&query, &[])?.printed(1)))?;
    let message = format!(
        "{} rows of table {} have no photo with their checksum",
        count.unwrap_or_default(),
        pair.target.name
    );
    Ok(refuse(Reason::NotReady, message)
        .with_detail(format!("The photos are looked for in table {}.", pair.source.name))
        .with_hint(format!("Delete the rows, or embed their photos anew, {AGAIN}")))
}

fn rows_without_photo(pair: &Pair) -> String {
    let Pair { source, target, embedding, image, checksum, .. } = pair;
    format!(
        "FROM {} AS t WHERE t.{embedding} IS NOT NULL AND t.{NEXT_EMBEDDING} IS NULL AND NOT EXISTS (
            SELECT FROM {} AS s WHERE {} AND sha256(s.{image}) = t.{checksum})",
        target.name,
        source.name,
        pair.same_key()
    )
}
