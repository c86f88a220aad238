//! Which columns of which tables a trigger or the queue worker works on.
//!
//! `clip_watch` wrote down names. Each transaction looks the names up, under locks on both tables
//! ([`crate::catalog`]): their owners, the types of their columns, and the constraints that make keys unique.

use pgrx::pg_sys;

use super::deferrable::Constraints;
use super::extension_schema::ExtensionSchema;
use super::key::KeyType;
use super::next::Next;
use super::role::{act_as, read_as};
use super::watches_sql::{self, FROM_ARGUMENTS};
use crate::catalog::{self, Column, Lock, Table};
use crate::error::Error;
use crate::partition_tree;
use crate::refusal::{Reason, refuse};
use crate::spi::{Argument, ByName, Rows, Spi, Varlena};
use crate::subscriptions::is_subscribed;

/// A watched table, locked.
pub(crate) struct Source {
    pub(crate) table: Table,
    /// The photo, or its reference: see [`Source::is_by_reference`].
    pub(crate) image: Column,
    pub(crate) key: Column,
    pub(crate) key_type: KeyType,
    /// Whether keys are unique in the middle of a transaction too.
    pub(crate) is_unique_at_once: bool,
    /// Whether a row says where its photo lies. No process of the server fetches it: a feeder brings its bytes.
    pub(crate) is_by_reference: bool,
}

/// A watched table and its target, both locked.
pub(crate) struct Watched {
    pub(crate) source: Source,
    pub(crate) target: Table,
    /// The role that writes the target's rows: the owner of both tables. A trigger that a user wrote by hand for a
    /// table that is not registered writes as its caller, because its arguments can name any table.
    pub(crate) writer: pg_sys::Oid,
    /// The role that writes to the source, or that the queue works as.
    pub(crate) caller: pg_sys::Oid,
    /// The columns of source and target, where the project is carried over.
    pub(crate) project: Option<(Column, Column)>,
    pub(crate) target_key: Column,
    pub(crate) embedding: Column,
    pub(crate) checksum: Column,
    pub(crate) model: Column,
    /// The model that the target is being moved to, where it is.
    pub(crate) next: Option<Next>,
    /// The constraints that a write to the target can fire at the commit.
    pub(super) constraints: Constraints,
    /// Nothing for a trigger that a user wrote by hand.
    pub(crate) registration: Option<Registration>,
}

/// The facts that only a registered watch has.
#[derive(Clone)]
pub(crate) struct Registration {
    pub(crate) mode: Mode,
    /// Which model made the vectors of the target; nothing before there is one.
    pub(crate) model: Option<String>,
    /// Whether rows that logical replication applies are embedded too: see [`super::applied`].
    pub(crate) is_replicated: bool,
}

/// When photos are embedded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// In the transaction that writes them.
    Sync,
    /// After it, by the queue.
    Async,
}

/// Whether locks are waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockWait {
    Wait,
    /// A lock that is not free is an error, 55P03.
    None,
}

/// A watch as it is written down: names, which [`Watch::source`] and [`Watch::with_target`] look up.
pub(crate) struct Watch<'a> {
    spi: &'a Spi,
    extension: &'a ExtensionSchema,
    /// The columns of [`watches_sql::registration`].
    row: Rows<'a>,
    source: pg_sys::Oid,
    target: pg_sys::Oid,
    /// Nothing for a trigger that a user wrote by hand.
    pub(crate) registration: Option<Registration>,
    is_by_reference: bool,
}

