//! The lock that lasts from one transaction of a migration to the next.
//!
//! It belongs to the session, but not for longer than the procedure: the procedure releases the lock at its end,
//! and PostgreSQL does after an error or a cancel. A pooler never passes it on.

use pgrx::pg_sys;

/// Keeps another migration of the table away; false where one is running. It does not keep VACUUM away, as a lock of
/// the table itself would.
pub(super) fn try_take(table: pg_sys::Oid) -> bool {
    let lock = pg_sys::ExclusiveLock as pg_sys::LOCKMODE;
    // SAFETY: the tag is whole, and its lock ends with the session at the latest.
    let answer = unsafe { pg_sys::LockAcquire(&migrations(table), lock, true, true) };
    answer != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}

pub(super) fn release(table: pg_sys::Oid) {
    let lock = pg_sys::ExclusiveLock as pg_sys::LOCKMODE;
    // SAFETY: as above. A lock that is not held is a warning.
    unsafe { pg_sys::LockRelease(&migrations(table), lock, true) };
}

/// An object that PostgreSQL itself never locks: a part of a table by the number 1, where columns are meant elsewhere.
fn migrations(table: pg_sys::Oid) -> pg_sys::LOCKTAG {
    // SAFETY: a plain read of this backend's database.
    let database = unsafe { pg_sys::MyDatabaseId };
    pg_sys::LOCKTAG {
        locktag_field1: database.into(),
        locktag_field2: pg_sys::RelationRelationId.into(),
        locktag_field3: table.into(),
        locktag_field4: 1,
        locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    }
}
