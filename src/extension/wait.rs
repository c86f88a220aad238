//! Waiting for transactions of other sessions to end, without a lock that further sessions would queue behind.

use pgrx::pg_sys;

use crate::attempt::{attempt, of_a_lock, with_lock_timeout};
use crate::error::Error;

/// Waits until every transaction that holds a lock on the table now has ended. False where it has not waited to the end.
pub(crate) fn for_users(table: pg_sys::Oid) -> Result<bool, Error> {
    for_holders(table, pg_sys::AccessExclusiveLock)
}

/// Waits until every transaction that writes to the table now, or has locked rows of it, has ended. False where it has not
/// waited to the end.
pub(crate) fn for_writers(table: pg_sys::Oid) -> Result<bool, Error> {
    for_holders(table, pg_sys::ExclusiveLock)
}

/// Waits until every transaction that holds a lock that conflicts with this one has ended. As a victim of a deadlock it ends
/// before, and its caller looks again.
fn for_holders(table: pg_sys::Oid, lock: u32) -> Result<bool, Error> {
    forget_snapshots();
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
                pg_sys::WaitForLockers(tag, lock as pg_sys::LOCKMODE, false);
            }
        });
        Ok(())
    })?;
    Ok(waited.is_ok())
}

/// Waits until the transactions have ended that may not see the rows committed by now. False where that cannot be
/// waited for.
pub(crate) fn for_snapshots() -> Result<bool, Error> {
    let holders = snapshot_holders();
    forget_snapshots();
    let waited = attempt(of_a_lock, || {
        with_lock_timeout(0, || {
            for &holder in &holders {
                // SAFETY: a transaction that has ended is not waited for.
                unsafe { pg_sys::VirtualXactLock(holder, true) };
            }
        });
        Ok(())
    })?;
    Ok(waited.is_ok())
}

/// Lets go of the snapshots of a step: the transactions that it waits for may themselves wait for these, as CREATE
/// INDEX CONCURRENTLY does. The step ends with the wait.
fn forget_snapshots() {
    // SAFETY: a step's only active snapshot is that of its portal, outside of any query; the next step takes another.
    unsafe {
        pg_sys::ForgetPortalSnapshots();
        pg_sys::InvalidateCatalogSnapshot();
    }
}

/// The transactions of this database with a snapshot that could be older than the active one.
fn snapshot_holders() -> Vec<pg_sys::VirtualTransactionId> {
    // A vacuum sees all rows by itself, and a process that builds an index reads its own table only.
    const IN_VACUUM_OR_INDEX_BUILD: i32 = 0x01 | 0x02 | 0x04;
    // SAFETY: a step of a procedure has an active snapshot; the array has `count` entries.
    unsafe {
        let limit = (*pg_sys::GetActiveSnapshot()).xmin;
        let mut count = 0;
        let old = pg_sys::GetCurrentVirtualXIDs(limit, true, false, IN_VACUUM_OR_INDEX_BUILD, &mut count);
        (0..usize::try_from(count).unwrap_or_default()).map(|index| *old.add(index)).collect()
    }
}
