//! Running SQL inside a trigger or a worker.
//!
//! PostgreSQL's own interface and not pgrx's wrapper, which has no transition tables and keeps every fetched row until
//! the end: a COPY of ten thousand photos must not be held in memory.
//!
//! Always true: a value leaves a row through an accessor that names its type, and that type is compared with the one
//! that the row has. What a statement says of a type is never taken on trust, because tables change.

use std::ffi::{CString, c_char, c_long};
use std::marker::PhantomData;
use std::rc::Rc;

use pgrx::{FromDatum, IntoDatum, pg_sys};

use crate::encoding;
use crate::error::Error;
use crate::kept_plans::{self, KeptPlan, Planning, Statement};
use crate::nested_settings::NestedSettings;
use crate::varlena::{self, Bytes};
use crate::vector;
use crate::watch::home::Home;

/// A connection to SPI, closed on drop.
pub(crate) struct Spi;

impl Spi {
    pub(crate) fn connect() -> Result<Spi, Error> {
        Spi::connect_with(0)
    }

    /// With options of `SPI_connect_ext`.
    pub(crate) fn connect_with(options: u32) -> Result<Spi, Error> {
        let options = i32::try_from(options).expect("bits of a small number");
        // SAFETY: called inside a transaction, as every SQL function is.
        checked(unsafe { pg_sys::SPI_connect_ext(options) })?;
        Ok(Spi)
    }

    /// Lets queries read the trigger's transition tables under their names.
    ///
    /// # Safety
    /// `trigger` is the data of the running trigger.
    pub(crate) unsafe fn register_transition_tables(
        &self,
        trigger: *mut pg_sys::TriggerData,
    ) -> Result<(), Error> {
        // SAFETY: the caller vouches for `trigger`.
        checked(unsafe { pg_sys::SPI_register_trigger_data(trigger) })
    }

