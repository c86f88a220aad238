//! Taking a migration back.

use pgrx::pg_sys;

use super::by_number;
use super::column::{TOAST_TARGET, set_toast_target};
use super::gaps::{self, GAP_TRIGGER};
use super::task::NEXT_MODEL;
use crate::alone::ALONE;
use crate::owned::Table;
use crate::refusal::{Reason, refuse};
use crate::spi::Spi;
use crate::sql_function::sql_function;
use crate::watch::extension_schema::ExtensionSchema;
use crate::watch::next::{NEXT_EMBEDDING, Next, TRIGGER};
use crate::watch::registry::argument;
use crate::watch::registry::oid_of;
use crate::watch::role::act_as;

sql_function! {
    /// `clip_abandon_migration(target regclass) → void`
    fn clip_abandon_migration(fcinfo) {
        // SAFETY: SQL declares the function STRICT with this argument; `flinfo` is that of the running function.
        let (target, function) = unsafe {
            (argument(fcinfo, 0).map_or(pg_sys::InvalidOid, oid_of), (*(*fcinfo).flinfo).fn_oid)
        };
        let spi = Spi::connect()?;
        let table = Table::of_caller(target, ALONE)?;
        let extension = ExtensionSchema::of(function)?;
        if Next::of(&spi, &extension, target)?.is_none() {
            return Err(refuse(Reason::NotReady, format!("table {} is not being migrated", table.name)));
        }
        act_as(table.owner, || {
            for statement in [
                format!("DROP TRIGGER {TRIGGER} ON {}", table.name),
                format!("DROP TRIGGER IF EXISTS {GAP_TRIGGER} ON {}", table.name),
                format!("ALTER TABLE {} DROP COLUMN {NEXT_EMBEDDING}, DROP COLUMN {NEXT_MODEL}", table.name),
            ] {
                spi.run(&statement, &[])?;
            }
            set_toast_target(&spi, &table, TOAST_TARGET)?;
            by_number::check(&spi, &table, [&[], &[NEXT_EMBEDDING, NEXT_MODEL]], [&[], &[TRIGGER, GAP_TRIGGER]])
        })?;
        gaps::forget(&spi, &extension, target)?;
        Ok(pg_sys::Datum::from(0))
    }
}
