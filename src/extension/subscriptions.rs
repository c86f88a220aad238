//! Tables that a subscription of logical replication fills.
//!
//! PostgreSQL looks at no right on a table that is subscribed to before a row comes. So a subscription counts only where its
//! owner may write the table: otherwise a member of `pg_create_subscription` could stop the embedding of any table.

use pgrx::pg_sys;

use crate::catalog;
use crate::catalog_row::find_row;
use crate::partition_tree;

/// Whether a subscription fills a table or, as a publisher may send the rows of each by itself, a partition of it.
pub(crate) fn is_subscribed(table: pg_sys::Oid) -> bool {
    is_subscribed_itself(table) || partition_tree::below(table).into_iter().any(is_subscribed_itself)
}

fn is_subscribed_itself(table: pg_sys::Oid) -> bool {
    // As in PostgreSQL's catalog/pg_subscription_rel.h.
    const RELATION: u32 = 6102;
    const INDEX: u32 = 6117;
    const TABLE: u32 = 2;
    find_row(RELATION.into(), INDEX, TABLE, pg_sys::F_OIDEQ, table.into(), |row, _| {
        // SAFETY: a row of pg_subscription_rel, whose first column is the number of the subscription and never NULL.
        let subscription = unsafe { *pg_sys::GETSTRUCT(row).cast::<pg_sys::Oid>() };
        owner_of(subscription).is_some_and(|owner| may_write(owner, table)).then_some(())
    })
    .is_some()
}

/// Whether a role may write a table, as itself or as the table's owner: PostgreSQL applies the rows of a subscription as
/// one of the two.
fn may_write(role: pg_sys::Oid, table: pg_sys::Oid) -> bool {
    let insert = pg_sys::AclMode::from(pg_sys::ACL_INSERT);
    // SAFETY: look any numbers up in the catalogs; the owner of a table that is there is asked for.
    unsafe {
        pg_sys::pg_class_aclcheck(table, role, insert) == pg_sys::AclResult::ACLCHECK_OK
            || catalog::owner_of(table).is_some_and(|owner| pg_sys::is_member_of_role(role, owner))
    }
}

fn owner_of(subscription: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // As in PostgreSQL's catalog/pg_subscription.h.
    const RELATION: u32 = 6100;
    const INDEX: u32 = 6114;
    const NUMBER: u32 = 1;
    find_row(RELATION.into(), INDEX, NUMBER, pg_sys::F_OIDEQ, subscription.into(), |row, description| {
        // SAFETY: a row of pg_subscription with its description; the column is an oid.
        unsafe {
            let column = pg_sys::get_attnum(RELATION.into(), c"subowner".as_ptr());
            let mut is_null = false;
            let owner = pg_sys::SPI_getbinval(row, description, i32::from(column), &mut is_null);
            (!is_null).then(|| pg_sys::Oid::from(owner.value() as u32))
        }
    })
}
