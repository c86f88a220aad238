//! The procedure: its steps, and what they wait for.

use std::time::{Duration, Instant};

use pgrx::pg_sys;

use super::batch::{self, Batch};
use super::check::{Needed, announce, check};
use super::task::{Task, name_of};
use super::{column, hold, progress, switch, wait};
use crate::attempt::{attempt, of_a_lock, with_lock_timeout};
use crate::error::Error;
use crate::owned::{Key, notice};
use crate::procedure::Procedure;
use crate::refusal::{Reason, refuse};
use crate::spi::Spi;
use crate::sql_function;
use crate::varlena::Utf8;
use crate::watch::home::Home;
use crate::watch::registry::oid_of;
use crate::watch::registry::{argument, check_owner};

/// A search waits for the switch, and a writer for what comes before it, at most so many milliseconds in a row: doubled
/// at each attempt that failed, and always below deadlock_timeout, so that no other transaction is chosen as the victim.
const FIRST_PATIENCE: u32 = 50;
const MOST_PATIENCE: u32 = 800;
/// Of so many rows, a round is the last one before writers are held.
const FEW: u64 = 32;
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
        let mut patience = FIRST_PATIENCE;
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

    fn check(&self, spi: &Spi) -> Result<Needed, Error> {
        check(spi, &self.task(spi)?, self.model, self.set_default)
    }

    fn prepare(&self, patience: &mut u32) -> Result<(), Error> {
        let (function, target) = (self.procedure.function(), self.target);
        while !self.step(|spi| column::add(spi, function, target, self.model, *patience))? {
            self.step(|_| wait::for_users(target))?;
            *patience = (*patience * 2).min(MOST_PATIENCE);
        }
        Ok(())
    }

    /// Fills the second column until it takes the place of the first.
    fn move_all(&self, patience: &mut u32) -> Result<(), Error> {
        let mut seen_before = None;
        loop {
            let round = self.round()?;
            if round.filled < round.seen {
                self.step(|spi| batch::check_left_over(spi, &self.task(spi)?, round.failure.as_deref()))?;
            }
            // Once more, unless others write as fast as this fills.
            let has_caught_up = round.seen <= FEW || seen_before.is_some_and(|before| round.seen >= before);
            seen_before = Some(round.seen);
            if !has_caught_up {
                continue;
            }
            // A transaction with an old snapshot would not see the new vectors after the switch. The ones that have one
            // now are waited for while nothing waits for us; the ones that come are few, and are waited for while
            // writers wait.
            self.step(|_| wait::for_snapshots())?;
            if self.step(|_| self.hold_writers(*patience))? && self.switch(*patience)? {
                return Ok(());
            }
            notice(format!("waiting for transactions that use table {}", name_of(self.target)), None);
            self.step(|_| wait::for_users(self.target))?;
            *patience = (*patience * 2).min(MOST_PATIENCE);
        }
    }

    fn hold_writers(&self, patience: u32) -> Result<bool, Error> {
        let held = attempt(of_a_lock, || {
            with_lock_timeout(patience, || hold::hold_writers(self.target));
            Ok(())
        })?;
        Ok(held.is_ok())
    }

    /// What is left, and the switch, while writers are held; they are let go in any case.
    fn switch(&self, patience: u32) -> Result<bool, Error> {
        let (function, target) = (self.procedure.function(), self.target);
        let last = self.round()?;
        let is_ready = last.filled == last.seen
            && self.step(|spi| {
                let home = Home::of(spi, function)?;
                wait::for_snapshots_without_writers(spi, &home, target, patience)
            })?;
        self.step(|spi| {
            let switched = is_ready && switch::switch(spi, function, target, self.set_default, patience)?;
            hold::let_writers_go(target);
            Ok(switched)
        })
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

    fn report(&self) -> Result<(), Error> {
        let [done, total] = self.step(|spi| progress::count(spi, &self.task(spi)?))?;
        let (table, model) = (name_of(self.target), self.model);
        notice(format!("{done} of {total} rows of table {table} embedded with model {model}"), None);
        Ok(())
    }
}
