//! Waiting for the transactions of others to end, without holding a place in any queue.

use pgrx::pg_sys;

use super::own_table;
use crate::sql_function;

sql_function! {
    /// `clip_await_users(target regclass) → void`: until every transaction that holds a lock on the table now has ended.
    fn clip_await_users(fcinfo) {
        // SAFETY: SQL declares the function STRICT with this argument; the tag is that of a table.
        unsafe {
            let table = own_table(fcinfo)?;
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
        Ok(pg_sys::Datum::from(0))
    }
}

sql_function! {
    /// `clip_await_snapshots() → void`: until no transaction of this database has a snapshot that could be older than
    /// the one of this statement.
    fn clip_await_snapshots(_fcinfo) {
        // Vacuum sees everything by itself, and whatever builds an index reads its own table only.
        const IN_VACUUM_OR_INDEX_BUILD: i32 = 0x01 | 0x02 | 0x04;
        // SAFETY: a statement that calls a VOLATILE function has an active snapshot; the array has `count` entries.
        unsafe {
            let limit = (*pg_sys::GetActiveSnapshot()).xmin;
            let mut count = 0;
            let old = pg_sys::GetCurrentVirtualXIDs(limit, true, false, IN_VACUUM_OR_INDEX_BUILD, &mut count);
            for index in 0..usize::try_from(count).expect("a count is not negative") {
                pg_sys::VirtualXactLock(*old.add(index), true);
            }
        }
        Ok(pg_sys::Datum::from(0))
    }
}
