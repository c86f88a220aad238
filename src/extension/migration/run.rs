//! The procedure: its steps, and its waits.

use std::time::{Duration, Instant};

use pgrx::pg_sys;

use super::batch::{self, Batch};
use super::check::{Needed, announce, check};
use super::column::Made;
use super::left_over::{self, LeftOver};
use super::switch::Switch;
use super::task::{Task, name_of};
use super::{by_reference, column, gaps, progress, required, stale, switch};
use crate::alone::alone;
use crate::concurrent_index;
use crate::error::Error;
use crate::owned::{Key, notice};
use crate::procedure::{Procedure, pause};
use crate::refusal::{Reason, refuse};
use crate::session_lock::{self, Work};
use crate::spi::Spi;
use crate::sql_function::sql_function;
use crate::varlena::Utf8;
use crate::wait;
use crate::watch::registry::oid_of;
use crate::watch::registry::{argument, check_owner};
use crate::watching::Storage;

/// Milliseconds between two looks at photos that the queue is to embed.
const QUEUE_POLL: i64 = 100;
const REPORT_EVERY: Duration = Duration::from_secs(10);

sql_function! {
    /// `clip_migrate(target regclass, model text, set_default bool, storage text)`
    fn clip_migrate(fcinfo) {
        // SAFETY: SQL declares the procedure with these arguments; a text is copied.
        let (procedure, target, model, set_default, storage) = unsafe {
            let text = |index| {
                argument(fcinfo, index).map(|text| Utf8::new(text).map(Utf8::into_string)).transpose()
            };
            let (model, storage) = (text(1)?, text(3)?);
            (Procedure::start(fcinfo)?, argument(fcinfo, 0), model, argument(fcinfo, 2), storage)
        };
        let (Some(target), Some(model), Some(set_default)) = (target, model, set_default) else {
            return Err(refuse(Reason::NullArgument, "table and model must be named"));
        };
        let migration = Migration {
            procedure: &procedure,
            target: oid_of(target),
            model: &model,
            set_default: set_default.value() != 0,
            storage: storage.as_deref().map(Storage::read).transpose()?,
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
    /// How the vectors are stored afterwards, where that is asked for.
    storage: Option<Storage>,
}

/// The sums of a round's batches.
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
        if needed == Needed::Nothing && !self.step(|spi| required::is_left(spi, self.target))? {
            return Ok(());
        }
        let needed = self.step(|spi| {
            if !session_lock::try_take(self.target, Work::Migration) {
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
        if needed == Needed::All {
            let (function, target) = (self.procedure.function(), self.target);
            self.alone(|spi, tables, patience| {
                Ok(column::add(spi, function, tables, (self.model, self.storage), patience)?.then_some(()))
            })?;
            // The notes that an earlier migration left.
            self.step(|spi| gaps::forget(spi, &self.task(spi)?.extension, target))?;
        }
        if needed != Needed::Nothing {
            self.move_all()?;
        }
        if self.step(|spi| required::is_left(spi, self.target))? {
            let (lock, check) = (pg_sys::ShareUpdateExclusiveLock, || check_owner(self.target));
            self.procedure
                .step_under(self.target, lock, check, |spi| required::validate(spi, self.target))?;
            self.alone(|spi, tables, patience| Ok(required::finish(spi, tables, patience)?.then_some(())))?;
        }
        session_lock::release(self.target, Work::Migration);
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

    fn check(&self, spi: &Spi) -> Result<Needed, Error> {
        check(spi, &self.task(spi)?, self.model, self.storage, self.set_default)
    }

    /// Does something for which no other session may use the target.
    fn alone<R>(
        &self,
        act: impl Fn(&Spi, [pg_sys::Oid; 2], u32) -> Result<Option<R>, Error>,
    ) -> Result<R, Error> {
        let tables = |spi: &Spi| {
            check_owner(self.target)?;
            Ok([self.task(spi)?.pair.source.oid, self.target])
        };
        alone(self.procedure, tables, act)
    }

    /// Fills the second column until it takes the place of the first.
    fn move_all(&self) -> Result<(), Error> {
        let (function, target) = (self.procedure.function(), self.target);
        // Of vectors that only change their type no photo is read.
        let (is_by_reference, is_conversion) = self.step(|spi| {
            let task = self.task(spi)?;
            Ok((task.pair.is_by_reference, task.is_conversion()))
        })?;
        let is_fed = is_by_reference && !is_conversion;
        let mut made: Option<Vec<Made>> = None;
        loop {
            let round = if is_fed { self.wait_for_feeder()? } else { self.round()? };
            if round.filled < round.seen && is_conversion {
                self.step(|_| wait::for_writers(target))?;
            } else if round.filled < round.seen {
                self.wait_for_left_over(&round)?;
            }
            if round.seen > 0 {
                continue;
            }
            let Some(indexes) = &made else {
                made = Some(self.build_indexes()?);
                continue;
            };
            self.step(|spi| gaps::forget(spi, &self.task(spi)?.extension, target))?;
            if self.step(|spi| gaps::exist_in_rows(spi, &self.task(spi)?.pair))? {
                if is_fed || is_conversion {
                    pause(QUEUE_POLL);
                } else {
                    self.wait_for_left_over(&Round::default())?;
                }
                continue;
            }
            // A transaction with an old snapshot would not see the new vectors after the switch.
            if !self.step(|_| wait::for_snapshots())? {
                continue;
            }
            let switched = self.alone(|spi, tables, patience| {
                match switch::switch(spi, function, tables, indexes, self.set_default, patience)? {
                    Switch::InUse => Ok(None),
                    switched => Ok(Some(switched)),
                }
            })?;
            match switched {
                Switch::Done => return Ok(()),
                Switch::IndexesLeft => made = None,
                Switch::RowsLeft | Switch::InUse => {}
            }
        }
    }

    /// Waits for the queue or for transactions, whichever the rows without a second vector wait for. An error where
    /// they wait for neither.
    fn wait_for_left_over(&self, round: &Round) -> Result<(), Error> {
        match self.step(|spi| left_over::check(spi, &self.task(spi)?, round.failure.as_deref()))? {
            LeftOver::Queued => {
                if self.step(|spi| stale::refresh(spi, &self.task(spi)?))? == 0 {
                    pause(QUEUE_POLL);
                }
            }
            LeftOver::Locked => {
                self.step(|_| wait::for_writers(self.target))?;
            }
        }
        Ok(())
    }

    /// Gives the second column the indexes of the first. Before the rows are filled, each row would be inserted into them by
    /// itself, which takes several times as long.
    fn build_indexes(&self) -> Result<Vec<Made>, Error> {
        let function = self.procedure.function();
        loop {
            let defined =
                self.alone(|spi, tables, patience| column::define_indexes(spi, function, tables, patience))?;
            let check = || check_owner(self.target);
            if concurrent_index::build(self.procedure, self.target, &defined.to_build, check)? {
                return Ok(defined.all);
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
