//! The deferrable constraints of a target.
//!
//! PostgreSQL defers nothing in a security-restricted operation: a constraint that waited for the commit would run as
//! the role that commits. So the constraints that a write to a target fires are checked at once, and only they: the
//! caller's other constraints stay as they are, and so does one that a DELETE does not fire, for it may wait for just
//! that DELETE.

use pgrx::pg_sys;

use super::role::act_as;
use super::sql;
use crate::catalog::Table;
use crate::error::Error;
use crate::spi::{Argument, Spi};

/// The constraints that writes of one kind can fire, as `SET CONSTRAINTS` takes them.
#[derive(Default)]
pub(super) struct Deferrable {
    all: Option<String>,
    /// The INITIALLY DEFERRED ones among them.
    deferred: Option<String>,
}

/// The constraints of a target, by what fires them.
#[derive(Default)]
pub(super) struct Constraints {
    /// INSERT or UPDATE.
    pub(super) written: Deferrable,
    pub(super) deleted: Deferrable,
}

impl Constraints {
    /// The constraints of a table.
    pub(super) fn of(spi: &Spi, target: &Table, role: pg_sys::Oid) -> Result<Constraints, Error> {
        let row = act_as(role, || spi.run_kept(sql::DEFERRABLE, &[Argument::oid(target.oid)]))?;
        Ok(Constraints {
            written: Deferrable { all: row.printed(1), deferred: row.printed(2) },
            deleted: Deferrable { all: row.printed(3), deferred: row.printed(4) },
        })
    }
}

impl Deferrable {
    /// Runs `write`, to be called as the role that writes, with the constraints immediate. Afterwards they are as they
    /// were declared.
    pub(super) fn at_once<R>(&self, spi: &Spi, write: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
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
