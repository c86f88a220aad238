//! The model that embeds where a call names no model.
//!
//! It is the value of `clip.model`, with one difference to other settings: a value that is set for the database
//! reaches the sessions that are open already. Without it, changing the model of a database would leave each pool's
//! connections asking with the old model for as long as they live.
//!
//! A value that the session, its role, its client or a function set stays. Below those, the entry of `ALTER
//! DATABASE … SET` counts, or else that of `ALTER ROLE ALL SET`, as the catalog has it now. It is read with a
//! catalog snapshot, as the columns of a table are: a query that holds a lock on a table sees the model and the
//! columns of the same moment.
//!
//! An entry that is removed reaches new sessions only: an open session does not know the value that the server's
//! configuration has below it.
//!
//! Where nothing sets `clip.model` at all, the model counts that is written down in `clip_database_model`, by the
//! owner of the database with `clip_watch` or `clip_migrate`. Settings are not in a dump, and that table is:
//! without it, a restored database would be searched with another model than the one of its vectors, and nothing
//! would say so.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use pg_clip_wire::is_model_name;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, pg_sys};

use crate::encoding;
use crate::error::Error;
use crate::spi::Spi;
use crate::varlena::Bytes;
use crate::watch::extension_schema::{ExtensionSchema, Installed};
use crate::watch::role::act_as;
use crate::watch::watches_sql;

static MODEL: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"demo"));

/// Declares `clip.model` to the server.
pub(crate) fn define() {
    // SAFETY: the hooks are made for this setting; the one that can panic is guarded.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"clip.model",
            c"Sets the model that embeds where a call names none.",
            c"The name of an installed model, never a path. Set for a database, it reaches the sessions that are open.",
            &MODEL,
            GucContext::Userset,
            GucFlags::empty(),
            Some(check),
            Some(assign),
            Some(show),
        );
    }
}

/// The model that embeds where a call names no model.
pub(crate) fn model() -> Result<String, Error> {
    checked_name(&name()?)
}

