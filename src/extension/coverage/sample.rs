//! Counting the photos of a table that is too large to be read for a view.
//!
//! How many photos there are is the planner's estimate. Which share of them has no embedding is seen in a sample of
//! pages, whose photos are looked up in the target by its unique index. So the number of pages read does not grow
//! with the table. Photos count as missing only where the sample has a missing one: no sample of a table without
//! gaps has one.

use crate::error::Error;
use crate::owned::{Pair, Table};
use crate::spi::{Argument, Spi};
use crate::watch::role::read_as;

/// Source and target are counted, and not sampled, as long as they have at most so many pages together: 32 MB.
const MOST_PAGES: i64 = 4096;
/// About so many photos are looked up.
const PHOTOS: f64 = 1000.0;
/// On average. That no page is chosen is too unlikely to be met.
const FEWEST_PAGES: f64 = 20.0;
const MOST_SAMPLED_PAGES: f64 = 1000.0;

/// Photos, those with an embedding, without one, and with one of another model.
pub(super) type Counts = [Option<i64>; 4];

/// Whether reading these tables costs more than a view may cost.
pub(crate) fn are_large(spi: &Spi, tables: &[&Table]) -> Result<bool, Error> {
    let mut all = 0;
    for table in tables {
        all += pages(spi, table)?;
    }
    Ok(all > MOST_PAGES)
}

/// Estimates. All but the first are NULL where the sample has no photo.
pub(super) fn estimate(spi: &Spi, pair: &Pair) -> Result<Counts, Error> {
    let Pair { source, target, image, target_key, model_column, .. } = pair;
    let photos = rows(spi, source, &format!("{} AS s WHERE s.{image} IS NOT NULL", source.rows()))?;
    let percent = percent(spi, source, photos)?;
    // Each photo is looked up by itself: a join could read the whole target.
    let query = format!(
        "SELECT count(*), count(*) FILTER (WHERE is_there IS NULL),
            count(*) FILTER (WHERE is_there AND model IS DISTINCT FROM $1)
        FROM {} AS s TABLESAMPLE SYSTEM ($2)
        LEFT JOIN LATERAL (
            SELECT t.{target_key} IS NOT NULL, t.{model_column} FROM {} AS t WHERE {} LIMIT 1
        ) AS t (is_there, model) ON true
        WHERE s.{image} IS NOT NULL",
        source.rows(),
        target.rows(),
        pair.has_vector()
    );
    let arguments = [Argument::text_or_null(pair.model.as_deref()), Argument::float8(percent)];
    let [seen, missing, stale] = read_as(source.owner, || {
        let row = spi.run_through_indexes(&query, &arguments)?;
        Ok::<_, Error>(
            [row.get::<i64>(1)?, row.get::<i64>(2)?, row.get::<i64>(3)?].map(Option::unwrap_or_default),
        )
    })?;
    let share = |some: i64| (seen > 0).then(|| scale(photos, some, seen));
    let missing = share(missing);
    Ok([Some(photos), missing.map(|missing| photos - missing), missing, share(stale)])
}

/// How many rows have the vector of a migration's new model, and how many have a vector.
pub(crate) fn estimate_migrated(
    spi: &Spi,
    target: &Table,
    embedding: &str,
    next: &str,
) -> Result<[i64; 2], Error> {
    let rows = rows(spi, target, &format!("{} AS t WHERE t.{embedding} IS NOT NULL", target.rows()))?;
    let percent = percent(spi, target, rows)?;
    let query = format!(
        "SELECT count(*), count(t.{next}) FROM {} AS t TABLESAMPLE SYSTEM ($1) WHERE t.{embedding} IS NOT NULL",
        target.rows()
    );
    let [seen, done] = read_as(target.owner, || {
        let row = spi.run(&query, &[Argument::float8(percent)])?;
        Ok::<_, Error>([row.get::<i64>(1)?, row.get::<i64>(2)?].map(Option::unwrap_or_default))
    })?;
    Ok([if seen > 0 { scale(rows, done, seen) } else { 0 }, rows])
}

/// The share of a table's pages that holds about so many of its rows as are looked at.
fn percent(spi: &Spi, table: &Table, rows: i64) -> Result<f64, Error> {
    let pages = pages(spi, table)?.max(1) as f64;
    let sampled = (pages * PHOTOS / rows.max(1) as f64).clamp(FEWEST_PAGES, MOST_SAMPLED_PAGES);
    Ok((100.0 * sampled / pages).min(100.0))
}

/// The part of `whole` that is as `some` is of `seen`; at least 1 where `some` is above 0.
fn scale(whole: i64, some: i64, seen: i64) -> i64 {
    let part = i128::from(whole) * i128::from(some) / i128::from(seen);
    i64::try_from(part).unwrap_or(whole).max(i64::from(some > 0)).min(whole)
}

/// The planner's estimate of the rows that `SELECT FROM` something returns, as the owner of the table: from the statistics of the
/// last ANALYZE or VACUUM and the size that the table has now.
fn rows(spi: &Spi, table: &Table, from: &str) -> Result<i64, Error> {
    let plan = read_as(table.owner, || {
        Ok::<_, Error>(spi.run(&format!("EXPLAIN (FORMAT JSON) SELECT FROM {from}"), &[])?.printed(1))
    })?;
    Ok(plan.as_deref().and_then(planned_rows).unwrap_or_default())
}

/// The rows of a plan in JSON.
pub(crate) fn planned_rows(plan: &str) -> Option<i64> {
    let plan: serde_json::Value = serde_json::from_str(plan).ok()?;
    let rows = plan.get(0)?.get("Plan")?.get("Plan Rows")?;
    // PostgreSQL says no fraction of a row.
    rows.as_i64().or_else(|| rows.as_f64().map(|rows| rows as i64))
}

/// The pages of a table with its partitions, without TOAST.
fn pages(spi: &Spi, table: &Table) -> Result<i64, Error> {
    const PAGES: &str = "
        WITH RECURSIVE parts (part) AS (
            SELECT $1::oid UNION SELECT inhrelid FROM pg_inherits JOIN parts ON inhparent = part AND $2
        )
        SELECT coalesce(sum(pg_relation_size(part)), 0)::int8 / current_setting('block_size')::int8 FROM parts";
    read_as(table.owner, || {
        let arguments = [Argument::oid(table.oid), Argument::bool(table.is_partitioned())];
        Ok(spi.run_now(PAGES, &arguments)?.get::<i64>(1)?.unwrap_or_default())
    })
}