impl<'a> Watch<'a> {
    /// The entry that `clip_watch` wrote for the table or for one that it is a partition of, or else the arguments
    /// of its trigger.
    pub(crate) fn find(
        spi: &'a Spi,
        extension: &'a ExtensionSchema,
        table: pg_sys::Oid,
        arguments: &[String],
    ) -> Result<Watch<'a>, Error> {
        match Watch::of_whole(spi, extension, table)? {
            Some(registered) => Ok(registered),
            None => Watch::from_arguments(spi, extension, table, arguments),
        }
    }

    /// What `clip_watch` wrote down for the table or for one that it is a partition of, if it did.
    pub(crate) fn of_whole(
        spi: &'a Spi,
        extension: &'a ExtensionSchema,
        table: pg_sys::Oid,
    ) -> Result<Option<Watch<'a>>, Error> {
        if let Some(registered) = Watch::registered(spi, extension, table)? {
            return Ok(Some(registered));
        }
        for whole in partition_tree::ancestors(table) {
            if let Some(registered) = Watch::registered(spi, extension, whole)? {
                return Ok(Some(registered));
            }
        }
        Ok(None)
    }

    /// The entry that `clip_watch` wrote for the table, if there is one.
    pub(crate) fn registered(
        spi: &'a Spi,
        extension: &'a ExtensionSchema,
        source: pg_sys::Oid,
    ) -> Result<Option<Watch<'a>>, Error> {
        let query = watches_sql::registration(&extension.schema);
        let row = act_as(extension.owner, || spi.run_kept(&query, &[Argument::oid(source)]))?;
        if row.len() == 0 {
            return Ok(None);
        }
        let target = row.get::<pg_sys::Oid>(1)?.unwrap_or(pg_sys::InvalidOid);
        let registration = Registration {
            mode: if row.printed(2).as_deref() == Some("async") { Mode::Async } else { Mode::Sync },
            model: row.printed(11),
            is_replicated: row.get::<bool>(13)?.unwrap_or_default(),
        };
        let is_by_reference = row.get::<bool>(12)?.unwrap_or_default();
        let registration = Some(registration);
        Ok(Some(Watch { spi, extension, row, source, target, registration, is_by_reference }))
    }

    fn from_arguments(
        spi: &'a Spi,
        extension: &'a ExtensionSchema,
        table: pg_sys::Oid,
        arguments: &[String],
    ) -> Result<Watch<'a>, Error> {
        let not_watched = || Error::NotWatched(catalog::name_of(table));
        if arguments.is_empty() {
            return Err(not_watched());
        }
        let arguments = [Argument::oid(table), Argument::texts(arguments)];
        let row = act_as(caller(), || spi.run(FROM_ARGUMENTS, &arguments))?;
        if row.len() == 0 {
            return Err(not_watched());
        }
        let named = || row.printed(11).unwrap_or_default();
        let target = row.get::<pg_sys::Oid>(1)?.ok_or_else(|| Error::NoTable(named()))?;
        // Before it is locked: a lock holds up others.
        // SAFETY: looks any number up in the catalogs.
        let allowed =
            unsafe { pg_sys::pg_class_aclcheck(target, caller(), pg_sys::AclMode::from(pg_sys::ACL_INSERT)) };
        if allowed != pg_sys::AclResult::ACLCHECK_OK {
            return Err(Error::NoPrivilege(named()));
        }
        Ok(Watch { spi, extension, row, source: table, target, registration: None, is_by_reference: false })
    }

    /// Whether the watch rests, because a subscription fills its target: the publisher embeds the photos, and a
    /// vector that was written here would conflict with the publisher's. It does not rest where a subscription
    /// fills the queue too: then the whole database is a copy, and its jobs wait.
    pub(crate) fn rests(&self) -> bool {
        self.registration.is_some() && is_subscribed(self.target) && !is_subscribed(self.extension.queue)
    }

    /// The name of the column of the photos' keys, not quoted.
    pub(crate) fn key(&self) -> String {
        self.name(4)
    }

    /// Looks the watched table up. Nothing where it is gone.
    pub(crate) fn source(&self, lock_wait: LockWait) -> Result<Option<Source>, Error> {
        lock_wait.lock(Lock::RowShare, self.source)?;
        let Some(table) = Table::find(self.source)? else {
            return Ok(None);
        };
        if self.registration.is_some() {
            check_partitions(&table)?;
        }
        let is_by_reference = self.is_by_reference;
        let image = if is_by_reference {
            table.text_column(&self.name(3))?
        } else {
            table.column_of(&self.name(3), pg_sys::BYTEAOID)?
        };
        let key = table.column(&self.name(4))?;
        let is_unique_at_once = table.check_unique(&key)?;
        let key_type = KeyType::new(key.type_oid)?;
        Ok(Some(Source { table, image, key, key_type, is_unique_at_once, is_by_reference }))
    }

    /// Looks the target up, and refuses it where it does not fit: a value is of one type in the source and in the
    /// target, and nothing casts it on the way. Nothing where the target is gone.
    pub(crate) fn with_target(&self, source: Source, lock_wait: LockWait) -> Result<Option<Watched>, Error> {
        if self.source == self.target {
            return Err(Error::OwnTarget(source.table.name));
        }
        lock_wait.lock(Lock::RowExclusive, self.target)?;
        let Some(target) = Table::find(self.target)? else {
            return Ok(None);
        };
        let writer = match self.registration {
            Some(_) if source.table.owner != target.owner => {
                return Err(Error::OwnersDiffer { watched: source.table.name, target: target.name });
            }
            Some(_) => {
                check_partitions(&target)?;
                target.owner
            }
            None => caller(),
        };
        let target_key = target.column_of(&self.name(6), source.key.type_oid)?;
        if target_key.collation != source.key.collation {
            let message = format!(
                "column {} of table {} and column {} of table {} differ in their collation",
                source.key.name, source.table.name, target_key.name, target.name
            );
            return Err(refuse(Reason::WrongType, message));
        }
        if !target.check_unique(&target_key)? {
            return Err(Error::NotUnique { column: target_key.name, table: target.name });
        }
        let project = match (self.row.printed(5), self.row.printed(10)) {
            (Some(project), Some(target_project)) => {
                let project = source.table.column(&project)?;
                let target_project = target.column_of(&target_project, project.type_oid)?;
                Some((project, target_project))
            }
            _ => None,
        };
        let constraints = if target.has_triggers || target.is_partitioned {
            Constraints::of(self.spi, self.extension, &target, writer)?
        } else {
            Constraints::default()
        };
        Ok(Some(Watched {
            embedding: self.extension.vector_column(&target, &self.name(7))?,
            checksum: target.column_of(&self.name(8), pg_sys::BYTEAOID)?,
            model: target.column_of(&self.name(9), pg_sys::TEXTOID)?,
            next: Next::to_write(self.spi, self.extension, &target)?,
            source,
            target,
            writer,
            caller: caller(),
            project,
            target_key,
            constraints,
            registration: self.registration.clone(),
        }))
    }

    /// The column of the source whose value is carried over, where one is.
    pub(super) fn source_project(&self, source: &Source) -> Result<Option<Column>, Error> {
        match (self.row.printed(5), self.row.printed(10)) {
            (Some(project), Some(_)) => source.table.column(&project).map(Some),
            _ => Ok(None),
        }
    }

    fn name(&self, column: i32) -> String {
        self.row.printed(column).unwrap_or_default()
    }
}

