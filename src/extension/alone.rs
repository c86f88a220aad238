//! Changing a target for which no other session may use it, in a procedure.
//!
//! The lock is asked for with a patience that is short, and in between the procedure waits for the sessions that use the table
//! without a lock that further sessions would queue behind ([`crate::wait`]). So searches and writers wait for no longer
//! than the patience and the change.

use pgrx::pg_sys;

use crate::catalog::name_of;
use crate::error::Error;
use crate::owned::{LOOK, Table, notice};
use crate::procedure::Procedure;
use crate::spi::Spi;
use crate::wait;
use crate::watch::registry::check_owner;

/// The strongest lock: no other session reads a table meanwhile.
pub(crate) const ALONE: u32 = pg_sys::AccessExclusiveLock;

/// Searches and writers wait for a lock on the table at most so many milliseconds in a row.
const PATIENCE: u32 = 50;
/// After so many attempts the wait is doubled each time, because transactions on the table leave no gap of that
/// length.
const PATIENT_ATTEMPTS: u32 = 40;
const MOST_PATIENCE: u32 = 800;

/// Calls `act`, in a step, with source and target and with the milliseconds that it may wait for a lock on them, until it had the
/// lock. `tables` looks source and target up, in a step of its own: no lock is left to be made stronger.
pub(crate) fn alone<R>(
    procedure: &Procedure,
    tables: impl Fn(&Spi) -> Result<[pg_sys::Oid; 2], Error>,
    act: impl Fn(&Spi, [pg_sys::Oid; 2], u32) -> Result<Option<R>, Error>,
) -> Result<R, Error> {
    for attempt in 0.. {
        let [source, target] = procedure.step(&tables)?;
        let step = |spi: &Spi| {
            check_owner(target)?;
            act(spi, [source, target], patience(attempt))
        };
        if let Some(done) = procedure.step(step)? {
            return Ok(done);
        }
        procedure.step(|_| {
            check_owner(target)?;
            if attempt == PATIENT_ATTEMPTS {
                notice(format!("waiting for transactions that use table {}", name_of(target)), None);
            }
            wait::for_users(target)
        })?;
    }
    unreachable!("attempts have no end")
}

/// Locks source and target, in the order of the triggers: of two transactions that lock both, none waits for the other.
pub(crate) fn lock_alone([source, target]: [pg_sys::Oid; 2]) -> Result<(), Error> {
    Table::of_caller(source, LOOK)?;
    Table::of_caller(target, ALONE)?;
    Ok(())
}

/// Always below `deadlock_timeout`, so that no other transaction is chosen as the victim of a deadlock.
fn patience(attempt: u32) -> u32 {
    // SAFETY: a plain read of a setting.
    let timeout = unsafe { pg_sys::DeadlockTimeout };
    let doublings = attempt.saturating_sub(PATIENT_ATTEMPTS).min(4);
    (PATIENCE << doublings).min(MOST_PATIENCE).min(u32::try_from(timeout).unwrap_or_default() * 4 / 5).max(1)
}
