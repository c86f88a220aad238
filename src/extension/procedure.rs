//! A procedure that commits between its steps.
//!
//! Each step is a transaction of its own and looks everything up anew. A step keeps only Rust's values for the next
//! one: memory of PostgreSQL's is freed at its end.

use pgrx::pg_sys;

use crate::attempt::with_lock_timeout;
use crate::error::Error;
use crate::spi::Spi;

/// The running procedure.
pub(crate) struct Procedure {
    pub(crate) spi: Spi,
    function: pg_sys::Oid,
    memory: pg_sys::MemoryContext,
}

impl Procedure {
    /// # Safety
    /// `fcinfo` is that of a running procedure.
    pub(crate) unsafe fn start(fcinfo: pg_sys::FunctionCallInfo) -> Result<Procedure, Error> {
        // SAFETY: CALL passes its context; the memory context is a child of SPI's, which is deleted with it.
        unsafe {
            pg_sys::PreventCommandIfReadOnly(c"CALL".as_ptr());
            let context = (*fcinfo).context;
            let may_commit = !context.is_null()
                && pgrx::is_a(context, pg_sys::NodeTag::T_CallContext)
                && !(*context.cast::<pg_sys::CallContext>()).atomic;
            let options = if may_commit { pg_sys::SPI_OPT_NONATOMIC } else { 0 };
            let spi = Spi::connect_with(options)?;
            let memory = pg_sys::AllocSetContextCreateInternal(
                pg_sys::CurrentMemoryContext,
                c"a step of a procedure".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            );
            Ok(Procedure { spi, function: (*(*fcinfo).flinfo).fn_oid, memory })
        }
    }

    /// The running procedure's oid.
    pub(crate) fn function(&self) -> pg_sys::Oid {
        self.function
    }

    /// Runs a step and commits it. Where the procedure must not commit, in a function or in a transaction block, that
    /// is an error (2D000).
    pub(crate) fn step<R>(&self, body: impl FnOnce(&Spi) -> Result<R, Error>) -> Result<R, Error> {
        self.step_after(|| Ok(()), body)
    }

    /// A step under a lock on a table, for a caller that `check` accepts before and after the wait for it. The wait
    /// is as long as it takes, and holds no lock and no snapshot that the holder could wait for. The step sees the
    /// holder's commit.
    pub(crate) fn step_under<R>(
        &self,
        table: pg_sys::Oid,
        lock: u32,
        check: impl Fn() -> Result<(), Error>,
        body: impl FnOnce(&Spi) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let take = || {
            check()?;
            // SAFETY: any number may be locked; the transaction's end releases it.
            with_lock_timeout(0, || unsafe {
                pg_sys::InvalidateCatalogSnapshot();
                pg_sys::LockRelationOid(table, lock as pg_sys::LOCKMODE);
            });
            check()
        };
        self.step_after(take, body)
    }

    /// Runs a step whose snapshot is taken after the first part.
    fn step_after<R>(
        &self,
        first: impl FnOnce() -> Result<(), Error>,
        body: impl FnOnce(&Spi) -> Result<R, Error>,
    ) -> Result<R, Error> {
        // SAFETY: called between the statements of the procedure, in its transaction; the context lives as long as
        // the procedure, and nothing in it is used after the step.
        unsafe {
            // A step sees the commits of other sessions, whatever isolation level this session's transactions begin
            // with.
            if !pg_sys::FirstSnapshotSet {
                pg_sys::XactIsoLevel = pg_sys::XACT_READ_COMMITTED as i32;
            }
            let before = pg_sys::MemoryContextSwitchTo(self.memory);
            let result = first().and_then(|()| {
                pg_sys::EnsurePortalSnapshotExists();
                body(&self.spi)
            });
            pg_sys::MemoryContextSwitchTo(before);
            pg_sys::MemoryContextReset(self.memory);
            let result = result?;
            pg_sys::SPI_commit();
            Ok(result)
        }
    }
}

/// Waits between two steps, and serves interrupts.
pub(crate) fn pause(milliseconds: i64) {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: the latch is this process's own.
    unsafe {
        pg_sys::WaitLatch(pg_sys::MyLatch, events as i32, milliseconds, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    pgrx::check_for_interrupts!();
}
