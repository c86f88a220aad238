//! Partitions that the running transaction has taken from their tables.
//!
//! When an event trigger is told that a table was dropped or detached, the catalogs no longer say what it was a partition of.
//! The row of `pg_inherits` that said so stays until the transaction ends, marked as deleted by it.

use pgrx::pg_sys;

use crate::partition_tree::ancestors;

/// The tables that a table was a partition or a child of before this transaction, at any height.
pub(super) fn wholes(table: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    let mut found = vec![table];
    let mut next = 0;
    while let Some(part) = found.get(next).copied() {
        next += 1;
        let taken = deleted_links(Side::Part, part).into_iter().map(|link| link.whole);
        for whole in taken.chain(ancestors(part)) {
            if !found.contains(&whole) {
                found.push(whole);
            }
        }
    }
    found.remove(0);
    found
}

/// The partitions and children that this transaction has taken from a table.
pub(super) fn taken_from(whole: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    let mut parts: Vec<pg_sys::Oid> =
        deleted_links(Side::Whole, whole).into_iter().map(|link| link.part).collect();
    parts.sort_unstable_by_key(|part| u32::from(*part));
    parts.dedup();
    parts
}

#[derive(Clone, Copy)]
enum Side {
    Part,
    Whole,
}

/// What a row of `pg_inherits` says.
struct Link {
    part: pg_sys::Oid,
    whole: pg_sys::Oid,
}

/// The rows of `pg_inherits` with a table on one side that this transaction has deleted.
fn deleted_links(side: Side, table: pg_sys::Oid) -> Vec<Link> {
    // As in PostgreSQL's catalog/pg_inherits.h.
    const RELATION: u32 = 2611;
    let (column, index) = match side {
        Side::Part => (1, 2680u32),
        Side::Whole => (2, 2187u32),
    };
    let mut found = Vec::new();
    // SAFETY: called inside of a transaction, with the index of the catalog that begins with this column, a value of its type
    // and an operator for it. Each row is read before the scan goes on, and begins with the two oids that say which tables it
    // links. The snapshot that sees every row is there as long as the process.
    unsafe {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let relation = pg_sys::table_open(RELATION.into(), lock);
        let mut key = pg_sys::ScanKeyData::default();
        let is_equal = pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber;
        pg_sys::ScanKeyInit(&mut key, column, is_equal, pg_sys::F_OIDEQ.into(), table.into());
        let every_row = &raw mut pg_sys::SnapshotAnyData;
        let scan = pg_sys::systable_beginscan(relation, index.into(), true, every_row, 1, &mut key);
        loop {
            let row = pg_sys::systable_getnext(scan);
            if row.is_null() {
                break;
            }
            if is_deleted_here(row) {
                let [part, whole] = *pg_sys::GETSTRUCT(row).cast::<[pg_sys::Oid; 2]>();
                found.push(Link { part, whole });
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, lock);
    }
    found
}

/// Whether this transaction has deleted a row.
///
/// # Safety
/// `row` is a row of a table, with its header as the table has it.
unsafe fn is_deleted_here(row: pg_sys::HeapTuple) -> bool {
    const NOT_DELETED: u32 =
        pg_sys::HEAP_XMAX_INVALID | pg_sys::HEAP_XMAX_LOCK_ONLY | pg_sys::HEAP_XMAX_IS_MULTI;
    // SAFETY: the caller vouches for the row; the function takes the number of any transaction.
    unsafe {
        let header = &*(*row).t_data;
        u32::from(header.t_infomask) & NOT_DELETED == 0
            && pg_sys::TransactionIdIsCurrentTransactionId(header.t_choice.t_heap.t_xmax)
    }
}
