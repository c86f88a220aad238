//! The entries of a table in the catalogs, as they are now.
//!
//! Types, owners, names and indexes change between two transactions. So a transaction locks a table first, looks it
//! up then, and uses the entries: under the lock they do not change before its end. Partitions can still be
//! attached ([`crate::partition_tree`]).

use std::ffi::CString;

use pgrx::pg_sys;

use crate::encoding;
use crate::error::Error;

/// A table that this transaction has locked.
pub(crate) struct Table {
    pub(crate) oid: pg_sys::Oid,
    pub(crate) owner: pg_sys::Oid,
    /// Quoted, with its schema.
    pub(crate) name: String,
    /// The table as a query's FROM names it: its own rows and those of its partitions. Rows of inheritance children
    /// are not its own: nothing makes their keys unique.
    pub(crate) rows: String,
    pub(crate) is_partitioned: bool,
    pub(crate) has_triggers: bool,
}

/// A column of a table, by its name.
pub(crate) struct Column {
    number: pg_sys::AttrNumber,
    raw_name: String,
    /// Quoted.
    pub(crate) name: String,
    pub(crate) type_oid: pg_sys::Oid,
    pub(crate) collation: pg_sys::Oid,
}

/// How a table is locked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    /// As a statement that reads with `FOR SHARE`.
    RowShare,
    /// As a statement that writes.
    RowExclusive,
}

impl Lock {
    fn mode(self) -> pg_sys::LOCKMODE {
        match self {
            Lock::RowShare => pg_sys::RowShareLock as pg_sys::LOCKMODE,
            Lock::RowExclusive => pg_sys::RowExclusiveLock as pg_sys::LOCKMODE,
        }
    }

    /// Waits for the lock as long as `lock_timeout` allows.
    pub(crate) fn take(self, table: pg_sys::Oid) {
        // SAFETY: any number may be locked; the transaction's end releases it.
        unsafe { pg_sys::LockRelationOid(table, self.mode()) };
        accept_changes();
    }

    /// Takes the lock if it is free now.
    pub(crate) fn try_take(self, table: pg_sys::Oid) -> bool {
        // SAFETY: any number may be locked; the transaction's end releases it.
        let is_taken = unsafe { pg_sys::ConditionalLockRelationOid(table, self.mode()) };
        accept_changes();
        is_taken
    }
}

/// Takes in other transactions' changes of the catalogs. The server does it for a lock only where the transaction
/// does not have that lock yet.
pub(crate) fn accept_changes() {
    // SAFETY: called inside of a transaction, where no pointer into a cache is kept.
    unsafe { pg_sys::AcceptInvalidationMessages() };
}

impl Table {
    /// Looks up a table that this transaction has locked. Only ordinary and partitioned tables count, because this
    /// code does not know how a view, a foreign table or a rule stores rows. Nothing where there is no such
    /// relation.
    pub(crate) fn find(oid: pg_sys::Oid) -> Result<Option<Table>, Error> {
        // SAFETY: a row of the cache is read before it is released; its first part is the struct of pg_class.
        let found = unsafe {
            let row = search(pg_sys::SysCacheIdentifier::RELOID, oid.into());
            if row.is_null() {
                return Ok(None);
            }
            let class = &*pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_class>();
            let name = encoding::name(&class.relname);
            let found = (class.relowner, class.relnamespace, name, class.relkind, class.relhastriggers);
            pg_sys::ReleaseSysCache(row);
            found
        };
        let (owner, schema, name, kind, has_triggers) = found;
        let name = qualified(schema, &name);
        if ![pg_sys::RELKIND_RELATION, pg_sys::RELKIND_PARTITIONED_TABLE].contains(&letter(kind)) {
            return Err(Error::NotATable(name));
        }
        let is_partitioned = letter(kind) == pg_sys::RELKIND_PARTITIONED_TABLE;
        let rows = if is_partitioned { name.clone() } else { format!("ONLY {name}") };
        Ok(Some(Table { oid, owner, name, rows, is_partitioned, has_triggers }))
    }

    /// A column that can be read from transition tables as from the table itself.
    pub(crate) fn column(&self, name: &str) -> Result<Column, Error> {
        let missing = || Error::NoColumn { column: name.to_owned(), table: self.name.clone() };
        let text = CString::new(encoding::to_server(name)).map_err(|_| missing())?;
        // SAFETY: the string ends with a zero byte; the table is locked, so that the column stays what it is.
        let (number, generated) = unsafe {
            let number = pg_sys::get_attnum(self.oid, text.as_ptr());
            if number <= 0 {
                return Err(missing());
            }
            (number, pg_sys::get_attgenerated(self.oid, number))
        };
        let (type_oid, collation) = type_and_collation(self.oid, number);
        if letter(generated) == ATTRIBUTE_GENERATED_VIRTUAL {
            return Err(Error::VirtualColumn { column: name.to_owned(), table: self.name.clone() });
        }
        Ok(Column { number, raw_name: name.to_owned(), name: identifier(name), type_oid, collation })
    }

