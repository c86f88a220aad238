//! Acting as another role for a moment.
//!
//! A user's code (triggers, defaults, checks, types, operators, policies) runs with the rights of the owner of the
//! table that it belongs to, and never with those of the caller, of the reader of a view, or of a superuser that
//! the queue worker is: each access to a watched table or its target goes through [`act_as`] or [`read_as`].

use pgrx::pg_sys;

use crate::nested_settings::NestedSettings;
use crate::spi::ByName;

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
    let acting = Acting::start(role);
    acting.settings.set(c"row_security", c"off");
    let result = act();
    drop(acting);
    result
}

/// Settings under which each type prints a value as it can be read again anywhere, as pg_dump and postgres_fdw have it,
/// and the same whatever the session's are. They last as long as this, or up to the end of the (sub)transaction.
pub(crate) struct PortableOutput {
    _settings: NestedSettings,
}

impl PortableOutput {
    pub(crate) fn begin() -> PortableOutput {
        let settings = NestedSettings::begin();
        settings.set(c"datestyle", c"ISO");
        settings.set(c"intervalstyle", c"postgres");
        settings.set(c"extra_float_digits", c"3");
        settings.set(c"bytea_output", c"hex");
        settings.set(c"timezone", c"UTC");
        PortableOutput { _settings: settings }
    }
}

/// Runs `act` with [`PortableOutput`].
pub(crate) fn with_portable_output<R>(act: impl FnOnce() -> R) -> R {
    let _settings = PortableOutput::begin();
    act()
}

struct Acting {
    role_before: pg_sys::Oid,
    context_before: i32,
    settings: NestedSettings,
    /// Code of a user may have called, in whose statements names decide.
    _by_name: ByName,
}

impl Acting {
    fn start(role: pg_sys::Oid) -> Acting {
        let (mut role_before, mut context_before) = (pg_sys::InvalidOid, 0);
        // SAFETY: called inside a transaction; plain reads of this backend's state.
        unsafe { pg_sys::GetUserIdAndSecContext(&mut role_before, &mut context_before) };
        let settings = NestedSettings::begin();
        settings.set(c"search_path", c"pg_catalog, pg_temp");
        let restricted = pg_sys::SECURITY_LOCAL_USERID_CHANGE
            | pg_sys::SECURITY_RESTRICTED_OPERATION
            | pg_sys::SECURITY_NOFORCE_RLS;
        // SAFETY: called inside a transaction; `drop` or an abort restores what this changes.
        unsafe { pg_sys::SetUserIdAndSecContext(role, context_before | restricted as i32) };
        Acting { role_before, context_before, settings, _by_name: ByName::begin(false) }
    }
}

/// The settings are restored after it.
impl Drop for Acting {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: restores what `start` saved.
            unsafe { pg_sys::SetUserIdAndSecContext(self.role_before, self.context_before) };
        }
    }
}
