//! Building an index while other sessions write to the table, within a procedure.
//!
//! `CREATE INDEX` keeps writers away for as long as it reads the table, and `CREATE INDEX CONCURRENTLY` commits by itself, which
//! PostgreSQL refuses inside of a procedure. So its phases are here, each a step of the procedure, with the functions that
//! PostgreSQL itself does them with:
//!
//! 1. [`define`] makes the index's entry in the catalogs, neither ready nor valid, or [`empty`] makes that of a whole one so. Once all transactions that do not know of it
//!    have ended, no change of a row leaves the index out;
//! 2. the rows are read, and from then on writers add to the index;
//! 3. once all transactions that did not have ended, the rows that came meanwhile are added;
//! 4. once no transaction is left that could see a row that the index lacks, queries may use it.
//!
//! No lock is held between the steps, and none within them that keeps readers or writers away. PostgreSQL itself
//! holds one on the table from the first phase to the last. Here, VACUUM FULL would wait for that lock with a
//! snapshot that the last phase waits for. So other sessions may change the table and its indexes between two
//! steps: a command that writes the table or its indexes anew builds an index that is not valid, too, and makes it
//! valid. Each step that acts on an index takes the lock first, under which no other session changes the index's
//! entry in the catalogs, and looks then which work is left.
//!
//! No step goes on with half an index. What is left of a procedure that ends in between is an index that is not valid: no
//! query uses it, and the next attempt drops it or builds it. Writers go on to fill one that was ready.
//!
//! Expressions of an index run as the owner of its table, in a restricted operation: these functions see to it.

use std::ffi::CString;

use pgrx::pg_sys;

use crate::encoding;
use crate::error::Error;
use crate::owned::Table;
use crate::procedure::Procedure;
use crate::spi::{Argument, Spi, check_expression};
use crate::wait;
use crate::watch::extension_schema::ExtensionSchema;
use crate::watch::role::act_as;

unsafe extern "C-unwind" {
    /// `parser/parse_utilcmd.h`
    fn transformIndexStmt(
        table: pg_sys::Oid,
        statement: *mut pg_sys::IndexStmt,
        text: *const std::ffi::c_char,
    ) -> *mut pg_sys::IndexStmt;
}

/// Makes an index's entry in the catalogs, from a statement in SQL that was made from the definition of another index of the
/// table. Its expressions are analyzed anew, perhaps for a column of another type: they call nothing that the `model` does not, but
/// what statements of the owner may call. To be called with a lock on the table that keeps writers away; no row is read.
pub(crate) fn define(
    spi: &Spi,
    extension: &ExtensionSchema,
    table: &Table,
    statement: &str,
    model: pg_sys::Oid,
) -> Result<pg_sys::Oid, Error> {
    const KNOWN: &str = "SELECT DISTINCT refobjid FROM pg_depend
        WHERE classid = 'pg_class'::regclass AND objid = $1
            AND refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass)";
    let text =
        CString::new(encoding::to_server(statement)).expect("a definition of the catalog has no NUL byte");
    let index = act_as(table.owner, || {
        let known = spi.run(KNOWN, &[Argument::oid(model)])?.all_by_value(1, pg_sys::OIDOID)?;
        let known = known.into_iter().flatten().map(|number| pg_sys::Oid::from(number.value() as u32));
        Ok::<_, Error>(entry(table.oid, &text, &known.collect()))
    })?;
    set_unfinished(spi, extension, index)?;
    Ok(index)
}

/// Takes an index back to the state in which [`define`] leaves one: it stays in the catalogs with all that it has there, and is
/// empty. To be called with the strongest lock on its table and on itself.
pub(crate) fn empty(spi: &Spi, extension: &ExtensionSchema, index: pg_sys::Oid) -> Result<(), Error> {
    #[cfg(feature = "pg15")]
    use pg_sys::RelationSetNewRelfilenode as set_new_file;
    #[cfg(not(feature = "pg15"))]
    use pg_sys::RelationSetNewRelfilenumber as set_new_file;
    set_unfinished(spi, extension, index)?;
    // SAFETY: the index is locked and opened, and closed once this session is done with it; the other sessions are told of the
    // change. The end of the transaction removes the file of before, or the new one.
    unsafe {
        let relation = pg_sys::index_open(index, pg_sys::NoLock as pg_sys::LOCKMODE);
        pg_sys::CheckTableNotInUse(relation, c"CALL clip_backfill".as_ptr());
        set_new_file(relation, (*(*relation).rd_rel).relpersistence);
        pg_sys::CacheInvalidateRelcacheByRelid((*(*relation).rd_index).indrelid);
        pg_sys::index_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
    }
    Ok(())
}

fn set_unfinished(spi: &Spi, extension: &ExtensionSchema, index: pg_sys::Oid) -> Result<(), Error> {
    const UNFINISHED: &str =
        "UPDATE pg_index SET indisready = false, indisvalid = false, indcheckxmin = false
        WHERE indexrelid = $1";
    act_as(extension.owner, || spi.run(UNFINISHED, &[Argument::oid(index)]).map(|_| ()))
}

/// How far an index has come, by its entry in the catalogs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is not there any more, or is being dropped.
    Gone,
    Defined,
    /// Writers add to it.
    Ready,
    /// Queries use it.
    Valid,
}