impl Watched {
    /// The entry that `clip_watch` wrote for the table, if there is one and both tables are there.
    pub(crate) fn registered(
        spi: &Spi,
        extension: &ExtensionSchema,
        source: pg_sys::Oid,
        lock_wait: LockWait,
    ) -> Result<Option<Watched>, Error> {
        match Watch::registered(spi, extension, source)? {
            Some(watch) => Watched::of(&watch, lock_wait),
            None => Ok(None),
        }
    }

    /// As [`Watched::registered`], and nothing where the watch rests: see [`Watch::rests`].
    pub(crate) fn to_embed(
        spi: &Spi,
        extension: &ExtensionSchema,
        source: pg_sys::Oid,
        lock_wait: LockWait,
    ) -> Result<Option<Watched>, Error> {
        match Watch::registered(spi, extension, source)? {
            Some(watch) if !watch.rests() => Watched::of(&watch, lock_wait),
            _ => Ok(None),
        }
    }

    fn of(watch: &Watch, lock_wait: LockWait) -> Result<Option<Watched>, Error> {
        match watch.source(lock_wait)? {
            Some(source) => watch.with_target(source, lock_wait),
            None => Ok(None),
        }
    }

    /// Runs `read` as the owner of the source.
    pub(crate) fn read<R>(&self, read: impl FnOnce() -> R) -> R {
        self.source.read(read)
    }

    /// Runs `write`, inside of [`Watched::read`], as the role that writes to the target.
    pub(crate) fn write<R>(&self, write: impl FnOnce() -> R) -> R {
        if self.registration.is_some() {
            // The owner of the source owns the target.
            return write();
        }
        act_as(self.writer, || {
            let _by_name = ByName::begin(true);
            write()
        })
    }
}

impl Source {
    /// The photo, or its reference, in the first of some rows.
    pub(crate) fn image_in<'rows>(
        &self,
        rows: &'rows Rows,
        column: i32,
    ) -> Result<Option<Varlena<'rows>>, Error> {
        rows.varlena(column, self.image.type_oid)
    }

    /// Runs `read` as the owner of the table.
    pub(crate) fn read<R>(&self, read: impl FnOnce() -> R) -> R {
        read_as(self.table.owner, read)
    }
}

impl LockWait {
    fn lock(self, lock: Lock, table: pg_sys::Oid) -> Result<(), Error> {
        match self {
            LockWait::Wait => lock.take(table),
            LockWait::None if lock.try_take(table) => {}
            LockWait::None => return Err(Error::Locked(catalog::name_of(table))),
        }
        Ok(())
    }
}

/// Refuses a partition of another owner: what it carries would run as the owner of the whole.
fn check_partitions(table: &Table) -> Result<(), Error> {
    if !table.is_partitioned {
        return Ok(());
    }
    let is_strange = |part: &pg_sys::Oid| catalog::owner_of(*part).is_some_and(|owner| owner != table.owner);
    match partition_tree::below(table.oid).into_iter().find(is_strange) {
        Some(part) => {
            let (table, partition) = (table.name.clone(), catalog::name_of(part));
            Err(Error::PartitionOwner { table, partition })
        }
        None => Ok(()),
    }
}

fn caller() -> pg_sys::Oid {
    // SAFETY: a plain read of the current role.
    unsafe { pg_sys::GetUserId() }
}
