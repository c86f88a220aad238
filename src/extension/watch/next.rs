//! The model that a target is being moved to, and the vectors that it makes.
//!
//! A migration ([`crate::migration`]) gives the rows a second vector. Code that writes the vector of a photo writes
//! that one too, of the same bytes. So the rows without a second vector grow fewer, however fast other sessions
//! write.

use pg_clip_wire::Priority;
use pgrx::pg_sys;

use super::extension_schema::ExtensionSchema;
use super::identity::identity;
use super::role::act_as;
use crate::catalog::Table;
use crate::client::{self, Embedding, Input};
use crate::error::Error;
use crate::spi::{Argument, Spi};

/// The column of the second vector.
pub(crate) const NEXT_EMBEDDING: &str = "clip_next_embedding";
/// The trigger that takes a second vector away when only the first one changes. Its arguments say what the model is.
pub(crate) const TRIGGER: &str = "clip_migration";

/// The new model of a target.
#[derive(Clone)]
pub(crate) struct Next {
    pub(crate) model: String,
    pub(crate) identity: String,
}

impl Next {
    /// The new model that the trigger of a target names.
    pub(crate) fn of(
        spi: &Spi,
        extension: &ExtensionSchema,
        target: pg_sys::Oid,
    ) -> Result<Option<Next>, Error> {
        let arguments = [Argument::oid(target), Argument::oid(extension.oid)];
        let found = act_as(extension.owner, || {
            let row = spi.run_now(MODEL, &arguments)?;
            Ok::<_, Error>(if row.len() == 0 { None } else { row.printed(1).zip(row.printed(2)) })
        })?;
        Ok(found.map(|(model, identity)| Next { model, identity }))
    }

    /// As [`Next::of`], of a target that takes second vectors now, for a statement that writes to it.
    pub(super) fn to_write(
        spi: &Spi,
        extension: &ExtensionSchema,
        target: &Table,
    ) -> Result<Option<Next>, Error> {
        let takes_vectors = target.has_triggers
            && target.has_trigger(TRIGGER)
            && extension.vector_column(target, NEXT_EMBEDDING).is_ok();
        if takes_vectors { Next::of(spi, extension, target.oid) } else { Ok(None) }
    }

    /// The second vectors of images. None where an image has none: the migration looks for the rows without one,
    /// and says why. A user's write must not fail because of a model that is not in use yet.
    pub(crate) fn embed(&self, images: &[&[u8]], priority: Priority) -> Vec<Option<Vec<f32>>> {
        let inputs: Vec<Input> = images.iter().map(|image| Input::Image(image)).collect();
        match client::embed(&self.model, &inputs, priority) {
            Ok(answers) => {
                answers.into_iter().map(|answer| answer.ok().and_then(|of| self.vector(of))).collect()
            }
            Err(_) => images.iter().map(|_| None).collect(),
        }
    }

    /// The vector, if it is of this very model.
    fn vector(&self, embedding: Embedding) -> Option<Vec<f32>> {
        (identity(&self.model, &embedding.fingerprint) == self.identity).then_some(embedding.vector)
    }
}

/// Name and identity of the model that the trigger of table `$1` names. Its function is that of the extension `$2`.
const MODEL: &str = "
    SELECT split_part(arguments, E'\\\\000', 1), split_part(arguments, E'\\\\000', 2)
    FROM pg_trigger
    JOIN pg_proc AS forget ON forget.oid = tgfoid
        AND forget.proname = 'clip_forget_next_embedding' AND forget.pronargs = 0
    JOIN pg_depend AS member ON member.classid = 'pg_proc'::regclass AND member.objid = forget.oid
        AND member.refclassid = 'pg_extension'::regclass AND member.refobjid = $2 AND member.deptype = 'e'
    CROSS JOIN LATERAL encode(tgargs, 'escape') AS arguments
    WHERE tgrelid = $1 AND tgname = 'clip_migration'";
