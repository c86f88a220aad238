//! Whether a row may lack its second vector, without a look at the rows.
//!
//! Before the switch, the migration has to know that no row lacks one. The switch keeps all other sessions away, so
//! it must not read the table for that. The table is read before, while other sessions write, and a trigger writes
//! down each transaction that leaves a row without a second vector. Always true: where [`exist_in_rows`] has not
//! seen a row that lacks one, the row's transaction is written down ([`are_noted`]), unless it is still under way;
//! the switch waits for it.

use pgrx::pg_sys;

use crate::error::Error;
use crate::owned::Pair;
use crate::spi::{Argument, Spi};
use crate::sql_function::sql_function;
use crate::watch::extension_schema::ExtensionSchema;
use crate::watch::next::NEXT_EMBEDDING;
use crate::watch::role::{act_as, read_as};

/// The trigger that calls `clip_note_gap` for rows without a second vector.
pub(super) const GAP_TRIGGER: &str = "clip_migration_gap";

sql_function! {
    /// `clip_note_gap() → trigger`, AFTER INSERT OR UPDATE, FOR EACH ROW
    fn clip_note_gap(fcinfo) {
        // SAFETY: PostgreSQL calls a trigger function with its trigger's data as the context; `flinfo` is that of the
        // running function.
        let (table, function) = unsafe {
            let context = (*fcinfo).context;
            if context.is_null() || !pgrx::is_a(context, pg_sys::NodeTag::T_TriggerData) {
                return Err(Error::NotAStatementTrigger);
            }
            let data = context.cast::<pg_sys::TriggerData>();
            ((*(*data).tg_relation).rd_id, (*(*fcinfo).flinfo).fn_oid)
        };
        let spi = Spi::connect()?;
        let extension = ExtensionSchema::of(function)?;
        // Only for a target: any role may make such a trigger on a table of its own.
        let note = format!(
            "INSERT INTO {0}.clip_migration_gaps (target, transaction)
            SELECT target, pg_current_xact_id() FROM {0}.clip_watches WHERE target = $1 ON CONFLICT DO NOTHING",
            extension.schema
        );
        act_as(extension.owner, || spi.run_kept(&note, &[Argument::oid(table)]).map(|_| ()))?;
        Ok(pg_sys::Datum::from(0))
    }
}

/// Deletes the notes of transactions: to be committed before the rows are looked at.
pub(super) fn forget(spi: &Spi, extension: &ExtensionSchema, target: pg_sys::Oid) -> Result<(), Error> {
    let forget = format!("DELETE FROM {}.clip_migration_gaps WHERE target = $1", extension.schema);
    act_as(extension.owner, || spi.run(&forget, &[Argument::oid(target)]).map(|_| ()))
}

/// Whether a transaction is written down.
pub(super) fn are_noted(spi: &Spi, extension: &ExtensionSchema, target: pg_sys::Oid) -> Result<bool, Error> {
    let noted = format!("SELECT FROM {}.clip_migration_gaps WHERE target = $1 LIMIT 1", extension.schema);
    act_as(extension.owner, || Ok(spi.run_now(&noted, &[Argument::oid(target)])?.len() > 0))
}

/// Whether a row lacks its second vector.
pub(super) fn exist_in_rows(spi: &Spi, pair: &Pair) -> Result<bool, Error> {
    let Pair { target, embedding, .. } = pair;
    let lacking = format!(
        "SELECT FROM {} AS t WHERE t.{embedding} IS NOT NULL AND t.{NEXT_EMBEDDING} IS NULL LIMIT 1",
        target.name
    );
    read_as(target.owner, || Ok(spi.run(&lacking, &[])?.len() > 0))
}
