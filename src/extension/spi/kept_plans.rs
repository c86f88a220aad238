//! Plans that this backend keeps from one transaction to the next.
//!
//! PostgreSQL itself sees to it that a kept plan is never out of date. Whatever it was made from (tables and their columns,
//! types, operators, functions, policies, schemas) sends a message to all backends when it changes, and the statement is then
//! analyzed anew from its text, as it is under another `search_path` or, with policies, another role. Rights are checked each
//! time it runs. So a kept plan does what the text would do; [`Analyzed`] sees to it that the text stands for what the caller
//! has looked up.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::rc::Rc;

use pgrx::pg_sys;

use super::{Analyzed, text_of};
use crate::error::Error;

/// The key under which a plan is kept.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Statement {
    pub(crate) text: String,
    /// The types of its parameters.
    pub(crate) types: Vec<pg_sys::Oid>,
    pub(crate) planning: Planning,
    /// The table whose trigger runs, where the statement reads transition tables: they have its columns. Else no table.
    pub(crate) of_trigger_on: pg_sys::Oid,
    /// Whether it stands for whatever its names say: see [`crate::spi::ByName`].
    pub(crate) is_by_name: bool,
}

/// How a statement is planned.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Planning {
    /// For the values at hand, or once for any, as PostgreSQL finds it cheaper.
    Any,
    /// Once, for any values.
    Once,
    /// Once, for any values and any number of rows in tables.
    OnceByIndex,
}

/// A plan that outlives its transaction, freed on drop.
pub(crate) struct KeptPlan {
    plan: pg_sys::SPIPlanPtr,
    text: CString,
}

impl KeptPlan {
    pub(crate) fn plan(&self) -> pg_sys::SPIPlanPtr {
        self.plan
    }

    /// The statement, as the server reads it.
    pub(crate) fn text(&self) -> &CStr {
        &self.text
    }

    /// Has the plan made now, under the settings of this moment, unless there is one for any values already. To be used on a
    /// connection to SPI.
    pub(crate) fn make(&self) {
        let _analyzed = Analyzed::begin(&self.text);
        // SAFETY: the plan was kept and has one statement; it is released as it was got.
        unsafe {
            let plan = pg_sys::SPI_plan_get_cached_plan(self.plan);
            if !plan.is_null() {
                pg_sys::ReleaseCachedPlan(plan, pg_sys::CurrentResourceOwner);
            }
        }
    }
}

impl Drop for KeptPlan {
    fn drop(&mut self) {
        // SAFETY: a plain read of this process's state.
        let is_ending = unsafe { pg_sys::proc_exit_inprogress };
        if !is_ending && !std::thread::panicking() {
            // SAFETY: the plan was kept by the only constructor, and is freed nowhere else.
            unsafe { pg_sys::SPI_freeplan(self.plan) };
        }
    }
}

/// A session that writes to one table after the other keeps no more plans than this.
const MOST: usize = 128;

#[derive(Default)]
struct Kept {
    plans: HashMap<Statement, (u64, Rc<KeptPlan>)>,
    /// Counts the uses: the plan that was used longest ago goes first.
    uses: u64,
}

thread_local! {
    static KEPT: RefCell<Kept> = RefCell::default();
}

/// The plan of a statement, for a connection to SPI.
pub(crate) fn plan_of(statement: Statement) -> Result<Rc<KeptPlan>, Error> {
    if let Some(plan) = KEPT.with_borrow_mut(|kept| kept.find(&statement)) {
        return Ok(plan);
    }
    let plan = Rc::new(prepare(&statement)?);
    // The plan that has to go is freed outside of the borrow.
    let gone = KEPT.with_borrow_mut(|kept| kept.add(statement, &plan));
    drop(gone);
    Ok(plan)
}

fn prepare(statement: &Statement) -> Result<KeptPlan, Error> {
    let options = match statement.planning {
        Planning::Any => 0,
        Planning::Once | Planning::OnceByIndex => pg_sys::CURSOR_OPT_GENERIC_PLAN,
    };
    let options = i32::try_from(options).expect("bits of a small number");
    let text = text_of(&statement.text);
    let mut types = statement.types.clone();
    let count = i32::try_from(types.len()).expect("a handful of parameters");
    let analyzed = Analyzed::begin(&text);
    // SAFETY: `types` has `count` entries; a plan that was prepared just now lives on, once it is kept, until it is freed.
    unsafe {
        let plan = pg_sys::SPI_prepare_cursor(text.as_ptr(), count, types.as_mut_ptr(), options);
        if plan.is_null() {
            return Err(Error::Spi(pg_sys::SPI_result));
        }
        drop(analyzed);
        match pg_sys::SPI_keepplan(plan) {
            0 => Ok(KeptPlan { plan, text }),
            code => Err(Error::Spi(code)),
        }
    }
}

impl Kept {
    fn find(&mut self, statement: &Statement) -> Option<Rc<KeptPlan>> {
        self.uses += 1;
        let (used, plan) = self.plans.get_mut(statement)?;
        *used = self.uses;
        Some(Rc::clone(plan))
    }

    /// Returns the plan that has to go.
    fn add(&mut self, statement: Statement, plan: &Rc<KeptPlan>) -> Option<Rc<KeptPlan>> {
        let gone = if self.plans.len() < MOST { None } else { self.remove_oldest() };
        self.plans.insert(statement, (self.uses, Rc::clone(plan)));
        gone
    }

    fn remove_oldest(&mut self) -> Option<Rc<KeptPlan>> {
        let oldest = self.plans.iter().min_by_key(|(_, (used, _))| *used)?.0.clone();
        self.plans.remove(&oldest).map(|(_, plan)| plan)
    }
}
