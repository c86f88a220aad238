//! Prepared statements.

use std::ffi::c_char;
use std::marker::PhantomData;
use std::rc::Rc;

use pgrx::pg_sys;

use super::analysis::Analyzed;
use super::argument::null_mark;
use super::by_index::make_by_index;
use super::kept_plans::{KeptPlan, Planning};
use super::rows::Rows;
use super::status::checked;
use crate::error::Error;

/// A prepared statement.
pub(crate) struct Plan<'spi> {
    plan: Rc<KeptPlan>,
    parameters: usize,
    planning: Planning,
    spi: PhantomData<&'spi ()>,
}

impl<'spi> Plan<'spi> {
    pub(super) fn of(plan: Rc<KeptPlan>, parameters: usize, planning: Planning) -> Plan<'spi> {
        Plan { plan, parameters, planning, spi: PhantomData }
    }

    /// Runs the statement with a value for each of its parameters.
    pub(crate) fn run(&self, values: &[Option<pg_sys::Datum>]) -> Result<Rows<'spi>, Error> {
        self.execute(values, false)
    }

    /// One that is read-only sees the active snapshot.
    pub(super) fn execute(
        &self,
        values: &[Option<pg_sys::Datum>],
        read_only: bool,
    ) -> Result<Rows<'spi>, Error> {
        assert_eq!(values.len(), self.parameters, "a value for each parameter");
        if self.planning == Planning::OnceByIndex {
            make_by_index(&self.plan);
        }
        let nulls: Vec<c_char> = values.iter().map(|value| null_mark(*value)).collect();
        let mut values: Vec<pg_sys::Datum> = values.iter().map(|value| value.unwrap_or(0.into())).collect();
        let _analyzed = Analyzed::begin(self.plan.text());
        // SAFETY: the plan lives at least as long as this; both arrays have an entry for each parameter.
        checked(unsafe {
            pg_sys::SPI_execute_plan(self.plan.plan(), values.as_mut_ptr(), nulls.as_ptr(), read_only, 0)
        })?;
        Ok(Rows::take())
    }
}
