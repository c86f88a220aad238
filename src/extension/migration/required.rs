//! NOT NULL of the new column, without a look at the rows while other sessions wait.
//!
//! `SET NOT NULL` reads the table under a lock that keeps readers away, unless a validated constraint says the
//! same. So the switch adds a constraint that holds for rows written from then on. The migration validates it while
//! other sessions read and write, and replaces it by NOT NULL then.

use super::by_number;
use crate::alone::lock_alone;
use crate::attempt::{attempt, of_a_lock, with_lock_timeout};
use crate::error::Error;
use crate::owned::{LOOK, Table};
use crate::spi::{Argument, Spi};
use crate::watch::role::act_as;
use pgrx::pg_sys;

const CONSTRAINT: &str = "clip_migrated_not_null";

/// As the owner of the table, which is locked alone.
pub(super) fn add(spi: &Spi, target: &str, column: &str) -> Result<(), Error> {
    let add =
        format!("ALTER TABLE {target} ADD CONSTRAINT {CONSTRAINT} CHECK ({column} IS NOT NULL) NOT VALID");
    spi.run(&add, &[]).map(|_| ())
}

/// Whether the constraint of a switch is left on a table.
pub(super) fn is_left(spi: &Spi, target: pg_sys::Oid) -> Result<bool, Error> {
    let target = Table::of_caller(target, LOOK)?;
    Ok(column(spi, &target)?.is_some())
}

/// Reads the rows; others read and write meanwhile. To be called under the lock that it needs.
pub(super) fn validate(spi: &Spi, target: pg_sys::Oid) -> Result<(), Error> {
    let target = Table::of_caller(target, pg_sys::ShareUpdateExclusiveLock)?;
    if column(spi, &target)?.is_none() {
        return Ok(());
    }
    act_as(target.owner, || by_number::validate_constraint(target.oid, &by_number::c_name(CONSTRAINT)));
    Ok(())
}

/// Makes the column NOT NULL; false where the table was in use for longer than `patience` allows.
pub(super) fn finish(spi: &Spi, tables: [pg_sys::Oid; 2], patience: u32) -> Result<bool, Error> {
    let finished = attempt(of_a_lock, || {
        with_lock_timeout(patience, || {
            lock_alone(tables)?;
            let target = Table::of_caller(tables[1], LOOK)?;
            let Some(column) = column(spi, &target)? else {
                return Ok(());
            };
            let name = &target.name;
            act_as(target.owner, || {
                spi.run(&format!("ALTER TABLE {name} ALTER COLUMN {column} SET NOT NULL"), &[])?;
                spi.run(&format!("ALTER TABLE {name} DROP CONSTRAINT {CONSTRAINT}"), &[])?;
                Ok::<_, Error>(())
            })?;
            match self::column(spi, &target)? {
                None => Ok(()),
                Some(_) => Err(Error::Namesake(target.name)),
            }
        })
    })?;
    Ok(finished.is_ok())
}

/// The quoted name of the column that the constraint is on.
fn column(spi: &Spi, target: &Table) -> Result<Option<String>, Error> {
    const COLUMN: &str = "
        SELECT quote_ident(attname) FROM pg_constraint JOIN pg_attribute ON attrelid = conrelid AND attnum = conkey[1]
        WHERE conrelid = $1 AND conname = $2 AND contype = 'c' AND cardinality(conkey) = 1";
    let arguments = [Argument::oid(target.oid), Argument::text(CONSTRAINT)];
    act_as(target.owner, || {
        let row = spi.run_now(COLUMN, &arguments)?;
        Ok(if row.len() > 0 { row.printed(1) } else { None })
    })
}