/// Builds indexes that [`define`] has made or [`empty`] has emptied, one after the other. False where another session has dropped one of them: it is to be
/// defined again.
pub(crate) fn build(
    procedure: &Procedure,
    table: pg_sys::Oid,
    indexes: &[pg_sys::Oid],
    check: impl Fn() -> Result<(), Error>,
) -> Result<bool, Error> {
    let wait_for_writers = || -> Result<(), Error> {
        while !procedure.step(|_| wait::for_writers(table))? {}
        Ok(())
    };
    let wait_for_snapshots = || -> Result<(), Error> {
        while !procedure.step(|_| wait::for_snapshots())? {}
        Ok(())
    };
    for &index in indexes {
        // Acts where the index has come so far and no farther.
        let step = |state: State, act: &dyn Fn()| {
            procedure.step_under(table, pg_sys::ShareUpdateExclusiveLock, &check, |_| {
                let found = state_of(table, index);
                if found == state {
                    act();
                }
                Ok(found)
            })
        };
        wait_for_writers()?;
        // SAFETY: the table is locked, and all transactions know of the index, in which nothing is: a command that was to fill it
        // has ended with this procedure, or has made it valid. An error ends the transaction, and the command with it.
        let found = step(State::Defined, &|| unsafe {
            pg_sys::pgstat_progress_start_command(CREATE_INDEX, table);
            pg_sys::index_concurrently_build(table, index);
            pg_sys::pgstat_progress_end_command();
        })?;
        match found {
            State::Gone => return Ok(false),
            State::Valid => continue,
            State::Defined | State::Ready => wait_for_writers()?,
        }
        // SAFETY: the table is locked, and all transactions write to the index; the snapshot is registered and active as long as
        // it is used.
        let found = step(State::Ready, &|| unsafe {
            let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetTransactionSnapshot());
            pg_sys::PushActiveSnapshot(snapshot);
            pg_sys::validate_index(table, index, snapshot);
            pg_sys::PopActiveSnapshot();
            pg_sys::UnregisterSnapshot(snapshot);
        })?;
        match found {
            State::Gone | State::Defined => return Ok(false),
            State::Valid => continue,
            State::Ready => wait_for_snapshots()?,
        }
        // SAFETY: the lock keeps the table and the index from being dropped; other sessions are told of the change.
        let found = step(State::Ready, &|| unsafe {
            pg_sys::index_set_state_flags(index, pg_sys::IndexStateFlagsAction::INDEX_CREATE_SET_VALID);
            pg_sys::CacheInvalidateRelcacheByRelid(table);
        })?;
        if matches!(found, State::Gone | State::Defined) {
            return Ok(false);
        }
    }
    Ok(true)
}

const CREATE_INDEX: pg_sys::ProgressCommandType::Type =
    pg_sys::ProgressCommandType::PROGRESS_COMMAND_CREATE_INDEX;

/// To be called with a lock on the table that keeps other sessions from changing it.
fn state_of(table: pg_sys::Oid, index: pg_sys::Oid) -> State {
    // SAFETY: looks any number up in the catalogs; the row's first part is the struct of pg_index, and is read before it is
    // released.
    unsafe {
        let key = pg_sys::Datum::from(index);
        let row = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::INDEXRELID as i32, key);
        if row.is_null() {
            return State::Gone;
        }
        let entry = &*pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_index>();
        let state = match (entry.indrelid == table && entry.indislive, entry.indisready, entry.indisvalid) {
            (false, ..) => State::Gone,
            (true, true, true) => State::Valid,
            (true, true, false) => State::Ready,
            (true, false, _) => State::Defined,
        };
        pg_sys::ReleaseSysCache(row);
        state
    }
}

/// The entry of an index that CREATE INDEX as the current role would make, which calls nothing but what is `known` beside what the
/// role's own statements may call.
fn entry(table: pg_sys::Oid, text: &std::ffi::CStr, known: &Vec<pg_sys::Oid>) -> pg_sys::Oid {
    // SAFETY: the text is one CREATE INDEX on the table, which is locked; its parse tree is given to the functions as
    // PostgreSQL's own utility commands do it, and lives in the current memory context; an ERROR becomes a panic.
    unsafe {
        let parsed = (*(*pg_sys::pg_parse_query(text.as_ptr())).elements).ptr_value.cast::<pg_sys::RawStmt>();
        let statement = (*parsed).stmt.cast::<pg_sys::IndexStmt>();
        let statement =
            pg_sys::ffi::pg_guard_ffi_boundary(|| transformIndexStmt(table, statement, text.as_ptr()));
        check_expression((*statement).whereClause, known);
        let columns = (*statement).indexParams;
        for place in 0..usize::try_from((*columns).length).unwrap_or_default() {
            let column = (*(*columns).elements.add(place)).ptr_value.cast::<pg_sys::IndexElem>();
            check_expression((*column).expr, known);
        }
        let none = pg_sys::InvalidOid;
        let (check_rights, check_not_in_use, skip_build, quiet) = (true, true, true, true);
        #[cfg(feature = "pg15")]
        let index = pg_sys::DefineIndex(
            table,
            statement,
            none,
            none,
            none,
            false,
            check_rights,
            check_not_in_use,
            skip_build,
            quiet,
        );
        #[cfg(not(feature = "pg15"))]
        let index = pg_sys::DefineIndex(
            table,
            statement,
            none,
            none,
            none,
            -1,
            false,
            check_rights,
            check_not_in_use,
            skip_build,
            quiet,
        );
        index.objectId
    }
}
