//! The trigger function that keeps the embeddings of a watched table.
//!
//! It runs once for each statement, on the statement's transition tables, so that a COPY or a multi-row INSERT
//! reaches the embedder in batches. Always true at its end, in sync mode: the target has a row for each photo that
//! the statement wrote, made from its bytes, and none for a photo that it took away. All of it happens in the
//! caller's transaction, and is rolled back with it.
//!
//! Rows are read and written as the owner of both tables, in a restricted operation with a search_path of its own: the
//! caller needs no right on the target, and gains none; see [`role`].

pub(crate) mod applied;
mod deferrable;
pub(crate) mod extension_schema;
pub(crate) mod identity;
pub(crate) mod key;
pub(crate) mod moves;
pub(crate) mod next;
mod photos;
pub(crate) mod provenance;
pub(crate) mod registry;
pub(crate) mod role;
pub(crate) mod sql;
pub(crate) mod target;
pub(crate) mod watched;
pub(crate) mod watches_sql;

use pgrx::pg_sys;

use self::extension_schema::ExtensionSchema;
use self::key::Key;
use self::photos::{Photos, Renamed};
use self::role::PortableOutput;
use self::watched::{LockWait, Mode, Source, Watch, Watched};
use crate::catalog::{self, Column, identifier};
use crate::encoding::c_string;
use crate::error::Error;
use crate::queue::enqueue::Jobs;
use crate::settings;
use crate::spi::{Argument, Cursor, Spi, Transition};
use crate::sql_function::sql_function;

sql_function! {
    /// `clip_fill_image_embeddings() → trigger`
    fn clip_fill_image_embeddings(fcinfo) {
        // SAFETY: PostgreSQL calls a trigger function with its trigger's data as the context.
        unsafe {
            let context = (*fcinfo).context;
            if context.is_null() || !pgrx::is_a(context, pg_sys::NodeTag::T_TriggerData) {
                return Err(Error::NotAStatementTrigger);
            }
            let function = (*(*fcinfo).flinfo).fn_oid;
            if !moves::note(context.cast())? && !applied::enqueue(context.cast(), function)? {
                fill(&Firing::new(context.cast())?, function)?;
            }
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

    /// The transition tables that plans on the statement's rows depend on.
    fn transition(&self) -> Transition {
        /// So many rows can be joined in any way.
        const FEW: i64 = 32;
        // SAFETY: the data is that of the running trigger; each table is null or there for as long as it runs.
        let are_few = unsafe {
            [(*self.data).tg_oldtable, (*self.data).tg_newtable]
                .into_iter()
                .all(|table| table.is_null() || pg_sys::tuplestore_tuple_count(table) <= FEW)
        };
        Transition { on: self.table, are_few }
    }

    /// Whether an UPDATE can have changed a watched column. A statement that names other columns only leaves the
    /// others as they were, unless a trigger changes rows on their way into the table, or into one of its
    /// partitions.
    fn can_have_changed(&self, watched: &Watched) -> bool {
        // SAFETY: the trigger is the running one, and so is its table, whose triggers PostgreSQL keeps for the statement.
        unsafe {
            let triggers = (*(*self.data).tg_relation).trigdesc;
            let columns = (*self.data).tg_updatedcols;
            let is_named = |column: &Column| column.is_in(columns, self.table);
            (*triggers).trig_update_before_row
                || watched.source.table.is_partitioned
                || is_named(&watched.source.image)
                || is_named(&watched.source.key)
                || watched.project.as_ref().is_some_and(|(project, _)| is_named(project))
        }
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
        Ok(identifier(&unsafe { c_string(name) }))
    }
}

fn fill(firing: &Firing, function: pg_sys::Oid) -> Result<(), Error> {
    let spi = Spi::connect()?;
    // SAFETY: `firing` was made from the running trigger.
    unsafe { spi.register_transition_tables(firing.data)? };
    let extension = ExtensionSchema::of(function)?;
    let watch = Watch::find(&spi, &extension, firing.table, &firing.arguments)?;
    if watch.rests() {
        return Ok(());
    }
    let gone = || Error::NotWatched(catalog::name_of(firing.table));
    let source = watch.source(LockWait::Wait)?.ok_or_else(gone)?;
    let mode = settings::enabled().then(|| {
        let registration = watch.registration.as_ref();
        registration.map_or(Mode::Sync, |registration| registration.mode)
    });
    if firing.event == Event::Insert && mode != Some(Mode::Sync) {
        // The INSERT does not look at the target: it stores a photo whatever the target's state is.
        return match mode {
            Some(_) => source.read(|| {
                let keys = inserted_keys(&spi, &source, firing)?;
                Jobs::of(&spi, &extension, &source).add(printed_keys(keys, &source)?)
            }),
            None => Ok(()),
        };
    }
    let watched = watch.with_target(source, LockWait::Wait)?.ok_or_else(gone)?;
    watched.read(|| match firing.event {
        Event::Insert => {
            let mut photos = Photos::new(&spi, &extension, &watched)?;
            let keys = inserted_keys(&spi, &watched.source, firing)?;
            photos::each_key(keys, &watched.source, |key| photos.touch(key))?;
            photos.finish()
        }
        Event::Update => updated(&spi, &extension, &watched, mode, firing),
        Event::Delete => {
            let keys = sql::all_keys(&watched.source, &firing.old_rows()?);
            // A MERGE that also deletes: a moved photo is among its rows, and its vector is to be copied first.
            follow_moves(&spi, &extension, &watched, mode, firing, None)?;
            remove_gone(&spi, &extension, &watched, mode, &keys, firing.transition())
        }
        Event::Truncate => {
            if firing.table == watched.source.table.oid {
                Jobs::of(&spi, &extension, &watched.source).clear()?;
            }
            target::delete_all_gone(&spi, &watched)
        }
    })
}

/// The keys of the photos that an INSERT brought.
fn inserted_keys<'a>(spi: &'a Spi, source: &Source, firing: &Firing) -> Result<Cursor<'a>, Error> {
    spi.open_kept(&sql::inserted_keys(source, &firing.new_rows()?), firing.table)
}

