//! Rows that a MERGE moves from one partition to another.
//!
//! PostgreSQL shows the triggers of a MERGE neither the old nor the new row of such a move. So a partition has two
//! triggers for each row besides. The one AFTER DELETE tells by the old row that it was moved and not deleted. The
//! one AFTER INSERT is fired for the new row next: from a move on, it notes each key. A key that is noted may have
//! been touched, no more: the trigger of the statement looks at its photo, as at those of the keys that it is
//! shown.
//!
//! Nothing is looked up for a row, and no code of a user's runs. The notes outlive no transaction; a statement that
//! failed leaves keys to the next one, where they do no harm.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::{CString, c_int};

use pgrx::pg_sys;

use super::key::{Key, KeyType};
use crate::catalog;
use crate::encoding;
use crate::error::Error;
use crate::partition_tree;

/// The argument of the two triggers, before the name of the key's column.
pub(crate) const ARGUMENT: &str = "moved_key=";

/// The keys that moves have touched.
#[derive(Default)]
pub(super) struct Moved {
    /// Of rows as they are now.
    pub(super) to: Vec<Key>,
    /// Of rows as they were.
    pub(super) from: Vec<Key>,
}

thread_local! {
    static NOTED: RefCell<Noted> = RefCell::default();
}

#[derive(Default)]
struct Noted {
    /// When the transaction began in which the keys were noted.
    since: pg_sys::TimestampTz,
    keys: Vec<NotedKey>,
}

struct NotedKey {
    partition: pg_sys::Oid,
    is_old: bool,
    type_oid: pg_sys::Oid,
    value: Value,
}

/// A key that belongs to no memory context.
enum Value {
    ByValue(pg_sys::Datum),
    /// As aligned as each type may ask for.
    ByReference(Box<[u64]>),
}

unsafe extern "C-unwind" {
    /// `utils/datum.h`
    fn datumGetSize(value: pg_sys::Datum, by_value: bool, length: c_int) -> usize;
}

/// Notes the key of the row that fired a trigger of this module's. Returns false for any other trigger.
///
/// # Safety
/// `data` is that of the running trigger.
pub(super) unsafe fn note(data: *mut pg_sys::TriggerData) -> Result<bool, Error> {
    // SAFETY: the caller vouches for the data: the trigger has as many arguments as it says, and its row is of its table.
    unsafe {
        let trigger = (*data).tg_trigger;
        let event = (*data).tg_event;
        let is_after_row = event & pg_sys::TRIGGER_EVENT_ROW != 0
            && event & pg_sys::TRIGGER_EVENT_TIMINGMASK == pg_sys::TRIGGER_EVENT_AFTER;
        if !is_after_row || (*trigger).tgnargs != 1 {
            return Ok(false);
        }
        let argument = encoding::c_string(*(*trigger).tgargs);
        let Some(column) = argument.strip_prefix(ARGUMENT) else {
            return Ok(false);
        };
        let is_old = match event & pg_sys::TRIGGER_EVENT_OPMASK {
            pg_sys::TRIGGER_EVENT_DELETE => true,
            pg_sys::TRIGGER_EVENT_INSERT => false,
            _ => return Ok(false),
        };
        let (row, relation) = ((*data).tg_trigtuple, (*data).tg_relation);
        let is_wanted = if is_old { has_moved(row) } else { NOTED.with_borrow(Noted::is_of_now) };
        if is_wanted && let Some((type_oid, value)) = key_in(row, relation, column)? {
            let partition = (*relation).rd_id;
            NOTED.with_borrow_mut(|noted| noted.add(NotedKey { partition, is_old, type_oid, value }));
        }
        Ok(true)
    }
}

/// Whether a row that was deleted lives on in another partition.
///
/// # Safety
/// `row` is a row of a table, with its header as the table has it.
unsafe fn has_moved(row: pg_sys::HeapTuple) -> bool {
    /// `MovedPartitionsOffsetNumber` of `storage/itemptr.h`.
    const MOVED: u16 = 0xfffd;
    // SAFETY: the caller vouches for the row.
    let next = unsafe { (*(*row).t_data).t_ctid };
    next.ip_posid == MOVED && (next.ip_blkid.bi_hi, next.ip_blkid.bi_lo) == (u16::MAX, u16::MAX)
}

