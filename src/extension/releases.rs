//! The symbols that the SQL of this release and of earlier ones asks of the library.
//!
//! PostgreSQL looks for the symbol of a function when the function is created, and when it is called. So the library
//! exports each symbol that a released script names, also one that has no use any more. Without it, a database with an
//! earlier release could neither be created, nor moved by pg_upgrade, and a call between the installation of a release
//! and `ALTER EXTENSION pg_clip UPDATE` would end with "could not find function".
//!
//! A symbol keeps its arguments for ever: a function whose arguments change gets a new one.

use pgrx::{IntoDatum, pg_sys};

use crate::error::Error;
use crate::extensions::Extension;
use crate::sql_function::sql_function;
use crate::version::VERSION;

sql_function! {
    /// `clip_library_version() → text`, which scripts create for a moment: the release that the library is of.
    fn clip_library_version(_fcinfo) {
        Ok(VERSION.into_datum().unwrap_or(pg_sys::Datum::from(0)))
    }
}

/// Functions of earlier releases that say no more than how to update the extension.
macro_rules! functions_of_earlier_releases {
    ($($name:ident)*) => {
        $(sql_function! {
            fn $name(fcinfo) {
                // SAFETY: `flinfo` is that of the running function.
                let function = unsafe { (*(*fcinfo).flinfo).fn_oid };
                Err(Extension::of_function(function)
                    .map_or(Error::NoExtension, |extension| Error::OtherVersion(extension.version)))
            }
        })*
    };
}

// Of 0.1.0.
functions_of_earlier_releases! {
    clip_await_transactions
    clip_await_users
    clip_count_jobs
    clip_end_backfill
    clip_enqueue_missing
    clip_hold
    clip_let_go
    clip_model_dimensions
    clip_model_identity
    clip_note_backfill
    clip_register_watch
    clip_set_watch_model
    clip_snapshot_holders
    clip_unregister_watch
}
