//! Locks that last from one transaction of a procedure to the next.
//!
//! They belong to the session, but not for longer than the procedure: it lets go of them at its end, and PostgreSQL
//! does when an error or a cancel ends it. A pooler never passes them on.

use pgrx::{FromDatum, IntoDatum, pg_sys};

use super::{argument, own_table};
use crate::sql_function;

/// What a table is held against.
#[derive(Clone, Copy)]
enum Against {
    /// Another migration. It does not keep VACUUM away, as a lock of the table itself would.
    Migrations,
    /// Whoever writes to the table. Who reads it is not kept away.
    Writers,
}

sql_function! {
    /// `clip_hold(target regclass, what text) → bool`: whether the lock was free. Against writers, it waits until it is,
    /// for as long as `lock_timeout` allows.
    fn clip_hold(fcinfo) {
        // SAFETY: SQL declares the function STRICT with these arguments.
        let (table, against) = unsafe { (own_table(fcinfo)?, Against::read(fcinfo)) };
        let held = match against {
            // SAFETY: the tag is whole, and its lock ends with the session at the latest.
            Against::Migrations => unsafe {
                let lock = pg_sys::ExclusiveLock as pg_sys::LOCKMODE;
                pg_sys::LockAcquire(&migrations(table), lock, true, true)
                    != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
            },
            Against::Writers => {
                // SAFETY: as above.
                unsafe { pg_sys::LockRelationIdForSession(&mut relation(table), WITHOUT_WRITERS) };
                true
            }
        };
        Ok(held.into_datum().unwrap_or(0.into()))
    }
}

sql_function! {
    /// `clip_let_go(target regclass, what text) → void`
    fn clip_let_go(fcinfo) {
        // SAFETY: SQL declares the function STRICT with these arguments. A lock that is not held is a warning.
        unsafe {
            let table = own_table(fcinfo)?;
            match Against::read(fcinfo) {
                Against::Migrations => {
                    let lock = pg_sys::ExclusiveLock as pg_sys::LOCKMODE;
                    pg_sys::LockRelease(&migrations(table), lock, true);
                }
                Against::Writers => pg_sys::UnlockRelationIdForSession(&mut relation(table), WITHOUT_WRITERS),
            }
        }
        Ok(pg_sys::Datum::from(0))
    }
}

const WITHOUT_WRITERS: pg_sys::LOCKMODE = pg_sys::ShareRowExclusiveLock as pg_sys::LOCKMODE;

impl Against {
    /// # Safety
    /// `fcinfo` is that of a STRICT function whose second argument is a `text`.
    unsafe fn read(fcinfo: pg_sys::FunctionCallInfo) -> Against {
        // SAFETY: the caller vouches for `fcinfo`.
        let what = unsafe { String::from_datum(argument(fcinfo, 1), false) };
        if what.as_deref() == Some("writers") { Against::Writers } else { Against::Migrations }
    }
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

fn relation(table: pg_sys::Oid) -> pg_sys::LockRelId {
    // SAFETY: a plain read of this backend's database.
    pg_sys::LockRelId { relId: table, dbId: unsafe { pg_sys::MyDatabaseId } }
}