    /// Runs a statement once.
    pub(crate) fn run(&self, sql: &str, arguments: &[Argument]) -> Result<Rows<'_>, Error> {
        self.execute(sql, arguments, false)
    }

    /// Runs a statement whose plan this backend keeps, and which PostgreSQL makes for the values at hand where that seems
    /// worth it.
    pub(crate) fn run_kept(&self, sql: &str, arguments: &[Argument]) -> Result<Rows<'_>, Error> {
        self.run_planned(sql, arguments, Planning::Any)
    }

    /// As [`Spi::run_kept`], of a statement that finds rows by an index.
    pub(crate) fn run_by_index(&self, sql: &str, arguments: &[Argument]) -> Result<Rows<'_>, Error> {
        self.run_planned(sql, arguments, Planning::OnceByIndex)
    }

    fn run_planned(&self, sql: &str, arguments: &[Argument], planning: Planning) -> Result<Rows<'_>, Error> {
        let types: Vec<pg_sys::Oid> = arguments.iter().map(|argument| argument.oid).collect();
        let values: Vec<Option<pg_sys::Datum>> = arguments.iter().map(|argument| argument.value).collect();
        self.prepare_with(sql, &types, planning)?.run(&values)
    }

    /// Runs a query once that is to find rows by an index, where there is one, and not by reading a whole table.
    pub(crate) fn run_through_indexes(&self, sql: &str, arguments: &[Argument]) -> Result<Rows<'_>, Error> {
        let _settings = by_index();
        self.run(sql, arguments)
    }

    /// Runs a query on what is committed by now, also in a transaction that keeps its snapshot.
    pub(crate) fn run_now(&self, sql: &str, arguments: &[Argument]) -> Result<Rows<'_>, Error> {
        // SAFETY: the snapshot is pushed and popped here; an error pops it with its transaction.
        unsafe {
            pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
            let rows = self.execute(sql, arguments, true);
            pg_sys::PopActiveSnapshot();
            rows
        }
    }

    /// As [`Spi::run_now`], of a query whose plan this backend keeps.
    pub(crate) fn run_now_kept(&self, sql: &str, arguments: &[Argument]) -> Result<Rows<'_>, Error> {
        let types: Vec<pg_sys::Oid> = arguments.iter().map(|argument| argument.oid).collect();
        let values: Vec<Option<pg_sys::Datum>> = arguments.iter().map(|argument| argument.value).collect();
        let plan = self.prepare_with(sql, &types, Planning::Any)?;
        // SAFETY: as in `run_now`.
        unsafe {
            pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
            let rows = plan.execute(&values, true);
            pg_sys::PopActiveSnapshot();
            rows
        }
    }

    /// One that is read-only sees the active snapshot.
    fn execute(&self, sql: &str, arguments: &[Argument], read_only: bool) -> Result<Rows<'_>, Error> {
        let sql = text_of(sql);
        let mut arguments = Arguments::new(arguments);
        // SAFETY: the three arrays have the same length and live through the call.
        checked(unsafe {
            pg_sys::SPI_execute_with_args(
                sql.as_ptr(),
                arguments.count(),
                arguments.types.as_mut_ptr(),
                arguments.values.as_mut_ptr(),
                arguments.nulls.as_ptr(),
                read_only,
                0,
            )
        })?;
        Ok(Rows::take())
    }

    /// Prepares an INSERT of values that is to be run many times. This backend keeps its plan, which is one whatever they are.
    pub(crate) fn prepare_insert(&self, sql: &str, types: &[pg_sys::Oid]) -> Result<Plan<'_>, Error> {
        self.prepare_with(sql, types, Planning::Once)
    }

    /// As [`Spi::prepare_insert`], of a query that finds rows by an index, where there is one. Its plan is right for a table of
    /// any size: it is made once, perhaps while the table is empty.
    pub(crate) fn prepare_look_up(&self, sql: &str, types: &[pg_sys::Oid]) -> Result<Plan<'_>, Error> {
        self.prepare_with(sql, types, Planning::OnceByIndex)
    }

    fn prepare_with(&self, sql: &str, types: &[pg_sys::Oid], planning: Planning) -> Result<Plan<'_>, Error> {
        let statement = Statement {
            text: sql.to_owned(),
            types: types.to_vec(),
            planning,
            of_trigger_on: pg_sys::InvalidOid,
        };
        let plan = kept_plans::plan_of(statement)?;
        Ok(Plan { plan, parameters: types.len(), planning, spi: PhantomData })
    }

    /// As [`Spi::open`], of a query whose plan is kept: one that reads a transition table of the trigger that runs on this
    /// table, and nothing else. How to do that does not depend on how many rows there are.
    pub(crate) fn open_kept(&self, sql: &str, trigger_on: pg_sys::Oid) -> Result<Cursor<'_>, Error> {
        let statement = Statement {
            text: sql.to_owned(),
            types: Vec::new(),
            planning: Planning::Once,
            of_trigger_on: trigger_on,
        };
        Ok(Cursor::of(kept_plans::plan_of(statement)?))
    }

    /// As [`Spi::open`], of a query that reads transition tables and finds rows of others by an index.
    pub(crate) fn open_on(&self, sql: &str, transition: Transition) -> Result<Cursor<'_>, Error> {
        if !transition.are_few {
            return self.open(sql);
        }
        let plan = kept_plans::plan_of(transition.statement(sql))?;
        make_by_index(&plan);
        Ok(Cursor::of(plan))
    }

    /// As [`Spi::run`], of a statement that reads transition tables and finds rows of others by an index.
    pub(crate) fn run_on(&self, sql: &str, transition: Transition) -> Result<Rows<'_>, Error> {
        if !transition.are_few {
            return self.run(sql, &[]);
        }
        let plan = kept_plans::plan_of(transition.statement(sql))?;
        Plan { plan, parameters: 0, planning: Planning::OnceByIndex, spi: PhantomData }.run(&[])
    }

    /// Opens a query whose rows are fetched one by one.
    pub(crate) fn open(&self, sql: &str) -> Result<Cursor<'_>, Error> {
        let sql = text_of(sql);
        // SAFETY: no parameters are passed.
        let portal = unsafe {
            pg_sys::SPI_cursor_open_with_args(
                std::ptr::null(),
                sql.as_ptr(),
                0,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                std::ptr::null(),
                false,
                0,
            )
        };
        Ok(Cursor { portal, _plan: None, spi: PhantomData })
    }
}

impl Drop for Spi {
    fn drop(&mut self) {
        // After an ERROR the transaction's end closes the connection, and portals are gone before.
        if !std::thread::panicking() {
            // SAFETY: this connection is the innermost: values that borrow from it are gone.
            unsafe { pg_sys::SPI_finish() };
        }
    }
}

