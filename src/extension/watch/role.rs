//! Acting as another role for a moment.
//!
//! What a user wrote (triggers, defaults, checks, types, operators, policies) runs with the rights of the owner of the
//! table that it belongs to, and never with those of the caller, of the reader of a view, or of a superuser that the
//! queue worker is: each access to a watched table or its target goes through [`act_as`] or [`read_as`].

use std::ffi::CStr;

use pgrx::pg_sys;

/// Runs `act` as `role`, in a security-restricted operation and with `search_path = pg_catalog, pg_temp`, as
/// PostgreSQL itself does when it runs code that a table's owner controls (REFRESH, REINDEX, logical replication). As for
/// a foreign key's queries, FORCE ROW LEVEL SECURITY does not hide an owner's rows from the owner.
///
/// If `act` raises an ERROR, the end of the (sub)transaction restores the role and the settings.
pub(crate) fn act_as<R>(role: pg_sys::Oid, act: impl FnOnce() -> R) -> R {
    let acting = Acting::start(role);
    let result = act();
    drop(acting);
    result
}

/// As [`act_as`], with `row_security = off`: where a policy would hide rows from `role`, that is an error.
pub(crate) fn read_as<R>(role: pg_sys::Oid, act: impl FnOnce() -> R) -> R {
    act_as(role, || {
        set(c"row_security", c"off");
        act()
    })
}

/// Settings under which each type prints a value as it can be read again anywhere, as pg_dump and postgres_fdw have it,
/// and the same whatever the session's are. They last as long as this, or up to the end of the (sub)transaction.
pub(crate) struct PortableOutput {
    settings_level: i32,
}

impl PortableOutput {
    pub(crate) fn begin() -> PortableOutput {
        // SAFETY: opens a nest level of settings, which `drop` closes; an abort closes it too.
        let settings_level = unsafe { pg_sys::NewGUCNestLevel() };
        set(c"datestyle", c"ISO");
        set(c"intervalstyle", c"postgres");
        set(c"extra_float_digits", c"3");
        set(c"bytea_output", c"hex");
        set(c"timezone", c"UTC");
        PortableOutput { settings_level }
    }
}

impl Drop for PortableOutput {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: the level that `begin` opened; levels that were opened since are closed.
            unsafe { pg_sys::AtEOXact_GUC(false, self.settings_level) };
        }
    }
}

/// Runs `act` with [`PortableOutput`].
pub(crate) fn with_portable_output<R>(act: impl FnOnce() -> R) -> R {
    let _settings = PortableOutput::begin();
    act()
}

/// Sets a setting that any role may set, up to the end of the current nest level.
pub(crate) fn set(name: &CStr, value: &CStr) {
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

struct Acting {
    role_before: pg_sys::Oid,
    context_before: i32,
    settings_level: i32,
}

impl Acting {
    fn start(role: pg_sys::Oid) -> Acting {
        let mut acting = Acting { role_before: pg_sys::InvalidOid, context_before: 0, settings_level: 0 };
        // SAFETY: called inside a transaction; what is changed here is restored by `drop` or by an abort.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut acting.role_before, &mut acting.context_before);
            acting.settings_level = pg_sys::NewGUCNestLevel();
            set(c"search_path", c"pg_catalog, pg_temp");
            let restricted = pg_sys::SECURITY_LOCAL_USERID_CHANGE
                | pg_sys::SECURITY_RESTRICTED_OPERATION
                | pg_sys::SECURITY_NOFORCE_RLS;
            pg_sys::SetUserIdAndSecContext(role, acting.context_before | restricted as i32);
        }
        acting
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: restores what `start` saved, at the nest level that it opened.
            unsafe {
                pg_sys::AtEOXact_GUC(false, self.settings_level);
                pg_sys::SetUserIdAndSecContext(self.role_before, self.context_before);
            }
        }
    }
}
