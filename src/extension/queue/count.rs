//! Counting the jobs of a table for frequent callers: exactly up to a bound, and the planner's estimate above it.

use pgrx::{IntoDatum, pg_sys};

use super::lane::Lane;
use super::sql;
use crate::catalog;
use crate::coverage::count_for_a_view;
use crate::coverage::sample::planned_rows;
use crate::error::Error;
use crate::owned::record_of;
use crate::spi::{Argument, Spi};
use crate::sql_function::sql_function;
use crate::watch::extension_schema::ExtensionSchema;
use crate::watch::registry::check_owner;
use crate::watch::role::act_as;

/// More jobs than this are not counted.
const MOST: i64 = 10_000;

sql_function! {
    /// `clip_count_queue(source regclass, OUT queued int8, OUT failed int8, OUT oldest_waiting timestamptz)`: NULL for a role
    /// without the rights of the table's owner or of `pg_read_all_stats`. No lock is taken: jobs are counted of a table that is locked or gone.
    fn clip_count_queue(fcinfo) {
        // SAFETY: SQL declares the function STRICT with this argument and this result.
        unsafe {
            let counts = count_for_a_view(fcinfo, |spi, extension, source| {
                let monitors = pg_sys::has_privs_of_role(
                    pg_sys::GetUserId(),
                    pg_sys::Oid::from(pg_sys::ROLE_PG_READ_ALL_STATS),
                );
                if !monitors && catalog::owner_of(source).is_some() {
                    check_owner(source)?;
                }
                let (queued, oldest) = waiting(spi, extension, source)?;
                Ok([queued.into_datum(), failed(spi, extension, source)?.into_datum(), oldest])
            })?;
            record_of(fcinfo, &counts.unwrap_or([None; 3]))
        }
    }
}

/// How many jobs of a table are not dead, and since when the oldest of them waits. Only the jobs that are due first
/// are counted.
pub(in crate::queue) fn waiting(
    spi: &Spi,
    extension: &ExtensionSchema,
    source: pg_sys::Oid,
) -> Result<(i64, Option<pg_sys::Datum>), Error> {
    let statement = sql::count_waiting(&extension.schema, Lane::ALL, MOST + 1);
    let (counted, oldest) = act_as(extension.owner, || {
        let row = spi.run_by_index(&statement, &[Argument::oid(source)])?;
        Ok::<_, Error>((row.get::<i64>(1)?.unwrap_or_default(), row.value(2, pg_sys::TIMESTAMPTZOID)?))
    })?;
    Ok((estimate(spi, extension, source, counted, "NOT dead")?, oldest))
}

fn failed(spi: &Spi, extension: &ExtensionSchema, source: pg_sys::Oid) -> Result<i64, Error> {
    let statement = sql::count_failed(&extension.schema, MOST + 1);
    let counted = act_as(extension.owner, || {
        let row = spi.run_by_index(&statement, &[Argument::oid(source)])?;
        Ok::<_, Error>(row.get::<i64>(1)?.unwrap_or_default())
    })?;
    estimate(spi, extension, source, counted, "dead")
}

/// The count, or an estimate where the count has stopped at its bound.
fn estimate(
    spi: &Spi,
    extension: &ExtensionSchema,
    source: pg_sys::Oid,
    counted: i64,
    condition: &str,
) -> Result<i64, Error> {
    if counted <= MOST {
        return Ok(counted);
    }
    let statement = format!(
        "EXPLAIN (FORMAT JSON) SELECT FROM {}.clip_queue WHERE source = {}::oid AND {condition}",
        extension.schema,
        u32::from(source)
    );
    let plan = act_as(extension.owner, || Ok::<_, Error>(spi.run(&statement, &[])?.printed(1)))?;
    Ok(plan.as_deref().and_then(planned_rows).unwrap_or_default().max(counted))
}