/// `mode` is nothing where photos are not to be embedded. Vectors are copied to new keys before they are deleted
/// under old ones.
fn updated(
    spi: &Spi,
    extension: &ExtensionSchema,
    watched: &Watched,
    mode: Option<Mode>,
    firing: &Firing,
) -> Result<(), Error> {
    let (new, old) = (firing.new_rows()?, firing.old_rows()?);
    let transition = firing.transition();
    follow_moves(spi, extension, watched, mode, firing, Some(&old))?;
    if !firing.can_have_changed(watched) {
        return Ok(());
    }
    let jobs = Jobs::of(spi, extension, &watched.source);
    let key_type = &watched.source.key_type;
    let changes = sql::changes(watched, &new, &old);
    let mut has_new_projects = false;
    let mut with_new_images = Vec::new();
    if mode == Some(Mode::Sync) {
        let mut photos = Photos::new(spi, extension, watched)?;
        let settings = jobs.have_failed()?.then(PortableOutput::begin);
        photos::each_change(spi, watched, &changes, transition, |change| {
            has_new_projects |= change.has_new_project;
            if !change.has_new_image {
                return Ok(());
            }
            with_new_images.extend(settings.as_ref().map(|settings| key_type.print(&change.key, settings)));
            photos.touch(change.key)
        })?;
        photos.finish()?;
        drop(settings);
        jobs.forget_failed(with_new_images)?;
    } else {
        let mut renamed = None;
        let settings = PortableOutput::begin();
        photos::each_change(spi, watched, &changes, transition, |change| {
            has_new_projects |= change.has_new_project;
            if !change.has_new_image {
                return Ok(());
            }
            if change.has_new_key {
                if renamed.is_none() {
                    renamed = Some(Renamed::new(spi, extension, watched)?);
                }
                if let Some(Some(renamed)) = &renamed
                    && renamed.keep(&change.key)?
                {
                    return Ok(());
                }
            }
            if mode.is_none() {
                target::delete_embedding(spi, watched, &change.key)?;
            }
            with_new_images.push(key_type.print(&change.key, &settings));
            Ok(())
        })?;
        drop(settings);
        match mode {
            Some(_) => jobs.add(with_new_images)?,
            None => jobs.forget_failed(with_new_images)?,
        }
    }
    if has_new_projects {
        target::update(spi, watched, &sql::carry_projects_over(watched, &new), transition)?;
    }
    remove_gone(spi, extension, watched, mode, &sql::left_keys(&watched.source, &new, &old), transition)
}

