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
    mut read: impl FnMut(pg_sys::HeapTuple, pg_sys::TupleDesc) -> Option<R>,
) -> Option<R> {
    // SAFETY: called inside of a transaction, with an index of the catalog that begins with this column, and a value and an
    // operator of its type; each row is read before the scan goes on.
    unsafe {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let relation = pg_sys::table_open(catalog, lock);
        let mut key = pg_sys::ScanKeyData::default();
        let is_equal = pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber;
        pg_sys::ScanKeyInit(&mut key, column as pg_sys::AttrNumber, is_equal, equal.into(), value);
        let scan =
            pg_sys::systable_beginscan(relation, index.into(), true, std::ptr::null_mut(), 1, &mut key);
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
