//! Rows that logical replication applies to a watched table.
//!
//! PostgreSQL fires no statement trigger for a row that it applies, and only the row triggers that are enabled for
//! it. A table that is watched with `replicated` has such a trigger, and one for TRUNCATE. They write jobs and
//! touch no row of the target, for two reasons. An error of the target must not stop the subscription, for as long
//! as it is stopped the publisher keeps its WAL. And an apply worker's rows count as written by the publisher: a
//! subscription with `origin = none`, by which the vectors go back, would leave it out. The queue worker writes and
//! deletes vectors.
//!
//! A TRUNCATE names no key: only the target knows which vectors it has left. Where the target cannot be read, they
//! stay, and a WARNING names the call that finds them later.

use std::ffi::CString;

use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys};

use super::extension_schema::ExtensionSchema;
use super::role::PortableOutput;
use super::watched::{LockWait, Source, Watch};
use super::{printed_keys, sql};
use crate::attempt::{attempt, of_a_lock, of_a_table};
use crate::catalog::{self, Column};
use crate::encoding;
use crate::error::Error;
use crate::failure::Failure;
use crate::notice;
use crate::owned::literal;
use crate::queue::enqueue::Jobs;
use crate::settings;
use crate::spi::Spi;
use crate::sqlstate;
use crate::varlena;

/// The argument of the triggers.
pub(crate) const ARGUMENT: &str = "applied";

/// Writes the jobs for the row or the TRUNCATE that fired a trigger of this module's. Returns false for any other
/// trigger.
///
/// # Safety
/// `data` is that of the running trigger, and `function` its function.
pub(super) unsafe fn enqueue(data: *mut pg_sys::TriggerData, function: pg_sys::Oid) -> Result<bool, Error> {
    // SAFETY: the caller vouches for the data: the trigger has as many arguments as it says, its rows are there for the
    // events that have them, and they are of its table.
    unsafe {
        let trigger = (*data).tg_trigger;
        let event = (*data).tg_event;
        let is_after = event & pg_sys::TRIGGER_EVENT_TIMINGMASK == pg_sys::TRIGGER_EVENT_AFTER;
        if !is_after || (*trigger).tgnargs != 1 || encoding::c_string(*(*trigger).tgargs) != ARGUMENT {
            return Ok(false);
        }
        let relation = (*data).tg_relation;
        let (first, second) =
            (Row { tuple: (*data).tg_trigtuple, relation }, Row { tuple: (*data).tg_newtuple, relation });
        let fired = match (event & pg_sys::TRIGGER_EVENT_ROW != 0, event & pg_sys::TRIGGER_EVENT_OPMASK) {
            (true, pg_sys::TRIGGER_EVENT_INSERT) => Fired::Row { before: None, after: Some(first) },
            (true, pg_sys::TRIGGER_EVENT_UPDATE) => Fired::Row { before: Some(first), after: Some(second) },
            (true, pg_sys::TRIGGER_EVENT_DELETE) => Fired::Row { before: Some(first), after: None },
            (false, pg_sys::TRIGGER_EVENT_TRUNCATE) => Fired::Truncate,
            _ => return Ok(false),
        };
        write_jobs((*relation).rd_id, function, &fired)?;
    }
    Ok(true)
}

enum Fired {
    Row { before: Option<Row>, after: Option<Row> },
    Truncate,
}

fn write_jobs(table: pg_sys::Oid, function: pg_sys::Oid, fired: &Fired) -> Result<(), Error> {
    let spi = Spi::connect()?;
    let extension = ExtensionSchema::of(function)?;
    let not_watched = || Error::NotWatched(catalog::name_of(table));
    let watch = Watch::of_whole(&spi, &extension, table)?.ok_or_else(not_watched)?;
    if watch.rests() {
        return Ok(());
    }
    let source = watch.source(LockWait::Wait)?.ok_or_else(not_watched)?;
    let project = watch.source_project(&source)?;
    match fired {
        Fired::Row { before, after } => {
            let touched =
                source.read(|| Touched::by(&source, project.as_ref(), before.as_ref(), after.as_ref()))?;
            let jobs = Jobs::of(&spi, &extension, &source);
            jobs.add_first(touched.first)?;
            jobs.add(touched.in_turn)
        }
        Fired::Truncate => {
            let jobs = Jobs::of(&spi, &extension, &source);
            if table == source.table.oid {
                jobs.clear()?;
            }
            let name = source.table.name.clone();
            let gone = attempt(is_of_the_target, || {
                let Some(watched) = watch.with_target(source, LockWait::Wait)? else {
                    return Ok(Vec::new());
                };
                watched.read(|| printed_keys(spi.open(&sql::all_gone(&watched))?, &watched.source))
            })?;
            match gone {
                Ok(gone) => jobs.add_first(gone),
                Err(failure) => {
                    tell_of_left(&name, &failure);
                    Ok(())
                }
            }
        }
    }
}

