//! The schema that the names of a utility statement stand in.
//!
//! PostgreSQL does not analyze a utility statement, and so [`super::analysis`] does not see what its names stand for. Such a
//! statement of ours names a schema that has been looked up before, and that its owner can rename at any time. PostgreSQL
//! tells this module each schema that it looks a name up in: another one than that is refused before anything is done.

use std::cell::Cell;
use std::sync::Once;

use pgrx::pg_guard;
use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;

use crate::catalog::schema_name;
use crate::error::Error;

/// Has PostgreSQL call this module, from the first such statement of a process on: it looks names up more slowly then.
fn install_hook() {
    static INSTALL: Once = Once::new();
    // SAFETY: this is the only thread of the process, which looks no name up meanwhile; the hook is a function of this library, which
    // is never unloaded.
    INSTALL.call_once(|| unsafe {
        PREVIOUS.set(pg_sys::object_access_hook);
        pg_sys::object_access_hook = Some(on_access);
    });
}

/// Runs a statement that looks so many names up in a schema before it does anything. What users wrote may look up any name
/// afterwards.
pub(crate) fn in_schema<R>(schema: pg_sys::Oid, look_ups: u32, statement: impl FnOnce() -> R) -> R {
    install_hook();
    let _expected = Begun(EXPECTED.replace(Some(Expected { schema, look_ups })));
    statement()
}

#[derive(Clone, Copy)]
struct Expected {
    schema: pg_sys::Oid,
    look_ups: u32,
}

thread_local! {
    static PREVIOUS: Cell<pg_sys::object_access_hook_type> = const { Cell::new(None) };
    static EXPECTED: Cell<Option<Expected>> = const { Cell::new(None) };
}

/// Restores what was expected before, also where an error unwinds.
struct Begun(Option<Expected>);

impl Drop for Begun {
    fn drop(&mut self) {
        EXPECTED.set(self.0);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_access(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    part: std::ffi::c_int,
    argument: *mut std::ffi::c_void,
) {
    // SAFETY: the arguments are those that PostgreSQL gave for this very call.
    unsafe {
        if let Some(previous) = PREVIOUS.get() {
            pg_guard_ffi_boundary(|| previous(access, class, object, part, argument));
        }
    }
    let Some(Expected { schema, look_ups }) = EXPECTED.get() else {
        return;
    };
    // PostgreSQL's own schema is searched for whatever has no schema in its name, and has no namesake.
    let is_own = u32::from(object) == pg_sys::PG_CATALOG_NAMESPACE;
    if access != pg_sys::ObjectAccessType::OAT_NAMESPACE_SEARCH || is_own {
        return;
    }
    if object != schema {
        Error::Namesake(schema_name(object)).raise();
    }
    EXPECTED.set((look_ups > 1).then(|| Expected { schema, look_ups: look_ups - 1 }));
}
