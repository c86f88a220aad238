//! The task of a migration: a target, and the model that its trigger names.

use pgrx::pg_sys;

use crate::client;
use crate::current_model;
use crate::error::Error;
use crate::owned::{Pair, Side};
use crate::refusal::{Reason, refuse};
use crate::spi::Spi;
use crate::watch::extension_schema::ExtensionSchema;
use crate::watch::identity::identity;
use crate::watch::next::Next;

/// The second column that a migration adds, beside [`NEXT_EMBEDDING`](crate::watch::next::NEXT_EMBEDDING).
pub(super) const NEXT_MODEL: &str = "clip_next_model";

/// A target of the caller's, and the model that it is being moved to, where it is.
pub(super) struct Task {
    pub(super) extension: ExtensionSchema,
    pub(super) pair: Pair,
    pub(super) next: Option<Next>,
}

impl Task {
    /// `function` is the running one of the extension.
    pub(super) fn of(spi: &Spi, function: pg_sys::Oid, target: pg_sys::Oid) -> Result<Task, Error> {
        let extension = ExtensionSchema::of(function)?;
        let Some(pair) = Pair::of_caller(spi, &extension, Side::Target(target))? else {
            let name = name_of(target);
            return Err(refuse(
                Reason::NotReady,
                format!("table {name} takes the embeddings of no watched table of yours"),
            )
            .with_hint("Name the table with the embeddings. SELECT clip_watch('...') makes one."));
        };
        let next = Next::of(spi, &extension, target)?;
        Ok(Task { extension, pair, next })
    }

    /// Whether the vectors stay those of their model, and only their type changes.
    pub(super) fn is_conversion(&self) -> bool {
        self.next.as_ref().is_some_and(|next| self.pair.model.as_ref() == Some(&next.identity))
    }

    /// The new model; an error where the migration was abandoned.
    pub(super) fn next(&self) -> Result<&Next, Error> {
        self.next.as_ref().ok_or_else(|| {
            let target = &self.pair.target.name;
            refuse(Reason::NotReady, format!("the migration of table {target} was abandoned"))
        })
    }
}

/// An installed model by its name: its identity and its dimensions.
pub(super) fn describe(model: &str) -> Result<(String, u16), Error> {
    let model = current_model::checked_name(model)?;
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