/// Does for the rows that a MERGE moved between partitions the same as [`updated`] for the rows that it is shown.
/// An UPDATE is shown its moved rows too, among `updated`: then nothing is left to do.
fn follow_moves(
    spi: &Spi,
    extension: &ExtensionSchema,
    watched: &Watched,
    mode: Option<Mode>,
    firing: &Firing,
    updated: Option<&str>,
) -> Result<(), Error> {
    let key_type = &watched.source.key_type;
    let moved = moves::taken(firing.table, key_type);
    let Some(first) = moved.from.first() else {
        return Ok(());
    };
    let first = Argument { oid: key_type.oid, value: Some(first.datum()) };
    if let Some(updated) = updated
        && spi.run(&sql::is_among(&watched.source, updated), &[first])?.len() > 0
    {
        return Ok(());
    }
    let printed = |keys: &[Key]| -> Vec<String> {
        let settings = PortableOutput::begin();
        keys.iter().map(|key| key_type.print(key, &settings)).collect()
    };
    let jobs = Jobs::of(spi, extension, &watched.source);
    jobs.forget_failed([printed(&moved.to), printed(&moved.from)].concat())?;
    // Vectors are copied to new keys before they are deleted under old ones.
    for keys in [moved.to, moved.from] {
        if mode == Some(Mode::Sync) {
            let mut photos = Photos::new(spi, extension, watched)?;
            keys.into_iter().try_for_each(|key| photos.touch(key))?;
            photos.finish()?;
            continue;
        }
        let renamed = Renamed::new(spi, extension, watched)?;
        let mut with_new_images = Vec::new();
        for key in keys {
            let is_kept = renamed.as_ref().map(|renamed| renamed.keep(&key)).transpose()?;
            if is_kept != Some(true) {
                target::delete_embedding(spi, watched, &key)?;
                with_new_images.push(key);
            }
        }
        if mode == Some(Mode::Async) {
            jobs.add(printed(&with_new_images))?;
        }
    }
    Ok(())
}

/// Deletes all embeddings that have no photo. To be used inside of [`Watched::read`].
pub(crate) fn delete_all_gone(spi: &Spi, watched: &Watched) -> Result<(), Error> {
    target::delete_all_gone(spi, watched)
}

/// Removes the embeddings under these keys whose photos are gone. Where a deferred constraint let two photos have
/// one key, the one that is left gets its own embedding.
fn remove_gone(
    spi: &Spi,
    extension: &ExtensionSchema,
    watched: &Watched,
    mode: Option<Mode>,
    keys: &str,
    transition: Transition,
) -> Result<(), Error> {
    let jobs = Jobs::of(spi, extension, &watched.source);
    if jobs.have_failed()? {
        jobs.forget_failed(printed_keys(spi.open_on(keys, transition)?, &watched.source)?)?;
    }
    target::delete(spi, watched, &sql::delete_gone(watched, keys), transition)?;
    if watched.source.is_unique_at_once {
        return Ok(());
    }
    let left = sql::keys_with_photo(&watched.source, keys);
    match mode {
        Some(Mode::Sync) => {
            let mut photos = Photos::new(spi, extension, watched)?;
            photos::each_key(spi.open_on(&left, transition)?, &watched.source, |key| photos.touch(key))?;
            photos.finish()
        }
        Some(Mode::Async) => jobs.add(printed_keys(spi.open_on(&left, transition)?, &watched.source)?),
        None => photos::each_key(spi.open_on(&left, transition)?, &watched.source, |key| {
            target::delete_embedding(spi, watched, &key)
        }),
    }
}

/// The keys that a query returns, as their type prints them. To be used inside of [`Source::read`].
pub(crate) fn printed_keys(rows: Cursor, source: &Source) -> Result<Vec<String>, Error> {
    let mut keys = Vec::new();
    let settings = PortableOutput::begin();
    photos::each_key(rows, source, |key| {
        keys.push(source.key_type.print(&key, &settings));
        Ok(())
    })?;
    Ok(keys)
}
