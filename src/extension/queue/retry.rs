//! Trying again what failed.

use pgrx::{IntoDatum, pg_sys};

use super::{sql, wake};
use crate::spi::{Argument, Spi};
use crate::sql_function::sql_function;
use crate::watch::extension_schema::ExtensionSchema;
use crate::watch::registry::{argument, check_owner, oid_of};
use crate::watch::role::act_as;

sql_function! {
    /// `clip_retry(source regclass, key text) → bigint`: how many photos are tried again. NULL means all.
    fn clip_retry(fcinfo) {
        // SAFETY: SQL declares the function with these arguments; `flinfo` is that of the running function.
        let (source, key, function) = unsafe {
            (argument(fcinfo, 0), argument(fcinfo, 1), (*(*fcinfo).flinfo).fn_oid)
        };
        let spi = Spi::connect()?;
        if let Some(source) = source {
            check_owner(oid_of(source))?;
        }
        // SAFETY: a plain read of the current role.
        let caller = unsafe { pg_sys::GetUserId() };
        let extension = ExtensionSchema::of(function)?;
        let arguments = [
            Argument { oid: pg_sys::OIDOID, value: source },
            Argument { oid: pg_sys::TEXTOID, value: key },
            Argument::oid(caller),
        ];
        let revived = act_as(extension.owner, || spi.run(&sql::revive(&extension.schema, source.is_none()), &arguments))?.len();
        if revived > 0 {
            wake::to_try_again_at_commit();
        }
        let revived = i64::try_from(revived).expect("fewer rows than that");
        Ok(revived.into_datum().unwrap_or(0.into()))
    }
}
