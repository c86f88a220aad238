//! The deferrable constraints of a target.
//!
//! PostgreSQL defers nothing in a security-restricted operation: a constraint that waited for the commit would run as
//! the role that commits. So the constraints that a write to a target fires are checked at once, and only they: the
//! caller's other constraints stay as they are, and so does one that a DELETE does not fire, for it may wait for just
//! that DELETE.
//!
//! SET CONSTRAINTS takes names, and two tables of a schema may have constraints of one name. It fires what waits of both. What a
//! caller has made wait for its commit runs as the caller then, and must not run as the owner of the target now: so it
//! is fired before, as the caller.

use pgrx::pg_sys;

use super::role::act_as;
use crate::catalog::Table;
use crate::error::Error;
use crate::spi::{Argument, Spi};

/// The constraints that writes of one kind can fire, as `SET CONSTRAINTS` takes them.
#[derive(Default)]
pub(super) struct Deferrable {
    all: Option<String>,
    /// The INITIALLY DEFERRED ones among them.
    deferred: Option<String>,
    /// The names among them that constraints of other tables have too.
    shared: Option<String>,
}

/// The constraints of a target, by the statements that fire them.
#[derive(Default)]
pub(super) struct Constraints {
    /// INSERT or UPDATE.
    pub(super) written: Deferrable,
    pub(super) deleted: Deferrable,
}

impl Constraints {
    /// The constraints of a table.
    pub(super) fn of(spi: &Spi, target: &Table, role: pg_sys::Oid) -> Result<Constraints, Error> {
        let row = act_as(role, || spi.run_kept(DEFERRABLE, &[Argument::oid(target.oid)]))?;
        Ok(Constraints {
            written: Deferrable { all: row.printed(1), deferred: row.printed(2), shared: row.printed(3) },
            deleted: Deferrable { all: row.printed(4), deferred: row.printed(5), shared: row.printed(6) },
        })
    }
}

impl Deferrable {
    /// Runs `write`, to be called as the role that writes, with the constraints immediate. Afterwards they are as they
    /// were declared.
    pub(super) fn at_once<R>(&self, spi: &Spi, write: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
        if let Some(shared) = &self.shared {
            // SAFETY: a plain read: as this role a transaction commits.
            let caller = unsafe { pg_sys::GetOuterUserId() };
            act_as(caller, || spi.run(&format!("SET CONSTRAINTS {shared} IMMEDIATE"), &[]).map(|_| ()))?;
        }
        if let Some(all) = &self.all {
            spi.run(&format!("SET CONSTRAINTS {all} IMMEDIATE"), &[])?;
        }
        let written = write()?;
        if let Some(deferred) = &self.deferred {
            spi.run(&format!("SET CONSTRAINTS {deferred} DEFERRED"), &[])?;
        }
        Ok(written)
    }
}

/// The deferrable constraints of table `$1` that INSERT or UPDATE fires, the INITIALLY DEFERRED ones among them,
/// and the same of DELETE. The bits of `tgtype` are those of `catalog/pg_trigger.h`.
const DEFERRABLE: &str = "
    WITH fired AS (
        SELECT format('%I.%I', nspname, conname) AS name, condeferred AS deferred,
            (tgtype::int4 & 20) <> 0 AS by_write, (tgtype::int4 & 8) <> 0 AS by_delete,
            EXISTS (
                SELECT FROM pg_constraint AS namesake
                WHERE namesake.conname = checked.conname AND namesake.connamespace = checked.connamespace
                    AND namesake.oid <> checked.oid AND namesake.condeferrable) AS is_shared
        FROM pg_trigger
        JOIN pg_constraint AS checked ON checked.oid = tgconstraint
        JOIN pg_namespace AS namespace ON namespace.oid = connamespace
        WHERE tgrelid = $1 AND tgdeferrable
    )
    SELECT string_agg(DISTINCT name, ', ') FILTER (WHERE by_write),
        string_agg(DISTINCT name, ', ') FILTER (WHERE by_write AND deferred),
        string_agg(DISTINCT name, ', ') FILTER (WHERE by_write AND is_shared),
        string_agg(DISTINCT name, ', ') FILTER (WHERE by_delete),
        string_agg(DISTINCT name, ', ') FILTER (WHERE by_delete AND deferred),
        string_agg(DISTINCT name, ', ') FILTER (WHERE by_delete AND is_shared)
    FROM fired";
