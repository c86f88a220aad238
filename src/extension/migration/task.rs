//! What a migration is: a target, and what its trigger says.

use pgrx::pg_sys;

use crate::client;
use crate::error::Error;
use crate::owned::{Pair, Side};
use crate::refusal::{Reason, refuse};
use crate::settings;
use crate::spi::{Argument, Spi};
use crate::watch::home::Home;
use crate::watch::provenance::identity;
use crate::watch::role::act_as;

/// The columns that a migration adds.
pub(super) const NEXT_EMBEDDING: &str = "clip_next_embedding";
pub(super) const NEXT_MODEL: &str = "clip_next_model";
/// The trigger that takes a vector away when its photo changes.
pub(super) const TRIGGER: &str = "clip_migration";

/// A target of the caller's, and the model that it is being moved to, where it is.
pub(super) struct Task {
    pub(super) home: Home,
    pub(super) pair: Pair,
    pub(super) next: Option<Next>,
}

/// The new model.
pub(super) struct Next {
    pub(super) model: String,
    pub(super) identity: String,
}

impl Task {
    /// `function` is the running one of the extension.
    pub(super) fn of(spi: &Spi, function: pg_sys::Oid, target: pg_sys::Oid) -> Result<Task, Error> {
        let home = Home::of(spi, function)?;
        let Some(pair) = Pair::of_caller(spi, &home, Side::Target(target))? else {
            let name = name_of(target);
            return Err(refuse(
                Reason::NotReady,
                format!("table {name} takes the embeddings of no watched table of yours"),
            )
            .with_hint("Name the table with the embeddings. SELECT clip_watch('...') makes one."));
        };
        let next = next(spi, &home, function, target)?;
        Ok(Task { home, pair, next })
    }

    /// The new model; an error where another session abandoned the migration.
    pub(super) fn next(&self) -> Result<&Next, Error> {
        self.next.as_ref().ok_or_else(|| {
            let target = &self.pair.target.name;
            refuse(Reason::NotReady, format!("the migration of table {target} was abandoned"))
        })
    }
}

/// What the trigger of a target says.
pub(super) fn next(
    spi: &Spi,
    home: &Home,
    function: pg_sys::Oid,
    target: pg_sys::Oid,
) -> Result<Option<Next>, Error> {
    // The function is the extension's: it has the same schema as the running one, where its name is taken.
    let query = format!(
        "SELECT split_part(arguments, E'\\\\000', 1), split_part(arguments, E'\\\\000', 2)
        FROM pg_trigger
        JOIN pg_proc AS forget ON forget.oid = tgfoid
            AND forget.proname = 'clip_forget_next_embedding' AND forget.pronargs = 0
        JOIN pg_proc AS running ON running.oid = $2 AND running.pronamespace = forget.pronamespace
        CROSS JOIN LATERAL encode(tgargs, 'escape') AS arguments
        WHERE tgrelid = $1 AND tgname = '{TRIGGER}'"
    );
    act_as(home.owner, || {
        let row = spi.run_now(&query, &[Argument::oid(target), Argument::oid(function)])?;
        Ok(if row.len() == 0 { None } else { row.printed(1).zip(row.printed(2)) })
    })
    .map(|next| next.map(|(model, identity)| Next { model, identity }))
}

/// An installed model by its name: its identity and its dimensions.
pub(super) fn describe(model: &str) -> Result<(String, u16), Error> {
    let model = settings::checked_model_name(model)?;
    let description = client::describe(&model)?;
    Ok((identity(&model, &description.fingerprint), description.dimensions))
}

/// The name of a table without its schema.
pub(super) fn name_of(table: pg_sys::Oid) -> String {
    // SAFETY: returns null or a string in the current memory context.
    unsafe {
        let name = pg_sys::get_rel_name(table);
        if name.is_null() { u32::from(table).to_string() } else { crate::encoding::c_string(name) }
    }
}
