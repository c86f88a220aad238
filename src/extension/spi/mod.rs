//! Running SQL inside a trigger or a worker.
//!
//! PostgreSQL's own interface and not pgrx's wrapper, which has no transition tables and keeps every fetched row until
//! the end: a COPY of ten thousand photos must not be held in memory.
//!
//! Always true: a value leaves a row through an accessor that names its type, and that type is compared with the
//! one that the row has. No code trusts a statement's word for a type, because tables change.

mod analysis;
mod argument;
mod by_index;
mod cursor;
mod in_schema;
mod kept_plans;
mod plan;
mod rows;
mod status;
mod text;
mod value;

use pgrx::pg_sys;

pub(crate) use self::analysis::{Analyzed, ByName, check_expression, install_hook};
pub(crate) use self::argument::Argument;
use self::argument::Arguments;
use self::by_index::{by_index, make_by_index};
pub(crate) use self::cursor::Cursor;
pub(crate) use self::in_schema::in_schema;
use self::kept_plans::{Planning, Statement};
pub(crate) use self::plan::Plan;
pub(crate) use self::rows::Rows;
use self::status::checked;
pub(crate) use self::text::{text_datum, text_of};
pub(crate) use self::value::Varlena;
use crate::error::Error;

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

    /// Runs a query on the rows committed by now, also in a transaction that keeps its snapshot.
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
        let _analyzed = Analyzed::begin(&sql);
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

    /// Prepares an INSERT of values that is to be run many times. This backend keeps its plan, which is the same
    /// for all values.
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
            is_by_name: ByName::is_begun(),
        };
        let plan = kept_plans::plan_of(statement)?;
        Ok(Plan::of(plan, types.len(), planning))
    }

    /// As [`Spi::open`], of a query whose plan is kept: one that reads a transition table of the trigger that runs
    /// on this table, and nothing else. The plan does not depend on the number of rows.
    pub(crate) fn open_kept(&self, sql: &str, trigger_on: pg_sys::Oid) -> Result<Cursor<'_>, Error> {
        let statement = Statement {
            text: sql.to_owned(),
            types: Vec::new(),
            planning: Planning::Once,
            of_trigger_on: trigger_on,
            is_by_name: ByName::is_begun(),
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
        Plan::of(plan, 0, Planning::OnceByIndex).run(&[])
    }

    /// Opens a query whose rows are fetched one by one.
    pub(crate) fn open(&self, sql: &str) -> Result<Cursor<'_>, Error> {
        let sql = text_of(sql);
        let _analyzed = Analyzed::begin(&sql);
        // SAFETY: no parameters are passed, and the cursor has the portal to itself.
        Ok(unsafe {
            Cursor::of_portal(pg_sys::SPI_cursor_open_with_args(
                std::ptr::null(),
                sql.as_ptr(),
                0,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                std::ptr::null(),
                false,
                0,
            ))
        })
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

/// The transition tables of a trigger that runs.
#[derive(Clone, Copy)]
pub(crate) struct Transition {
    /// The table that the trigger is on.
    pub(crate) on: pg_sys::Oid,
    /// Whether they have so few rows that each way to join them is good. Only then is a plan kept, because it is
    /// made for the present number of rows.
    pub(crate) are_few: bool,
}

impl Transition {
    fn statement(self, sql: &str) -> Statement {
        Statement {
            text: sql.to_owned(),
            types: Vec::new(),
            planning: Planning::OnceByIndex,
            of_trigger_on: self.on,
            is_by_name: ByName::is_begun(),
        }
    }
}
