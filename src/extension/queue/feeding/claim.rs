//! Claiming photos that a feeder is to fetch: `clip_claim_references`, and counting them: `clip_count_references`.

use std::time::Duration;

use pgrx::{FromDatum, PgLogLevel, pg_sys};

use super::{grant, sql};
use crate::attempt::{attempt, of_a_table};
use crate::catalog;
use crate::error::Error;
use crate::notice;
use crate::owned::record;
use crate::queue::claim::Job;
use crate::queue::count::waiting;
use crate::queue::failure::{Disposition, is_of_table, is_passing, settle};
use crate::queue::pause;
use crate::queue::read::IMAGE;
use crate::refusal::{Reason, refuse};
use crate::settings;
use crate::spi::{Argument, Rows, Spi, text_datum};
use crate::sql_function::sql_function;
use crate::watch::extension_schema::ExtensionSchema;
use crate::watch::registry::{argument, oid_of};
use crate::watch::role::{PortableOutput, act_as};
use crate::watch::sql::photo;
use crate::watch::watched::{LockWait, Watched};

/// The most jobs, and the longest lease, that a feeder may ask for.
const MOST_JOBS: i32 = 1000;
const LONGEST_LEASE: f64 = 3600.0;
/// A table that cannot be read is left alone for so long.
const PAUSE: Duration = Duration::from_secs(10);

sql_function! {
    /// `clip_claim_references(source regclass, most int4, lease float8) → TABLE (key text, generation text,
    /// reference text)`: the reference is NULL where there is no photo any more, which is a job like others.
    fn clip_claim_references(fcinfo) {
        const COLUMNS: usize = 3;
        // SAFETY: SQL declares the function STRICT with these arguments; `flinfo` is that of the running function.
        let (source, most, lease, function) = unsafe {
            pg_sys::PreventCommandIfReadOnly(c"clip_claim_references()".as_ptr());
            let argument = |index| argument(fcinfo, index).unwrap_or(0.into());
            let most = i32::from_datum(argument(1), false).unwrap_or_default();
            let lease = f64::from_datum(argument(2), false).unwrap_or_default();
            (oid_of(argument(0)), most, lease, (*(*fcinfo).flinfo).fn_oid)
        };
        if !((1..=MOST_JOBS).contains(&most) && lease > 0.0 && lease <= LONGEST_LEASE) {
            let message = format!("a claim is of 1 to {MOST_JOBS} photos, for up to {LONGEST_LEASE} seconds");
            return Err(refuse(Reason::InvalidParameter, message));
        }
        let claimed = {
            let spi = Spi::connect()?;
            let extension = ExtensionSchema::of(function)?;
            grant::check(&spi, &extension, source)?;
            claim_unless_paused(&spi, &extension, source, most, lease)?
        };
        // SAFETY: the function returns a set of three texts, and its result is set once.
        unsafe {
            pg_sys::InitMaterializedSRF(fcinfo, 0);
            let result = (*fcinfo).resultinfo.cast::<pg_sys::ReturnSetInfo>();
            for Claimed { key, generation, reference } in &claimed {
                let texts = [Some(key), Some(generation), reference.as_ref()];
                let mut values: [pg_sys::Datum; COLUMNS] =
                    texts.map(|text| text.map_or(0.into(), |text| text_datum(text)));
                let mut nulls = texts.map(|text| text.is_none());
                pg_sys::tuplestore_putvalues(
                    (*result).setResult,
                    (*result).setDesc,
                    values.as_mut_ptr(),
                    nulls.as_mut_ptr(),
                );
            }
        }
        Ok(pg_sys::Datum::from(0))
    }
}

sql_function! {
    /// `clip_count_references(source regclass, OUT waiting int8, OUT max_image_bytes int8)`
    fn clip_count_references(fcinfo) {
        // SAFETY: SQL declares the function STRICT with this argument and this result; `flinfo` is that of the running
        // function.
        unsafe {
            let source = argument(fcinfo, 0).map_or(pg_sys::InvalidOid, oid_of);
            let waiting = {
                let spi = Spi::connect()?;
                let extension = ExtensionSchema::of((*(*fcinfo).flinfo).fn_oid)?;
                grant::check(&spi, &extension, source)?;
                Some(waiting(&spi, &extension, source)?.0)
            };
            record(fcinfo, &[waiting, i64::try_from(settings::max_image_bytes()).ok()])
        }
    }
}

