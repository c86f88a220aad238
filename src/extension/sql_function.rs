//! Exporting functions to SQL.

/// Exports a function to SQL by its name, with the V1 calling convention.
///
/// By hand and not by `#[pg_extern]`, because an image must be measured before it is detoasted, a result is pgvector's
/// type, and the SQL declaration stands in `sql/` in any case.
macro_rules! sql_function {
    ($(#[$doc:meta])* fn $name:ident($fcinfo:ident) $body:block) => {
        ::pastey::paste! {
            #[unsafe(no_mangle)]
            #[doc(hidden)]
            pub(crate) extern "C" fn [<pg_finfo_ $name>]() -> &'static ::pgrx::pg_sys::Pg_finfo_record {
                const V1: ::pgrx::pg_sys::Pg_finfo_record = ::pgrx::pg_sys::Pg_finfo_record { api_version: 1 };
                &V1
            }
        }

        $(#[$doc])*
        #[unsafe(no_mangle)]
        pub(crate) extern "C-unwind" fn $name($fcinfo: ::pgrx::pg_sys::FunctionCallInfo) -> ::pgrx::pg_sys::Datum {
            let body = move || -> Result<::pgrx::pg_sys::Datum, $crate::error::Error> { $body };
            // SAFETY: this is the outermost Rust frame below PostgreSQL: a panic ends here and becomes its ERROR.
            unsafe { $crate::report::guard(body) }
        }
    };
}
pub(crate) use sql_function;
