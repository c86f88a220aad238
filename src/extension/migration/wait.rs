//! Waiting for the transactions of others to end, without holding a place in any queue.

use pgrx::{FromDatum, IntoDatum, pg_sys};

use super::{argument, own_table};
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
    /// `clip_snapshot_holders() → text[]`: the transactions of this database with a snapshot that could be older than
    /// the one of this statement, each as `pg_locks.virtualtransaction` names it.
    fn clip_snapshot_holders(_fcinfo) {
        // Vacuum sees everything by itself, and whatever builds an index reads its own table only.
        const IN_VACUUM_OR_INDEX_BUILD: i32 = 0x01 | 0x02 | 0x04;
        // SAFETY: a statement that calls a VOLATILE function has an active snapshot; the array has `count` entries.
        let names: Vec<String> = unsafe {
            let limit = (*pg_sys::GetActiveSnapshot()).xmin;
            let mut count = 0;
            let old = pg_sys::GetCurrentVirtualXIDs(limit, true, false, IN_VACUUM_OR_INDEX_BUILD, &mut count);
            let count = usize::try_from(count).expect("a count is not negative");
            (0..count).map(|index| name_of(*old.add(index))).collect()
        };
        Ok(names.into_datum().unwrap_or(0.into()))
    }
}

sql_function! {
    /// `clip_await_transactions(names text[]) → void`: until those have ended.
    fn clip_await_transactions(fcinfo) {
        // SAFETY: SQL declares the function STRICT with this argument.
        let names = unsafe { Vec::<String>::from_datum(argument(fcinfo, 0), false) }.unwrap_or_default();
        for transaction in names.iter().filter_map(|name| named(name)) {
            // SAFETY: a transaction that has ended, or has never been, is not waited for.
            unsafe { pg_sys::VirtualXactLock(transaction, true) };
        }
        Ok(pg_sys::Datum::from(0))
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
