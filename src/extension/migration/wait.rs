//! Waiting for transactions of other sessions to end, without a lock that further sessions would queue behind.

use std::time::{Duration, Instant};

use pgrx::pg_sys;

use crate::attempt::{attempt, of_a_lock, with_lock_timeout};
use crate::error::Error;
use crate::spi::{Argument, Spi};
use crate::watch::home::Home;
use crate::watch::role::act_as;

/// Waits until every transaction that holds a lock on the table now has ended.
pub(super) fn for_users(table: pg_sys::Oid) -> Result<(), Error> {
    let waited = attempt(of_a_lock, || {
        with_lock_timeout(0, || {
            // SAFETY: the tag is that of a table.
            unsafe {
                let tag = pg_sys::LOCKTAG {
                    locktag_field1: pg_sys::MyDatabaseId.into(),
                    locktag_field2: table.into(),
                    locktag_field3: 0,
                    locktag_field4: 0,
                    locktag_type: pg_sys::LockTagType::LOCKTAG_RELATION as u8,
                    locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
                };
                pg_sys::WaitForLockers(tag, pg_sys::AccessExclusiveLock as pg_sys::LOCKMODE, false);
            }
        });
        Ok(())
    })?;
    // As a victim of a deadlock it has waited long enough: its caller looks again.
    let _ = waited;
    Ok(())
}

/// Waits until the transactions that may not see what is committed now have ended.
pub(super) fn for_snapshots() -> Result<(), Error> {
    let waited = attempt(of_a_lock, || {
        with_lock_timeout(0, || for_transactions(&snapshot_holders()));
        Ok(())
    })?;
    // As in `for_users`.
    let _ = waited;
    Ok(())
}

/// As [`for_snapshots`], while the writers of a table are held: not for the writers that wait for our lock. They do not
/// look for rows with the snapshot that they have: it is that of a statement on the source, or else the trigger ends
/// their transaction with a serialization failure. Returns whether all had ended in time.
pub(super) fn for_snapshots_without_writers(
    spi: &Spi,
    home: &Home,
    target: pg_sys::Oid,
    patience: u32,
) -> Result<bool, Error> {
    /// Short: a transaction that is waited for may come to wait for us.
    const AT_A_TIME: u32 = 20;
    const WAITING: &str = "
        SELECT virtualtransaction FROM pg_locks WHERE relation = $1 AND NOT granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let until = Instant::now() + Duration::from_millis(patience.into());
    let mut holders = snapshot_holders();
    loop {
        let writers = act_as(home.owner, || {
            Ok::<_, Error>(spi.run(WAITING, &[Argument::oid(target)])?.all_printed(1))
        })?;
        holders.retain(|holder| !writers.iter().flatten().any(|writer| writer == holder));
        let waited = attempt(of_a_lock, || {
            with_lock_timeout(AT_A_TIME, || for_transactions(&holders));
            Ok(())
        })?;
        if waited.is_ok() {
            return Ok(true);
        }
        if Instant::now() > until {
            return Ok(false);
        }
    }
}

/// The transactions of this database with a snapshot that could be older than the active one, each as
/// `pg_locks.virtualtransaction` names it.
fn snapshot_holders() -> Vec<String> {
    // Vacuum sees everything by itself, and whatever builds an index reads its own table only.
    const IN_VACUUM_OR_INDEX_BUILD: i32 = 0x01 | 0x02 | 0x04;
    // SAFETY: a step of a procedure has an active snapshot; the array has `count` entries.
    unsafe {
        let limit = (*pg_sys::GetActiveSnapshot()).xmin;
        let mut count = 0;
        let old = pg_sys::GetCurrentVirtualXIDs(limit, true, false, IN_VACUUM_OR_INDEX_BUILD, &mut count);
        let count = usize::try_from(count).expect("a count is not negative");
        (0..count).map(|index| name_of(*old.add(index))).collect()
    }
}

fn for_transactions(names: &[String]) {
    for transaction in names.iter().filter_map(|name| named(name)) {
        // SAFETY: a transaction that has ended, or has never been, is not waited for.
        unsafe { pg_sys::VirtualXactLock(transaction, true) };
    }
}

#[cfg(any(feature = "pg15", feature = "pg16"))]
fn name_of(transaction: pg_sys::VirtualTransactionId) -> String {
    format!("{}/{}", transaction.backendId, transaction.localTransactionId)
}

#[cfg(any(feature = "pg15", feature = "pg16"))]
fn named(name: &str) -> Option<pg_sys::VirtualTransactionId> {
    let (backend, transaction) = name.split_once('/')?;
    Some(pg_sys::VirtualTransactionId {
        backendId: backend.parse().ok()?,
        localTransactionId: transaction.parse().ok()?,
    })
}

#[cfg(not(any(feature = "pg15", feature = "pg16")))]
fn name_of(transaction: pg_sys::VirtualTransactionId) -> String {
    format!("{}/{}", transaction.procNumber, transaction.localTransactionId)
}

#[cfg(not(any(feature = "pg15", feature = "pg16")))]
fn named(name: &str) -> Option<pg_sys::VirtualTransactionId> {
    let (backend, transaction) = name.split_once('/')?;
    Some(pg_sys::VirtualTransactionId {
        procNumber: backend.parse().ok()?,
        localTransactionId: transaction.parse().ok()?,
    })
}
