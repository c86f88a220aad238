//! Settings for a moment.

use std::ffi::CStr;

use pgrx::pg_sys;

/// Settings that last as long as this, or up to the end of the (sub)transaction.
pub(crate) struct NestedSettings {
    level: i32,
}

impl NestedSettings {
    pub(crate) fn begin() -> NestedSettings {
        // SAFETY: opens a nest level of settings, which `drop` closes; an abort closes it too.
        NestedSettings { level: unsafe { pg_sys::NewGUCNestLevel() } }
    }

    /// Sets a setting that any role may set.
    pub(crate) fn set(&self, name: &CStr, value: &CStr) {
        // SAFETY: a setting of the server that any role may set, with a value that it takes.
        unsafe {
            pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
        }
    }
}

impl Drop for NestedSettings {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: the level that `begin` opened; levels that were opened since are closed.
            unsafe { pg_sys::AtEOXact_GUC(false, self.level) };
        }
    }
}