/// Whether a TRUNCATE goes on without the keys of the target: not where the next try of the apply worker may well find them.
fn is_of_the_target(code: PgSqlErrorCode) -> bool {
    /// Transactions that are rolled back, as in a deadlock, and memory, disk or connections that are used up.
    const PASSING: [&str; 2] = ["40", "53"];
    let class = &sqlstate::text_of(code)[..2];
    of_a_table(code) && !of_a_lock(code) && !PASSING.contains(&class)
}

/// No job is written for vectors whose keys cannot be read.
fn tell_of_left(table: &str, failure: &Failure) {
    let message = format!(
        "pg_clip did not see which vectors a TRUNCATE of table {table} has left without a photo: {}",
        failure.message
    );
    let hint = format!("CALL clip_backfill({}, verify => true) once it is mended.", literal(table));
    notice::tell(PgLogLevel::WARNING, &message, Some(&hint));
}

/// The keys of a row before and after a change, printed.
#[derive(Default)]
struct Touched {
    /// Keys whose vector goes, or is known already.
    first: Vec<String>,
    /// Keys whose photo is to be embedded.
    in_turn: Vec<String>,
}

impl Touched {
    /// To be used inside of [`Source::read`].
    fn by(
        source: &Source,
        project: Option<&Column>,
        before: Option<&Row>,
        after: Option<&Row>,
    ) -> Result<Touched, Error> {
        let photo_in = |row: Option<&Row>| row.map_or(Ok(None), |row| Photo::find(source, row));
        let mut touched = Touched::default();
        match (photo_in(before)?, photo_in(after)?) {
            (None, Some(now)) if settings::enabled() => touched.in_turn.push(now.key),
            (None, _) => {}
            (Some(was), None) => touched.first.push(was.key),
            // The vector is copied, as long as the one under the old key is there.
            (Some(was), Some(now)) if was.key != now.key => touched.first.extend([was.key, now.key]),
            (Some(was), Some(now)) => {
                // SAFETY: both are non-null values of a column of type `bytea`, `text` or `varchar`.
                if !unsafe { varlena::same(was.image, now.image) } {
                    touched.in_turn.push(now.key);
                } else if let (Some(before), Some(after), Some(project)) = (before, after, project)
                    && !before.is_same_in(after, project)?
                {
                    touched.first.push(now.key);
                }
            }
        }
        Ok(touched)
    }
}

/// A row with a photo, or with a reference to one.
struct Photo {
    /// Printed.
    key: String,
    image: pg_sys::Datum,
}

impl Photo {
    /// Nothing where the row has no photo, or a photo without a key.
    fn find(source: &Source, row: &Row) -> Result<Option<Photo>, Error> {
        let (Some(image), Some(key)) = (row.value(&source.image)?, row.value(&source.key)?) else {
            return Ok(None);
        };
        let settings = PortableOutput::begin();
        // SAFETY: a non-null value of the key's type, which `value` has compared.
        let key = unsafe { source.key_type.copy(key) };
        Ok(Some(Photo { key: source.key_type.print(&key, &settings), image }))
    }
}

/// A row of the table that fired the trigger: the watched table or a partition of it.
struct Row {
    tuple: pg_sys::HeapTuple,
    relation: pg_sys::Relation,
}

unsafe extern "C-unwind" {
    /// `utils/datum.h`
    fn datum_image_eq(one: pg_sys::Datum, other: pg_sys::Datum, by_value: bool, length: i32) -> bool;
}

impl Row {
    /// The value of a column of the watched table; nothing where it is NULL.
    fn value(&self, column: &Column) -> Result<Option<pg_sys::Datum>, Error> {
        let name = CString::new(encoding::to_server(column.raw_name())).unwrap_or_default();
        // SAFETY: the row and its table are those of the running trigger, which is why the table is open.
        unsafe {
            let table = (*self.relation).rd_id;
            let number = i32::from(pg_sys::get_attnum(table, name.as_ptr()));
            let description = (*self.relation).rd_att;
            if number <= 0 || pg_sys::SPI_gettypeid(description, number) != column.type_oid {
                let table = catalog::name_of(table);
                return Err(Error::NoColumn { column: column.raw_name().to_owned(), table });
            }
            let mut is_null = false;
            let value = pg_sys::SPI_getbinval(self.tuple, description, number, &mut is_null);
            Ok((!is_null).then_some(value))
        }
    }

    /// Whether another row has the same bytes in a column. Not each type has an operator.
    fn is_same_in(&self, other: &Row, column: &Column) -> Result<bool, Error> {
        let (mut length, mut by_value) = (0, false);
        Ok(match (self.value(column)?, other.value(column)?) {
            // SAFETY: both are values of the column's type, whose storage is looked up; an ERROR becomes a panic.
            (Some(one), Some(other)) => unsafe {
                pg_sys::get_typlenbyval(column.type_oid, &mut length, &mut by_value);
                pg_sys::ffi::pg_guard_ffi_boundary(|| datum_image_eq(one, other, by_value, length.into()))
            },
            (one, other) => one.is_none() && other.is_none(),
        })
    }
}