struct Claimed {
    key: String,
    generation: String,
    reference: Option<String>,
}

/// Claims nothing of a table that cannot be read, and writes down why: its owner sees it in `clip_coverage`.
fn claim_unless_paused(
    spi: &Spi,
    extension: &ExtensionSchema,
    source: pg_sys::Oid,
    most: i32,
    lease: f64,
) -> Result<Vec<Claimed>, Error> {
    let paused = sql::is_paused(&extension.schema);
    if act_as(extension.owner, || spi.run_kept(&paused, &[Argument::oid(source)]))?.len() > 0 {
        return Ok(Vec::new());
    }
    match attempt(of_a_table, || claim(spi, extension, source, most, lease))? {
        Ok(claimed) => Ok(claimed),
        Err(failure) if is_passing(failure.code) => Ok(Vec::new()),
        Err(failure) => {
            let table = catalog::name_of(source);
            // What a user's code said is its owner's to read.
            let message =
                format!("photos of table {table} wait after an error with SQLSTATE {}", failure.sqlstate());
            notice::tell(PgLogLevel::WARNING, &message, Some("Its owner sees the reason in clip_coverage."));
            pause::note(spi, extension, source, &failure.message, PAUSE)?;
            Ok(Vec::new())
        }
    }
}

fn claim(
    spi: &Spi,
    extension: &ExtensionSchema,
    source: pg_sys::Oid,
    most: i32,
    lease: f64,
) -> Result<Vec<Claimed>, Error> {
    let Some(watched) = Watched::to_embed(spi, extension, source, LockWait::None)? else {
        return Ok(Vec::new());
    };
    let jobs = act_as(extension.owner, || {
        let arguments = [Argument::oid(source), Argument::int8(most.into()), Argument::float8(lease)];
        Ok::<_, Error>(jobs_in(source, &spi.run_kept(&sql::claim(&extension.schema), &arguments)?))
    })?;
    match attempt(of_a_table, || read(spi, &watched, &jobs))? {
        Ok(claimed) => Ok(claimed),
        Err(failure) if is_passing(failure.code) || is_of_table(failure.code) => Err(failure.into()),
        // A reference that cannot be read keeps no other photo waiting.
        Err(_) => {
            let mut claimed = Vec::new();
            for job in &jobs {
                match attempt(of_a_table, || read(spi, &watched, std::slice::from_ref(job)))? {
                    Ok(one) => claimed.extend(one),
                    Err(failure) => settle(spi, extension, job, &Disposition::Fail { failure, dead: false })?,
                }
            }
            Ok(claimed)
        }
    }
}

/// Reads the references of jobs, as the owner of their table.
fn read(spi: &Spi, watched: &Watched, jobs: &[Job]) -> Result<Vec<Claimed>, Error> {
    watched.read(|| {
        let plan = spi.prepare_look_up(&photo(watched), &[watched.source.key_type.oid])?;
        let claimed = jobs.iter().map(|Job { key, generation, .. }| {
            let value = watched.source.key_type.read(key, &PortableOutput::begin());
            let row = plan.run(&[Some(value.datum())])?;
            let reference = if row.len() > 0 { row.printed(IMAGE) } else { None };
            Ok(Claimed { key: key.clone(), generation: generation.clone(), reference })
        });
        claimed.collect()
    })
}

/// Jobs that a statement returned: keys, generations and attempts.
pub(super) fn jobs_in(source: pg_sys::Oid, rows: &Rows) -> Vec<Job> {
    let [keys, generations, attempts] = [1, 2, 3].map(|column| rows.all_printed(column));
    let jobs = keys.into_iter().zip(generations).zip(attempts);
    jobs.map(|((key, generation), attempts)| Job {
        source,
        key: key.unwrap_or_default(),
        generation: generation.unwrap_or_default(),
        attempts: attempts.and_then(|attempts| attempts.parse().ok()).unwrap_or_default(),
    })
    .collect()
}