/// The value of `clip.model` that this process was started with or has set, whether or not it counts.
pub(crate) fn configured() -> String {
    MODEL.get().map(|value| value.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Whether this process has a value of an entry that has been removed since. What counts in its place, only a new session learns.
pub(crate) fn is_removed() -> bool {
    use pg_sys::GucSource::{PGC_S_DATABASE, PGC_S_GLOBAL};
    [PGC_S_GLOBAL, PGC_S_DATABASE].contains(&SOURCE.load(Ordering::Relaxed)) && entry().is_none()
}

/// Whether a model is the one that counts for the whole database, or nothing else is set in this session.
pub(crate) fn is_the_databases(model: &str) -> Result<bool, Error> {
    if SOURCE.load(Ordering::Relaxed) <= pg_sys::GucSource::PGC_S_DATABASE {
        return Ok(true);
    }
    let of_database = match entry() {
        Some(entry) => Some(entry),
        None => written_down()?,
    };
    Ok(of_database.as_deref() == Some(model))
}

/// A name that may be sent to the embedder.
pub(crate) fn checked_name(name: &str) -> Result<String, Error> {
    if is_model_name(name) { Ok(name.to_owned()) } else { Err(Error::BadModelName(name.to_owned())) }
}

/// The value that counts, whether or not it can be a model's name. Costs next to nothing while nothing in the
/// database changes. An error where nothing sets it and the extension is of another version than the library: a
/// search with another model than the one of the vectors would find the wrong photos.
fn name() -> Result<String, Error> {
    // SAFETY: plain reads of this backend's state.
    let sees_catalogs = unsafe { pg_sys::IsTransactionState() && pg_sys::MyDatabaseId != pg_sys::InvalidOid };
    if SOURCE.load(Ordering::Relaxed) > pg_sys::GucSource::PGC_S_DATABASE || !sees_catalogs {
        return Ok(configured());
    }
    if let Some(entry) = entry() {
        return Ok(entry);
    }
    let nothing_is_set = SOURCE.load(Ordering::Relaxed) == pg_sys::GucSource::PGC_S_DEFAULT;
    let written_down = if nothing_is_set { written_down()? } else { None };
    Ok(written_down.unwrap_or_else(configured))
}

/// A model that one place of a query has read, and keeps while the query runs: a STABLE function gives the same answer
/// for the same input from a query's first row to its last.
pub(crate) struct Pinned {
    query: Query,
    model: String,
}

impl Pinned {
    pub(crate) fn new(model: String) -> Pinned {
        Pinned { query: Query::running(), model }
    }

    /// The model, if the query that it was read in still runs.
    pub(crate) fn model(&self) -> Option<&str> {
        (self.query == Query::running()).then_some(&self.model)
    }
}

/// The marks by which two queries that run at the same place differ, as PL/pgSQL runs its expressions.
#[derive(PartialEq, Eq)]
struct Query {
    assignments: u64,
    snapshot: (u64, pg_sys::CommandId, pg_sys::TransactionId, pg_sys::TransactionId),
}

impl Query {
    fn running() -> Query {
        // SAFETY: the active snapshot lives as long as it is active.
        let snapshot = unsafe {
            if pg_sys::ActiveSnapshotSet() {
                let snapshot = &*pg_sys::GetActiveSnapshot();
                (snapshot.snapXactCompletionCount, snapshot.curcid, snapshot.xmin, snapshot.xmax)
            } else {
                Default::default()
            }
        };
        Query { assignments: ASSIGNMENTS.load(Ordering::Relaxed), snapshot }
    }
}

/// The `GucSource` that last set this session's `clip.model`.
static SOURCE: AtomicU32 = AtomicU32::new(pg_sys::GucSource::PGC_S_DEFAULT);
/// How often this session's `clip.model` was set or restored.
static ASSIGNMENTS: AtomicU64 = AtomicU64::new(0);

/// Notes the source of a value beside it: PostgreSQL keeps both together through rollbacks and RESETs.
///
/// # Safety
/// Called by PostgreSQL as the check hook of `clip.model`.
unsafe extern "C-unwind" fn check(
    _value: *mut *mut c_char,
    extra: *mut *mut c_void,
    source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: a new allocation of the kind that PostgreSQL frees by itself, and a place for it.
    unsafe {
        #[cfg(feature = "pg15")]
        let note = libc::malloc(size_of_val(&source));
        #[cfg(not(feature = "pg15"))]
        let note = pg_sys::guc_malloc(pg_sys::LOG as i32, size_of_val(&source));
        if note.is_null() {
            return false;
        }
        note.cast::<pg_sys::GucSource::Type>().write(source);
        *extra = note;
    }
    true
}

/// # Safety
/// Called by PostgreSQL as the assign hook of `clip.model`, with the note of [`check`].
unsafe extern "C-unwind" fn assign(_value: *const c_char, extra: *mut c_void) {
    // SAFETY: null, or the note of the value that is assigned.
    if let Some(source) = unsafe { extra.cast::<pg_sys::GucSource::Type>().as_ref() } {
        SOURCE.store(*source, Ordering::Relaxed);
    }
    ASSIGNMENTS.fetch_add(1, Ordering::Relaxed);
}

/// `SHOW clip.model` shows the model that embeds, and the configured model where embedding is an error.
///
/// # Safety
/// Called by PostgreSQL as the show hook of `clip.model`.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn show() -> *const c_char {
    let name = name().unwrap_or_else(|_| configured());
    let shown = CString::new(encoding::to_server_lossy(&name)).unwrap_or_default();
    // SAFETY: copies a string into the current memory context.
    unsafe { pg_sys::pstrdup(shown.as_ptr()) }
}

thread_local! {
    static READ_AT: Cell<Option<Moment>> = const { Cell::new(None) };
    static READ: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A moment between two changes of the catalog, as this backend sees them: its transaction and command, and the
/// number of messages about other backends' changes that it has taken in, which it does whenever it locks a table.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Moment {
    transaction: pg_sys::TimestampTz,
    statement: pg_sys::TimestampTz,
    subtransaction: pg_sys::SubTransactionId,
    command: pg_sys::CommandId,
    messages: u64,
}

impl Moment {
    fn now() -> Moment {
        // SAFETY: plain reads of this backend's state, inside a transaction.
        unsafe {
            Moment {
                transaction: pg_sys::GetCurrentTransactionStartTimestamp(),
                statement: pg_sys::GetCurrentStatementStartTimestamp(),
                subtransaction: pg_sys::GetCurrentSubTransactionId(),
                command: pg_sys::GetCurrentCommandId(false),
                messages: pg_sys::SharedInvalidMessageCounter,
            }
        }
    }
}

/// Tells all sessions, once the transaction commits, that another model is written down for the database.
pub(crate) fn is_written_down(extension: &ExtensionSchema) {
    // SAFETY: the table is there: it was written to just now.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(extension.watches) };
    WRITTEN_READ_AT.set(None);
}

// When the model that is written down was read, as the number of messages about other backends' changes, see
// [`Moment`]. A transaction that writes reads it anew each time.
thread_local! {
    static WRITTEN_READ_AT: Cell<Option<u64>> = const { Cell::new(None) };
    static WRITTEN: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The model that is written down for the database, where there is one.
fn written_down() -> Result<Option<String>, Error> {
    // SAFETY: plain reads of this backend's state.
    let (messages, writes) = unsafe {
        let writes = pg_sys::GetTopTransactionIdIfAny() != pg_sys::InvalidTransactionId;
        (pg_sys::SharedInvalidMessageCounter, writes)
    };
    if writes || WRITTEN_READ_AT.get() != Some(messages) {
        // SHOW runs without a snapshot. That of the catalogs does not begin the transaction's own.
        // SAFETY: called inside a transaction; the snapshot is pushed and popped here, and by an abort.
        let model = unsafe {
            pg_sys::PushActiveSnapshot(pg_sys::GetCatalogSnapshot(pg_sys::InvalidOid));
            let model = read_written_down();
            pg_sys::PopActiveSnapshot();
            model
        };
        WRITTEN_READ_AT.set(None);
        WRITTEN.set(model?);
        // SAFETY: a plain read. Reading took in messages itself.
        let messages = unsafe { pg_sys::SharedInvalidMessageCounter };
        WRITTEN_READ_AT.set((!writes).then_some(messages));
    }
    Ok(WRITTEN.with_borrow(Clone::clone))
}

fn read_written_down() -> Result<Option<String>, Error> {
    let spi = Spi::connect()?;
    let extension = match ExtensionSchema::installed() {
        Installed::Here(extension) => extension,
        Installed::OtherVersion(version) => return Err(Error::OtherVersion(version)),
        Installed::Nothing => return Ok(None),
    };
    let row = act_as(extension.owner, || spi.run_kept(&watches_sql::database_model(&extension.schema), &[]))?;
    Ok(if row.len() > 0 { row.printed(1) } else { None })
}

/// The entry for this database, or else for all.
fn entry() -> Option<String> {
    if READ_AT.get() != Some(Moment::now()) {
        // SAFETY: a plain read of this backend's database.
        let database = unsafe { pg_sys::MyDatabaseId };
        let read = entry_of(database).or_else(|| entry_of(pg_sys::InvalidOid));
        READ.set(read);
        // Reading took in messages itself.
        READ_AT.set(Some(Moment::now()));
    }
    READ.with_borrow(Clone::clone)
}

/// The entry of `pg_db_role_setting` that holds for every role in a database, or in all of them.
fn entry_of(database: pg_sys::Oid) -> Option<String> {
    // As in PostgreSQL's catalog/pg_db_role_setting.h.
    const RELATION: u32 = 2964;
    const INDEX: u32 = 2965;
    const SET_DATABASE: pg_sys::AttrNumber = 1;
    const SET_ROLE: pg_sys::AttrNumber = 2;
    const COLUMNS: usize = 3;
    const SET_CONFIG: usize = 2;
    // SAFETY: the relation, its index and its columns are as above in all releases that are built for; the arrays have
    // an entry for each column; the value is copied out of the row before the scan ends.
    unsafe {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let relation = pg_sys::table_open(RELATION.into(), lock);
        let mut keys = [pg_sys::ScanKeyData::default(); 2];
        let columns = [(SET_DATABASE, database), (SET_ROLE, pg_sys::InvalidOid)];
        for (key, (column, oid)) in keys.iter_mut().zip(columns) {
            let equal = pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber;
            pg_sys::ScanKeyInit(key, column, equal, pg_sys::F_OIDEQ.into(), oid.into());
        }
        let scan = pg_sys::systable_beginscan(
            relation,
            INDEX.into(),
            true,
            std::ptr::null_mut(),
            2,
            keys.as_mut_ptr(),
        );
        let row = pg_sys::systable_getnext(scan);
        let mut entry = None;
        if !row.is_null() {
            let (mut values, mut nulls) = ([pg_sys::Datum::from(0); COLUMNS], [true; COLUMNS]);
            pg_sys::heap_deform_tuple(row, (*relation).rd_att, values.as_mut_ptr(), nulls.as_mut_ptr());
            if !nulls[SET_CONFIG] {
                entry = model_among(values[SET_CONFIG]);
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, lock);
        entry
    }
}

/// The value of `clip.model` in an array of `name=value`.
///
/// # Safety
/// `settings` is a `text[]`.
unsafe fn model_among(settings: pg_sys::Datum) -> Option<String> {
    const NAME: &CStr = c"clip.model";
    // SAFETY: the caller vouches for the array; its elements are not NULL.
    unsafe {
        let array = pg_sys::pg_detoast_datum(settings.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        let (mut datums, mut count) = (std::ptr::null_mut(), 0);
        let align = pg_sys::TYPALIGN_INT as c_char;
        pg_sys::deconstruct_array(
            array,
            pg_sys::TEXTOID,
            -1,
            false,
            align,
            &mut datums,
            std::ptr::null_mut(),
            &mut count,
        );
        let count = usize::try_from(count).expect("an array's length is not negative");
        (0..count).find_map(|index| {
            let setting = Bytes::new(*datums.add(index));
            let setting = String::from_utf8_lossy(setting.as_slice());
            let (name, value) = setting.split_once('=')?;
            name.as_bytes().eq_ignore_ascii_case(NAME.to_bytes()).then(|| value.to_owned())
        })
    }
}
