//! Partitions and the tables that they are part of.
//!
//! ATTACH PARTITION does not wait for other sessions that have locked the table. And its rows are visible a moment
//! before other backends are told of the partition: a backend can see the jobs of a partition's photos and not the
//! photos. So no photo counts as gone before [`is_known`] has said that all partitions are known.

use pgrx::pg_sys;

use crate::catalog::{Table, accept_changes, letter};

unsafe extern "C-unwind" {
    /// `catalog/partition.h`
    fn get_partition_ancestors(table: pg_sys::Oid) -> *mut pg_sys::List;
    /// `catalog/pg_inherits.h`: the partitions or children of a table itself.
    fn find_inheritance_children(table: pg_sys::Oid, lock: pg_sys::LOCKMODE) -> *mut pg_sys::List;
}

/// The partitioned tables that a table is part of, the nearest first.
pub(crate) fn ancestors(table: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    // SAFETY: the function that asks takes any number; the one that lists takes a partition, and returns a list of oids;
    // an ERROR becomes a panic.
    unsafe {
        if !pg_sys::get_rel_relispartition(table) {
            return Vec::new();
        }
        oids(pg_sys::ffi::pg_guard_ffi_boundary(|| get_partition_ancestors(table)))
    }
}

/// The partitions of a table at any depth; none where it is not partitioned.
pub(crate) fn below(table: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    let mut tree = tree(table);
    tree.remove(0);
    tree
}

/// Whether a table is a partitioned one.
pub(crate) fn is_partitioned(table: pg_sys::Oid) -> bool {
    // SAFETY: looks any number up in the catalogs.
    unsafe { letter(pg_sys::get_rel_relkind(table)) == pg_sys::RELKIND_PARTITIONED_TABLE }
}

/// Whether this backend knows all partitions that the committed transactions attached, whose rows it can see. It does not
/// where a transaction that attaches or detaches one is under way.
pub(crate) fn is_known(table: &Table) -> bool {
    if !table.is_partitioned {
        return true;
    }
    accept_changes();
    tree(table.oid).into_iter().all(is_settled)
}

/// Whether no transaction attaches a partition to this table. One that did has told all backends before its lock is free.
fn is_settled(table: pg_sys::Oid) -> bool {
    let mode = pg_sys::ShareUpdateExclusiveLock as pg_sys::LOCKMODE;
    if !is_partitioned(table) {
        return true;
    }
    // SAFETY: any number may be locked; a lock that was taken is given back once.
    unsafe {
        let is_free = pg_sys::ConditionalLockRelationOid(table, mode);
        if is_free {
            pg_sys::UnlockRelationOid(table, mode);
        }
        is_free
    }
}

/// A table and its partitions at any depth, each after what it is part of.
fn tree(table: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    let mut tree = vec![table];
    let mut next = 0;
    while let Some(&whole) = tree.get(next) {
        next += 1;
        if is_partitioned(whole) {
            // SAFETY: the function takes any number, and returns a list of oids; an ERROR becomes a panic.
            tree.extend(unsafe {
                oids(pg_sys::ffi::pg_guard_ffi_boundary(|| {
                    find_inheritance_children(whole, pg_sys::NoLock as pg_sys::LOCKMODE)
                }))
            });
        }
    }
    tree
}

/// # Safety
/// `list` is null or a list of oids that nothing else uses.
unsafe fn oids(list: *mut pg_sys::List) -> Vec<pg_sys::Oid> {
    // SAFETY: the caller vouches for the list, which is freed once.
    unsafe {
        let count = if list.is_null() { 0 } else { usize::try_from((*list).length).unwrap_or_default() };
        let oids = (0..count).map(|index| (*(*list).elements.add(index)).oid_value).collect();
        pg_sys::list_free(list);
        oids
    }
}