/// Settings under which a statement is planned with an index where there is one that serves. Where there is none, PostgreSQL
/// before 18 takes the plan for so costly that it would compile it.
fn by_index() -> NestedSettings {
    let settings = NestedSettings::begin();
    settings.set(c"enable_seqscan", c"off");
    settings.set(c"jit", c"off");
    settings
}

/// Has a plan made with an index. A user's code that the statement runs sees the settings of the session.
fn make_by_index(plan: &KeptPlan) {
    let _settings = by_index();
    plan.make();
}

/// The transition tables of a trigger that runs.
#[derive(Clone, Copy)]
pub(crate) struct Transition {
    /// The table that the trigger is on.
    pub(crate) on: pg_sys::Oid,
    /// Whether they have so few rows that each way to join them is good. Only then is a plan kept: it is made for as many rows as
    /// there are.
    pub(crate) are_few: bool,
}

impl Transition {
    fn statement(self, sql: &str) -> Statement {
        Statement {
            text: sql.to_owned(),
            types: Vec::new(),
            planning: Planning::OnceByIndex,
            of_trigger_on: self.on,
        }
    }
}

/// A statement as the server reads it.
pub(crate) fn text_of(sql: &str) -> CString {
    CString::new(encoding::to_server(sql)).expect("our own statements have no NUL byte")
}

/// A parameter of a statement. `None` is NULL.
#[derive(Clone, Copy)]
pub(crate) struct Argument {
    pub(crate) oid: pg_sys::Oid,
    pub(crate) value: Option<pg_sys::Datum>,
}

impl Argument {
    pub(crate) fn oid(oid: pg_sys::Oid) -> Argument {
        Argument { oid: pg_sys::OIDOID, value: oid.into_datum() }
    }

    pub(crate) fn text(text: &str) -> Argument {
        Argument { oid: pg_sys::TEXTOID, value: Some(text_datum(text)) }
    }

    /// A text that need not be whole: a message of an error.
    pub(crate) fn message(message: &str) -> Argument {
        let value = Some(text_datum_of(&encoding::to_server_lossy(message)));
        Argument { oid: pg_sys::TEXTOID, value }
    }

    pub(crate) fn text_or_null(text: Option<&str>) -> Argument {
        Argument { oid: pg_sys::TEXTOID, value: text.map(text_datum) }
    }

    pub(crate) fn texts(texts: &[String]) -> Argument {
        let datums: Vec<Option<pg_sys::Datum>> = texts.iter().map(|text| Some(text_datum(text))).collect();
        Argument { oid: pg_sys::TEXTARRAYOID, value: Some(text_array(datums)) }
    }

    pub(crate) fn bool(value: bool) -> Argument {
        Argument { oid: pg_sys::BOOLOID, value: value.into_datum() }
    }

    pub(crate) fn int8(value: i64) -> Argument {
        Argument { oid: pg_sys::INT8OID, value: value.into_datum() }
    }

    pub(crate) fn float8(value: f64) -> Argument {
        Argument { oid: pg_sys::FLOAT8OID, value: value.into_datum() }
    }
}

/// A `text` in the current memory context.
pub(crate) fn text_datum(text: &str) -> pg_sys::Datum {
    text_datum_of(&encoding::to_server(text))
}

fn text_datum_of(bytes: &[u8]) -> pg_sys::Datum {
    let length = i32::try_from(bytes.len()).expect("a datum has at most 1 GB");
    // SAFETY: copies as many bytes as there are.
    unsafe { pg_sys::cstring_to_text_with_len(bytes.as_ptr().cast(), length).into() }
}

/// A `text[]` in the current memory context.
fn text_array(texts: Vec<Option<pg_sys::Datum>>) -> pg_sys::Datum {
    let mut values: Vec<pg_sys::Datum> = texts.into_iter().map(|text| text.unwrap_or(0.into())).collect();
    let count = i32::try_from(values.len()).expect("fewer elements than that");
    let align = c_char::try_from(pg_sys::TYPALIGN_INT).expect("ASCII");
    // SAFETY: the elements are texts of this length and alignment, none of them NULL.
    unsafe { pg_sys::construct_array(values.as_mut_ptr(), count, pg_sys::TEXTOID, -1, false, align).into() }
}