    /// As [`Table::column`], of this type.
    pub(crate) fn column_of(&self, name: &str, wanted: pg_sys::Oid) -> Result<Column, Error> {
        let column = self.column(name)?;
        if column.type_oid != wanted {
            return Err(Error::ColumnType {
                column: name.to_owned(),
                table: self.name.clone(),
                found: type_name(column.type_oid),
                wanted: type_name(wanted),
            });
        }
        Ok(column)
    }

    /// As [`Table::column`], of type `text` or `varchar`.
    pub(crate) fn text_column(&self, name: &str) -> Result<Column, Error> {
        let column = self.column(name)?;
        if is_text(column.type_oid) { Ok(column) } else { self.column_of(name, pg_sys::TEXTOID) }
    }

    /// Whether the table has a trigger of this name.
    pub(crate) fn has_trigger(&self, name: &str) -> bool {
        function_of_trigger(self.oid, name).is_some()
    }

    /// Refuses a column that is not unique once a transaction has committed. Returns whether it is unique at the
    /// end of each statement too: a deferrable constraint may be checked only at the commit.
    pub(crate) fn check_unique(&self, column: &Column) -> Result<bool, Error> {
        uniqueness(self.oid, column.number)
            .ok_or_else(|| Error::NotUnique { column: column.name.clone(), table: self.name.clone() })
    }
}

/// Whether a column of a locked table has no value twice at the end of each statement, and not only at the commit; nothing where
/// two rows can have equal values.
pub(crate) fn uniqueness(table: pg_sys::Oid, column: pg_sys::AttrNumber) -> Option<bool> {
    // SAFETY: the table is locked; the list holds oids of its indexes, and is freed once.
    unsafe {
        let relation = pg_sys::RelationIdGetRelation(table);
        if relation.is_null() {
            return None;
        }
        let indexes = pg_sys::RelationGetIndexList(relation);
        let count = if indexes.is_null() { 0 } else { (*indexes).length };
        let is_immediate = (0..usize::try_from(count).unwrap_or_default())
            .filter_map(|index| uniqueness_by((*(*indexes).elements.add(index)).oid_value, table, column))
            .max();
        pg_sys::list_free(indexes);
        pg_sys::RelationClose(relation);
        is_immediate
    }
}

impl Column {
    pub(crate) fn number(&self) -> pg_sys::AttrNumber {
        self.number
    }

    /// The name as it is, without quotes.
    pub(crate) fn raw_name(&self) -> &str {
        &self.raw_name
    }

    /// Whether a statement on this table, or on its partition `table`, names the column in its SET clause, or
    /// computes the column from one that it names there.
    ///
    /// # Safety
    /// `columns` is null or a set of the numbers of columns of `table` as `TriggerData` has it.
    pub(crate) unsafe fn is_in(&self, columns: *const pg_sys::Bitmapset, table: pg_sys::Oid) -> bool {
        let name = CString::new(encoding::to_server(&self.raw_name)).unwrap_or_default();
        // SAFETY: the string ends with a zero byte; the caller vouches for the set.
        unsafe {
            let number = pg_sys::get_attnum(table, name.as_ptr());
            pg_sys::bms_is_member(i32::from(number) - pg_sys::FirstLowInvalidHeapAttributeNumber, columns)
        }
    }
}

/// As in `catalog/pg_attribute.h` from PostgreSQL 18 on.
const ATTRIBUTE_GENERATED_VIRTUAL: u8 = b'v';

/// Whether an index that makes the column unique does so at the end of each statement, and not only at the commit;
/// nothing where the index does not make it unique.
///
/// # Safety
/// `index` is an index of `table`, which is locked.
unsafe fn uniqueness_by(index: pg_sys::Oid, table: pg_sys::Oid, column: pg_sys::AttrNumber) -> Option<bool> {
    let cache = pg_sys::SysCacheIdentifier::INDEXRELID;
    // SAFETY: a row of the cache is read before it is released; its first part is the struct of pg_index, whose
    // arrays of keys, operator classes and collations have one element at least.
    unsafe {
        let row = search(cache, index.into());
        if row.is_null() {
            return None;
        }
        let entry = &*pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_index>();
        let is_unique = entry.indisunique
            && entry.indisvalid
            && entry.indnkeyatts == 1
            && entry.indkey.values.as_ptr().read() == column
            && pg_sys::heap_attisnull(row, pg_sys::Anum_pg_index_indpred as i32, std::ptr::null_mut());
        let is_immediate = entry.indimmediate;
        let first = |attribute: u32| {
            let mut is_null = false;
            let attribute = pg_sys::AttrNumber::try_from(attribute).expect("a column of pg_index");
            let oids = pg_sys::SysCacheGetAttr(cache as i32, row, attribute, &mut is_null);
            let oids = &*oids.cast_mut_ptr::<pg_sys::oidvector>();
            oids.values.as_ptr().read()
        };
        let (class, collation) =
            (first(pg_sys::Anum_pg_index_indclass), first(pg_sys::Anum_pg_index_indcollation));
        pg_sys::ReleaseSysCache(row);
        (is_unique && has_own_equality(class, collation, table, column)).then_some(is_immediate)
    }
}

