//! The procedure: its steps, and what they wait for.

use std::time::{Duration, Instant};

use pgrx::pg_sys;

use super::batch::{self, Batch};
use super::check::{Needed, announce, check};
use super::left_over::{self, LeftOver};
use super::switch::Switch;
use super::task::{Task, name_of};
use super::{by_reference, column, hold, progress, stale, switch, wait};
use crate::error::Error;
use crate::owned::{Key, notice};
use crate::procedure::{Procedure, pause};
use crate::refusal::{Reason, refuse};
use crate::spi::Spi;
use crate::sql_function;
use crate::varlena::Utf8;
use crate::watch::registry::oid_of;
use crate::watch::registry::{argument, check_owner};

/// Searches and writers wait for the switch at most so many milliseconds in a row: doubled at each attempt that failed.
const FIRST_PATIENCE: u32 = 50;
const MOST_PATIENCE: u32 = 800;
/// Milliseconds between two looks at photos that the queue is to embed.
const QUEUE_POLL: i64 = 100;
const REPORT_EVERY: Duration = Duration::from_secs(10);

sql_function! {
    /// `clip_migrate(target regclass, model text, set_default bool)`
    fn clip_migrate(fcinfo) {
        // SAFETY: SQL declares the procedure with these arguments; a text is copied.
        let (procedure, target, model, set_default) = unsafe {
            let model = argument(fcinfo, 1).map(|model| Utf8::new(model)).transpose()?.map(Utf8::into_string);
            (Procedure::start(fcinfo)?, argument(fcinfo, 0), model, argument(fcinfo, 2))
        };
        let (Some(target), Some(model), Some(set_default)) = (target, model, set_default) else {
            return Err(refuse(Reason::NullArgument, "table and model must be named"));
        };
        let migration = Migration {
            procedure: &procedure,
            target: oid_of(target),
            model: &model,
            set_default: set_default.value() != 0,
        };
        migration.run()?;
        Ok(pg_sys::Datum::from(0))
    }
}

struct Migration<'a> {
    procedure: &'a Procedure,
    target: pg_sys::Oid,
    model: &'a str,
    set_default: bool,
}

/// What the batches of a round did together.
#[derive(Default)]
struct Round {
    seen: u64,
    filled: u64,
    failure: Option<String>,
}