struct Arguments {
    types: Vec<pg_sys::Oid>,
    values: Vec<pg_sys::Datum>,
    nulls: Vec<c_char>,
}

impl Arguments {
    fn new(arguments: &[Argument]) -> Arguments {
        Arguments {
            types: arguments.iter().map(|argument| argument.oid).collect(),
            values: arguments.iter().map(|argument| argument.value.unwrap_or(0.into())).collect(),
            nulls: arguments.iter().map(|argument| null_mark(argument.value)).collect(),
        }
    }

    fn count(&self) -> i32 {
        i32::try_from(self.types.len()).expect("a handful of parameters")
    }
}

fn null_mark(value: Option<pg_sys::Datum>) -> c_char {
    let mark = if value.is_some() { b' ' } else { b'n' };
    c_char::try_from(mark).expect("ASCII")
}

/// A prepared statement.
pub(crate) struct Plan<'spi> {
    plan: Rc<KeptPlan>,
    parameters: usize,
    planning: Planning,
    spi: PhantomData<&'spi Spi>,
}

impl<'spi> Plan<'spi> {
    /// Runs the statement with a value for each of its parameters.
    pub(crate) fn run(&self, values: &[Option<pg_sys::Datum>]) -> Result<Rows<'spi>, Error> {
        self.execute(values, false)
    }

    /// One that is read-only sees the active snapshot.
    fn execute(&self, values: &[Option<pg_sys::Datum>], read_only: bool) -> Result<Rows<'spi>, Error> {
        assert_eq!(values.len(), self.parameters, "a value for each parameter");
        if self.planning == Planning::OnceByIndex {
            make_by_index(&self.plan);
        }
        let nulls: Vec<c_char> = values.iter().map(|value| null_mark(*value)).collect();
        let mut values: Vec<pg_sys::Datum> = values.iter().map(|value| value.unwrap_or(0.into())).collect();
        // SAFETY: the plan lives at least as long as this; both arrays have an entry for each parameter.
        checked(unsafe {
            pg_sys::SPI_execute_plan(self.plan.plan(), values.as_mut_ptr(), nulls.as_ptr(), read_only, 0)
        })?;
        Ok(Rows::take())
    }
}

/// An open query.
pub(crate) struct Cursor<'spi> {
    portal: pg_sys::Portal,
    /// Freed after the portal is closed.
    _plan: Option<Rc<KeptPlan>>,
    spi: PhantomData<&'spi Spi>,
}

impl<'spi> Cursor<'spi> {
    fn of(plan: Rc<KeptPlan>) -> Cursor<'spi> {
        // SAFETY: the plan has no parameters.
        let portal = unsafe {
            pg_sys::SPI_cursor_open(
                std::ptr::null(),
                plan.plan(),
                std::ptr::null_mut(),
                std::ptr::null(),
                false,
            )
        };
        Cursor { portal, _plan: Some(plan), spi: PhantomData }
    }

    /// The next row, or none at the end.
    pub(crate) fn next(&mut self) -> Option<Rows<'spi>> {
        const ONE: c_long = 1;
        // SAFETY: the portal was opened by this connection and is closed on drop only.
        unsafe { pg_sys::SPI_cursor_fetch(self.portal, true, ONE) };
        let rows = Rows::take();
        (rows.count > 0).then_some(rows)
    }
}

impl Drop for Cursor<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: as in `next`.
            unsafe { pg_sys::SPI_cursor_close(self.portal) };
        }
    }
}

/// The rows that a statement returned, freed on drop.
pub(crate) struct Rows<'spi> {
    table: *mut pg_sys::SPITupleTable,
    count: u64,
    spi: PhantomData<&'spi Spi>,
}

