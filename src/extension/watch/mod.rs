//! The trigger function that keeps the embeddings of a watched table.
//!
//! It runs once for each statement, on the statement's transition tables, so that a COPY or a multi-row INSERT reaches
//! the embedder in batches. Always true at its end, in sync mode: the target has a row for each photo that the
//! statement wrote, made from its bytes, and none for a photo that it took away. All of it happens in the caller's
//! transaction: what is rolled back was never there.
//!
//! What is read is read as the caller, from transition tables. What is written is written as the owner of the target,
//! in a restricted operation with a search_path of its own: the caller needs no right on the target, and gains none.

mod deferrable;
pub(crate) mod home;
mod photos;
pub(crate) mod provenance;
pub(crate) mod registry;
pub(crate) mod role;
pub(crate) mod sql;
pub(crate) mod target;
pub(crate) mod watched;

use pgrx::pg_sys;

use self::home::Home;
use self::watched::{Mode, Watched};
use crate::error::Error;
use crate::queue::enqueue::{self, Jobs};
use crate::settings;
use crate::spi::Spi;
use crate::sql_function;
use crate::varlena::c_string;

sql_function! {
    /// `clip_fill_image_embeddings() → trigger`
    fn clip_fill_image_embeddings(fcinfo) {
        // SAFETY: PostgreSQL calls a trigger function with its trigger's data as the context.
        unsafe {
            let context = (*fcinfo).context;
            if context.is_null() || !pgrx::is_a(context, pg_sys::NodeTag::T_TriggerData) {
                return Err(Error::NotAStatementTrigger);
            }
            fill(&Firing::new(context.cast())?, (*(*fcinfo).flinfo).fn_oid)?;
            Ok(pg_sys::Datum::from(0))
        }
    }
}

/// The statement that fired the trigger.
pub(crate) struct Firing {
    data: *mut pg_sys::TriggerData,
    event: Event,
    table: pg_sys::Oid,
    trigger_name: String,
    arguments: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Event {
    Insert,
    Update,
    Delete,
    Truncate,
}

impl Firing {
    /// # Safety
    /// `data` is that of the running trigger.
    unsafe fn new(data: *mut pg_sys::TriggerData) -> Result<Firing, Error> {
        // SAFETY: the caller vouches for `data`; the trigger has as many arguments as it says.
        unsafe {
            let bits = (*data).tg_event;
            if bits & pg_sys::TRIGGER_EVENT_TIMINGMASK != pg_sys::TRIGGER_EVENT_AFTER
                || bits & pg_sys::TRIGGER_EVENT_ROW != 0
            {
                return Err(Error::NotAStatementTrigger);
            }
            let event = match bits & pg_sys::TRIGGER_EVENT_OPMASK {
                pg_sys::TRIGGER_EVENT_INSERT => Event::Insert,
                pg_sys::TRIGGER_EVENT_UPDATE => Event::Update,
                pg_sys::TRIGGER_EVENT_DELETE => Event::Delete,
                _ => Event::Truncate,
            };
            let trigger = (*data).tg_trigger;
            let count = usize::try_from((*trigger).tgnargs).unwrap_or_default();
            Ok(Firing {
                data,
                event,
                table: (*(*data).tg_relation).rd_id,
                trigger_name: c_string((*trigger).tgname),
                arguments: (0..count).map(|index| c_string(*(*trigger).tgargs.add(index))).collect(),
            })
        }
    }

    /// The quoted name under which queries see the rows as the statement left them.
    fn new_rows(&self) -> Result<String, Error> {
        // SAFETY: the trigger is the running one; the name is null or a string.
        unsafe { self.transition_table((*(*self.data).tg_trigger).tgnewtable, "NEW TABLE") }
    }

    /// The quoted name under which queries see the rows as the statement found them.
    fn old_rows(&self) -> Result<String, Error> {
        // SAFETY: the trigger is the running one; the name is null or a string.
        unsafe { self.transition_table((*(*self.data).tg_trigger).tgoldtable, "OLD TABLE") }
    }

    unsafe fn transition_table(
        &self,
        name: *const std::ffi::c_char,
        clause: &'static str,
    ) -> Result<String, Error> {
        if name.is_null() {
            return Err(Error::NoTransitionTable(self.trigger_name.clone(), clause));
        }
        // SAFETY: the caller vouches that `name` is a string.
        Ok(sql::identifier(&unsafe { c_string(name) }))
    }
}

fn fill(firing: &Firing, function: pg_sys::Oid) -> Result<(), Error> {
    let spi = Spi::connect()?;
    // SAFETY: `firing` was made from the running trigger.
    unsafe { spi.register_transition_tables(firing.data)? };
    let home = Home::of(&spi, function)?;
    let watched = Watched::find(&spi, &home, firing)?;
    let jobs = Jobs { spi: &spi, home: &home, source: firing.table };
    let registration = watched.registration.as_ref();
    let mode = settings::enabled().then(|| registration.map_or(Mode::Sync, |registration| registration.mode));
    // The jobs of a table that was in async mode before are finished in any.
    let has_jobs =
        mode == Some(Mode::Async) || registration.is_some_and(|registration| registration.has_jobs);
    match firing.event {
        Event::Insert => {
            let new = firing.new_rows()?;
            match mode {
                Some(Mode::Sync) => {
                    photos::embed(&spi, &home, &watched, &sql::inserted_photos(&watched, &new))
                }
                Some(Mode::Async) => jobs.add(enqueue::keys(&spi, &sql::inserted_keys(&watched, &new))?),
                None => Ok(()),
            }
        }
        Event::Update => {
            let (new, old) = (firing.new_rows()?, firing.old_rows()?);
            if has_jobs {
                // Where bytes change in async mode, writing the job waits for its worker by itself.
                if mode != Some(Mode::Async) || watched.project.is_some() {
                    jobs.lock(enqueue::keys(&spi, &sql::all_keys(&watched, &new))?)?;
                }
                jobs.remove(enqueue::keys(&spi, &sql::vanished_keys(&watched, &new, &old))?)?;
            }
            let updated = sql::updated_photos(&watched, &new, &old);
            match mode {
                Some(Mode::Sync) => photos::embed(&spi, &home, &watched, &updated)?,
                Some(Mode::Async) => jobs.add(photos::keep(&spi, &watched, &updated)?)?,
                None => {
                    photos::keep(&spi, &watched, &updated)?;
                    target::delete(&spi, &watched, &sql::delete_stale(&watched, &new, &old))?;
                }
            }
            target::update(&spi, &watched, &sql::carry_project_over(&watched, &new))?;
            target::delete(&spi, &watched, &sql::delete_emptied(&watched, &new))?;
            target::delete(&spi, &watched, &sql::delete_renamed(&watched, &new, &old))
        }
        Event::Delete => {
            let old = firing.old_rows()?;
            if has_jobs {
                jobs.remove(enqueue::keys(&spi, &sql::all_keys(&watched, &old))?)?;
            }
            target::delete(&spi, &watched, &sql::delete_deleted(&watched, &old))
        }
        Event::Truncate => {
            if has_jobs {
                jobs.clear()?;
            }
            target::delete(&spi, &watched, &sql::delete_all(&watched))
        }
    }
}