impl Migration<'_> {
    fn run(&self) -> Result<(), Error> {
        // Where a procedure cannot commit, it ends with this step, and holds nothing.
        let needed = self.step(|spi| self.check(spi))?;
        if needed == Needed::Nothing {
            return Ok(());
        }
        let needed = self.step(|spi| {
            if !hold::hold_migrations(self.target) {
                let message = format!("table {} is being migrated by another session", name_of(self.target));
                return Err(refuse(Reason::InUse, message));
            }
            // Another session may have come to an end meanwhile.
            let needed = self.check(spi)?;
            if needed != Needed::Nothing {
                announce(spi, &self.task(spi)?, self.model, self.set_default)?;
            }
            Ok(needed)
        })?;
        let mut patience = next_patience(FIRST_PATIENCE / 2);
        if needed == Needed::All {
            self.prepare(&mut patience)?;
        }
        if needed != Needed::Nothing {
            self.move_all(&mut patience)?;
        }
        hold::let_migrations_go(self.target);
        if needed != Needed::Nothing {
            notice(
                format!("table {} holds the vectors of model {} now", name_of(self.target), self.model),
                None,
            );
        }
        Ok(())
    }

    /// A step, for as long as the table is the caller's.
    fn step<R>(&self, body: impl FnOnce(&Spi) -> Result<R, Error>) -> Result<R, Error> {
        self.procedure.step(|spi| {
            check_owner(self.target)?;
            body(spi)
        })
    }

    fn task(&self, spi: &Spi) -> Result<Task, Error> {
        Task::of(spi, self.procedure.function(), self.target)
    }

    /// Source and target. The step of its own leaves no lock to be made stronger.
    fn tables(&self) -> Result<[pg_sys::Oid; 2], Error> {
        self.step(|spi| Ok([self.task(spi)?.pair.source.oid, self.target]))
    }

    fn check(&self, spi: &Spi) -> Result<Needed, Error> {
        check(spi, &self.task(spi)?, self.model, self.set_default)
    }

    fn prepare(&self, patience: &mut u32) -> Result<(), Error> {
        let (function, target) = (self.procedure.function(), self.target);
        loop {
            let tables = self.tables()?;
            if self.step(|spi| column::add(spi, function, tables, self.model, *patience))? {
                return Ok(());
            }
            self.step(|_| wait::for_users(target))?;
            *patience = next_patience(*patience);
        }
    }

    /// Fills the second column until it takes the place of the first.
    fn move_all(&self, patience: &mut u32) -> Result<(), Error> {
        let is_by_reference = self.step(|spi| Ok(self.task(spi)?.pair.is_by_reference))?;
        loop {
            let round = if is_by_reference { self.wait_for_feeder()? } else { self.round()? };
            if round.filled < round.seen {
                match self.step(|spi| left_over::check(spi, &self.task(spi)?, round.failure.as_deref()))? {
                    LeftOver::Queued => {
                        if self.step(|spi| stale::refresh(spi, &self.task(spi)?))? == 0 {
                            pause(QUEUE_POLL);
                        }
                    }
                    LeftOver::Locked => self.step(|_| wait::for_writers(self.target))?,
                }
            }
            // A transaction with an old snapshot would not see the new vectors after the switch.
            if round.seen > 0 || !self.step(|_| wait::for_snapshots())? {
                continue;
            }
            let tables = self.tables()?;
            let function = self.procedure.function();
            match self.step(|spi| switch::switch(spi, function, tables, self.set_default, *patience))? {
                Switch::Done => return Ok(()),
                Switch::RowsLeft if is_by_reference => {}
                Switch::RowsLeft => {
                    self.step(|spi| left_over::check(spi, &self.task(spi)?, None))?;
                }
                Switch::InUse => {
                    notice(format!("waiting for transactions that use table {}", name_of(self.target)), None);
                    self.step(|_| wait::for_users(self.target))?;
                    *patience = next_patience(*patience);
                }
            }
        }
    }

    /// Goes through all rows once.
    fn round(&self) -> Result<Round, Error> {
        let mut round = Round::default();
        let mut after: Option<Key> = None;
        let mut reported = Instant::now();
        loop {
            let Batch { last, seen, filled, failure } =
                self.step(|spi| batch::fill(spi, &self.task(spi)?, after.as_ref()))?;
            round.seen += seen;
            round.filled += filled;
            round.failure = round.failure.or(failure);
            if last.is_none() {
                return Ok(round);
            }
            after = last;
            if reported.elapsed() > REPORT_EVERY {
                self.report()?;
                reported = Instant::now();
            }
        }
    }

    /// Waits until a feeder has brought all photos.
    fn wait_for_feeder(&self) -> Result<Round, Error> {
        let mut reported = Instant::now();
        while self.step(|spi| by_reference::queue(spi, &self.task(spi)?))? > 0 {
            pause(QUEUE_POLL);
            if reported.elapsed() > REPORT_EVERY {
                self.report()?;
                reported = Instant::now();
            }
        }
        Ok(Round::default())
    }

    fn report(&self) -> Result<(), Error> {
        let [done, total] = self.step(|spi| progress::count(spi, &self.task(spi)?.pair))?;
        let (table, model) = (name_of(self.target), self.model);
        notice(format!("{done} of {total} rows of table {table} embedded with model {model}"), None);
        Ok(())
    }
}

/// Always below `deadlock_timeout`, so that no other transaction is chosen as the victim of a deadlock.
fn next_patience(patience: u32) -> u32 {
    // SAFETY: a plain read of a setting.
    let timeout = unsafe { pg_sys::DeadlockTimeout };
    (patience * 2).min(MOST_PATIENCE).min(u32::try_from(timeout).unwrap_or_default() * 4 / 5).max(1)
}
