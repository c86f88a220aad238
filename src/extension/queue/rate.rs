//! How fast a session ends jobs, for `clip_backlog`.

use pgrx::pg_sys;

use super::sql;
use crate::error::Error;
use crate::spi::{Argument, Spi};
use crate::watch::extension_schema::ExtensionSchema;
use crate::watch::role::act_as;

/// Counts jobs of a source that this session has ended. The session writes a row of its own, last in a transaction:
/// a session that waits for a user's transaction then holds up no other session's count.
pub(super) fn count(
    spi: &Spi,
    extension: &ExtensionSchema,
    source: pg_sys::Oid,
    ended: u32,
) -> Result<(), Error> {
    if ended == 0 {
        return Ok(());
    }
    act_as(extension.owner, || {
        let counted = [Argument::oid(source), Argument::float8(f64::from(ended))];
        if spi.run_kept(&sql::count_ended(&extension.schema), &counted)?.len() == 0 {
            spi.run_kept(&sql::forget_rates(&extension.schema), &[])?;
            spi.run_kept(&sql::begin_to_count(&extension.schema), &counted[..1])?;
        }
        Ok(())
    })
}