impl Rows<'_> {
    fn take<'spi>() -> Rows<'spi> {
        // SAFETY: SPI set both for the statement that was run last; from here on the table is ours to free.
        unsafe {
            let table = std::ptr::replace(&raw mut pg_sys::SPI_tuptable, std::ptr::null_mut());
            let count = if table.is_null() { 0 } else { pg_sys::SPI_processed };
            Rows { table, count, spi: PhantomData }
        }
    }

    /// How many rows there are; 0 for a statement that returns none.
    pub(crate) fn len(&self) -> u64 {
        self.count
    }

    /// A column of the first row, counted from 1, or `None` where it is NULL.
    pub(crate) fn get<T: Value>(&self, column: i32) -> Result<Option<T>, Error> {
        let found = self.type_of(column);
        if !T::TYPES.contains(&found) {
            return Err(Error::RowType { column, found });
        }
        // SAFETY: the value is of a type that `T` reads.
        Ok(self.datum(column).map(|datum| unsafe { T::read(datum) }))
    }

    /// A column of the first row that is of this type, or `None` where it is NULL. The value lives as long as these
    /// rows.
    pub(crate) fn value(&self, column: i32, wanted: pg_sys::Oid) -> Result<Option<pg_sys::Datum>, Error> {
        let found = self.type_of(column);
        if found != wanted {
            return Err(Error::RowType { column, found });
        }
        Ok(self.datum(column))
    }

    /// A `bytea` of the first row. The value lives as long as these rows.
    pub(crate) fn bytea(&self, column: i32) -> Result<Option<Varlena<'_>>, Error> {
        self.varlena(column, pg_sys::BYTEAOID)
    }

    /// A value of the first row that is of this type, a varlena. The value lives as long as these rows.
    pub(crate) fn varlena(&self, column: i32, wanted: pg_sys::Oid) -> Result<Option<Varlena<'_>>, Error> {
        let datum = self.value(column, wanted)?;
        Ok(datum.map(|datum| Varlena { datum, rows: PhantomData }))
    }

    /// A copy of a `vector` or a `halfvec` of the first row.
    pub(crate) fn vector(&self, column: i32, home: &Home) -> Result<Option<Vec<f32>>, Error> {
        let is_half = self.type_of(column) == home.halfvec_type;
        let Some(datum) = self.value(column, if is_half { home.halfvec_type } else { home.vector_type })?
        else {
            return Ok(None);
        };
        // SAFETY: the value is of that type of pgvector's, a varlena; detoasting gives it a long header.
        let values = unsafe {
            let copy = Bytes::copy(datum);
            if is_half { vector::from_half_datum(copy.datum()) } else { vector::from_datum(copy.datum()) }
        };
        values.map(Some).ok_or(Error::BrokenVector)
    }

    /// A column of the first row as its type prints it, or `None` where it is NULL.
    pub(crate) fn printed(&self, column: i32) -> Option<String> {
        assert!(self.count > 0, "there is a first row");
        self.printed_of(0, column)
    }

    /// A column of all rows as its type prints it.
    pub(crate) fn all_printed(&self, column: i32) -> Vec<Option<String>> {
        let rows = usize::try_from(self.count).expect("rows that fit into memory");
        (0..rows).map(|row| self.printed_of(row, column)).collect()
    }

    fn printed_of(&self, row: usize, column: i32) -> Option<String> {
        // SAFETY: the table has as many rows as `count` says; SPI takes the output function of the column's type and
        // returns null or a string in the current memory context.
        unsafe {
            let tuple = *(*self.table).vals.add(row);
            let text = pg_sys::SPI_getvalue(tuple, (*self.table).tupdesc, column);
            (!text.is_null()).then(|| {
                let owned = encoding::c_string(text);
                pg_sys::pfree(text.cast());
                owned
            })
        }
    }

    /// A column of all rows as its type prints it, in the encoding of the database.
    pub(crate) fn all_printed_raw(&self, column: i32) -> Vec<Option<CString>> {
        let rows = usize::try_from(self.count).expect("rows that fit into memory");
        // SAFETY: as in `printed_of`.
        let text = |row| unsafe {
            let tuple = *(*self.table).vals.add(row);
            let text = pg_sys::SPI_getvalue(tuple, (*self.table).tupdesc, column);
            (!text.is_null()).then(|| {
                let owned = std::ffi::CStr::from_ptr(text).to_owned();
                pg_sys::pfree(text.cast());
                owned
            })
        };
        (0..rows).map(text).collect()
    }

    /// A column of type `bytea` of a row, counted from 0; nothing where it is NULL or of another type.
    pub(crate) fn bytes(&self, row: usize, column: i32) -> Option<Vec<u8>> {
        if row as u64 >= self.count || self.type_of(column) != pg_sys::BYTEAOID {
            return None;
        }
        let mut is_null = false;
        // SAFETY: the table has such a row; the value is a bytea that lives as long as the rows.
        unsafe {
            let tuple = *(*self.table).vals.add(row);
            let value = pg_sys::SPI_getbinval(tuple, (*self.table).tupdesc, column, &mut is_null);
            (!is_null).then(|| Bytes::new(value).as_slice().to_vec())
        }
    }

    fn datum(&self, column: i32) -> Option<pg_sys::Datum> {
        assert!(self.count > 0, "there is a first row");
        let mut is_null = false;
        // SAFETY: the table has a first row; SPI checks the column's number.
        let value = unsafe {
            pg_sys::SPI_getbinval(*(*self.table).vals, (*self.table).tupdesc, column, &mut is_null)
        };
        (!is_null).then_some(value)
    }

    /// The type of a column.
    fn type_of(&self, column: i32) -> pg_sys::Oid {
        assert!(!self.table.is_null(), "the statement returned rows");
        // SAFETY: the descriptor is there with the table; SPI checks the column's number.
        unsafe { pg_sys::SPI_gettypeid((*self.table).tupdesc, column) }
    }
}