/// # Safety
/// `row` is a row of the open table `relation`.
unsafe fn key_in(
    row: pg_sys::HeapTuple,
    relation: pg_sys::Relation,
    column: &str,
) -> Result<Option<(pg_sys::Oid, Value)>, Error> {
    let name = CString::new(encoding::to_server(column)).unwrap_or_default();
    // SAFETY: the caller vouches for the row, of whose table the column is; the value is of the column's type, and by
    // reference if that says so.
    unsafe {
        let table = (*relation).rd_id;
        let number = i32::from(pg_sys::get_attnum(table, name.as_ptr()));
        if number <= 0 {
            let table = catalog::name_of(table);
            return Err(Error::NoColumn { column: column.to_owned(), table });
        }
        let mut is_null = false;
        let datum = pg_sys::SPI_getbinval(row, (*relation).rd_att, number, &mut is_null);
        if is_null {
            return Ok(None);
        }
        let type_oid = pg_sys::SPI_gettypeid((*relation).rd_att, number);
        let (mut length, mut by_value) = (0, false);
        pg_sys::get_typlenbyval(type_oid, &mut length, &mut by_value);
        if by_value {
            return Ok(Some((type_oid, Value::ByValue(datum))));
        }
        let datum =
            if length == -1 { pg_sys::pg_detoast_datum_copy(datum.cast_mut_ptr()).into() } else { datum };
        let size = pg_sys::ffi::pg_guard_ffi_boundary(|| datumGetSize(datum, by_value, length.into()));
        let mut words = vec![0_u64; size.div_ceil(size_of::<u64>())].into_boxed_slice();
        std::ptr::copy_nonoverlapping(datum.cast_mut_ptr::<u8>(), words.as_mut_ptr().cast(), size);
        if length == -1 {
            pg_sys::pfree(datum.cast_mut_ptr());
        }
        Ok(Some((type_oid, Value::ByReference(words))))
    }
}

/// Takes the keys that the triggers of a table's partitions noted, for the trigger of the statement that may have
/// moved their rows.
pub(super) fn taken(table: pg_sys::Oid, key_type: &KeyType) -> Moved {
    let noted = NOTED.with_borrow_mut(|noted| if noted.is_of_now() { noted.take(table) } else { Vec::new() });
    let mut moved = Moved::default();
    for NotedKey { is_old, type_oid, value, .. } in noted {
        if type_oid == key_type.oid {
            // SAFETY: the value is of this type.
            let key = unsafe { key_type.copy(value.datum()) };
            if is_old { moved.from.push(key) } else { moved.to.push(key) }
        }
    }
    moved
}

impl Noted {
    /// Whether keys were noted in this transaction.
    fn is_of_now(&self) -> bool {
        !self.keys.is_empty() && self.since == now()
    }

    fn add(&mut self, key: NotedKey) {
        if !self.is_of_now() {
            *self = Noted { since: now(), keys: Vec::new() };
        }
        self.keys.push(key);
    }

    fn take(&mut self, table: pg_sys::Oid) -> Vec<NotedKey> {
        let mut partitions: HashSet<pg_sys::Oid> = self.keys.iter().map(|key| key.partition).collect();
        partitions.retain(|partition| partition_tree::ancestors(*partition).contains(&table));
        let (taken, left) =
            std::mem::take(&mut self.keys).into_iter().partition(|key| partitions.contains(&key.partition));
        self.keys = left;
        taken
    }
}

impl Value {
    fn datum(&self) -> pg_sys::Datum {
        match self {
            Value::ByValue(datum) => *datum,
            Value::ByReference(words) => pg_sys::Datum::from(words.as_ptr()),
        }
    }
}

fn now() -> pg_sys::TimestampTz {
    // SAFETY: a plain read of this backend's state.
    unsafe { pg_sys::GetCurrentTransactionStartTimestamp() }
}
