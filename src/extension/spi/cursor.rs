//! Queries whose rows are fetched one by one.

use std::ffi::c_long;
use std::marker::PhantomData;
use std::rc::Rc;

use pgrx::pg_sys;

use super::analysis::Analyzed;
use super::kept_plans::KeptPlan;
use super::rows::Rows;

/// An open query.
pub(crate) struct Cursor<'spi> {
    portal: pg_sys::Portal,
    /// Freed after the portal is closed.
    _plan: Option<Rc<KeptPlan>>,
    spi: PhantomData<&'spi ()>,
}

impl<'spi> Cursor<'spi> {
    /// Opens a query without parameters.
    pub(super) fn of(plan: Rc<KeptPlan>) -> Cursor<'spi> {
        let analyzed = Analyzed::begin(plan.text());
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
        drop(analyzed);
        Cursor { portal, _plan: Some(plan), spi: PhantomData }
    }

    /// Fetches from a portal that has its plan to itself.
    ///
    /// # Safety
    /// The innermost connection opened the portal just now.
    pub(super) unsafe fn of_portal(portal: pg_sys::Portal) -> Cursor<'spi> {
        Cursor { portal, _plan: None, spi: PhantomData }
    }

    /// The next row, or none at the end.
    pub(crate) fn next(&mut self) -> Option<Rows<'spi>> {
        const ONE: c_long = 1;
        // SAFETY: the portal was opened by this connection and is closed on drop only.
        unsafe { pg_sys::SPI_cursor_fetch(self.portal, true, ONE) };
        let rows = Rows::take();
        (rows.len() > 0).then_some(rows)
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