/// Whether an index of this operator class and collation takes the same values of a column for equal as the column's type and
/// collation do.
fn has_own_equality(
    class: pg_sys::Oid,
    collation: pg_sys::Oid,
    table: pg_sys::Oid,
    column: pg_sys::AttrNumber,
) -> bool {
    let (type_oid, own_collation) = type_and_collation(table, column);
    // SAFETY: look-ups of the types, classes and collations of a locked table and its index, which stay.
    unsafe {
        let (family, input) = (pg_sys::get_opclass_family(class), pg_sys::get_opclass_input_type(class));
        let equal = pg_sys::int16::try_from(pg_sys::BTEqualStrategyNumber).expect("a strategy's number");
        let equal = pg_sys::get_opfamily_member(family, input, input, equal);
        let own = (*pg_sys::lookup_type_cache(type_oid, pg_sys::TYPECACHE_EQ_OPR as i32)).eq_opr;
        // Of deterministic collations, each takes texts for equal that have the same bytes.
        let is_deterministic = |collation| pg_sys::get_collation_isdeterministic(collation);
        equal == own
            && (collation == own_collation
                || [collation, own_collation].iter().all(|one| *one != pg_sys::InvalidOid)
                    && is_deterministic(collation)
                    && is_deterministic(own_collation))
    }
}

/// The type and the collation of a column of a locked table.
fn type_and_collation(table: pg_sys::Oid, column: pg_sys::AttrNumber) -> (pg_sys::Oid, pg_sys::Oid) {
    let (mut type_oid, mut modifier, mut collation) = (pg_sys::InvalidOid, 0, pg_sys::InvalidOid);
    // SAFETY: the column is one of a table that is locked.
    unsafe { pg_sys::get_atttypetypmodcoll(table, column, &mut type_oid, &mut modifier, &mut collation) };
    (type_oid, collation)
}

/// Whether a type is `text` or `varchar`, whose values are stored alike.
pub(crate) fn is_text(type_oid: pg_sys::Oid) -> bool {
    [pg_sys::TEXTOID, pg_sys::VARCHAROID].contains(&type_oid)
}

/// The operator by which a type's values are equal, as SQL writes it: that of its default operator class.
pub(crate) fn equality_of(type_oid: pg_sys::Oid) -> Result<String, Error> {
    let without = || Error::NoEquality(type_name(type_oid));
    // SAFETY: the entry of a type that a column has stays; the row of the cache is read before it is released.
    unsafe {
        let entry = pg_sys::lookup_type_cache(type_oid, pg_sys::TYPECACHE_EQ_OPR as i32);
        if (*entry).eq_opr == pg_sys::InvalidOid {
            return Err(without());
        }
        let row = search(pg_sys::SysCacheIdentifier::OPEROID, (*entry).eq_opr.into());
        if row.is_null() {
            return Err(without());
        }
        let operator = &*pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_operator>();
        let (schema, name) = (operator.oprnamespace, encoding::name(&operator.oprname));
        pg_sys::ReleaseSysCache(row);
        Ok(format!("OPERATOR({}.{name})", schema_name(schema)))
    }
}

/// Quotes a name where it needs it.
pub(crate) fn identifier(name: &str) -> String {
    let text = CString::new(encoding::to_server(name)).unwrap_or_default();
    // SAFETY: `quote_identifier` returns its argument or a string in the current memory context.
    unsafe { encoding::c_string(pg_sys::quote_identifier(text.as_ptr())) }
}

/// A relation's quoted name with its schema, or its number where there is none.
pub(crate) fn name_of(relation: pg_sys::Oid) -> String {
    // SAFETY: the function takes any number, and returns null or a string in the current memory context.
    unsafe {
        let name = pg_sys::get_rel_name(relation);
        if name.is_null() {
            return u32::from(relation).to_string();
        }
        qualified(pg_sys::get_rel_namespace(relation), &encoding::c_string(name))
    }
}

