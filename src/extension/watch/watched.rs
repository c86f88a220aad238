//! Which columns of which tables a trigger or the queue worker works on.
//!
//! What `clip_watch` wrote down are names. What they stand for is looked up in each transaction, under locks on both
//! tables ([`crate::catalog`]): their owners, the types of their columns, and what makes keys unique.

use pgrx::pg_sys;

use super::deferrable::Constraints;
use super::home::Home;
use super::key::KeyType;
use super::role::{act_as, read_as};
use super::{Firing, sql};
use crate::catalog::{self, Column, Lock, Table};
use crate::error::Error;
use crate::spi::{Argument, Rows, Spi};

/// A watched table and its target, both locked.
pub(crate) struct Watched {
    pub(crate) source: Table,
    pub(crate) target: Table,
    /// As what role the target's rows are written: that of the owner of both tables. A trigger that a user wrote by hand
    /// for a table that is not registered writes as its caller, because its arguments can name any table.
    pub(crate) writer: pg_sys::Oid,
    pub(crate) image: Column,
    pub(crate) key: Column,
    pub(crate) key_type: KeyType,
    /// The columns of source and target, where the project is carried over.
    pub(crate) project: Option<(Column, Column)>,
    pub(crate) target_key: Column,
    pub(crate) embedding: Column,
    pub(crate) checksum: Column,
    pub(crate) model: Column,
    /// What writing to the target can fire at the commit.
    pub(super) constraints: Constraints,
    /// What `clip_watch` wrote down beside; nothing for a trigger that a user wrote by hand.
    pub(crate) registration: Option<Registration>,
}

/// What only a registered watch has.
#[derive(Clone)]
pub(crate) struct Registration {
    pub(crate) mode: Mode,
    /// Which model made the vectors of the target; nothing before there is one.
    pub(crate) model: Option<String>,
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
pub(crate) enum Patience {
    Wait,
    /// A lock that is not free is an error, 55P03.
    None,
}

impl Watched {
    /// What `clip_watch` wrote down for the table, or else what the trigger's arguments say.
    pub(crate) fn find(spi: &Spi, home: &Home, firing: &Firing) -> Result<Watched, Error> {
        if let Some(registered) = Watched::registered(spi, home, firing.table, Patience::Wait)? {
            return Ok(registered);
        }
        // SAFETY: a plain read of the current role.
        let caller = unsafe { pg_sys::GetUserId() };
        if firing.arguments.is_empty() {
            return Err(Error::NotWatched(catalog::name_of(firing.table)));
        }
        let arguments = [Argument::oid(firing.table), Argument::texts(&firing.arguments)];
        let said = act_as(caller, || spi.run(sql::FROM_ARGUMENTS, &arguments))?;
        if said.len() == 0 {
            return Err(Error::NotWatched(catalog::name_of(firing.table)));
        }
        let named = || said.printed(11).unwrap_or_default();
        let target = said.get::<pg_sys::Oid>(1)?.ok_or_else(|| Error::NoTable(named()))?;
        // Before it is locked: a lock holds up others.
        // SAFETY: looks any number up in the catalogs.
        let allowed =
            unsafe { pg_sys::pg_class_aclcheck(target, caller, pg_sys::ACL_INSERT as pg_sys::AclMode) };
        if allowed != pg_sys::AclResult::ACLCHECK_OK {
            return Err(Error::NoPrivilege(named()));
        }
        Lock::RowExclusive.take(target);
        let (Some(source), Some(target)) = (Table::find(firing.table)?, Table::find(target)?) else {
            return Err(Error::NoTable(named()));
        };
        let has_triggers = target.has_triggers;
        let mut watched = Watched::look(home, source, target, &said)?;
        watched.writer = caller;
        if has_triggers {
            watched.constraints = Constraints::of(spi, &watched.target, caller)?;
        }
        Ok(watched)
    }

    /// What `clip_watch` wrote down for the table, if it did and both tables are there.
    pub(crate) fn registered(
        spi: &Spi,
        home: &Home,
        source: pg_sys::Oid,
        patience: Patience,
    ) -> Result<Option<Watched>, Error> {
        let query = sql::registration(&home.schema);
        let row = act_as(home.owner, || spi.run_kept(&query, &[Argument::oid(source)]))?;
        if row.len() == 0 {
            return Ok(None);
        }
        let target = row.get::<pg_sys::Oid>(1)?.unwrap_or(pg_sys::InvalidOid);
        for (table, lock) in [(source, Lock::RowShare), (target, Lock::RowExclusive)] {
            if patience == Patience::Wait {
                lock.take(table);
            } else if !lock.try_take(table) {
                return Err(Error::Locked(catalog::name_of(table)));
            }
        }
        let (Some(source), Some(target)) = (Table::find(source)?, Table::find(target)?) else {
            return Ok(None);
        };
        if source.owner != target.owner {
            return Err(Error::OwnersDiffer { watched: source.name, target: target.name });
        }
        let has_triggers = target.has_triggers;
        let mut watched = Watched::look(home, source, target, &row)?;
        watched.registration = Some(Registration {
            mode: if row.printed(2).as_deref() == Some("async") { Mode::Async } else { Mode::Sync },
            model: row.printed(11),
        });
        if has_triggers {
            watched.constraints = Constraints::of(spi, &watched.target, watched.writer)?;
        }
        Ok(Some(watched))
    }

    /// Runs `read` as the owner of the source.
    pub(crate) fn read<R>(&self, read: impl FnOnce() -> R) -> R {
        read_as(self.source.owner, read)
    }

    /// Runs `write`, inside of [`Watched::read`], as the role that writes to the target.
    pub(crate) fn write<R>(&self, write: impl FnOnce() -> R) -> R {
        if self.writer == self.source.owner { write() } else { act_as(self.writer, write) }
    }

    /// Finds the columns that a row of [`sql::registration`] or [`sql::FROM_ARGUMENTS`] names, and refuses what does not
    /// fit: a value is of one type in the source and in the target, and nothing casts it on the way.
    fn look(home: &Home, source: Table, target: Table, named: &Rows) -> Result<Watched, Error> {
        let name = |column| named.printed(column);
        let required = |column| name(column).unwrap_or_default();
        if source.oid == target.oid {
            return Err(Error::OwnTarget(source.name));
        }
        let image = source.column_of(&required(3), pg_sys::BYTEAOID)?;
        let key = source.column(&required(4))?;
        let target_key = target.column_of(&required(6), key.type_oid)?;
        source.check_unique(&key)?;
        target.check_unique(&target_key)?;
        let project = match (name(5), name(10)) {
            (Some(project), Some(target_project)) => {
                let project = source.column(&project)?;
                let target_project = target.column_of(&target_project, project.type_oid)?;
                Some((project, target_project))
            }
            _ => None,
        };
        Ok(Watched {
            writer: target.owner,
            key_type: KeyType::new(key.type_oid)?,
            embedding: target.column_of(&required(7), home.vector_type)?,
            checksum: target.column_of(&required(8), pg_sys::BYTEAOID)?,
            model: target.column_of(&required(9), pg_sys::TEXTOID)?,
            source,
            target,
            image,
            key,
            project,
            target_key,
            constraints: Constraints::default(),
            registration: None,
        })
    }
}
