//! Rows of catalogs that PostgreSQL keeps no cache of.

use pgrx::pg_sys;

/// Scans the rows of a catalog whose column, the first one of the index, equals a value, and returns the first
/// value that `read` makes of one.
pub(crate) fn find_row<R>(
    catalog: pg_sys::Oid,
    index: u32,
    column: u32,
    equal: u32,
    value: pg_sys::Datum,
    read: impl FnMut(pg_sys::HeapTuple, pg_sys::TupleDesc) -> Option<R>,
) -> Option<R> {
    let mut key = pg_sys::ScanKeyData::default();
    let is_equal = pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber;
    // SAFETY: the operator is one for values of the column's type.
    unsafe {
        pg_sys::ScanKeyInit(&mut key, column as pg_sys::AttrNumber, is_equal, equal.into(), value);
        scan(catalog, Some((index, key)), read)
    }
}

/// What `read` makes of the first row that it makes something of, of all of a catalog.
pub(crate) fn find_any_row<R>(
    catalog: pg_sys::Oid,
    read: impl FnMut(pg_sys::HeapTuple, pg_sys::TupleDesc) -> Option<R>,
) -> Option<R> {
    // SAFETY: no index and no key.
    unsafe { scan(catalog, None, read) }
}

/// # Safety
/// The index is one of the catalog, and the key is one of its first column.
unsafe fn scan<R>(
    catalog: pg_sys::Oid,
    by: Option<(u32, pg_sys::ScanKeyData)>,
    mut read: impl FnMut(pg_sys::HeapTuple, pg_sys::TupleDesc) -> Option<R>,
) -> Option<R> {
    let (index, mut keys) = by.map_or((0, Vec::new()), |(index, key)| (index, vec![key]));
    // SAFETY: called inside of a transaction; the caller vouches for the index and the key. Each row is read before the scan
    // goes on.
    unsafe {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let relation = pg_sys::table_open(catalog, lock);
        let count = i32::from(!keys.is_empty());
        let (by_index, keys) = (count > 0, keys.as_mut_ptr());
        let scan =
            pg_sys::systable_beginscan(relation, index.into(), by_index, std::ptr::null_mut(), count, keys);
        let mut found = None;
        while found.is_none() {
            let row = pg_sys::systable_getnext(scan);
            if row.is_null() {
                break;
            }
            found = read(row, (*relation).rd_att);
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, lock);
        found
    }
}