/// The function of a table's trigger of this name, where there is one. The table is locked.
pub(crate) fn function_of_trigger(table: pg_sys::Oid, name: &str) -> Option<pg_sys::Oid> {
    // SAFETY: the entry of the table in the cache, with as many triggers as it says, stays while it is open.
    unsafe {
        let relation = pg_sys::RelationIdGetRelation(table);
        if relation.is_null() {
            return None;
        }
        let triggers = (*relation).trigdesc;
        let count =
            if triggers.is_null() { 0 } else { usize::try_from((*triggers).numtriggers).unwrap_or_default() };
        let trigger = (0..count)
            .map(|index| &*(*triggers).triggers.add(index))
            .find(|trigger| encoding::c_string(trigger.tgname) == name);
        let function = trigger.map(|trigger| trigger.tgfoid);
        pg_sys::RelationClose(relation);
        function
    }
}

/// The owner of a relation, where there is one of this number.
pub(crate) fn owner_of(relation: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: the cache has the rows of pg_class, whose first part is this struct.
    unsafe {
        look_up(pg_sys::SysCacheIdentifier::RELOID, relation, |row: &pg_sys::FormData_pg_class| row.relowner)
    }
}

/// The owner of a function, where there is one of this number.
pub(crate) fn owner_of_function(function: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: the cache has the rows of pg_proc, whose first part is this struct.
    unsafe {
        look_up(pg_sys::SysCacheIdentifier::PROCOID, function, |row: &pg_sys::FormData_pg_proc| row.proowner)
    }
}

/// The owner of a type, where there is one of this number.
pub(crate) fn owner_of_type(type_oid: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: the cache has the rows of pg_type, whose first part is this struct.
    unsafe {
        look_up(pg_sys::SysCacheIdentifier::TYPEOID, type_oid, |row: &pg_sys::FormData_pg_type| row.typowner)
    }
}

/// The owner of an operator, and the types of its sides, where there is one of this number.
pub(crate) fn operator_with_owner(operator: pg_sys::Oid) -> Option<(pg_sys::Oid, [pg_sys::Oid; 2])> {
    // SAFETY: the cache has the rows of pg_operator, whose first part is this struct.
    unsafe {
        look_up(pg_sys::SysCacheIdentifier::OPEROID, operator, |row: &pg_sys::FormData_pg_operator| {
            (row.oprowner, [row.oprleft, row.oprright])
        })
    }
}

/// What `read` takes from the row of an object, where there is one.
///
/// # Safety
/// The cache's only key is the number of an object, and its rows begin with this struct.
unsafe fn look_up<S, R>(
    cache: pg_sys::SysCacheIdentifier::Type,
    object: pg_sys::Oid,
    read: impl FnOnce(&S) -> R,
) -> Option<R> {
    // SAFETY: the caller vouches for the key and the struct; the row is read before it is released.
    unsafe {
        let row = search(cache, object.into());
        if row.is_null() {
            return None;
        }
        let found = read(&*pg_sys::GETSTRUCT(row).cast::<S>());
        pg_sys::ReleaseSysCache(row);
        Some(found)
    }
}

/// A function as SQL names it, with the types of its arguments.
pub(crate) fn function_name(function: pg_sys::Oid) -> String {
    // SAFETY: takes any number, and returns a string in the current memory context.
    unsafe { encoding::c_string(pg_sys::format_procedure(function)) }
}

/// An operator as SQL names it, with the types of its sides.
pub(crate) fn operator_name(operator: pg_sys::Oid) -> String {
    // SAFETY: takes any number, and returns a string in the current memory context.
    unsafe { encoding::c_string(pg_sys::format_operator(operator)) }
}

/// A letter of a catalog, a `char`, which has a sign on some processors and none on others.
pub(crate) fn letter(of: std::ffi::c_char) -> u8 {
    let [letter] = of.to_ne_bytes();
    letter
}

fn qualified(schema: pg_sys::Oid, name: &str) -> String {
    format!("{}.{}", schema_name(schema), identifier(name))
}

/// The quoted name of a schema, or its number where there is none.
pub(crate) fn schema_name(schema: pg_sys::Oid) -> String {
    // SAFETY: the function takes any number, and returns null or a string in the current memory context.
    unsafe {
        let name = pg_sys::get_namespace_name(schema);
        if name.is_null() { u32::from(schema).to_string() } else { identifier(&encoding::c_string(name)) }
    }
}

pub(crate) fn type_name(type_oid: pg_sys::Oid) -> String {
    // SAFETY: takes any number, and returns a string in the current memory context.
    unsafe { encoding::c_string(pg_sys::format_type_be(type_oid)) }
}

/// # Safety
/// The cache has one key, of this type.
unsafe fn search(cache: pg_sys::SysCacheIdentifier::Type, key: pg_sys::Datum) -> pg_sys::HeapTuple {
    // SAFETY: the caller vouches for the cache and its key.
    unsafe { pg_sys::SearchSysCache1(cache as i32, key) }
}