impl Drop for Rows<'_> {
    fn drop(&mut self) {
        if !self.table.is_null() && !std::thread::panicking() {
            // SAFETY: taken from SPI by the only constructor, and freed nowhere else.
            unsafe { pg_sys::SPI_freetuptable(self.table) };
        }
    }
}

/// A type of Rust's that a column can be read as.
pub(crate) trait Value {
    /// The types of columns that [`Value::read`] takes.
    const TYPES: &[pg_sys::Oid];

    /// # Safety
    /// `datum` is a non-null value of one of the types.
    unsafe fn read(datum: pg_sys::Datum) -> Self;
}

impl Value for bool {
    const TYPES: &[pg_sys::Oid] = &[pg_sys::BOOLOID];

    unsafe fn read(datum: pg_sys::Datum) -> bool {
        datum.value() != 0
    }
}

impl Value for i64 {
    const TYPES: &[pg_sys::Oid] = &[pg_sys::INT8OID];

    unsafe fn read(datum: pg_sys::Datum) -> i64 {
        // SAFETY: the caller vouches for the value, which is not NULL.
        unsafe { i64::from_datum(datum, false) }.unwrap_or_default()
    }
}

impl Value for f64 {
    const TYPES: &[pg_sys::Oid] = &[pg_sys::FLOAT8OID];

    unsafe fn read(datum: pg_sys::Datum) -> f64 {
        // SAFETY: the caller vouches for the value, which is not NULL.
        unsafe { f64::from_datum(datum, false) }.unwrap_or_default()
    }
}

impl Value for pg_sys::Oid {
    const TYPES: &[pg_sys::Oid] = &[pg_sys::OIDOID, pg_sys::REGCLASSOID];

    unsafe fn read(datum: pg_sys::Datum) -> pg_sys::Oid {
        pg_sys::Oid::from(u32::try_from(datum.value()).expect("an oid has 32 bits"))
    }
}

/// A `bytea` or a text of a row, perhaps a TOAST pointer.
#[derive(Clone, Copy)]
pub(crate) struct Varlena<'rows> {
    datum: pg_sys::Datum,
    rows: PhantomData<&'rows ()>,
}

impl Varlena<'_> {
    /// Its size in bytes, which does not read it.
    pub(crate) fn size(self) -> usize {
        // SAFETY: a non-null varlena of rows that are at hand, see `Rows::varlena`.
        unsafe { varlena::size(self.datum) }
    }

    /// Reads it.
    pub(crate) fn copy(self) -> Bytes {
        // SAFETY: as in `size`.
        unsafe { Bytes::copy(self.datum) }
    }

    /// Whether both hold the same bytes. Values of one TOAST pointer are not read.
    pub(crate) fn is_same_as(self, other: Varlena) -> bool {
        // SAFETY: as in `size`, of both.
        unsafe { varlena::same(self.datum, other.datum) }
    }
}

fn checked(code: i32) -> Result<(), Error> {
    if code < 0 { Err(Error::Spi(code)) } else { Ok(()) }
}
