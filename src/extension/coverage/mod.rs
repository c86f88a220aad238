//! Counting the photos of a watched table: `clip_coverage`, whose cost does not grow with the table ([`sample`]);
//! `clip_count`, which is exact; and `clip_verify`, which reads the photos.
//!
//! A view reads whatever it can: a table that cannot be counted has no counts, and breaks and holds up no view ([`patience`]).
//! PostgreSQL checks the right to call a view's function as that of the view's reader, so that every role may call these: they
//! say nothing about a table to a role without the rights of its owner, but for counts, which monitoring may have too.

mod patience;
pub(crate) mod sample;

use std::time::Instant;

use pgrx::{IntoDatum, PgLogLevel, PgSqlErrorCode, pg_sys};

use self::patience::Patience;
use crate::attempt::with_lock_timeout;
use crate::catalog;
use crate::error::Error;
use crate::failure::Failure;
use crate::notice;
use crate::owned::{Pair, Right, Side, record, record_of};
use crate::spi::{Argument, Spi};
use crate::sql_function::sql_function;
use crate::time_limit::{attempt_for, is_out_of_time};
use crate::watch::extension_schema::ExtensionSchema;
use crate::watch::registry::argument;
use crate::watch::registry::oid_of;
use crate::watch::role::read_as;

sql_function! {
    /// `clip_count_photos(source regclass, OUT photos int8, OUT embedded int8, OUT missing int8, OUT stale int8,
    /// OUT is_estimate bool)`: NULL where they cannot be counted.
    fn clip_count_photos(fcinfo) {
        const COLUMNS: usize = 4;
        // SAFETY: SQL declares the function STRICT with this argument and this result.
        unsafe {
            let counts = count_for_a_view(fcinfo, |spi, extension, source| {
                let Some(pair) = Pair::by_right(spi, extension, Side::Source(source), Right::Count)? else {
                    return Ok(None);
                };
                if sample::are_large(spi, &[&pair.source, &pair.target])? {
                    return Ok(Some((sample::estimate(spi, &pair)?.to_vec(), true)));
                }
                Ok(Some((counts(spi, &pair, &covered(&pair), COLUMNS)?, false)))
            })?.flatten();
            let (counts, is_estimate) = match counts {
                Some((counts, is_estimate)) => (counts, is_estimate.into_datum()),
                None => (vec![None; COLUMNS], None),
            };
            let mut values: Vec<Option<pg_sys::Datum>> =
                counts.into_iter().map(|count| count.and_then(IntoDatum::into_datum)).collect();
            values.push(is_estimate);
            record_of(fcinfo, &values)
        }
    }
}

sql_function! {
    /// `clip_count(source regclass, OUT photos int8, OUT embedded int8, OUT missing int8, OUT stale int8)`
    fn clip_count(fcinfo) {
        const COLUMNS: usize = 4;
        // SAFETY: SQL declares the function STRICT with this argument and this result.
        unsafe { count_exactly(fcinfo, covered, COLUMNS) }
    }
}

sql_function! {
    /// `clip_verify(source regclass, OUT photos int8, OUT embedded int8, OUT missing int8, OUT stale int8,
    /// OUT orphaned int8, OUT other_project int8)`
    fn clip_verify(fcinfo) {
        const COLUMNS: usize = 6;
        // SAFETY: SQL declares the function STRICT with this argument and this result.
        unsafe { count_exactly(fcinfo, verified, COLUMNS) }
    }
}

/// The counts that a query returns for a watched table of the caller's; an error where the table cannot be read.
///
/// # Safety
/// `fcinfo` is that of a running STRICT function whose argument is a `regclass` and whose OUT parameters are so many `int8`.
unsafe fn count_exactly(
    fcinfo: pg_sys::FunctionCallInfo,
    query: fn(&Pair) -> String,
    columns: usize,
) -> Result<pg_sys::Datum, Error> {
    // SAFETY: the caller vouches for the function; `flinfo` is that of the running one.
    unsafe {
        let source = argument(fcinfo, 0).map_or(pg_sys::InvalidOid, oid_of);
        let spi = Spi::connect()?;
        let extension = ExtensionSchema::of((*(*fcinfo).flinfo).fn_oid)?;
        let pair = crate::backfill::watched(&spi, &extension, source)?;
        let counts = counts(&spi, &pair, &query(&pair), columns)?;
        drop(spi);
        record(fcinfo, &counts)
    }
}

