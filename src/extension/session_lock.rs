//! Locks that last from one transaction of a procedure to the next.
//!
//! They belong to the session, but not for longer than the procedure: it releases them, and PostgreSQL does after an error or a
//! cancel. A pooler never passes them on.

use pgrx::pg_sys;

/// The work on a table that one session does at a time.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    Migration = 1,
    /// Emptying its indexes, or building those that were emptied.
    Indexes = 2,
}

/// Keeps other sessions from the same work on a table; false where one is at it. It does not keep VACUUM away, as a lock of
/// the table itself would.
pub(crate) fn try_take(table: pg_sys::Oid, work: Work) -> bool {
    let lock = pg_sys::ExclusiveLock as pg_sys::LOCKMODE;
    // SAFETY: the tag is whole, and its lock ends with the session at the latest.
    let answer = unsafe { pg_sys::LockAcquire(&tag(table, work), lock, true, true) };
    answer != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}

pub(crate) fn release(table: pg_sys::Oid, work: Work) {
    let lock = pg_sys::ExclusiveLock as pg_sys::LOCKMODE;
    // SAFETY: as above. A lock that is not held is a warning.
    unsafe { pg_sys::LockRelease(&tag(table, work), lock, true) };
}

/// An object that PostgreSQL itself never locks: a part of a table by a number, where columns are meant elsewhere.
fn tag(table: pg_sys::Oid, work: Work) -> pg_sys::LOCKTAG {
    // SAFETY: a plain read of this backend's database.
    let database = unsafe { pg_sys::MyDatabaseId };
    pg_sys::LOCKTAG {
        locktag_field1: database.into(),
        locktag_field2: pg_sys::RelationRelationId.into(),
        locktag_field3: table.into(),
        locktag_field4: work as u16,
        locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    }
}
