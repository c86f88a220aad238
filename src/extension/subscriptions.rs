//! Tables that a subscription of logical replication fills.
//!
//! PostgreSQL looks at no right on a table that is subscribed to before a row comes. So a subscription counts only where
//! PostgreSQL applies its rows ([`applies`]): otherwise a member of `pg_create_subscription` could stop the embedding of any
//! table.

use pgrx::pg_sys;

use crate::catalog;
use crate::catalog_row::{find_any_row, find_row};
use crate::partition_tree::{ancestors, is_partitioned};
use crate::sql_function::sql_function;
use crate::watch::registry::{argument, oid_of};

// As in PostgreSQL's catalog/pg_subscription_rel.h.
const SUBSCRIBED: u32 = 6102;
const BY_TABLE: u32 = 6117;
const TABLE: u32 = 2;

sql_function! {
    /// `clip_is_filled(target regclass) → bool`, for a view.
    fn clip_is_filled(fcinfo) {
        // SAFETY: SQL declares the function STRICT with this argument.
        let target = unsafe { argument(fcinfo, 0) };
        Ok(pg_sys::Datum::from(target.is_some_and(|target| is_subscribed(oid_of(target)))))
    }
}

/// Whether a subscription fills a table, a partition of it, or a table that it is a partition of: a publisher sends the rows of
/// each partition as its own, or as those of the whole.
pub(crate) fn is_subscribed(table: pg_sys::Oid) -> bool {
    if is_filled(table) || ancestors(table).into_iter().any(is_filled) {
        return true;
    }
    // From the subscribed tables, of which most servers have none, to those that they are partitions of: a table may have
    // thousands of partitions.
    let part = |row, _| {
        // SAFETY: a row of pg_subscription_rel.
        let row = unsafe { Row::read(row) };
        (ancestors(row.table).contains(&table) && row.is_applied()).then_some(())
    };
    is_partitioned(table) && find_any_row(SUBSCRIBED.into(), part).is_some()
}

/// Whether a subscription fills a table by itself.
fn is_filled(table: pg_sys::Oid) -> bool {
    find_row(SUBSCRIBED.into(), BY_TABLE, TABLE, pg_sys::F_OIDEQ, table.into(), |row, _| {
        // SAFETY: a row of pg_subscription_rel.
        unsafe { Row::read(row) }.is_applied().then_some(())
    })
    .is_some()
}

/// A row of `pg_subscription_rel`.
struct Row {
    subscription: pg_sys::Oid,
    table: pg_sys::Oid,
}

impl Row {
    /// # Safety
    /// `row` is a row of `pg_subscription_rel`.
    unsafe fn read(row: pg_sys::HeapTuple) -> Row {
        // SAFETY: the caller vouches for the row, whose first two columns are these and never NULL.
        let [subscription, table] = unsafe { *pg_sys::GETSTRUCT(row).cast::<[pg_sys::Oid; 2]>() };
        Row { subscription, table }
    }

    fn is_applied(&self) -> bool {
        Subscription::find(self.subscription).is_some_and(|subscription| applies(&subscription, self.table))
    }
}

struct Subscription {
    owner: pg_sys::Oid,
    /// Whether rows are applied as its owner: in PostgreSQL 15 always, in later releases where the option `run_as_owner` says so.
    runs_as_owner: bool,
}

impl Subscription {
    fn find(subscription: pg_sys::Oid) -> Option<Subscription> {
        // As in PostgreSQL's catalog/pg_subscription.h.
        const RELATION: u32 = 6100;
        const INDEX: u32 = 6114;
        const NUMBER: u32 = 1;
        find_row(RELATION.into(), INDEX, NUMBER, pg_sys::F_OIDEQ, subscription.into(), |row, description| {
            // SAFETY: a row of pg_subscription with its description, and a column of it.
            let value = |column: &std::ffi::CStr| unsafe {
                let number = i32::from(pg_sys::get_attnum(RELATION.into(), column.as_ptr()));
                let mut is_null = true;
                let value = if number > 0 {
                    pg_sys::SPI_getbinval(row, description, number, &mut is_null)
                } else {
                    pg_sys::Datum::from(0)
                };
                (!is_null).then_some(value)
            };
            Some(Subscription {
                owner: oid_of(value(c"subowner")?),
                runs_as_owner: value(c"subrunasowner").is_none_or(|runs| runs.value() != 0),
            })
        })
    }
}

/// Whether PostgreSQL applies rows of a subscription to a table: where the role that it applies them as may insert into the
/// table, and sees each row of it. That role is the owner of the subscription, or else the owner of the table, which the owner of
/// the subscription must be able to become.
fn applies(subscription: &Subscription, table: pg_sys::Oid) -> bool {
    let writer = if subscription.runs_as_owner {
        Some(subscription.owner)
    } else {
        catalog::owner_of(table).filter(|owner| can_become(subscription.owner, *owner))
    };
    writer.is_some_and(|writer| may_insert(writer, table))
}

fn may_insert(role: pg_sys::Oid, table: pg_sys::Oid) -> bool {
    let insert = pg_sys::AclMode::from(pg_sys::ACL_INSERT);
    let mut is_missing = false;
    // SAFETY: look any numbers up in the catalogs, those of a table that is gone included.
    unsafe {
        pg_sys::pg_class_aclcheck_ext(table, role, insert, &mut is_missing) == pg_sys::AclResult::ACLCHECK_OK
            && !is_missing
            && pg_sys::check_enable_rls(table, role, true).cast_unsigned()
                != pg_sys::CheckEnableRlsResult::RLS_ENABLED
    }
}

/// Whether a role may become another one with `SET ROLE`.
#[cfg(not(feature = "pg15"))]
fn can_become(role: pg_sys::Oid, other: pg_sys::Oid) -> bool {
    // SAFETY: looks any two roles up.
    unsafe { pg_sys::member_can_set_role(role, other) }
}

/// In PostgreSQL 15, each member may.
#[cfg(feature = "pg15")]
fn can_become(role: pg_sys::Oid, other: pg_sys::Oid) -> bool {
    // SAFETY: looks any two roles up.
    unsafe { pg_sys::is_member_of_role(role, other) }
}