/// Counts something of the table that is the first argument; nothing where that fails, or takes too long.
///
/// # Safety
/// `fcinfo` is that of a running STRICT function of the extension whose first argument is a `regclass`.
pub(crate) unsafe fn count_for_a_view<R>(
    fcinfo: pg_sys::FunctionCallInfo,
    count: impl FnOnce(&Spi, &ExtensionSchema, pg_sys::Oid) -> Result<R, Error>,
) -> Result<Option<R>, Error> {
    // SAFETY: the caller vouches for `fcinfo`.
    let (table, function) =
        unsafe { (argument(fcinfo, 0).map_or(pg_sys::InvalidOid, oid_of), (*(*fcinfo).flinfo).fn_oid) };
    let owner = catalog::owner_of(table).unwrap_or(pg_sys::InvalidOid);
    let Some(patience) = Patience::with(owner) else {
        return Ok(None);
    };
    let start = Instant::now();
    let counted = attempt_for(patience.limit, || {
        with_lock_timeout(patience.lock_timeout(), || {
            let spi = Spi::connect()?;
            let extension = ExtensionSchema::of(function)?;
            count(&spi, &extension, table)
        })
    })?;
    patience.spend(start.elapsed());
    Ok(counted.inspect_err(|failure| tell_why(table, failure)).ok())
}

/// A view that has no counts of a table says why, where that passes. A notice does not reach the server's log.
fn tell_why(table: pg_sys::Oid, failure: &Failure) {
    let why = match failure.code {
        PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE => "it is locked",
        _ if is_out_of_time(failure) => "that takes too long",
        _ => return,
    };
    let message = format!("pg_clip does not count the rows of table {}: {why}", catalog::name_of(table));
    notice::tell(PgLogLevel::NOTICE, &message, None);
}

/// The counts that a query returns as its first row, as the owner of the tables.
fn counts(spi: &Spi, pair: &Pair, query: &str, columns: usize) -> Result<Vec<Option<i64>>, Error> {
    let model = Argument::text_or_null(pair.model.as_deref());
    read_as(pair.source.owner, || {
        let rows = spi.run(query, &[model])?;
        let columns = 1..=i32::try_from(columns).expect("a few");
        Ok(columns.map(|column| rows.printed(column).and_then(|count| count.parse().ok())).collect())
    })
}

/// Photos, those with a vector, without one, and with one of another model than `$1`. No photo is read.
fn covered(pair: &Pair) -> String {
    let Pair { source, target, image, target_key, model_column, .. } = pair;
    format!(
        "SELECT count(*), count(t.{target_key}), count(*) - count(t.{target_key}),
            count(*) FILTER (WHERE t.{target_key} IS NOT NULL AND t.{model_column} IS DISTINCT FROM $1)
        FROM {} AS s LEFT JOIN {} AS t ON {} WHERE s.{image} IS NOT NULL",
        source.rows(),
        target.rows(),
        pair.has_vector()
    )
}

/// Photos, those with the vector of their bytes, without one, with one of other bytes or of another model than
/// `$1`; rows of no photo, and rows of a photo with another project. The bytes of references are not at hand.
fn verified(pair: &Pair) -> String {
    let Pair { source, target, image, target_key, checksum, model_column, .. } = pair;
    let same_bytes = if pair.is_by_reference {
        format!("t.{target_key} IS NOT NULL")
    } else {
        format!("t.{checksum} = sha256(s.{image})")
    };
    let is_right = format!("({same_bytes} AND t.{model_column} IS NOT DISTINCT FROM $1) IS TRUE");
    format!(
        "SELECT photos, embedded, missing, photos - embedded - missing, orphaned, other_project FROM (
            SELECT count(*) AS photos, count(*) FILTER (WHERE {is_right}) AS embedded,
                count(*) FILTER (WHERE t.{target_key} IS NULL) AS missing,
                count(*) FILTER (WHERE t.{target_key} IS NOT NULL AND {}) AS other_project
            FROM {} AS s LEFT JOIN {} AS t ON {} WHERE s.{image} IS NOT NULL) AS counted,
        LATERAL (
            SELECT count(*) AS orphaned FROM {} AS t
            WHERE NOT EXISTS (SELECT FROM {} AS s WHERE {} AND s.{image} IS NOT NULL)) AS left_over",
        pair.other_project(),
        source.rows(),
        target.rows(),
        pair.has_vector(),
        target.rows(),
        source.rows(),
        pair.same_key()
    )
}
